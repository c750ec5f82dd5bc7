"""The recurrent part of an L2MU over all frames at once: one node of autograd, with the backward pass by hand.

The populations u, h and m hold each other up at every frame, so that no form is parallel over time. A frame is a few
products that write into memory that is there. Everything is kept feature by feature, (neurons, batch), with the
memory's neurons order by order: what a product reads is then one stretch of memory, the Legendre matrix acts on all
memories in one product, and the three populations decay, reset and pass on gradients in one go.

The first frame reads spikes that are given; after it they are the loop's own, and no gradient passes through a reset.
Backwards, with D the gradient of a membrane v, J that of its current, G = ∂L/∂s and σ' the surrogate slope at v - θ:

    D_t = G_t σ'(v_t - θ) + β D_{t+1},   J_t = D_t  (+ α J_{t+1} with a synapse)
    G_u = Bᵀ J_m,   G_m = W_mᵀ J_h + (E_mᵀ J_u + Aᵀ J_m of t + 1),   G_h = ∂L/∂s_h + (E_hᵀ J_u + W_hᵀ J_h of t + 1)

See :mod:`edgeseq.models.l2mu` for the equations.

Shape letters: B batch, T frames, M memories, Q order, H hidden neurons, N = M + H + M Q of the three populations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgeseq.models.fused import SURROGATES

Gradients = tuple[Tensor | None, ...]


class Sizes(NamedTuple):
    """Of the populations, which stand in the order u, h, m; and how they are reset."""

    memories: int
    hidden: int
    order: int
    decayed: bool  # what a reset subtracts decays too
    surrogate: str

    @property
    def u(self) -> slice:
        """The encoding neurons."""
        return slice(0, self.memories)

    @property
    def h(self) -> slice:
        """The hidden neurons."""
        return slice(self.memories, self.memories + self.hidden)

    @property
    def m(self) -> slice:
        """The memory's neurons, order by order."""
        return slice(self.memories + self.hidden, self.neurons)

    @property
    def driven(self) -> slice:
        """The neurons that read the input."""
        return slice(0, self.memories + self.hidden)

    @property
    def read(self) -> slice:
        """The neurons whose last spikes are read: h, then m."""
        return slice(self.memories, self.neurons)

    @property
    def neurons(self) -> int:
        """All of them."""
        return self.memories + self.hidden + self.memories * self.order

    def by_order(self, rows: Tensor) -> Tensor:
        """Rows ``(MQ, B)`` of the memory as ``(Q, MB)``."""
        return rows.view(self.order, -1)


class Weights(NamedTuple):
    """What the loop multiplies by: ``encoder (M, H + MQ)``, ``mixer (H, H + MQ)``, ``a (Q, Q)`` and ``b (Q)``."""

    encoder: Tensor
    mixer: Tensor
    a: Tensor
    b: Tensor


class Rates(NamedTuple):
    """One number for each neuron ``(N, 1)``: decay of the membrane, threshold, decay of the synapse if there is one."""

    beta: Tensor
    threshold: Tensor
    alpha: Tensor | None


