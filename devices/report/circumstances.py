"""Whether the times of two measurements can be compared: those of one machine, at one rate, with one runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgeseq.devices.conditions import Conditions
from edgeseq.devices.report.document import EngineRow, Model
from edgeseq.devices.report.kinship import shared_rows
from edgeseq.devices.report.numbers import joined, machine_name
from edgeseq.devices.report.views import device_of


def apart(one: Model, other: Model) -> list[str]:
    """In what the machines of two measurements differ, each as "pi4 and pi5".

    Two boards of one model are two machines where they have two names. What is not known of one of them is no
    difference: a name, where a board measured itself, or what an older edgeseq has not read.
    """
    pairs = zip(_machine(one), _machine(other), strict=True)
    return list(dict.fromkeys(f"{a} and {b}" for a, b in pairs if a and b and a != b))


def incomparable(one: Model, other: Model) -> str | None:
    """Why the times of two measurements say nothing about each other; None where they are of one machine and rate."""
    emulated = dict.fromkeys(device_of(model) for model in (one, other) if not model.timed)
    if emulated:
        return (
            f"{joined(emulated)} {'is emulated and has none' if len(emulated) == 1 else 'are emulated and have none'}"
        )
    machines = apart(one, other)
    if machines:
        return f"they are of two machines ({'; '.join(machines)})"
    return None if one.rate == other.rate else f"they are of two rates ({one.rate:g} and {other.rate:g} Hz)"


def conditions_apart(one: Model, other: Model) -> list[str]:
    """In which conditions two measurements differ, each as "pinned to 3 and not pinned".

    Threads are not among them: those that an engine uses are its facts (:func:`same_runtime`).
    """
    pairs = zip(_conditions(one.conditions), _conditions(other.conditions), strict=True)
    return [f"{a} and {b}" for a, b in pairs if a != b]


def same_runtime(row: EngineRow, other: EngineRow) -> bool:
    """Whether both are of one version of the runtime, with as many threads."""
    return all(row.facts.get(fact) == other.facts.get(fact) for fact in ("version", "threads"))


def timed_rows(one: Model, other: Model) -> Iterator[tuple[EngineRow, EngineRow]]:
    """The engines that ran both under the same circumstances, so that one may be called faster than the other."""
    alike = incomparable(one, other) is None and not conditions_apart(one, other)
    pairs = shared_rows(one, other) if alike else ()
    return ((row, theirs) for row, theirs in pairs if same_runtime(row, theirs))


def fastest(models: Sequence[Model]) -> tuple[Model, EngineRow] | None:
    """Of what one device measured that with the least median at the sensor's rate; None where there are no times."""
    timed = [(model, row) for model in models if model.timed for row in model.engines if row.paced.quantiles.p50]
    return min(timed, key=lambda pair: pair[1].paced.quantiles.p50 or math.inf, default=None)


def _machine(model: Model) -> tuple[str | None, ...]:
    """What a machine is known by: nothing that changes while it runs."""
    facts = model.facts
    return (
        model.device or None,
        machine_name(facts),
        facts.machine,
        f"{facts.python_bits} bits" if facts.python_bits else None,
        f"{facts.cores} cores" if facts.cores else None,
        facts.core,
        f"{_as_sold(facts.memory_bytes):g} GB" if facts.memory_bytes else None,
        model.provenance,
    )


def _conditions(asked: Conditions) -> tuple[str, str]:
    pin = "not pinned" if asked.pin is None else f"pinned to {','.join(map(str, asked.pin))}"
    return pin, f"priority {'as found' if asked.priority is None else asked.priority}"


def _as_sold(memory: int) -> float:
    """Gigabytes of memory as a board is sold with: the kernel, and so what it counts, takes a few percent off them."""
    above = 2.0 ** math.ceil(math.log2(memory / 2**30))
    return 0.75 * above if memory / 2**30 <= 0.75 * above else above
