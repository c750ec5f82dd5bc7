"""What benchmarks/long_run.py steps over a stream: an engine in a process of its own, and torch's ``forward``."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stepping_worker import receive, send

from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder

Floats = NDArray[np.float32]


class Stepper(Protocol):
    """Told frames, and asked for their logits afterwards; ``resident``: bytes of its process, 0 where it has none."""

    resident: int

    def tell(self, frames: Floats) -> None: ...
    def logits(self) -> Floats: ...
    def save(self) -> bytes: ...
    def restore(self, saved: bytes) -> None: ...


class Worker:
    """An engine in a process of its own; ``resident`` is what it said last."""

    def __init__(self, folder: Folder, engine: str, opened: ExitStack) -> None:
        command = [sys.executable, str(Path(__file__).with_name("stepping_worker.py")), str(folder.path.resolve())]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = opened.enter_context(subprocess.Popen([*command, engine], **pipes))
        opened.callback(self._process.kill)
        self._labels, self.resident = len(folder.manifest.labels), 0

    def tell(self, frames: Floats) -> None:
        send(self._pipes[0], b"f", frames.tobytes())

    def logits(self) -> Floats:
        self.resident = struct.unpack("<q", self._heard(b"r"))[0]
        return np.frombuffer(self._heard(b"y"), np.float32).reshape(-1, self._labels)

    def save(self) -> bytes:
        send(self._pipes[0], b"s")
        return self._heard(b"s")

    def restore(self, saved: bytes) -> None:
        send(self._pipes[0], b"l", saved)

    @property
    def _pipes(self) -> tuple[Any, Any]:
        return self._process.stdin, self._process.stdout

    def _heard(self, wanted: bytes) -> bytes:
        kind, content = receive(self._pipes[1])
        if kind != wanted:
            raise EdgeseqError(f"the process that steps ended (code {self._process.wait()})")
        return content


class Forward:
    """The trained model in torch, many frames at once, the state carried."""

    resident = 0

    def __init__(self, folder: Folder) -> None:
        import torch

        from edgeseq.models.store import load_model

        torch.set_num_threads(1)
        self._torch, self._model = torch, load_model(folder)
        self._state, self._frames = self._model.initial_state(1), np.empty(0, np.float32)

    def tell(self, frames: Floats) -> None:
        self._frames = frames

    def logits(self) -> Floats:
        with self._torch.no_grad():
            y, self._state = self._model(self._torch.from_numpy(self._frames)[None], self._state)
        found: Floats = y[0].numpy()
        return found

    def save(self) -> bytes:
        held = io.BytesIO()
        np.savez(held, **{name: tensor.numpy() for name, tensor in self._state.items()})
        return held.getvalue()

    def restore(self, saved: bytes) -> None:
        with np.load(io.BytesIO(saved), allow_pickle=False) as held:
            self._state = {name: self._torch.from_numpy(held[name]) for name in held.files}
