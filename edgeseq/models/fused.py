"""Spiking neurons over all frames at once: one node of autograd each, with the backward pass written by hand.

A neuron's membrane needs its own spikes, frame by frame, so that no form is parallel over time. What makes a loop of
torch operators slow is everything around the arithmetic; here a frame is four or five calls that write into memory that
is there, the same ones that a step makes and in the same order, so that not a bit differs.

Backwards, with D the gradient of the membrane u that is compared with the threshold, and G = ∂L/∂s · σ'(u - θ):

    D_t = G_t + β k_t D_{t+1},   k_t = 1 - s_t where a spike resets to 0, else 1

and all others are sums of products with D. See :mod:`edgeseq.models.neurons` for the equations.

Shape letters: B batch, T frames, N neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RESETS = ("subtract", "subtract_decayed", "zero", "none")
_NUMPY = (torch.float32, torch.float64)


def _atan(xp: Any, gradient: Any, distance: Any, scratch: Any) -> None:
    """1 / (1 + (π x)²): snnTorch's arctangent of alpha 2."""
    xp.multiply(distance, math.pi, out=distance)
    xp.multiply(distance, distance, out=distance)
    xp.add(distance, 1, out=distance)
    xp.divide(gradient, distance, out=gradient)


def _sigmoid(xp: Any, gradient: Any, distance: Any, scratch: Any) -> None:
    """4 σ(4x) (1 - σ(4x)) = 4 e / (1 + e)² with e = exp(-4 |x|): SpikingJelly's sigmoid of alpha 4."""
    xp.abs(distance, out=distance)
    xp.multiply(distance, -4, out=distance)
    xp.exp(distance, out=distance)
    xp.add(distance, 1, out=scratch)
    xp.multiply(scratch, scratch, out=scratch)
    xp.multiply(gradient, distance, out=gradient)
    xp.multiply(gradient, 4, out=gradient)
    xp.divide(gradient, scratch, out=gradient)


# Of a library, the gradient of spikes, which becomes that of the membrane, the membrane's distance from its threshold,
# and memory of that size: these two are written over.
SURROGATES: dict[str, Callable[[Any, Any, Any, Any], None]] = {"atan": _atan, "sigmoid": _sigmoid}


def surrogate_gradient(name: str, gradient: Tensor, distance: Tensor) -> Tensor:
    """The gradient of a membrane, from that of its spikes and its distance from the threshold."""
    found = gradient.clone()
    SURROGATES[name](torch, found, distance, torch.empty_like(distance))
    return found


class Rule(NamedTuple):
    """How a neuron fires and is reset."""

    reset: str
    delay: bool
    inclusive: bool
    surrogate: str

    def fired(self, membrane: Any, threshold: Any) -> Any:
        """Where the membrane is above the threshold (arrays of numpy or tensors)."""
        return membrane >= threshold if self.inclusive else membrane > threshold


def _library(tensor: Tensor) -> Any:
    """numpy where it can: its calls cost a third of torch's, and a frame's are small. Both have the same names."""
    return np if tensor.device.type == "cpu" and tensor.dtype in _NUMPY else torch


def _rows(tensor: Tensor, library: Any) -> Any:
    return tensor.detach().numpy() if library is np else tensor.detach()


class _Decayed(torch.autograd.Function):
    """i_t = α i_{t-1} + I_t over all frames."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, first: Tensor, alpha: Tensor) -> Tensor:
        found = current.detach().clone(memory_format=torch.contiguous_format)
        xp = _library(found)
        rows, before, decay = (_rows(tensor, xp) for tensor in (found, first, alpha))
        scratch = xp.empty_like(rows[0])
        for row in rows:
            xp.multiply(before, decay, out=scratch)
            xp.add(scratch, row, out=row)
            before = row
        ctx.save_for_backward(found, first, alpha)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found, first, alpha = ctx.saved_tensors
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        _accumulate(gradient, alpha)
        slope = torch.dot(gradient[1:].flatten(), found[:-1].flatten()) + (gradient[0] * first).sum()
        return gradient, gradient[0] * alpha, slope


def _accumulate(gradient: Tensor, decay: Tensor) -> None:
    """In place, from the last frame to the first: g_t += decay · g_{t+1}."""
    xp = _library(gradient)
    rows, factor = _rows(gradient, xp), _rows(decay, xp)
    scratch = xp.empty_like(rows[0])
    for t in range(len(rows) - 2, -1, -1):
        xp.multiply(rows[t + 1], factor, out=scratch)
        xp.add(rows[t], scratch, out=rows[t])


class _Spiked(torch.autograd.Function):
    """Leaky integrate-and-fire over all frames."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, first: Tensor, beta: Tensor, threshold: Tensor, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        charged = current.detach().clone(memory_format=torch.contiguous_format)  # u, in place of the current
        spikes = torch.empty_like(charged)
        last = _run(charged, spikes, first, beta, threshold, rule)
        ctx.save_for_backward(charged, spikes, first, beta, threshold)
        ctx.rule = rule
        return spikes, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_spikes: Tensor, of_last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        charged, spikes, first, beta, threshold = ctx.saved_tensors
        rule: Rule = ctx.rule
        zero = rule.reset == "zero"
        gradient = of_spikes.clone(memory_format=torch.contiguous_format)
        fired, with_membrane, with_reset = _run_back(gradient, charged, spikes, of_last, beta, threshold, rule)
        before = _before(first, threshold, rule)
        of_first = gradient[0] * (1 - before) if zero else gradient[0]
        of_beta, of_threshold = with_membrane + (of_first * first).sum(), -fired
        if rule.reset.startswith("subtract"):
            resets = with_reset + (gradient[0] * before).sum()
            if rule.reset == "subtract" and rule.delay:
                of_threshold = of_threshold - resets
            else:  # what is subtracted decays
                of_threshold, of_beta = of_threshold - beta * resets, of_beta - threshold * resets
            if not rule.delay:
                of_threshold = of_threshold - (of_last * spikes[-1]).sum()
        return gradient, of_first * beta, of_beta, of_threshold, None


