"""Which sensors a model's channels are: what a stream must have before there can be a frame, and in which units."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from edgeseq.errors import InputError
from edgeseq.manifest import Channel
from edgeseq.signal.readings import ACCELERATION, FRAME, GRAVITY, GYROSCOPE, MOTION, Reading, factor, quantity

_AXES = "xyz"
_SENSORS = {"acceleration": ACCELERATION, "turning": GYROSCOPE}


class Place(NamedTuple):
    """Where a channel comes from: a sensor, and the number of its axis."""

    sensor: str
    axis: int


class Layout:
    """The channels of a model by their sensors.

    Channels that are accelerations or angular velocities by their units, and end with x, y or z, are of the
    accelerometer and the gyroscope; where any is something else, all come together (:data:`~.readings.FRAME`).
    """

    def __init__(self, channels: Sequence[Channel], signs: str = "") -> None:
        """``signs`` of the model's accelerations, as :class:`~edgeseq.manifest.Input` has them: those of readings are
        Android's."""
        self.channels = tuple(channels)
        self._sign = -1.0 if signs == "apple" else 1.0
        found = [_place(channel) for channel in channels]
        known = [place for place in found if place is not None]
        self._places = tuple(known) if len(known) == len(found) else ()
        self._units: dict[str, dict[int, str]] = {}  # by sensor and axis
        for place, channel in zip(self._places, self.channels, strict=False):  # none, where all come together
            self._units.setdefault(place.sensor, {})[place.axis] = channel.unit

    @property
    def sensors(self) -> tuple[str, ...]:
        """What the model reads, of a stream that does not give it as frames."""
        return tuple(dict.fromkeys(place.sensor for place in self._places))

    def sources(self, seen: Collection[str]) -> tuple[str, ...] | None:
        """The sensors that frames are made of, of those that were ``seen``; None while one is missing."""
        if FRAME in seen:
            return (FRAME,)
        if not self._places:
            return None
        wanted: list[str] = []
        for sensor in self.sensors:
            if sensor in seen:
                wanted.append(sensor)
            elif sensor == ACCELERATION and {MOTION, GRAVITY} <= set(seen):
                wanted += [MOTION, GRAVITY]
            else:
                return None
        return tuple(wanted)

    def missing(self, seen: Collection[str]) -> str:
        """What a stream of the sensors that were ``seen`` lacks, in words; "" where it lacks nothing."""
        if self.sources(seen) is not None:
            return ""
        names = ", ".join(channel.name for channel in self.channels)
        if not self._places:
            return f"all of {names} together"
        lacks = [sensor for sensor in self.sensors if sensor not in seen]
        if ACCELERATION in lacks and MOTION in seen:
            lacks[lacks.index(ACCELERATION)] = "gravity (the acceleration comes without it)"
        return " and ".join(f"the {name}" if name == GYROSCOPE else name for name in lacks)

    def reads(self, sensor: str) -> bool:
        """Whether frames may be made of what a sensor says."""
        return sensor == FRAME or _kind(sensor) in self._units

    def read(self, reading: Reading) -> tuple[float, ...]:
        """A reading's values in the units and with the signs of the model's channels, where it reads the sensor.

        Raises:
            InputError: the reading's unit is not that of what its sensor measures.
        """
        kind = _kind(reading.sensor)
        units = self._units.get(kind)
        if units is None or reading.sensor == FRAME:
            return tuple(map(float, reading.values))
        sign, any_unit = (self._sign if kind == ACCELERATION else 1.0), next(iter(units.values()))
        scales = [factor(reading.unit, units.get(axis, any_unit)) for axis in range(len(reading.values))]
        return tuple(sign * value * scale for value, scale in zip(reading.values, scales, strict=True))

    def row(self, values: dict[str, tuple[float, ...]]) -> list[float]:
        """A frame, in the order of the model's channels, of the sensors' values as :meth:`read` gives them."""
        if FRAME in values:
            return list(values[FRAME])
        return [
            sum(values[part][place.axis] for part in ((place.sensor,) if place.sensor in values else (MOTION, GRAVITY)))
            for place in self._places
        ]


def _kind(sensor: str) -> str:
    """The sensor that a model's channels name: of what an acceleration comes in parts, too."""
    return GYROSCOPE if sensor == GYROSCOPE else ACCELERATION


def _place(channel: Channel) -> Place | None:
    measures, axis = quantity(channel.unit), channel.name[-1:].lower()
    return Place(_SENSORS[measures], _AXES.index(axis)) if measures and axis and axis in _AXES else None


def check_frame(values: Sequence[float], channels: Sequence[Channel]) -> None:
    """Refuse a reading of all channels that has another number of them.

    Raises:
        InputError: naming what is needed.
    """
    if len(values) != len(channels):
        names = ", ".join(channel.name for channel in channels)
        raise InputError(f"a frame of {len(values)} values came: {len(channels)} are needed ({names})")
