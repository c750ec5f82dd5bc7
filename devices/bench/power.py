"""What a step costs in energy, on boards that measure their own rails.

The rails are read in a run of its own, apart from the timed ones: reading them takes longer than a step. Idle turns, in
which the process sleeps and reads, alternate with those of the engines, so that what reading costs, and a board that
grows warm, meet both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from edgeseq.devices.bench.turns import TURNS, Run, warm_up
from edgeseq.devices.board.power import Rail, read_rails, whole

INTERVAL = 0.1  # seconds between two readings: a Raspberry Pi's firmware answers about ten times a second


class EnginePower(msgspec.Struct, frozen=True):
    """One engine at the sensor's rate: mean watts of each rail, and what a step adds to idle in joules.

    ``joules_error`` is the standard error of that difference: an energy that is not well above it was not seen. Both
    are None where no reading stands for the board as a whole.
    """

    engine: str
    rails: tuple[Rail, ...]
    joules_per_step: float | None
    joules_error: float | None


class Power(msgspec.Struct, frozen=True):
    """Mean watts of each rail while the process sleeps, and while each engine runs.

    ``counted`` is what stands for the board as a whole, and what the energies are of.
    """

    idle: tuple[Rail, ...]
    engines: tuple[EnginePower, ...]
    counted: str | None
    provenance: str = "measured"


@dataclass
class _Read:
    """What was read while something ran: the rails of each reading, and how many steps in how many seconds."""

    readings: list[tuple[Rail, ...]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0

    def means(self) -> tuple[Rail, ...]:
        """Each rail with its mean watts."""
        watts: dict[str, list[float]] = {}
        for rail in (rail for reading in self.readings for rail in reading):
            watts.setdefault(rail.name, []).append(rail.watts)
        first = {rail.name: rail for reading in self.readings for rail in reading}
        return tuple(
            msgspec.structs.replace(first[name], watts=float(np.mean(values))) for name, values in watts.items()
        )

    def total(self, counted: str) -> tuple[float, float] | None:
        """Mean and squared standard error of the whole board's watts, over the readings that have all of its rails."""
        boards = [rail for rail in map(whole, self.readings) if rail is not None and rail.name == counted]
        watts = [rail.watts for rail in boards]
        return (float(np.mean(watts)), float(np.var(watts)) / max(len(watts) - 1, 1)) if watts else None


def measure_power(runs: Sequence[Run], seconds: float) -> Power | None:
    """Read the rails for ``seconds`` of idle and of each run; its engines have the order of the runs. None where there
    are no rails.
    """
    if not read_rails():
        return None
    idle, paced = _Read(), [_Read() for _ in runs]
    for _ in range(TURNS):
        _watch(idle, seconds / TURNS, _sleep_until)
        for run, read in zip(runs, paced, strict=True):
            warm_up(run)
            _watch(read, seconds / TURNS, _stepping(run, read))
    board = whole(idle.means())
    counted = None if board is None else board.name
    engines = (_engine(run, idle, read, counted) for run, read in zip(runs, paced, strict=True))
    return Power(idle.means(), tuple(engines), counted)


def _watch(read: _Read, seconds: float, until: Callable[[int], None]) -> None:
    """Read the rails every ``INTERVAL`` while ``until`` lets the time pass."""
    begin = time.perf_counter_ns()
    for number in range(1, max(1, round(seconds / INTERVAL)) + 1):
        until(begin + int(number * INTERVAL * 1e9))
        read.readings.append(read_rails())
    read.seconds += (time.perf_counter_ns() - begin) / 1e9


def _sleep_until(moment: int) -> None:
    wait = moment - time.perf_counter_ns()
    if wait > 0:
        time.sleep(wait / 1e9)


def _stepping(run: Run, read: _Read) -> Callable[[int], None]:
    """Lets the time pass with steps at the sensor's rate; those that a reading delayed are caught up."""
    begin, first, period = time.perf_counter_ns(), read.steps, 1e9 / run.rate

    def until(moment: int) -> None:
        while (due := begin + int((read.steps - first + 1) * period)) <= moment:
            _sleep_until(due)
            run.session.step(run.frames[read.steps % len(run.frames)])
            read.steps += 1
        _sleep_until(moment)

    return until


def _engine(run: Run, idle: _Read, paced: _Read, counted: str | None) -> EnginePower:
    still, busy = (None, None) if counted is None else (idle.total(counted), paced.total(counted))
    if still is None or busy is None or not paced.steps:
        return EnginePower(run.session.engine, paced.means(), None, None)
    seconds_per_step = paced.seconds / paced.steps
    joules, error = busy[0] - still[0], float(np.sqrt(still[1] + busy[1]))
    return EnginePower(run.session.engine, paced.means(), joules * seconds_per_step, error * seconds_per_step)
