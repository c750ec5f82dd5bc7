"""The integer form of quantized layers, for capture: three operators with the step program's own meaning, in torch.

They are registered with torch so that a captured graph keeps them whole. Their values are exact: sums of products of
8-bit numbers fit in float64 with room to spare.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.models.quantized import QuantizedLinear
from edgeseq.program.quantized import HIGHEST, LOWEST


@torch.library.custom_op("edgeseq::quantize", mutates_args=())
def quantize(x: Tensor, scale: float, zero: int) -> Tensor:
    """``clip(round(x * (1 / scale)) + zero)`` as int8; the reciprocal is that of float32."""
    inverse = float(np.float32(1) / np.float32(scale))
    return torch.clamp(torch.round(x * inverse) + zero, LOWEST, HIGHEST).to(torch.int8)


@torch.library.custom_op("edgeseq::dequantize", mutates_args=())
def dequantize(q: Tensor, scale: float, zero: int) -> Tensor:
    """``(q - zero) * scale`` as float32."""
    return (q.to(torch.float32) - zero) * scale


@torch.library.custom_op("edgeseq::qlinear", mutates_args=())
def qlinear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    weight_scale: Tensor,
    x_scale: float,
    x_zero: int,
    y_scale: float,
    y_zero: int,
) -> Tensor:
    """``clip(round(acc * (x_scale * weight_scale / y_scale)) + y_zero)`` of the exact ``acc = W (x - x_zero) + b``."""
    acc = linear(x.to(torch.float64) - x_zero, weight.to(torch.float64), bias.to(torch.float64))
    multiplier = weight_scale * x_scale / y_scale  # float32: the scalars are rounded to it
    return torch.clamp(torch.round(acc.to(torch.float32) * multiplier) + y_zero, LOWEST, HIGHEST).to(torch.int8)


@quantize.register_fake
def _(x: Tensor, scale: float, zero: int) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.int8)


@dequantize.register_fake
def _(q: Tensor, scale: float, zero: int) -> Tensor:
    return q.new_empty(q.shape, dtype=torch.float32)


@qlinear.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.int8)


class IntegerLinear(nn.Module):
    """What a device computes of a :class:`QuantizedLinear`: int8 in, int32 sums, int8 out, and floats around it."""

    weight: Tensor
    bias: Tensor
    weight_scale: Tensor

    def __init__(self, layer: QuantizedLinear) -> None:
        super().__init__()
        for name, tensor in zip(("weight", "bias", "weight_scale"), layer.integers(), strict=True):
            self.register_buffer(name, tensor)
        self.x = float(layer.input.scale), int(layer.input.zero)
        self.y = float(layer.output.scale), int(layer.output.zero)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, in)`` to ``y (B, out)``."""
        q = qlinear(quantize(x, *self.x), self.weight, self.bias, self.weight_scale, *self.x, *self.y)
        return cast(Tensor, dequantize(q, *self.y))


def with_integers(model: nn.Module) -> nn.Module:
    """Replace the quantized linear maps of ``model``, in place, by their integer form."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            model.set_submodule(name, IntegerLinear(module))
    return model
