"""Sensor Logger (tszheichoi.com/sensorlogger), on phones and watches: what it pushes by HTTP and by MQTT.

A message is ``{"messageId": 7, "sessionId": "...", "deviceId": "...", "payload": [...]}``, a reading of it
``{"name": "wrist motion", "time": 1698501145034000000, "values": {...}}`` with the time in nanoseconds since 1970. A
payload is a batch, unsorted across sensors.

Where "Standardise Units & Frames" is off, Apple's devices give accelerations in g and with Apple's signs; where it is
on, and on Android, they are in m/s² and with Android's. What came in g is turned, therefore. Which it is, is seen in
the first reading that has gravity in it, and holds for a session.

A phone sends what its watch feels ("wrist motion") among its own readings: these are two streams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    time: int | str
    values: Values = {}


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


class SensorLogger:
    """The messages of Sensor Logger, of any number of devices."""

    def __init__(self, units: str | None = None) -> None:
        """``units`` of accelerations, "g" or "m/s²", where they are not to be found out."""
        self._units = units
        self._found: dict[str, str] = {}
        self._chosen: dict[tuple[str, str], str] = {}

    def __call__(self, body: bytes | str) -> tuple[Message, ...]:
        """A message, with those of its readings that a model may read: of the device, and of the watch that it speaks
        for, where both are in it.

        Raises:
            InputError: it is no message of Sensor Logger, or too long.
        """
        message = parsed(body, _Message, WHAT)
        check_count(len(message.payload), WHAT)
        wrist = [entry for entry in message.payload if entry.name.lower() == WRIST]
        own = [entry for entry in message.payload if entry.name.lower() in KINDS and entry.name.lower() != WRIST]
        streams = ((message.deviceId, own), (f"{message.deviceId}, {WRIST}", wrist))
        return tuple(self._message(message, entries, sender) for sender, entries in streams if entries)

    def _message(self, message: _Message, entries: Sequence[_Entry], sender: str) -> Message:
        session = f"{sender}/{message.sessionId}"
        found = list(self._readings(entries, session))
        unit = self._unit(session, found)
        turning = [reading for reading in found if reading.sensor == GYROSCOPE]
        moving = [_in(unit, reading) for reading in found if reading.sensor != GYROSCOPE and unit]
        return Message((*moving, *turning), sender, message.sessionId, message.messageId)

    def _readings(self, entries: Sequence[_Entry], session: str) -> Iterator[Reading]:
        """The readings of a payload, accelerations in what unit they came; of two that tell of a sensor, one."""
        names = sorted({entry.name.lower() for entry in entries}, key=list(KINDS).index)
        for name in names:
            for kind in KINDS[name]:
                self._chosen.setdefault((session, kind.sensor), name)
        _keep_last(self._chosen, KEPT * len(KINDS))
        for entry in entries:
            for kind in KINDS[entry.name.lower()]:
                if self._chosen[session, kind.sensor] == entry.name.lower():
                    values = tuple(_number(entry.values.get(key)) for key in kind.keys)
                    yield Reading(kind.sensor, _time(entry.time), values, "rad/s" if kind.sensor == GYROSCOPE else "")

    def _unit(self, session: str, readings: Iterable[Reading]) -> str:
        """Of the accelerations of a session: found out once, where there is gravity in them; "" before that."""
        if self._units or session in self._found:
            return self._units or self._found[session]
        for sensor in (GRAVITY, ACCELERATION):
            lengths = [math.hypot(*reading.values) for reading in readings if reading.sensor == sensor]
            lengths = [length for length in lengths if math.isfinite(length)]
            usual = median(lengths) if lengths else 0.0
            units = [unit for unit, (shortest, longest) in RANGES.items() if shortest < usual < longest]
            if units:
                self._found[session] = units[0]
                _keep_last(self._found, KEPT)
                return units[0]
        return ""  # and no frame can be made yet


def _keep_last(remembered: dict[Any, str], number: int) -> None:
    for oldest in list(remembered)[:-number]:
        del remembered[oldest]


def _in(unit: str, reading: Reading) -> Reading:
    """An acceleration in its unit, with Android's signs."""
    sign = -1.0 if unit == "g" else 1.0
    return reading._replace(unit=unit, values=tuple(sign * value for value in reading.values))


def _number(value: Any) -> float:
    """A value as the app writes it; what is none is not a number, which no frame is made of."""
    try:
        return math.nan if value is None else float(value)
    except (ValueError, OverflowError):
        return math.nan


def _time(time: int | str) -> int:
    try:
        found = int(time)
    except ValueError:
        raise InputError(f"this is not {WHAT}: its time {str(time)[:40]!r} is no number of nanoseconds") from None
    return check_time(found, WHAT)
