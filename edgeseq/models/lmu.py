"""The feed-forward Legendre memory unit, in blocks.

    u_t = W_u x_t + b_u
    m_t = A m_{t-1} + B u_t           (the Legendre memory, one per channel, A and B fixed)
    h_t = ReLU(W_h [m_t; x_t] + b_h)

Voelker, Kajić, Eliasmith, "Legendre memory units", NeurIPS 2019, without the links from h and m back to u, so that all
frames are computed at once: Chilkuri, Eliasmith, "Parallelizing Legendre memory unit training", ICML 2021, eq. 18-20.
Here u has several channels and no ReLU, and blocks are stacked: h of one is x of the next, so that a later memory can
keep what is not linear in the input (an energy, a variance).

Shape letters: B batch, T frames, C inputs, U memory channels, Q order, H hidden units, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.contract import State, StreamingModel
from edgeseq.models.legendre import LegendreMemory


class LmuBlock(nn.Module):
    """Encoder, memory and mixer of one block."""

    def __init__(self, input_size: int, channels: int, order: int, theta: float, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(input_size, channels)
        self.memory = LegendreMemory(channels, order, theta)
        self.mixer = nn.Linear(channels * order + input_size, hidden)

    def mix(self, m: Tensor, x: Tensor) -> Tensor:
        """``m (..., U, Q)`` and ``x (..., C)`` to ``h (..., H)``."""
        return torch.relu(self.mixer(torch.cat([m.flatten(-2), x], -1)))


class Lmu(StreamingModel):
    """Stacked feed-forward LMU blocks and a linear read-out at every frame.

    Arguments: ``channels``, ``orders`` and ``thetas`` (window in steps) with one entry per block, ``hidden`` units of
    every block, ``dropout`` before every block but the first and before the read-out (training only).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        channels: Sequence[int] = (12,),
        orders: Sequence[int] = (16,),
        thetas: Sequence[float] = (100.0,),
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, output_size)
        if not len(channels) == len(orders) == len(thetas) >= 1:
            raise InputError(
                f"lmu: channels {list(channels)}, orders {list(orders)} and thetas {list(thetas)} need an entry a block"
            )
        sizes = zip(channels, orders, thetas, strict=True)
        blocks = [LmuBlock(hidden if i else input_size, *size, hidden) for i, size in enumerate(sizes)]
        self.blocks = cast("Sequence[LmuBlock]", nn.ModuleList(blocks))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden, output_size)

    def initial_state(self, batch: int) -> State:
        return {f"blocks.{i}.memory": block.memory.initial_state(batch) for i, block in enumerate(self.blocks)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, following = self.normalize(x), {}  # (B, C)
        for i, (name, block) in enumerate(zip(state, self.blocks, strict=True)):
            h = self.dropout(h) if i else h
            following[name] = m = block.memory.step(block.encoder(h), state[name])  # (B, U, Q)
            h = block.mix(m, h)  # (B, H)
        return self.readout(self.dropout(h)), following  # (B, K)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.normalize(x), {}  # (B, T, C)
        for i, (name, block) in enumerate(zip(state, self.blocks, strict=True)):
            h = self.dropout(h) if i else h
            m = block.memory(block.encoder(h), state[name])  # (B, T, U, Q)
            following[name] = m[:, -1]
            h = block.mix(m, h)  # (B, T, H)
        return self.readout(self.dropout(h)), following  # (B, T, K)
