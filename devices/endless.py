"""A run of hours on one engine at the sensor's rate, which goes on after an interruption.

What it has is kept in ``OUT.part`` (:mod:`~edgeseq.devices.record`), so that the same command goes on where a power cut
ended it; the report takes its place when the run is complete.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgeseq.devices.bench.alone import alone
from edgeseq.devices.bench.counts import add, count, latency_of
from edgeseq.devices.bench.measure import check_positive, entry_of, open_runs, report_of
from edgeseq.devices.bench.report import BenchReport, LongRun, Minute, Paced, without_times, write_report
from edgeseq.devices.bench.turns import WARM_UP, Run, Turn, paced_turn, tight_turn, warm_up
from edgeseq.devices.board.moments import Moment, read_moment, throttling
from edgeseq.devices.conditions import AS_FOUND, Conditions, held
from edgeseq.devices.engines import as_folder
from edgeseq.devices.facts import EMULATED, read_facts
from edgeseq.devices.record import Part, Process, Record, Started, open_record
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.folder import Folder

MINUTE = 60.0
_STATM = Path("/proc/self/statm")


def bench_long(
    folder: str | Path | Folder,
    out: Path,
    seconds: float,
    engine: str | None = None,
    *,
    rate: float | None = None,
    tight_seconds: float = 2.0,
    conditions: Conditions = AS_FOUND,
    part_seconds: float = MINUTE,
    say: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Step for ``seconds`` at ``rate`` steps per second (by default the manifest's), and write the report to ``out``.

    A line is kept every ``part_seconds``; the schedule is absolute between two lines, and writing one is not among the
    times. A process never resets the state. A run that was interrupted goes on to its ``seconds``, on the engine it had
    where none is named. The tight loop comes at the end. ``say`` is told, in a sentence, where the run goes on.

    Raises:
        InputError: not an exported folder, a duration or rate that is not positive, a record of another run or one that
            cannot be written, conditions that the system refuses, or another process of this user measures.
        MissingDependency, Unsupported, GateFailed: the engine cannot run here, or not this folder.
    """
    folder = as_folder(folder)
    wanted_rate = folder.manifest.input.step_rate if rate is None else rate
    check_positive({"duration": seconds, "rate": wanted_rate, "seconds": tight_seconds, "part seconds": part_seconds})
    facts = read_facts()
    emulated = facts.provenance == EMULATED
    with open_record(record_of(out)) as record, alone(), held(conditions):
        name = engine or (record.first.engine if record.first else Session(folder).engine)
        (run,) = open_runs(folder, [name], wanted_rate)
        started = Started(
            folder_hash=folder.hash,
            name=folder.manifest.name,
            engine=run.session.engine,
            rate=run.rate,
            conditions=conditions,
            facts=facts,
        )
        record.check(started)
        frames = max(1, round(seconds * run.rate))
        if record.frames:
            done, total = record.frames / run.rate, frames / run.rate
            say(f"going on after {done:,.0f} of {total:,.0f} s in {record.path}, which holds {_gaps(record)}")
        if record.frames < frames:
            record.start(started)
        try:
            _fill(record, run, frames, part_seconds, emulated)
        except KeyboardInterrupt:
            kept = f"{record.frames:,} of {frames:,} steps are kept in {record.path}"
            say(f"interrupted: {kept}; the same command goes on")
            raise
        tight_turn([run], 1e-3 if emulated else tight_seconds, random.Random(0))
        report = _report(record, run, started)
        write_report(out, {"reports": [report]}, sync=True)
        record.path.unlink()
    return report


def check_long(folders: Sequence[object], engines: Sequence[str] | None, out: Path | None) -> tuple[str | None, Path]:
    """The one engine (None: that which a session takes) and the report's path of a long run of one folder.

    Raises:
        InputError: several folders or engines were named, or no place for the report.
    """
    names = list(dict.fromkeys(engines or []))
    for what, given in (("folder", len(folders)), ("engine", len(names))):
        if given > 1:
            raise InputError(f"--duration runs one {what}, {given} were named: name one")
    if out is None:
        raise InputError("--duration needs --out FILE: what it has is kept in FILE.part, so that it can go on")
    return (names[0] if names else None), out


def record_of(out: Path) -> Path:
    """Where a run keeps what it has until its report is written."""
    return out.with_name(f"{out.name}.part")


def _gaps(record: Record) -> str:
    gaps = record.earlier - 1
    return "no gap before this one" if gaps == 0 else f"{gaps} {'gap' if gaps == 1 else 'gaps'} before this one"


