"""The rows of ``benchmarks/results/accuracy.json``, and the table that they make of a data set."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

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

    Of an official split, the deviation over its seeds. What is wanted and not there is said.
    """
    lines = [
        "| model | parameters | folds × seeds | accuracy | macro-F1 | smoothed accuracy | by fold |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for line in wanted:
        own = [row for row in rows if (row.data, row.model) == (data, line.model)]
        lines.append(_line([row for row in own if line.recipe in ("", row.recipe)], line))
    return "\n".join(lines)


def _line(own: Sequence[Row], wanted: Wanted) -> str:
    accuracy = spread(own, "accuracy")
    by_fold = [] if wanted.folds == (OFFICIAL,) else [f"{value:.0f}" for value in means(own, "accuracy")]
    cells = [
        wanted.model,
        f"{own[0].parameters:,}" if own and own[0].parameters else "",
        there(own, wanted),
        accuracy,
        spread(own, "macro_f1"),
        spread(own, "smoothed_accuracy"),
        " ".join(by_fold),
    ]
    return "| " + " | ".join(cells) + " |"


def there(own: Sequence[Row], wanted: Wanted) -> str:
    """How many of the wanted folds and seeds there are: "5 × 3", or "2 of 5 folds", or "7 of 15 runs"."""
    folds, seeds = {row.fold for row in own}, {row.seed for row in own}
    asked = [(fold, seed) for fold in wanted.folds for seed in range(wanted.seeds)]
    done = len({(row.fold, row.seed) for row in own} & set(asked))
    if done < len(asked):
        return f"{done} of {len(asked)} {'folds' if wanted.seeds == 1 and len(asked) > 1 else 'runs'}"
    return f"{'official' if wanted.folds == (OFFICIAL,) else len(folds)} × {len(seeds)}"


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


def event_table(rows: Sequence[Row], data: str, wanted: Sequence[Wanted]) -> str:
    """How changes were followed, before ``edgeseq tune`` / after it: means over all runs of a model; "" without any."""
    lines = []
    for line in wanted:
        own = [row for row in rows if (row.data, row.model) == (data, line.model) and line.recipe in ("", row.recipe)]
        scored = [row for row in own if row.events]
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
