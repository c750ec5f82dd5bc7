"""The .npz format: every array of a data set in one file, readable by ``numpy.load`` alone, never a pickle.

| key | shape, dtype | meaning |
| --- | --- | --- |
| x | (N, C) integer or float; or (R, T, C) | frames of all recordings, one after another; (R, T, C) if equally long |
| scale | (C,) or one number | physical value = x * scale; needed when x is of integers |
| offset | (R + 1,) integer | recording k is x[offset[k]:offset[k+1]]; not needed for (R, T, C) |
| y | (R,) or (N,) integer | label index of each recording, or of each frame; negative = unlabelled |
| subject | (R,) | who was recorded: numbers or text; segments may lack it, and are then split at random |
| labels, channels, units | (L,), (C,), (C,) text | names, by index |
| fs | one number | sample rate, Hz |
| ignored | optional, integer(s) | label indices that also mean unlabelled |
| recording | optional, (R,) text | names of the recordings |
| task | optional text | "frame", or "segment": one label for each recording as a whole |
| licence, citation, origin | optional text | where the data is from and what may be done with it |
"""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import IGNORED, Dataset, Recording
from edgeseq.errors import InputError, unknown

Arrays = dict[str, npt.NDArray[Any]]

_NEEDED = {
    "x": "the frames, (N, C)",
    "y": "a label index per recording, (R,), or per frame, (N,)",
    "subject": "who was recorded, (R,)",
    "labels": "the names of the classes",
    "channels": "the names of the columns of x, (C,)",
    "units": "the units of the columns of x, (C,)",
    "fs": "the sample rate in Hz",
}


def read_npz(path: Path, ignored: Sequence[str] = ()) -> Dataset:
    """Read a data set in the format above; it is named after the file.

    ``ignored``: labels that mean unlabelled, beside those the file declares. Such labels are dropped and the others
    renumbered. Raises InputError naming the key, and what it should hold, for anything that does not fit.
    """
    arrays = load_arrays(path)
    task = str(arrays.get("task", "frame"))
    for key, meaning in _NEEDED.items():
        if key not in arrays and not (key == "subject" and task == "segment"):
            raise InputError(f"{path}: key {key!r} is missing. Add it: {meaning}.")
    x, offset = _frames(path, arrays)
    labels = _texts(path, arrays, "labels")
    unlabelled = _ignored_indices(path, arrays, labels, ignored)
    y, kept = _drop_ignored(_labels_per_frame(path, arrays, offset, len(labels), unlabelled), labels, unlabelled)
    subjects = _per_recording(path, arrays, "subject", len(offset) - 1) if "subject" in arrays else None
    names = _per_recording(path, arrays, "recording", len(offset) - 1) if "recording" in arrays else None
    recordings = tuple(
        Recording(
            x=x[first:last],
            y=y[first:last],
            subject=subjects[k] if subjects else "",
            name=names[k] if names else f"{path.name}[{k}]",
        )
        for k, (first, last) in enumerate(itertools.pairwise(offset))
    )
    texts = {key: str(arrays.get(key, "")) for key in ("licence", "citation", "origin")}
    return Dataset(
        name=path.stem,
        recordings=recordings,
        channels=_per_channel(path, arrays, "channels", x.shape[1]),
        units=_per_channel(path, arrays, "units", x.shape[1]),
        rate=_number(path, arrays, "fs"),
        labels=kept,
        licence=texts["licence"],
        citation=texts["citation"],
        origin=texts["origin"],
        task=task,
    )


def write_npz(dataset: Dataset, path: Path) -> None:
    """Write a data set in the format above: float32 frames, a label per frame. Reading gives the same fingerprint."""
    recordings = dataset.recordings
    task = {} if dataset.task == "frame" else {"task": np.str_(dataset.task)}
    np.savez_compressed(
        path,
        x=np.concatenate([recording.x for recording in recordings]),
        y=np.concatenate([recording.y for recording in recordings]),
        offset=np.cumsum([0, *(len(recording.x) for recording in recordings)]),
        subject=np.array([recording.subject for recording in recordings], np.str_),
        recording=np.array([recording.name for recording in recordings], np.str_),
        labels=np.array(dataset.labels, np.str_),
        channels=np.array(dataset.channels, np.str_),
        units=np.array(dataset.units, np.str_),
        fs=np.float64(dataset.rate),
        licence=np.str_(dataset.licence),
        citation=np.str_(dataset.citation),
        origin=np.str_(dataset.origin),
        **task,
    )


def load_arrays(path: Path) -> Arrays:
    """Every array of an .npz file, by key. Raises InputError for a file that is none, or that holds pickles."""
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: this is not an .npz file. Write it with numpy.savez.") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: this holds a single array. Write it with numpy.savez, and the keys of the format.")
    arrays: Arrays = {}
    with archive:
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except ValueError:
                raise InputError(
                    f"{path}: key {key!r} holds Python objects, which are not read (they can run code). Save it as "
                    "numbers or text: numpy.array(values, dtype=str)."
                ) from None
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
                raise InputError(f"{path}: key {key!r} is damaged. Copy the file again.") from None
    return arrays


