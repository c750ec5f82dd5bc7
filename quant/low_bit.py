"""Weights of few bits in a model that trains, and what is written of them in the end.

Quantized distillation: the model computes with Q(w); the gradient at Q(w) is taken for that at w, which is what the
optimizer changes and the running average follows. Differentiable quantization: w stays as it is, and the points that it
is rounded to are learned, one set a tensor (:mod:`edgeseq.quant.quantizer` has both). The quantizers are torch's
parametrizations, in place while the model trains, and gone from what is scored and written.

The weights of linear maps get the bits that are asked for, what else is trained gets 8; time constants, neurons'
thresholds, the normalization of the input and tensors of fewer than 4 numbers stay float32. Weights that were pruned
are in no bucket, and stay 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeseq.errors import InputError
from edgeseq.models.contract import StreamingModel
from edgeseq.packed import Bucketed, Floats
from edgeseq.quant.quantizer import (
    Scaled,
    at_points,
    even_levels,
    mean_code_length,
    nearest,
    quantile_points,
    quantized,
    scaled,
)

LEAST_BITS, MOST_BITS = 2, 8
OTHER_BITS = 8  # of what is trained beside the weights of linear maps
LEAST_NUMBERS = 4  # in a tensor: α and β would take the room that fewer bits save
MOST_POINTS = 2**MOST_BITS


class _StraightThrough(torch.autograd.Function):
    """``quantized``, with the gradient of ``weight`` where it is ``present``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, quantizer: Even) -> Tensor:
        ctx.present = quantizer.present
        return quantizer.rounded(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient if ctx.present is None else gradient * ctx.present, None


class Rounding(nn.Module, ABC):
    """A parametrization that rounds a tensor in buckets of ``bucket`` (0: one), but for what is not ``present``."""

    present: Tensor | None

    def __init__(self, bits: int, bucket: int, present: Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.bucket = bits, bucket
        self.register_buffer("present", present, persistent=False)

    def scaled(self, weight: Tensor) -> Scaled:
        """The present numbers of ``weight`` in buckets."""
        return scaled(self._flat(weight), self.bucket)

    def coded(self, weight: Tensor) -> Bucketed:
        """What ``weight`` is rounded to, in its bits."""
        buckets = self.scaled(weight.detach())
        return Bucketed(
            shape=tuple(weight.shape),
            levels=self._levels(buckets).flatten()[: buckets.length].to(torch.uint8).numpy(),
            bits=self.bits,
            bucket=self.bucket,
            alpha=buckets.alpha.flatten().numpy(),
            beta=buckets.beta.flatten().numpy(),
            points=self._points(),
            present=None if self.present is None else self.present.numpy(),
        )

    @abstractmethod
    def _levels(self, buckets: Scaled) -> Tensor:
        """Of each number the index of its point, as ``buckets.unit`` has them."""

    def _points(self) -> Floats | None:
        return None

    def _flat(self, weight: Tensor) -> Tensor:
        return weight.flatten() if self.present is None else weight[self.present]

    def _whole(self, values: Tensor, weight: Tensor) -> Tensor:
        """The present ``values (n)`` as a tensor of the shape of ``weight``, 0 elsewhere."""
        if self.present is None:
            return values.view_as(weight)
        return torch.zeros_like(weight).masked_scatter(self.present, values)


class Even(Rounding):
    """2^bits even points; the gradient goes straight through to the weights."""

    def forward(self, weight: Tensor) -> Tensor:
        """``weight``, rounded."""
        return cast(Tensor, _StraightThrough.apply(weight, self))  # type: ignore[no-untyped-call]

    def rounded(self, weight: Tensor) -> Tensor:
        """The same without a gradient."""
        return self._whole(quantized(self._flat(weight), self.bits, self.bucket), weight)

    def _levels(self, buckets: Scaled) -> Tensor:
        return even_levels(buckets.unit, self.bits)


class Learned(Rounding):
    """``count`` points that are learned, at first the quantiles of ``weight``, which is fixed.

    They are put in order where they are used, so that a step may bring two past each other.
    """

    def __init__(self, weight: Tensor, count: int, bucket: int, present: Tensor | None = None) -> None:
        super().__init__((count - 1).bit_length(), bucket, present)
        self.points = nn.Parameter(quantile_points(self.scaled(weight.detach()), count))

    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` at the points next to it."""
        return self._whole(at_points(self.scaled(weight), self.points.sort().values), weight)

    def _levels(self, buckets: Scaled) -> Tensor:
        return nearest(buckets.unit, self.points.detach().sort().values)

    def _points(self) -> Floats:
        return cast(Floats, self.points.detach().sort().values.numpy())


def bits_of(model: StreamingModel, bits: int) -> dict[str, int]:
    """By name of a trained tensor the bits that it gets; what stays float32 is not there.

    Raises:
        InputError: ``bits`` are not 2 to 8.
    """
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise InputError(f"bits {bits}: {LEAST_BITS} to {MOST_BITS} are needed")
    slow, maps = set(model.dynamics()), {f"{name}.weight" for name in model.projections()}
    return {
        name: bits if name in maps else OTHER_BITS
        for name, tensor in model.named_parameters()
        if tensor.requires_grad and name not in slow and _numbers(model, name, tensor) >= LEAST_NUMBERS
    }


def train_weights(model: StreamingModel, bits: Mapping[str, int], bucket: int) -> None:
    """Let ``model`` compute with its tensors rounded to even points, of so many ``bits`` by name, and train on."""
    _install(model, {name: Even(count, bucket, _present(model, name)) for name, count in bits.items()})


def train_points(model: StreamingModel, bits: Mapping[str, int], points: Mapping[str, int], bucket: int) -> None:
    """Let ``model`` compute with its tensors rounded, to ``points`` that train or to even ones; nothing else trains."""
    made: dict[str, Rounding] = {}
    for name, count in bits.items():
        weight, present = model.get_parameter(name), _present(model, name)
        learned = points.get(name)
        made[name] = Learned(weight, learned, bucket, present) if learned else Even(count, bucket, present)
    model.requires_grad_(False)
    _install(model, made)


def trained(model: StreamingModel) -> tuple[str, ...]:
    """Names of the parameters that train."""
    return tuple(name for name, tensor in model.named_parameters() if tensor.requires_grad)


def settle(model: StreamingModel, names: Iterable[str]) -> dict[str, Bucketed]:
    """Leave in ``model`` the rounded tensors as plain parameters, and say them in their bits.

    ``names``: what was :func:`trained` before, and is to be again.
    """
    found = {}
    for prefix, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            for leaf in list(cast(nn.ModuleDict, module.parametrizations)):
                found[f"{prefix}.{leaf}" if prefix else leaf] = _settled(module, leaf)
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), _Once)]:
                del hooks[key]
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    return found


def _settled(module: nn.Module, leaf: str) -> Bucketed:
    held = cast(Any, module.parametrizations)[leaf]
    rounding = cast(Rounding, held[0])
    coded = rounding.coded(held.original)
    parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
    if rounding.present is not None:
        module.register_buffer("mask", rounding.present, persistent=False)
    return coded


def mean_bits(coded: Iterable[Bucketed]) -> float:
    """Bits that a level takes on average, each tensor in a Huffman code of its own; without α, β and points."""
    sizes, bits = [], []
    for each in coded:
        sizes.append(each.levels.size)
        bits.append(mean_code_length(np.bincount(each.levels, minlength=256)) * each.levels.size)
    return sum(bits) / max(sum(sizes), 1)


def _numbers(model: StreamingModel, name: str, tensor: Tensor) -> int:
    present = _present(model, name)
    return tensor.numel() if present is None else int(present.sum())


def _present(model: StreamingModel, name: str) -> Tensor | None:
    """Where the tensor ``name`` exists, if it is the weight of a map that was pruned or is wired."""
    owner, _, leaf = name.rpartition(".")
    mask: Tensor | None = getattr(model.get_submodule(owner), "mask", None) if leaf == "weight" else None
    return mask


def _install(model: StreamingModel, made: Mapping[str, Rounding]) -> None:
    for name, rounding in made.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if rounding.present is not None:
            del module.mask  # who keeps to it works on parameters, and the weight is none now: the rounding keeps it
        parametrize.register_parametrization(module, leaf, rounding)
    for module in list(model.modules()):
        if isinstance(module, StreamingModel):
            once = _Once()
            module.register_forward_pre_hook(once.begin)
            module.register_forward_hook(once.end, always_call=True)


class _Once:
    """Around a call of a model: what its tensors are rounded to is computed once, not at every frame of a loop."""

    def __init__(self) -> None:
        self.open: list[AbstractContextManager[None]] = []

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Ahead of the call."""
        context = cast("AbstractContextManager[None]", parametrize.cached())
        context.__enter__()
        self.open.append(context)

    def end(self, module: nn.Module, inputs: Any, answer: Any) -> None:
        """After it."""
        self.open.pop().__exit__(None, None, None)
