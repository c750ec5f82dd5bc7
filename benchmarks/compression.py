"""What compression costs in accuracy: distilled against plain, int8 against float, over folds and seeds, resumable.

    python benchmarks/compression.py --seeds 3      # runs what is missing, then prints the tables
    python benchmarks/compression.py --table        # prints the tables only

One row a model in ``benchmarks/results/compression.json``, with its accuracy per frame on the two test subjects, after
the first 2 s of each recording. All of a fold share one teacher (seed 0). Differences are paired: the same fold, the
same seed, the same people; a fold's difference is the mean over its seeds, and the interval is Student's over the
folds, which are what is independent. Whatever is chosen is chosen on the validation subject.

Model folders are kept in ``--work``, so that an interrupted run goes on, and quantizes what it has trained.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

RESULTS = Path(__file__).parent / "results" / "compression.json"
DATA = "spar_watch"
FOLDS = 5
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile, by the number of folds
# Each variant: what it is made from, and the stage with its arguments. "fold" ones are made once a fold, with seed 0.
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "teacher": ("", "train", {"preset": "teacher"}),
    "lmu": ("", "train", {"preset": "lmu"}),
    "lmu-distilled": ("teacher", "distill", {"preset": "lmu"}),
    "lmu-ptq": ("lmu", "quantize", {"method": "ptq"}),
    "lmu-qat": ("lmu", "quantize", {"method": "qat"}),
    "lmu-distilled-ptq": ("lmu-distilled", "quantize", {"method": "ptq"}),
    "lmu-distilled-qat": ("lmu-distilled", "quantize", {"method": "qat"}),
    "lmu-ptq-state8": ("lmu", "quantize", {"method": "ptq", "state": "int8"}),
    "gru": ("", "train", {"preset": "gru"}),
    "gru-ptq": ("gru", "quantize", {"method": "ptq"}),
    "gru-qat": ("gru", "quantize", {"method": "qat"}),
    "gru-ptq-state8": ("gru", "quantize", {"method": "ptq", "state": "int8"}),
}
ONE_SEED = ("teacher",)
PAIRS = (
    ("lmu-distilled", "lmu"),
    ("lmu-ptq", "lmu"),
    ("lmu-qat", "lmu"),
    ("lmu-ptq-state8", "lmu"),
    ("lmu-distilled-ptq", "lmu-distilled"),
    ("lmu-distilled-qat", "lmu-distilled"),
    ("gru-ptq", "gru"),
    ("gru-qat", "gru"),
    ("gru-ptq-state8", "gru"),
)


class Row(msgspec.Struct, frozen=True):
    """One model. ``metrics`` and ``versions`` are its manifest's; ``seconds`` are null where it was found made."""

    variant: str
    fold: int
    seed: int
    metrics: dict[str, float]
    seconds: float | None
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.variant, self.fold, self.seed)


def place(work: Path, variant: str, fold: int, seed: int) -> Path:
    return work / f"{variant}-fold{fold}-seed{0 if variant in ONE_SEED else seed}"


def make(work: Path, variant: str, fold: int, seed: int) -> Folder:
    from edgeseq.quant.distill_stage import distill
    from edgeseq.quant.quantize_stage import quantize
    from edgeseq.training.stage import train

    source, stage, arguments = VARIANTS[variant]
    out, origin = place(work, variant, fold, seed), place(work, source, fold, seed)
    seed = 0 if variant in ONE_SEED else seed
    if stage == "train":
        return train(DATA, out, seed=seed, fold=fold, **arguments)
    if stage == "distill":
        return distill([origin], out, seed=seed, **arguments)
    return quantize(origin, out, seed=seed, **arguments)


def chain(task: tuple[str, int, int, tuple[str, ...]]) -> list[Row]:
    """All variants of one fold and seed, in order: each is made from an earlier one."""
    work, fold, seed, variants = Path(task[0]), *task[1:]
    rows = []
    for variant in variants:
        rows.append(found_or_made(work, variant, fold, seed))
        print(f"{variant} fold {fold} seed {seed}: {100 * rows[-1].metrics['test_accuracy']:.1f} %", file=sys.stderr)
    return rows


def found_or_made(work: Path, variant: str, fold: int, seed: int) -> Row:
    started, seconds = time.monotonic(), None
    try:
        folder = open_folder(place(work, variant, fold, seed))
    except InputError:
        folder = make(work, variant, fold, seed)
        seconds = round(time.monotonic() - started, 1)
    return Row(variant, fold, seed, folder.manifest.metrics, seconds, folder.manifest.lineage[-1].versions)


def read() -> list[Row]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if RESULTS.is_file() else []


def write(rows: Sequence[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    staging = RESULTS.with_suffix(".new")
    ordered = sorted(rows, key=lambda row: row.key)
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(RESULTS)


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


def paired(rows: Sequence[Row], variant: str, other: str) -> Difference | None:
    ours, theirs = by_fold(rows, variant), by_fold(rows, other)
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


def tables(rows: Sequence[Row]) -> str:
    lines = ["| model | folds × seeds | accuracy | macro-F1 | smoothed | by fold |", "|---|---:|---:|---:|---:|---|"]
    for variant in VARIANTS:
        own = by_fold(rows, variant)
        if not own:
            continue
        cells = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in (
            mean_and_spread(rows, variant, metric)
            for metric in ("test_accuracy", "test_macro_f1", "test_accuracy_smoothed")
        )]  # fmt: skip
        folds = " ".join(f"{statistics.mean(own[fold].values()):.0f}" for fold in sorted(own))
        seeds = len({seed for found in own.values() for seed in found})
        lines.append(f"| {variant} | {len(own)} × {seeds} | {' | '.join(cells)} | {folds} |")
    lines += ["", "| difference | points, 95 % interval | better in |", "|---|---:|---:|"]
    for variant, other in PAIRS:
        found = paired(rows, variant, other)
        if found:
            lines.append(
                f"| {variant} − {other} | {found.mean:+.2f} ± {found.half:.2f} | {found.better} of {found.pairs} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, run nothing")
    parsed = parser.parse_args()
    rows = read()
    if not parsed.table:
        rows = run_missing(parsed, rows)
    print(tables(rows))


def run_missing(parsed: Any, rows: list[Row]) -> list[Row]:
    parsed.work.mkdir(parents=True, exist_ok=True)
    done = {row.key for row in rows}
    tasks = []
    for seed in range(parsed.seeds):
        for fold in parsed.folds:
            wanted = [v for v in VARIANTS if v in parsed.variants and not (seed and v in ONE_SEED)]
            if any((variant, fold, seed) not in done for variant in wanted):
                tasks.append((str(parsed.work), fold, seed, tuple(wanted)))
    with ProcessPoolExecutor(parsed.jobs) as pool:
        for finished in as_completed([pool.submit(chain, task) for task in tasks]):
            # A row that is there stays: its folder was only opened again, for what is made from it.
            rows = [*rows, *(row for row in finished.result() if row.key not in done)]
            write(rows)
    return rows


if __name__ == "__main__":
    main()
