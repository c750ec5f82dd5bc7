"""Where a model comes from: the lineage entry of a stage, and the data that a folder was trained on. No torch."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from edgeseq.data import Dataset, Mapping, load, located, named
from edgeseq.data.frames import framed
from edgeseq.data.resample import resampled
from edgeseq.errors import InputError
from edgeseq.folder import Folder
from edgeseq.manifest import Precision, Stage

_RECORDED = ("edgeseq", "torch", "brevitas", "numpy", "onnx", "onnxruntime", "ai-edge-litert", "tflite-runtime")


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


def trained_on(folder: Folder, data: str | None = None, *, rate: float | None = None) -> Dataset:
    """The data set that the folder's model was trained on, read again; or ``data``, read the same way.

    A path of ``data`` may be where the files of a registered set are that the lineage names.
    It comes at the rate that the model reads, or at ``rate`` Hz: the recordings of a model that was retimed, or taught
    by one that was, are resampled as they were then, once, from what was recorded.

    Raises:
        InputError: it is not where it was, not what it was, or not what the model reads.
    """
    stage = folder.manifest.data_stage
    said = data or (stage.data if stage else None)
    if said is None:
        raise InputError(f"{folder.path} does not say what it was trained on: pass --data")
    source = located(said, _sets(folder))
    mapping = stage.arguments.get("mapping") if stage else None
    registered = bool(named(source))
    try:
        dataset = load(source, None if registered or not mapping else msgspec.convert(mapping, Mapping))
    except InputError as error:
        hint = "" if data else f" {folder.path} was trained on it: pass --data if it is somewhere else now."
        raise InputError(f"{error}{hint}") from None
    same = stage is not None and dataset.fingerprint() == stage.data_fingerprint
    if stage and not data and not same:
        raise InputError(f"{source} is not what {folder.path} was trained on (its contents changed): pass --data")
    dataset = framed(dataset, folder.manifest.input.samples_per_step)
    wanted_rate = rate or folder.manifest.input.step_rate
    if dataset.samples == 1 and dataset.rate != wanted_rate and (same or rate or was_retimed(folder)):
        dataset = resampled(dataset, wanted_rate)
    wanted = tuple(channel.name for channel in folder.manifest.input.channels)
    if dataset.channels != wanted:
        raise InputError(f"{dataset.name} has channels {list(dataset.channels)}, the model reads {list(wanted)}")
    if dataset.rate != wanted_rate:
        raise InputError(f"{dataset.name} has {dataset.rate:g} Hz, the model reads {wanted_rate:g} Hz")
    return dataset


def _sets(folder: Folder) -> tuple[str, ...]:
    """The registered sets that the lineage names, the last one first."""
    found = (named(stage.data) for stage in reversed(folder.manifest.lineage) if stage.data)
    return tuple(dict.fromkeys(name for name in found if name))


def has_few_bits(folder: Folder) -> bool:
    """Whether the folder's weights were quantized since they were last trained as floats, whatever computes with them.

    Of a model in float32 that is so of the few levels that quantized distillation leaves.
    """
    after: list[str] = []
    for stage in folder.manifest.lineage:
        after = [] if stage.verb in ("train", "distill") else [*after, stage.verb]
    return folder.manifest.precision != Precision() or "quantize" in after


def was_retimed(folder: Folder) -> bool:
    """Whether the folder's model runs at another rate than it was trained at."""
    return any(stage.verb == "retime" for stage in folder.manifest.lineage)
