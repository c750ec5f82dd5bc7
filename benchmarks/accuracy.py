"""Accuracy: models (presets) and a classical baseline on data sets, over folds and seeds, resumable.

    python benchmarks/accuracy.py                         # runs what is missing of all, then prints the tables
    python benchmarks/accuracy.py --data fsdd --models gru --budget 2h   # ends at the budget and says what is missing
    python benchmarks/accuracy.py --keep runs             # keeps the model folders, and takes those that are there
    python benchmarks/accuracy.py --table                 # prints the tables only

What is run is in ``PLANS`` below. Data sets that are not shipped are found in the folder that EDGESEQ_DATA names, or by
``--data NAME=PATH``; a path of your own data is run on five folds.

One row a run in ``benchmarks/results/accuracy.json``: per-frame accuracy and macro-F1 on the test subjects, without the
start of each recording that is not scored; of segments, one answer each; of models that answer frames, how they follow
changes, before and after ``edgeseq tune``. Everything that is chosen (the round whose weights are kept, the rule) is
chosen on the validation subjects. ``forest`` is a random forest on statistics of the last seconds, asked every 0.1 s,
or of a segment; it has nothing to choose, so it learns from the validation subjects too. Each run is one process of one
thread, on a GPU where there is one (``--device``); a run that is cut off begins anew, with ``--keep`` where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from accuracy_table import OFFICIAL, Row, Wanted, event_table, merged, read, table, write
from processes import each_done, machine, seconds

from edgeseq.errors import InputError

if TYPE_CHECKING:
    from edgeseq.data import Dataset, Split
    from edgeseq.folder import Folder

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
FOREST = "forest"
SEEDS = {"lmu": 3, "gru": 3}  # of the others one
REVISION = 2  # raise it when code changes that decides what a run comes to; settings and presets are noticed anyway


class Plan(msgspec.Struct, frozen=True):
    """What is run on a data set. ``changes``: of a model's training settings, its own arguments as ``model.NAME``."""

    models: tuple[str, ...] = ("lmu", "gru", FOREST)
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    changes: dict[str, dict[str, Any]] = {}


EACH_FAMILY = ("lmu", "lmu_cell", "s4d", "gru", "sparse_rnn", "lmuformer-causal", "l2mu")
CAUSAL = (*EACH_FAMILY, "lstm", "tanh", "relu", "spiking_lmuformer-causal")
WORDS = ("lmu", "s4d", "lmuformer-causal", "gru")
PLANS = {
    "spar_watch": Plan((*CAUSAL, "lmuformer", "spiking_lmuformer", FOREST)),
    "geotec_watch": Plan((*CAUSAL, FOREST)),
    "wisdm_watch": Plan(),
    "uci_har": Plan((*CAUSAL, FOREST), (OFFICIAL,)),
    "braille7": Plan(("lmu", "s4d", "gru", "l2mu-published", FOREST)),
    "ecg5000": Plan(("lmu", "s4d", "gru", FOREST)),
    "fsdd": Plan((*WORDS, FOREST), changes={name: {"rounds": 16, "steps": 60} for name in WORDS}),
    "psmnist": Plan(("lmu-published", "s4d-digits", FOREST), (OFFICIAL,)),
}


class Task(msgspec.Struct, frozen=True):
    """What is to be run: a model on a fold of the data that ``source`` names; the folder is kept in ``keep``."""

    source: str
    data: str
    model: str
    fold: int
    seed: int
    recipe: str
    changes: dict[str, Any] = {}
    keep: Path | None = None
    device: str = "cpu"

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (self.data, self.model, self.fold, self.seed, self.recipe)

    @property
    def name(self) -> str:
        """Of the folder that is kept."""
        return f"{self.data}-{self.model}-fold{self.fold}-seed{self.seed}"


