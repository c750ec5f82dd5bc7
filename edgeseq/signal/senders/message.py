"""One message of a sender, whatever it came by."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple, TypeVar

import msgspec

from edgeseq.errors import InputError
from edgeseq.signal.readings import Reading

MAX_BYTES = 1 << 20
MAX_READINGS = 20_000  # of one message: a minute of six sensors at 50 Hz
_T = TypeVar("_T")


class TooLong(InputError):
    """A message with more than is read of one."""


class Message(NamedTuple):
    """Readings of one ``sender``. ``number``: rises from message to message within a ``session``, where it is known."""

    readings: tuple[Reading, ...]
    sender: str = ""
    session: str = ""
    number: int | None = None


def parsed(body: bytes | str, kind: type[_T], what: str) -> _T:
    """A message's JSON as ``kind``, whose types also bound how deep it goes.

    Raises:
        InputError: it is too long, no JSON, or something else; ``what`` it was to be is named.
    """
    if len(body) > MAX_BYTES:
        raise TooLong(f"{what} has {len(body):,} bytes: {MAX_BYTES:,} are read at most; send smaller batches")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"this is not {what}: {error}") from None


def check_time(time: int | float | Decimal, what: str) -> int:
    """A time in whole nanoseconds, refused where it is none that a clock shows.

    Raises:
        InputError: naming what it is of.
    """
    if not 0 <= time < 1 << 63:  # nor is it, of what is not a number
        raise InputError(f"this is not {what}: its time {str(time)[:40]} is no number of nanoseconds")
    return round(time)


def check_count(readings: int, what: str) -> None:
    """Refuse a message with too many readings.

    Raises:
        InputError: naming the limit.
    """
    if readings > MAX_READINGS:
        raise TooLong(f"{what} has {readings:,} readings: {MAX_READINGS:,} are read at most; send smaller batches")
