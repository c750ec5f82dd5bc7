"""The turns of a measurement: engines step without a pause, or at the sensor's rate, and every call is timed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeseq.devices.engines.base import Floats
from edgeseq.devices.fresh import Fresh
from edgeseq.devices.session import Session
from edgeseq.folder import Folder

TURNS = 3  # parts of a measurement: a shared machine changes its pace within seconds
CHUNK = 100  # calls of one engine in a tight loop before the next has its turn
WARM_UP = 20  # calls before each turn, for caches and what a runtime puts off until its first calls
MAX_SAMPLES = 20_000  # a tight loop of an engine ends here: enough for a p99, and the report stays readable


@dataclass
class Turn:
    """What one turn at the sensor's rate came to; filled while it runs, so that one cut short is not lost."""

    call_ns: list[int] = field(default_factory=list)
    response_ns: list[int] = field(default_factory=list)
    jitter_ns: list[int] = field(default_factory=list)
    misses: int = 0
    wall_ns: int = 0
    cpu_ns: int = 0


@dataclass
class Run:
    """One engine of one folder, while it is measured; ``tight`` are nanoseconds."""

    folder: Folder
    session: Session
    frames: list[Floats]
    rate: float
    fresh: Fresh
    tight: list[int] = field(default_factory=list)
    paced: list[Turn] = field(default_factory=list)


def warm_up(run: Run) -> None:
    """Start a recording, with calls that are not timed."""
    run.session.reset()
    for frame in run.frames[:WARM_UP]:
        run.session.step(frame)


def tight_turn(runs: Sequence[Run], seconds: float, order: random.Random, most: int = MAX_SAMPLES) -> None:
    """Step without a pause, for so long or to so many samples of each, in chunks whose order is shuffled each round."""
    for run in runs:
        warm_up(run)
    turns, clock, at = list(runs), time.perf_counter_ns, 0
    end = clock() + int(seconds * 1e9)
    while at == 0 or (clock() < end and at < most):
        order.shuffle(turns)
        for run in turns:
            chunk = [run.frames[(at + i) % len(run.frames)] for i in range(CHUNK)]
            step, taken = run.session.step, run.tight
            for frame in chunk:
                start = clock()
                step(frame)
                taken.append(clock() - start)
        at += CHUNK


def paced_turn(run: Run, count: int, turn: Turn, at: int = 0) -> None:
    """Step ``count`` times at the sensor's rate by an absolute schedule, sleeping in between: lateness neither adds up
    nor hides. A step that is due while the one before it still runs begins behind that, and only what it is later than
    this is jitter. ``at`` is the first frame, of those that come round and round.
    """
    step, frames, clock, period = run.session.step, run.frames, time.perf_counter_ns, 1e9 / run.rate
    calls, responses, jitters = turn.call_ns, turn.response_ns, turn.jitter_ns
    cpu, begin = time.process_time_ns(), clock()
    done = begin
    try:
        for i in range(count):
            frame, due = frames[(at + i) % len(frames)], begin + int((i + 1) * period)
            wait = due - clock()
            if wait > 0:
                time.sleep(wait / 1e9)
            free, start = done, clock()
            step(frame)
            done = clock()
            jitters.append(start - max(due, free))
            calls.append(done - start)
            responses.append(done - due)
            turn.misses += done > due + period
    finally:
        turn.wall_ns, turn.cpu_ns = clock() - begin, time.process_time_ns() - cpu
