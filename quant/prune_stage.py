"""The stage behind ``edgeseq prune``: a float model folder in, one with fewer units, modes or weights out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.data import Split
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import has_few_bits
from edgeseq.models.contract import StreamingModel, parameter_count
from edgeseq.models.norms import BatchNorm
from edgeseq.quant.distill import check_taught, distillation, split_changes
from edgeseq.quant.gates import check_drop, check_limit
from edgeseq.quant.ground import Ground
from edgeseq.quant.narrow import Kept, narrowed, pruned
from edgeseq.quant.prune import modes_to_keep, units_to_keep
from edgeseq.quant.saliency import CRITERIA, Tensors, saliency, squared_gradients
from edgeseq.quant.sparsity import RAMP, SCOPES, Gradual, Sparsity, open_masks, present, zero_shares
from edgeseq.training.loop import Report, Schedule
from edgeseq.training.stage import Announce, Trainee, check_start, complete, prepare, write_scored

PRESET = "gru"  # whose settings a model is trained with that was made from no preset
ROUNDS = 6  # of retraining, for each time that what remains is halved
RATE = 0.5  # of the preset's learning rate: the weights that remain are good already


@dataclass(frozen=True)
class Cut:
    """What is to go, each a share in [0, 1), and how it is chosen; see :func:`prune`."""

    structured: float
    weights: float
    modes: float
    scope: str
    block: tuple[int, int]
    criterion: str | None
    gradual: bool
    retrain: bool


def prune(
    source: str | Path,
    out: str | Path,
    *,
    structured: float = 0.0,
    weights: float = 0.0,
    modes: float = 0.0,
    scope: str = "global",
    block: tuple[int, int] = (1, 1),
    criterion: str | None = None,
    gradual: bool = True,
    retrain: bool = True,
    teachers: Sequence[str | Path] = (),
    data: str | None = None,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    max_drop: float | None = None,
    overwrite: bool = False,
    trust: bool = False,
    announce: Announce = lambda model, split, settings: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Take out of the model of ``source`` what matters least, train what remains, and write the folder ``out``.

    In this order, each a share of what there is by then: ``modes``, of S4D's modes; ``structured``, of the parameters,
    which go with whole units, modes among them, so that a smaller model of the same family remains; ``weights``, of the
    weights of the linear maps that are not 0 yet, which become 0, compared over all maps or, with ``scope`` "layer", in
    each; in blocks of ``block`` (rows, columns), of which each map keeps one. What matters is told by ``criterion``
    (None: by the one that suits, see :mod:`edgeseq.quant.saliency`), of ``modes`` by their energy. With ``gradual``
    weights go on the way, not at once.

    Then it is trained on with the settings of the model's preset and ``changes``, the longer the less remains, on the
    labels or, with ``teachers``, as :func:`edgeseq.quant.distill_stage.distill` does; not so without ``retrain``. The
    split is that of ``source``. ``max_drop``: points of macro-F1 on the validation subjects that may be lost. An
    interrupted run is taken up by the same call.

    Raises:
        InputError: nothing to do, a share or a block that cannot be, an unknown scope, criterion or setting, a model
            that is quantized, unusable data.
        Unsupported: the family names no widths, or has no modes.
        GateFailed: more than ``max_drop`` is lost; nothing is written then.
    """
    out, parent, changes = Path(out), open_folder(source), changes or {}
    check_start(out, seed, [parent.path, *teachers], overwrite=overwrite)
    cut = Cut(structured, weights, modes, scope, _block(block), criterion, gradual, retrain)
    _check_request(parent, cut, teachers, changes)
    check_limit(parent, max_drop)
    loss, others = split_changes(changes)
    how = distillation(loss)
    ground = Ground.of(parent, teachers, data, trust=trust)
    split = ground.split
    trainee = _prepared(ground, cut, others, seed, trust=trust)
    before, chosen = _sizes(trainee.model), _chosen_by(cut, trainee.model)
    trainee = _narrowed(trainee, cut, chosen, split, seed, trust=trust)
    widths = {name: (before[name], size) for name, size in _sizes(trainee.model).items()}
    said = {
        **msgspec.to_builtins(cut),
        "widths": msgspec.to_builtins(widths),
        "parameters": [parent.manifest.parameters, parameter_count(trainee.model)],
        "settings": msgspec.to_builtins(trainee.settings) if retrain else None,
        "distillation": msgspec.to_builtins(how) if teachers else None,
        "chosen_by": chosen,
    }
    entry = ground.entry("prune", said, seed, parent)
    trainee, schedule = _sparse(trainee, cut, chosen, split, seed)

    def measure(model: StreamingModel) -> dict[str, float]:
        shares = zero_shares(model, trainee.pruned) if trainee.pruned else {}
        return {f"zeros_{name}".removesuffix("_"): round(share, 6) for name, share in shares.items()}

    def check(metrics: dict[str, float]) -> None:
        check_drop(parent, metrics, max_drop)

    if not retrain:
        return write_scored(out, trainee, split, entry, measure=measure, check=check, overwrite=overwrite)
    announce(trainee.model, split, trainee.settings)
    with ground.objective(trainee.model, trainee.settings, how) as objective:
        return complete(
            *(out, trainee, split, entry, seed),
            objective=objective,
            teachers=ground.teachers,
            schedule=schedule,
            settled=RAMP if cut.weights and cut.gradual else 0.0,
            measure=measure,
            check=check,
            overwrite=overwrite,
            report=report,
        )


