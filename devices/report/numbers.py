"""How numbers and names are written for people. A dash is what is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeseq.card import few_bits
from edgeseq.devices.facts import Facts
from edgeseq.devices.report.kinship import FLOAT
from edgeseq.manifest import Precision, Stage

NONE = "–"
SAME = 0.05  # two costs closer than this are called the same
HASH = 12  # the characters of a hash that are shown
ENGINE_NAMES = {
    "litert": "LiteRT",
    "litert-builtin": "LiteRT, builtin kernels",
    "onnxruntime": "ONNX Runtime",
    "tflite-runtime": "tflite-runtime",
    "numpy": "numpy",
}


def engine_name(name: str) -> str:
    """An engine as its makers write it."""
    return ENGINE_NAMES.get(name, name)


def precision_name(precision: Precision, lineage: Sequence[Stage] = ()) -> str:
    """``fp32``, ``int8`` or, where the formats differ, each of them; of floats of few values the bits that say them."""
    formats = (precision.weights, precision.activations, precision.state, precision.memory)
    weights, activations, state, memory = (_format(name) for name in formats)
    few = few_bits(lineage)
    if few:
        weights = f"{few[0]}-bit {few[1]}"
    said = [weights] if weights == activations else [f"{weights} weights", f"{activations} activations"]
    kept = (weights, "fp32") if weights == activations else ("fp32",)  # which go without saying
    said += [f"{value} {what}" for what, value in (("state", state), ("memory", memory)) if value not in kept]
    return ", ".join(said)


def _format(name: str) -> str:
    return "fp32" if name == FLOAT else re.sub(r"^float(\d+)$", r"fp\1", name)


def machine_name(facts: Facts) -> str:
    """The board or the processor, without the marks of trade."""
    name = re.sub(r"\((R|TM|r|tm)\)|®|™|\bCPU\b|@.*$", "", facts.model or facts.machine)
    return " ".join(name.split())


def micros(value: float | None) -> str:
    """Microseconds."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def millis(value: float | None) -> str:
    """Milliseconds."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def size(value: int | None) -> str:
    """Bytes, in thousands."""
    if value is None:
        return NONE
    if value < 1000:
        return f"{value} B"
    return f"{value / 1e6:.1f} MB" if value >= 999_950 else f"{value / 1e3:.1f} kB"


def count(value: int | None) -> str:
    """A count with its thousands apart."""
    return NONE if value is None else f"{value:,}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a number of percent, without the sign."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def points(difference: float | None) -> str:
    """A difference in percentage points, with a true minus."""
    if difference is None:
        return NONE
    rounded = round(difference, 1)
    return f"+{rounded:.1f}" if rounded > 0 else f"−{-rounded:.1f}" if rounded < 0 else "0.0"


def more_accurate(difference: float) -> str:
    """``1.2 points more accurate``, ``1 point less accurate``, ``as accurate``."""
    rounded = round(difference, 1)
    if not rounded:
        return "as accurate"
    amount = f"{abs(rounded):g} point{'' if abs(rounded) == 1 else 's'}"
    return f"{amount} {'more' if rounded > 0 else 'less'} accurate"


def times(before: float, after: float, less: str, more: str, same: str) -> str:
    """``2.3 times smaller``: how a cost went from ``before`` to ``after``, both above 0."""
    factor = after / before
    if abs(factor - 1) <= SAME:
        return same
    word, factor = (more, factor) if factor > 1 else (less, 1 / factor)
    return f"{factor:.{2 if factor < 1.095 else 1 if factor < 9.95 else 0}f} times {word}"


def people(number: int) -> str:
    """``1 person``, ``2 people``; of nobody knows whom, ``recordings``."""
    if not number:
        return "recordings"
    return "1 person" if number == 1 else f"{number:,} people"


def plural(number: int, one: str, several: str = "") -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def joined(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}" if listed else "none"


def flat(arguments: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested arguments as pairs of a dotted name and a value for people; what was not set is left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{name}.")
        elif value is not None:
            pairs.append((f"{prefix}{name}", argument(value)))
    return pairs


def argument(value: Any) -> str:
    """One argument: numbers short, lists with commas, hashes cut."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value[:HASH] if re.fullmatch(r"[0-9a-f]{40,}", value) else value
    if isinstance(value, Mapping):
        return " ".join(argument(part) for part in value.values())
    if isinstance(value, Sequence):
        return ", ".join(argument(part) for part in value) or "none"
    return f"{value}"
