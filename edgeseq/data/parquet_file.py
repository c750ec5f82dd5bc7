"""A Parquet file as columns. pyarrow is imported here, when a file is read, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseq.data.columns import (
    Columns,
    Text,
    choose_roles,
    from_first,
    numbers,
    subject_from_name,
    without_blanks,
)
from edgeseq.data.mapping import Mapping
from edgeseq.errors import InputError, MissingDependency


def read_parquet(file: Path, mapping: Mapping) -> Columns:
    """Read one Parquet file. A time column of type timestamp knows its own unit; rows are counted from 1.

    Raises MissingDependency without pyarrow; InputError for a file that is not Parquet or has no rows, and for columns
    and cells as :func:`~edgeseq.data.columns.choose_roles` and :func:`~edgeseq.data.columns.numbers` do.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependency("pyarrow", "parquet", "reading Parquet files") from None
    try:
        schema = pq.read_schema(file)
        tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        numeric = {field.name for field in schema if any(test(field.type) for test in tests)}
        roles = choose_roles(file, schema.names, numeric, mapping)
        wanted = (roles.time, roles.label, roles.subject, roles.recording, *roles.channels)
        table = pq.read_table(file, columns=[name for name in wanted if name is not None], partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: this is not a Parquet file that can be read ({error}). Write it again.") from None
    if not table.num_rows:
        raise InputError(f"{file}: it has no rows. Add rows, or remove the file.")

    time, unit = table[roles.time], mapping.time_unit
    if pa.types.is_timestamp(time.type):
        time, unit = time.cast(pa.timestamp("ns"), safe=False).cast(pa.int64()), "ns"
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused by check()
        channels = [_numbers(file, name, table[name], channel=True).astype(np.float32) for name in roles.channels]
    rows = table.num_rows
    return Columns(
        file=file,
        unit="row",
        row=np.arange(1, rows + 1),
        channels=roles.channels,
        time=from_first(_numbers(file, roles.time, time, channel=False), unit),
        x=np.stack(channels, axis=1),
        label=_text(table[roles.label]),
        subject=_text(table[roles.subject]) if roles.subject else subject_from_name(file, rows, mapping),
        recording=_text(table[roles.recording]) if roles.recording else None,
    )


def _numbers(file: Path, name: str, column: Any, *, channel: bool) -> npt.NDArray[Any]:
    """(N,) numbers; integers stay integers, whose differences are exact."""
    values = np.asarray(column.to_numpy())
    if values.dtype.kind in "iu" or (values.dtype.kind == "f" and np.isfinite(values).all()):
        return values
    return numbers(file, "row", range(1, len(values) + 1), name, column.to_pylist(), channel=channel)


def _text(column: Any) -> Text:
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return without_blanks(
        Text(encoded.indices.to_numpy().astype(np.int64), tuple(map(_name, encoded.dictionary.to_pylist())))
    )


def _name(value: Any) -> str:
    """Whole numbers are named without a point: a column of integers with empty cells arrives as 1.0, nan, 2.0."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
