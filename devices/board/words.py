"""The facts of a machine in words, for terminals: ``python -m edgeseq.devices facts`` and ``edgeseq doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseq.devices.board.emulation import VARIABLE
from edgeseq.devices.board.power import Rail, whole

if TYPE_CHECKING:
    from edgeseq.devices.facts import Facts

ABSENT = "not readable"


def lines(facts: Facts) -> list[tuple[str, str]]:
    """(name, words) of each fact. What only some boards have is left out where it is absent."""
    rows = {
        "machine": f"{facts.model or 'unknown'} ({facts.machine})",
        "chip": facts.soc,
        "processor": _processor(facts),
        "instructions": " ".join(facts.features) or None,
        "memory": _memory(facts),
        "system": f"{facts.os}, kernel {facts.kernel}",
        "python": facts.python + (f", {facts.python_bits} bits" if facts.python_bits else ""),
        "clock": _clock(facts),
        "governor": facts.governor or ABSENT,
        "power mode": facts.power_mode,
        "temperature": ABSENT if facts.temperature_c is None else f"{facts.temperature_c:.1f} °C",
        "throttling": _throttling(facts),
        "power": _power(facts.rails),
        "gpu": f"{facts.gpu}, not used: edgeseq runs on the CPU" if facts.gpu else None,
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or None,
        "numbers": _numbers(facts),
    }
    return [(name, words) for name, words in rows.items() if words is not None]


def _processor(facts: Facts) -> str:
    if facts.core is None:
        cores = f"{facts.cores or 'unknown'} cores"
    else:
        cores = facts.core if " + " in facts.core else f"{facts.cores or 'unknown'}x {facts.core}"
    alone = ", ".join(map(str, facts.isolated))
    return f"{cores}; kept free by the scheduler: {alone}" if alone else cores


def _memory(facts: Facts) -> str | None:
    if facts.memory_bytes is None:
        return None
    swap = f", swap {facts.swap_bytes / 2**20:,.0f} MiB" if facts.swap_bytes else ""
    return f"{facts.memory_bytes / 2**20:,.0f} MiB{swap}"


def _clock(facts: Facts) -> str:
    if facts.clock_mhz is None:
        return ABSENT
    highest = f" of {facts.clock_max_mhz:,.0f}" if facts.clock_max_mhz else ""
    said = f" (the {facts.clock_says} says so)" if facts.clock_says else ""
    return f"{facts.clock_mhz:,.0f}{highest} MHz{said}"


def _throttling(facts: Facts) -> str | None:
    bits = f" (bits {facts.throttled})" if facts.throttled else ""
    if facts.throttle:
        return ", ".join(facts.throttle) + bits
    return "none" + bits if bits else None


def _power(rails: tuple[Rail, ...]) -> str | None:
    total = whole(rails)
    shown = [total] if total is not None and total not in rails else list(rails)
    return ", ".join(f"{rail.name} {rail.watts:.2f} W" for rail in shown) or None


def _numbers(facts: Facts) -> str:
    called = f"measured here are called: {facts.provenance}"
    if facts.emulated is None:
        return called
    if facts.said_real:
        return f"{called}, because {VARIABLE}=0 says so ({facts.emulated})"
    return f"{called} ({facts.emulated}; {VARIABLE}=0 if that is wrong)"
