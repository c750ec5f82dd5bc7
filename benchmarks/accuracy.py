"""Accuracy: models (presets) and a classical baseline over five folds and several seeds, resumable.

    python benchmarks/accuracy.py                         # runs what is missing, then prints the table
    python benchmarks/accuracy.py --seeds 3 --budget 2h   # ends at the budget and says what is missing
    python benchmarks/accuracy.py --data braille7 --models gru forest --jobs 2   # with EDGESEQ_DATA set, or a path
    python benchmarks/accuracy.py --table                 # prints the table only

One row a run in ``benchmarks/results/accuracy.json``: per-frame accuracy and macro-F1 on the test subjects, after the
first 2 s of each recording; of segments, one answer each. Everything that is chosen (the round whose weights are kept)
is chosen on the validation subjects. ``forest`` is a random forest on statistics of the last 2 s, asked every 0.1 s, or
of a segment; it has nothing to choose, so it learns from the validation subjects too. Each run is one process of one
thread; a run that is cut off begins anew.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edgeseq.data import Dataset

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
MODELS = ("lmu", "gru", "forest")
FOLDS = 5
REVISION = 2  # raise it when code changes that decides what a run comes to; settings and presets are noticed anyway


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run. Accuracies are shares of frames; ``smoothed`` ones those of the answer averaged over 1 s.

    Of the ``task`` "segment" they are shares of segments, which have one answer each and nothing to smooth. ``test``:
    the subjects, or groups of recordings, that were tested on. ``seconds``: of loading, training and scoring.
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

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (self.data, self.model, self.fold, self.seed, self.recipe)


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []


class Task(msgspec.Struct, frozen=True):
    """What is to be run: a model on a fold of the data that ``source`` names."""

    source: str
    data: str
    model: str
    fold: int
    seed: int
    recipe: str

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (self.data, self.model, self.fold, self.seed, self.recipe)


def recipe(dataset: Dataset, model: str) -> str:
    """A short hash of everything that decides a run, so that rows of an older recipe are not mixed with new ones."""
    from edgeseq.models.registry import presets
    from edgeseq.training.stage import configure

    if model == "forest":
        what = "8 subjects" if dataset.task == "frame" else "8 parts"
        return f"2 s statistics, 300 trees, {what}, revision {REVISION}"
    parts = msgspec.to_builtins((REVISION, configure(presets()[model], dataset, {})))
    augmentation = parts[1][2]["augmentation"]
    for name in ("shift", "drop"):  # which were not there when the first rows were measured
        if not augmentation[name]:
            del augmentation[name]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]


def run(task: Task) -> Row:
    started = time.monotonic()
    found = run_forest(task) if task.model == "forest" else run_model(task)
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - started, 1))


def run_model(task: Task) -> Row:
    from edgeseq.lineage import versions
    from edgeseq.training.stage import train

    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / task.model
        manifest = train(task.source, out, preset=task.model, seed=task.seed, fold=task.fold).manifest
    metrics = manifest.metrics
    return Row(
        *(task.data, task.model, task.fold, task.seed),
        list(manifest.split["test"]),
        metrics["test_accuracy"],
        metrics["test_macro_f1"],
        metrics.get("test_accuracy_smoothed"),
        metrics.get("test_macro_f1_smoothed"),
        metrics["validation_macro_f1"],
        manifest.parameters,
        0.0,
        task.recipe,
        machine(),
        versions(),
        manifest.task,
    )


def run_forest(task: Task) -> Row:
    from edgeseq.data import load
    from edgeseq.lineage import versions
    from edgeseq.training.baseline import forest_baseline
    from edgeseq.training.stage import choose_split

    split = choose_split(load(task.source), fold=task.fold)
    scores, calm = forest_baseline(split, seed=task.seed)
    segments = split.train.task == "segment"
    return Row(
        *(task.data, task.model, task.fold, task.seed),
        list(split.subjects()["test"]),
        scores.accuracy,
        scores.macro_f1,
        None if segments else calm.accuracy,
        None if segments else calm.macro_f1,
        None,
        None,
        0.0,
        task.recipe,
        machine(),
        versions(),
        split.train.task,
    )


def read(file: Path) -> list[Row]:
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.is_file() else []


def write(rows: list[Row], file: Path) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    ordered = sorted(rows, key=lambda row: row.key)
    staging = file.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(file)


def table(rows: list[Row], data: str, recipes: dict[str, str]) -> str:
    """Mean and spread over the folds (each fold: the mean over its seeds), in percent, as Markdown."""
    lines = [
        "| model | parameters | folds × seeds | accuracy | macro-F1 | smoothed accuracy | by fold |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for model, made in recipes.items():
        own = [row for row in rows if (row.data, row.model, row.recipe) == (data, model, made)]
        if not own:
            continue
        folds = sorted({row.fold for row in own})

        def spread(name: str, own: list[Row] = own, folds: list[int] = folds) -> tuple[str, list[float]]:
            if getattr(own[0], name) is None:
                return "", []
            means = [100 * statistics.mean(getattr(r, name) for r in own if r.fold == fold) for fold in folds]
            deviation = statistics.stdev(means) if len(means) > 1 else float("nan")
            return f"{statistics.mean(means):.1f} ± {deviation:.1f}", means

        accuracy, by_fold = spread("accuracy")
        cells = [
            model,
            f"{own[0].parameters:,}" if own[0].parameters else "",
            f"{len(folds)} × {len({r.seed for r in own})}",
            accuracy,
            spread("macro_f1")[0],
            spread("smoothed_accuracy")[0],
            " ".join(f"{value:.0f}" for value in by_fold),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seconds(text: str) -> float:
    """A time such as 90m, 2h or 30s; without a unit, hours."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        found = float(text.rstrip("smh")) * (unit or 3600)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2h, 90m or 30s")
    return found