def recipe(dataset: Dataset, model: str, changes: dict[str, Any] | None = None) -> str:
    """A short hash of everything that decides a run, so that rows of an older recipe are not mixed with new ones."""
    from edgeseq.models.registry import presets
    from edgeseq.training.baseline import described
    from edgeseq.training.configure import configure

    if model == FOREST:
        learned = "8 subjects, " if dataset.name == "spar_watch" else ""  # as its first rows have it
        return f"{described(dataset)}, {learned}revision {REVISION}"
    parts = msgspec.to_builtins((REVISION, configure(presets()[model], dataset, changes or {})))
    del parts[1][2]["device"]  # which says where a run is made: a row's machine says it
    augmentation = parts[1][2]["augmentation"]
    for name in ("shift", "drop", "colour"):  # which were not there when the first rows were measured
        if not augmentation[name]:
            del augmentation[name]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]


def run(task: Task) -> Row:
    started = time.monotonic()
    if task.model == FOREST:
        found, new = run_forest(task), True
    else:
        with folder_of(task) as (folder, new):
            found = row_of(folder, task)
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - started, 1)) if new else found


@contextlib.contextmanager
def folder_of(task: Task) -> Iterator[tuple[Folder, bool]]:
    """The folder of the task's model, and whether it was trained now, or kept by an earlier run."""
    from edgeseq.folder import open_folder
    from edgeseq.training.stage import train

    with contextlib.ExitStack() as stack:
        place = (task.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))) / task.name
        if place.is_dir():
            folder = open_folder(place)
            check_same(folder, task)
            yield folder, False
        else:
            fold = None if task.fold == OFFICIAL else task.fold
            changes = {**task.changes, "device": task.device}
            yield train(task.source, place, preset=task.model, seed=task.seed, fold=fold, changes=changes), True


def row_of(folder: Folder, task: Task) -> Row:
    """The row of a trained model; ``seconds`` are 0."""
    manifest = folder.manifest
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
        machine(gpu=manifest.lineage[-1].arguments["settings"].get("device") == "cuda"),
        manifest.lineage[-1].versions,
        manifest.task,
        events(folder, task.source) if manifest.task == "frame" else {},
    )


def events(folder: Folder, source: str) -> dict[str, dict[str, float]]:
    """How the model follows changes on the test subjects, before and after its rule is tuned; {} where none change."""
    from edgeseq.training.tune_events import METRICS, tune

    with tempfile.TemporaryDirectory() as scratch:
        try:
            tuned, _ = tune(folder.path, Path(scratch) / "tuned", data=source)
        except InputError as error:
            print(f"{folder.path.name}: no event scores ({error})", file=sys.stderr, flush=True)
            return {}
    found = tuned.manifest.metrics
    return {
        when: {name: found[f"test_{name}{suffix}"] for name in METRICS if f"test_{name}{suffix}" in found}
        for when, suffix in (("before", "_before"), ("after", ""))
    }


def check_same(folder: Folder, task: Task) -> None:
    """Refuse a kept folder that another run left: of another preset, settings, arguments, seed, data or split."""
    from edgeseq.models.registry import presets
    from edgeseq.training.configure import configure
    from edgeseq.training.settings import Settings

    manifest, stage = folder.manifest, folder.manifest.lineage[-1]
    had = msgspec.convert(stage.arguments.get("settings", {}), Settings)
    dataset, split = split_of(task)
    _, arguments, settings = configure(presets()[task.model], dataset, task.changes)
    pairs = {
        "preset": (stage.arguments.get("model"), task.model),
        "settings": (msgspec.structs.replace(had, device=settings.device), settings),
        "arguments": (manifest.arguments, arguments),
        "seed": (stage.seed, task.seed),
        "data": (stage.data_fingerprint, dataset.origin_fingerprint),
        "test subjects": (list(manifest.split.get("test", ())), split.subjects()["test"]),
    }
    for what, (has, wanted) in pairs.items():
        if has != wanted:
            raise InputError(f"{folder.path} is of another run, with {what} {has}, not {wanted}: move it away")


def split_of(task: Task) -> tuple[Dataset, Split]:
    """The task's data, and its split."""
    from edgeseq.data import default_split, load

    dataset = load(task.source)
    return dataset, default_split(dataset, None if task.fold == OFFICIAL else task.fold)


