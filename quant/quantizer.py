"""The quantizers of quantized distillation: few values for many weights, each bucket of them scaled to 0..1.

    α = max - min,  β = min,  u = (w - β) / α                     of each bucket of consecutive weights
    even points     Q(w) = α · round(u (s - 1)) / (s - 1) + β     s = 2^b of them, half to even
    learned points  Q(w) = α · p_j + β                            p_j the point next to u, of two as near the upper one

Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018; the order of operations is
that of the authors' code, so that float32 numbers come out alike.

Shape letters: n weights, N buckets of k, s points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseq.bits import code_lengths
from edgeseq.errors import InputError

SMALLEST_RANGE = 1e-10  # below it a bucket is constant, and α is 1


class Scaled(NamedTuple):
    """Weights in buckets: ``unit (N, k)`` of 0..1, and the ``alpha, beta (N, 1)`` that take it back.

    The ``length`` n is no more than N k: the last bucket is filled up with the last weight.
    """

    unit: Tensor
    alpha: Tensor
    beta: Tensor
    length: int

    def back(self, unit: Tensor) -> Tensor:
        """The weights ``(n)`` that ``unit (N, k)`` stands for."""
        return (unit * self.alpha + self.beta).flatten()[: self.length]


def scaled(weights: Tensor, bucket: int) -> Scaled:
    """``weights (n)`` in buckets of ``bucket``; 0, or more than there are: all in one."""
    count = len(weights)
    size = min(bucket, count) if bucket else count
    filled = torch.cat([weights, weights[-1:].expand(-count % size)]) if size else weights
    buckets = filled.view(-1, max(size, 1))  # (N, k)
    if not count:
        return Scaled(buckets, weights.new_zeros(0, 1), weights.new_zeros(0, 1), 0)
    low, high = buckets.aminmax(dim=1, keepdim=True)
    alpha = high - low
    alpha = torch.where(alpha < SMALLEST_RANGE, torch.ones_like(alpha), alpha)
    return Scaled((buckets - low) / alpha, alpha, low, count)


def even_levels(unit: Tensor, bits: int) -> Tensor:
    """Of each number the nearest of 2^bits even levels, 0 to 2^bits - 1, as a float."""
    return torch.round(unit * float(2**bits - 1))


def even_values(levels: Tensor, bits: int) -> Tensor:
    """The points 0..1 that even levels stand for."""
    return levels / float(2**bits - 1)


def quantized(weights: Tensor, bits: int, bucket: int) -> Tensor:
    """``weights (n)`` rounded to the 2^bits even points of their buckets."""
    buckets = scaled(weights, bucket)
    return buckets.back(even_values(even_levels(buckets.unit, bits), bits))


def quantile_points(buckets: Scaled, count: int) -> Tensor:
    """Points ``(s)`` to start from: evenly spaced quantiles of the weights, scaled."""
    weights = buckets.unit.flatten()[: buckets.length].double()
    return torch.quantile(weights, torch.linspace(0, 1, count, dtype=torch.float64)).to(buckets.unit)


def nearest(unit: Tensor, points: Tensor) -> Tensor:
    """The index of the point next to each number of ``unit``; of two as near, the upper. ``points (s)`` rise."""
    upper = torch.searchsorted(points, unit).clamp(max=len(points) - 1)
    lower = (upper - 1).clamp(min=0)
    return torch.where(unit - points[lower] < points[upper] - unit, lower, upper)


def at_points(buckets: Scaled, points: Tensor) -> Tensor:
    """The weights ``(n)`` at the nearest of the rising ``points (s)``.

    Differentiable in the points: each gets, of all weights that it is nearest to, α times what the weight gets.
    """
    chosen = nearest(buckets.unit, points.detach())
    return buckets.back(points.index_select(0, chosen.flatten()).view_as(buckets.unit))


def shared_out(norms: Sequence[float], mean: int) -> list[int]:
    """How many points each tensor gets, ``mean`` on average: half of them at least, and more the larger its gradient's
    norm is. What rounding leaves over goes to the smallest, what it takes too much is taken from the largest.
    """
    least, total = mean // 2, mean * len(norms)
    rest, norm = total - least * len(norms), sum(norms)
    shares = [each / norm if norm else 1 / len(norms) for each in norms]
    given = [least + round(rest * share) for share in shares]
    while (excess := sum(given) - total) != 0:
        most = given.index(max(given) if excess > 0 else min(given))
        given[most] += -1 if excess > 0 else 1
    return given


def mean_code_length(counts: NDArray[np.int64]) -> float:
    """Bits of a symbol in a Huffman code, on average, of symbols that occur ``counts (256,)`` times; 0 of none."""
    return float(code_lengths(counts) @ counts / counts.sum()) if counts.any() else 0.0


def check_whole(what: str, value: int) -> None:
    """Refuse a ``value`` that is not a whole number, as a caller may pass one.

    Raises:
        InputError: it is of another type.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what} {value!r} is of type {type(value).__name__}: a whole number is needed")