class States(NamedTuple):
    """What is carried: ``membrane (N, B)``, the spikes that are read ``(H + MQ, B)``, ``synapse (N, B)`` or None."""

    membrane: Tensor
    spikes: Tensor
    synapse: Tensor | None


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: Sizes, learns: bool, drive: Tensor, *rest: Tensor) -> Any:
        first, weights, rates = States(*rest[:3]), Weights(*rest[3:7]), Rates(*rest[7:])
        frames = len(drive)
        kept = frames if learns else min(frames, 2)
        v = first.membrane.new_empty(kept, *first.membrane.shape)
        i = None if first.synapse is None else torch.empty_like(v)
        s = v.new_empty(frames, *first.membrane.shape)
        previous, read, current = first
        fired = torch.gt(previous, rates.threshold).to(v.dtype)
        scratch = torch.empty_like(v[0])
        for t in range(frames):
            row = v[t % kept]
            _relax(row, previous, fired, rates, scratch, sizes)
            if i is not None:
                current = torch.mul(cast(Tensor, current), cast(Tensor, rates.alpha), out=i[t % kept])
            _spike(row, current, s[t], read, drive[t], weights, rates, sizes)
            previous, fired = row, s[t]
            read = fired[sizes.read]
        ctx.sizes = sizes
        ctx.save_for_backward(v, i, s, *rest)
        return s[:, sizes.h], previous.clone(), read.clone(), None if current is None else current.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_hidden: Tensor, *of_last: Tensor) -> Gradients:
        v, i, s, *rest = ctx.saved_tensors
        sizes, first, weights, rates = ctx.sizes, States(*rest[:3]), Weights(*rest[3:7]), Rates(*rest[7:])
        back = _Backward(sizes, weights, rates, States(*of_last))
        of_drive = v.new_empty(len(s), sizes.memories + sizes.hidden, v.shape[2])
        fired = torch.gt(first.membrane, rates.threshold).to(v.dtype)
        for t in range(len(s) - 1, -1, -1):
            if t:
                before, fired_before = States(v[t - 1], s[t - 1, sizes.read], None if i is None else i[t - 1]), s[t - 1]
            else:
                before, fired_before = first, fired
            back.frame(v[t], s[t], before, fired_before, of_hidden[t])
            of_drive[t] = back.current[sizes.driven]
        of_synapse = None if rates.alpha is None else rates.alpha * back.current
        of_first = (rates.beta * back.membrane, back.spikes[sizes.read], of_synapse)
        of_rates = (back.beta, back.threshold, back.alpha)
        summed = (None if gradient is None else gradient.sum(1, keepdim=True) for gradient in of_rates)
        return None, None, of_drive, *of_first, back.encoder, back.mixer, None, None, *summed


def _relax(row: Tensor, previous: Tensor, fired: Tensor, rates: Rates, scratch: Tensor, sizes: Sizes) -> None:
    """Into ``row (N, B)`` the membranes, decayed and reset where they have ``fired``, before their currents."""
    torch.mul(fired, rates.threshold, out=scratch)
    if sizes.decayed:
        torch.sub(previous, scratch, out=row).mul_(rates.beta)
    else:
        torch.mul(previous, rates.beta, out=row).sub_(scratch)


def _spike(
    row: Tensor,
    current: Tensor | None,
    fired: Tensor,
    read: Tensor,
    drive: Tensor,
    weights: Weights,
    rates: Rates,
    sizes: Sizes,
) -> None:
    """Charge the membranes in ``row``, of u, then m, then h, and write who ``fired``.

    ``read (H + MQ, B)`` are the last spikes; ``current`` is what synapses still hold.
    """
    onto = row if current is None else current  # what the currents are added to
    onto[sizes.driven].add_(drive)

    def fire(part: slice) -> None:
        if current is not None:
            row[part].add_(current[part])
        torch.gt(row[part], rates.threshold[part], out=fired[part])

    onto[sizes.u].addmm_(weights.encoder, read)
    fire(sizes.u)
    memory = sizes.by_order(onto[sizes.m])  # (Q, MB)
    memory.addmm_(weights.a, sizes.by_order(read[sizes.hidden :]))
    memory.addmm_(weights.b[:, None], fired[sizes.u].view(1, -1))
    fire(sizes.m)
    onto[sizes.h].addmm_(weights.mixer[:, : sizes.hidden], read[: sizes.hidden])
    onto[sizes.h].addmm_(weights.mixer[:, sizes.hidden :], fired[sizes.m])
    fire(sizes.h)


