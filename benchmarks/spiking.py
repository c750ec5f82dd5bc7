"""Spiking models and LMUFormers beside the plain ones: accuracy, what int8 flips, delay, synaptic operations, energy.

    python benchmarks/spiking.py --jobs 2 --budget 2h       # runs what is missing on spar_watch, then prints the table
    python benchmarks/spiking.py --data braille7 --models l2mu-published lmu gru --jobs 2   # with EDGESEQ_DATA set
    python benchmarks/spiking.py --table                    # prints the table of what is there

One row a model and fold in ``benchmarks/results/spiking.json``. A model is trained, quantized to int8 (by calibration
alone, or trained on with ``--method qat``), and both are counted on frames of the test recordings in the step program,
by NeuroBench's definitions (docs/energy.md). Whatever is chosen is chosen on the validation subjects. Energies are
estimates of the operations alone, at 45 nm; nothing here was measured with a meter.

Model folders are kept in ``--work``, so that an interrupted run goes on. Each run is one process of one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from accuracy import PLANS, recipe
from processes import Missing, count, each_done, machine, seconds

from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

RESULTS = Path(__file__).parent / "results" / "spiking.json"
MODELS = ("l2mu", "spiking_lmuformer", "spiking_lmuformer-causal", "lmuformer", "lmuformer-causal", "lmu")
FOLDS = PLANS["spar_watch"].folds
COUNTED = 4000  # frames of the test recordings that operations are counted on
KINDS = ("fp32", "int8")


class Operations(msgspec.Struct, frozen=True):
    """Per step. ``energy``: nJ of the operations alone, in the conventions of docs/energy.md."""

    dense: int
    macs: float
    acs: float
    memory_macs: float
    elementwise: float
    membrane_updates: float
    activation_sparsity: float | None
    connection_sparsity: float
    energy: dict[str, float]


class Row(msgspec.Struct, frozen=True):
    """One model on one fold, float and int8. ``delay``: seconds that an answer waits for the frames behind its own."""

    data: str
    model: str
    fold: int
    task: str
    parameters: int
    look_ahead: int
    delay: float
    metrics: dict[str, dict[str, float]]
    operations: dict[str, Operations]
    method: str
    seconds: float
    recipe: str
    machine: str
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        return (self.data, self.model, self.fold, self.recipe, self.method)

    @property
    def place(self) -> tuple[str, str, int, str]:
        return (self.data, self.model, self.fold, self.method)


class Task(NamedTuple):
    """What is to be run: a preset on a fold of the data that ``source`` names, in the folder ``work``."""

    source: str
    data: str
    model: str
    fold: int
    recipe: str
    method: str
    work: Path

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        return (self.data, self.model, self.fold, self.recipe, self.method)


def run(task: Task) -> Row:
    from edgeseq.lineage import versions

    started = time.monotonic()
    place = task.work / f"{task.data}-{task.model}-fold{task.fold}-{task.recipe}"
    plain = trained(task, place)
    small = quantized(plain, place.with_name(f"{place.name}-{task.method}"), task)
    folders = {"fp32": plain, "int8": small}
    manifest = plain.manifest
    ahead = manifest.input.look_ahead
    return Row(
        *(task.data, task.model, task.fold, manifest.task, manifest.parameters or 0),
        *(ahead, ahead / manifest.input.step_rate),
        {kind: folder.manifest.metrics for kind, folder in folders.items()},
        {kind: counted(folder) for kind, folder in folders.items()},
        *(task.method, round(time.monotonic() - started, 1), task.recipe, machine(), versions()),
    )


def trained(task: Task, out: Path) -> Folder:
    from edgeseq.training.stage import train

    try:
        return open_folder(out)
    except InputError:
        return train(task.source, out, preset=task.model, fold=task.fold)


def quantized(plain: Folder, out: Path, task: Task) -> Folder:
    from edgeseq.quant.quantize_stage import quantize

    try:
        return open_folder(out)
    except InputError:
        return quantize(plain.path, out, method=task.method)


def counted(folder: Folder) -> Operations:
    from edgeseq.cli.energy import count, frames_of

    source = folder.manifest.data_stage
    assert source is not None
    _, streams = frames_of(folder, source.data, COUNTED)
    found = count(folder, streams, trust=False)
    activity = found.activity
    return Operations(
        activity.dense,
        activity.effective_macs,
        activity.effective_acs,
        activity.memory_macs,
        activity.elementwise,
        activity.membrane_updates,
        activity.activation_sparsity,
        activity.connection_sparsity,
        {each.convention: round(each.step / 1000, 4) for each in found.energies},
    )


def read(file: Path) -> list[Row]:
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.is_file() else []


def write(rows: list[Row], file: Path) -> None:
    staging = file.with_suffix(".new")
    staging.write_bytes(
        msgspec.json.format(msgspec.json.encode(sorted(rows, key=lambda row: row.key)), indent=1) + b"\n"
    )
    staging.replace(file)


def spread(values: list[float], scale: float = 100, digits: int = 1) -> str:
    """Mean and deviation over the folds."""
    mean = f"{scale * statistics.mean(values):,.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(rows: list[Row], data: str, recipes: dict[str, str], method: str) -> str:
    """As Markdown, in percent, of rows of these recipes by model; a model's int8 twin is in the row below it."""
    lines = [
        "| model | | parameters | delay, ms | folds | accuracy | macro-F1 | spikes flipped | zero activations "
        "| dense synops | MACs | ACs | memory MACs | estimated nJ a step, fp32 / int8 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for model, made in recipes.items():
        own = [row for row in rows if (row.data, row.model, row.recipe, row.method) == (data, model, made, method)]
        for kind in KINDS if own else ():
            lines.append(line(own, kind))
    return "\n".join(lines)


def line(own: list[Row], kind: str) -> str:
    def metric(name: str) -> list[float]:
        return [row.metrics[kind][name] for row in own if name in row.metrics[kind]]

    def each(name: str) -> list[float]:
        found = [getattr(row.operations[kind], name) for row in own]
        return [value for value in found if value is not None]

    flips, sparsity, energy = (
        metric("spike_flips"),
        each("activation_sparsity"),
        [r.operations[kind].energy for r in own],
    )
    conventions = " / ".join(f"{statistics.mean(e[name] for e in energy):.1f}" for name in energy[0])
    cells = [
        own[0].model if kind == "fp32" else "",
        kind,
        f"{own[0].parameters:,}" if kind == "fp32" else "",
        f"{1000 * own[0].delay:.0f}",
        str(len(own)),
        spread(metric("test_accuracy")),
        spread(metric("test_macro_f1")),
        f"{spread(flips, digits=2)} %" if flips else "",
        f"{100 * statistics.mean(sparsity):.1f} %" if sparsity else "",
        f"{statistics.mean(each('dense')):,.0f}",
        f"{statistics.mean(each('macs')):,.0f}",
        f"{statistics.mean(each('acs')):,.0f}",
        f"{statistics.mean(each('memory_macs')):,.0f}",
        conventions,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    from edgeseq.data import load
    from edgeseq.models.registry import presets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="spar_watch", help="a data set's name, or a path")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=presets(), metavar="PRESET")
    parser.add_argument("--folds", nargs="+", type=int, default=list(FOLDS), choices=FOLDS)
    parser.add_argument("--method", choices=("ptq", "qat"), default="ptq")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="processes, of one thread each")
    parser.add_argument("--budget", type=seconds, default=seconds("3h"), help="2h, 90m: nothing is begun after it")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the rows")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    parsed = parser.parse_args()
    rows, dataset = read(parsed.out), load(parsed.data)
    recipes = {model: recipe(dataset, model) for model in parsed.models}
    failed = False
    if not parsed.table:
        parsed.work.mkdir(parents=True, exist_ok=True)
        done = {row.key for row in rows}
        tasks = [
            Task(parsed.data, dataset.name, model, fold, recipes[model], parsed.method, parsed.work)
            for fold in parsed.folds
            for model in parsed.models
        ]
        rows, failed = run_missing([task for task in tasks if task.key not in done], rows, parsed)
    print(f"int8 by {parsed.method}")
    print(table(rows, dataset.name, recipes, parsed.method))
    return int(failed)


def run_missing(tasks: list[Task], rows: list[Row], parsed: Any) -> tuple[list[Row], bool]:
    """Run ``tasks``, the first ones first, and write each row as it comes; what failed or was not begun is named.

    Returns the rows, and whether something failed.
    """
    failed = False
    for row in each_done(run, tasks, jobs=parsed.jobs, budget=parsed.budget):
        if isinstance(row, Missing):
            print(row, file=sys.stderr, flush=True)
            failed |= row.failed
            continue
        rows = [*(old for old in rows if old.place != row.place), row]  # one of an older recipe goes
        write(rows, parsed.out)
        found = " / ".join(f"{100 * row.metrics[kind]['test_accuracy']:.1f} %" for kind in KINDS)
        print(f"{row.model} fold {row.fold}: {found}, {row.seconds:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


if __name__ == "__main__":
    sys.exit(main())
