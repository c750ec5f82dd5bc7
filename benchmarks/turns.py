"""Calls of a step, timed one by one: without a pause, or at the sensor's rate. The standard library alone, so that a
worker in another environment takes its turns by the same code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

Step = Callable[[Any], Any]


def tight(step: Step, frames: Sequence[Any]) -> list[int]:
    """Nanoseconds of each call, one after the other."""
    clock, taken = time.perf_counter_ns, []
    for frame in frames:
        start = clock()
        step(frame)
        taken.append(clock() - start)
    return taken


def paced(step: Step, frames: Sequence[Any], rate: float) -> list[int]:
    """Nanoseconds of each call, begun ``rate`` times a second by an absolute schedule, asleep in between."""
    clock, period, taken = time.perf_counter_ns, 1e9 / rate, []
    begin = clock()
    for number, frame in enumerate(frames, 1):
        wait = begin + int(number * period) - clock()
        if wait > 0:
            time.sleep(wait / 1e9)
        start = clock()
        step(frame)
        taken.append(clock() - start)
    return taken
