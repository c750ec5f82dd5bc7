"""What a measurement found, as it is written to disk, and how samples become it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from edgeseq.devices.bench.power import Power
from edgeseq.devices.board.moments import Moment
from edgeseq.devices.conditions import AS_FOUND, Conditions
from edgeseq.devices.engines.base import Facts as EngineFacts
from edgeseq.devices.facts import Facts
from edgeseq.devices.fresh import Fresh
from edgeseq.devices.whole import replace_file
from edgeseq.errors import InputError
from edgeseq.manifest import Precision


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of a duration in microseconds; None in a report from an emulated board."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


UNTIMED = Latency(None, None, None, None)


class Paced(msgspec.Struct, frozen=True):
    """A run at the sensor's rate. ``call`` is the step alone, ``response`` from when the frame was due to its answer.
    ``jitter`` is from when its step could begin, the frame being due and the step before it done, to when it did: the
    lateness that is the machine's. By how much a model slower than the sensor falls behind is in ``response``.

    ``deadline_misses`` counts answers that came after the next frame was due; ``cpu_share`` is the process's share of
    one core. Both are None, and the samples empty, in a report from an emulated board. A long run keeps counts in the
    place of samples (:class:`LongRun`).
    """

    frames: int
    call: Latency
    response: Latency
    deadline_misses: int | None
    cpu_share: float | None
    call_ns: list[int]
    response_ns: list[int]
    jitter: Latency = UNTIMED


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


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a long run, a minute where nothing cut it short; ``rss_bytes`` is the resident memory at its end.

    What is a time is None on an emulated board.
    """

    frames: int
    call: Latency
    jitter: Latency
    deadline_misses: int | None
    rss_bytes: int | None


class LongRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of hours, minute by minute; the report's ``moments`` are those at their ends.

    ``call_counts`` has the number of steps by bin of their duration: bin i is from 2**(i / 64) to 2**((i + 1) / 64)
    nanoseconds. ``rss_growth_bytes`` is the largest growth of the resident memory within one process, from the end of
    its first minute to the end of its last; None where no process had two.
    """

    seconds: float
    minutes: tuple[Minute, ...]
    call_counts: dict[int, int]
    peak_rss_bytes: int | None
    rss_growth_bytes: int | None


class BenchReport(msgspec.Struct, frozen=True):
    """Everything measured on one machine for one folder.

    An emulated board runs the engines, but its times are not those of any board: they are left out, as None.
    ``rate`` is in steps per second; ``timer_ns`` is what reading the clock adds to every sample; ``parameters`` counts
    the program's constants; ``macs`` and ``elementwise`` are per step. ``energy`` is "measured" where ``power`` is
    there, "none" elsewhere. ``moments`` were read between the turns; ``throttled`` says why the run counts as one on a
    machine that slowed itself down, and is None where nothing speaks for it. ``resumed``: how often a long run went on
    after an interruption. ``device`` is what the user calls the machine, empty where nobody named one. ``measured`` is
    when the measurement ended, by the machine's own clock (:func:`now`); None in reports from before it.
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
    conditions: Conditions = AS_FOUND
    moments: tuple[Moment, ...] = ()
    throttled: str | None = None
    power: Power | None = None
    resumed: int = 0
    long_run: LongRun | None = None
    device: str = ""
    measured: str | None = None


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 has it: "2025-11-23T00:58:07+00:00"."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_report(out: Path, document: object, *, sync: bool = False) -> None:
    """Write a report, or several in a document, as JSON; with ``sync`` it is on the disk when this returns.

    It takes its name when it is whole: what was there before stays until then.

    Raises:
        InputError: it cannot be written.
    """
    try:
        replace_file(out, msgspec.json.encode(document) + b"\n", sync=sync)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None


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