def _fill(record: Record, run: Run, frames: int, part_seconds: float, emulated: bool) -> None:
    """Step until the record has so many frames. What an interruption cuts short is recorded too."""
    warm_up(run)
    while record.frames < frames:
        turn = Turn()
        try:
            paced_turn(run, min(max(1, round(part_seconds * run.rate)), frames - record.frames), turn, record.frames)
        finally:
            if turn.response_ns:
                record.add(_part(turn, emulated))


def _part(turn: Turn, emulated: bool) -> Part:
    steps = len(turn.response_ns)
    if emulated:
        return Part(frames=steps, rss_bytes=rss_bytes())
    return Part(
        frames=steps,
        call=count(turn.call_ns[:steps]),  # an interruption may have come ahead of the response, which is noted last
        response=count(turn.response_ns),
        jitter=count(turn.jitter_ns[:steps]),
        deadline_misses=turn.misses,
        wall_ns=turn.wall_ns,
        cpu_ns=turn.cpu_ns,
        rss_bytes=rss_bytes(),
        moment=read_moment(),
    )


def rss_bytes() -> int | None:
    """The resident size of this process now; None where the system does not say."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _report(record: Record, run: Run, here: Started) -> BenchReport:
    processes, at_end = record.processes(), read_facts()
    parts = [part for process in processes for part in process.parts]
    moments = [moment for process in processes for moment in _moments(process)]
    warmed = msgspec.structs.replace(here.conditions, warm_up_calls=WARM_UP * (len(processes) + 1))
    own = [moment for process in processes[record.earlier :] for moment in _moments(process)]
    reasons = [*map(_why_throttled, processes[: record.earlier]), throttling(here.facts, own, at_end)]
    facts = (processes[0].started.facts, at_end)
    report = report_of(run.folder, [run], facts, moments, warmed, _which(reasons))
    entry = msgspec.structs.replace(entry_of(run), paced=_paced(parts))
    return msgspec.structs.replace(
        report,
        engines=(without_times(entry) if report.provenance == EMULATED else entry,),
        resumed=len(processes) - 1,
        long_run=_long_run(processes, run.rate),
    )


def _moments(process: Process) -> list[Moment]:
    return [part.moment for part in process.parts if part.moment is not None]


def _why_throttled(process: Process) -> str | None:
    """By what an earlier process read, whose last reading stands for its end: a board may have been booted since."""
    facts, moments = process.started.facts, _moments(process)
    if not moments:
        return None
    *between, last = moments
    end = msgspec.structs.replace(
        facts,
        clock_mhz=last.clock_mhz,
        temperature_c=last.temperature_c,
        throttled=last.throttled,
        throttle=last.throttle,
    )
    return throttling(facts, between, end)


def _which(reasons: Sequence[str | None]) -> str | None:
    """The reasons of all processes in one sentence, which says of which process each is where there were several."""
    if len(reasons) == 1:
        return reasons[0]
    said = (f"in process {number} of {len(reasons)}: {why}" for number, why in enumerate(reasons, 1) if why)
    return "; ".join(said) or None


def _paced(parts: Sequence[Part]) -> Paced:
    wall = sum(part.wall_ns for part in parts)
    return Paced(
        frames=sum(part.frames for part in parts),
        call=latency_of(add(part.call for part in parts)),
        response=latency_of(add(part.response for part in parts)),
        deadline_misses=sum(part.deadline_misses or 0 for part in parts),
        cpu_share=sum(part.cpu_ns for part in parts) / wall if wall else None,
        call_ns=[],
        response_ns=[],
        jitter=latency_of(add(part.jitter for part in parts)),
    )


def _long_run(processes: Sequence[Process], rate: float) -> LongRun:
    parts = [part for process in processes for part in process.parts]
    sizes = [part.rss_bytes for part in parts if part.rss_bytes is not None]
    growths = [growth for growth in map(_growth, processes) if growth is not None]
    return LongRun(
        seconds=sum(part.frames for part in parts) / rate,
        minutes=tuple(
            Minute(
                frames=part.frames,
                call=latency_of(part.call),
                jitter=latency_of(part.jitter),
                deadline_misses=part.deadline_misses,
                rss_bytes=part.rss_bytes,
            )
            for part in parts
        ),
        call_counts=add(part.call for part in parts).bins,
        peak_rss_bytes=max(sizes, default=None),
        rss_growth_bytes=max(growths, default=None),
    )


def _growth(process: Process) -> int | None:
    """How much the memory of one process grew from the end of its first part to the end of its last, in bytes."""
    if len(process.parts) < 2:
        return None
    first, last = process.parts[0].rss_bytes, process.parts[-1].rss_bytes
    return None if first is None or last is None else last - first
