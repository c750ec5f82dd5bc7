"""Accuracy by subject: models and a classical baseline over five subject folds and several seeds, resumable.

    python benchmarks/accuracy.py                      # runs what is missing, then prints the table
    python benchmarks/accuracy.py --seeds 3 --hours 2  # stops at the budget and says what is missing
    python benchmarks/accuracy.py --table              # prints the table only

One row a run in ``benchmarks/results/accuracy.json``: per-frame accuracy and macro-F1 on the two test subjects, after
the first 2 s of each recording. Everything that is chosen (the round whose weights are kept) is chosen on the
validation subject. ``forest`` is a random forest on statistics of the last 2 s, asked every 0.1 s; it has nothing to
choose, so it learns from the validation subject too.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
MODELS = ("lmu", "gru", "forest")
FOLDS = 5
REVISION = 2  # raise it when code changes that decides what a run comes to; settings and presets are noticed anyway


class Row(msgspec.Struct, frozen=True):
    """One run. Accuracies are shares of frames; ``smoothed`` ones those of the answer averaged over 1 s."""

    data: str
    model: str
    fold: int
    seed: int
    test: list[str]
    accuracy: float
    macro_f1: float
    smoothed_accuracy: float
    smoothed_macro_f1: float
    validation_macro_f1: float | None
    parameters: int | None
    seconds: float
    recipe: str
    machine: str
    versions: dict[str, str]

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


def recipe(data: str, model: str) -> str:
    """A short hash of everything that decides a run, so that rows of an older recipe are not mixed with new ones."""
    import hashlib

    from edgeseq.data import load
    from edgeseq.models.registry import presets
    from edgeseq.training.stage import configure

    if model == "forest":
        return f"2 s statistics, 300 trees, 8 subjects, revision {REVISION}"
    parts = (REVISION, configure(presets()[model], load(data), {}))
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]


def run_model(data: str, model: str, fold: int, seed: int) -> Row:
    from edgeseq.lineage import versions
    from edgeseq.models.contract import parameter_count
    from edgeseq.models.store import load_model
    from edgeseq.training.stage import train

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = train(data, Path(scratch) / model, preset=model, seed=seed, fold=fold)
        parameters = parameter_count(load_model(folder))
    metrics = folder.manifest.metrics
    return Row(
        data,
        model,
        fold,
        seed,
        list(folder.manifest.split["test"]),
        metrics["test_accuracy"],
        metrics["test_macro_f1"],
        metrics["test_accuracy_smoothed"],
        metrics["test_macro_f1_smoothed"],
        metrics["validation_macro_f1"],
        parameters,
        round(time.monotonic() - started, 1),
        recipe(data, model),
        machine(),
        versions(),
    )


def run_forest(data: str, fold: int, seed: int) -> Row:
    from edgeseq.data import load
    from edgeseq.lineage import versions
    from edgeseq.training.baseline import forest_baseline
    from edgeseq.training.stage import choose_split

    started = time.monotonic()
    split = choose_split(load(data), fold=fold)
    scores, calm = forest_baseline(split, seed=seed)
    return Row(
        data,
        "forest",
        fold,
        seed,
        list(split.subjects()["test"]),
        scores.accuracy,
        scores.macro_f1,
        calm.accuracy,
        calm.macro_f1,
        None,
        None,
        round(time.monotonic() - started, 1),
        recipe(data, "forest"),
        machine(),
        versions(),
    )


def run(task: tuple[str, str, int, int]) -> Row:
    data, model, fold, seed = task
    return run_forest(data, fold, seed) if model == "forest" else run_model(data, model, fold, seed)


def read() -> list[Row]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if RESULTS.is_file() else []


def write(rows: list[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    ordered = sorted(rows, key=lambda row: row.key)
    staging = RESULTS.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(RESULTS)


def table(rows: list[Row], data: str) -> str:
    """Mean and spread over the folds (each fold: the mean over its seeds), in percent, as Markdown."""
    lines = [
        "| model | parameters | folds × seeds | accuracy | macro-F1 | smoothed accuracy | by fold |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for model in MODELS:
        own = [row for row in rows if (row.data, row.model, row.recipe) == (data, model, recipe(data, model))]
        if not own:
            continue
        folds = sorted({row.fold for row in own})

        def spread(name: str, own: list[Row] = own, folds: list[int] = folds) -> tuple[str, list[float]]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="spar_watch")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hours", type=float, default=3.0, help="no run is started after this time")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    parsed = parser.parse_args()
    rows = read()
    if not parsed.table:
        rows = run_missing(parsed, rows)
    print(table(rows, parsed.data))


def run_missing(parsed: Any, rows: list[Row]) -> list[Row]:
    done = {row.key for row in rows}
    tasks = [
        (parsed.data, model, fold, seed)
        for seed in range(parsed.seeds)
        for model in parsed.models
        for fold in range(FOLDS)
        if (parsed.data, model, fold, seed, recipe(parsed.data, model)) not in done
    ]
    deadline = time.monotonic() + 3600 * parsed.hours
    with ProcessPoolExecutor(parsed.jobs) as pool:
        waiting = iter(tasks)
        running = {pool.submit(run, task) for _, task in zip(range(parsed.jobs), waiting, strict=False)}
        while running:
            finished = next(as_completed(running))
            running.remove(finished)
            row = finished.result()
            rows = [*(old for old in rows if old.key[:4] != row.key[:4]), row]
            write(rows)
            print(
                f"{row.model} fold {row.fold} seed {row.seed}: {100 * row.accuracy:.1f} %, {row.seconds:.0f} s",
                file=sys.stderr,
            )
            following = next(waiting, None) if time.monotonic() < deadline else None
            if following:
                running.add(pool.submit(run, following))
    for task in waiting:
        print("missing (out of time):", *task, file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
