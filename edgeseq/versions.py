"""What a stage was run with: the lineage entry."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgeseq.manifest import Stage

_RECORDED = ("edgeseq", "torch", "numpy", "onnx", "onnxruntime", "ai-edge-litert", "tflite-runtime")


def versions() -> dict[str, str]:
    """Versions of Python, edgeseq and the packages it builds on, where they are installed."""
    found = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def stage_entry(
    verb: str,
    arguments: dict[str, Any],
    *,
    seed: int | None = None,
    data: str | None = None,
    data_fingerprint: str | None = None,
    parent: str | None = None,
) -> Stage:
    """The lineage entry of a stage that runs now."""
    return Stage(verb, arguments, versions(), seed, data, data_fingerprint, parent)
