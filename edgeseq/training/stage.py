"""The stage behind ``edgeseq train``: a data set and a preset in, a model folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeseq.data import Dataset, Mapping, Split, default_split, load, split_by_subject
from edgeseq.data.resample import resampled
from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.folder import Folder, check_target, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry, was_retimed
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization, Precision, Stage
from edgeseq.models.contract import StreamingModel, parameter_count
from edgeseq.models.registry import Preset, build, presets
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.models.threads import threads
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Objective, Report, fit
from edgeseq.training.settings import SKIP, Settings, with_changes

SMOOTHING = 1.0  # seconds: time constant of the answer that a person sees
Announce = Callable[[StreamingModel, Split, Settings], None]


@dataclass(frozen=True)
class Trainee:
    """What is trained: a model with the family and arguments that build it, from scratch or from a folder's weights."""

    model: StreamingModel
    family: str
    arguments: dict[str, Any]
    settings: Settings
    parent: Folder | None
    precision: Precision = field(default_factory=Precision)


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
    check_start(out, seed, [start] if start else [], overwrite=overwrite)
    dataset = load(source, mapping)
    parent = open_folder(start) if start else None
    if parent and was_retimed(parent) and dataset.rate != parent.manifest.input.rate:
        dataset = resampled(dataset, parent.manifest.input.rate)
    if parent and fold is None and not test and not validation:
        test, validation = kept_apart(parent, "name them with --test and --validation, or choose a --fold")
    split = choose_split(dataset, fold=fold or 0, test=test, validation=validation)
    trainee = prepare(parent, preset, dataset, split, changes or {}, seed, trust=trust)
    announce(trainee.model, split, trainee.settings)
    entry = stage_entry(
        "train",
        {
            "model": None if parent else preset,
            "mapping": msgspec.to_builtins(mapping) if mapping else None,
            "settings": msgspec.to_builtins(trainee.settings),
        },
        seed=seed,
        data=source,
        data_fingerprint=dataset.origin_fingerprint,
        parent=parent.hash if parent else None,
    )
    return complete(out, trainee, split, entry, seed, overwrite=overwrite, report=report)


def kept_apart(folder: Folder, mend: str = "give edgeseq.save_model its split") -> tuple[tuple[str, ...], ...]:
    """The test and the validation subjects of a folder's model.

    Raises:
        InputError: it does not say who they are, and anybody could have been trained on; ``mend``: what to do then.
    """
    parts = folder.manifest.split
    missing = [part for part in ("test", "validation") if not parts.get(part)]
    if missing:
        raise InputError(
            f"{folder.path} does not say who its {' and '.join(missing)} subjects are, whom it was not trained on: "
            f"{mend}"
        )
    return parts["test"], parts["validation"]


def check_start(out: Path, seed: int, origins: Sequence[str | Path] = (), *, overwrite: bool) -> None:
    """Refuse a target that cannot be written or is one of the model's ``origins``, and a seed below 0."""
    if any(Path(origin).is_dir() and out.is_dir() and out.samefile(origin) for origin in origins):
        raise InputError(f"{out} is what the model is made from: name another folder")
    check_target(out, overwrite=overwrite)
    if seed < 0:
        raise InputError(f"seed {seed}: 0 or more is needed")


def prepare(
    parent: Folder | None,
    preset: str,
    dataset: Dataset,
    split: Split,
    changes: dict[str, Any],
    seed: int,
    *,
    trust: bool = False,
) -> Trainee:
    """The model to train and its settings: a new one of the preset, or the parent's.

    Raises:
        InputError: an unknown preset or setting, a parent that reads other data or has seen people of the split's
            other parts, recordings that are too short.
        Unsupported: the model looks ahead, which training does not know yet.
    """
    if parent:
        start = "the model to start from"
        check_fits(parent, start, dataset)
        check_apart(parent, start, split, "Name neither --test, --validation nor --fold to keep its split")
        fixed = [name for name in changes if name.startswith("model.")]
        if fixed:
            raise InputError(f"{fixed[0]} cannot be set: the model is that of {parent.path}, with its arguments")
        made = next((found for found in map(_made_from, parent.manifest.lineage) if found), None)
        preset = made if made in presets() else preset
    known = presets()
    if ":" in preset:
        raise InputError(
            f"model {preset!r} is a class, and a preset is needed, one of those that edgeseq models lists: a class of "
            "your own comes in by edgeseq.save_model, trained by a loop of your own, and --from trains it on"
        )
    if preset not in known:
        raise unknown("model", preset, known)
    family, arguments, settings = configure(known[preset], dataset, changes)
    torch.manual_seed(seed)
    if parent:
        family, arguments = parent.manifest.family, dict(parent.manifest.arguments)
        model = load_model(parent, trust=trust)
    else:
        model = build(family, len(dataset.channels), len(dataset.labels), arguments, trust=trust)
    if model.look_ahead:
        raise Unsupported(f"a {family} that looks {model.look_ahead} steps ahead: training knows causal models only")
    if "frame" not in model.tasks:
        raise Unsupported(
            f"this {family} answers at the end of bounded segments, and {dataset.name} wants an answer at every frame: "
            "choose a read-out that forgets, such as --set model.readout=last or average of s4d"
        )
    _check_lengths(split, settings)
    precision = parent.manifest.precision if parent else Precision()
    return Trainee(model, family, arguments, settings, parent, precision)


