"""What a model costs on this machine: a tight loop, and paced at the sensor's rate, on the folder's golden frames.

The paced numbers are the headline: between two frames of a 50 Hz sensor a small computer sleeps, slows its clock and
forgets its caches, which a tight loop never shows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edgeseq.devices.engines import ENGINES, as_folder, available
from edgeseq.devices.engines.base import Facts as EngineFacts
from edgeseq.devices.engines.base import Floats
from edgeseq.devices.facts import EMULATED, Facts, read_facts
from edgeseq.devices.fresh import Fresh, measure_fresh
from edgeseq.devices.golden import read_golden
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.folder import Folder
from edgeseq.manifest import Precision
from edgeseq.program import Program, cost
from edgeseq.program.graph import CONSTANTS_NAME, JSON_NAME

TURNS = 3  # parts of a paced run: a shared machine changes its pace within seconds
CHUNK = 100  # calls of one engine before the next has its turn
MAX_SAMPLES = 20_000  # a tight loop of an engine ends here: enough for a p99, and the report stays readable


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of a duration in microseconds; None in a report from an emulated board."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


UNTIMED = Latency(None, None, None, None)


class Paced(msgspec.Struct, frozen=True):
    """A run at the sensor's rate. ``call`` is the step alone, ``response`` from when the frame was due to its answer.

    ``deadline_misses`` counts answers that came after the next frame was due; ``cpu_share`` is the process's share of
    one core. Both are None, and the samples empty, in a report from an emulated board.
    """

    frames: int
    call: Latency
    response: Latency
    deadline_misses: int | None
    cpu_share: float | None
    call_ns: list[int]
    response_ns: list[int]


class EngineReport(msgspec.Struct, frozen=True):
    """One engine's numbers. ``fresh`` was taken in a process of its own; the ``_ns`` lists are the raw samples."""

    engine: str
    facts: EngineFacts
    file: str
    file_bytes: int
    fresh: Fresh
    tight: Latency
    paced: Paced
    tight_ns: list[int]


class BenchReport(msgspec.Struct, frozen=True):
    """Everything measured on one machine for one folder. ``energy`` is "none": nothing here can measure it.

    An emulated board runs the engines, but its times are not those of any board: they are left out, as None.
    ``rate`` is in steps per second; ``timer_ns`` is what reading the clock adds to every sample; ``parameters`` counts
    the program's constants; ``macs`` and ``elementwise`` are per step.
    """

    name: str
    folder_hash: str
    family: str
    precision: Precision
    provenance: str
    rate: float
    parameters: int
    constant_bytes: int
    state_bytes: int
    macs: int
    elementwise: int
    timer_ns: int | None
    facts: Facts
    facts_at_end: Facts
    engines: tuple[EngineReport, ...]
    energy: str = "none"


@dataclass
class _Run:
    """One engine of one folder, while it is measured. ``tight`` and the lists of ``paced`` are nanoseconds."""

    folder: Folder
    session: Session
    frames: list[Floats]
    rate: float
    fresh: Fresh
    tight: list[int] = field(default_factory=list)
    paced: list[_Turn] = field(default_factory=list)


@dataclass(frozen=True)
class _Turn:
    """What one turn at the sensor's rate came to."""

    call_ns: list[int]
    response_ns: list[int]
    misses: int
    wall_ns: int
    cpu_ns: int


def bench(
    folder: str | Path | Folder,
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    seed: int = 0,
) -> BenchReport:
    """Measure a folder's engines: as :func:`bench_side_by_side` does for one folder."""
    return bench_side_by_side([folder], engines, seconds=seconds, paced_seconds=paced_seconds, rate=rate, seed=seed)[0]


def bench_side_by_side(
    folders: Sequence[str | Path | Folder],
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    seed: int = 0,
) -> list[BenchReport]:
    """Measure the engines of folders, those named or all that work here, in turns, so that what the machine does
    meanwhile meets all of them.

    The tight loop takes ``seconds`` for the engines of a folder together, in chunks whose order is shuffled each round
    by ``seed``; the paced run takes ``paced_seconds`` for each engine, in ``TURNS`` parts, at ``rate`` steps per second
    (by default the manifest's).

    Raises:
        InputError: not an exported folder, an unknown engine, or a duration or rate that is not positive.
        MissingDependency, Unsupported, GateFailed: a named engine cannot run here, or not this folder.
    """
    opened = [as_folder(folder) for folder in folders]
    given = {"seconds": seconds, "paced seconds": paced_seconds, "rate": 1.0 if rate is None else rate}
    for name, value in given.items():
        if not value > 0:
            raise InputError(f"{name} is {value:g}: a positive number is needed")
    facts = read_facts()
    emulated = facts.provenance == EMULATED
    if emulated:
        seconds = paced_seconds = 1e-3  # that the engines run is all there is to be seen
    runs = [run for folder in opened for run in _runs(folder, engines, rate)]
    order = random.Random(seed)
    _tight_loops(runs, seconds * len(opened), order)
    _paced_turns(runs, paced_seconds, order)
    at_end = read_facts()
    return [_report(folder, [run for run in runs if run.folder is folder], facts, at_end) for folder in opened]


