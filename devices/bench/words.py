"""What a report says beside its table, in sentences for people."""

from __future__ import annotations

from collections.abc import Iterator

from edgeseq.devices.bench.power import EnginePower, Power
from edgeseq.devices.bench.report import BenchReport, LongRun
from edgeseq.devices.board.power import whole
from edgeseq.devices.conditions import Conditions


def sentences(report: BenchReport) -> list[str]:
    """Under which conditions it was measured, what speaks against its numbers, the power, and a long run's memory."""
    said = list(_conditions(report.conditions))
    if report.throttled is not None:
        said.append(f"THROTTLED: {report.throttled}. These are the numbers of a machine that slowed itself down.")
    if report.power is not None:
        said += _power(report.power)
    if report.long_run is not None:
        said += _long_run(report.long_run, report.resumed)
    return said


def _conditions(conditions: Conditions) -> Iterator[str]:
    parts = []
    if conditions.pin is not None:
        parts.append(f"pinned to {','.join(map(str, conditions.pin))}")
    if conditions.priority is not None:
        parts.append(f"priority {conditions.priority}")
    if conditions.threads != 1:
        parts.append(f"{conditions.threads} threads allowed")
    if parts:
        yield f"Measured {', '.join(parts)}."


def _power(power: Power) -> Iterator[str]:
    board = whole(power.idle)
    if board is None:
        yield "Energy: no rail here stands for the board as a whole."
        return
    yield f"Power: {board.watts:.3f} W idle ({board.name}, {board.source}), measured apart from the times."
    for entry in power.engines:
        yield f"Energy: {energy_words(entry)} in {entry.engine}."


def energy_words(entry: EnginePower) -> str:
    """A step's energy above idle and its standard error; less than two of them is not told from nothing."""
    if entry.joules_per_step is None or entry.joules_error is None:
        return "not known"
    seen, error = 1e6 * entry.joules_per_step, 1e6 * entry.joules_error
    known = f"{seen:,.1f} ± {error:,.1f} uJ a step above idle"
    return known if seen > 2 * error else f"{known} (not told from none)"


def _long_run(run: LongRun, resumed: int) -> Iterator[str]:
    gaps = "without a gap" if not resumed else f"with {resumed} {'gap' if resumed == 1 else 'gaps'}"
    yield f"A long run: {duration_words(run.seconds)} in {len(run.minutes)} parts, {gaps}."
    if run.peak_rss_bytes is not None:
        grown = "" if run.rss_growth_bytes is None else f", and grew by {run.rss_growth_bytes / 1e6:.2f} MB"
        yield f"The process that measured it took {run.peak_rss_bytes / 1e6:.1f} MB at most{grown}."


def duration_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.3g} s"
