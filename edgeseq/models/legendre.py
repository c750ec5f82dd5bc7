"""The Legendre delay system: the fixed, linear memory of the LMU.

    θ dm/dt = A m + B u,   A_ij = (2i+1) · (-1 if i < j else (-1)^(i-j+1)),   B_i = (2i+1) (-1)^i

A window of the last θ steps of u, as coefficients of the first shifted Legendre polynomials:
u(t - rθ) ≈ Σ_i P_i(2r - 1) m_i for 0 ≤ r ≤ 1. Voelker, Kajić, Eliasmith, "Legendre memory units", NeurIPS 2019.

Shape letters: B batch, T frames, C channels, Q order, L frames of a chunk, N chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from edgeseq.errors import InputError
from edgeseq.models.contract import Store

CHUNK = 32  # frames computed in one product; about the fastest from Q = 6 to 32 on two cores


def discretize(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """Zero-order hold of the system for one step: ``A (Q, Q)`` and ``B (Q)``, in float64. θ is in steps.

    Computed together as the exponential of the block matrix [[A/θ, B/θ], [0, 0]].
    """
    if order < 1 or theta <= 0:
        raise InputError(f"lmu: order {order} and theta {theta} must be positive")
    i = torch.arange(order, dtype=torch.float64)
    row, column = i[:, None], i[None, :]
    gain = 2 * row + 1
    continuous = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    continuous[:order, :order] = gain * torch.where(row < column, -1.0, (-1.0) ** (row - column + 1)) / theta
    continuous[:order, order] = (gain[:, 0] * (-1.0) ** i) / theta
    block = torch.linalg.matrix_exp(continuous)
    return block[:order, :order].clone(), block[:order, order].clone()


class LegendreMemory(nn.Module):
    """``m_t = A m_{t-1} + B u_t`` for C channels that share A and B. Both are constants: not trained, not quantized."""

    A: Tensor
    B: Tensor

    def __init__(self, channels: int, order: int, theta: float) -> None:
        super().__init__()
        self.channels, self.order, self.theta = channels, order, theta
        a, b = discretize(order, theta)
        self.register_buffer("A", a.to(torch.get_default_dtype()))
        self.register_buffer("B", b.to(torch.get_default_dtype()))
        self.store: nn.Module = Store((order,))

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, C, Q)``."""
        return self.A.new_zeros(batch, self.channels, self.order)

    def step(self, u: Tensor, m: Tensor) -> Tensor:
        """``u (B, C)``, ``m (B, C, Q)`` to the next ``m (B, C, Q)``."""
        kept: Tensor = self.store(linear(m, self.A) + u[..., None] * self.B)
        return kept

    def forward(self, u: Tensor, m: Tensor) -> Tensor:
        """``u (B, T, C)`` from ``m (B, C, Q)`` to every ``m (B, T, C, Q)``.

        Chunks of L frames: within a chunk one product with the impulse response as a Toeplitz matrix, between chunks
        the recurrence over L steps at once. Exact for any start, and all time goes into matrix products. A memory that
        is rounded after every step is not linear: it takes one step after the other.
        """
        if not isinstance(self.store, Store):
            return self._one_by_one(u, m)
        batch, frames, channels = u.shape
        chunks = -(-frames // CHUNK)
        u = pad(u, (0, 0, 0, chunks * CHUNK - frames))  # (B, NL, C)
        u = u.reshape(batch, chunks, CHUNK, channels).permute(1, 0, 3, 2)  # (N, B, C, L)
        powers = self._powers()  # (L, Q, Q): A^1 .. A^L
        inside = u @ self._toeplitz(powers)  # (N, B, C, LQ)
        inside = inside.reshape(chunks, batch, channels, CHUNK, self.order)  # (N, B, C, L, Q)
        starts = []
        for ends in inside[:, :, :, -1]:  # (B, C, Q)
            starts.append(m)
            m = m @ powers[-1].T + ends  # (B, C, Q)
        start = torch.stack(starts)  # (N, B, C, Q)
        decayed = start @ powers.reshape(-1, self.order).T  # (N, B, C, LQ): A^(l+1) m
        memory = inside + decayed.reshape(inside.shape)  # (N, B, C, L, Q)
        memory = memory.permute(1, 0, 3, 2, 4).reshape(batch, -1, channels, self.order)  # (B, NL, C, Q)
        return memory[:, :frames]

    def _one_by_one(self, u: Tensor, m: Tensor) -> Tensor:
        kept = []
        for u_t in u.unbind(1):  # (B, C)
            m = self.step(u_t, m)  # (B, C, Q)
            kept.append(m)
        return torch.stack(kept, 1)  # (B, T, C, Q)

    def _powers(self) -> Tensor:
        powers = self.A[None]  # (1, Q, Q)
        while len(powers) < CHUNK:
            powers = torch.cat([powers, powers @ powers[-1]])
        return powers  # (L, Q, Q)

    def _toeplitz(self, powers: Tensor) -> Tensor:
        response = torch.cat([self.B[None], powers[:-1] @ self.B])  # (L, Q): A^k B
        lag = torch.arange(CHUNK, device=self.B.device)
        lag = lag[None, :] - lag[:, None]  # (L, L): frame of the result minus frame of the input
        causal = torch.where((lag >= 0)[..., None], response[lag.clamp(min=0)], 0.0)  # (L, L, Q)
        return causal.reshape(CHUNK, CHUNK * self.order)
