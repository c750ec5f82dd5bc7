"""The rows of ``benchmarks/compression.py``, and the tables that are made of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from compression_variants import TEACHER, variants

RESULTS = Path(__file__).parent / "results" / "compression.json"
TIMES = Path(__file__).parent / "results" / "compression_times.json"
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile, by the number of folds


class Row(msgspec.Struct, frozen=True):
    """One model. ``metrics`` and ``versions`` are its manifest's; ``seconds`` are null where it was found made.

    ``shipped``: bytes of its weights as they ship; null of rows of before that was counted.
    """

    variant: str
    fold: int
    seed: int
    metrics: dict[str, float]
    seconds: float | None
    versions: dict[str, str]
    shipped: int | None = None
    parameters: int | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.variant, self.fold, self.seed)


class Timed(msgspec.Struct, frozen=True):
    """Files of fold 0 in bytes, MACs of a step, and microseconds of it in the faster engine."""

    variant: str
    file_bytes: dict[str, int]
    macs: int
    engine: str
    tight_p50: float | None
    paced_p50: float | None
    paced_p99: float | None


class Times(msgspec.Struct, frozen=True):
    """What was measured in one run, on one machine."""

    machine: str = ""
    rows: list[Timed] = []


def read() -> list[Row]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if RESULTS.is_file() else []


def write(rows: Sequence[Row]) -> None:
    _write(RESULTS, sorted(rows, key=lambda row: row.key))


def read_times() -> Times:
    return msgspec.json.decode(TIMES.read_bytes(), type=Times) if TIMES.is_file() else Times()


def write_times(times: Times) -> None:
    _write(TIMES, times)


def _write(file: Path, found: object) -> None:
    file.parent.mkdir(exist_ok=True)
    staging = file.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    staging.replace(file)


def by_fold(rows: Sequence[Row], variant: str, metric: str = "test_accuracy") -> dict[int, dict[int, float]]:
    """Percent, by fold and seed."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        if row.variant == variant:
            found.setdefault(row.fold, {})[row.seed] = 100 * row.metrics[metric]
    return found


def mean_and_spread(rows: Sequence[Row], variant: str, metric: str = "test_accuracy") -> tuple[float, float]:
    """Mean over the folds (each the mean over its seeds) and the deviation between them, in percent."""
    means = [statistics.mean(seeds.values()) for seeds in by_fold(rows, variant, metric).values()]
    return statistics.mean(means), statistics.stdev(means) if len(means) > 1 else float("nan")


class Difference(msgspec.Struct, frozen=True):
    """Points by which one variant is better than another: mean over folds, half the 95 % interval, pairs counted."""

    mean: float
    half: float
    pairs: int
    better: int


def paired(rows: Sequence[Row], variant: str, other: str, metric: str = "test_accuracy") -> Difference | None:
    ours, theirs = by_fold(rows, variant, metric), by_fold(rows, other, metric)
    differences = {
        fold: [ours[fold][seed] - theirs[fold][seed] for seed in ours[fold] if seed in theirs.get(fold, {})]
        for fold in ours
    }
    means = [statistics.mean(points) for points in differences.values() if points]
    if len(means) < 2:
        return None
    every = [point for points in differences.values() for point in points]
    half = STUDENT_T[len(means)] * statistics.stdev(means) / len(means) ** 0.5
    return Difference(statistics.mean(means), half, len(every), sum(point > 0 for point in every))


def tables(rows: Sequence[Row], times: Times) -> str:
    """One table a family, its first row the model that the others are compared with."""
    timed = {each.variant: each for each in times.rows}
    lines = []
    for family in dict.fromkeys(variant.family for variant in variants().values()):
        names = [name for name, variant in variants().items() if variant.family == family and by_fold(rows, name)]
        if names:
            lines += [f"**{family}**", "", *HEAD, *(_line(rows, timed.get(name), name, family) for name in names), ""]
    if unrun := [name for name in variants() if not by_fold(rows, name)]:
        lines += [f"Not run yet: {', '.join(unrun)}.", ""]
    if times.rows:
        lines += [f"Files and steps: fold 0, {times.machine}.", ""]
    return "\n".join(lines)


COLUMNS = (
    *("model", "folds × seeds", "accuracy", "macro-F1", "points against float32", "shipped, kB", "smaller"),
    *("file, kB", "MACs", "paced p50, us"),
)
HEAD = (f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1))


def _line(rows: Sequence[Row], timed: Timed | None, name: str, family: str) -> str:
    own = by_fold(rows, name)
    seeds = len({seed for found in own.values() for seed in found})
    scores = [
        f"{mean:.1f} ± {sd:.1f}"
        for mean, sd in (mean_and_spread(rows, name, f"test_{metric}") for metric in ("accuracy", "macro_f1"))
    ]
    of = paired(rows, name, family, "test_macro_f1") if name != family else None
    against = f"{of.mean:+.2f} ± {of.half:.2f}" if of else ""
    shipped, whole = _shipped(rows, name), _shipped(rows, TEACHER)
    size = f"{shipped / 1e3:.1f}" if shipped else ""
    smaller = f"{whole / shipped:.1f} ×" if shipped and whole and name != TEACHER else ""
    cells = [variants()[name].shown, f"{len(own)} × {seeds}", *scores, against, size, smaller, *_cells(timed)]
    return f"| {' | '.join(cells)} |"


def _shipped(rows: Sequence[Row], name: str) -> float:
    """Mean bytes as shipped, over the rows that say; 0 of none."""
    found = [row.shipped for row in rows if row.variant == name and row.shipped]
    return statistics.mean(found) if found else 0.0


def _cells(timed: Timed | None) -> tuple[str, str, str]:
    """The smaller file, MACs, and the time of a step."""
    if timed is None:
        return ("", "", "")
    time = f"{timed.paced_p50:.0f}" if timed.paced_p50 is not None else ""
    return (f"{min(timed.file_bytes.values()) / 1e3:.1f}", f"{timed.macs:,}", time)
