"""The stage behind ``edgeseq quantize``: a float model folder in, one of fewer bits out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.card import few_bits
from edgeseq.data import Split
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, open_folder, shipped_bytes
from edgeseq.manifest import Precision
from edgeseq.models.contract import StreamingModel, mask_zeros
from edgeseq.models.memories import check_radius, response_errors
from edgeseq.models.threads import threads
from edgeseq.quant.calibrate import calibrate, coarse, quantize_model
from edgeseq.quant.distill import check_taught, distillation, split_changes
from edgeseq.quant.flips import SECONDS, spike_flips
from edgeseq.quant.gates import check_drop, check_limit
from edgeseq.quant.ground import Ground
from edgeseq.quant.quantizer import check_whole
from edgeseq.training.loop import Report
from edgeseq.training.stage import Announce, Trainee, check_start, complete, prepare, write_scored

METHODS = ("qat", "ptq", "qd", "dq")
LOW_BIT = ("qd", "dq")  # which have fewer levels of float weights, and activations in float32
BITS = (8, 4)  # of weights that integers are multiplied by
DEFAULT_BITS = {"qat": 8, "ptq": 8, "qd": 4, "dq": 4}
FORMATS = ("float32", "int16", "int8")
PRESET = "gru"  # whose settings a model is tuned with that was made from no preset
TUNING = {"rounds": 3, "learning_rate": 5e-4}  # the weights are good already: they only learn to live with the rounding
Warn = Callable[[str], None]


def quantize(
    source: str | Path,
    out: str | Path,
    *,
    method: str = "qat",
    bits: int | None = None,
    state: str = "float32",
    memory: str = "float32",
    teachers: Sequence[str | Path] = (),
    data: str | None = None,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    max_drop: float | None = None,
    overwrite: bool = False,
    trust: bool = False,
    announce: Announce = lambda model, split, settings: None,
    warn: Warn = lambda message: None,
    tick: Callable[[], None] = lambda: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Give the model of ``source`` weights of ``bits`` and write the folder ``out``.

    For example ``quantize("runs/student", "runs/student-int4", bits=4, max_drop=1.0)``.

    ``method`` "ptq" and "qat" make integer maps: weights of 8 or 4 bits (by default 8), activations of 8. Batch norms
    are folded first. Ranges are the true least and greatest values on the training subjects' recordings, streamed with
    the state carried (``tick`` is called at each frame). "ptq" leaves it at that; "qat" then trains on with the
    rounding in place, the ranges fixed, with the settings of the model's preset and ``changes``, on the labels or, with
    ``teachers``, as :func:`edgeseq.quant.distill_stage.distill` does. ``state`` is the precision that the carried state
    is kept at, ``memory`` that of what it is multiplied by: A and B of an LMU, the Ā of S4D. "qd" and "dq" are
    :func:`edgeseq.quant.low_bit_stage.quantize_weights` (4 bits by default), whose activations and states stay float32.

    The split is that of ``source``, and weights that were pruned stay so. ``warn`` is called with what the chosen
    formats can hardly say of this model, which is in the lineage too, and where a model of few bits comes to ship in
    more bytes. Of a model that spikes, how often each population
    does otherwise than in float is among the metrics.

    Raises:
        InputError: an unknown method, format or setting, bits that are none, a model that is quantized already,
            unusable data.
        Unsupported: a layer, state or memory of the model cannot be quantized.
        GateFailed: a memory in that format does not forget, or macro-F1 on the validation subjects falls by more than
            ``max_drop`` points below that of ``source``. Nothing is written.
        MissingDependency: Brevitas is not installed.
    """
    out, parent, changes = Path(out), open_folder(source), changes or {}
    _check_types(method, bits, {"state": state, "memory": memory})
    bits = DEFAULT_BITS[method] if bits is None else bits
    if method in LOW_BIT:
        _check_formats(method, state, memory)
        from edgeseq.quant.low_bit_stage import quantize_weights

        return quantize_weights(
            *(source, out),
            method=method,
            bits=bits,
            teachers=teachers,
            data=data,
            seed=seed,
            changes=changes,
            max_drop=max_drop,
            overwrite=overwrite,
            trust=trust,
            announce=announce,
            report=report,
        )
    check_start(out, seed, [parent.path, *teachers], overwrite=overwrite)
    _check_request(parent, method, bits, teachers, changes)
    check_limit(parent, max_drop)
    loss, others = split_changes(changes)
    how = distillation(loss)
    ground = Ground.of(parent, teachers, data, trust=trust)
    split = ground.split
    trainee = prepare(parent, PRESET, ground.dataset, split, {**TUNING, **others}, seed, trust=trust)
    trainee = _folded(trainee, Precision(f"int{bits}", "int8", state, memory))
    plain = copy.deepcopy(trainee.model)

    def measure(model: StreamingModel) -> dict[str, float]:
        return _flips(plain, model, split)

    def check(metrics: Mapping[str, float]) -> None:
        check_radius(trainee.model)
        check_drop(parent, metrics, max_drop)

    with threads(trainee.settings.threads):
        ranges = calibrate(trainee.model, split.train.recordings, tick)
    quantize_model(trainee.model, trainee.precision, ranges)
    if memory != "float32":
        check_radius(trainee.model)  # ahead of any training
    warnings = [*coarse(trainee.model, ranges), *response_errors(plain, trainee.model)]
    for message in warnings:
        warn(message)
    said = {
        "method": method,
        "precision": msgspec.to_builtins(trainee.precision),
        "settings": msgspec.to_builtins(trainee.settings) if method == "qat" else None,
        "distillation": msgspec.to_builtins(how) if teachers else None,
        "warnings": warnings,
    }
    entry = ground.entry("quantize", said, seed, parent)
    if method == "ptq":
        made = write_scored(out, trainee, split, entry, measure=measure, check=check, overwrite=overwrite)
        _warn_of_growth(parent, made, warn)
        return made
    announce(trainee.model, split, trainee.settings)
    with ground.objective(trainee.model, trainee.settings, how) as objective:
        made = complete(
            *(out, trainee, split, entry, seed),
            objective=objective,
            teachers=ground.teachers,
            measure=measure,
            check=check,
            overwrite=overwrite,
            report=report,
        )
    _warn_of_growth(parent, made, warn)
    return made


