"""golden.npz: frames that the trained model saw, and what it answered. The device checks itself with them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np

from edgeseq.devices.engines.base import Floats, frame_width
from edgeseq.errors import InputError
from edgeseq.folder import GOLDEN_NAME, Folder


@dataclass(frozen=True)
class Golden:
    """Frames x (N, C), the trained model's logits y (N, K) running freely from the start, and its final state (S,)."""

    x: Floats
    y: Floats
    state: Floats


def read_golden(folder: Folder) -> Golden:
    """The golden frames of a folder.

    Raises:
        InputError: there are none, or they are not of the manifest's shapes, or not finite.
    """
    file, manifest = folder.file(GOLDEN_NAME), folder.manifest
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {name: np.ascontiguousarray(stored[name], np.float32) for name in ("x", "y", "state")}
    except (OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    count = len(found["x"]) if found["x"].ndim else 0
    shapes = {
        "x": (count, frame_width(manifest)),
        "y": (count, len(manifest.labels)),
        "state": (manifest.state_size,),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape or count == 0:
            raise InputError(f"{file}: {name} has shape {found[name].shape}, the manifest says {shape}")
        if not np.isfinite(found[name]).all():
            raise InputError(f"{file}: {name} holds values that are not finite")
    return Golden(**found)
