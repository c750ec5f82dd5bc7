"""Measuring folders side by side on this machine."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgeseq.devices.bench.alone import alone
from edgeseq.devices.bench.power import measure_power
from edgeseq.devices.bench.report import UNTIMED, BenchReport, EngineReport, Latency, Paced, latency, now, without_times
from edgeseq.devices.bench.turns import MAX_SAMPLES, TURNS, WARM_UP, Run, Turn, paced_turn, tight_turn, warm_up
from edgeseq.devices.board.moments import Moment, read_moment, throttling
from edgeseq.devices.conditions import AS_FOUND, Conditions, held
from edgeseq.devices.engines import ENGINES, as_folder, available
from edgeseq.devices.facts import EMULATED, Facts, read_facts
from edgeseq.devices.fresh import measure_fresh
from edgeseq.devices.golden import read_golden
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.folder import Folder
from edgeseq.program import Program, cost
from edgeseq.program.graph import CONSTANTS_NAME, JSON_NAME

POWER_SECONDS = 6.0  # of reading rails for idle and for each engine, where the paced run takes no less


def bench(
    folder: str | Path | Folder,
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    seed: int = 0,
    conditions: Conditions = AS_FOUND,
    wait: bool = False,
) -> BenchReport:
    """Measure a folder's engines: as :func:`bench_side_by_side` does for one folder."""
    return bench_side_by_side(
        [folder],
        engines,
        seconds=seconds,
        paced_seconds=paced_seconds,
        rate=rate,
        seed=seed,
        conditions=conditions,
        wait=wait,
    )[0]


def bench_side_by_side(
    folders: Sequence[str | Path | Folder],
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    seed: int = 0,
    conditions: Conditions = AS_FOUND,
    wait: bool = False,
) -> list[BenchReport]:
    """Measure the engines of folders, those named or all that work here, in turns, so that what the machine does
    meanwhile meets all of them.

    The tight loop takes ``seconds`` for the engines of a folder together, in chunks whose order is shuffled each round
    by ``seed``; the paced run takes ``paced_seconds`` for each engine, at ``rate`` steps per second (by default the
    manifest's). Both come in ``TURNS`` parts, one after the other. On a board with rails the power is measured after.
    ``wait`` for another measurement on this machine to end, which is an error otherwise (:mod:`~.bench.alone`).

    Raises:
        InputError: not an exported folder, an unknown engine, a duration or rate that is not positive, conditions that
            the system refuses, or another process of this user measures.
        MissingDependency, Unsupported, GateFailed: a named engine cannot run here, or not this folder.
    """
    opened = [as_folder(folder) for folder in folders]
    check_positive({"seconds": seconds, "paced seconds": paced_seconds, "rate": 1.0 if rate is None else rate})
    with alone(wait=wait), held(conditions):
        facts = read_facts()
        emulated = facts.provenance == EMULATED
        if emulated:
            seconds = paced_seconds = 1e-3  # that the engines run is all there is to be seen
        runs = [run for folder in opened for run in open_runs(folder, engines, rate)]
        moments = _alternate(runs, seconds * len(opened), paced_seconds, random.Random(seed))
        at_end = read_facts()
        power = None if emulated else measure_power(runs, min(paced_seconds, POWER_SECONDS))
    conditions = msgspec.structs.replace(conditions, warm_up_calls=2 * TURNS * WARM_UP)
    throttled = throttling(facts, moments, at_end)
    reports = []
    for folder in opened:
        own = [number for number, run in enumerate(runs) if run.folder is folder]
        report = report_of(folder, [runs[number] for number in own], (facts, at_end), moments, conditions, throttled)
        if power is not None:
            spent = msgspec.structs.replace(power, engines=tuple(power.engines[number] for number in own))
            report = msgspec.structs.replace(report, power=spent, energy=spent.provenance)
        reports.append(report)
    return reports


def check_positive(given: dict[str, float]) -> None:
    """Refuse a number, by its name, that is not above 0.

    Raises:
        InputError: naming it.
    """
    for name, value in given.items():
        if not value > 0:
            raise InputError(f"{name} is {value:g}: a positive number is needed")