def run_forest(task: Task) -> Row:
    from edgeseq.lineage import versions
    from edgeseq.training.baseline import forest_baseline

    _, split = split_of(task)
    scores, calm = forest_baseline(split, seed=task.seed)
    segments = split.train.task == "segment"
    return Row(
        *(task.data, task.model, task.fold, task.seed),
        split.subjects()["test"],
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


def arguments() -> argparse.Namespace:
    from edgeseq.models.registry import presets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(PLANS), help="data sets' names, NAME=PATH, or paths")
    parser.add_argument("--models", nargs="+", choices=[*presets(), FOREST], metavar="PRESET", help="instead of PLANS'")
    parser.add_argument("--folds", nargs="+", type=int, help="of those that the data has; -1 is an official split")
    parser.add_argument("--seeds", type=int, help="of every model; if not given, 3 of lmu and gru, 1 of the others")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--budget", type=seconds, default=seconds("3h"), help="2h, 90m: no run ends much after it")
    parser.add_argument("--keep", type=Path, help="a folder: the models' folders are kept there, and found again")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the rows")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, run nothing")
    return parser.parse_args()


def main() -> None:
    parsed = arguments()
    rows, plans = read(parsed.out), {}
    for source in parsed.data:
        try:
            plans.update(planned(source, parsed))
        except InputError as error:  # a data set that is not here: its rows may be
            print(f"missing: {source} ({error})", file=sys.stderr)
    if parsed.keep:
        parsed.keep.mkdir(parents=True, exist_ok=True)
    if not parsed.table:
        tasks = [task for tasks, _ in plans.values() for task in tasks]
        rows = run_missing(sorted(tasks, key=lambda task: task.seed), rows, parsed)
    for name, (_, wanted) in plans.items():
        print(*("", name, table(rows, name, wanted), event_table(rows, name, wanted)), sep="\n\n")


def planned(source: str, parsed: argparse.Namespace) -> dict[str, tuple[list[Task], list[Wanted]]]:
    """By the data's name, the runs on it that are asked for, and the lines of its table, of all that is planned."""
    from edgeseq.data import load

    dataset = load(source)
    plan = PLANS.get(dataset.name, Plan())
    lines = [
        Wanted(model, plan.folds, SEEDS.get(model, 1), recipe(dataset, model, plan.changes.get(model)))
        for model in parsed.models or plan.models
    ]
    tasks = [
        Task(source, dataset.name, line.model, fold, seed, line.recipe, changes, parsed.keep, parsed.device)
        for line in lines
        for changes in [plan.changes.get(line.model, {})]
        for seed in range(parsed.seeds or line.seeds)
        for fold in plan.folds
        if parsed.folds is None or fold in parsed.folds
    ]
    return {dataset.name: (tasks, lines)}


def run_missing(tasks: Sequence[Task], rows: list[Row], parsed: argparse.Namespace) -> list[Row]:
    """Run those of ``tasks`` that have no row, and write each row as it comes.

    A row without event scores, of before there were any, gets them where its model's folder was kept.
    """
    found = list(rows)
    done = {row.key: row for row in found}
    missing = [task for task in tasks if task.key not in done or lacks_events(done[task.key], task)]
    limits = {"jobs": parsed.jobs, "budget": parsed.budget}
    for row in each_done(run, missing, expected=lambda task: longest(found, task), **limits):
        if not row.seconds and row.key in done:
            row = msgspec.structs.replace(row, seconds=done[row.key].seconds)
        found[:] = merged(found, row)
        write(found, parsed.out)
        print(
            f"{row.data} {row.model} fold {row.fold} seed {row.seed}: {100 * row.accuracy:.1f} %, {row.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return found


def lacks_events(row: Row, task: Task) -> bool:
    """Whether there is a folder to take the event scores from that the row does not have."""
    scored = bool(row.events) or row.task != "frame" or row.model == FOREST
    return not scored and task.keep is not None and (task.keep / task.name).is_dir()


def longest(rows: Sequence[Row], task: Task) -> float:
    """Seconds of the longest run of the task's model on the same data so far."""
    kind = (task.data, task.model, task.recipe)
    return max((row.seconds for row in rows if (row.data, row.model, row.recipe) == kind), default=0.0)


if __name__ == "__main__":
    main()
