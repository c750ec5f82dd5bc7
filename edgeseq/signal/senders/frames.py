"""Frames as lines, of a program or a recording: JSON or comma-separated, all channels of a model at once.

    {"time": 1698501145034000000, "values": [0.1, -0.9, 0.2, 0.0, 0.1, 0.0]}     in the model's order
    {"time": 1698501145034000000, "ax": 0.1, "ay": -0.9, ...}                    by name, in any order
    time,ax,ay,az,wx,wy,wz                                                        and then lines of numbers

Times are whole nanoseconds; a header may say ``time_s`` or ``time_ms`` for seconds or milliseconds. Where there are no
times, or no header, frames follow each other at the model's rate. Units are the model's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from edgeseq.errors import InputError
from edgeseq.signal.readings import FRAME, SECOND, Reading
from edgeseq.signal.senders.message import Message, check_time, parsed

WHAT = "a line of a frame"
CLOCKS = {"time": 1, "time_ms": 1_000_000, "time_s": SECOND}  # nanoseconds of one


class Lines:
    """The lines of one stream, in JSON or comma-separated, whichever the first one is."""

    def __init__(self, channels: Sequence[str], rate: float, sender: str = "") -> None:
        self._channels, self._rate, self._sender = tuple(channels), rate, sender
        self._count = 0
        self._header: list[str] | None = None

    def __call__(self, line: bytes | str) -> Message:
        """The frame of a line; of an empty one and of a header, nothing.

        Raises:
            InputError: it is no frame, or a channel is missing.
        """
        text = (line.decode("utf-8", "replace") if isinstance(line, bytes) else line).strip().removeprefix("\ufeff")
        if not text:
            return Message((), self._sender)
        named = self._of_json(text) if text.startswith(("{", "[")) else self._of_cells(text)
        if named is None:
            return Message((), self._sender)
        reading = Reading(FRAME, self._time(named), self._row(named), "")
        self._count += 1
        return Message((reading,), self._sender)

    def _of_json(self, text: str) -> dict[str, Any]:
        found = parsed(text, dict[str, float | int | list[float | None] | None], WHAT)
        values = found.pop("values", None)
        if values is None:
            return found
        if not isinstance(values, list):
            raise InputError(f"this is not {WHAT}: values are {values}, a list is needed")
        return {**found, **self._in_order(values)}

    def _of_cells(self, text: str) -> dict[str, Any] | None:
        cells = [cell.strip() for cell in text.split(",")]
        numbers = [_number(cell) for cell in cells]
        if self._header is None and None in numbers and not self._count:
            self._check(cells)
            self._header = cells
            return None
        if None in numbers:
            raise InputError(f"this is not {WHAT}: {cells[numbers.index(None)][:40]!r} is no number")
        if self._header is None:
            return self._in_order(numbers)
        if len(cells) != len(self._header):
            raise InputError(f"this is not {WHAT}: {len(cells)} values, {len(self._header)} are needed")
        times = {name: _exact(cell) for name, cell in zip(self._header, cells, strict=True) if name in CLOCKS and cell}
        return {**dict(zip(self._header, numbers, strict=True)), **times}

    def _in_order(self, values: Sequence[float | None]) -> dict[str, Any]:
        if len(values) != len(self._channels):
            names = ", ".join(self._channels)
            raise InputError(f"a frame of {len(values)} values came: {len(self._channels)} are needed ({names})")
        return dict(zip(self._channels, values, strict=True))

    def _check(self, names: Sequence[str]) -> None:
        missing = [channel for channel in self._channels if channel not in names]
        if missing:
            raise InputError(f"there are the columns {', '.join(names)[:200]}: {', '.join(missing)} missing")

    def _row(self, named: dict[str, Any]) -> tuple[float, ...]:
        self._check(list(named))
        values = [named[channel] for channel in self._channels]
        if any(isinstance(value, list) for value in values):
            raise InputError(f"this is not {WHAT}: one number a channel is needed")
        try:
            return tuple(math.nan if value is None else float(value) for value in values)
        except OverflowError:
            raise InputError(f"this is not {WHAT}: a number is larger than any") from None

    def _time(self, named: dict[str, Any]) -> int:
        for name, unit in CLOCKS.items():
            time = named.get(name)
            if isinstance(time, int | float | Decimal):
                return check_time(_times(time, unit), WHAT)
        return round(self._count * SECOND / self._rate)


def line_of(time: int, values: Sequence[float]) -> bytes:
    """A frame as a line that is read back to the same numbers."""
    return msgspec.json.encode({"time": time, "values": list(values)})


def _number(cell: str) -> float | None:
    """A cell's number; an empty one is a gap, which no number is; None of other text."""
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        return None


def _times(time: int | float | Decimal, unit: int) -> int | float | Decimal:
    """A time in nanoseconds; infinite where it has no room for them."""
    try:
        return time * unit
    except ArithmeticError:
        return math.inf


def _exact(cell: str) -> Decimal | float:
    """A time as it is written: a float has no room for nanoseconds since 1970."""
    try:
        found = Decimal(cell)
    except ArithmeticError:  # of more digits than a decimal has
        return math.nan
    return found if found.is_finite() else math.nan
