"""Bangle.js and other Espruino watches, over the Nordic UART service: a line a sample, cut anywhere by the radio.

    A,12,-3,98        hundredths of g along x, y and z

The watch sends no time: a sample has that of its arrival, kept to the steps at which the watch samples, since the radio
delivers several at once. An empty part stands for a link that was made anew: what was begun before it has no end.
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
_END = re.compile(r"[-,\d]{1,20}")  # of a line whose beginning came before the first part


class Espruino:
    """The notifications of a watch, one after the other."""

    def __init__(self, period: int = PERIOD, sender: str = "") -> None:
        """``period``: nanoseconds from sample to sample."""
        self._period, self._sender = period, sender
        self._rest, self._is_first = b"", True
        self._last: int | None = None
        self._arrived, self._ahead = 0, 0  # the last arrival, and how far behind the samples our clock has stepped back

    def __call__(self, part: bytes, arrived: int) -> Message:
        """The samples whose lines end in this ``part``, which ``arrived`` at a time in ns.

        Raises:
            InputError: a line is no sample; the others of the part are lost with it.
        """
        if not part:
            self._rest, self._is_first = b"", True
            return Message((), self._sender)
        samples = self._samples(part)
        readings = []
        for number, values in enumerate(samples):
            behind = (len(samples) - 1 - number) * self._period
            readings.append(Reading(ACCELERATION, self._time(arrived, behind), values, "g"))
        return Message(tuple(readings), self._sender)

    def _samples(self, part: bytes) -> list[tuple[float, ...]]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
            raise InputError(f"the watch sent {MAX_LINE} characters without the end of a line")
        texts = [line.decode("ascii", "replace").strip() for line in lines]
        if texts and self._is_first:
            self._is_first = False
            texts = texts[1:] if _END.fullmatch(texts[0]) else texts
        texts = [text for text in (text.lstrip("> ") for text in texts) if text]  # Espruino's prompt
        matches = [_LINE.fullmatch(text) for text in texts]
        if None in matches:
            wrong = texts[matches.index(None)]
            raise InputError(f"the watch sent {wrong[:40]!r}: a line as A,12,-3,98 is needed")
        return [tuple(int(value) / 100 for value in match.groups()) for match in matches if match]

    def _time(self, arrived: int, behind: int) -> int:
        """The next step of the watch; the moment of arrival where the two have come too far apart."""
        due = None if self._last is None else self._last + self._period
        if due is not None and arrived < self._arrived - LATE * SECOND:  # our clock was set back: the watch's goes on
            self._ahead = due + behind - arrived
        self._arrived = arrived
        now = arrived + self._ahead - behind
        if due is None or now > due + LATE * SECOND:
            due = now
        elif now < due - LATE * SECOND:  # behind what was taken for a hole much comes at once, and is made to fit
            due -= self._period // 2
        else:
            due += (now - due) // 50  # the watch's clock is not ours
        self._last = due
        return due
