"""What each run of ``benchmarks/reber.py`` does: training, pruning, random graphs, the time of a step."""

from __future__ import annotations

import copy
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from processes import machine
from reber_models import EmbeddedRnn, EmbeddedSparseRnn, accuracy, fit, made, right, squared_gradients, train_epoch
from reber_strings import ALPHABET, Parts, Strings, kept_data_set
from reber_table import AUTOMATA, ENGINES, GRAPHS, Numbers, Row
from safetensors.torch import load_file, save_file

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices.bench import BenchReport, bench_side_by_side
from edgeseq.errors import GateFailed, InputError
from edgeseq.export.stage import export
from edgeseq.lineage import versions
from edgeseq.models.contract import StreamingModel, parameter_count
from edgeseq.models.store import save_model
from edgeseq.models.wiring import draw_wiring, wiring_facts
from edgeseq.quant.narrow import narrowed
from edgeseq.quant.prune import units_to_keep
from edgeseq.quant.saliency import saliency
from edgeseq.quant.sparsity import Sparsity, present

REVISION = 1  # raise it when code changes that decides what a run comes to
LETTERS_A_SECOND = 100.0  # at which a paced step is timed: nobody spells at a rate of its own
PROVEN = 200  # test strings, whose letters a file is proven on
REDRAWS = 50  # of a wiring that is not connected, before another number of nodes is drawn


class Setup(msgspec.Struct, frozen=True):
    """How all runs are made. ``scale``: share of the thesis's number of strings. The thesis's own are the defaults."""

    epochs: int = 50
    batch: int = 32
    graph_epochs: int = 15
    graph_batch: int = 128
    scale: float = 1.0
    tight_seconds: float = 5.0
    paced_seconds: float = 10.0


class Task(msgspec.Struct, frozen=True):
    """One run, as :class:`reber_table.Row` names it. ``work``: where trained models and strings are kept.

    ``shares``: of part "speed" the shares of weights and of parameters that are gone.
    """

    part: str
    cell: str
    what: str
    seed: int
    setup: Setup
    work: Path
    shares: tuple[float, float] = (0.0, 0.0)

    @property
    def training(self) -> Numbers:
        """How its model was trained, or the one that it starts from."""
        setup = self.setup
        epochs, batch = (setup.graph_epochs, setup.graph_batch) if self.part == "graph" else (setup.epochs, setup.batch)
        return {"epochs": epochs, "batch": batch, "scale": setup.scale}

    @property
    def recipe(self) -> str:
        """What decides what the run comes to."""
        timed = [self.setup.tight_seconds, self.setup.paced_seconds] if self.part == "speed" else []
        return hashlib.sha256(msgspec.json.encode([REVISION, self.training, timed])).hexdigest()[:12]

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        return (self.part, self.cell, self.what, self.seed, self.recipe)

    @property
    def base(self) -> Path:
        """The weights of the cell's trained model."""
        recipe = msgspec.structs.replace(self, part="base").recipe
        return self.work / f"{self.cell}-seed{self.seed}-{recipe}.safetensors"

    def parts(self) -> Parts:
        """The strings of the run: the same for all runs of a seed."""
        scale = self.setup.scale
        return kept_data_set(self.work / f"strings-{REVISION}-seed{self.seed}-{scale:g}.npz", self.seed, scale)


def run(task: Task) -> Row:
    started = time.monotonic()
    torch.set_num_threads(1)
    models, facts = RUNS[task.part](task)
    spent = round(time.monotonic() - started, 1)
    place = (task.part, task.cell, task.what, task.seed)
    return Row(*place, models, facts, task.training, spent, task.recipe, machine(), versions())


Found = tuple[dict[str, Numbers], Numbers]


