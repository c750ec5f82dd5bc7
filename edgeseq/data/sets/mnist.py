"""MNIST pixel by pixel: in rows (``smnist``), or in one random order that is the same for all (``psmnist``)."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import DEALT, PIXEL, Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.sets.files import OFFICIAL, PARTS, needed, segments
from edgeseq.errors import InputError

SEED = 92916  # of the permutation, numpy.random.default_rng(SEED).permutation(784): nobody's standard, so it is said
SIDE = 28  # pixels
RATE = 784.0  # frames per second: a digit is taken for a second
CHOSEN_ON = 10_000  # the last of the 60,000 training digits
LABELS = tuple(str(digit) for digit in range(10))
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAGIC = {"images": 0x0803, "labels": 0x0801}  # of unsigned bytes; the last byte counts the axes
Bytes = npt.NDArray[np.uint8]


def read_mnist(path: Path, *, permuted: bool) -> Dataset:
    """The digits of the file, or of the folder of the four idx files, gzipped or not.

    They come as segments of 784 frames (784, 1) of 0 to 1, with MNIST's own test part.

    Raises:
        InputError: a key or a file is missing; a file that is not of the format, or cut off; images and labels that do
            not fit each other.
    """
    if path.is_dir():
        arrays = [_idx(path, part, kind) for part in ("train", "t10k") for kind in _MAGIC]
    else:
        found = needed(path, "mnist", _KEYS)
        arrays = [found[key] for key in _KEYS]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape != (len(images), SIDE, SIDE) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise InputError(
                f"{path}: images are {images.dtype} {images.shape}, and their labels {labels.shape}. Give uint8 images "
                f"(N, {SIDE}, {SIDE}), and N labels."
            )
    return _dataset(path.stem, *arrays, permuted=permuted)


def _idx(folder: Path, part: str, kind: str) -> Bytes:
    """The array of one idx file: a magic number, the size of each axis, big-endian, and then the bytes."""
    axes = _MAGIC[kind] & 0xFF
    name = f"{part}-{kind}-idx{axes}-ubyte"
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise InputError(f"{folder}: {name} is missing, gzipped or not. MNIST is four files: copy it too.")
    try:
        said = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: it cannot be read ({error}). Copy the file again.") from None
    head = np.frombuffer(said[: 4 * (axes + 1)], ">u4") if len(said) >= 4 * (axes + 1) else np.zeros(1, ">u4")
    if head[0] != _MAGIC[kind]:
        raise InputError(
            f"{path}: its magic number is {head[0]:#010x}, and that of {kind} is {_MAGIC[kind]:#010x}. Copy it again "
            "(if it is gzipped, its name must end in .gz)."
        )
    shape = tuple(int(size) for size in head[1:])
    if len(said) - head.nbytes != math.prod(shape):
        raise InputError(
            f"{path}: it says {shape}, which are {math.prod(shape)} bytes, and has {len(said) - head.nbytes}. Copy it "
            "again."
        )
    return np.frombuffer(said, np.uint8, offset=head.nbytes).reshape(shape)


def _dataset(name: str, x_train: Bytes, y_train: Bytes, x_test: Bytes, y_test: Bytes, *, permuted: bool) -> Dataset:
    """The data set of these images (N, 28, 28) and labels (N,)."""
    first = len(x_train) - min(CHOSEN_ON, len(x_train) // 6)
    images, labels = (*np.split(x_train, [first]), x_test), (*np.split(y_train, [first]), y_test)
    order = np.random.default_rng(SEED).permutation(SIDE * SIDE) if permuted else slice(None)
    recordings: list[Recording] = []
    for part, x, y in zip(PARTS, images, labels, strict=True):
        frames = x.reshape(len(x), -1, 1)[:, order].astype(np.float32) / np.float32(255)
        recordings += segments(frames, y, part, part.removeprefix(DEALT))
    return Dataset(name, tuple(recordings), ("pixel",), (PIXEL,), RATE, LABELS, task="segment", official=OFFICIAL)


def _known(name: str, order: str, *, permuted: bool) -> Known:
    return Known(
        Facts(
            name=name,
            summary=f"MNIST's handwritten digits as sequences of 784 pixels, {order}",
            recordings=70_000,
            frames=54_880_000,
            minutes=1_166.7,
            rate=RATE,
            channels=("pixel",),
            labels=LABELS,
            licence="commonly distributed under CC BY-SA 3.0",
            citation=(
                "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document recognition. "
                "Proceedings of the IEEE 86(11), 1998."
            ),
            origin="the four idx files of MNIST, train-images-idx3-ubyte and its like",
            task="segment",
        ),
        partial(read_mnist, permuted=permuted),
        ("mnist.npz", "train-images-idx3-ubyte*", "MNIST/raw/train-images-idx3-ubyte*"),
        folder="mnist",
    )


PSMNIST = _known("psmnist", f"in one random order (seed {SEED})", permuted=True)
SMNIST = _known("smnist", "row by row", permuted=False)
