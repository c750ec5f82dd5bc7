"""The same model in ExecuTorch, whose packages live in an environment of their own: a process that takes its turns."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from step_contestants import AGREED, Contestant, Frames

from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder


@contextmanager
def in_executorch(folder: Folder, frames: Frames, python: Path) -> Iterator[Contestant]:
    """The step form, exported by torch and lowered to XNNPACK by ExecuTorch; ``python`` is that of its environment.

    Raises:
        EdgeseqError: the process ended, with the last line that it said.
    """
    with tempfile.TemporaryDirectory() as place, Path(place, "said").open("w+") as said:
        files = Path(place, "step.pt2"), Path(place, "frames.npy")
        save_export(folder, files[0])
        np.save(files[1], np.stack(frames))
        command = [python, Path(__file__).with_name("executorch_worker.py"), *files, AGREED]
        with subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        ) as worker:
            try:
                yield contestant(worker, said)
            finally:
                worker.kill()


def contestant(worker: subprocess.Popen[str], said: TextIO) -> Contestant:
    def heard() -> Any:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            said.seek(0)
            last = said.read().strip().splitlines() or ["nothing"]
            raise EdgeseqError(f"the process of ExecuTorch ended with code {worker.wait()}: {last[-1]}")
        return json.loads(line)

    def ask(*words: object) -> list[int]:
        print(*words, file=worker.stdin, flush=True)
        taken: list[int] = heard()
        return taken

    first = heard()
    return Contestant(
        "executorch",
        "fp32",
        f"executorch {first['version']}, torch {first['torch']}",
        np.array(first["answers"], np.float32),
        lambda at, count: ask("tight", at, count),
        lambda at, count, rate: ask("paced", at, count, rate),
    )


def save_export(folder: Folder, file: Path) -> None:
    """The lowered step of a folder as a ``torch.export`` program of x and its states, in their order."""
    import torch

    from edgeseq.export.lower import lower
    from edgeseq.models.store import load_model

    form = lower(load_model(folder))
    names = list(form.initial_state())

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.form = form

        def forward(self, x: Any, *state: Any) -> Any:
            y, after = self.form(x, dict(zip(names, state, strict=True)))
            return (y, *(after[name] for name in names))

    example = (torch.zeros(1, form.input_width), *form.initial_state().values())
    torch.export.save(torch.export.export(Flat().eval(), tuple(t.clone() for t in example)), file)