def rounds_after(cut: Cut) -> int:
    """How long what remains is trained: found with lmu by validation, where 20 rounds after a cut of 90 % gave a
    macro-F1 of 95 % and 6 gave 56 %."""
    remains = (1 - cut.modes) * (1 - cut.structured) * (1 - cut.weights)
    return round(ROUNDS * max(1.0, -math.log2(remains)))


def _prepared(ground: Ground, cut: Cut, changes: dict[str, Any], seed: int, *, trust: bool) -> Trainee:
    """The folder's model, with settings that are gentler than its preset's unless ``changes`` has others."""
    settings = {"rounds": rounds_after(cut), **changes}
    trainee = prepare(ground.origin, PRESET, ground.dataset, ground.split, settings, seed, trust=trust)
    if "learning_rate" in changes:
        return trainee
    gentler = msgspec.structs.replace(trainee.settings, learning_rate=RATE * trainee.settings.learning_rate)
    return dataclasses.replace(trainee, settings=gentler)


def _sizes(model: StreamingModel) -> dict[str, int]:
    return {name: width.size for name, width in model.widths().items()}


def _chosen_by(cut: Cut, model: StreamingModel) -> dict[str, str]:
    """By what each part of the cut is chosen: a batch norm leaves the magnitude of the weights around it without
    meaning, so that units are chosen by Taylor's estimate there."""
    normed = any(isinstance(module, BatchNorm) for module in model.modules())
    known = {
        "modes": "energy",
        "structured": cut.criterion or ("taylor" if normed else "magnitude"),
        "weights": cut.criterion or "magnitude",
    }
    return {what: criterion for what, criterion in known.items() if getattr(cut, what)}


def _narrowed(trainee: Trainee, cut: Cut, chosen: dict[str, str], split: Split, seed: int, *, trust: bool) -> Trainee:
    """The trainee without the modes, then without the units, that are to go."""

    def without(kept: Kept) -> Trainee:
        model, arguments = narrowed(trainee.model, trainee.family, trainee.arguments, kept, trust=trust)
        left = pruned(model) if trainee.pruned else ()
        return dataclasses.replace(trainee, model=model, arguments=arguments, pruned=left)

    if cut.modes:
        trainee = without(modes_to_keep(trainee.model, cut.modes))
    if cut.structured:
        squared = _squared(trainee, chosen["structured"], split, seed)
        trainee = without(units_to_keep(trainee.model, cut.structured, saliency(trainee.model, squared)))
    return trainee


def _sparse(trainee: Trainee, cut: Cut, chosen: dict[str, str], split: Split, seed: int) -> tuple[Trainee, Schedule]:
    """The trainee without the weights that are to go, or the schedule by which they do in training."""
    if not cut.weights:
        return trainee, lambda model, progress: None
    squared = _squared(trainee, chosen["weights"], split, seed)
    sparsity = Sparsity(cut.weights, present(trainee.model), cut.scope, cut.block, squared)
    trainee = dataclasses.replace(trainee, pruned=tuple(trainee.model.projections()))
    if cut.gradual and cut.retrain:
        open_masks(trainee.model)
        return trainee, Gradual(sparsity, trainee.settings)
    sparsity.apply(trainee.model)
    return trainee, lambda model, progress: None


def _squared(trainee: Trainee, criterion: str, split: Split, seed: int) -> Tensors | None:
    return squared_gradients(trainee.model, split.train, trainee.settings, seed) if criterion == "taylor" else None


def _block(block: Sequence[int]) -> tuple[int, int]:
    if len(block) != 2 or not all(isinstance(side, int) and side >= 1 for side in block):
        raise InputError(f"block {tuple(block)}: rows and columns are needed, each 1 or more, as in (8, 4)")
    return block[0], block[1]


def _check_request(parent: Folder, cut: Cut, teachers: Sequence[str | Path], changes: dict[str, Any]) -> None:
    """Refuse what cannot be asked for together, before any data is read."""
    for what, value, known in (("scope", cut.scope, SCOPES), ("criterion", cut.criterion, CRITERIA)):
        if value is not None and value not in known:
            raise unknown(what, value, known)
    shares = {name: getattr(cut, name) for name in ("structured", "weights", "modes")}
    for name, share in shares.items():
        if not (math.isfinite(share) and 0 <= share < 1):
            raise InputError(f"{name} {share:g}: the share that goes is needed, from 0 to less than 1")
    if not any(shares.values()):
        raise InputError("nothing to prune: name the share that goes, structured (of the parameters), weights or modes")
    if not cut.weights and (cut.scope != SCOPES[0] or cut.block != (1, 1)):
        what = "block" if cut.block != (1, 1) else "scope"
        raise InputError(f"{what} says which weights go, and none are to: name their share, weights")
    if has_few_bits(parent):
        raise InputError(f"{parent.path} is quantized already: prune the float model that it came from, then quantize")
    if not cut.retrain and (changes or teachers):
        what = f"{next(iter(changes))} is a setting" if changes else "a teacher is there"
        raise InputError(f"{what} for training, and without retraining there is none: leave it out, or retrain")
    check_taught(changes, teachers)
