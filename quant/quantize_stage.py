"""The stage behind ``edgeseq quantize``: a float model folder in, one with int8 weights and activations out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.data import Dataset, Split
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import stage_entry, trained_on
from edgeseq.manifest import Precision, Stage
from edgeseq.models.contract import StreamingModel
from edgeseq.models.threads import threads
from edgeseq.quant.calibrate import calibrate, quantize_model
from edgeseq.quant.distill import Distillation, distillation, distilling, split_changes
from edgeseq.quant.distill_stage import load_teachers
from edgeseq.quant.flips import SECONDS, spike_flips
from edgeseq.training.loop import Report
from edgeseq.training.stage import (
    Announce,
    Trainee,
    check_start,
    choose_split,
    complete,
    kept_apart,
    prepare,
    write_scored,
)

METHODS = ("qat", "ptq")
STATES = ("float32", "int16", "int8")
PRESET = "gru"  # whose settings a model is tuned with that was made from no preset
TUNING = {"rounds": 3, "learning_rate": 5e-4}  # the weights are good already: they only learn to live with the rounding


def quantize(
    source: str | Path,
    out: str | Path,
    *,
    method: str = "qat",
    state: str = "float32",
    teachers: Sequence[str | Path] = (),
    data: str | None = None,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    overwrite: bool = False,
    trust: bool = False,
    announce: Announce = lambda model, split, settings: None,
    tick: Callable[[], None] = lambda: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Quantize the model of ``source`` to int8 and write the folder ``out``.

    Batch norms are folded first. Ranges are the true least and greatest values on the training subjects' recordings,
    streamed with the state carried (``tick`` is called at each frame). ``method`` "ptq" leaves it at that; "qat" then
    trains on with the rounding in place, the ranges fixed, with the settings of the model's preset and ``changes``, on
    the labels or, with ``teachers``, as :func:`edgeseq.quant.distill_stage.distill` does. ``state`` is the precision
    that the carried state is kept at. The split is that of ``source``. Of a model that spikes, how often each
    population does otherwise than in float is among the metrics.

    Raises:
        InputError: an unknown method, state or setting, a model that is quantized already, unusable data.
        Unsupported: a layer or state of the model cannot be quantized.
        MissingDependency: Brevitas is not installed.
    """
    out, parent, changes = Path(out), open_folder(source), changes or {}
    check_start(out, seed, [parent.path, *teachers], overwrite=overwrite)
    _check_request(parent, method, state, teachers, changes)
    loss, others = split_changes(changes)
    test, validation = kept_apart(parent)
    dataset = trained_on(parent, data)
    split = choose_split(dataset, test=test, validation=validation)
    folders = [open_folder(teacher) for teacher in teachers]
    models = load_teachers(folders, dataset, split, trust=trust)
    trainee = prepare(parent, PRESET, dataset, split, {**TUNING, **others}, seed, trust=trust)
    arguments = {**trainee.arguments, **trainee.model.eval().fold()}
    trainee = dataclasses.replace(trainee, arguments=arguments, precision=Precision("int8", "int8", state))
    plain = copy.deepcopy(trainee.model)

    def measure(model: StreamingModel) -> dict[str, float]:
        return _flips(plain, model, split)

    with threads(trainee.settings.threads):
        ranges = calibrate(trainee.model, split.train.recordings, tick)
    quantize_model(trainee.model, trainee.precision, ranges)
    how = distillation(loss) if models else None
    entry = _entry(parent, trainee, method, how, folders, seed, data, dataset)
    if method == "ptq":
        return write_scored(out, trainee, split, entry, measure=measure, overwrite=overwrite)
    announce(trainee.model, split, trainee.settings)
    with ExitStack() as stack:
        objective = None
        if how:
            objective = stack.enter_context(distilling(trainee.model, models, split.train, trainee.settings, how))
        return complete(
            *(out, trainee, split, entry, seed),
            objective=objective,
            teachers=folders,
            measure=measure,
            overwrite=overwrite,
            report=report,
        )


def _flips(plain: StreamingModel, quantized: StreamingModel, split: Split) -> dict[str, float]:
    """Of a model that spikes, how often neurons do, and how often not as in the float model: validation subjects."""
    part = split.validation
    found = spike_flips(plain, quantized, part.recordings, round(SECONDS * part.rate))
    if not found:
        return {}
    flips = {f"spike_flips_{name}".removesuffix("_all"): round(f.flipped / f.counted, 6) for name, f in found.items()}
    return {"spike_rate": round(found["all"].fired / found["all"].counted, 6), **flips}


def _check_request(
    parent: Folder, method: str, state: str, teachers: Sequence[str | Path], changes: dict[str, Any]
) -> None:
    """Refuse what cannot be asked for together, before any data is read."""
    for what, value, known in (("method", method, METHODS), ("state precision", state, STATES)):
        if value not in known:
            raise unknown(what, value, known)
    if parent.manifest.precision != Precision():
        have = parent.manifest.precision.weights
        raise InputError(f"{parent.path} has {have} weights already: start from the float model that it came from")
    if method == "ptq" and (changes or teachers):
        what = f"{next(iter(changes))} is a setting" if changes else "a teacher is there"
        raise InputError(f"{what} for training, and ptq does not train: use --method qat")
    loss, _ = split_changes(changes)
    if loss and not teachers:
        raise InputError(f"distillation.{next(iter(loss))} is about learning from a teacher: name one with --teacher")


def _entry(
    parent: Folder,
    trainee: Trainee,
    method: str,
    how: Distillation | None,
    teachers: Sequence[Folder],
    seed: int,
    data: str | None,
    dataset: Dataset,
) -> Stage:
    """What the lineage says of the run; data that is not named is the parent's."""
    origin = parent.manifest.data_stage
    return stage_entry(
        "quantize",
        {
            "method": method,
            "mapping": origin.arguments.get("mapping") if origin else None,
            "precision": msgspec.to_builtins(trainee.precision),
            "settings": msgspec.to_builtins(trainee.settings) if method == "qat" else None,
            "distillation": msgspec.to_builtins(how),
            "teachers": [{"name": folder.manifest.name, "hash": folder.hash} for folder in teachers],
        },
        seed=seed,
        data=data or (origin.data if origin else None),
        data_fingerprint=dataset.origin_fingerprint,
        parent=parent.hash,
    )
