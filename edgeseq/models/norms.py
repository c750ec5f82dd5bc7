"""Batch norm, and what becomes of it once a model is trained: an affine map of each channel, folded where it can be.

    y = g (x - μ) / √(v + ε) + b  =  s x + d        with μ, v the running mean and variance of training

Behind a linear map it is that map with other weights; ahead of one too. Between a residual sum and a spiking neuron
there is nothing to fold it into, and the affine map stays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Over batch and time ``(..., C)``; when not training an affine map of each channel.

    The statistics of training are of frames alone: ``live (..., 1)`` is 0 where ``x`` is made of no frame, ahead of a
    recording or behind its end. So they do not hang on what a segment was filled up with, to the length of its
    neighbours; a model with such norms is a LookAheadModel, which is told. In training 0 is said of what is not there.
    A single frame has no variance: of fewer than two the running statistics are taken, and left as they are.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        return of_frames(self._normed, live if self.training else None, x)

    def _normed(self, x: Tensor) -> Tensor:
        """``x (..., C)`` by its own statistics in training, or by the running ones."""
        flat = x.flatten(0, 1) if x.ndim == 3 else x  # (N, C)
        own = self.training and len(flat) > 1
        flat = batch_norm(flat, self.running_mean, self.running_var, self.weight, self.bias, own, eps=EPSILON)
        return flat.reshape(x.shape) if x.ndim == 3 else flat

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``(C)`` in eval mode, computed in float64."""
        spread = (self.running_var.double() + EPSILON).sqrt()
        scale = self.weight.detach().double() / spread
        shift = self.bias.detach().double() - self.running_mean.double() * scale
        return scale.to(self.weight.dtype), shift.to(self.weight.dtype)


class Affine(nn.Module):
    """``s x + d`` of each channel ``(..., C)``: a batch norm that was folded, and may be trained on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def of_frames(function: Callable[..., Tensor], live: Tensor | None, *inputs: Tensor) -> Tensor:
    """What ``function`` makes of ``inputs (..., C)`` where ``live (..., 1)`` is 1, of those frames alone; else 0.

    Frames may stand in any shape, and without ``live``, or with 1 everywhere, they are left as they stand.
    """
    if live is None or bool(live.all()):
        return function(*inputs)
    there = live.flatten().nonzero()[:, 0]  # (N)
    made = function(*(x.flatten(0, -2).index_select(0, there) for x in inputs))  # (N, C)
    filled = made.new_zeros(live.numel(), made.shape[-1]).index_copy(0, there, made)
    return filled.reshape(*live.shape[:-1], -1)


def normed(norm: nn.Module, x: Tensor, live: Tensor | None) -> Tensor:
    """``x (..., C)`` through a layer's norm of any kind; of them a batch norm asks which frames are there."""
    y: Tensor = norm(x, live) if isinstance(norm, BatchNorm) else norm(x)
    return y


def norm(channels: int, *, folded: bool) -> BatchNorm | Affine:
    """The norm of a layer that is between two things it cannot be folded into."""
    return Affine(channels) if folded else BatchNorm(channels)


def norm_behind(channels: int, *, folded: bool) -> BatchNorm | nn.Identity:
    """The norm behind a linear map, which is part of that map once it is folded."""
    return nn.Identity() if folded else BatchNorm(channels)


@torch.no_grad()
def folded_norm(norm: nn.Module) -> Affine:
    """The affine map that a batch norm is in eval mode; one that is folded already is returned as it is."""
    if isinstance(norm, Affine):
        return norm
    assert isinstance(norm, BatchNorm)
    made = Affine(len(norm.weight)).to(norm.weight)
    scale, shift = norm.affine()
    made.scale.copy_(scale)
    made.shift.copy_(shift)
    return made


@torch.no_grad()
def fold_behind(linear: nn.Linear, norm: nn.Module) -> nn.Identity:
    """Multiply a batch norm into the linear map ahead of it, in place; returns what stands in the norm's place.

    The map needs a bias.
    """
    if isinstance(norm, BatchNorm):
        scale, shift = norm.affine()
        linear.weight.mul_(scale[:, None])
        linear.bias.copy_(linear.bias * scale + shift)
    return nn.Identity()
