"""Quantized distillation and differentiable quantization as stages: a float model folder in, one of few bits out.

What is written computes with floats: weights.packed says in few bits exactly what weights.safetensors holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from edgeseq.data import Dataset, Split
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import Precision
from edgeseq.models.contract import StreamingModel, mask_zeros
from edgeseq.models.threads import threads
from edgeseq.packed import Bucketed
from edgeseq.quant.distill import distillation, split_changes
from edgeseq.quant.gates import check_drop, check_limit
from edgeseq.quant.ground import Ground
from edgeseq.quant.low_bit import MOST_POINTS, bits_of, mean_bits, settle, train_points, train_weights, trained
from edgeseq.quant.quantizer import check_whole, shared_out
from edgeseq.training.answers import respond
from edgeseq.training.batches import batches_of
from edgeseq.training.loop import CrossEntropy, Report
from edgeseq.training.settings import Settings
from edgeseq.training.stage import Announce, Trainee, check_start, complete, prepare

METHODS = ("qd", "dq")
PRESET = "gru"  # whose settings a model is tuned with that was made from no preset
BUCKET = 256
MEASURED_BATCHES = 5  # of which the norms of gradients are the mean, as in the paper
# By validation on the first fold of spar_watch (lmu and gru at 2 bits, where rates differ most). Points take small
# steps: as one moves, weights fall to another, which no gradient tells.
TUNING: dict[str, dict[str, float]] = {
    "qd": {"rounds": 3, "learning_rate": 2e-3},
    "dq": {"rounds": 3, "learning_rate": 3e-4},
}


def quantize_weights(
    source: str | Path,
    out: str | Path,
    *,
    method: str = "qd",
    bits: int = 4,
    bucket: int = BUCKET,
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
    """Give the weights of ``source`` few bits, and write the folder ``out``.

    Weights of linear maps get ``bits``, what else is trained 8, in buckets of ``bucket`` numbers (0: a tensor is one);
    see :mod:`edgeseq.quant.low_bit`. ``method`` "qd" is quantized distillation, which trains the weights. "dq" is
    differentiable quantization, which trains the points that they are rounded to: 2^``bits`` a linear map on average,
    of which each has half, and more the more the loss hangs on it. Both learn, as
    :func:`edgeseq.quant.distill_stage.distill` does, from ``teachers``, or if none are named from ``source`` itself.

    Batch norms are folded first, and weights that were pruned stay so. The split is that of ``source``. ``max_drop``:
    by how many points macro-F1 may fall on the validation subjects. An interrupted run is taken up by the same call.

    Raises:
        InputError: an unknown method or setting, a model that is quantized already, unusable data, ``bits`` that are
            not 2 to 8, a ``bucket`` below 0.
        GateFailed: macro-F1 falls further; nothing is written.
    """
    out, parent, changes = Path(out), open_folder(source), changes or {}
    check_start(out, seed, [parent.path, *teachers], overwrite=overwrite)
    _check_request(parent, method, bits, bucket)
    check_limit(parent, max_drop)
    loss, others = split_changes(changes)
    how = distillation(loss)
    ground = Ground.of(parent, teachers or [parent], data, trust=trust)
    split = ground.split
    trainee = prepare(parent, PRESET, ground.dataset, split, {**TUNING[method], **others}, seed, trust=trust)
    model, settings = trainee.model, trainee.settings
    trainee = dataclasses.replace(trainee, arguments={**trainee.arguments, **model.eval().fold()})
    mask_zeros(model, trainee.pruned)  # maps that a norm was folded into are others now
    given, names = bits_of(model, bits), trained(model)
    points = _points(trainee, bits, given, split, seed) if method == "dq" else {}
    given |= {name: (count - 1).bit_length() for name, count in points.items()}
    said = {
        "method": method,
        "bits": bits,
        "bucket": bucket,
        "tensors": given,
        "points": points or None,
        "settings": msgspec.to_builtins(settings),
        "distillation": msgspec.to_builtins(how),
    }
    announce(model, split, settings)
    coded: dict[str, Bucketed] = {}

    def finish(model: StreamingModel) -> Mapping[str, Bucketed]:
        coded.update(settle(model, names))
        return coded

    with ground.objective(model, settings, how) as objective:
        if method == "qd":
            train_weights(model, given, bucket)
        else:
            train_points(model, given, points, bucket)
        return complete(
            *(out, trainee, split, ground.entry("quantize", said, seed, parent), seed),
            objective=objective,
            teachers=ground.teachers,
            finish=finish,
            measure=lambda model: {"level_bits": round(mean_bits(coded.values()), 4)},
            check=lambda metrics: check_drop(parent, metrics, max_drop),
            overwrite=overwrite,
            report=report,
        )


def _check_request(parent: Folder, method: str, bits: int, bucket: int) -> None:
    """Refuse what cannot be asked for, before any data is read."""
    if method not in METHODS:
        raise unknown("method", str(method), METHODS)
    check_whole("bits", bits)
    check_whole("bucket", bucket)
    if bucket < 0:
        raise InputError(f"bucket {bucket}: numbers that share α and β, or 0 for one bucket a tensor, are needed")
    if parent.manifest.precision != Precision():
        have = msgspec.to_builtins(parent.manifest.precision)
        small = ", ".join(f"{what} {kind}" for what, kind in have.items() if kind != "float32")
        raise InputError(f"{parent.path} is quantized already ({small}): start from the float model that it came from")


def _points(trainee: Trainee, bits: int, given: Mapping[str, int], split: Split, seed: int) -> dict[str, int]:
    """How many points each linear map's weight gets: 2^bits on average, by the norms of their gradients."""
    maps = [name for name in given if name in {f"{each}.weight" for each in trainee.model.projections()}]
    norms = gradient_norms(trainee.model, maps, split.train, trainee.settings, seed)
    return {name: min(count, MOST_POINTS) for name, count in zip(maps, shared_out(norms, 2**bits), strict=True)}


def gradient_norms(
    model: StreamingModel, names: Sequence[str], learned: Dataset, settings: Settings, seed: int
) -> list[float]:
    """Norms of the gradients that the labels give the parameters ``names``: means over some batches, in eval mode."""
    objective = CrossEntropy.of(learned, settings)
    tensors = [model.get_parameter(name) for name in names]
    batches = batches_of(learned, settings).round(np.random.default_rng([seed, 0]))
    found = []
    with threads(settings.threads):
        for batch in islice(batches, MEASURED_BATCHES):
            loss = objective(respond(model, batch, None)[0], batch)
            found.append([float(gradient.norm()) for gradient in torch.autograd.grad(loss, tensors)])
    return [float(norm) for norm in np.mean(found, 0)]
