"""The stage behind ``edgeseq train``: a data set and a preset in, a model folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeseq.data import Dataset, Mapping, Split, default_split, load, split_by_subject
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, check_target, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import Preset, build, presets
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.models.threads import threads
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Report, fit
from edgeseq.training.settings import Settings, with_changes

SMOOTHING = 1.0  # seconds: time constant of the answer that a person sees
Announce = Callable[[StreamingModel, Split, Settings], None]


def train(
    source: str,
    out: str | Path,
    *,
    mapping: Mapping | None = None,
    preset: str = "gru",
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    fold: int = 0,
    test: Sequence[str] = (),
    validation: Sequence[str] = (),
    start: str | Path | None = None,
    overwrite: bool = False,
    announce: Announce = lambda model, split, settings: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Train a preset on a data set and write the model folder ``out``.

    ``changes`` are settings by name, those of the model as ``model.hidden``. Subjects of ``test`` and ``validation``
    are kept apart; by default those of fold ``fold`` of five. ``start`` is a folder whose model is trained on. An
    interrupted run is taken up by the same call.

    Raises:
        InputError: an unknown preset or setting, unusable data, an existing target.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    known = presets()
    if preset not in known:
        raise unknown("model", preset, known)
    dataset = load(source, mapping)
    split = choose_split(dataset, fold=fold, test=test, validation=validation)
    parent = open_folder(start) if start else None
    family, arguments, settings = configure(known[preset], dataset, changes or {})
    torch.manual_seed(seed)
    if parent:
        model = load_model(parent)
        family, arguments = parent.manifest.family, dict(parent.manifest.arguments)
        _check_fits(parent.manifest, dataset)
    else:
        model = build(family, len(dataset.channels), len(dataset.labels), arguments)
    announce(model, split, settings)
    entry = stage_entry(
        "train",
        {
            "model": None if parent else preset,
            "mapping": msgspec.to_builtins(mapping) if mapping else None,
            "settings": msgspec.to_builtins(settings),
        },
        seed=seed,
        data=source,
        data_fingerprint=dataset.fingerprint(),
        parent=parent.hash if parent else None,
    )
    with threads(settings.threads):
        fit(
            model,
            split,
            settings,
            seed=seed,
            checkpoint=out.with_name(f".{out.name}.training.safetensors"),
            identity=_identity(entry, arguments, split.subjects()),
            normalize=parent is None,
            report=report,
        )
        metrics = _metrics(model, split)
    manifest = Manifest(
        name=out.name,
        family=family,
        arguments=arguments,
        task="frame",
        labels=dataset.labels,
        input=_input(model, dataset),
        states=state_entries(model),
        decision=Decision(smoothing=SMOOTHING),
        split={part: tuple(subjects) for part, subjects in split.subjects().items()},
        metrics=metrics,
        lineage=(*(parent.manifest.lineage if parent else ()), entry),
    )
    with new_folder(out, overwrite=overwrite) as staging:
        save_weights(model, staging)
        seal(staging, manifest)
    return open_folder(out)


def choose_split(dataset: Dataset, *, fold: int = 0, test: Sequence[str] = (), validation: Sequence[str] = ()) -> Split:
    """The named subjects, or fold ``fold`` of five.

    Raises:
        InputError: only one of the two is named, or the fold does not exist.
    """
    if bool(test) != bool(validation):
        raise InputError("name the subjects of both --test and --validation, or of neither")
    if not test:
        return default_split(dataset, fold)
    return split_by_subject(dataset, test=test, validation=validation)


def configure(preset: Preset, dataset: Dataset, changes: dict[str, Any]) -> tuple[str, dict[str, Any], Settings]:
    """Family, its arguments and the training settings, from defaults, preset, data set and the user's changes."""
    settings = with_changes(Settings(), preset.training)
    if dataset.worn == "wrist":
        settings = with_changes(settings, {"augmentation.mirror": 0.5})
    ours = {name.removeprefix("model."): value for name, value in changes.items() if name.startswith("model.")}
    settings = with_changes(settings, {name: v for name, v in changes.items() if not name.startswith("model.")})
    return preset.family, {**preset.arguments, **ours}, settings


def _identity(*parts: Any) -> str:
    return hashlib.sha256(b"".join(msgspec.json.encode(part, order="sorted") for part in parts)).hexdigest()


def _check_fits(manifest: Manifest, dataset: Dataset) -> None:
    have = (tuple(channel.name for channel in manifest.input.channels), manifest.labels, manifest.input.rate)
    wanted = (dataset.channels, dataset.labels, dataset.rate)
    for what, model_has, data_has in zip(("channels", "labels", "rate"), have, wanted, strict=True):
        if model_has != data_has:
            raise InputError(f"{dataset.name} has {what} {data_has}, but the model to start from has {model_has}")


def _input(model: StreamingModel, dataset: Dataset) -> Input:
    mean, std = model.input_mean.tolist(), (1 / model.input_scale).tolist()
    channels = tuple(Channel(*pair) for pair in zip(dataset.channels, dataset.units, strict=True))
    return Input(channels, dataset.rate, Normalization(tuple(mean), tuple(std)), look_ahead=model.look_ahead)


def _metrics(model: StreamingModel, split: Split) -> dict[str, float]:
    """Scores per frame after the first seconds of a recording; ``smoothed`` is the answer under the decision rule."""
    found: dict[str, float] = {}
    for name, part in (("validation", split.validation), ("test", split.test)):
        for kind, smoothing in (("", 0.0), ("_smoothed", SMOOTHING)):
            scores = evaluate(model, part, smoothing=smoothing)
            found[f"{name}_accuracy{kind}"] = round(scores.accuracy, 6)
            found[f"{name}_macro_f1{kind}"] = round(scores.macro_f1, 6)
    found["test_majority_share"] = round(split.test.majority_share(), 6)
    return found
