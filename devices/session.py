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

from edgeseq.devices.decide import Answer, SegmentDecider, decider
from edgeseq.devices.engines import as_folder, open_engine
from edgeseq.devices.engines.base import (
    NOT_A_FRAME,
    Engine,
    Facts,
    Floats,
    as_frame,
    frame_buffer,
    frame_width,
    initial_state,
)
from edgeseq.devices.golden import load_arrays
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import Folder
from edgeseq.manifest import Manifest
from edgeseq.program.graph import CONSTANTS_NAME, JSON_NAME

_OWNER = "edgeseq:model"  # the entry of a saved state that says whose it is; no state's name has a colon
_DECIDED = "edgeseq:decided."  # what entries begin with that the decision rule goes on from


class Session:
    """One stream through one model. C values in a frame, S elements in the packed state, K logits.

    Attributes:
        step: takes one frame (C,) or (1, C) in raw sensor units and returns the logits (K,), which the next call may
            overwrite: copy what you keep. It is the engine's own function and does nothing else; float32 arrays (C,)
            are the fastest. InputError for another shape; values are not looked at (that belongs to the source). Of a
            model that looks ahead the logits speak of the frame L = look-ahead calls ago, the first L of none, and the
            function also tells the engine that there is a frame.
        folder: the opened model folder.
    """

    step: Callable[[Any], Floats]

    def __init__(self, folder: str | Path | Folder, engine: str | None = None) -> None:
        """Open a folder with the engine of that name, or the one that is chosen for it here.

        Without a name it is the one that EDGESEQ_ENGINE names, or the fastest of those that work: that is measured,
        which takes a second or more, when this machine opens the folder for the first time. An engine that is named is
        tried in a process of its own, which it may take down with it, when this machine opens it for the first time.

        Raises:
            InputError: not a model folder, damaged, or not exported; an unknown engine.
            MissingDependency: the named engine is not installed or its runtime crashes here, or none works.
            Unsupported: the folder lacks the file that the named engine runs.
            GateFailed: a file's tensors are not those of the manifest.
        """
        self.folder = as_folder(folder)
        self._engine = open_engine(self.folder, engine)
        manifest = self.folder.manifest
        self.step, self._flush = self._engine.step, _nothing_more(len(manifest.labels))
        if manifest.input.look_ahead:
            self.step, self._flush = _looking_ahead(self._engine, manifest)
        self._decider = decider(manifest)

    def decide(self, logits: Floats) -> Answer:
        """The answer after one frame's logits (K,), by the manifest's decision rule. Call it once for each step."""
        return self._decider(logits)

    def reset(self) -> None:
        """Go back to the start of a recording: the initial state, and no answer yet."""
        self._engine.set_state(initial_state(self.manifest))
        self._decider.reset()

    def flush(self) -> Floats:
        """The logits (L, K) of the recording's last L = look-ahead frames, a copy; call it once, behind the last frame.

        Empty of a model that does not look ahead. What comes next is another recording: call :meth:`reset`.
        """
        return self._flush()

    def conclude(self) -> Answer:
        """The answer to a segment at its end, behind its last frame; :meth:`reset` starts the next one.

        Raises:
            Unsupported: the model answers at every frame of a stream.
            InputError: there was no frame.
        """
        if not isinstance(self._decider, SegmentDecider):
            raise Unsupported(f"{self.manifest.name} answers at every frame: only a segment has an answer at its end")
        rest = self.flush()
        return self._decider.conclude(rest[-1] if len(rest) else None)

    def run(self, x: Any) -> Floats:
        """Step over frames (T, C) from the current state; returns the logits (T, K), a copy.

        Row t speaks of frame t - L of a model that looks L frames ahead; :meth:`flush` has what is left.

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

        How many frames were decided on is in it, and of a segment all that its answer depends on. The averages of a
        stream's decision rule are not: after :meth:`restore` its answer starts from the next frame.
        """
        buffer = io.BytesIO()
        decided = {f"{_DECIDED}{name}": array for name, array in self._decider.held().items()}
        held = {**self.state, **decided, _OWNER: np.array(self._identity)}
        np.savez(buffer, **held)  # type: ignore[arg-type]  # the names are not savez's own keyword
        content = buffer.getvalue()
        if path is not None:
            Path(path).write_bytes(content)
        return content

    def restore(self, saved: bytes | str | Path) -> None:
        """Continue from what :meth:`save` gave, bytes or a path, in the middle of the stream or segment.

        The answer to a stream starts anew, and a segment that was answered stays answered. What was saved before frames
        were counted is taken for the start of a recording.

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
        decided = {name: states.pop(name) for name in list(states) if name.startswith(_DECIDED)}
        self.state = states
        self._decider.resume({name.removeprefix(_DECIDED): array for name, array in decided.items()})

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


def _nothing_more(labels: int) -> Callable[[], Floats]:
    return lambda: np.empty((0, labels), np.float32)


def _looking_ahead(engine: Engine, manifest: Manifest) -> tuple[Callable[[Any], Floats], Callable[[], Floats]]:
    """Step and flush of an engine whose file is told, behind the values of a frame, whether there is one."""
    width = frame_width(manifest)
    held, _ = frame_buffer(width + 1)
    row, (values, live) = held[0], (memoryview(held[0, :width]), held[0, width:])  # type: ignore[arg-type]
    live[:] = 1

    def step(x: Any) -> Floats:
        try:
            values[:] = x
        except NOT_A_FRAME:
            row[:width] = as_frame(x, width)
        return engine.step(row)

    def flush() -> Floats:
        rest = np.empty((manifest.input.look_ahead, len(manifest.labels)), np.float32)
        row[:] = 0
        for logits in rest:
            logits[:] = engine.step(row)
        live[:] = 1
        return rest

    return step, flush