def run_base(task: Task) -> Found:
    parts = task.parts()
    model = made(EmbeddedRnn, task.seed, cell=task.cell)
    setup = task.setup
    best, history = fit(model, parts.train, parts.validation, epochs=setup.epochs, size=setup.batch, seed=task.seed)
    staging = task.base.with_suffix(".new")
    save_file(best.state_dict(), staging)
    staging.replace(task.base)
    last = len(history) - history[::-1].index(max(history))  # of equals the last
    return {"trained": scores(best, parts)}, {"epoch": float(last)}


def run_weights(task: Task) -> Found:
    """Part "weights": the share of the recurrent layers' weights that one threshold for all of them takes out."""
    parts, model = task.parts(), trained(task)
    without_weights(model, float(task.what))
    return retrained(task, model, parts), {}


def run_units(task: Task) -> Found:
    """Part "units": the share of the parameters that goes with whole units."""
    parts, model = task.parts(), trained(task)
    smaller, _ = without_units(model, task, parts.train, float(task.what))
    sizes = {name: float(width.size) for name, width in smaller.widths().items()}
    return retrained(task, smaller, parts), sizes


def without_weights(model: StreamingModel, share: float) -> None:
    """One global threshold on the magnitude of all weights of the recurrent layers, in place; biases stay."""
    layers = [name for name in model.projections() if name.startswith("layers.")]
    Sparsity(share, present(model, layers)).apply(model)


def without_units(
    model: StreamingModel, task: Task, train: Strings, share: float
) -> tuple[StreamingModel, dict[str, Any]]:
    """The model without the units that matter least for the loss on the training strings, and its arguments."""
    squared = squared_gradients(model, train, task.setup.batch, np.random.default_rng([task.seed, 0]))
    kept = units_to_keep(model, share, saliency(model, squared))
    family = f"{EmbeddedRnn.__module__}:{EmbeddedRnn.__name__}"
    return narrowed(model, family, {"cell": task.cell}, kept, trust=True)


def retrained(task: Task, model: StreamingModel, parts: Parts) -> dict[str, Numbers]:
    """The scores of a "pruned" model and, after one more epoch with an optimizer that is fresh, "retrained"."""
    before = scores(model, parts)
    more_epoch(task, model, parts.train)
    return {"pruned": before, "retrained": scores(model, parts)}


def more_epoch(task: Task, model: StreamingModel, train: Strings) -> None:
    """One epoch as training has them, in place."""
    generator = np.random.default_rng([task.seed, task.setup.epochs])
    train_epoch(model, train, task.setup.batch, generator)


def trained(task: Task) -> StreamingModel:
    """The cell's model as its base run left it."""
    model = made(EmbeddedRnn, task.seed, cell=task.cell)
    model.load_state_dict(load_file(task.base))
    return model.eval()


def scores(model: StreamingModel, parts: Parts) -> Numbers:
    """The numbers of a model, as :class:`reber_table.Row` has them."""
    answered = right(model, parts.test)
    own = {i: answered[parts.test.generators == i] for i in range(AUTOMATA)}
    found = {
        "validation": accuracy(model, parts.validation),
        "test": float(answered.mean()),
        "harder": accuracy(model, parts.harder),
        **{f"automaton_{i}": float(each.mean()) for i, each in own.items() if len(each)},
    }
    return {name: round(value, 6) for name, value in found.items()} | {"parameters": float(parameter_count(model))}


def run_graph(task: Task) -> Found:
    """A network of which a random graph says which hidden units read each other."""
    parts, setup = task.parts(), task.setup
    arguments = graph(task.what)
    model = made(EmbeddedSparseRnn, task.seed, cell=task.cell, **arguments)
    epochs = {"epochs": setup.graph_epochs, "size": setup.graph_batch}
    best, _ = fit(model, parts.train, parts.validation, **epochs, seed=task.seed)
    return {"trained": scores(best, parts)}, properties(arguments)


