"""A CSV file as columns: UTF-8 with or without a byte order mark, any line ends, delimited by , ; tab or |."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from edgeseq.data.columns import (
    Columns,
    Text,
    choose_roles,
    from_first,
    is_number,
    numbers,
    subject_from_name,
    without_blanks,
)
from edgeseq.data.mapping import Mapping
from edgeseq.errors import InputError

_CHUNK = 1 << 16  # lines turned into arrays at once (bounds memory), and how many are looked at to find the numbers


def read_csv(file: Path, mapping: Mapping) -> Columns:
    """Read one CSV file.

    Raises InputError for a file that is not UTF-8 or not CSV, has no header or no rows, or has a line of another
    length than the header; and for columns and cells as :func:`~edgeseq.data.columns.choose_roles` and
    :func:`~edgeseq.data.columns.numbers` do.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _parse(file, stream, mapping)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.object[error.start]:#x} is not UTF-8. Save the file as UTF-8.") from None
    except csv.Error as error:
        raise InputError(f"{file}: this is not a CSV file ({error}). Save it as CSV, UTF-8.") from None
    except OSError as error:
        raise InputError(f"{file}: it cannot be read ({error.strerror}). Check the path and its permissions.") from None


def _parse(file: Path, stream: TextIO, mapping: Mapping) -> Columns:
    first = stream.readline()
    reader = csv.reader(itertools.chain([first], stream), delimiter=_delimiter(first, mapping))
    header = _header(file, reader)
    chunks = _chunks(file, reader, len(header))
    start = next(chunks, None)
    if start is None:
        raise InputError(f"{file}: it has a header and no rows. Add rows, or remove the file.")
    numeric = {name for name, cells in zip(header, start[1], strict=True) if any(map(is_number, cells))}
    roles = choose_roles(file, header, numeric, mapping)

    label, subject, recording = _Names(), _Names(), _Names()
    row: list[int] = []
    time: list[npt.NDArray[np.float64]] = []
    x: list[npt.NDArray[np.float32]] = []
    for lines, cells in itertools.chain([start], chunks):
        columns = dict(zip(header, cells, strict=True))
        row += lines
        time.append(numbers(file, "line", lines, roles.time, columns[roles.time], channel=False))
        values = np.stack(
            [numbers(file, "line", lines, name, columns[name], channel=True) for name in roles.channels], axis=1
        )
        with np.errstate(over="ignore"):  # too large for float32: infinite, and refused by check()
            x.append(values.astype(np.float32))
        for names, name in ((label, roles.label), (subject, roles.subject), (recording, roles.recording)):
            if name is not None:
                names.add(columns[name])
    return Columns(
        file=file,
        unit="line",
        row=np.array(row, np.int64),
        channels=roles.channels,
        time=from_first(np.concatenate(time), mapping.time_unit),
        x=np.concatenate(x),
        label=label.text(),
        subject=subject.text() if roles.subject is not None else subject_from_name(file, len(row), mapping),
        recording=recording.text() if roles.recording is not None else None,
    )


def _delimiter(first: str, mapping: Mapping) -> str:
    """The one that finds most of the mapped columns in the header, and then the one that cuts it into most cells."""
    wanted = {mapping.time, mapping.label, mapping.subject, *mapping.channels}

    def merit(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return len(wanted.intersection(cells)), len(cells)

    return max(",;\t|", key=merit)


def _header(file: Path, reader: Iterator[list[str]]) -> list[str]:
    header = [cell.strip() for cell in next(reader, [])]
    if not any(header):
        raise InputError(f"{file}, line 1: it is empty. Put the column names there.")
    if all(map(is_number, header)):
        raise InputError(f"{file}, line 1: {', '.join(header)} are numbers. Put a line with the column names above.")
    return header


def _chunks(file: Path, reader: Any, width: int) -> Iterator[tuple[list[int], list[tuple[str, ...]]]]:
    """Line numbers and columns of some lines at a time; blank lines are skipped."""
    rows: list[list[str]] = []
    lines: list[int] = []
    for row in reader:
        if not row:
            continue
        if len(row) != width:
            raise InputError(
                f"{file}, line {reader.line_num}: {len(row)} cells, and the header has {width}. Make them agree "
                "(a text with the delimiter in it needs quotes)."
            )
        rows.append(row)
        lines.append(reader.line_num)
        if len(rows) == _CHUNK:
            yield lines, list(zip(*rows, strict=True))
            rows, lines = [], []
    if rows:
        yield lines, list(zip(*rows, strict=True))


class _Names:
    """A text column as it grows: each different name is stored once."""

    def __init__(self) -> None:
        self._table: dict[str, int] = {}
        self._parts: list[npt.NDArray[np.int64]] = []

    def add(self, cells: Sequence[str]) -> None:
        table = self._table
        codes: Iterable[int] = (table.setdefault(cell, len(table)) for cell in cells)
        self._parts.append(np.fromiter(codes, np.int64, len(cells)))

    def text(self) -> Text:
        return without_blanks(Text(np.concatenate(self._parts), tuple(self._table)))
