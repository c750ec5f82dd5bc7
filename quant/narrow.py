"""Fewer units of a width: the same model, built smaller, with the tensors of the units that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.models.contract import Place, StreamingModel, Width, mask_zeros
from edgeseq.models.registry import build
from edgeseq.models.sparse_rnn import PARTS

Kept = Mapping[str, Tensor]  # by width, which units each lane keeps (lanes, k), rising


def narrowed(
    model: StreamingModel, family: str, arguments: Mapping[str, Any], kept: Kept, *, trust: bool = False
) -> tuple[StreamingModel, dict[str, Any]]:
    """A model of ``family`` with the units that are ``kept`` of some of the ``model``'s widths, and its arguments.

    Weights that were pruned stay so. ``model`` is left as it is. Widths go in the order that the model names them in,
    as the lanes of one may be the units of a later one.

    Raises:
        InputError: a width that the model has not, or other units than it has, or fewer than must remain.
        Unsupported: the model is quantized.
    """
    plain = build(family, model.input_size, model.output_size, dict(arguments), trust=trust)
    if plain.state_dict().keys() != model.state_dict().keys():
        raise Unsupported(f"this {family} is quantized, with ranges for all of its units: make it narrower before that")
    _check(model.widths(), kept)
    made, changed, zeroed = model, dict(arguments), _zeroed(model, plain)
    for name in [name for name in model.widths() if name in kept]:
        widths, units = made.widths(), kept[name]
        sizes = {each: width.size for each, width in widths.items()} | {name: units.shape[1]}
        changed |= made.resized(sizes)
        smaller = build(family, made.input_size, made.output_size, changed, trust=trust).to(made.input_mean)
        whole, fresh = made.whole(), smaller.whole()
        for place in sorted(widths[name].places, key=lambda place: -place.start):  # what is ahead stays where it is
            whole[place.name] = cut(whole[place.name], place, widths[name], units)
        smaller.take({each: fresh[each] if each in widths[name].constants else whole[each] for each in fresh})
        made = smaller.train(model.training)
    mask_zeros(made, (name for name in made.projections() if name.partition(PARTS)[0] in zeroed))
    return made, changed


def _zeroed(model: StreamingModel, fresh: StreamingModel) -> set[str]:
    """Names of the linear maps that weights were taken out of, beside those that a ``fresh`` one never has.

    Of a map that is kept in parts the name of the whole, as a smaller one has other parts.
    """
    never = fresh.masks()
    masks = {name: mask.cpu() for name, mask in model.masks().items()}
    return {
        name.partition(PARTS)[0]
        for name, mask in masks.items()
        if name not in never or not torch.equal(mask, never[name])
    }


def _check(widths: Mapping[str, Width], kept: Kept) -> None:
    for name, units in kept.items():
        if name not in widths:
            raise unknown("width", name, widths)
        width, (lanes, count) = widths[name], units.shape
        if lanes != width.lanes or not width.least <= count <= width.size:
            raise InputError(
                f"{name}: {count} units in {lanes} lanes cannot be kept of {width.size} in {width.lanes}: at least "
                f"{width.least} remain"
            )
        there = torch.arange(count if width.nested else width.size)
        if not (bool((units.diff(dim=1) > 0).all()) and bool(torch.isin(units.cpu(), there).all())):
            raise InputError(
                f"{name}: units {units.tolist()} cannot be kept: those below {len(there)} can, rising, each once"
            )


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