def main() -> None:
    from edgeseq.data import load
    from edgeseq.models.registry import presets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="spar_watch", help="a data set's name, or a path")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=[*presets(), "forest"], metavar="PRESET")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    parser.add_argument("--budget", type=seconds, default=seconds("3h"), help="2h, 90m: no run ends much after it")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the rows")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    parsed = parser.parse_args()
    rows, dataset = read(parsed.out), load(parsed.data)
    recipes = {model: recipe(dataset, model) for model in parsed.models}
    if not parsed.table:
        done = {row.key for row in rows}
        tasks = [
            Task(parsed.data, dataset.name, model, fold, seed, recipes[model])
            for seed in range(parsed.seeds)
            for model in parsed.models
            for fold in parsed.folds
        ]
        rows = run_missing([task for task in tasks if task.key not in done], rows, parsed)
    print(table(rows, dataset.name, recipes))


def run_missing(tasks: list[Task], rows: list[Row], parsed: argparse.Namespace) -> list[Row]:
    """Run ``tasks``, the first ones first, and write each row as it comes; what does not fit the budget is named."""
    deadline = time.monotonic() + parsed.budget
    waiting, running = list(tasks), set()
    with ProcessPoolExecutor(parsed.jobs) as pool:
        while True:
            while len(running) < parsed.jobs and (task := next_task(waiting, rows, deadline - time.monotonic())):
                waiting.remove(task)
                running.add(pool.submit(run, task))
            if not running:
                break
            finished = next(as_completed(running))
            running.remove(finished)
            row = finished.result()
            rows = [*(old for old in rows if old.key[:4] != row.key[:4]), row]
            write(rows, parsed.out)
            print(
                f"{row.model} fold {row.fold} seed {row.seed}: {100 * row.accuracy:.1f} %, {row.seconds:.0f} s",
                file=sys.stderr,
            )
    for task in waiting:
        print("missing (out of time):", *task.key[:4], file=sys.stderr)
    return rows


def next_task(waiting: list[Task], rows: list[Row], left: float) -> Task | None:
    """The first task that, going by the longest run of its model so far, ends in the seconds that are left."""
    longest: dict[tuple[str, str, str], float] = {}
    for row in rows:
        kind = (row.data, row.model, row.recipe)
        longest[kind] = max(longest.get(kind, 0.0), row.seconds)
    return next((task for task in waiting if longest.get((task.data, task.model, task.recipe), 0.0) < left), None)


if __name__ == "__main__":
    main()