def graph(what: str) -> dict[str, Any]:
    """The arguments of the random graph "KIND NUMBER", in the thesis's ranges: 10 to 50 nodes, a fifth as many
    neighbours or a tenth as many edges for each new node.

    Half of the neighbours are on each side, so an odd number is that below. A graph that is not connected is drawn
    again, and where that goes on, so is the number of nodes.
    """
    kind, number = what.split()
    rng = np.random.default_rng([GRAPHS.index(kind), int(number)])
    while True:
        nodes = int(rng.integers(10, 51))
        sizes = {
            "nodes": nodes,
            "neighbours": nodes // 10 * 2 if kind == "watts_strogatz" else 2,
            "attach": nodes // 10,
        }
        for seed in rng.integers(2**31, size=REDRAWS).tolist():
            try:
                draw_wiring(kind, **sizes, rewire=1.0, seed=seed)
            except InputError:
                continue
            return {"graph": kind, **sizes, "wiring_seed": seed}


def properties(arguments: Mapping[str, Any]) -> Numbers:
    given = dict(arguments)
    kind, seed = given.pop("graph"), given.pop("wiring_seed")
    return {
        name: float(value) for name, value in wiring_facts(draw_wiring(kind, **given, rewire=1.0, seed=seed)).items()
    }


def run_speed(task: Task) -> Found:
    """Files of the dense model, of the one with zeros and of the one with fewer units, timed in turns.

    No model, and the fact that it is refused, where the state of one grows for ever when strings follow each other
    without a reset, as they do in a stream.
    """
    parts = task.parts()
    zeros, units = task.shares
    dense, pruned = trained(task), trained(task)
    without_weights(pruned, zeros)
    smaller, arguments = without_units(dense, task, parts.train, units) if units else (copy.deepcopy(dense), {})
    for model in (pruned, smaller):
        more_epoch(task, model, parts.train)
    all_ = {"dense": (dense, {}), "zeros": (pruned, {}), "smaller": (smaller, arguments)}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = write_letters(parts.test, place / "letters.npz")
        exported = []
        for name, (model, changed) in all_.items():
            saved = save_model(model, place / f"{name}-trained", arguments={"cell": task.cell, **changed}, data=data)
            try:
                exported.append(export(saved.path, place / name, trust=True))
            except GateFailed as error:
                print(f"{task.cell}, {name}: {error}", file=sys.stderr, flush=True)
                return {}, {"refused": 1.0}
        setup = task.setup
        reports = bench_side_by_side(
            exported,
            tuple(ENGINES),
            seconds=setup.tight_seconds,
            paced_seconds=setup.paced_seconds,
            seed=task.seed,
            wait=True,
        )
    found = {name: scores(all_[name][0], parts) | timed(report) for name, report in zip(all_, reports, strict=True)}
    return found, {"zeros": zeros, "smaller": units}


def timed(report: BenchReport) -> Numbers:
    """Sizes, and by engine the medians of a step in a tight loop and at the letters' rate."""
    found = {"macs": float(report.macs)}
    for each in report.engines:
        times = {"tight": each.tight.p50, "paced": each.paced.call.p50}
        found |= {f"{each.engine}_{kind}_us": round(time or 0.0, 2) for kind, time in times.items()}
        found[f"{each.engine}_bytes"] = float(each.file_bytes)
    return found


def write_letters(strings: Strings, file: Path) -> str:
    """Some of the strings as a data set, a letter a frame; its path."""
    one_hot = np.eye(len(ALPHABET), dtype=np.float32)
    drawn = zip(strings.codes[:PROVEN], strings.lengths, strings.labels, strict=False)
    recordings = tuple(
        Recording(one_hot[row[:length]], np.full(length, label, np.int16), str(i % 10), str(i))
        for i, (row, length, label) in enumerate(drawn)
    )
    letters, units = tuple(ALPHABET), ("",) * len(ALPHABET)
    write_npz(
        Dataset("reber", recordings, letters, units, LETTERS_A_SECOND, ("invalid", "valid"), task="segment"), file
    )
    return str(file)


RUNS: dict[str, Callable[[Task], Found]] = {
    "base": run_base,
    "weights": run_weights,
    "units": run_units,
    "graph": run_graph,
    "speed": run_speed,
}
