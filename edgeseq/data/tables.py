"""A user's own data: a CSV or Parquet file, or a folder of them, with columns timestamp, channels, label, subject.

A recording is a run of rows of one subject (and one value of the recording column, if there is one) without a gap in
time. What a model is to run on must be evenly spaced, so timestamps are checked and then dropped.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.columns import Columns, Text
from edgeseq.data.csv_file import read_csv
from edgeseq.data.dataset import IGNORED, Dataset, Recording, natural_order
from edgeseq.data.mapping import SECONDS, Mapping
from edgeseq.data.parquet_file import read_parquet
from edgeseq.errors import InputError, unknown

SUFFIXES = (".csv", ".parquet")
_SLOWEST, _FASTEST = 2.0, 100_000.0  # Hz: outside of this the time unit is wrong, unless the user states the rate
_RATE_TOLERANCE = 0.05  # files may differ by this much: clocks do
_UNEVEN_SHARE = 0.01  # of the intervals may be off by more than half a frame; as many frames may be missing


def read_tables(source: Path, mapping: Mapping) -> Dataset:
    """Read a file, or every file with one of ``SUFFIXES`` in a folder and its subfolders, in natural order of paths.

    The data set is named after the path. Labels are in natural order. The rate is the stated one, or inferred: the
    median of the time differences finds it, the mean of all differences within half a frame of the median refines it.

    Raises InputError naming file and row for: what :func:`~edgeseq.data.csv_file.read_csv` and
    :func:`~edgeseq.data.parquet_file.read_parquet` refuse; files with different channels; timestamps that run
    backwards or repeat; a rate that no sensor has (with the time unit that would fit), or that differs by more than 5 %
    between files or from the stated one; frames that are not evenly spaced; a label to ignore that does not occur.
    """
    files = _files(source)
    tables = [_read(file, mapping) for file in files]
    tables = [_in_order_of(tables[0], table) for table in tables]
    intervals = [_intervals(table) for table in tables]
    rate = _rate(source, intervals, mapping)
    _check_rates(tables, intervals, mapping)
    labels = _labels(source, tables, mapping)
    gap = max(mapping.gap, 1.5 / rate)  # less would cut at jitter
    recordings: list[Recording] = []
    for table, steps in zip(tables, intervals, strict=True):
        _check_even(table, steps, gap)
        recordings += _recordings(source, table, steps, gap, labels)
    return Dataset(
        name=source.resolve().stem,
        recordings=tuple(recordings),
        channels=tables[0].channels,
        units=mapping.units or ("",) * len(tables[0].channels),
        rate=rate,
        labels=labels,
        origin=source.name,
        task=mapping.task,
    )


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    }
    if not found:
        raise InputError(
            f"{source}: the folder holds no {' or '.join(SUFFIXES)} file. Put one file per recording there."
        )
    return [source / name for name in natural_order(found)]


def _read(file: Path, mapping: Mapping) -> Columns:
    table = read_parquet(file, mapping) if file.suffix.lower() == ".parquet" else read_csv(file, mapping)
    empty = np.flatnonzero(_is_empty(table.subject))
    if len(empty) and mapping.subject_from != "none":
        raise InputError(f"{table.at(int(empty[0]))}: the subject is empty. Fill it in: splits are made by subject.")
    return table


def _is_empty(text: Text) -> npt.NDArray[np.bool_]:
    return np.array([not value for value in text.values])[text.codes]


def _in_order_of(first: Columns, table: Columns) -> Columns:
    """The table with its channels in the order of the first; files may order their columns as they like."""
    if table.channels == first.channels:
        return table
    missing = [name for name in first.channels if name not in table.channels]
    extra = [name for name in table.channels if name not in first.channels]
    if missing or extra:
        differ = [f"{kind} {', '.join(names)}" for kind, names in (("lacks", missing), ("adds", extra)) if names]
        raise InputError(
            f"{table.file}: its columns of numbers are not those of {first.file}: it {' and '.join(differ)}. Make the "
            "files agree, or name the columns they share: channels=NAME,NAME,..."
        )
    order = [table.channels.index(name) for name in first.channels]
    return dataclasses.replace(table, channels=first.channels, x=table.x[:, order])


# --- Time ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Intervals:
    """Time from each row to the next, (N - 1,) seconds, and whether both belong to one subject and recording."""

    seconds: npt.NDArray[np.float64]
    within: npt.NDArray[np.bool_]

    def period(self) -> float | None:
        """Seconds from frame to frame, None if there are no two frames: the middle of the bulk, blind to gaps."""
        return _period(self.seconds[self.within])


def _period(seconds: npt.NDArray[np.float64]) -> float | None:
    if not len(seconds):
        return None
    median = float(np.median(seconds))
    # Timestamps in whole milliseconds make the median 10 ms at 104 Hz; the mean around it has no such step.
    return float(seconds[np.abs(seconds - median) <= median / 2].mean())


def _intervals(table: Columns) -> _Intervals:
    seconds = np.diff(table.time)
    within = np.diff(table.subject.codes) == 0
    if table.recording is not None:
        within &= np.diff(table.recording.codes) == 0
    if len(within) > 2 and np.count_nonzero(within) < len(within) / 2:
        raise InputError(
            f"{table.file}: subject or recording changes on most {table.unit}s (the first time at {table.unit} "
            f"{table.row[int(np.argmin(within)) + 1]}). Sort the rows by subject, recording and time."
        )
    wrong = np.flatnonzero(within & (seconds <= 0))
    if len(wrong):
        row = int(wrong[0]) + 1
        if seconds[row - 1] == 0:
            fault, mend = "repeats the one before", "Delete one of the two rows"
        else:
            fault, mend = f"is {-seconds[row - 1]:g} s before the one above", "Sort the rows by time"
        raise InputError(
            f"{table.at(row)}: the timestamp {fault} ({len(wrong)} such rows). {mend}; or, where another recording "
            "starts, say so with a column named 'recording'."
        )
    return _Intervals(seconds, within)


def _rate(source: Path, intervals: Sequence[_Intervals], mapping: Mapping) -> float:
    """Frames per second over all files; a stated one is compared with each file later."""
    period = _period(np.concatenate([steps.seconds[steps.within] for steps in intervals]))
    if mapping.rate is not None:
        return float(mapping.rate)
    if period is None:
        raise InputError(
            f"{source}: no recording has two frames, so there is no sample rate. Add rows, or state rate=HZ."
        )
    rate = 1 / period
    if not _SLOWEST <= rate <= _FASTEST:
        raise InputError(
            f"{source}: a frame every {period:.6g} s is {rate:.6g} Hz, with time_unit={mapping.time_unit}. "
            f"{_fitting_unit(period, mapping)}If it is right, state it: rate={rate:.6g}."
        )
    return float(f"{rate:.6g}")  # 50, not 49.9999997: no clock is better than this


def _fitting_unit(period: float, mapping: Mapping) -> str:
    """Advice on the time unit, if another one makes the rate the stated one, or one that sensors have; else ""."""
    low, high = _SLOWEST, _FASTEST
    if mapping.rate is not None:
        low, high = mapping.rate * (1 - _RATE_TOLERANCE), mapping.rate * (1 + _RATE_TOLERANCE)
    ticks = period / SECONDS[mapping.time_unit]
    rates = {unit: 1 / (ticks * second) for unit, second in SECONDS.items() if unit != mapping.time_unit}
    fitting = [unit for unit in rates if low <= rates[unit] <= high]
    unit = min(fitting, key=rates.__getitem__, default=None)  # 50 Hz is likelier than 50 kHz
    return f"time_unit={unit} would make it {rates[unit]:.6g} Hz. " if unit else ""


def _check_rates(tables: Sequence[Columns], intervals: Sequence[_Intervals], mapping: Mapping) -> None:
    """Refuse a file that is not at the stated rate, or else the slowest and fastest of files that are apart."""
    rates = [
        (1 / period, table.file) for table, steps in zip(tables, intervals, strict=True) if (period := steps.period())
    ]
    if mapping.rate is None:
        (low, slow), (high, fast) = min(rates), max(rates)
        if high - low > _RATE_TOLERANCE * high:
            raise InputError(
                f"{slow}: its rate is {low:.6g} Hz, and that of {fast} is {high:.6g} Hz; more than "
                f"{_RATE_TOLERANCE:.0%} apart. Resample the files to one rate."
            )
        return
    for rate, file in rates:
        if abs(rate - mapping.rate) > _RATE_TOLERANCE * mapping.rate:
            raise InputError(
                f"{file}: its rate is {rate:.6g} Hz, and rate={mapping.rate:g} was stated. "
                f"{_fitting_unit(1 / rate, mapping)}State the rate the file has, or resample it."
            )


def _check_even(table: Columns, steps: _Intervals, gap: float) -> None:
    """Refuse frames that stand unevenly in time: dropping the timestamps would bend the signal."""
    seconds = steps.seconds[steps.within & (steps.seconds <= gap)]
    period = steps.period()
    if period is None or not len(seconds):
        return
    allowed = max(1.5, _UNEVEN_SHARE * len(seconds))  # one lost frame is always forgiven
    uneven = np.count_nonzero(np.abs(seconds - period) > period / 2)
    missing = seconds.sum() / period - len(seconds)
    if uneven > allowed or abs(missing) > allowed:
        low, middle, high = np.percentile(seconds, (1, 50, 99)) * 1e3
        raise InputError(
            f"{table.file}: its frames are not evenly spaced. A frame should come every {period * 1e3:.4g} ms; of "
            f"{len(seconds)} intervals {uneven} are off by more than half of that, and about {max(missing, 0):.0f} "
            f"frames are missing (percentiles 1, 50, 99: {low:.4g}, {middle:.4g}, {high:.4g} ms; longest "
            f"{seconds.max() * 1e3:.4g} ms). Resample to an even rate first; or, if there are only holes, let each "
            f"start a new recording: gap={1.5 * period:.3g}."
        )


# --- Recordings ------------------------------------------------------------------------------------------------------


def _labels(source: Path, tables: Sequence[Columns], mapping: Mapping) -> tuple[str, ...]:
    used = {table.label.values[code] for table in tables for code in np.unique(table.label.codes)} - {""}
    for name in mapping.ignored:
        if name not in used:
            raise unknown(f"label (to ignore) of {source}", name, used)
    labels = natural_order(used - set(mapping.ignored))
    if len(labels) > np.iinfo(np.int16).max:
        raise InputError(
            f"{source}: column {mapping.label!r} has {len(labels)} different values; it looks like a measurement. Name "
            "the column of classes: label=NAME."
        )
    return labels


def _recordings(
    source: Path, table: Columns, steps: _Intervals, gap: float, labels: tuple[str, ...]
) -> list[Recording]:
    index = {label: k for k, label in enumerate(labels)}
    y = np.array([index.get(value, IGNORED) for value in table.label.values], np.int16)[table.label.codes]
    cuts = np.flatnonzero(~steps.within | (steps.seconds > gap)) + 1
    borders = [0, *cuts.tolist(), len(table.row)]
    file = str(table.file.relative_to(source)) if source.is_dir() else table.file.name
    return [
        Recording(
            x=table.x[first:last],
            y=y[first:last],
            subject=table.subject.values[table.subject.codes[first]],
            name=file if len(borders) == 2 else f"{file}, {table.unit}s {table.row[first]} to {table.row[last - 1]}",
        )
        for first, last in itertools.pairwise(borders)
    ]
