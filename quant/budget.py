"""What a compressed model may cost: the limits that ``edgeseq compress --budget`` is given."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from edgeseq.errors import InputError, unknown

_SIZES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
_TIMES = {"us": 1.0, "ms": 1e3, "s": 1e6}
_UNITS: dict[str, dict[str, float]] = {
    "bytes": _SIZES,
    "file": _SIZES,
    "drop": {"": 1.0},
    "p50": _TIMES,
    "macs": {"": 1.0},
}
_SAID = {
    "bytes": "in B, kB, MB, KiB or MiB (in bytes without a unit)",
    "file": "in B, kB, MB, KiB or MiB (in bytes without a unit)",
    "drop": "in points, without a unit",
    "p50": "with its unit: us, ms, s",
    "macs": "without a unit",
}


class Budget(msgspec.Struct, frozen=True):
    """The most that each may be; None: anything.

    ``bytes``: of the weights as they ship (weights.packed). ``file``: of the smaller of the exported files. ``drop``:
    points of macro-F1 on the validation subjects below the source. ``p50``: microseconds, the median step at the
    sensor's rate on this machine, by the engine that is fastest at that. ``macs``: multiply-accumulates of a step.
    """

    bytes: float | None = None
    file: float | None = None
    drop: float | None = None
    p50: float | None = None
    macs: float | None = None

    def limits(self) -> dict[str, float]:
        """Those that are given."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}

    def excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """By how much of its limit each cost is above it (of a limit of 0: by how much); at most 0 where it is met."""
        return {name: (costs[name] - limit) / (limit or 1.0) for name, limit in self.limits().items()}


def parse_budget(text: str) -> Budget:
    """``bytes=32kB,drop=1.0,p50=0.5ms`` as a budget.

    Raises:
        InputError: no limit, not NAME=VALUE, an unknown name or unit, or a number that is negative.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"--budget {part!r} is not NAME=VALUE, as in bytes=32kB,drop=1.0")
        if name not in _UNITS:
            raise unknown("budget", name, _UNITS)
        if name in found:
            raise InputError(f"--budget names {name} twice: {text!r}")
        found[name] = _number(name, value)
    if not found:
        raise InputError(f"--budget {text!r} names no limit: give at least one of {', '.join(_UNITS)}, as in drop=1.0")
    return Budget(**found)


def _number(name: str, text: str) -> float:
    units = _UNITS[name]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    unit = match[2].lower() if match else ""
    if match is None or unit not in units:
        raise InputError(f"--budget {name}={text!r}: a number, 0 or more, is needed, {_SAID[name]}")
    return float(match[1]) * units[unit]
