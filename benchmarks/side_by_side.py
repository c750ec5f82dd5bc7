"""What benchmarks that compare have in common: calls timed in turns, and results with what they were measured on."""

from __future__ import annotations

import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgeseq.devices.facts import read_facts

Call = Callable[[], Any]
Key = TypeVar("Key", bound=Hashable)


def in_turns(calls: Mapping[Key, Call], rounds: int, repeat: int = 1) -> dict[Key, float]:
    """Median seconds of each call: ``repeat`` of it in a row, the order of the calls shuffled in each of ``rounds``.

    A tenth as many rounds before, at least one, are not counted.
    """
    spent: dict[Key, list[float]] = {key: [] for key in calls}
    keys, warm = list(calls), max(1, rounds // 10)
    for number in range(warm + rounds):
        random.shuffle(keys)
        for key in keys:
            begin = time.perf_counter()
            for _ in range(repeat):
                calls[key]()
            if number >= warm:
                spent[key].append((time.perf_counter() - begin) / repeat)
    return {key: statistics.median(values) for key, values in spent.items()}


def described() -> dict[str, Any]:
    """The machine, what numbers taken on it may be called, and the versions."""
    facts = read_facts()
    machine = f"{facts.model or facts.machine}, {facts.cores} cores, {platform.system()} {facts.machine}"
    return {"machine": machine, "provenance": facts.provenance, "versions": {"python": facts.python, **facts.versions}}


def write_result(out: Path | None, **found: Any) -> None:
    """``found`` with machine, provenance and versions as JSON: to the file ``out``, or printed."""
    document = json.dumps({**described(), **found}, indent=1)
    if out:
        out.write_text(document + "\n", encoding="utf-8")
    else:
        print(document)
