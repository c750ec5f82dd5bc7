"""What the readers of the data sets share: arrays of an .npz, files by their names, numbers in text, segments.

Errors name the line as an editor counts it, from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import DEALT, Recording
from edgeseq.data.npz import Arrays, load_arrays
from edgeseq.errors import InputError

PARTS = tuple(f"{DEALT}{part}" for part in ("train", "validation", "test"))
"""What stands for subjects in a data set that has parts of its own, and nobody knows who is in them."""
OFFICIAL = (PARTS[2:], PARTS[1:2])
"""The split into those parts, as :class:`~edgeseq.data.dataset.Dataset` has it: test and validation."""


def needed(path: Path, name: str, keys: Sequence[str]) -> Arrays:
    """The arrays of an .npz of the data set ``name``. Raises InputError for a key of ``keys`` that is missing."""
    arrays = load_arrays(path)
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing. A file of {name} has {', '.join(keys)}.")
    return arrays


def named_files(folder: Path, pattern: str, named: re.Pattern[str], form: str) -> Iterator[tuple[re.Match[str], Path]]:
    """The files of ``folder`` that ``pattern`` finds, each with what its name says.

    Raises InputError for one that is not ``named`` so; ``form`` is what such names look like.
    """
    for path in folder.glob(pattern):
        said = named.fullmatch(path.name)
        if said is None:
            raise InputError(f"{path}: it is not called {form}. Rename it, or take it out.")
        yield said, path


def segments(x: npt.NDArray[np.float32], y: npt.NDArray[Any], subject: str, name: str) -> tuple[Recording, ...]:
    """A recording of each of R segments ``x (R, T, C)``, all of its frames with its label, of ``y (R,)``.

    The k-th is called ``name[k]``.
    """
    return tuple(
        Recording(frames, np.full(len(frames), label, np.int16), subject, f"{name}[{k}]")
        for k, (frames, label) in enumerate(zip(x, y.tolist(), strict=True))
    )


def rising(time: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The indices that put ``time (N,)`` in order; of equal ones the first alone."""
    return np.unique(time, return_index=True)[1]


def text_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends. Raises InputError if it cannot be read, is no text, or is empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.object[error.start]:#x} is no text. Copy the file again.") from None
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}). Copy the file again.") from None
    if not any(line.strip() for line in lines):
        raise InputError(f"{path}: it is empty. Copy the file again.")
    return lines


def numbers(path: Path, lines: Sequence[str], columns: int, delimiter: str | None = None) -> npt.NDArray[np.float64]:
    """The numbers of ``lines`` of the file ``path``, (N, columns); blank lines are skipped.

    ``delimiter``: between numbers; None for any white space.
    Raises InputError, with the line, for another number of columns, and for what is not a finite number.
    """
    if any(line.strip() for line in lines):
        try:
            values: npt.NDArray[np.float64] = np.loadtxt(lines, np.float64, delimiter=delimiter, comments=None, ndmin=2)
        except ValueError:
            pass  # what is wrong is looked for below
        else:
            if values.shape[1] == columns and np.isfinite(values).all():
                return values
    for number, line in enumerate(lines, 1):
        cells = line.split(delimiter) if line.strip() else []
        if cells and len(cells) != columns:
            raise InputError(f"{path}, line {number}: {len(cells)} columns, and {columns} are needed. {_MEND}")
        for cell in cells:
            if not _is_finite(cell):
                raise InputError(f"{path}, line {number}: {cell.strip()!r} is not a finite number. {_MEND}")
    raise InputError(f"{path}: there are no {columns} columns of numbers. {_MEND}")


def line_numbers(lines: Sequence[str]) -> list[int]:
    """The line, counted from 1, that each row of :func:`numbers` stands in."""
    return [number for number, line in enumerate(lines, 1) if line.strip()]


_MEND = "Copy the file again, or mend it."


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
