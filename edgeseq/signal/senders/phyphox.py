"""phyphox (phyphox.org), on phones: asked for what is new since the last answer.

    GET http://PHONE/get?acc_time=12.3|acc_time&accX=12.3|acc_time&accY=...      what came after 12.3 s
    {"buffer": {"acc_time": {"buffer": [12.31, 12.32], ...}, "accX": {"buffer": [...]}, ...}, "status": {...}}

Seconds are those of the experiment, which begin anew when it is cleared; accelerations are in m/s², with gravity
("Acceleration (with g)") or without it, angular velocities in rad/s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from edgeseq.signal.readings import ACCELERATION, GYROSCOPE, SECOND, Reading
from edgeseq.signal.senders.message import Message, check_count, check_time, parsed

WHAT = "an answer of phyphox"
BUFFERS = {
    ACCELERATION: ("acc_time", ("accX", "accY", "accZ"), "m/s²"),
    GYROSCOPE: ("gyr_time", ("gyrX", "gyrY", "gyrZ"), "rad/s"),
}


class _Buffer(msgspec.Struct, frozen=True):
    buffer: list[float | None] = []


class _Status(msgspec.Struct, frozen=True):
    session: str = ""
    measuring: bool = True


class _Answer(msgspec.Struct, frozen=True):
    buffer: dict[str, _Buffer]
    status: _Status = _Status()


class Phyphox:
    """What a phone answers, and what it is to be asked next."""

    def __init__(self, sensors: tuple[str, ...] = (ACCELERATION, GYROSCOPE), sender: str = "") -> None:
        self._sensors, self._sender = sensors, sender
        self._seen = dict.fromkeys(sensors, -1.0)
        self._session = ""

    def query(self) -> str:
        """The query of the next request: all buffers from the last time on that was seen."""
        parts = []
        for sensor in self._sensors:
            clock, axes, _ = BUFFERS[sensor]
            seen = self._seen[sensor]
            threshold = "full" if seen < 0 else quote(f"{seen!r}|{clock}", safe="")
            parts += [f"{name}={threshold}" for name in (clock, *axes)]
        return "&".join(parts)

    def __call__(self, body: bytes | str) -> Message:
        """The readings of an answer that are new. Raises InputError for what is no answer of phyphox."""
        answer = parsed(body, _Answer, WHAT)
        if answer.status.session != self._session:  # an experiment that was begun anew counts from 0
            self._seen = dict.fromkeys(self._sensors, -1.0)
            self._session = answer.status.session
        return Message(tuple(self._readings(answer)), self._sender, answer.status.session)

    def _readings(self, answer: _Answer) -> Iterator[Reading]:
        for sensor in self._sensors:
            clock, axes, unit = BUFFERS[sensor]
            columns = [answer.buffer.get(name, _Buffer()).buffer for name in (clock, *axes)]
            check_count(len(columns[0]), WHAT)
            for time, *values in zip(*columns, strict=False):  # a column may have grown while the answer was written
                if time is None or not math.isfinite(time) or time <= self._seen[sensor]:
                    continue
                self._seen[sensor] = time
                known = tuple(math.nan if value is None else value for value in values)
                yield Reading(sensor, check_time(time * SECOND, WHAT), known, unit)
