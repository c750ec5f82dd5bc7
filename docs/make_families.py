"""Writes docs/families.md by doing what it says: ``python docs/make_families.py``; with names only shows those rows.

A row is a family in one of its variants, at a tiny size: those that tests/export puts through the chain. A cell says
yes only where a model of it was built, compressed, exported and proven on real frames, and its file checked once more
in its engine. The tests make each row again and compare it with the one that is written.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode

from edgeseq.data import Recording, load, write_npz
from edgeseq.devices.check import check_folder, require
from edgeseq.errors import EdgeseqError
from edgeseq.export.stage import export
from edgeseq.folder import Folder
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import build
from edgeseq.models.store import save_model
from edgeseq.quant.quantize_stage import quantize

TARGET = Path(__file__).with_name("families.md")
SIZES = Path(__file__).parents[1] / "tests" / "export" / "conftest.py"
FRAMES, AGAIN = 2000, 500  # of the proof, the fewest that it takes; and of the check after it
ENGINES = ("onnxruntime", "litert")  # in the order of the cells
STEPS, CROP = 15, 100  # of the training, and frames of each recording that it sees
LENGTHS = (256, 512)  # frames that the training form is watched on
PRECISIONS = ("fp32", "int8")
SPLIT = {"train": ["4"], "validation": ["3"], "test": ["1"]}  # people of spar_watch
KEPT = {"4": (1, 200), "3": (1, 150), "1": (1, 300)}  # recordings of each exercise, and frames of each recording
ROUND = {"rounds": 1, "steps": 1, "batch": 2, "crop": 1.5, "settle": 0.5, "carry": 0.0, "stitch": 0.0}
CELLS = ("fp32 ONNX", "fp32 TFLite", "int8 ONNX", "int8 TFLite")
COLUMNS = ("variant", "family", *CELLS, "look-ahead", "tasks", "training form", "stays wide")
FUSED = {"gru", "lstm", "rnn_tanh", "rnn_relu"}  # torch's own loops over the frames
HEAD = f"""# The families

Written by `python docs/make_families.py`, which does all of it; `tests/test_family_table.py` makes every row again. For
each: a tiny model, trained for {STEPS} steps; for int8 calibration and a round of training with the rounding in place;
the export of both files with its whole proof, on {FRAMES:,} frames of a person of `spar_watch`; and the files, as they
were written, checked again in their engines on {AGAIN} of them. Where all of that holds the cell says yes.

