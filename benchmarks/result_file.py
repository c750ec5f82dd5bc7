"""How the benchmarks write their results: with the machine and the versions that they were measured on."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

from edgeseq.devices.facts import read_facts


def write_result(out: Path | None, **found: Any) -> None:
    """``found`` with machine, provenance and versions as JSON: to the file ``out``, or printed."""
    facts = read_facts()
    machine = f"{facts.model or facts.machine}, {facts.cores} cores, {platform.system()} {facts.machine}"
    head = {"machine": machine, "provenance": facts.provenance, "versions": {"python": facts.python, **facts.versions}}
    document = json.dumps({**head, **found}, indent=1)
    if out:
        out.write_text(document + "\n", encoding="utf-8")
    else:
        print(document)
