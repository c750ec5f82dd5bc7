"""ARM machines that are not here, model folders for them, and what this machine answers for comparison."""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseq.data import load
from edgeseq.devices.compare import Ties
from edgeseq.devices.engines.numpy_engine import open_numpy
from edgeseq.devices.golden import read_golden
from edgeseq.export.stage import export
from edgeseq.folder import Folder, open_folder, pretrained
from edgeseq.models.registry import build
from edgeseq.models.store import save_model
from edgeseq.quant.quantize_stage import quantize

from .emulator import Python, emulated_python
from .guest import record
from .machine import Machine, boot

ROOT = Path(__file__).resolve().parents[2]
MAKE = runpy.run_path(str(ROOT / "docs" / "make_families.py"))
FAMILIES = tuple(f"{variant}-{precision}" for variant in sorted(MAKE["sizes"]()) for precision in MAKE["PRECISIONS"])
STEPS = 40  # taken from states of the whole golden stream
CHECKED = 60  # frames of the self-check
Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """What the engines here answer for a folder: in the npz files that the guest program reads and writes.

    ``near`` (T,) says in which steps the program came so near a tie or threshold that another order of summing decides.
    """

    folder: Folder
    given: Path
    near: np.ndarray
    answers: Answers


@pytest.fixture(scope="session")
def arm() -> Path:
    """The folder that ``stand_in.py`` fills."""
    folder = Path(os.environ.get("EDGESEQ_ARM", ROOT / ".arm"))
    parts = ("wheels-3.11", "wheels-3.13", "arm64", "trixie", "armhf")
    if not all((folder / part / "made-of").is_file() for part in parts):
        pytest.skip(f"{folder} holds no ARM machines: make test-arm builds them")
    return folder


@pytest.fixture(scope="session")
def board_python(arm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Python]:
    """``board_python(processor)``: Debian 12's Python there, with the runtimes' wheels and edgeseq as it lies here."""

    @cache
    def on(processor: str) -> Python:
        rootfs = arm / ("armhf" if processor == "cortex-a7" else "arm64") / "rootfs"
        paths = [rootfs / "opt/edge", rootfs / "usr/lib/python3/dist-packages", ROOT]
        return emulated_python(rootfs, processor, paths, tmp_path_factory.mktemp(processor))

    return on


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """Model folders by name: those that come with edgeseq, and every family at a tiny size, in float32 and int8."""
    made = tmp_path_factory.mktemp("folders")
    data = MAKE["some_frames"](made / "frames.npz")
    watch = load(data)
    found = {name: open_folder(name) for name in pretrained()}
    for variant, (family, arguments) in MAKE["sizes"]().items():
        torch.manual_seed(0)
        model = build(family, len(watch.channels), len(watch.labels), arguments)
        MAKE["train_a_little"](model, watch.only(MAKE["SPLIT"]["train"]).recordings)
        plain = made / f"{variant}-trained"
        save_model(model, plain, family=family, arguments=arguments, data=data, split=MAKE["SPLIT"])
        quantize(plain, made / f"{variant}-quantized", method="ptq")
        for source, precision in (("trained", "fp32"), ("quantized", "int8")):
            name = f"{variant}-{precision}"
            found[name] = export(made / f"{variant}-{source}", made / name, frames=MAKE["FRAMES"])
    return found


@pytest.fixture(scope="session")
def references(folders: dict[str, Folder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """By folder, single steps from states of its whole golden stream, and every engine's answers on this machine."""
    scratch = tmp_path_factory.mktemp("here")
    return {name: _reference(folder, scratch / name) for name, folder in folders.items()}


def _reference(folder: Folder, scratch: Path) -> Reference:
    scratch.mkdir()
    ties, golden = Ties(), read_golden(folder)
    engine = open_numpy(folder, ties.watch)
    picked = np.linspace(0, len(golden.x) - 1, STEPS).astype(int)
    before, near = [], []
    for frame in golden.x:
        ties.clear()
        before.append(engine.get_state())
        engine.step(frame)
        near.append(ties.near)
    given, out = scratch / "given.npz", scratch / "answers.npz"
    np.savez(given, x=golden.x[picked], before=np.stack(before)[picked])
    record(str(folder.path), str(given), str(out))
    return Reference(folder, given, np.array(near)[picked], read(out))


@pytest.fixture(scope="session")
def on_arm(
    board_python: Callable[[str], Python], references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[dict[str, Any], dict[str, Answers]]]:
    """``on_arm(processor, names, frames)``: what the self-check on so many frames (0: none) says of those folders, and
    the answers there; both by name.
    """

    @cache
    def run(processor: str, names: tuple[str, ...], frames: int) -> tuple[dict[str, Any], dict[str, Answers]]:
        scratch = tmp_path_factory.mktemp("there")
        tasks = [
            {
                "folder": str(references[name].folder.path),
                "frames": frames,
                "given": str(references[name].given),
                "out": str(scratch / f"{name}.npz"),
            }
            for name in names
        ]
        (scratch / "tasks.json").write_text(json.dumps(tasks))
        program = Path(__file__).with_name("guest.py")
        board_python(processor).say(program, scratch / "tasks.json", scratch / "results.json")
        said = dict(zip(names, json.loads((scratch / "results.json").read_text()), strict=bool(frames)))
        return said, {name: read(scratch / f"{name}.npz") for name in names}

    return run


def read(file: Path) -> Answers:
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def machine(arm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An emulated board with two cores, reachable over SSH."""
    with boot(arm / "arm64", "virt", tmp_path_factory.mktemp("virt")) as running:
        yield running


@pytest.fixture(scope="session")
def raspberry(arm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An emulated Raspberry Pi 3, with the device tree of a real one."""
    with boot(arm / "arm64", "raspi3b", tmp_path_factory.mktemp("raspi3b")) as running:
        yield running