def open_runs(folder: Folder, engines: Sequence[str] | None, rate: float | None) -> list[Run]:
    """Open the engines of a folder, each also measured in a process of its own; raises what a session raises."""
    frames = list(read_golden(folder).frames)
    wanted = folder.manifest.input.step_rate if rate is None else rate
    names = dict.fromkeys(available(folder) if engines is None else engines)
    sessions = [Session(folder, name) for name in names]
    fresh = [measure_fresh(folder.path, session.engine) for session in sessions]
    return [Run(folder, session, frames, wanted, found) for session, found in zip(sessions, fresh, strict=True)]


def _alternate(runs: Sequence[Run], seconds: float, paced_seconds: float, order: random.Random) -> list[Moment]:
    """Tight and paced turns, one after the other, with a look at the board between them."""
    turns, moments = list(runs), []
    for number in range(TURNS):
        tight_turn(runs, seconds / TURNS, order, MAX_SAMPLES // TURNS)
        moments.append(read_moment())
        order.shuffle(turns)
        for run in turns:
            frames = max(1, round(paced_seconds * run.rate))
            count = frames // TURNS + (number < frames % TURNS)
            if count:
                warm_up(run)
                run.paced.append(Turn())
                paced_turn(run, count, run.paced[-1])
        moments.append(read_moment())
    return moments


def report_of(
    folder: Folder,
    runs: Sequence[Run],
    facts: tuple[Facts, Facts],
    moments: Sequence[Moment],
    conditions: Conditions,
    throttled: str | None,
) -> BenchReport:
    """What the runs of a folder came to; ``facts`` are those at the beginning and at the end."""
    before, after = facts
    emulated = before.provenance == EMULATED
    program = Program.read(folder.path)
    spent = cost(program)
    entries = [entry_of(run) for run in runs]
    return BenchReport(
        name=folder.manifest.name,
        folder_hash=folder.hash,
        family=folder.manifest.family,
        precision=folder.manifest.precision,
        provenance=before.provenance,
        rate=runs[0].rate if runs else folder.manifest.input.step_rate,
        parameters=sum(array.size for array in program.constants.values()),
        constant_bytes=spent.constant_bytes,
        state_bytes=spent.state_bytes,
        macs=spent.macs,
        elementwise=spent.elementwise,
        timer_ns=None if emulated else timer_cost(),
        facts=before,
        facts_at_end=after,
        engines=tuple(map(without_times, entries) if emulated else entries),
        conditions=conditions,
        moments=() if emulated else tuple(moments),
        throttled=None if emulated else throttled,
        measured=now(),
    )


def entry_of(run: Run) -> EngineReport:
    """One engine's samples and their quantiles."""
    calls = [ns for turn in run.paced for ns in turn.call_ns]
    responses = [ns for turn in run.paced for ns in turn.response_ns]
    jitters = [ns for turn in run.paced for ns in turn.jitter_ns]
    paced = Paced(
        frames=len(calls),
        call=_latency(calls),
        response=_latency(responses),
        deadline_misses=sum(turn.misses for turn in run.paced),
        cpu_share=sum(turn.cpu_ns for turn in run.paced) / max(sum(turn.wall_ns for turn in run.paced), 1),
        call_ns=calls,
        response_ns=responses,
        jitter=_latency(jitters),
    )
    file, size = _file(run.folder, run.session.engine)
    return EngineReport(
        run.session.engine, run.session.facts, file, size, run.fresh, _latency(run.tight), paced, run.tight
    )


def _latency(samples: Sequence[int]) -> Latency:
    return latency(samples) if samples else UNTIMED


def timer_cost() -> int:
    """Median nanoseconds between two readings of the clock with nothing in between."""
    clock = time.perf_counter_ns
    return int(np.median([-(clock() - clock()) for _ in range(1000)]))


def _file(folder: Folder, engine: str) -> tuple[str, int]:
    """The file that an engine runs, and its bytes; a step program's constants lie in a second file."""
    name = ENGINES[engine].file
    parts = (JSON_NAME, CONSTANTS_NAME) if name == JSON_NAME else (name,)
    return name, sum((folder.path / part).stat().st_size for part in parts)