def _runs(folder: Folder, engines: Sequence[str] | None, rate: float | None) -> list[_Run]:
    frames = list(read_golden(folder).frames)
    wanted = folder.manifest.input.step_rate if rate is None else rate
    names = dict.fromkeys(available(folder) if engines is None else engines)
    sessions = [Session(folder, name) for name in names]
    return [_Run(folder, session, frames, wanted, measure_fresh(folder.path, session.engine)) for session in sessions]


def _tight_loops(runs: Sequence[_Run], seconds: float, order: random.Random) -> None:
    """Nanoseconds of every call of each session, one after the other without a pause, in interleaved chunks."""
    for run in runs:
        run.session.reset()
        for frame in run.frames[:CHUNK]:  # warm up: caches, and what a runtime puts off until its first calls
            run.session.step(frame)
    turns, clock, at = list(runs), time.perf_counter_ns, 0
    end = clock() + int(seconds * 1e9)
    while not runs[0].tight or (clock() < end and len(runs[0].tight) < MAX_SAMPLES):
        order.shuffle(turns)
        for run in turns:
            chunk = [run.frames[(at + i) % len(run.frames)] for i in range(CHUNK)]
            step, taken = run.session.step, run.tight
            for frame in chunk:
                start = clock()
                step(frame)
                taken.append(clock() - start)
        at += CHUNK


def _paced_turns(runs: Sequence[_Run], seconds: float, order: random.Random) -> None:
    turns = list(runs)
    for turn in range(TURNS):
        order.shuffle(turns)
        for run in turns:
            frames = max(1, round(seconds * run.rate))
            count = frames // TURNS + (turn < frames % TURNS)
            if count:
                run.paced.append(_paced(run, count))


def _paced(run: _Run, count: int) -> _Turn:
    """Step at the sensor's rate by an absolute schedule, sleeping in between: lateness neither adds up nor hides."""
    run.session.reset()
    step, frames, clock, period = run.session.step, run.frames, time.perf_counter_ns, 1e9 / run.rate
    calls, responses, misses = [], [], 0
    cpu, begin = time.process_time_ns(), clock()
    for i in range(count):
        frame, due = frames[i % len(frames)], begin + int((i + 1) * period)
        wait = due - clock()
        if wait > 0:
            time.sleep(wait / 1e9)
        start = clock()
        step(frame)
        done = clock()
        calls.append(done - start)
        responses.append(done - due)
        misses += done > due + period
    return _Turn(calls, responses, misses, clock() - begin, time.process_time_ns() - cpu)


def _report(folder: Folder, runs: Sequence[_Run], facts: Facts, at_end: Facts) -> BenchReport:
    emulated = facts.provenance == EMULATED
    program = Program.read(folder.path)
    spent = cost(program)
    entries = [_entry(run) for run in runs]
    return BenchReport(
        name=folder.manifest.name,
        folder_hash=folder.hash,
        family=folder.manifest.family,
        precision=folder.manifest.precision,
        provenance=facts.provenance,
        rate=runs[0].rate if runs else folder.manifest.input.step_rate,
        parameters=sum(array.size for array in program.constants.values()),
        constant_bytes=spent.constant_bytes,
        state_bytes=spent.state_bytes,
        macs=spent.macs,
        elementwise=spent.elementwise,
        timer_ns=None if emulated else timer_cost(),
        facts=facts,
        facts_at_end=at_end,
        engines=tuple(map(without_times, entries) if emulated else entries),
    )


def _entry(run: _Run) -> EngineReport:
    calls = [ns for turn in run.paced for ns in turn.call_ns]
    responses = [ns for turn in run.paced for ns in turn.response_ns]
    paced = Paced(
        frames=len(calls),
        call=latency(calls),
        response=latency(responses),
        deadline_misses=sum(turn.misses for turn in run.paced),
        cpu_share=sum(turn.cpu_ns for turn in run.paced) / sum(turn.wall_ns for turn in run.paced),
        call_ns=calls,
        response_ns=responses,
    )
    file, size = _file(run.folder, run.session.engine)
    return EngineReport(
        run.session.engine, run.session.facts, file, size, run.fresh, latency(run.tight), paced, run.tight
    )


def latency(samples: Sequence[int]) -> Latency:
    """Quantiles of samples in nanoseconds, in microseconds."""
    p50, p90, p99 = np.percentile(samples, (50, 90, 99)) / 1e3
    return Latency(float(p50), float(p90), float(p99), max(samples) / 1e3)


def without_times(report: EngineReport) -> EngineReport:
    """What is left of a report where the clock means nothing: sizes, memory, and that it ran."""
    replace = msgspec.structs.replace
    fresh = replace(report.fresh, load_ms=None, first_call_ms=None)
    paced = Paced(report.paced.frames, UNTIMED, UNTIMED, None, None, [], [])
    return replace(report, fresh=fresh, tight=UNTIMED, paced=paced, tight_ns=[])


def timer_cost() -> int:
    """Median nanoseconds between two readings of the clock with nothing in between."""
    clock = time.perf_counter_ns
    return int(np.median([-(clock() - clock()) for _ in range(1000)]))


def _file(folder: Folder, engine: str) -> tuple[str, int]:
    """The file that an engine runs, and its bytes; a step program's constants lie in a second file."""
    name = ENGINES[engine].file
    parts = (JSON_NAME, CONSTANTS_NAME) if name == JSON_NAME else (name,)
    return name, sum((folder.path / part).stat().st_size for part in parts)
