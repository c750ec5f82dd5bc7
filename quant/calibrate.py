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
from edgeseq.models.quantized import QuantizedLinear, quantized_linears, state_grids, with_precision

Span = tuple[float, float]
LARGEST_MULTIPLIER = 256  # from a step of the products to steps of the answer: XNNPACK's bound, which it is below


@dataclass
class Ranges:
    """Least and greatest value of the inputs and outputs of each linear map, and the largest |state| of each store."""

    inputs: dict[str, Span] = field(default_factory=dict)
    outputs: dict[str, Span] = field(default_factory=dict)
    states: dict[str, Tensor] = field(default_factory=dict)


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

        hooks.append(model.get_submodule(name).register_forward_hook(project))
    for name, module in model.named_modules():
        if isinstance(module, Store):

            def keep(store: Store, _: tuple[Tensor, ...], state: Tensor, name: str = name) -> None:
                largest = state.abs().reshape(-1, *store.shape).amax(0)
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
    if precision.weights == "int8":
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
