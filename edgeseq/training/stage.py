"""The stage behind ``edgeseq train``: a data set and a preset in, a model folder out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from edgeseq.data import Dataset, Split, default_split, load, split_by_subject
from edgeseq.data.frames import framed
from edgeseq.data.mapping import Mapping as Columns
from edgeseq.data.resample import resampled
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, check_target, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry, was_retimed
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization, Precision, Stage
from edgeseq.models.contract import StreamingModel, mask_zeros, parameter_count
from edgeseq.models.registry import build, presets
from edgeseq.models.store import load_model, save_weights, state_entries
from edgeseq.models.threads import threads
from edgeseq.packed import Coded
from edgeseq.training.checks import check_apart, check_fits, check_lengths, check_task
from edgeseq.training.configure import OF_MODEL, configure, samples_read
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Objective, Report, Schedule, fit
from edgeseq.training.settings import Settings

SMOOTHING = 1.0  # seconds: time constant of the answer that a person sees
Announce = Callable[[StreamingModel, Split, Settings], None]
Measure = Callable[[StreamingModel], dict[str, float]]
Check = Callable[[dict[str, float]], None]
Finish = Callable[[StreamingModel], Mapping[str, Coded]]


@dataclass(frozen=True)
class Trainee:
    """What is trained: a model with the family and arguments that build it, from scratch or from a folder's weights."""

    model: StreamingModel
    family: str
    arguments: dict[str, Any]
    settings: Settings
    parent: Folder | None
    precision: Precision = field(default_factory=Precision)
    pruned: tuple[str, ...] = ()


