"""The tables of where a report was measured: one for each model and device."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from edgeseq.devices.board.power import Rail, whole
from edgeseq.devices.facts import Facts
from edgeseq.devices.report.document import Model, Report
from edgeseq.devices.report.numbers import NONE, machine_name
from edgeseq.devices.report.table import Table, text
from edgeseq.devices.report.views import placed


def machines(report: Report) -> list[Table]:
    """The facts of the machine before and after, of every measurement."""
    return [machine(model, placed(report, model)) for model in report.models]


def machine(model: Model, name: str) -> Table:
    """The facts of the machine before and after; what could be read at neither end, and not every machine has, is left
    out.
    """
    before, after = _common(model.facts), _common(model.facts_at_end)
    rows = [_row(fact, words, after[fact]) for fact, words in before.items()]
    before, after = _special(model.facts), _special(model.facts_at_end)
    rows += [_row(fact, words, after[fact]) for fact, words in before.items() if words or after[fact]]
    timer = "" if model.timer_ns is None else f"Reading the clock adds {model.timer_ns} ns to every sample. "
    when = f"Measured {_moment(model.measured)}. " if model.measured else ""
    note = f"{when}{timer}Provenance of the numbers: {model.provenance}. Energy: {model.energy}."
    return Table(name, text("fact", "at the start", "at the end"), tuple(rows), (note, *model.said))


def _row(fact: str, before: str | None, after: str | None) -> tuple[str, str, str]:
    return fact, before or NONE, "the same" if before and before == after else after or NONE


def _moment(text: str) -> str:
    """A time in ISO 8601, as people write it, in UTC; what is none as it stands."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def _common(facts: Facts) -> dict[str, str | None]:
    return {
        "board or processor": machine_name(facts),
        "machine": f"{facts.machine}, {facts.cores} cores" if facts.cores else facts.machine,
        "governor": facts.governor,
        "clock": f"{facts.clock_mhz:,.0f} MHz" if facts.clock_mhz else None,
        "temperature": None if facts.temperature_c is None else f"{facts.temperature_c:.1f} °C",
        "throttle bits": facts.throttled,
        "system": f"{facts.os}, kernel {facts.kernel}",
        "versions": ", ".join([f"Python {facts.python}", *(f"{name} {v}" for name, v in facts.versions.items())]),
    }


def _special(facts: Facts) -> dict[str, str | None]:
    return {
        "cores": facts.core,
        "instructions": " ".join(facts.features) or None,
        "highest clock": f"{facts.clock_max_mhz:,.0f} MHz" if facts.clock_max_mhz else None,
        "throttling": ", ".join(facts.throttle) or None,
        "power mode": facts.power_mode,
        "cores kept free": ", ".join(map(str, facts.isolated)) or None,
        "memory": f"{facts.memory_bytes / 2**20:,.0f} MiB" if facts.memory_bytes else None,
        "power": ", ".join(f"{rail.name} {rail.watts:.2f} W" for rail in _shown(facts.rails)) or None,
        "GPU": f"{facts.gpu}, not used" if facts.gpu else None,
        "emulated": facts.emulated,
    }


def _shown(rails: Sequence[Rail]) -> Sequence[Rail]:
    """The rail that stands for the board, where there is one: a board may have a dozen that are parts of it."""
    board = whole(rails)
    return rails if board is None else (board,)
