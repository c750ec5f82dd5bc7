"""SensorServer (github.com/umer0586/SensorServer), on Android: one websocket a sensor.

    ws://PHONE:PORT/sensor/connect?type=android.sensor.accelerometer
    {"accuracy": 2, "timestamp": 3925657519043709, "values": [0.3, 9.7, -0.9]}

Times are in nanoseconds since the phone was started, the same clock for all its sensors; accelerations in m/s², with
gravity.
"""

from __future__ import annotations

import math

import msgspec

from edgeseq.errors import unknown
from edgeseq.signal.readings import ACCELERATION, GRAVITY, GYROSCOPE, MOTION, Reading
from edgeseq.signal.senders.message import Message, check_time, parsed

WHAT = "a message of SensorServer"
TYPES = {
    "android.sensor.accelerometer": (ACCELERATION, "m/s²"),
    "android.sensor.gyroscope": (GYROSCOPE, "rad/s"),
    "android.sensor.linear_acceleration": (MOTION, "m/s²"),
    "android.sensor.gravity": (GRAVITY, "m/s²"),
}


class _Event(msgspec.Struct):
    timestamp: int
    values: list[float | None]


class SensorServer:
    """The messages of one of its sensors, by Android's name for it."""

    def __init__(self, kind: str, sender: str = "") -> None:
        """Raises InputError for a sensor that no model reads."""
        if kind not in TYPES:
            raise unknown("sensor", kind, TYPES)
        self._sensor, self._unit = TYPES[kind]
        self._sender = sender

    def __call__(self, body: bytes | str) -> Message:
        """A message. Raises InputError for what is none of SensorServer."""
        event = parsed(body, _Event, WHAT)
        values = tuple(math.nan if value is None else value for value in event.values[:3])
        return Message((Reading(self._sensor, check_time(event.timestamp, WHAT), values, self._unit),), self._sender)
