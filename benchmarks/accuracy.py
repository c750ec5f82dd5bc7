"""Accuracy: models (presets) and a classical baseline on data sets, over folds and seeds, resumable.

    python benchmarks/accuracy.py                         # runs what is missing of all, then prints the tables
    python benchmarks/accuracy.py --data fsdd --models gru --budget 2h   # begins nothing after two hours
    python benchmarks/accuracy.py --keep runs             # keeps the model folders, and takes those that are there
    python benchmarks/accuracy.py --table                 # prints the tables only

What is run is in ``PLANS`` of accuracy_plans.py. Data sets that are not shipped are found in the folder that
EDGESEQ_DATA names, or by ``--data NAME=PATH``; a path of your own data is run on five folds.

One row a run in ``benchmarks/results/accuracy.json``: per-frame accuracy and macro-F1 on the test subjects, without the
start of each recording that is not scored; of segments, one answer each; of models that answer frames, how they follow
changes, before and after ``edgeseq tune``. Everything that is chosen (the round whose weights are kept, the rule) is
chosen on the validation subjects. ``forest`` is a random forest on statistics of the last seconds, asked every 0.1 s,
or of a segment; it has nothing to choose, so it learns from the validation subjects too. ``majority`` always answers
the commonest label. Each run is one process of one thread, on a GPU where there is one (``--device``); a run that is
cut off begins anew, with ``--keep`` where it was. What is missing is said at the end; the exit code is 1 if anything
failed or its data are not here, and 0 if there was no time for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from accuracy_kept import Note, folder_of, rescored, split_of
from accuracy_plans import BASELINES, FOREST, PLANS, SEEDS, Plan, Task, recipe
from accuracy_table import RESULTS, Row, Wanted, event_table, merged, read, table, write
from processes import Missing, count, each_done, machine, seconds

from edgeseq.errors import InputError

if TYPE_CHECKING:
    from edgeseq.folder import Folder

GUESS = 2.0  # how many times as long a run may take as the longest that is like it
UNKNOWN = 60.0  # seconds that a run may take of which nothing is known


def run(task: Task) -> Row:
    started = time.monotonic()
    if task.model in BASELINES:
        return msgspec.structs.replace(run_baseline(task), seconds=round(time.monotonic() - started, 1))
    with folder_of(task) as (folder, note, new):
        found = row_of(folder, note, task, folder.manifest.metrics if new else rescored(folder, task))
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - started, 1)) if new else found


def row_of(folder: Folder, note: Note, task: Task, metrics: Mapping[str, float]) -> Row:
    """The row of a trained model with these ``metrics``; ``seconds`` are those that its note says."""
    manifest = folder.manifest
    return Row(
        *(task.data, task.model, task.fold, task.seed),
        list(manifest.split["test"]),
        metrics["test_accuracy"],
        metrics["test_macro_f1"],
        metrics.get("test_accuracy_smoothed"),
        metrics.get("test_macro_f1_smoothed"),
        metrics["validation_macro_f1"],
        manifest.parameters,
        note.seconds,
        task.recipe,
        note.machine,
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


def run_baseline(task: Task) -> Row:
    """The row of a random forest, or of the commonest label."""
    from edgeseq.lineage import versions
    from edgeseq.training.baseline import forest_baseline, majority_baseline

    _, split = split_of(task)
    scores, calm = forest_baseline(split, seed=task.seed) if task.model == FOREST else (majority_baseline(split), None)
    calm = None if split.train.task == "segment" else calm
    return Row(
        *(task.data, task.model, task.fold, task.seed),
        split.subjects()["test"],
        scores.accuracy,
        scores.macro_f1,
        calm.accuracy if calm else None,
        calm.macro_f1 if calm else None,
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

    known = [*presets(), *BASELINES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", default=list(PLANS), help=f"names, NAME=PATH, or paths (default: {' '.join(PLANS)})")
    add("--models", nargs="+", choices=known, metavar="PRESET", help="presets, forest, majority (default: as in PLANS)")
    add("--folds", nargs="+", type=int, help="of those in PLANS, from 0; -1 is an official split (default: all)")
    add("--seeds", type=count, help="of every model, from seed 0 on (default: 3 of lmu and gru, 1 of the others)")
    add("--jobs", type=count, default=os.cpu_count() or 1, help="runs at a time, of one thread (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto, the default: a GPU if there is one")
    add(
        *("--budget",),
        type=seconds,
        default=seconds("3h"),
        help="90s, 30m, 2h; a number alone is hours (default: 3h). Nothing is begun after it, nor what may last longer "
        "by the rows that are there; what is running then ends",
    )
    add("--keep", type=Path, help="folder where models' folders are kept, and found again (default: none are kept)")
    add("--adopt", action="store_true", help="take folders of --keep without a note of what made them, scored anew")
    add("--out", type=Path, default=RESULTS, help="file of the rows (default: benchmarks/results/accuracy.json)")
    add("--table", action="store_true", help="print the tables of what is there, run nothing")
    return parser.parse_args()


def main() -> int:
    """Run what is missing and print the tables; 1 if something that was asked for failed or is not here."""
    parsed = arguments()
    rows, tasks, lines, missing = read(parsed.out), [], {}, []
    for source in parsed.data:
        try:
            name, own, lines_of = planned(source, parsed)
        except InputError as error:
            missing.append(f"missing: {source}: {error}")
            continue
        tasks += own
        lines[name] = lines_of
        if not own and not parsed.table and not here(source):
            missing.append(f"missing: {name} is not here: --data {name}=PATH")
    failed = bool(missing)
    if parsed.keep:
        parsed.keep.mkdir(parents=True, exist_ok=True)
    if not parsed.table:
        rows, left = run_missing(sorted(tasks, key=lambda task: task.seed), rows, parsed)
        failed |= any(each.failed for each in left)
        missing += map(str, left)
    for name, wanted in lines.items():
        print(*("", name, table(rows, name, wanted), event_table(rows, name, wanted)), sep="\n\n")
    print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr, flush=True)
    return int(failed)


def here(source: str) -> bool:
    """Whether a data set that is known by name can be loaded: it is shipped, or its files are where they may be.

    Of anything else, and of a place that is named with it, :func:`edgeseq.data.load` says what is wrong.
    """
    from edgeseq.data import datasets
    from edgeseq.data.registry import PLACE, locate

    if source not in {facts.name for facts in datasets() if not facts.shipped}:
        return True
    try:
        return bool(locate(source, os.environ[PLACE]))
    except (KeyError, InputError):
        return False


def planned(source: str, parsed: argparse.Namespace) -> tuple[str, list[Task], list[Wanted]]:
    """The data's name, the runs on it that are asked for, and the lines of its table, of all that is planned.

    Of data that are not here there are no runs, and lines of any recipe.
    """
    from edgeseq.data import load

    dataset = load(source) if here(source) else None
    name = dataset.name if dataset else source
    plan = PLANS.get(name, Plan())
    lines = [
        Wanted(
            *(model, plan.folds, SEEDS.get(model, 1)),
            recipe(dataset, model, plan.changes.get(model)) if dataset else "",
        )
        for model in parsed.models or plan.models
    ]
    tasks = [
        Task(
            *(source, name, line.model, fold, seed, line.recipe, plan.changes.get(line.model, {})),
            *(parsed.keep, parsed.device, parsed.adopt),
        )
        for line in lines
        for seed in range(parsed.seeds or line.seeds)
        for fold in plan.folds
        if parsed.folds is None or fold in parsed.folds
    ]
    return name, tasks if dataset else [], lines


def run_missing(
    tasks: Sequence[Task], rows: list[Row], parsed: argparse.Namespace
) -> tuple[list[Row], list[Missing[Task]]]:
    """Run those of ``tasks`` that have no row, and write each row as it comes; the rows, and what there is nothing of.

    A row without event scores, of before there were any, gets them where its model's folder was kept.
    """
    found, left = list(rows), []
    done = {row.key: row for row in found}
    missing = [task for task in tasks if task.key not in done or lacks_events(done[task.key], task)]
    limits = {"jobs": parsed.jobs, "budget": parsed.budget}
    for row in each_done(run, missing, expected=lambda task: expected(found, task), **limits):
        if isinstance(row, Missing):
            left.append(row)
            if row.failed:
                print(row, file=sys.stderr, flush=True)
            continue
        if not row.seconds and row.key in done:
            row = msgspec.structs.replace(row, seconds=done[row.key].seconds, machine=done[row.key].machine)
        found[:] = merged(found, row)
        write(found, parsed.out)
        print(
            f"{row.data} {row.model} fold {row.fold} seed {row.seed}: {100 * row.accuracy:.1f} %, {row.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return found, left


def lacks_events(row: Row, task: Task) -> bool:
    """Whether there is a folder to take the event scores from that the row does not have."""
    scored = bool(row.events) or row.task != "frame" or row.model in BASELINES
    return not scored and task.keep is not None and (task.keep / task.name).is_dir()


def expected(rows: Sequence[Row], task: Task) -> float:
    """Seconds that a run may take: those of the longest like it; where there is none, twice those of one less like it.

    Less alike, in this order: the same model of another recipe or on other data, another model on the same data.
    """
    model = [row for row in rows if row.model == task.model]
    same = [row for row in model if (row.data, row.recipe) == (task.data, task.recipe)]
    others = [row for row in rows if row.data == task.data and row.model not in BASELINES]
    for scale, alike in ((1.0, same), (GUESS, model), (GUESS, [] if task.model in BASELINES else others)):
        longest = max((row.seconds for row in alike), default=0.0)
        if longest:
            return scale * longest
    return UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
