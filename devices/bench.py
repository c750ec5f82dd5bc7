"""What a model costs on this machine: a tight loop, and paced at the sensor's rate, on the folder's golden frames.

The paced numbers are the headline: between two frames of a 50 Hz sensor a small computer sleeps, slows its clock and
forgets its caches, which a tight loop never shows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
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


def bench(
    folder: str | Path | Folder,
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    seed: int = 0,
) -> BenchReport:
    """Measure a folder's engines: those named, or all that work here.

    The tight loop takes ``seconds`` for all engines together, in chunks whose order is shuffled each round by ``seed``;
    the paced run takes ``paced_seconds`` for each, at ``rate`` steps per second (by default the manifest's).

    Raises:
        InputError: not an exported folder, an unknown engine, or a duration or rate that is not positive.
        MissingDependency, Unsupported, GateFailed: a named engine cannot run here, or not this folder.
    """
    folder = as_folder(folder)
    rate = folder.manifest.input.step_rate if rate is None else rate
    for name, value in (("seconds", seconds), ("paced seconds", paced_seconds), ("rate", rate)):
        if not value > 0:
            raise InputError(f"{name} is {value:g}: a positive number is needed")
    frames = list(read_golden(folder).x)
    facts = read_facts()
    emulated = facts.provenance == EMULATED
    if emulated:
        seconds = paced_seconds = 1e-3  # that the engines run is all there is to be seen
    names = list(dict.fromkeys(available(folder) if engines is None else engines))
    sessions = [Session(folder, name) for name in names]
    fresh = [measure_fresh(folder.path, name) for name in names]
    tight = tight_loops(sessions, frames, seconds, random.Random(seed))
    reports = []
    for session, alone, samples in zip(sessions, fresh, tight, strict=True):
        paced = paced_run(session, frames, paced_seconds, rate)
        file, size = _file(folder, session.engine)
        entry = EngineReport(session.engine, session.facts, file, size, alone, latency(samples), paced, samples)
        reports.append(without_times(entry) if emulated else entry)
    program = Program.read(folder.path)
    spent = cost(program)
    return BenchReport(
        name=folder.manifest.name,
        folder_hash=folder.hash,
        family=folder.manifest.family,
        precision=folder.manifest.precision,
        provenance=facts.provenance,
        rate=rate,
        parameters=sum(array.size for array in program.constants.values()),
        constant_bytes=spent.constant_bytes,
        state_bytes=spent.state_bytes,
        macs=spent.macs,
        elementwise=spent.elementwise,
        timer_ns=None if emulated else timer_cost(),
        facts=facts,
        facts_at_end=read_facts(),
        engines=tuple(reports),
    )


def tight_loops(
    sessions: Sequence[Session], frames: Sequence[Floats], seconds: float, order: random.Random
) -> list[list[int]]:
    """Nanoseconds of every call of each session, one after the other without a pause, in interleaved chunks."""
    samples: list[list[int]] = [[] for _ in sessions]
    turns = list(range(len(sessions)))
    for session in sessions:
        session.reset()
        for frame in frames[:CHUNK]:  # warm up: caches, and what a runtime puts off until its first calls
            session.step(frame)
    clock, at = time.perf_counter_ns, 0
    end = clock() + int(seconds * 1e9)
    while not samples[0] or (clock() < end and len(samples[0]) < MAX_SAMPLES):
        chunk = [frames[(at + i) % len(frames)] for i in range(CHUNK)]
        at += CHUNK
        order.shuffle(turns)
        for turn in turns:
            step, taken = sessions[turn].step, samples[turn]
            for frame in chunk:
                start = clock()
                step(frame)
                taken.append(clock() - start)
    return samples


def paced_run(session: Session, frames: Sequence[Floats], seconds: float, rate: float) -> Paced:
    """Step at ``rate`` by an absolute schedule, sleeping in between, so that lateness does not add up or hide."""
    session.reset()
    count, period = max(1, round(seconds * rate)), 1e9 / rate
    step, clock = session.step, time.perf_counter_ns
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
    wall, cpu = clock() - begin, time.process_time_ns() - cpu
    return Paced(count, latency(calls), latency(responses), misses, cpu / wall, calls, responses)


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
