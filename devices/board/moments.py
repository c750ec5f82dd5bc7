"""What can change while something is measured, and whether the board slowed down meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeseq.devices.board import clocks
from edgeseq.devices.board.emulation import ARM_MACHINES
from edgeseq.devices.board.sources import ROOT, Ask, ask
from edgeseq.devices.board.throttle import read_throttle

if TYPE_CHECKING:
    from edgeseq.devices.facts import Facts

SLACK = 0.97  # a clock this close to another is the same: a firmware measures 1800.4 MHz of 1800


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One reading: clock in MHz, temperature in °C, a Raspberry Pi's throttle bits and all throttling in words."""

    monotonic_ns: int
    temperature_c: float | None
    clock_mhz: float | None
    throttled: str | None
    throttle: tuple[str, ...]


def read_moment(root: Path = ROOT, ask: Ask = ask) -> Moment:
    """A reading now: below a millisecond, on a Raspberry Pi two questions to its firmware (tens of milliseconds)."""
    throttled, throttle = read_throttle(root, ask)
    return Moment(
        monotonic_ns=time.monotonic_ns(),
        temperature_c=clocks.temperature(root, ask),
        clock_mhz=clocks.clock(root, ask)[0],
        throttled=throttled,
        throttle=throttle,
    )


def throttling(before: Facts, moments: Sequence[Moment], after: Facts) -> str | None:
    """Why what was measured between two readings of a board's facts counts as throttled; None where it does not."""
    readings: list[Facts | Moment] = [before, *moments, after]
    reasons = (_now(readings), _since(readings), _lowered(before, after), _below(before, readings))
    return "; ".join(reason for reason in reasons if reason) or None


def _now(readings: Sequence[Facts | Moment]) -> str | None:
    """A word that held at the moment of a reading."""
    slowed = [[word for word in reading.throttle if word.endswith(" now")] for reading in readings]
    words = dict.fromkeys(word.removesuffix(" now") for found in slowed for word in found)
    return f"{', '.join(words)} in {sum(map(bool, slowed))} of {len(slowed)} readings" if words else None


def _since(readings: Sequence[Facts | Moment]) -> str | None:
    """A word of what was since boot, and was not yet in the first reading that could tell."""
    telling = [reading for reading in readings if reading.throttled is not None] or readings
    words = dict.fromkeys(word for reading in telling for word in reading.throttle if word.endswith(" since boot"))
    new = [word for word in words if word not in telling[0].throttle]
    return f"{', '.join(new)}, which was not so when it began" if new else None


def _lowered(before: Facts, after: Facts) -> str | None:
    """The kernel cools a board by lowering the highest clock that it allows."""
    one, other = before.clock_max_mhz, after.clock_max_mhz
    if one is None or other is None or other >= SLACK * one:
        return None
    return f"the highest clock allowed fell from {one:.0f} to {other:.0f} MHz"


def _below(before: Facts, readings: Sequence[Facts | Moment]) -> str | None:
    """Under the governor "performance" a board's clock is the highest; an x86 processor's above its base is luck."""
    highest = before.clock_max_mhz
    if before.governor != "performance" or highest is None or before.machine not in ARM_MACHINES:
        return None
    lowest = min((reading.clock_mhz for reading in readings if reading.clock_mhz is not None), default=highest)
    if lowest >= SLACK * highest:
        return None
    return f"the clock was {lowest:.0f} MHz, and the governor performance asks for {highest:.0f}"
