"""The stage behind ``edgeseq train``: a data set and a preset in, a model folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeseq.data import Dataset, Mapping, Split, default_split, load, split_by_subject
from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.folder import Folder, check_target, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import Preset, build, presets
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.models.threads import threads
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Report, fit
from edgeseq.training.settings import SKIP, Settings, with_changes

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
    fold: int | None = None,
    test: Sequence[str] = (),
    validation: Sequence[str] = (),
    start: str | Path | None = None,
    overwrite: bool = False,
    trust: bool = False,
    announce: Announce = lambda model, split, settings: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Train a preset on a data set and write the model folder ``out``.

    ``changes`` are settings by name, those of the model as ``model.hidden``. Subjects of ``test`` and ``validation``
    are kept apart; by default those of fold ``fold`` of five. ``start`` is a folder whose model is trained on, as it
    is, with the subjects split as they were unless others are named. An interrupted run is taken up by the same call.

    Raises:
        InputError: an unknown preset or setting, unusable data, an existing target, a subject on both sides.
        Unsupported: the model looks ahead, which training does not know yet.
    """
    out = Path(out)
    check_target(out, overwrite=overwrite)
    if seed < 0:
        raise InputError(f"seed {seed}: 0 or more is needed")
    dataset = load(source, mapping)
    parent = open_folder(start) if start else None
    if parent and fold is None and not test and not validation:
        test, validation = parent.manifest.split["test"], parent.manifest.split["validation"]
    split = choose_split(dataset, fold=fold or 0, test=test, validation=validation)
    if parent:
        _check_fits(parent.manifest, dataset)
        _check_apart(parent.manifest, split)
    torch.manual_seed(seed)
    model, family, arguments, settings = _prepare(parent, preset, dataset, changes or {}, trust)
    _check_lengths(split, settings)
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
    checkpoint = out.with_name(f".{out.name}.training.safetensors")
    identity = _identity(entry, arguments, split.subjects())
    with threads(settings.threads):
        fit(model, split, settings, seed, checkpoint, identity, normalize=parent is None, report=report)
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
        split=_subjects(split, parent),
        metrics=metrics,
        lineage=(*(parent.manifest.lineage if parent else ()), entry),
    )
    with new_folder(out, overwrite=overwrite) as staging:
        save_weights(model, staging)
        seal(staging, manifest)
    checkpoint.unlink(missing_ok=True)
    return open_folder(out)


def _prepare(
    parent: Folder | None, preset: str, dataset: Dataset, changes: dict[str, Any], trust: bool
) -> tuple[StreamingModel, str, dict[str, Any], Settings]:
    """The model to train, its family and arguments, and the settings: a new one of the preset, or the parent's."""
    if parent:
        fixed = [name for name in changes if name.startswith("model.")]
        if fixed:
            raise InputError(f"{fixed[0]} cannot be set: the model is that of {parent.path}, with its arguments")
        made = next((stage.arguments["model"] for stage in parent.manifest.lineage if stage.verb == "train"), None)
        preset = made if made in presets() else preset
    known = presets()
    if preset not in known:
        raise unknown("model", preset, known)
    family, arguments, settings = configure(known[preset], dataset, changes)
    if parent:
        family, arguments = parent.manifest.family, dict(parent.manifest.arguments)
        model = load_model(parent, trust=trust)
    else:
        model = build(family, len(dataset.channels), len(dataset.labels), arguments, trust=trust)
    if model.look_ahead:
        raise Unsupported(f"a {family} that looks {model.look_ahead} steps ahead: training knows causal models only")
    return model, family, arguments, settings


def _check_lengths(split: Split, settings: Settings) -> None:
    """Refuse recordings that all end before anything of them is learned from, or scored."""
    scored = (("validation", split.validation, SKIP), ("test", split.test, SKIP))
    for name, part, unscored in (("training", split.train, settings.settle), *scored):
        longest = max(len(recording.x) for recording in part.recordings) / part.rate
        if longest <= unscored:
            raise InputError(
                f"the recordings of the {name} subjects last {longest:g} s at most, and the first {unscored:g} s of "
                "each are not scored: record longer stretches, or join repetitions into one recording"
            )


def _check_apart(manifest: Manifest, split: Split) -> None:
    """Refuse to test, or to choose, on people whom the model to start from was trained, or chosen, on."""
    seen = {part: set(manifest.split.get(part, ())) for part in ("train", "validation")}
    for part, forbidden in (("test", seen["train"] | seen["validation"]), ("validation", seen["train"])):
        both = [subject for subject in split.subjects()[part] if subject in forbidden]
        if both:
            raise InputError(
                f"subject {both[0]!r} cannot be of the {part} subjects: the model to start from has seen that one. "
                "Name neither --test, --validation nor --fold to keep its split"
            )


def _subjects(split: Split, parent: Folder | None) -> dict[str, tuple[str, ...]]:
    """Who is in which part; whoever an earlier stage was trained on stays among the training subjects."""
    parts = {part: tuple(subjects) for part, subjects in split.subjects().items()}
    before = parent.manifest.split.get("train", ()) if parent else ()
    parts["train"] = (*parts["train"], *(subject for subject in before if subject not in parts["train"]))
    return parts


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
