"""Which sensors a model's channels are: what a stream must have before there can be a frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from edgeseq.errors import InputError
from edgeseq.manifest import Channel
from edgeseq.signal.readings import ACCELERATION, FRAME, GRAVITY, GYROSCOPE, MOTION, factor, quantity

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

    def row(self, values: dict[str, tuple[float, ...]], units: dict[str, str]) -> list[float]:
        """A frame of the sensors' ``values`` in their ``units``, in the model's channels and units.

        Raises:
            InputError: a sensor's unit is not that of what it measures.
        """
        if FRAME in values:
            return list(values[FRAME])
        row = []
        for place, channel in zip(self._places, self.channels, strict=True):
            parts = (place.sensor,) if place.sensor in values else (MOTION, GRAVITY)
            value = sum(values[part][place.axis] * factor(units[part], channel.unit) for part in parts)
            row.append(self._sign * value if place.sensor == ACCELERATION else value)
        return row


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
