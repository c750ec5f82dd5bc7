"""What a model's tensors are at their true size: the codings of weights.packed that the model itself implies."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeseq.models.contract import State, StreamingModel, weight_of
from edgeseq.models.quantized import SMALLEST_ROW, QuantizedLinear, quantized_linears
from edgeseq.packed import Coded, Floats, Plain, Rows
from edgeseq.packed_file import read_packed, smaller


def code(model: StreamingModel, tensors: State, given: Mapping[str, Coded]) -> dict[str, Coded]:
    """The coding of each of a model's ``tensors``; nothing of a model all of whose numbers are float32 and there.

    ``given`` are those that are known already. Others follow from the model: integers of its quantized linear maps, and
    no zeros where it is pruned or was wired sparsely. What is coded stands for exactly the numbers that the model
    computes with: a quantized weight lies on the grid of its row, not where training left it beside that.

    Raises:
        ValueError: a tensor that is given is not the model's.
    """
    layers = quantized_linears(model)
    if not (given or layers or model.masks()):
        return {}
    coded = {**_integers(layers), **given}
    for name, tensor in tensors.items():
        values = tensor.cpu().numpy()
        if name not in coded:  # a -0 of a pruned weight is a 0
            coded[name] = smaller(np.where(values == 0, 0, values)) if tensor.dtype == torch.float32 else Plain(values)
    for name, known in given.items():
        if name not in tensors or not np.array_equal(known.decoded(), tensors[name].cpu().numpy()):
            raise ValueError(f"{name} is coded as other numbers than the model has")
    return {name: coded[name] for name in tensors}


def tensor_of(coded: Coded) -> Tensor:
    """The numbers that a coding stands for."""
    return torch.from_numpy(np.array(coded.decoded(), order="C"))


def check_packed(path: Path, tensors: State) -> None:
    """Read a weights.packed again, and see that it holds ``tensors``, bit for bit: if it does not, that is a bug."""
    found = {name: coded.decoded() for name, coded in read_packed(path).items()}
    for name, tensor in tensors.items():
        ours, theirs = tensor.cpu().numpy(), found[name]
        if (ours.dtype, ours.shape, ours.tobytes()) != (theirs.dtype, theirs.shape, theirs.tobytes()):
            raise RuntimeError(f"{name} is another tensor in {path} than it was")


def _integers(layers: Mapping[str, QuantizedLinear]) -> dict[str, Coded]:
    """The weights of quantized linear maps, by the name of the tensor, where rows of integers say them exactly."""
    found = {f"{name}.linear.weight": rows(layer) for name, layer in layers.items()}
    return {name: coded for name, coded in found.items() if coded is not None}


@torch.no_grad()
def rows(layer: QuantizedLinear) -> Rows | None:
    """The integers of a quantized map as numbers from which the same integers, scales and biases come again.

    None, if there are no such numbers: the scale of a row that is coarse for its bias's sake may be none that a float32
    top gives.
    """
    weight = weight_of(layer)
    if weight.dtype != torch.float32:
        return None
    levels, _, scale = layer.integers()
    top = _tops(weight.cpu(), scale.cpu(), layer.limit)
    coded = Rows(levels.cpu().numpy(), top, layer.limit)
    again = copy.deepcopy(layer)
    weight_of(again).copy_(tensor_of(coded))
    exact = all(torch.equal(ours, theirs) for ours, theirs in zip(layer.integers(), again.integers(), strict=True))
    return coded if exact else None


def _tops(weight: Tensor, scale: Tensor, limit: int) -> Floats:
    """What the largest level of each row stands for: its largest weight, or what its scale says otherwise."""
    top = weight.abs().amax(1).clamp(min=SMALLEST_ROW)
    # Of no scale is a neighbour of scale * limit the right top where that is not: all of a binade were tried.
    top = torch.where(top / limit == scale, top, scale * limit)
    found: Floats = top.numpy()
    return found