*Training form* is what the float model does with the frames of a crop, seen by counting its operators. *Stays wide* is
what an int8 model keeps in float, beside every state as it is carried and whatever lies between two linear maps.

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
"""


def sizes() -> dict[str, tuple[str, dict[str, Any]]]:
    """By variant, a family and arguments that make it tiny: the table of tests/export."""
    spec = spec_from_file_location("sizes", SIZES)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.FAMILIES)


def some_frames(path: Path) -> str:
    """A little of spar_watch: a few recordings of three people, each cut to its start; returns where it is."""
    watch, kept = load("spar_watch"), []
    for subject, (count, frames) in KEPT.items():
        seen: dict[int, int] = {}
        for recording in watch.only([subject]).recordings:
            exercise = int(recording.y[0])
            seen[exercise] = seen.get(exercise, 0) + 1
            if seen[exercise] <= count:
                kept.append(replace(recording, x=recording.x[:frames], y=recording.y[:frames]))
    write_npz(replace(watch, recordings=tuple(kept)), path)
    return str(path)


def row(variant: str, scratch: Path) -> tuple[str, list[str]]:
    """The line of the table, and what was refused; everything is made in the empty folder ``scratch``."""
    family, arguments = sizes()[variant]
    data = some_frames(scratch / "frames.npz")
    watch = load(data)
    torch.manual_seed(0)
    model = build(family, len(watch.channels), len(watch.labels), arguments)
    train_a_little(model, watch.only(SPLIT["train"]).recordings)
    save_model(model, scratch / "fp32", family=family, arguments=arguments, data=data, split=SPLIT)
    cells, refused = [], []
    for precision in PRECISIONS:
        try:
            if precision == "int8":
                quantize(scratch / "fp32", scratch / "int8", method="qat", changes=ROUND)
            proven = export(scratch / precision, scratch / f"{precision}-export", frames=FRAMES)
            cells += holds(proven)
        except EdgeseqError as error:
            cells += ["no"] * len(ENGINES)
            refused.append(f"`{variant}` in {precision}: {error}")
    said = [*cells, str(model.look_ahead), ", ".join(model.tasks), training_form(model), wide(model)]
    return f"| `{variant}` | `{family}` | {' | '.join(said)} |\n", refused


def train_a_little(model: StreamingModel, recordings: Sequence[Recording]) -> None:
    """So that answers differ from frame to frame: those of random weights stand so close that rounding chooses."""
    x = torch.from_numpy(np.stack([recording.x[:CROP] for recording in recordings]))  # (B, T, C)
    y = torch.from_numpy(np.stack([recording.y[:CROP] for recording in recordings])).long()  # (B, T)
    model.set_normalization(x.mean((0, 1)).tolist(), x.std((0, 1)).tolist())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(model.train()(x)[0].flatten(0, 1), y.flatten(), ignore_index=-1).backward()
        optimizer.step()


def holds(folder: Folder) -> list[str]:
    """Whether each file computes the model: by the proof that the export wrote, and by another check in its engine."""
    require(folder.manifest.proof)
    links = check_folder(folder, ENGINES, AGAIN)
    require(links)
    names = {link.name for link in links}
    return [
        "yes" if names >= {f"{engine} {kind}" for kind in ("teacher-forced", "free-running", "state moves")} else "no"
        for engine in ENGINES
    ]


class Calls(TorchFunctionMode):
    """Notes the torch functions that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call."""
        self.names.append(getattr(func, "__name__", str(func)).split(".")[0])
        return func(*args, **(kwargs or {}))


def training_form(model: StreamingModel) -> str:
    """How the operators of ``forward`` grow with the frames, in words."""
    counts, names = [], set()
    for frames in LENGTHS:
        with Calls() as seen, torch.no_grad():
            model.eval()(torch.zeros(1, frames, model.input_size))
        counts.append(len(seen.names))
        names.update(seen.names)
    growth = (counts[1] - counts[0]) / (LENGTHS[1] - LENGTHS[0])
    if growth >= 1:
        return "frame by frame"
    if growth > 0:
        return "chunks of frames"
    return "one fused kernel a layer" if names & FUSED else "all frames at once"


def wide(model: StreamingModel) -> str:
    """The float tensors that belong to no linear map that becomes int8, by the module that has them; norms folded."""
    model.fold()
    small, found = tuple(f"{name}." for name in model.projections()), {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name.startswith((*small, "input_")):
            continue
        module, _, own = re.sub(r"\b\d+\b", "*", name).rpartition(".")
        found.setdefault(module, {})[own] = None
    owners: dict[str, list[str]] = {}
    for module, own in found.items():
        owners.setdefault(", ".join(own), []).append(f"`{module}`" if module else "")
    said = [f"{own} of {', '.join(modules)}" if any(modules) else own for own, modules in owners.items()]
    return "; ".join(said) or "nothing"


def document(rows: dict[str, tuple[str, list[str]]]) -> str:
    """The content of docs/families.md, of the rows by variant."""
    refused = [f"- {reason}\n" for _, reasons in rows.values() for reason in reasons]
    return HEAD + "".join(line for line, _ in rows.values()) + ("\n" + "".join(refused) if refused else "")


if __name__ == "__main__":
    made = {}
    for each in sys.argv[1:] or sizes():
        with tempfile.TemporaryDirectory() as folder:
            made[each] = row(each, Path(folder))
        print(made[each][0], *made[each][1], sep="", end="")
    if not sys.argv[1:]:
        TARGET.write_text(document(made), encoding="utf-8")
        print(f"wrote {TARGET}")
