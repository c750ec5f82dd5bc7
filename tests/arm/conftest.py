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
from edgeseq.export import stage
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
REACH = 600  # frames of the golden stream, from whose states
STEPS = 40  # are taken
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
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every emulated Python keeps the modules that it has compiled, by its version."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def board_python(arm: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Python]:
    """``board_python(processor)``: Debian 12's Python there, with the runtimes' wheels and edgeseq as it lies here."""

    @cache
    def on(processor: str) -> Python:
        rootfs = arm / ("armhf" if processor == "cortex-a7" else "arm64") / "rootfs"
        paths = [rootfs / "opt/edge", rootfs / "usr/lib/python3/dist-packages", ROOT]
        return emulated_python(rootfs, processor, paths, tmp_path_factory.mktemp(processor), compiled)

    return on


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folder]:
    """``folder(name)``: one that comes with edgeseq, or a family at a tiny size, in float32 or int8; made once."""
    made = tmp_path_factory.mktemp("folders")
    data = made / "frames.npz"

    @cache
    def trained(variant: str) -> Path:
        family, arguments = MAKE["sizes"]()[variant]
        watch = load(str(data) if data.exists() else MAKE["some_frames"](data))
        torch.manual_seed(0)
        model = build(family, len(watch.channels), len(watch.labels), arguments)
        MAKE["train_a_little"](model, watch.only(MAKE["SPLIT"]["train"]).recordings)
        plain = made / f"{variant}-trained"
        save_model(model, plain, family=family, arguments=arguments, data=str(data), split=MAKE["SPLIT"])
        return plain

    @cache
    def named(name: str) -> Folder:
        if name in pretrained():
            return open_folder(name)
        variant, _, precision = name.rpartition("-")
        source = trained(variant)
        if precision == "int8":
            source = made / f"{variant}-quantized"
            quantize(trained(variant), source, method="ptq")
        return exported(source, made / name)

    return named


@pytest.fixture(scope="session")
def small(folder: Callable[[str], Folder]) -> Folder:
    """The model folder with the fewest operators, for machines that take a minute to check a larger one."""
    return folder("tanh-fp32")


def exported(source: Path, out: Path) -> Folder:
    """``source`` with its files, without the proof of them on this machine: tests/export has that of each family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "prove", lambda *_, **__: ())
        return stage.export(source, out, frames=MAKE["FRAMES"])


@pytest.fixture(scope="session")
def references(folder: Callable[[str], Folder], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    """``references(name)``: single steps from states of a folder's golden stream, and every engine's answers here."""
    scratch = tmp_path_factory.mktemp("here")
    return cache(lambda name: _reference(folder(name), scratch / name))


def _reference(folder: Folder, scratch: Path) -> Reference:
    scratch.mkdir()
    ties, golden = Ties(), read_golden(folder)
    engine = open_numpy(folder, ties.watch)
    x = golden.x[:REACH]
    picked = np.linspace(0, len(x) - 1, STEPS).astype(int)
    before, near = [], []
    for frame in x:
        ties.clear()
        before.append(engine.get_state())
        engine.step(frame)
        near.append(ties.near)
    given, out = scratch / "given.npz", scratch / "answers.npz"
    np.savez(given, x=x[picked], before=np.stack(before)[picked])
    record(str(folder.path), str(given), str(out))
    return Reference(folder, given, np.array(near)[picked], read(out))


@pytest.fixture(scope="session")
def on_arm(
    board_python: Callable[[str], Python],
    references: Callable[[str], Reference],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[dict[str, Any], dict[str, Answers]]]:
    """``on_arm(processor, names, frames)``: what the self-check on so many frames (0: none) says of those folders, and
    the answers there; both by name.
    """

    @cache
    def run(processor: str, names: tuple[str, ...], frames: int) -> tuple[dict[str, Any], dict[str, Answers]]:
        scratch = tmp_path_factory.mktemp("there")
        tasks = [
            {
                "folder": str(references(name).folder.path),
                "frames": frames,
                "given": str(references(name).given),
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


@pytest.fixture
def raspberry(arm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An emulated Raspberry Pi 3, with the device tree of a real one. Emulating its USB takes a core even when idle."""
    with boot(arm / "arm64", "raspi3b", tmp_path_factory.mktemp("raspi3b")) as running:
        yield running
