"""The rows of ``benchmarks/results/accuracy.json``, and the table that they make of a data set."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
OFFICIAL = -1  # in place of the number of a fold: the data set's own split


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run. Accuracies are shares of frames; ``smoothed`` ones those of the answer averaged over 1 s.

    Of the ``task`` "segment" they are shares of segments, which have one answer each and nothing to smooth. ``fold``:
    -1 is the official split. ``test``: the subjects, or groups of recordings, that were tested on. ``seconds``: of
    loading, training and scoring; 0 where the model was found trained and nobody knows. ``events``: how changes of the
    label were followed on the test subjects (:mod:`edgeseq.events`) "before" ``edgeseq tune`` and "after".
    """

    data: str
    model: str
    fold: int
    seed: int
    test: list[str]
    accuracy: float
    macro_f1: float
    smoothed_accuracy: float | None
    smoothed_macro_f1: float | None
    validation_macro_f1: float | None
    parameters: int | None
    seconds: float
    recipe: str
    machine: str
    versions: dict[str, str]
    task: str = "frame"
    events: dict[str, dict[str, float]] = {}

    @property
    def place(self) -> tuple[str, str, int, int]:
        return (self.data, self.model, self.fold, self.seed)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (*self.place, self.recipe)


class Wanted(msgspec.Struct, frozen=True):
    """The runs that a line of the table is of. ``recipe``: "" is any."""

    model: str
    folds: tuple[int, ...]
    seeds: int
    recipe: str = ""


def read(file: Path) -> list[Row]:
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.is_file() else []


def write(rows: Sequence[Row], file: Path) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    ordered = sorted(rows, key=lambda row: row.key)
    staging = file.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(file)


def merged(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with ``row`` in the place of one of an older recipe."""
    return [*(old for old in rows if old.place != row.place), row]


def table(rows: Sequence[Row], data: str, wanted: Sequence[Wanted]) -> str:
    """Mean and deviation over the folds (each fold: the mean over its seeds), in percent, as Markdown.

    Of an official split, the deviation over its seeds. What is wanted and not there is said, below the table where
    there is nothing of it. Of segments, which have one answer each, there is no column of smoothed ones.
    """
    found = {line.model: _own(rows, data, line) for line in wanted}
    segments = {row.task for own in found.values() for row in own} == {"segment"}
    columns = {name: shown for name, shown in _COLUMNS.items() if not (segments and name.startswith("smoothed"))}
    lines = [_line(found[line.model], line, columns) for line in wanted if found[line.model]]
    head = [f"| {' | '.join(columns)} |", f"|{'|'.join('---:' if right else '---' for right, _ in columns.values())}|"]
    absent = [f"{line.model} ({len(line.folds)} × {line.seeds})" for line in wanted if not found[line.model]]
    said = textwrap.wrap(f"Not run yet: {', '.join(absent)}.", 120, break_on_hyphens=False) if absent else []
    return "\n".join([*(head if lines else []), *lines, *([""] if lines and said else []), *said])


def _own(rows: Sequence[Row], data: str, wanted: Wanted) -> list[Row]:
    own = [row for row in rows if (row.data, row.model) == (data, wanted.model)]
    return [row for row in own if wanted.recipe in ("", row.recipe)]


def _line(own: Sequence[Row], wanted: Wanted, columns: Mapping[str, Column]) -> str:
    return f"| {' | '.join(show(own, wanted) for _, show in columns.values())} |"


def parameters(own: Sequence[Row], wanted: Wanted) -> str:
    return f"{own[0].parameters:,}" if own[0].parameters else ""


def by_fold(own: Sequence[Row], wanted: Wanted) -> str:
    """The accuracy of each fold, in percent; of an official split nothing."""
    return "" if wanted.folds == (OFFICIAL,) else " ".join(f"{value:.0f}" for value in means(own, "accuracy"))


def there(own: Sequence[Row], wanted: Wanted) -> str:
    """Folds × seeds, 1 × seeds of an official split; where runs are missing, how many there are: "7 of 15 (5 × 3)"."""
    folds, seeds = {row.fold for row in own}, {row.seed for row in own}
    asked = [(fold, seed) for fold in wanted.folds for seed in range(wanted.seeds)]
    done = len({(row.fold, row.seed) for row in own} & set(asked))
    if done < len(asked):
        return f"{done} of {len(asked)} ({len(wanted.folds)} × {wanted.seeds})"
    return f"{len(folds)} × {len(seeds)}"


def means(own: Sequence[Row], name: str) -> list[float]:
    """Of each fold the mean over its seeds, in percent; of an official split, each seed's."""
    folds = sorted({row.fold for row in own})
    if folds == [OFFICIAL]:
        return [100 * getattr(row, name) for row in sorted(own, key=lambda row: row.seed)]
    return [100 * statistics.mean(getattr(row, name) for row in own if row.fold == fold) for fold in folds]


def spread(own: Sequence[Row], name: str) -> str:
    """Mean and deviation in percent, "" where there is nothing."""
    if not own or any(getattr(row, name) is None for row in own):
        return ""
    found = means(own, name)
    deviation = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{deviation}"


Column = tuple[bool, Callable[[Sequence[Row], Wanted], str]]
_COLUMNS: dict[str, Column] = {  # whether its cells stand at the right, and what they say
    "model": (False, lambda own, wanted: wanted.model),
    "parameters": (True, parameters),
    "folds × seeds": (True, there),
    "accuracy": (True, lambda own, wanted: spread(own, "accuracy")),
    "macro-F1": (True, lambda own, wanted: spread(own, "macro_f1")),
    "smoothed accuracy": (True, lambda own, wanted: spread(own, "smoothed_accuracy")),
    "by fold": (False, by_fold),
}


def event_table(rows: Sequence[Row], data: str, wanted: Sequence[Wanted]) -> str:
    """How changes were followed, before ``edgeseq tune`` / after it: means over all runs of a model; "" without any."""
    lines = []
    for line in wanted:
        scored = [row for row in _own(rows, data, line) if row.events]
        if scored:
            cells = [f"{_mean(scored, 'before', *what)} / {_mean(scored, 'after', *what)}" for what in _EVENTS.values()]
            lines.append(f"| {line.model} | {there(scored, line)} | {' | '.join(cells)} |")
    if not lines:
        return ""
    head = f"| model | folds × seeds | {' | '.join(_EVENTS)} |"
    return "\n".join([head, "|---|---:|" + "---:|" * len(_EVENTS), *lines])


_EVENTS = {  # the columns of an event table: a name, a scale, and digits behind the point
    "median delay, s": ("delay_median", 1, 2),
    "90th percentile, s": ("delay_p90", 1, 2),
    "missed, %": ("missed", 100, 1),
    "false switches an hour": ("false_switches_per_hour", 1, 0),
    "event F1, %": ("event_f1", 100, 1),
    "accuracy by the rule, %": ("accuracy_decided", 100, 1),
}


def _mean(rows: Sequence[Row], when: str, name: str, scale: float, digits: int) -> str:
    found = [row.events[when][name] for row in rows if name in row.events[when]]
    return f"{scale * statistics.mean(found):.{digits}f}" if found else "none"
