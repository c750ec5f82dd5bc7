"""Calibration: the ranges that activations and states really take, on recordings streamed with their state carried.

True least and greatest values. An average over frames, which is what converters take by default, comes out far too
narrow for a stream: its states grow over seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgeseq.data import Recording
from edgeseq.errors import Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.contract import Store, StreamingModel
from edgeseq.models.quantized import (
    WEIGHT_LIMITS,
    QuantizedLinear,
    Quantizer,
    quantized_linears,
    state_grids,
    with_precision,
)

Span = tuple[float, float]
LARGEST_WEIGHT_ERROR = 0.2  # of a map's weights, relative, which goes without a word
LARGEST_MULTIPLIER = 256  # from a step of the products to steps of the answer: XNNPACK's bound, which it is below


@dataclass
class Mean:
    """A mean of squares, summed up as they come: of scalars, or of each element of a tensor."""

    total: Tensor
    count: int

    @property
    def root(self) -> Tensor:
        """The root of it (rms)."""
        return (self.total / self.count).sqrt()


@dataclass
class Ranges:
    """Least and greatest value of the inputs and outputs of each linear map, and the largest |state| of each store.

    ``squares`` are the mean squares of the same, by "inputs", "outputs" and "states" and then by name.
    """

    inputs: dict[str, Span] = field(default_factory=dict)
    outputs: dict[str, Span] = field(default_factory=dict)
    states: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, dict[str, Mean]] = field(default_factory=lambda: {"inputs": {}, "outputs": {}, "states": {}})

    def add_squares(self, kind: str, name: str, values: Tensor, shape: tuple[int, ...] = ()) -> None:
        """Count in ``values (..., *shape)``, whose mean squares are of ``shape``."""
        flat = values.reshape(-1, *shape)
        known = self.squares[kind].setdefault(name, Mean(torch.zeros(shape), 0))
        known.total += torch.dot(flat, flat) if not shape else flat.square().sum(0)
        known.count += len(flat)


@torch.no_grad()
def calibrate(
    model: StreamingModel, recordings: Sequence[Recording], tick: Callable[[], None] = lambda: None
) -> Ranges:
    """Stream the recordings side by side through the float ``model``, frame by frame; ``tick`` is called at each."""
    ranges = Ranges()
    hooks = _watch(model, ranges)
    ordered = sorted(recordings, key=lambda recording: -len(recording.x))
    lengths = [len(recording.x) for recording in ordered]
    x = torch.zeros(len(ordered), lengths[0], model.input_size)  # (B, T, C)
    for row, recording in enumerate(ordered):
        x[row, : lengths[row]] = torch.from_numpy(recording.x)
    state, running = model.initial_state(len(ordered)), len(ordered)
    try:
        for t in range(lengths[0]):
            while lengths[running - 1] <= t:  # the longest come first: what has ended stands at the end
                running -= 1
            state = {name: tensor[:running] for name, tensor in state.items()}
            _, state = model.step(x[:running, t], state)
            tick()
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def _watch(model: StreamingModel, ranges: Ranges) -> list[torch.utils.hooks.RemovableHandle]:
    hooks = []
    for name in model.projections():

        def project(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor, name: str = name) -> None:
            ranges.inputs[name] = _wider(ranges.inputs.get(name), given[0])
            ranges.outputs[name] = _wider(ranges.outputs.get(name), answer)
            ranges.add_squares("inputs", name, given[0])
            ranges.add_squares("outputs", name, answer)

        hooks.append(model.get_submodule(name).register_forward_hook(project))
    for name, module in model.named_modules():
        if isinstance(module, Store):

            def keep(store: Store, _: tuple[Tensor, ...], state: Tensor, name: str = name) -> None:
                largest = state.abs().reshape(-1, *store.shape).amax(0)
                ranges.add_squares("states", name, state, store.shape)
                known = ranges.states.get(name)
                ranges.states[name] = largest if known is None else torch.maximum(known, largest)

            hooks.append(module.register_forward_hook(keep))
    return hooks


def _wider(span: Span | None, values: Tensor) -> Span:
    low, high = (float(bound) for bound in torch.aminmax(values))
    return (low, high) if span is None else (min(span[0], low), max(span[1], high))


def quantize_model(model: StreamingModel, precision: Precision, ranges: Ranges) -> StreamingModel:
    """Give the float ``model``, in place, the layers of ``precision`` with these ranges.

    Raises:
        Unsupported: as :func:`edgeseq.models.quantized.with_precision` does; or a layer is never called, or answers so
            little that int8 cannot say it.
    """
    projections = model.projections()
    _check_called(model, precision, ranges)
    with_precision(model, precision)
    grids = state_grids(model)
    for name, grid in grids.items():
        grid.set_range(ranges.states[name])
    for name, layer in quantized_linears(model).items():
        place = projections[name]
        low, high = ranges.outputs[name]
        layer.output.set_range(0.0 if place.rectified else low, high)
        if not place.follows:  # else the input is the output of another, and has its range
            layer.input.set_range(*ranges.inputs[name])
        read = grids.get(place.reads)
        if precision.state == "int8" and read is not None and not read.shape:
            layer.input.follow_grid(read.scale)
    for name, layer in quantized_linears(model).items():  # once all have their ranges, which some share
        _check_multipliers(name, layer)
    return model


def _check_called(model: StreamingModel, precision: Precision, ranges: Ranges) -> None:
    if precision.weights in WEIGHT_LIMITS:
        for name in model.projections():
            if name not in ranges.inputs:
                raise Unsupported(
                    f"{name} is never called in step: leave it out by overriding projections(), as for a linear map "
                    "that is there only for training"
                )
    if precision.state != "float32":
        for name, module in model.named_modules():
            if isinstance(module, Store) and name not in ranges.states:
                raise Unsupported(
                    f"{name} is never called in step, so no state passes it: take the Store out of the model, or keep "
                    "the state in float32"
                )


def _check_multipliers(name: str, layer: QuantizedLinear) -> None:
    """Refuse what no integer operator computes, before anything is trained or written."""
    *_, scale = layer.parts()
    multiplier = scale.detach() / layer.output.scale
    if not bool(((multiplier > 0) & (multiplier < LARGEST_MULTIPLIER)).all()):
        raise Unsupported(
            f"{name} answers on a scale of {float(layer.output.scale):.3g}, and one step of its int8 products is up to "
            f"{float(scale.max()):.3g}: the two must be above 0 and less than a factor of {LARGEST_MULTIPLIER} apart. "
            "On the training subjects it says next to nothing: train longer, or leave it out by overriding "
            "projections()"
        )


def coarse(model: StreamingModel, ranges: Ranges) -> list[str]:
    """What to say of a model that :func:`quantize_model` made, where its formats are too coarse for what was measured.

    A map's inputs or outputs, or a state, of which a step is more than the rms, so that most of it becomes 0; weights
    that are off by more than a fifth, because one of a row is much larger than the others.
    """
    found, layers = [], quantized_linears(model)
    outputs = {id(layer.output) for layer in layers.values()}
    for name, layer in layers.items():
        spans = {"outputs": (layer.output, ranges.outputs)}
        if id(layer.input) not in outputs:  # else it is one of those
            spans["inputs"] = (layer.input, ranges.inputs)
        for kind, (quantizer, known) in spans.items():
            found += _lost(name, kind, quantizer, known[name], ranges.squares[kind].get(name))
        error = _weight_error(layer)
        if error > LARGEST_WEIGHT_ERROR:
            bits = 8 if layer.limit == WEIGHT_LIMITS["int8"] else 4
            found.append(
                f"{name}: its weights in {bits} bits are off by {100 * error:.0f} % (rms), as some of a row are much "
                "larger than the others: use --method qat or more bits, or train with more weight_decay"
            )
    for name, grid in state_grids(model).items():
        mean = ranges.squares["states"].get(name)
        if mean is None:
            continue
        lost = (grid.scale > mean.root) & (mean.root > 0)
        if bool(lost.any()):
            step, rms = float(grid.scale[lost].max()), float(mean.root[lost].min())
            found.append(
                f"{name}: in {int(lost.sum())} of {lost.numel()} scales of the state a step (up to {step:.3g}) is more "
                f"than the rms (down to {rms:.3g}), so most of it becomes 0: use --state int16 or float32"
            )
    return found


def _lost(name: str, kind: str, quantizer: Quantizer, span: Span, mean: Mean | None) -> list[str]:
    """The warning about inputs or outputs that one step of int8 is too much for; none of others."""
    if mean is None or not 0 < float(mean.root) < float(quantizer.scale):
        return []
    return [
        f"{name}: its {kind} lie between {span[0]:.3g} and {span[1]:.3g}, so a step of int8 is "
        f"{float(quantizer.scale):.3g}, and their rms is {float(mean.root):.3g}: most of them become 0. Clip what "
        "makes the largest, train longer, or leave the map float by overriding projections()"
    ]


@torch.no_grad()
def _weight_error(layer: QuantizedLinear) -> float:
    """How far the weights are off, relative to their root mean square."""
    weight, plain = layer.parts()[0], layer.linear.weight
    size = float(plain.norm())
    return float((weight - plain).norm()) / size if size else 0.0
