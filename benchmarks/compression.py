"""What compression costs in accuracy, bytes and time: every stage, over folds and seeds, resumable.

    python benchmarks/compression.py                # runs what is missing, then prints the tables
    python benchmarks/compression.py --families lmu --budget 1h
    python benchmarks/compression.py --times        # exports fold 0 and measures its steps, side by side
    python benchmarks/compression.py --table        # prints the tables only

What is made is in compression_variants.py. One row a model in ``benchmarks/results/compression.json``, with its scores
per frame on the two test subjects, after the first 2 s of each recording, and the bytes of its weights as they ship.
All of a fold share one teacher (seed 0). Differences are paired: the same fold, the same seed, the same people; a
fold's difference is the mean over its seeds, and the interval is Student's over the folds, which are what is
independent. Whatever is chosen is chosen on the validation subject.

``--times``: the files of fold 0, seed 0, proven in both formats, their bytes, and a step at the sensor's rate in the
faster of the two formats' engines, all variants of a family in turns in one process, in
``benchmarks/results/compression_times.json``. These models are in ``shapes`` in ``--work``, and no rows are made of
them: what units are cut from is trained in full, since its weights decide the widths, and what is made of it is trained
on for a moment, since neither the files' bytes nor the steps depend on what is learned then.

Model folders are kept in ``--work``, so that an interrupted run goes on, and quantizes what it has trained. A folder of
``benchmarks/accuracy.py --keep`` may be put there as ``FAMILY-foldN-seedN``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from compression_table import Row, Timed, Times, read, read_times, tables, write, write_times
from compression_variants import TEACHER, Variant, variants
from processes import Missing, each_done, machine, seconds

from edgeseq.errors import InputError
from edgeseq.folder import MODEL_FILES, Folder, open_folder

DATA = "spar_watch"
FOLDS = 5


class Task(msgspec.Struct, frozen=True):
    """All variants of a family that are wanted on one fold, with one seed: each is made from an earlier one.

    ``brief``: they are made for their shapes alone.
    """

    work: Path
    family: str
    fold: int
    seed: int
    wanted: tuple[str, ...]
    brief: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.family, self.fold, self.seed)


def place(work: Path, variant: str, fold: int, seed: int) -> Path:
    return work / f"{variant}-fold{fold}-seed{0 if variant == TEACHER else seed}"


def make(work: Path, variant: str, fold: int, seed: int, *, brief: bool) -> Folder:
    from edgeseq.quant.distill_stage import distill
    from edgeseq.quant.prune_stage import prune
    from edgeseq.quant.quantize_stage import quantize
    from edgeseq.training.stage import train

    wanted = variants()[variant]
    out, origin = place(work, variant, fold, seed), place(work, wanted.source, fold, seed)
    if wanted.stage == "train":
        return train(DATA, out, seed=0 if variant == TEACHER else seed, fold=fold, **wanted.arguments)
    if wanted.stage == "chain":
        return chained(open_folder(origin), out, wanted, seed)
    stage: Any = {"distill": distill, "prune": prune, "quantize": quantize}[wanted.stage]
    source = [origin] if wanted.stage == "distill" else origin
    changes = {"changes": {"rounds": 1}} if brief and wanted.trains else {}
    return stage(source, out, seed=seed, **wanted.arguments, **changes)


def chained(teacher: Folder, out: Path, wanted: Variant, seed: int) -> Folder:
    from edgeseq.quant.chains import Chain, Workshop

    return Workshop(teacher, out, seed).run(Chain(**wanted.arguments))


def run(task: Task) -> list[Row]:
    rows = []
    for variant in task.wanted:
        rows.append(found_or_made(task, variant))
        scores = rows[-1].metrics
        print(
            f"{variant} fold {task.fold} seed {task.seed}: {100 * scores['test_accuracy']:.1f} %, "
            f"{rows[-1].shipped} bytes, {rows[-1].seconds} s",
            file=sys.stderr,
            flush=True,
        )
        if task.brief:
            exported(task.work, variant)
    return rows


def exported(work: Path, variant: str) -> Folder:
    """The files of a variant of fold 0, proven."""
    from edgeseq.export.stage import export

    out = work / f"{variant}-fold0-seed0-export"
    return open_folder(out) if out.exists() else export(found(work, variant, 0, 0).path, out)


def found_or_made(task: Task, variant: str) -> Row:
    from edgeseq.folder import shipped_bytes

    started, spent = time.monotonic(), None
    try:
        folder = found(task.work, variant, task.fold, task.seed)
    except InputError:
        folder = make(task.work, variant, task.fold, task.seed, brief=task.brief)
        spent = round(time.monotonic() - started, 1)
    manifest = folder.manifest
    return Row(
        *(variant, task.fold, task.seed, manifest.metrics, spent, manifest.lineage[-1].versions),
        shipped=shipped_bytes(folder),
        parameters=manifest.parameters,
    )


def found(work: Path, variant: str, fold: int, seed: int) -> Folder:
    wanted = variants()[variant]
    if wanted.stage != "chain":
        return open_folder(place(work, variant, fold, seed))
    from edgeseq.quant.chains import Chain

    return open_folder(place(work, variant, fold, seed) / Chain(**wanted.arguments).name)


def main() -> int:
    parsed = arguments()
    rows, missing = read(), list[Any]()
    if not parsed.table:
        parsed.work.mkdir(parents=True, exist_ok=True)
        if parsed.times:
            missing = time_families(parsed)
        else:
            rows, missing = run_missing(parsed, rows)
    print(tables(rows, read_times()))
    for each in missing:
        print(each)
    return int(any(each.failed for each in missing))


def arguments() -> argparse.Namespace:
    families = list(dict.fromkeys(each.family for each in variants().values()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--families", nargs="+", default=families, choices=families)
    parser.add_argument("--variants", nargs="+", default=list(variants()), choices=variants())
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget", type=seconds, default=seconds("3h"), help="90s, 30m, 2h: nothing is begun after it")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--times", action="store_true", help="measure the steps of fold 0 of what is in --work")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, run nothing")
    return parser.parse_args()


def run_missing(parsed: Any, rows: list[Row]) -> tuple[list[Row], list[Missing[Task]]]:
    missing: list[Missing[Task]] = []
    for ended in each_ended(parsed, wanted_tasks(parsed, rows)):
        if isinstance(ended, Missing):
            missing.append(ended)
            continue
        rows = merged(rows, ended)
        write(rows)
    return rows, missing


def each_ended(parsed: Any, tasks: Sequence[Task]) -> Iterator[list[Row] | Missing[Task]]:
    """What comes of the tasks, teachers first: the others need theirs."""
    replace = msgspec.structs.replace
    teachers = [replace(task, wanted=(TEACHER,)) for task in tasks if TEACHER in task.wanted]
    rest = [replace(task, wanted=tuple(name for name in task.wanted if name != TEACHER)) for task in tasks]
    for group in (teachers, [task for task in rest if task.wanted]):
        yield from each_done(run, group, jobs=parsed.jobs, budget=parsed.budget)


def merged(rows: Sequence[Row], ended: Sequence[Row]) -> list[Row]:
    """A row that is there stays where its folder was only opened again, or made again to the same scores.

    Else it was made of another model than those that are compared with it: the new one takes its place.
    """
    known = {row.key: row for row in rows}
    for row in ended:
        before = known.get(row.key)
        if before is not None and before.metrics == row.metrics:
            row = msgspec.structs.replace(before, shipped=row.shipped, parameters=row.parameters)
        known[row.key] = row
    return list(known.values())


def wanted_tasks(parsed: Any, rows: Sequence[Row]) -> list[Task]:
    done = {row.key for row in rows}
    tasks = []
    for seed in range(parsed.seeds):
        for family in parsed.families:
            for fold in parsed.folds:
                names = [name for name, v in variants().items() if v.family == family and name in parsed.variants]
                names = [name for name in names if not (seed and name == TEACHER)]
                gone = TEACHER in names and not place(parsed.work, TEACHER, fold, seed).exists()  # others need it
                if gone or any((name, fold, seed) not in done for name in names):
                    tasks.append(Task(parsed.work, family, fold, seed, tuple(names)))
    return tasks


def time_families(parsed: Any) -> list[Missing[Task]]:
    """Make and export what is not there of fold 0, seed 0, then measure each family's variants in turns."""
    work, known, tasks = parsed.work / "shapes", variants(), list[Task]()
    work.mkdir(exist_ok=True)
    for family in parsed.families:
        names = tuple(name for name in known if name in parsed.variants and known[name].family == family)
        tasks.append(Task(work, family, 0, 0, names, brief=True))
    missing = [ended for ended in each_ended(parsed, tasks) if isinstance(ended, Missing)]
    rows = {row.variant: row for row in read_times().rows}
    for task in tasks:
        rows.update({row.variant: row for row in time_family(work, task.wanted)})
        write_times(Times(machine(), list(rows.values())))
    return missing


def time_family(work: Path, names: Sequence[str]) -> list[Timed]:
    """A row for each variant whose folder is there and can be exported: what cannot is printed, and has none."""
    from edgeseq.devices.bench import bench_side_by_side

    folders = {}
    for name in names:
        try:
            folders[name] = exported(work, name)
        except InputError as error:
            print(f"missing: {name} ({error})")
    if not folders:
        return []
    reports = bench_side_by_side(
        list(folders.values()), ("litert", "onnxruntime"), seconds=1.0, paced_seconds=8.0, wait=True
    )
    rows = []
    for (name, folder), report in zip(folders.items(), reports, strict=True):
        best = min(report.engines, key=lambda entry: entry.paced.call.p50 or 0.0)
        sizes = {kind: folder.file(MODEL_FILES[kind]).stat().st_size for kind in folder.formats}
        rows.append(
            Timed(name, sizes, report.macs, best.engine, best.tight.p50, best.paced.call.p50, best.paced.call.p99)
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