def _warn_of_growth(parent: Folder, made: Folder, warn: Warn) -> None:
    """Say it where integers make larger what few bits had made small."""
    found, before, after = few_bits(parent.manifest.lineage), shipped_bytes(parent), shipped_bytes(made)
    if found and after > before:
        warn(
            f"{parent.path} has weights of {found[0]} bits ({found[1]}), which ship in {before:,} bytes; as "
            f"{made.manifest.precision.weights} they ship in {after:,}. An engine loads int8 in place of float32: "
            "where that is not what counts, keep the former"
        )


def _folded(trainee: Trainee, precision: Precision) -> Trainee:
    """The trainee with its batch norms folded, to be of ``precision``; what was pruned of its maps stays so."""
    arguments = {**trainee.arguments, **trainee.model.eval().fold()}
    mask_zeros(trainee.model, trainee.pruned)
    return dataclasses.replace(trainee, arguments=arguments, precision=precision)


def _flips(plain: StreamingModel, quantized: StreamingModel, split: Split) -> dict[str, float]:
    """Of a model that spikes, how often neurons do, and how often not as in the float model: validation subjects."""
    part = split.validation
    found = spike_flips(plain, quantized, part.recordings, round(SECONDS * part.rate))
    if not found:
        return {}
    flips = {f"spike_flips_{name}".removesuffix("_all"): round(f.flipped / f.counted, 6) for name, f in found.items()}
    return {"spike_rate": round(found["all"].fired / found["all"].counted, 6), **flips}


def _check_types(method: str, bits: int | None, formats: Mapping[str, str]) -> None:
    """Refuse names that are not known and bits that are no number, whatever type they are of."""
    for what, value, known in (
        ("method", method, METHODS),
        *((f"{what} precision", value, FORMATS) for what, value in formats.items()),
    ):
        if value not in known:
            raise unknown(what, str(value), known)
    if bits is not None:
        check_whole("bits", bits)


def _check_formats(method: str, state: str, memory: str) -> None:
    """Refuse formats that a method of few bits does not make."""
    for what, value in (("state", state), ("memory", memory)):
        if value != "float32":
            raise InputError(
                f"{method} leaves the {what} in float32: leave --{what} {value} out, or quantize what it writes by ptq"
            )


def _check_request(
    parent: Folder,
    method: str,
    bits: int,
    teachers: Sequence[str | Path],
    changes: dict[str, Any],
) -> None:
    """Refuse what cannot be asked for together, before any data is read."""
    if bits not in BITS:
        raise InputError(f"{method} makes weights of 8 or 4 bits, not {bits}: for others use --method qd or dq")
    if parent.manifest.precision != Precision():
        have = parent.manifest.precision.weights
        raise InputError(f"{parent.path} has {have} weights already: start from the float model that it came from")
    if method == "ptq" and (changes or teachers):
        what = f"{next(iter(changes))} is a setting" if changes else "a teacher is there"
        raise InputError(f"{what} for training, and ptq does not train: use --method qat")
    check_taught(changes, teachers)