def _frames(path: Path, arrays: Arrays) -> tuple[npt.NDArray[np.float32], list[int]]:
    """All frames (N, C) in physical units, and where recordings start and end (R + 1)."""
    x = arrays["x"]
    if x.dtype.kind not in "iuf" or x.ndim not in (2, 3) or not x.size:
        raise InputError(f"{path}: key 'x' is {x.dtype} {x.shape}. Give numbers of shape (N, C) or (R, T, C).")
    if x.ndim == 3:
        offset = [k * x.shape[1] for k in range(x.shape[0] + 1)]
        x = x.reshape(-1, x.shape[2])
    else:
        offset = _offset(path, arrays, len(x))
    if "scale" not in arrays:
        if x.dtype.kind != "f":
            raise InputError(
                f"{path}: key 'scale' is missing, and 'x' is {x.dtype}. Add it, (C,): physical value = x * scale (1 if "
                "x is in physical units already)."
            )
        return x.astype(np.float32), offset
    scale = arrays["scale"]
    if scale.shape not in ((), x.shape[1:]) or scale.dtype.kind not in "iuf" or not (np.abs(scale) > 0).all():
        raise InputError(
            f"{path}: key 'scale' is {scale.dtype} {scale.shape}. Give {x.shape[1]} numbers other than 0, one per "
            "channel."
        )
    return np.multiply(x, scale, dtype=np.float64).astype(np.float32), offset


def _offset(path: Path, arrays: Arrays, frames: int) -> list[int]:
    if "offset" not in arrays:
        raise InputError(f"{path}: key 'offset' is missing. Add it, (R + 1,): recording k is x[offset[k]:offset[k+1]].")
    offset = arrays["offset"]
    if offset.dtype.kind not in "iu" or offset.ndim != 1 or len(offset) < 2:
        raise InputError(
            f"{path}: key 'offset' is {offset.dtype} {offset.shape}. Give integers, one more than there are recordings."
        )
    values: list[int] = offset.tolist()
    for k, (first, last) in enumerate(itertools.pairwise(values)):
        if last <= first:
            raise InputError(
                f"{path}: key 'offset' does not rise at recording {k}: {first}, then {last}. Every recording needs at "
                "least one frame: sort the offsets and leave out empty recordings."
            )
    if values[0] != 0 or values[-1] != frames:
        raise InputError(
            f"{path}: key 'offset' runs from {values[0]} to {values[-1]}, and 'x' has {frames} frames. Start it at 0 "
            f"and end it at {frames}."
        )
    return values


def _labels_per_frame(
    path: Path, arrays: Arrays, offset: list[int], labels: int, unlabelled: set[int]
) -> npt.NDArray[np.int16]:
    """(N,) int16; every negative index, and every unlabelled one that is no label at all (255), becomes -1."""
    y, count, frames = arrays["y"], len(offset) - 1, offset[-1]
    if y.dtype.kind not in "iu" or y.shape not in ((count,), (frames,)):
        raise InputError(
            f"{path}: key 'y' is {y.dtype} {y.shape}. Give label indices as integers, one per recording ({count},) or "
            f"one per frame ({frames},)."
        )
    y = np.where(np.isin(y, list(unlabelled)) & (y >= labels), IGNORED, y.astype(np.int64))
    if y.max() >= labels:
        k = int(np.argmax(y >= labels))
        raise InputError(
            f"{path}: key 'y' has index {y[k]} at {k}, and there are {labels} labels (0 to {labels - 1}). Add its name "
            "to 'labels', or declare it in 'ignored'."
        )
    y = np.maximum(y, IGNORED).astype(np.int16)
    return y if len(y) == frames else np.repeat(y, np.diff(offset))


def _ignored_indices(path: Path, arrays: Arrays, labels: tuple[str, ...], names: Sequence[str]) -> set[int]:
    for name in names:
        if name not in labels:
            raise unknown(f"label (to ignore) of {path}", name, labels)
    declared = arrays.get("ignored", np.zeros(0, np.int64))
    if declared.dtype.kind not in "iu":
        raise InputError(f"{path}: key 'ignored' is {declared.dtype}. Give label indices, as integers.")
    return {*np.atleast_1d(declared).tolist(), *(labels.index(name) for name in names)}


def _drop_ignored(
    y: npt.NDArray[np.int16], labels: tuple[str, ...], ignored: Iterable[int]
) -> tuple[npt.NDArray[np.int16], tuple[str, ...]]:
    """Unlabelled time is not a class: its label goes, so that no model has an output for it."""
    kept = [index for index in range(len(labels)) if index not in set(ignored)]
    renumber = np.full(len(labels) + 1, IGNORED, np.int16)  # the last entry is for -1
    renumber[kept] = np.arange(len(kept))
    return renumber[y], tuple(labels[index] for index in kept)


def _texts(path: Path, arrays: Arrays, key: str) -> tuple[str, ...]:
    values = arrays[key]
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        raise InputError(f"{path}: key {key!r} is {values.dtype} {values.shape}. Give a list of names.")
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist())


def _per_recording(path: Path, arrays: Arrays, key: str, count: int) -> tuple[str, ...]:
    texts = _texts(path, arrays, key)
    if len(texts) != count:
        raise InputError(f"{path}: key {key!r} has {len(texts)} entries for {count} recordings. Give one each.")
    return texts


def _per_channel(path: Path, arrays: Arrays, key: str, count: int) -> tuple[str, ...]:
    texts = _texts(path, arrays, key)
    if len(texts) != count:
        raise InputError(f"{path}: key {key!r} has {len(texts)} entries, and x has {count} columns. Give one each.")
    return texts


def _number(path: Path, arrays: Arrays, key: str) -> float:
    value = arrays[key]
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise InputError(f"{path}: key {key!r} is {value.dtype} {value.shape}. Give one number: {_NEEDED[key]}.")
    return float(value.reshape(()))