def _run_back(
    gradient: Tensor, charged: Tensor, spikes: Tensor, of_last: Tensor, beta: Tensor, threshold: Tensor, rule: Rule
) -> tuple[Tensor, float, float]:
    """Turn the gradients of the spikes, in place, into D, that of the membranes before their reset.

    Returns the sums of G_t, of D_{t+1} · u_t, without neurons that were reset to 0 there, and of D_{t+1} · s_t.
    """
    xp, shape = _library(gradient), (len(gradient), -1)
    rows, u, s = (_rows(tensor.view(shape), xp) for tensor in (gradient, charged, spikes))
    decay, level, slope = _rows(beta, xp), _rows(threshold, xp), SURROGATES[rule.surrogate]
    distance, scratch, total = xp.empty_like(rows[0]), xp.empty_like(rows[0]), xp.zeros_like(rows[0])
    zero, last = rule.reset == "zero", len(rows) - 1
    with_membrane = with_reset = 0.0

    def kept(later: Any, fired: Any) -> Any:
        """What passes a reset, in ``scratch``."""
        xp.multiply(later, fired, out=distance)
        return xp.subtract(later, distance, out=scratch)

    for t in range(last, -1, -1):
        row = rows[t]
        xp.subtract(u[t], level, out=distance)
        slope(xp, row, distance, scratch)
        xp.add(total, row, out=total)
        if t == last:
            later = _rows(of_last.reshape(-1), xp)
            later = kept(later, s[t]) if zero and not rule.delay else later
        else:
            later = kept(rows[t + 1], s[t]) if zero else rows[t + 1]
            with_membrane += float(xp.dot(later, u[t]))
            with_reset += 0.0 if zero else float(xp.dot(later, s[t]))
            later = xp.multiply(later, decay, out=scratch)
        xp.add(row, later, out=row)
    return torch.as_tensor(total).sum(), with_membrane, with_reset


def _before(first: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    """Which neurons (0 or 1) the first frame resets: with a delay those that fired before it."""
    return rule.fired(first, threshold).to(first.dtype) if rule.delay else torch.zeros_like(first)


def _run(charged: Tensor, spikes: Tensor, first: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> Tensor:
    """Fill ``spikes``, turn the currents in ``charged`` into membranes before their reset; returns the last state."""
    xp = _library(charged)
    rows, fired, v, r = (_rows(t, xp) for t in (charged, spikes, first, _before(first, threshold, rule)))
    decay, level = _rows(beta, xp), _rows(threshold, xp)
    compare = xp.greater_equal if rule.inclusive else xp.greater
    above, scratch, other = xp.empty_like(rows[0], dtype=bool), xp.empty_like(rows[0]), xp.empty_like(rows[0])

    def relax(membrane: Any, spiked: Any) -> Any:
        """The membrane after its reset, which is decayed from there."""
        if rule.reset == "none":
            return membrane
        xp.multiply(spiked, membrane if rule.reset == "zero" else level, out=other)
        return xp.subtract(membrane, other, out=other)

    late = rule.delay and rule.reset == "subtract"
    for row, s in zip(rows, fired, strict=True):
        xp.multiply(v if late else relax(v, r), decay, out=scratch)
        xp.add(row, scratch, out=row)
        if late:
            xp.multiply(r, level, out=scratch)
            xp.subtract(row, scratch, out=row)
        compare(row, level, out=above)
        s[:] = above
        v, r = row, s
    if not rule.delay:
        v = relax(v, r)
    return torch.as_tensor(v).clone()


def decayed(current: Tensor, first: Tensor, alpha: Tensor) -> Tensor:
    """The synaptic currents ``(T, B, N)`` of ``current (T, B, N)`` from ``first (B, N)`` on."""
    found: Tensor = _Decayed.apply(current, first, alpha)  # type: ignore[no-untyped-call]
    return found


def spiked(current: Tensor, first: Tensor, beta: Tensor, threshold: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Spikes ``(T, B, N)`` and last membrane ``(B, N)`` of ``current (T, B, N)`` from the membrane ``first`` on."""
    spikes, last = _Spiked.apply(current, first, beta, threshold, rule)  # type: ignore[no-untyped-call]
    return spikes, last
