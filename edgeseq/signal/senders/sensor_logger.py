"""Sensor Logger (tszheichoi.com/sensorlogger), on phones and watches: what it pushes by HTTP and by MQTT.

A message is ``{"messageId": 7, "sessionId": "...", "deviceId": "...", "payload": [...]}``, a reading of it
``{"name": "wrist motion", "time": 1698501145034000000, "values": {...}}`` with the time in nanoseconds since 1970. A
payload is a batch, unsorted across sensors.

On Android, and where "Standardise Units & Frames" is on, accelerations are in m/s² and with Android's signs. Where it
is off, Apple's devices give Apple's signs, and some accelerations in g, others in m/s²: which ones is seen in the first
reading that has gravity in it, and holds for a session; and where any of a session is in g, all of it is turned. What
an iPhone gives in m/s² alone cannot be told from Android's: there the switch must be on.

A phone sends what its watch feels ("wrist motion") among its own readings: these are two streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import msgspec

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, GRAVITY, GYROSCOPE, MOTION, Reading
from edgeseq.signal.senders.message import Message, check_count, check_time, parsed

WHAT = "a message of Sensor Logger"
WRIST = "wrist motion"
RANGES = {"g": (0.5, 2.0), "m/s²": (5.0, 20.0)}  # how long gravity is, more or less, where it is in that unit
KEPT = 32  # sessions whose units are remembered
Values = dict[str, float | int | str | None]


class _Entry(msgspec.Struct):
    name: str
    time: Any = None
    values: msgspec.Raw = msgspec.Raw(b"{}")  # those of other sensors may be anything


class _Message(msgspec.Struct):
    payload: list[_Entry]
    messageId: int | None = None
    sessionId: str = ""
    deviceId: str = ""


class _Kind(NamedTuple):
    """A sensor by the name that the app gives it: what it is, and the keys of its axes."""

    sensor: str
    keys: tuple[str, str, str] = ("x", "y", "z")


KINDS = {
    WRIST: (
        _Kind(MOTION, ("accelerationX", "accelerationY", "accelerationZ")),
        _Kind(GRAVITY, ("gravityX", "gravityY", "gravityZ")),
        _Kind(GYROSCOPE, ("rotationRateX", "rotationRateY", "rotationRateZ")),
    ),
    "accelerometer": (_Kind(MOTION),),
    "gravity": (_Kind(GRAVITY),),
    "gyroscope": (_Kind(GYROSCOPE),),
    "totalacceleration": (_Kind(ACCELERATION),),
    "gyroscopeuncalibrated": (_Kind(GYROSCOPE),),
    "accelerometeruncalibrated": (_Kind(ACCELERATION),),
}
"""By the app's names, of two that are of the same sensor the better one first."""
SAID_BY = {"accelerometer": "gravity"}
"""What has no gravity in it is in the unit of what has."""


class _Session:
    """What is found out of a session of one device."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}  # of accelerations, by the name whose gravity told it
        self.chosen: dict[tuple[str, str], str] = {}  # by stream and sensor the name that tells of it


class SensorLogger:
    """The messages of Sensor Logger, of any number of devices."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}

    def __call__(self, body: bytes | str) -> tuple[Message, ...]:
        """A message, with those of its readings that a model may read: of the device, and of the watch that it speaks
        for, where both are in it.

        Raises:
            InputError: it is no message of Sensor Logger, or too long.
        """
        message = parsed(body, _Message, WHAT)
        check_count(len(message.payload), WHAT)
        session = self._session(message)
        known = [(entry.name.lower(), entry) for entry in message.payload if entry.name.lower() in KINDS]
        wrist = [pair for pair in known if pair[0] == WRIST]
        own = [pair for pair in known if pair[0] != WRIST]
        found = []
        for sender, entries in ((message.deviceId, own), (f"{message.deviceId}, {WRIST}", wrist)):
            if entries:
                readings = _readings(session, sender, entries)
                found.append((sender, readings))
                _find_units(session, readings)
        return tuple(
            Message(_in_units(session, readings), sender, message.sessionId, message.messageId)
            for sender, readings in found
        )

    def _session(self, message: _Message) -> _Session:
        """What is known of a message's session; of the sessions, the last ones are."""
        key = (message.deviceId, message.sessionId)
        self._sessions[key] = self._sessions.pop(key) if key in self._sessions else _Session()
        if len(self._sessions) > KEPT:
            del self._sessions[next(iter(self._sessions))]
        return self._sessions[key]


Named = tuple[str, Reading]


def _readings(session: _Session, stream: str, entries: Sequence[tuple[str, _Entry]]) -> list[Named]:
    """The readings of entries with their names, accelerations in what unit they came; of two that tell of one, one."""
    for name in sorted({name for name, _ in entries}, key=list(KINDS).index):
        for kind in KINDS[name]:
            session.chosen.setdefault((stream, kind.sensor), name)
    found = []
    for name, entry in entries:
        kinds = [kind for kind in KINDS[name] if session.chosen[stream, kind.sensor] == name]
        given = parsed(entry.values, Values, WHAT) if kinds else {}
        for kind in kinds:
            values = tuple(_number(given.get(key)) for key in kind.keys)
            unit = "rad/s" if kind.sensor == GYROSCOPE else ""
            found.append((name, Reading(kind.sensor, _time(entry.time), values, unit)))
    return found


def _find_units(session: _Session, readings: Sequence[Named]) -> None:
    """Find out, once, in which units the accelerations of each name are that have gravity in them."""
    for name in {name for name, reading in readings if reading.sensor in (GRAVITY, ACCELERATION)}:
        lengths = [math.hypot(*r.values) for own, r in readings if own == name and r.sensor in (GRAVITY, ACCELERATION)]
        lengths = [length for length in lengths if math.isfinite(length)]
        usual = median(lengths) if lengths else 0.0
        units = [unit for unit, (shortest, longest) in RANGES.items() if shortest < usual < longest]
        if units:
            session.units.setdefault(name, units[0])


def _in_units(session: _Session, readings: Sequence[Named]) -> tuple[Reading, ...]:
    """The readings whose units are known: accelerations with Android's signs."""
    sign = -1.0 if "g" in session.units.values() else 1.0
    found = []
    for name, reading in readings:
        unit = session.units.get(SAID_BY.get(name, name), "")
        if reading.sensor == GYROSCOPE:
            found.append(reading)
        elif unit:
            turned = tuple(sign * value for value in reading.values) if sign < 0 else reading.values
            found.append(reading._replace(unit=unit, values=turned))
    return tuple(found)


def _number(value: Any) -> float:
    """A value as the app writes it; what is none is not a number, which no frame is made of."""
    try:
        return math.nan if value is None else float(value)
    except (ValueError, OverflowError):
        return math.nan


def _time(time: Any) -> int:
    try:
        found = int(time) if isinstance(time, int | str) else int("")
    except ValueError:
        raise InputError(f"this is not {WHAT}: its time {str(time)[:40]!r} is no number of nanoseconds") from None
    return check_time(found, WHAT)
