"""Checks model folders and records what every engine answers: the same program runs on ARM and here.

    python guest.py TASKS RESULTS

TASKS is a JSON list of ``{"folder", "frames", "given", "out"}``; with 0 frames a folder is not checked. ``given`` is an
npz with frames ``x`` (T, C) and the packed states ``before`` (T, S) from which each step is taken; ``out`` becomes
one with ``ENGINE.y`` (T, K) and ``ENGINE.after`` (T, S). RESULTS becomes the list of what
``python -m edgeseq.devices verify`` said of the folders that were checked.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.__main__ import main as devices
from edgeseq.devices.engines import ENGINES, open_engine
from edgeseq.errors import MissingDependency, Unsupported
from edgeseq.folder import open_folder


def verify(folder: str, frames: int) -> dict[str, Any]:
    """The exit code and the document of ``verify FOLDER --json --frames FRAMES``."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = devices(["verify", folder, "--json", "--frames", str(frames)])
    return {"folder": folder, "code": code, **json.loads(said.getvalue())}


def record(folder: str, given: str, out: str) -> None:
    """Every engine that opens here takes every step."""
    opened, answers = open_folder(folder), {}
    with np.load(given) as arrays:
        x, before = arrays["x"], arrays["before"]
    for name, kind in ENGINES.items():
        if kind.file not in opened.manifest.files:
            continue
        try:
            engine = open_engine(opened, name)
        except (MissingDependency, Unsupported):
            continue
        y, after = [], []
        for frame, state in zip(x, before, strict=True):
            engine.set_state(state)
            y.append(engine.step(frame).copy())
            after.append(engine.get_state())
        answers |= {f"{name}.y": np.stack(y), f"{name}.after": np.stack(after)}
    np.savez(out, **answers)


def main(tasks: str, results: str) -> None:
    """All tasks in one process: starting Python and two runtimes takes longer than most of them."""
    found = []
    for task in json.loads(Path(tasks).read_text()):
        record(task["folder"], task["given"], task["out"])
        if task["frames"]:
            found.append(verify(task["folder"], task["frames"]))
    Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
