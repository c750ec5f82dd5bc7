"""What a preset comes to on a data set: the family's arguments and the training settings, with the user's changes."""

from __future__ import annotations

from typing import Any

import msgspec

from edgeseq.data import Dataset
from edgeseq.data.dataset import SOUND
from edgeseq.errors import InputError
from edgeseq.folder import Folder
from edgeseq.models.registry import FRONT, Preset, presets
from edgeseq.signal.log_mel import LogMel, for_rate
from edgeseq.training.device import resolved
from edgeseq.training.settings import OF_CROPS, OF_UNITS, Settings, with_changes

OF_MODEL = "model."  # ahead of the names of settings that are arguments of the model


def configure(preset: Preset, dataset: Dataset, changes: dict[str, Any]) -> tuple[str, dict[str, Any], Settings]:
    """Family, its arguments and the training settings, from defaults, preset, data set and the user's changes."""
    unfit = OF_CROPS if dataset.task == "segment" else ("augmentation.shift",)
    for name in unfit:
        if name in changes:
            raise InputError(f"{name} cannot be set: {dataset.name} has {dataset.task}s to answer. Leave it out")
    settings = with_changes(Settings(), preset.training)
    if dataset.worn == "wrist":
        settings = with_changes(settings, {"augmentation.mirror": 0.5})
    for unit in OF_UNITS.keys() & set(dataset.units):
        settings = with_changes(settings, {f"augmentation.{name}": value for name, value in OF_UNITS[unit].items()})
    settings = with_changes(settings, {"settle": min(settings.settle, dataset.unscored)})
    settings = with_changes(settings, {name: v for name, v in changes.items() if not name.startswith(OF_MODEL)})
    settings = msgspec.structs.replace(settings, device=resolved(settings.device))
    ours = {name.removeprefix(OF_MODEL): value for name, value in changes.items() if name.startswith(OF_MODEL)}
    of_front = {name: ours.pop(name) for name in list(ours) if name.startswith(f"{FRONT}.")}
    arguments = {**preset.arguments, **ours}
    if FRONT in ours:
        raise InputError(f"{OF_MODEL}{FRONT} {ours[FRONT]}: set its parts, such as {OF_MODEL}{FRONT}.mels")
    if SOUND in dataset.units:
        arguments[FRONT] = _front(dataset, {name.removeprefix(f"{FRONT}."): value for name, value in of_front.items()})
    elif of_front:
        raise InputError(f"model.{min(of_front)} cannot be set: {dataset.name} has no channel of sound ({SOUND})")
    return preset.family, arguments, settings


def _front(dataset: Dataset, changes: dict[str, Any]) -> dict[str, Any]:
    """The front end for a data set of sound, framed already or not."""
    rate = dataset.sample_rate
    if changes.get("rate", rate) != rate:
        raise InputError(f"{OF_MODEL}{FRONT}.rate {changes['rate']}: {dataset.name} has {rate:g} Hz. Leave it out")
    hop = dataset.samples if dataset.samples > 1 else changes.get("hop", 0)
    return {**for_rate(rate, hop if isinstance(hop, int) else 0), **changes}


def samples_read(parent: Folder | None, preset: str, dataset: Dataset, changes: dict[str, Any]) -> int:
    """How many samples a frame holds for the model to train: those of its front end, or one."""
    if parent:
        return parent.manifest.input.samples_per_step
    known = presets()
    if preset not in known:
        return dataset.samples
    front = configure(known[preset], dataset, changes)[1].get(FRONT, {})
    return LogMel.of(front).hop if front else dataset.samples