def train(
    source: str,
    out: str | Path,
    *,
    mapping: Columns | None = None,
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
    are kept apart; by default those of fold ``fold`` of five, or of the data set's official split. ``start`` is a
    folder whose model is trained on, as it is, with the subjects split as they were unless others are named. An
    interrupted run is taken up by the same call.

    Raises:
        InputError: an unknown preset or setting, unusable data, an existing target, a subject on both sides.
        Unsupported: the model does not answer what the data asks.
    """
    out = Path(out)
    check_start(out, seed, [start] if start else [], overwrite=overwrite)
    dataset = load(source, mapping)
    parent = open_folder(start) if start else None
    dataset = framed(dataset, samples_read(parent, preset, dataset, changes or {}))
    if parent and was_retimed(parent) and dataset.rate != parent.manifest.input.step_rate:
        dataset = resampled(dataset, parent.manifest.input.step_rate)
    if parent and fold is None and not test and not validation:
        test, validation = kept_apart(parent, "name them with --test and --validation, or choose a --fold")
    split = choose_split(dataset, fold=fold, test=test, validation=validation)
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
            other parts, recordings that are too short, crops shorter than the model's look-ahead.
        Unsupported: the model does not answer what the data asks.
    """
    if parent:
        start = "the model to start from"
        check_fits(parent, start, dataset)
        check_apart(parent, start, split, "Name neither --test, --validation nor --fold to keep its split")
        fixed = [name for name in changes if name.startswith(OF_MODEL)]
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
        model = build(family, len(dataset.channels) * dataset.samples, len(dataset.labels), arguments, trust=trust)
    check_task(model, family, dataset)
    if dataset.task == "frame":
        check_lengths(split, settings, model.look_ahead)
    if not parent:
        return Trainee(model, family, arguments, settings, None)
    return Trainee(model, family, arguments, settings, parent, parent.manifest.precision, parent.manifest.pruned)


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
    schedule: Schedule = lambda model, progress: None,
    settled: float = 0.0,
    finish: Finish = lambda model: {},
    measure: Measure = lambda model: {},
    check: Check = lambda metrics: None,
    overwrite: bool = False,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Train, score and write the model folder, with the lineage entry ``entry``; takes up an interrupted run of it.

    ``objective``, ``schedule`` and ``settled`` are those of :func:`edgeseq.training.loop.fit`. ``finish`` makes of the
    trained model, in place, what is scored and written, and gives the tensors of it that fewer bits say exactly. The
    others are those of :func:`write_scored`.

    Raises:
        InputError: the loss is not finite, or an interrupted run cannot be read.
    """
    checkpoint = out.with_name(f".{out.name}.training.safetensors")
    identity = _identity(entry, trainee.arguments, split.subjects())
    model, settings, new = trainee.model, trainee.settings, trainee.parent is None
    with threads(settings.threads):
        fit(
            *(model, split, settings, seed, checkpoint, identity),
            normalize=new,
            objective=objective,
            schedule=schedule,
            settled=settled,
            report=report,
        )
    coded = finish(model)
    folder = write_scored(
        *(out, trainee, split, entry),
        teachers=teachers,
        coded=coded,
        measure=measure,
        check=check,
        overwrite=overwrite,
    )
    checkpoint.unlink(missing_ok=True)
    return folder


def write_scored(
    out: Path,
    trainee: Trainee,
    split: Split,
    entry: Stage,
    *,
    teachers: Sequence[Folder] = (),
    coded: Mapping[str, Coded] | None = None,
    measure: Measure = lambda model: {},
    check: Check = lambda metrics: None,
    overwrite: bool = False,
) -> Folder:
    """Score the model as it is and write its folder.

    Whom the ``teachers`` have learned from counts as seen. What ``measure`` finds of the model is written beside its
    scores; ``check`` is called with them all, and what it raises leaves no folder behind. ``coded``: see
    :func:`edgeseq.models.store.save_weights`. The model is left as it will be loaded.
    """
    model, parent = trainee.model, trainee.parent
    with threads(trainee.settings.threads):
        found = {**part_metrics(model, split), **measure(model)}
    check(found)
    manifest = Manifest(
        name=out.name,
        family=trainee.family,
        arguments=trainee.arguments,
        task=split.train.task,
        labels=split.train.labels,
        input=_input(model, split.train),
        states=state_entries(model),
        decision=_decision(split.train, parent),
        precision=trainee.precision,
        pruned=trainee.pruned,
        split=_subjects(split, [*([parent] if parent else []), *teachers]),
        metrics=found,
        facts=dict(model.facts()),
        lineage=(*(parent.manifest.lineage if parent else ()), entry),
    )
    with new_folder(out, overwrite=overwrite) as staging:
        model.load_state_dict(save_weights(model, staging, coded or {}))  # a weight that rounds to 0 is gone
        mask_zeros(model, trainee.pruned)
        seal(staging, msgspec.structs.replace(manifest, parameters=parameter_count(model)))
    return open_folder(out)


def _decision(dataset: Dataset, parent: Folder | None) -> Decision:
    """The parent's, unless it was fitted to that one's answers; a segment has one answer, with nothing to smooth."""
    if parent and not any(stage.verb == "tune" for stage in parent.manifest.lineage):
        return parent.manifest.decision
    return Decision(smoothing=SMOOTHING) if dataset.task == "frame" else Decision()


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
    return {**parts, "rule": (split.rule,)} if split.rule else parts


def choose_split(
    dataset: Dataset, *, fold: int | None = None, test: Sequence[str] = (), validation: Sequence[str] = ()
) -> Split:
    """The named subjects, or fold ``fold`` of five; without either the official split, or else the first fold.

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


def _identity(*parts: Any) -> str:
    return hashlib.sha256(b"".join(msgspec.json.encode(part, order="sorted") for part in parts)).hexdigest()


def _input(model: StreamingModel, dataset: Dataset) -> Input:
    mean, std = model.input_mean.tolist(), (1 / model.input_scale).tolist()
    channels = tuple(Channel(*pair) for pair in zip(dataset.channels, dataset.units, strict=True))
    statistics = Normalization(tuple(mean), tuple(std))
    return Input(channels, dataset.sample_rate, statistics, dataset.samples, model.look_ahead, dataset.signs)


def part_metrics(model: StreamingModel, split: Split) -> dict[str, float]:
    """Scores per frame after the first seconds of a recording; ``smoothed`` is the answer under the decision rule.

    Of segments, per segment, and as they are answered alone.
    """
    found: dict[str, float] = {}
    kinds = {"": 0.0} if split.test.task == "segment" else {"": 0.0, "_smoothed": SMOOTHING}
    for name, part in (("validation", split.validation), ("test", split.test)):
        for kind, smoothing in kinds.items():
            scores = evaluate(model, part, smoothing=smoothing)
            found[f"{name}_accuracy{kind}"] = round(scores.accuracy, 6)
            found[f"{name}_macro_f1{kind}"] = round(scores.macro_f1, 6)
    labelled = [sum(row) for row in scores.confusion]  # of the test subjects: the frames that are scored, and no other
    found["test_majority_share"] = round(max(labelled) / max(sum(labelled), 1), 6)
    return found
