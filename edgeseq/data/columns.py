"""One file of a user's table as columns: which column plays which role, numbers as arrays, text as codes.

Errors name the file and the row as its reader counts it: lines of a CSV file, the header being line 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseq.data.mapping import SECONDS, Mapping
from edgeseq.errors import InputError, unknown


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A column of names: ``values[codes[i]]`` is the text of row i, "" for an empty cell. ``codes``: (N,) int64."""

    codes: npt.NDArray[np.int64]
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What one file holds, N rows of C channels.

    ``unit``: what its rows are called in errors, "line" or "row". ``row``: (N,) int64, their numbers. ``time``: (N,)
    float64, seconds since the first row. ``x``: (N, C) float32.
    """

    file: Path
    unit: str
    row: npt.NDArray[np.int64]
    channels: tuple[str, ...]
    time: npt.NDArray[np.float64]
    x: npt.NDArray[np.float32]
    label: Text
    subject: Text
    recording: Text | None

    def at(self, index: int) -> str:
        """Where row ``index`` is, for an error."""
        return f"{self.file}, {self.unit} {self.row[index]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Roles:
    """The names of the columns to read; None where the file has none."""

    time: str
    label: str
    subject: str | None
    recording: str | None
    channels: tuple[str, ...]


def choose_roles(file: Path, header: Sequence[str], numeric: Collection[str], mapping: Mapping) -> Roles:
    """Which column of ``header`` plays which role; ``numeric``: the columns that hold numbers.

    Raises InputError for a column that is missing (with the closest match) or there twice.
    """

    def need(role: str, column: str, mend: str) -> str:
        if column not in header:
            reason = unknown("column", column, (name for name in header if name))
            raise InputError(f"{file}: there is no {role} column: {reason} Name it: {mend}.")
        return column

    for column in header:
        if column and header.count(column) > 1:
            raise InputError(f"{file}: column {column!r} is there twice. Rename one of them.")
    time = need("time", mapping.time, "time=NAME")
    label = need("label", mapping.label, "label=NAME")
    subject = None
    if mapping.subject_from == "column":
        subject = need(
            "subject", mapping.subject, "subject=NAME; or take it from the name: subject_from=file or folder"
        )
    recording = mapping.recording
    if recording is not None:
        need("recording", recording, "recording=NAME")
    elif "recording" in header:
        recording = "recording"
    channels = tuple(need("channel", column, "channels=NAME,NAME,...") for column in mapping.channels)
    if not channels:
        # A column without a name is a row index that somebody's tool wrote, or a delimiter too many.
        taken = {time, label, mapping.subject, recording, ""}
        channels = tuple(column for column in header if column not in taken and column in numeric)
    if not channels:
        raise InputError(f"{file}: no column of numbers is left for the channels. Columns: {', '.join(header)}.")
    return Roles(time, label, subject, recording, channels)


def numbers(
    file: Path, unit: str, rows: Sequence[int], column: str, cells: Sequence[Any], *, channel: bool
) -> npt.NDArray[np.float64]:
    """Cells as numbers, (len(cells),) float64. Raises InputError naming the row of the first that is not finite.

    ``channel``: the column is one because it holds numbers, so that the user may want it left out.
    """
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
        finite = bool(np.isfinite(values).all())
    except (ValueError, TypeError):
        finite = False
    if finite:
        return values
    row, cell = next((row, cell) for row, cell in zip(rows, cells, strict=True) if not _is_finite(cell))
    text = "" if cell is None else str(cell).strip()
    raise InputError(
        f"{file}, {unit} {row}, column {column!r}: {repr(text) if text else 'an empty cell'} is not a finite number. "
        f"{_mend(text)}" + (f" If {column!r} is no channel, name those that are: channels=NAME,NAME,..." * channel)
    )


def is_number(cell: str) -> bool:
    """Whether the text is a number (nan and inf are)."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_finite(cell: Any) -> bool:
    try:
        return math.isfinite(float(cell))
    except (ValueError, TypeError):
        return False


def _mend(text: str) -> str:
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text.replace(",", "."))):
            return "Write decimals with a point."
    with contextlib.suppress(ValueError):
        datetime.datetime.fromisoformat(text.removesuffix("Z"))
        return "Write times as numbers, in seconds since any start; or as the timestamps of a Parquet file."
    return "Fill it in from the rows around it, or delete the row."


def from_first(time: npt.NDArray[Any], time_unit: str) -> npt.NDArray[np.float64]:
    """Seconds since the first row; nanoseconds since 1970 do not fit a float64, differences of them do."""
    if time.dtype.kind in "iu":
        time = time.astype(np.int64)  # unsigned ones cannot go backwards, and that is to be noticed
    return np.asarray((time - time[0]) * SECONDS[time_unit], np.float64)


def subject_from_name(file: Path, rows: int, mapping: Mapping) -> Text:
    """The subject of every row of a file whose name, or whose folder's name, says it; "" where nobody does."""
    if mapping.subject_from == "none":
        return Text(np.zeros(rows, np.int64), ("",))
    name = file.stem if mapping.subject_from == "file" else file.resolve().parent.name
    return Text(np.zeros(rows, np.int64), (name,))


def without_blanks(text: Text) -> Text:
    """The same with blanks around the names removed, so that "walk " is "walk"."""
    table: dict[str, int] = {}
    merged = [table.setdefault(value.strip(), len(table)) for value in text.values]
    return Text(np.array(merged, np.int64)[text.codes], tuple(table))
