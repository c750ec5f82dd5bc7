"""phyphox (phyphox.org), on phones: asked for what is new since the last answer.

    GET http://PHONE/get?acc_time=12.3|acc_time&accX=12.3|acc_time&accY=...      what came after 12.3 s
    GET http://PHONE/get?acc_time=full&accX=full&...                             all that there is
    GET http://PHONE/get?acc_time=                                               the last time alone
    {"buffer": {"acc_time": {"updateMode": "partial", "buffer": [12.31, 12.32], ...}, ...},
     "status": {"session": "...", "measuring": true, ...}}

Seconds are those of the experiment, which begin anew when it is cleared; accelerations are in m/s², with gravity
("Acceleration (with g)") or without it, angular velocities in rad/s. Buffers that an experiment does not have are
left out of the answer. The first answer after a clearing is full, whatever was asked for, but that may be the answer
to somebody else.
"""

from __future__ import annotations

import math
from urllib.parse import quote

import msgspec

from edgeseq.signal.readings import ACCELERATION, GYROSCOPE, SECOND, Reading
from edgeseq.signal.senders.message import Message, TooLong, check_count, check_time, parsed

WHAT = "an answer of phyphox"
EMPTY = 10  # answers without anything new, of a phone that measures, after which it may have been cleared
NEW, LAST = "partial", "single"  # and "full": what an answer holds of a buffer
BUFFERS = {
    ACCELERATION: ("acc_time", ("accX", "accY", "accZ"), "m/s²"),
    GYROSCOPE: ("gyr_time", ("gyrX", "gyrY", "gyrZ"), "rad/s"),
}


class _Buffer(msgspec.Struct, frozen=True):
    buffer: list[float | None] = []
    updateMode: str = NEW

    @property
    def times(self) -> list[float]:
        """What it holds of times: events from before the experiment have negative ones, and none is null."""
        return [value for value in self.buffer if value is not None and 0 <= value < math.inf]


class _Status(msgspec.Struct, frozen=True):
    session: str = ""
    measuring: bool = True


class Answer(msgspec.Struct, frozen=True):
    """What is read of an answer."""

    buffer: dict[str, _Buffer]
    status: _Status = _Status()


class Phyphox:
    """What a phone answers, in its order; what an answer says once more gives nothing.

    Attributes:
        session: the experiment that the last answer was of.
        seen: the newest time of each sensor, in seconds of the experiment; None where anything is new.
        last: the last time that the last answer holds of each sensor, read or not.
        measuring: whether the phone was measuring.
        why: why nothing may come, in words; "" where nothing is wrong.
    """

    def __init__(self, sensors: tuple[str, ...] = (ACCELERATION, GYROSCOPE), sender: str = "") -> None:
        self._sensors, self._sender = sensors, sender
        self.session = ""
        self.seen: dict[str, float | None] = dict.fromkeys(sensors)
        self.last: dict[str, float | None] = dict.fromkeys(sensors)
        self.measuring, self.why = True, ""

    def __call__(self, body: bytes | str) -> Message:
        """The readings of an answer that are new.

        Raises:
            TooLong: it has more than is read of one.
            InputError: it is no answer of phyphox.
        """
        return self.take(_parsed(body))

    def take(self, answer: Answer) -> Message:
        """The readings of an answer that has been parsed."""
        session, seen, last = answer.status.session, self.seen, self.last
        readings: list[Reading] = []
        for sensor in self._sensors:
            clock = answer.buffer.get(BUFFERS[sensor][0], _Buffer())
            since = None if session != self.session or _is_cleared(clock, seen[sensor]) else seen[sensor]
            news = _news(sensor, answer, since)
            unit = BUFFERS[sensor][2]
            readings += [Reading(sensor, check_time(at * SECOND, WHAT), values, unit) for at, values in news.items()]
            last = {**last, sensor: max(clock.times, default=None)}
            seen = {**seen, sensor: max(news, default=since)}
        self.session, self.seen, self.last = session, seen, last
        self.measuring, self.why = answer.status.measuring, self._complaint(answer)
        return Message(tuple(readings), self._sender, session)

    def _complaint(self, answer: Answer) -> str:
        of_clocks = all(each.updateMode == LAST for each in answer.buffer.values())
        for sensor in self._sensors:
            clock, axes, _ = BUFFERS[sensor]
            lacking = [name for name in (clock, *(() if of_clocks else axes)) if name not in answer.buffer]
            if lacking:
                return (
                    f"the experiment that is open has no {sensor} ({', '.join(lacking)}): open one that "
                    "has, or add one with + in the app"
                )
        return "" if answer.status.measuring else "it is not measuring: press play on the phone"


