"""What a sensor says: a reading, its unit, and which of them can be true."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from edgeseq.errors import InputError

SECOND = 1_000_000_000  # nanoseconds, which all times here are in
FRAME = "frame"
"""A sensor that gives all channels of a model at once, in the model's order and units."""
ACCELERATION = "acceleration"
"""With gravity: at rest it is 1 g long."""
MOTION = "motion"
"""Acceleration without gravity, as some systems compute it; with :data:`GRAVITY` it is the acceleration."""
GRAVITY = "gravity"
GYROSCOPE = "gyroscope"

G = 9.80665  # m/s², by definition
_SI = {
    **dict.fromkeys(("m/s²", "m/s^2", "m/s2"), ("acceleration", 1.0)),
    "g": ("acceleration", G),
    "rad/s": ("turning", 1.0),
    **dict.fromkeys(("°/s", "deg/s", "dps"), ("turning", math.pi / 180)),
}
LIMITS = {"acceleration": 64 * G, "turning": 140.0}
"""What no sensor that is worn can say, in m/s² and rad/s: twice the range of any, 32 g and 4,000 °/s."""

LARGEST = 1e38  # and of anything else, so that a frame of float32 has room for it


class Reading(NamedTuple):
    """What a sensor said at a moment: ``time`` in nanoseconds of its sender's clock, ``values`` in ``unit``."""

    sensor: str
    time: int
    values: tuple[float, ...]
    unit: str


def quantity(unit: str) -> str | None:
    """What a unit measures, "acceleration" or "turning"; None of one that is neither."""
    return _SI[unit][0] if unit in _SI else None


def factor(unit: str, wanted: str) -> float:
    """What values in ``unit`` are multiplied by to be in the ``wanted`` one; exactly 1 where they are the same.

    Raises:
        InputError: the units do not measure the same.
    """
    if unit == wanted:
        return 1.0
    if quantity(unit) is None or quantity(unit) != quantity(wanted):
        raise InputError(f"unit {unit!r} cannot be made {wanted!r}")
    return _SI[unit][1] / _SI[wanted][1]


def limit(unit: str) -> float:
    """The largest value in a unit that can be true."""
    measures = quantity(unit)
    return LIMITS[measures] / _SI[unit][1] if measures else LARGEST


def are_possible(values: Iterable[float], limits: Iterable[float]) -> bool:
    """Whether all values are numbers and within their limits."""
    return all(abs(value) <= most for value, most in zip(values, limits, strict=False))  # which nothing is of NaN
