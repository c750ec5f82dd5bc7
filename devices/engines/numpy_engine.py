"""The step program interpreted in numpy: the reference for every file, and the engine where no runtime is installed.

It runs on one thread, however many an engine may use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseq.devices.engines.base import (
    NOT_A_FRAME,
    Engine,
    Facts,
    Floats,
    as_frame,
    as_state,
    expected_shapes,
    frame_buffer,
    initial_state,
    input_width,
)
from edgeseq.errors import GateFailed
from edgeseq.folder import Folder
from edgeseq.manifest import Manifest
from edgeseq.program import Program, interpret
from edgeseq.program.graph import JSON_NAME
from edgeseq.program.interpret import Watch


def open_numpy(folder: Folder, watch: Watch | None = None) -> Engine:
    """The step program of a folder, in numpy; ``watch`` is shown every node and its inputs before it runs.

    Raises:
        InputError, GateFailed: the folder holds no program, or one that is not the manifest's.
    """
    folder.file(JSON_NAME)
    program = Program.read(folder.path)
    check_program(folder, program)
    return _bind(folder.manifest, program, watch)


def check_program(folder: Folder, program: Program) -> None:
    """Compare a program's input, answer and states with the manifest.

    Raises:
        GateFailed: naming the first that differs.
    """
    where, shapes = folder.path / JSON_NAME, expected_shapes(folder.manifest)
    for name, found in (("x", program.x), ("y", program.values[program.y])):
        if found.shape != shapes[name]:
            raise GateFailed(f"{where}: {name} is {list(found.shape)}, the manifest says {list(shapes[name])}")
    stated = {entry.name: entry.size for entry in folder.manifest.states}
    held = {state.name: state.before.size for state in program.states}
    if stated != held:
        raise GateFailed(f"{where}: the program carries the states {held}, the manifest lists {stated}")


def unpack(manifest: Manifest, program: Program, packed: Floats) -> dict[str, Floats]:
    """A packed state (S,) as the program's named states: views, in the program's shapes."""
    shapes = {state.name: state.before.shape for state in program.states}
    return {
        entry.name: packed[entry.offset : entry.offset + entry.size].reshape(shapes[entry.name])
        for entry in manifest.states
    }


def pack(manifest: Manifest, states: dict[str, Floats]) -> Floats:
    """Named states as one packed state (S,), a copy."""
    packed = np.empty(manifest.state_size, np.float32)
    for entry in manifest.states:
        packed[entry.offset : entry.offset + entry.size] = states[entry.name].ravel()
    return packed


def _bind(manifest: Manifest, program: Program, watch: Watch | None) -> Engine:
    width, size = input_width(manifest), manifest.state_size
    frame, values = frame_buffer(width)
    compute = interpret(program, watch)
    # Packed only when somebody asks: packing after every step would cost as much as a small model.
    states = unpack(manifest, program, initial_state(manifest))

    def step(x_t: Any) -> Floats:
        nonlocal states
        try:
            values[:] = x_t
        except NOT_A_FRAME:
            values[:] = as_frame(x_t, width)
        y, states = compute(frame, states)
        return y.ravel()

    def get_state() -> Floats:
        return pack(manifest, states)

    def set_state(packed: Any) -> None:
        nonlocal states
        states = unpack(manifest, program, as_state(packed, size)[0])

    facts: Facts = {"runtime": "numpy", "version": np.__version__, "device": "CPU", "threads": 1}
    return Engine("numpy", step, get_state, set_state, facts)
