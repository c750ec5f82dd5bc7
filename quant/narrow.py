"""Fewer units of a width: the same model, built smaller, with the tensors of the units that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgeseq.models.contract import Place, StreamingModel, Width, set_mask, weight_of
from edgeseq.models.registry import build

Kept = Mapping[str, Tensor]  # by width, which units each lane keeps (lanes, k), rising


def narrowed(
    model: StreamingModel, family: str, arguments: Mapping[str, Any], kept: Kept, *, trust: bool = False
) -> tuple[StreamingModel, dict[str, Any]]:
    """A model of ``family`` with the units that are ``kept`` of some of the ``model``'s widths, and its arguments.

    Weights that were pruned stay so. ``model`` is left as it is.
    """
    made, changed = model, dict(arguments)
    for name, units in kept.items():
        widths = made.widths()
        sizes = {each: width.size for each, width in widths.items()} | {name: units.shape[1]}
        changed |= made.resized(sizes)
        smaller = build(family, made.input_size, made.output_size, changed, trust=trust).to(made.input_mean)
        whole, fresh = made.whole(), smaller.whole()
        for place in widths[name].places:
            whole[place.name] = cut(whole[place.name], place, widths[name], units)
        smaller.take({each: fresh[each] if each in widths[name].constants else whole[each] for each in fresh})
        made = smaller.train(model.training)
    for name in pruned(model):
        layer = made.get_submodule(name)
        set_mask(layer, weight_of(layer) != 0)
    return made, changed


def pruned(model: StreamingModel) -> tuple[str, ...]:
    """Names of the linear maps that weights were taken out of."""
    return tuple(model.masks())


def cut(tensor: Tensor, place: Place, width: Width, units: Tensor) -> Tensor:
    """What is left of a tensor in one place when ``units (lanes, k)`` of a width are kept."""
    if place.lane_axis is not None:
        shape = [1] * tensor.ndim
        shape[place.lane_axis], shape[place.axis] = units.shape
        by_lane = units if place.lane_axis < place.axis else units.T
        return torch.take_along_dim(tensor, by_lane.reshape(shape), place.axis)
    return tensor.index_select(place.axis, _indices(tensor.shape[place.axis], place, width, units))


def _indices(length: int, place: Place, width: Width, units: Tensor) -> Tensor:
    """Of an axis of ``length``, the indices that remain: all that are of none of the width's units, and those kept."""
    lane = torch.arange(width.lanes)[:, None]
    first = ((torch.arange(place.runs)[:, None, None] * width.lanes + lane) * width.size + units) * place.each
    inside = (place.start + first[..., None] + torch.arange(place.each)).flatten()
    stays = torch.ones(length, dtype=torch.bool)
    stays[place.start : place.start + place.runs * width.lanes * width.size * place.each] = False
    stays[inside] = True
    return stays.nonzero().flatten()
