"""Durations and sizes as people write them, and the limits that a measurement is held to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgeseq.devices.bench import BenchReport, EngineReport
from edgeseq.errors import BudgetMissed, InputError, Unsupported

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ]*)\s*", re.ASCII)


@dataclass(frozen=True)
class Budget:
    """Limits of each engine: the paced call's p99 in microseconds, and the resident memory in bytes."""

    max_p99_us: float | None = None
    max_rss_bytes: float | None = None


def parse_budget(max_p99: str | None = None, max_rss: str | None = None) -> Budget:
    """The options ``--max-p99 2ms`` and ``--max-rss 60MB``.

    Raises:
        InputError: one that is no duration, or no size.
    """
    return Budget(
        None if max_p99 is None else 1e6 * parse_duration(max_p99, "--max-p99"),
        None if max_rss is None else parse_size(max_rss, "--max-rss"),
    )


def parse_duration(text: str, what: str) -> float:
    """Seconds: ``2ms``, ``90s``, ``1.5h``. ``what`` is how the error calls it.

    Raises:
        InputError: not a number above 0 with a unit of time.
    """
    return _parse(text, what, _SECONDS, "2ms")


def parse_size(text: str, what: str) -> float:
    """Bytes: ``60MB`` (of a thousand thousand), ``64MiB``. ``what`` is how the error calls it.

    Raises:
        InputError: not a number above 0 with a unit of size.
    """
    return _parse(text, what, _BYTES, "60MB")


def _parse(text: str, what: str, units: dict[str, float], example: str) -> float:
    found = _NUMBER.fullmatch(text)
    by_name = {unit.lower(): factor for unit, factor in units.items()}
    value = float(found[1]) * by_name.get(found[2].lower(), 0.0) if found else 0.0
    if 0 < value < math.inf:
        return value
    names = ", ".join(unit for unit in units if unit.isascii())
    raise InputError(f"{what} is {text!r}: a number above 0 with its unit is needed, as in {example} (units: {names})")


def require(reports: Iterable[BenchReport], budget: Budget) -> None:
    """Hold every engine of the reports to a budget.

    Raises:
        BudgetMissed: naming each engine that is over it, the value and the limit.
        Unsupported: a value that the budget limits could not be measured here.
    """
    entries = [(report, entry) for report in reports for entry in report.engines]
    missed = [said for report, entry in entries for said in _missed(report, entry, budget)]
    if missed:
        raise BudgetMissed(f"over the budget: {'; '.join(missed)}")
    unknown = next((said for report, entry in entries for said in _unknown(report, entry, budget)), None)
    if unknown is not None:
        raise Unsupported(unknown)


def _missed(report: BenchReport, entry: EngineReport, budget: Budget) -> Iterator[str]:
    for what, option, value, limit, factor, unit in _limited(report, entry, budget):
        if value is not None and value > limit:
            allowed = f"{option} allows {factor * limit:,.1f} {unit}"
            yield f"{_who(report, entry)}: {what} {factor * value:,.1f} {unit}, {allowed}"


def _unknown(report: BenchReport, entry: EngineReport, budget: Budget) -> Iterator[str]:
    for what, option, value, *_ in _limited(report, entry, budget):
        if value is None:
            yield (
                f"{_who(report, entry)}: {option} cannot be judged on this machine ({report.provenance}), which has no "
                f"{what}: leave it out, or measure on a board"
            )


def _who(report: BenchReport, entry: EngineReport) -> str:
    return f"{report.name} in {entry.engine}{f' on {report.device}' if report.device else ''}"


Limited = tuple[str, str, float | None, float, float, str]  # what, option, value, limit, factor and unit it is shown by


def _limited(report: BenchReport, entry: EngineReport, budget: Budget) -> Iterator[Limited]:
    limits = (
        ("paced p99", "--max-p99", entry.paced.call.p99, budget.max_p99_us, 1.0, "us"),
        ("peak resident memory", "--max-rss", _peak_rss(report, entry), budget.max_rss_bytes, 1e-6, "MB"),
    )
    for what, option, value, limit, factor, unit in limits:
        if limit is not None:
            yield what, option, value, limit, factor, unit


def _peak_rss(report: BenchReport, entry: EngineReport) -> int | None:
    """Of a process that runs the engine and nothing else, and by how much one grew in a long run.

    The process of the long run is larger than a device's, by what measures it.
    """
    peak, run = entry.fresh.peak_rss_bytes, report.long_run
    grown = 0 if run is None else run.rss_growth_bytes or 0
    return None if peak is None else peak + max(grown, 0)
