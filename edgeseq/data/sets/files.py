"""What the readers of the data sets share: the arrays of an .npz, and numbers in lines of text.

Errors name the line as an editor counts it, from 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.npz import Arrays, load_arrays
from edgeseq.errors import InputError


def needed(path: Path, name: str, keys: Sequence[str]) -> Arrays:
    """The arrays of an .npz of the data set ``name``. Raises InputError for a key of ``keys`` that is missing."""
    arrays = load_arrays(path)
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing. A file of {name} has {', '.join(keys)}.")
    return arrays


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


def line_of(lines: Sequence[str], row: int) -> int:
    """The line, counted from 1, that row ``row`` of :func:`numbers`, counted from 0, stands in."""
    return [number for number, line in enumerate(lines, 1) if line.strip()][row]


_MEND = "Copy the file again, or mend it."


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
