"""Bangle.js and other Espruino watches, over the Nordic UART service: a line a sample, cut anywhere by the radio.

    A,12,-3,98        hundredths of g along x, y and z

The watch sends no time: a sample has that of its arrival, kept to the steps at which the watch samples, since the radio
delivers several at once.
"""

from __future__ import annotations

import re

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, SECOND, Reading
from edgeseq.signal.senders.message import Message

SERVICE = "6e400001-b5a3-f393-e0a9-e50e24dcca9e"
NOTIFY, WRITE = SERVICE.replace("0001", "0003", 1), SERVICE.replace("0001", "0002", 1)
PERIOD = 80_000_000  # ns: 12.5 Hz, unless the watch is told otherwise
LATE = 0.5  # seconds by which the steps may differ from the arrivals before they begin anew
MAX_LINE = 200
_LINE = re.compile(r"A,(-?\d{1,5}),(-?\d{1,5}),(-?\d{1,5})")


class Espruino:
    """The notifications of a watch, one after the other."""

    def __init__(self, period: int = PERIOD, sender: str = "") -> None:
        """``period``: nanoseconds from sample to sample."""
        self._period, self._sender = period, sender
        self._rest = b""
        self._last: int | None = None

    def __call__(self, part: bytes, arrived: int) -> Message:
        """The samples whose lines end in this ``part``, which ``arrived`` at a time in ns.

        Raises:
            InputError: a line is no sample; the others of the part are lost with it.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
            raise InputError(f"the watch sent {MAX_LINE} characters without the end of a line")
        texts = [line.decode("ascii", "replace").strip() for line in lines]
        texts = [text for text in texts if text and text != ">"]  # Espruino's prompt
        matches = [_LINE.fullmatch(text) for text in texts]
        if None in matches:
            wrong = texts[matches.index(None)]
            raise InputError(f"the watch sent {wrong[:40]!r}: a line as A,12,-3,98 is needed")
        readings = []
        for number, match in enumerate(matches):
            behind = (len(matches) - 1 - number) * self._period
            values = tuple(int(value) / 100 for value in match.groups()) if match else ()
            readings.append(Reading(ACCELERATION, self._time(arrived - behind), values, "g"))
        return Message(tuple(readings), self._sender)

    def _time(self, arrived: int) -> int:
        """The next step of the watch; the moment of arrival where the two have come too far apart."""
        due = None if self._last is None else self._last + self._period
        if due is None or abs(arrived - due) > LATE * SECOND:
            due = arrived if self._last is None else max(arrived, self._last + 1)
        else:
            due += (arrived - due) // 50  # the watch's clock is not ours
        self._last = due
        return due
