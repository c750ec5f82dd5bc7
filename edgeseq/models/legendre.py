"""The Legendre delay system: the fixed, linear memory of the LMU.

    θ dm/dt = A m + B u,   A_ij = (2i+1) · (-1 if i < j else (-1)^(i-j+1)),   B_i = (2i+1) (-1)^i

A window of the last θ steps of u, as coefficients of the first shifted Legendre polynomials:
u(t - rθ) ≈ Σ_i P_i(2r - 1) m_i for 0 ≤ r ≤ 1. Voelker, Kajić, Eliasmith, "Legendre memory units", NeurIPS 2019.

It is linear, so all frames can be computed at once. Which form is the fastest depends on the sizes;
`benchmarks/training_speed.py` measures them:

    one by one   m_t = A m_{t-1} + B u_t
    chunked      L frames in one product, the recurrence between chunks          any start
    convolved    m = h * u by the FFT, h_k = A^k B (eq. 22 of Chilkuri, Eliasmith 2021)   from zero
    folded       W m_t without ever holding m, chunked; for large Q              any start
    last         m_T = Σ_k h_{T-k} u_k, one product (eq. 25 there)               the last frame only

Shape letters: B batch, T frames, C channels, Q order, L frames of a chunk, N chunks, H outputs of a map that reads m.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from edgeseq.errors import InputError
from edgeseq.models.contract import Store

LONG_CHUNK, SHORT_CHUNK = 32, 16  # frames computed in one product; about the fastest on two cores
LARGE_ORDER = 64  # from here the short one; and the recurrence where that alone keeps the processor busy:
BUSY = 10_000  # numbers of a memory, over batch and channels, from which it does
CONVOLVED_ORDER, CONVOLVED_ROWS = 16, 4  # from this order and up to so many memories the FFT is no slower than chunks


def discretize(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """Zero-order hold of the system for one step: ``A (Q, Q)`` and ``B (Q)``, in float64. θ is in steps.

    Computed together as the exponential of the block matrix [[A/θ, B/θ], [0, 0]].
    """
    if order < 1 or not 0 < theta < math.inf:
        raise InputError(f"a Legendre memory of order {order} and theta {theta} steps: both must be positive numbers")
    i = torch.arange(order, dtype=torch.float64)
    row, column = i[:, None], i[None, :]
    gain = 2 * row + 1
    continuous = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    continuous[:order, :order] = gain * torch.where(row < column, -1.0, (-1.0) ** (row - column + 1)) / theta
    continuous[:order, order] = (gain[:, 0] * (-1.0) ** i) / theta
    block = torch.linalg.matrix_exp(continuous)
    return block[:order, :order].clone(), block[:order, order].clone()


def impulse_response(a: Tensor, b: Tensor, frames: int) -> Tensor:
    """``h_k = A^k B`` for k < ``frames``: ``(frames, Q)``, by doubling."""
    response, power = b[None], a
    while len(response) < frames:
        response = torch.cat([response, response @ power.T])
        power = power @ power
    return response[:frames]


def taps_for(order: int, theta: float, error: float) -> int:
    """The fewest taps K of an impulse response that stands for the whole, in float64.

    What is cut off, Σ_{k≥K} |h_k|, is at most ``error`` times the whole sum, for the worst element: with any bounded
    u no element of the memory is further off than ``error`` times the largest value that the memory could have.
    """
    a, b = discretize(order, theta)
    frames = 2 * math.ceil(theta) + 64
    while True:  # until the second half holds nothing that a float64 sum would show
        sizes = impulse_response(a, b, frames).abs()  # (frames, Q)
        whole = sizes.sum(0).max()
        if sizes[frames // 2 :].sum(0).max() < 1e-14 * whole:
            break
        frames *= 2
    left = sizes.flip(0).cumsum(0).flip(0).amax(1)  # (frames): what is cut off by keeping so many
    return max(1, int((left > error * whole).sum()))


def on_grid(values: Tensor, limit: int) -> Tensor:
    """``values`` rounded to 2 ``limit`` + 1 even steps from -max|v| to max|v|."""
    scale = values.abs().max() / limit
    return torch.round(values / scale) * scale if bool(scale > 0) else values


class LegendreMemory(nn.Module):
    """``m_t = A m_{t-1} + B u_t`` for C channels that share A and B: constants, not trained, in float32 or on a grid.

    ``limit``: of the steps of that grid (:meth:`round_to`); None of one in float32.
    """

    A: Tensor
    B: Tensor

    def __init__(self, channels: int, order: int, theta: float) -> None:
        super().__init__()
        self.channels, self.order, self.theta = channels, order, theta
        self.limit: int | None = None
        a, b = discretize(order, theta)
        self.register_buffer("A", a.to(torch.get_default_dtype()))
        self.register_buffer("B", b.to(torch.get_default_dtype()))
        self.store: nn.Module = Store((order,))
        self.chunk = LONG_CHUNK if order < LARGE_ORDER else SHORT_CHUNK

    def set_theta(self, theta: float) -> None:
        """Keep a window of ``theta`` steps."""
        self.theta = theta
        a, b = discretize(self.order, theta)
        self.A.copy_(a)
        self.B.copy_(b)
        if self.limit is not None:
            self.round_to(self.limit)

    def round_to(self, limit: int) -> None:
        """Put A and B on symmetric grids of -``limit`` to ``limit`` steps each, in place."""
        self.limit = limit
        self.A.copy_(on_grid(self.A, limit))
        self.B.copy_(on_grid(self.B, limit))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}A")
        if (
            stored is not None
            and stored.shape == self.A.shape
            and not torch.allclose(stored.to(self.A), self.A, atol=1e-6)
        ):
            raise InputError(f"{prefix.rstrip('.')} holds another window than theta {self.theta:g}: give its own theta")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, C, Q)``."""
        return self.A.new_zeros(batch, self.channels, self.order)

    def step(self, u: Tensor, m: Tensor) -> Tensor:
        """``u (B, C)``, ``m (B, C, Q)`` to the next ``m (B, C, Q)``."""
        kept: Tensor = self.store(linear(m, self.A) + u[..., None] * self.B)
        return kept

    def forward(self, u: Tensor, m: Tensor | None = None) -> Tensor:
        """``u (B, T, C)`` from ``m (B, C, Q)``, or from zero, to every ``m (B, T, C, Q)``, by the faster form."""
        form = self.form(u, m)
        if form == "one by one":
            return self.one_by_one(u, m)
        return self.convolved(u) if form == "convolved" else self.chunked(u, m)

    def form(self, u: Tensor, m: Tensor | None = None) -> str:
        """The form of :meth:`forward`: "one by one", "chunked" or "convolved".

        A memory that is rounded after every step is not linear: it takes one step after the other.
        """
        rows = u.shape[0] * u.shape[2]
        if not isinstance(self.store, Store) or (self.order >= LARGE_ORDER and rows * self.order >= BUSY):
            return "one by one"
        return "convolved" if m is None and self.order >= CONVOLVED_ORDER and rows <= CONVOLVED_ROWS else "chunked"

    def one_by_one(self, u: Tensor, m: Tensor | None = None) -> Tensor:
        """:meth:`forward` by the recurrence."""
        m = self.initial_state(len(u)) if m is None else m
        kept = []
        for u_t in u.unbind(1):  # (B, C)
            m = self.step(u_t, m)  # (B, C, Q)
            kept.append(m)
        return torch.stack(kept, 1)  # (B, T, C, Q)

    def chunked(self, u: Tensor, m: Tensor | None = None) -> Tensor:
        """:meth:`forward` in chunks of L frames.

        Within a chunk one product with the impulse response as a Toeplitz matrix, between chunks the recurrence over L
        steps at once.
        """
        powers = self._powers()  # (L, Q, Q): A^1 .. A^L
        chunks = self._in_chunks(u)  # (B, N, C, L)
        inside = chunks @ _toeplitz(self._response(powers))  # (B, N, C, LQ)
        inside = inside.unflatten(-1, (self.chunk, self.order))  # (B, N, C, L, Q)
        start = self._starts(inside[:, :, :, -1], powers[-1], m)  # (B, N, C, Q)
        decayed = start @ powers.reshape(-1, self.order).T  # (B, N, C, LQ): A^(l+1) m
        memory = (inside + decayed.view_as(inside)).transpose(2, 3)  # (B, N, L, C, Q)
        found: Tensor = memory.flatten(1, 2)[:, : u.shape[1]]
        return found

    def convolved(self, u: Tensor) -> Tensor:
        """:meth:`forward` from zero by the FFT of twice the length."""
        frames = u.shape[1]
        response = torch.fft.rfft(impulse_response(self.A, self.B, frames).T, 2 * frames)  # (Q, T + 1)
        signal = torch.fft.rfft(u.transpose(1, 2), 2 * frames)  # (B, C, T + 1)
        memory = torch.fft.irfft(signal[:, :, None] * response, 2 * frames)  # (B, C, Q, 2T)
        found: Tensor = memory[..., :frames].permute(0, 3, 1, 2)  # (B, T, C, Q)
        return found

    def last(self, u: Tensor, m: Tensor | None = None) -> Tensor:
        """The memory after the last frame only: ``u (B, T, C)`` to ``m (B, C, Q)``."""
        if not isinstance(self.store, Store):
            return self.one_by_one(u, m)[:, -1]
        response = impulse_response(self.A, self.B, u.shape[1])  # (T, Q)
        last: Tensor = u.transpose(1, 2) @ response.flip(0)  # (B, C, Q)
        return last if m is None else last + m @ torch.linalg.matrix_power(self.A, u.shape[1]).T

    def folds(self, u: Tensor, outputs: int) -> bool:
        """Whether :meth:`folded` is the cheaper way to what a map with so many ``outputs`` makes of the memory.

        It saves the products that spread a chunk's start over its frames, Q² each, and pays for folding the map.
        """
        batch, frames, channels = u.shape
        saved = batch * frames * channels * (self.order**2 + self.chunk * (self.order - outputs))
        return isinstance(self.store, Store) and saved > 2 * outputs * channels * self.chunk * self.order**2

    def folded(self, u: Tensor, m: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``W m_t`` for every frame ``(B, T, H)``, and the last ``m (B, C, Q)``, in chunks; ``weight (H, CQ)``.

        As :meth:`chunked`, but with the map inside of both products, so that the memory of no frame is made except of
        the last in each chunk.
        """
        frames, outputs = u.shape[1], len(weight)
        maps = weight.view(outputs, self.channels, self.order)  # (H, C, Q)
        powers = self._powers()  # (L, Q, Q)
        response = self._response(powers)  # (L, Q)
        chunks = self._in_chunks(u)  # (B, N, C, L)
        taps = torch.einsum("hcq,lq->clh", maps, response)  # (C, L, H)
        inside = chunks.flatten(-2) @ torch.cat([_toeplitz(part) for part in taps])  # (B, N, LH)
        start = self._starts(chunks @ response.flip(0), powers[-1], m)  # (B, N, C, Q)
        spread = torch.einsum("hcq,lqk->cklh", maps, powers).reshape(-1, self.chunk * outputs)  # (CQ, LH)
        answers = (inside + start.flatten(-2) @ spread).view(len(u), -1, outputs)  # (B, NL, H)
        rest = frames - (chunks.shape[1] - 1) * self.chunk
        end = start[:, -1] @ powers[rest - 1].T + chunks[:, -1, :, :rest] @ response[:rest].flip(0)  # (B, C, Q)
        return answers[:, :frames], end

    def _in_chunks(self, u: Tensor) -> Tensor:
        batch, frames, channels = u.shape
        count = -(-frames // self.chunk)
        u = pad(u, (0, 0, 0, count * self.chunk - frames))  # (B, NL, C)
        return u.reshape(batch, count, self.chunk, channels).mT  # (B, N, C, L)

    def _starts(self, ends: Tensor, power: Tensor, m: Tensor | None) -> Tensor:
        """The memory before each chunk, from what each alone ends in ``(B, N, C, Q)``."""
        m = torch.zeros_like(ends[:, 0]) if m is None else m
        starts = []
        for end in ends.unbind(1):  # (B, C, Q)
            starts.append(m)
            m = m @ power.T + end
        return torch.stack(starts, 1)

    def _powers(self) -> Tensor:
        powers = self.A[None]  # (1, Q, Q)
        while len(powers) < self.chunk:
            powers = torch.cat([powers, powers @ powers[-1]])
        return powers  # (L, Q, Q)

    def _response(self, powers: Tensor) -> Tensor:
        return torch.cat([self.B[None], powers[:-1] @ self.B])  # (L, Q): A^k B


def _toeplitz(response: Tensor) -> Tensor:
    """``(L, Q)`` to the matrix ``(L, LQ)`` that convolves L frames with it."""
    lag = torch.arange(len(response), device=response.device)
    lag = lag[None, :] - lag[:, None]  # (L, L): frame of the result minus frame of the input
    causal = torch.where((lag >= 0)[..., None], response[lag.clamp(min=0)], 0.0)  # (L, L, Q)
    return causal.flatten(1)