def _made_from(stage: Stage) -> str | None:
    """The preset that a stage made its model from, if it made one."""
    return stage.arguments.get("model") if stage.verb in ("train", "distill") else None


def complete(
    out: Path,
    trainee: Trainee,
    split: Split,
    entry: Stage,
    seed: int,
    *,
    objective: Objective | None = None,
    teachers: Sequence[Folder] = (),
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Train, score and write the model folder, with the lineage entry ``entry``; takes up an interrupted run of it.

    ``metrics`` are written beside the model's own. Whom the ``teachers`` have learned from counts as seen.
    """
    checkpoint = out.with_name(f".{out.name}.training.safetensors")
    identity = _identity(entry, trainee.arguments, split.subjects())
    model, settings, new = trainee.model, trainee.settings, trainee.parent is None
    with threads(settings.threads):
        fit(model, split, settings, seed, checkpoint, identity, normalize=new, objective=objective, report=report)
    folder = write_scored(out, trainee, split, entry, teachers=teachers, metrics=metrics, overwrite=overwrite)
    checkpoint.unlink(missing_ok=True)
    return folder


def write_scored(
    out: Path,
    trainee: Trainee,
    split: Split,
    entry: Stage,
    *,
    teachers: Sequence[Folder] = (),
    metrics: dict[str, float] | None = None,
    overwrite: bool = False,
) -> Folder:
    """Score the model as it is and write its folder; ``teachers`` and ``metrics`` as for :func:`complete`."""
    model, parent = trainee.model, trainee.parent
    with threads(trainee.settings.threads):
        found = _metrics(model, split)
    manifest = Manifest(
        name=out.name,
        family=trainee.family,
        arguments=trainee.arguments,
        task="frame",
        labels=split.train.labels,
        input=_input(model, split.train),
        states=state_entries(model),
        decision=parent.manifest.decision if parent else Decision(smoothing=SMOOTHING),
        precision=trainee.precision,
        split=_subjects(split, [*([parent] if parent else []), *teachers]),
        metrics={**found, **(metrics or {})},
        parameters=parameter_count(model),
        facts=dict(model.facts()),
        lineage=(*(parent.manifest.lineage if parent else ()), entry),
    )
    with new_folder(out, overwrite=overwrite) as staging:
        save_weights(model, staging)
        seal(staging, manifest)
    return open_folder(out)


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


def check_apart(folder: Folder, what: str, split: Split, mend: str) -> None:
    """Refuse to test, or to choose, on people whom the model of ``folder`` (``what``) was trained, or chosen, on."""
    seen = {part: set(folder.manifest.split.get(part, ())) for part in ("train", "validation")}
    for part, forbidden in (("test", seen["train"] | seen["validation"]), ("validation", seen["train"])):
        both = [subject for subject in split.subjects()[part] if subject in forbidden]
        if both:
            raise InputError(f"subject {both[0]!r} cannot be of the {part} subjects: {what} has seen that one. {mend}")


def _subjects(split: Split, earlier: Sequence[Folder]) -> dict[str, tuple[str, ...]]:
    """Who is in which part; whoever ``earlier`` models were trained, or chosen, on stays among those who were seen.

    Those whom an earlier model was chosen on, and who have no part here, count as trained on: of the validation
    subjects the next stage wants recordings.
    """
    parts = {part: tuple(subjects) for part, subjects in split.subjects().items()}
    known = {*parts["validation"], *parts["test"]}
    for had in (folder.manifest.split for folder in earlier):
        seen = (who for part in ("train", "validation") for who in had.get(part, ()) if who not in known)
        parts["train"] = tuple(dict.fromkeys((*parts["train"], *seen)))
    return parts


def choose_split(dataset: Dataset, *, fold: int = 0, test: Sequence[str] = (), validation: Sequence[str] = ()) -> Split:
    """The named subjects, or fold ``fold`` of five.

    Raises:
        InputError: only one of the two is named, or the fold does not exist.
    """
    if bool(test) != bool(validation):
        named, missing = ("test", "validation") if test else ("validation", "test")
        raise InputError(
            f"there are {named} subjects ({', '.join(test or validation)}) and no {missing} subjects: name the "
            "subjects of both --test and --validation, or of neither; a folder has those that save_model was given as "
            "split"
        )
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


def check_fits(folder: Folder, what: str, dataset: Dataset) -> None:
    """Refuse data of other channels, labels or rate than the model of ``folder`` (``what``) reads."""
    manifest = folder.manifest
    have = (tuple(channel.name for channel in manifest.input.channels), manifest.labels, manifest.input.rate)
    wanted = (dataset.channels, dataset.labels, dataset.rate)
    for name, model_has, data_has in zip(("channels", "labels", "rate"), have, wanted, strict=True):
        if model_has != data_has:
            raise InputError(f"{dataset.name} has {name} {data_has}, but {what} has {model_has}")


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
