"""A model folder running on this machine, one frame at a time.

session = Session("runs/gru-export")
for frame in frames:  # (C,) float32, raw sensor units
    answer = session.decide(session.step(frame))
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.decide import Answer, Decider
from edgeseq.devices.engines import as_folder, open_engine
from edgeseq.devices.engines.base import Facts, Floats, frame_width, initial_state
from edgeseq.devices.golden import load_arrays
from edgeseq.errors import InputError
from edgeseq.folder import Folder
from edgeseq.manifest import Manifest
from edgeseq.program.graph import CONSTANTS_NAME, JSON_NAME

_OWNER = "edgeseq:model"  # the entry of a saved state that says whose it is; no state's name has a colon


class Session:
    """One stream through one model. C values in a frame, S elements in the packed state, K logits.

    Attributes:
        step: takes one frame (C,) or (1, C) in raw sensor units and returns the logits (K,), which the next call may
            overwrite: copy what you keep. It is the engine's own function and does nothing else; float32 arrays (C,)
            are the fastest. InputError for another shape; values are not looked at (that belongs to the source).
        folder: the opened model folder.
    """

    step: Callable[[Any], Floats]

    def __init__(self, folder: str | Path | Folder, engine: str | None = None) -> None:
        """Open a folder with the engine of that name, or the first that works here.

        Raises:
            InputError: not a model folder, damaged, or not exported; an unknown engine.
            MissingDependency: the named engine is not installed.
            Unsupported: the folder lacks the file that the named engine runs.
            GateFailed: a file's tensors are not those of the manifest.
        """
        self.folder = as_folder(folder)
        self._engine = open_engine(self.folder, engine)
        self.step = self._engine.step
        manifest = self.folder.manifest
        self._decider = Decider(
            manifest.decision, manifest.labels, manifest.input.step_rate, look_ahead=manifest.input.look_ahead
        )

    def decide(self, logits: Floats) -> Answer:
        """The answer after one frame's logits (K,), by the manifest's decision rule. Call it once for each step."""
        return self._decider(logits)

    def reset(self) -> None:
        """Go back to the start of a recording: the initial state, and no answer yet."""
        self._engine.set_state(initial_state(self.manifest))
        self._decider.reset()

    def run(self, x: Any) -> Floats:
        """Step over frames (T, C) from the current state; returns the logits (T, K), a copy.

        Raises:
            InputError: another shape.
        """
        frames = np.asarray(x, np.float32)
        width = frame_width(self.manifest)
        if frames.ndim != 2 or frames.shape[1] != width:
            raise InputError(f"frames have shape {frames.shape}: (T, {width}) is needed")
        logits = np.empty((len(frames), len(self.labels)), np.float32)
        for row, frame in zip(logits, frames, strict=True):
            row[:] = self.step(frame)
        return logits

    @property
    def state(self) -> dict[str, Floats]:
        """The carried state: each named state, a copy, in the shape that the manifest gives it. May be set."""
        packed = self._engine.get_state()
        return {
            entry.name: packed[entry.offset : entry.offset + entry.size].reshape(entry.shape).copy()
            for entry in self.manifest.states
        }

    @state.setter
    def state(self, states: Mapping[str, Any]) -> None:
        packed = np.empty(self.manifest.state_size, np.float32)
        names = {entry.name for entry in self.manifest.states}
        if set(states) != names:
            raise InputError(f"the states {sorted(states)} were given; this model carries {sorted(names)}")
        for entry in self.manifest.states:
            value = np.asarray(states[entry.name], np.float32)
            if value.shape != entry.shape:
                raise InputError(f"state {entry.name!r} has shape {value.shape}: {entry.shape} is needed")
            packed[entry.offset : entry.offset + entry.size] = value.ravel()
        self._engine.set_state(packed)

    def save(self, path: str | Path | None = None) -> bytes:
        """The carried state as the bytes of an npz file, written to ``path`` where one is given.

        The decision rule's averages are not in it: after :meth:`restore` the answer starts from the next frame.
        """
        buffer = io.BytesIO()
        held = {**self.state, _OWNER: np.array(self._identity)}
        np.savez(buffer, **held)  # type: ignore[arg-type]  # the names are not savez's own keyword
        content = buffer.getvalue()
        if path is not None:
            Path(path).write_bytes(content)
        return content

    def restore(self, saved: bytes | str | Path) -> None:
        """Continue from what :meth:`save` gave, bytes or a path; the answer starts anew.

        It must come from the same step program: in another engine, format or folder of it a state means the same, and
        in a program with other constants it means nothing, though it may have the same names and shapes.

        Raises:
            InputError: no such file, not a saved state, or one of another model.
        """
        source = io.BytesIO(saved) if isinstance(saved, bytes) else Path(saved)
        what = "the bytes given as a saved state" if isinstance(saved, bytes) else f"the saved state {saved}"
        states = load_arrays(source, what)
        owner = states.pop(_OWNER, None)
        if owner is None or str(owner) != self._identity:
            whose = "does not say of which model it is" if owner is None else "is of another model"
            raise InputError(f"{what} {whose}; this one is {self.manifest.name} in {self.folder.path}")
        self.state = states
        self._decider.reset()

    @property
    def _identity(self) -> str:
        """The hashes of the step program and its constants (of the folder where there is none).

        Not simply of the folder: that also covers its name, its formats and its golden frames.
        """
        files = self.manifest.files
        program = [files[name] for name in (JSON_NAME, CONSTANTS_NAME) if name in files]
        return " ".join(program or [self.folder.hash])

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def facts(self) -> Facts:
        """What runs: runtime, version, threads, and for LiteRT what XNNPACK took."""
        return dict(self._engine.facts)

    @property
    def manifest(self) -> Manifest:
        """The folder's manifest."""
        return self.folder.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each logit."""
        return self.manifest.labels

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"<Session {manifest.name!r} on {self.engine}: {frame_width(manifest)} values at "
            f"{manifest.input.step_rate:g} Hz -> {len(self.labels)} logits, state of {manifest.state_size}>"
        )
