"""golden.npz: frames that the trained model saw, and what it answered. The device checks itself with them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.engines.base import Floats, frame_width, input_width
from edgeseq.errors import InputError
from edgeseq.folder import GOLDEN_NAME, Folder


@dataclass(frozen=True)
class Golden:
    """What the file takes, x (N, C), the trained model's logits y (N, K) from the start, and its final state (S,).

    ``frames`` are those of x that are frames, without what says so (see :func:`~.engines.base.input_width`); x ends
    with the calls that bring none, where the model looks ahead.
    """

    x: Floats
    y: Floats
    state: Floats
    frames: Floats


def read_golden(folder: Folder) -> Golden:
    """The golden frames of a folder.

    Raises:
        InputError: there are none, or they are not of the manifest's shapes, or not finite.
    """
    file, manifest = folder.file(GOLDEN_NAME), folder.manifest
    stored = load_arrays(file, str(file))
    missing = {"x", "y", "state"} - set(stored)
    if missing:
        raise InputError(f"{file} lacks {', '.join(sorted(missing))}: export the model anew")
    found = {name: np.ascontiguousarray(stored[name], np.float32) for name in ("x", "y", "state")}
    count = len(found["x"]) if found["x"].ndim else 0
    shapes = {
        "x": (count, input_width(manifest)),
        "y": (count, len(manifest.labels)),
        "state": (manifest.state_size,),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape or count == 0:
            raise InputError(f"{file}: {name} has shape {found[name].shape}, the manifest says {shape}")
        if not np.isfinite(found[name]).all():
            raise InputError(f"{file}: {name} holds values that are not finite")
    width = frame_width(manifest)
    there = found["x"][:, -1] > 0 if manifest.input.look_ahead else np.ones(count, bool)
    return Golden(**found, frames=np.ascontiguousarray(found["x"][there, :width]))


def load_arrays(source: Path | BinaryIO, what: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name; never a pickle. ``what`` is what the error calls it.

    Raises:
        InputError: it cannot be read as one.
    """
    try:
        loaded = np.load(source, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        with loaded as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{what} cannot be read: {error}") from error