class _Backward:
    """The gradients, carried from the last frame to the first; those of rates are ``(N, B)`` until they are summed."""

    def __init__(self, sizes: Sizes, weights: Weights, rates: Rates, of_last: States) -> None:
        self.sizes, self.weights, self.rates = sizes, weights, rates
        self.encoder, self.mixer = torch.zeros_like(weights.encoder), torch.zeros_like(weights.mixer)
        nothing = of_last.membrane.new_zeros(of_last.membrane.shape)  # (N, B)
        self.spikes, self.slope, self.distance, self.scratch = (nothing.clone() for _ in range(4))  # G, σ'
        self.beta, self.threshold = nothing.clone(), nothing.clone()
        self.alpha = None if rates.alpha is None else nothing.clone()
        self.membrane = nothing  # D of the frame behind
        self.current = nothing if self.alpha is None else nothing.clone()  # J of it
        self.spikes[sizes.read] = of_last.spikes
        self.of_last: States | None = of_last

    def frame(self, v: Tensor, s: Tensor, before: States, fired_before: Tensor, of_hidden: Tensor) -> None:
        """One frame back: its membranes and spikes, the states and all spikes before it, the gradient of its h."""
        sizes, weights, g = self.sizes, self.weights, self.spikes
        torch.sub(v, self.rates.threshold, out=self.distance)
        SURROGATES[sizes.surrogate](torch, self.slope.fill_(1), self.distance, self.scratch)
        g[sizes.h].add_(of_hidden)
        self._decay()
        self._through(sizes.h)
        of_h = self.current[sizes.h]
        g[sizes.m].addmm_(weights.mixer[:, sizes.hidden :].T, of_h)
        self._through(sizes.m)
        of_m = sizes.by_order(self.current[sizes.m])  # (Q, MB)
        torch.mm(weights.b[None], of_m, out=g[sizes.u].view(1, -1))
        self._through(sizes.u)
        of_u = self.current[sizes.u]
        self._count(before, fired_before)
        self.encoder.addmm_(of_u, before.spikes.T)
        self.mixer[:, : sizes.hidden].addmm_(of_h, before.spikes[: sizes.hidden].T)
        self.mixer[:, sizes.hidden :].addmm_(of_h, s[sizes.m].T)
        # What the spikes before get of this frame.
        torch.mm(weights.encoder.T, of_u, out=g[sizes.read])
        g[sizes.h].addmm_(weights.mixer[:, : sizes.hidden].T, of_h)
        sizes.by_order(g[sizes.m]).addmm_(weights.a.T, of_m)

    def _decay(self) -> None:
        """The gradients of the frame behind, decayed; at the last frame those that come from outside."""
        self.membrane.mul_(self.rates.beta)
        if self.rates.alpha is not None:
            self.current.mul_(self.rates.alpha)
        if self.of_last is not None:
            self.membrane.add_(self.of_last.membrane)
            if self.of_last.synapse is not None:
                self.current.add_(self.of_last.synapse)
            self.of_last = None

    def _through(self, part: slice) -> None:
        self.membrane[part].addcmul_(self.spikes[part], self.slope[part])
        if self.current is not self.membrane:
            self.current[part].add_(self.membrane[part])

    def _count(self, before: States, fired: Tensor) -> None:
        """Add this frame to the gradients of the rates."""
        self.beta.addcmul_(self.membrane, before.membrane)
        self.threshold.addcmul_(self.spikes, self.slope, value=-1)
        torch.mul(self.membrane, fired, out=self.scratch)
        if self.sizes.decayed:
            self.beta.addcmul_(self.scratch, self.rates.threshold, value=-1)
            self.scratch.mul_(self.rates.beta)
        self.threshold.sub_(self.scratch)
        if self.alpha is not None and before.synapse is not None:
            self.alpha.addcmul_(self.current, before.synapse)


def run(sizes: Sizes, drive: Tensor, first: States, weights: Weights, rates: Rates) -> tuple[Tensor, States]:
    """The spikes of h ``(T, H, B)`` and the last states, from the input's currents ``drive (T, M + H, B)``.

    ``a`` and ``b`` of the weights get no gradient.
    """
    states = (None if state is None else state.contiguous() for state in first)
    learns = torch.is_grad_enabled()  # which is off inside of a function's own forward
    spikes, *last = _Loop.apply(sizes, learns, drive, *states, *weights, *rates)  # type: ignore[no-untyped-call]
    return spikes, States(*last)