class Questions:
    """What a phone is to be asked, one question after the other, and which of its answers say something."""

    def __init__(self, sensors: tuple[str, ...] = (ACCELERATION, GYROSCOPE)) -> None:
        self._sensors, self._phone = sensors, Phyphox(sensors)
        self._empty = 0
        self._skips, self._is_answered = False, False
        self.begin()

    @property
    def why(self) -> str:
        """See :class:`Phyphox`."""
        return self._phone.why

    def begin(self) -> None:
        """Go on behind a lost connection; where nothing was answered, by the last times: they name no buffer to compare
        with, which another experiment may lack.
        """
        self._asks_last = not self._is_answered or self._skips
        self._is_answered = False

    def next(self) -> str:
        """The query of the next request: what came after the last time that was seen, or the last times alone."""
        parts = []
        for sensor in self._sensors:
            clock, axes, _ = BUFFERS[sensor]
            if self._asks_last:
                parts.append(f"{clock}=")
                continue
            seen = self._phone.seen[sensor]
            threshold = "full" if seen is None else quote(f"{seen!r}|{clock}", safe="")
            parts += [f"{name}={threshold}" for name in (clock, *axes)]
        return "&".join(parts)

    def take(self, body: bytes | str) -> tuple[bool, str]:
        """Whether an answer says something to who decodes it: readings, or that the experiment is another one.

        Also what was left out, in words, where an answer was longer than is read of one: the phone is then asked for
        what comes from now on.

        Raises:
            InputError: it is no answer of phyphox.
        """
        self._is_answered = True
        before, session = self._phone.seen, self._phone.session
        try:
            answer = _parsed(body)
        except TooLong:
            self._asks_last = self._skips = True
            return False, ""
        if session not in ("", answer.status.session) and not self._asks_last:
            self._phone = Phyphox(self._sensors)  # another experiment, asked for what came after times of the last one
            return False, ""
        message = self._phone.take(answer)
        said, is_other = "", self._phone.seen != before
        if self._asks_last:
            said = self._skip() if self._skips else ""
            self._asks_last = self._skips = False
        self._empty = 0 if message.readings or not self._phone.measuring else self._empty + 1
        if self._empty == EMPTY:
            self._empty, self._asks_last = 0, True
        return bool(message.readings or is_other or said), said

    def _skip(self) -> str:
        """Go on from the last times that there are; what lies between, in words."""
        phone = self._phone
        begins = [since or 0.0 for since in phone.seen.values()]
        phone.seen = {sensor: phone.seen[sensor] if last is None else last for sensor, last in phone.last.items()}
        ends = [last or 0.0 for last in phone.seen.values()]
        return f"what was measured from {min(begins):.0f} s to {max(ends):.0f} s is left out, it is too long an answer"


def _parsed(body: bytes | str) -> Answer:
    answer = parsed(body, Answer, WHAT)
    check_count(max((len(each.buffer) for each in answer.buffer.values()), default=0), WHAT)
    return answer


def _is_cleared(clock: _Buffer, seen: float | None) -> bool:
    """Whether times have begun anew: the last one is older, or all of them begin before and lack what was seen."""
    if seen is None or clock.updateMode == NEW:
        return False
    times = clock.times
    if clock.updateMode == LAST:
        return not times or times[-1] < seen
    return not times or (times[0] <= seen and seen not in times)


def _news(sensor: str, answer: Answer, seen: float | None) -> dict[float, tuple[float, ...]]:
    """What a sensor says behind a time that was seen, by its time in seconds."""
    clock, axes, _ = BUFFERS[sensor]
    columns = [answer.buffer.get(name, _Buffer()) for name in (clock, *axes)]
    found: dict[float, tuple[float, ...]] = {}
    if columns[0].updateMode == LAST:
        return found
    for at, *values in zip(*(column.buffer for column in columns), strict=False):
        if at is not None and 0 <= at < math.inf and (seen is None or at > seen):
            found.setdefault(at, tuple(math.nan if value is None else value for value in values))
    return found
