"""Gated recurrent units, from linear maps so that each can be quantized.

    r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
    n_t = tanh(W_in x_t + b_in + r_t (W_hn h_{t-1} + b_hn))
    h_t = (1 - z_t) n_t + z_t h_{t-1}

Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, with the reset gate after the
product as in cuDNN and torch.nn.GRU, whose weights these are: gates in the order r, z, n.

Shape letters: B batch, T frames, C inputs, H hidden units, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.contract import Projection, State, Store, StreamingModel, fixed


class GruCell(nn.Module):
    """One layer; equal to torch.nn.GRU with the same weights."""

    def __init__(self, input_size: int, hidden: int, timescale: float = 0.0) -> None:
        super().__init__()
        self.hidden_size = hidden
        self.from_input = nn.Linear(input_size, 3 * hidden)
        self.from_hidden = nn.Linear(hidden, 3 * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        self.store: nn.Module = Store()
        if timescale > 1:
            self._remember(timescale)

    @torch.no_grad()
    def _remember(self, timescale: float) -> None:
        """Start with units that remember for 1 to ``timescale`` steps, log-uniform: 1 / (1 - σ(b)) ≈ 1 + eᵇ steps.

        After Tallec, Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
        """
        size = self.hidden_size
        self.from_input.bias[size : 2 * size].uniform_(0, math.log(timescale))
        self.from_hidden.bias[size : 2 * size].zero_()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """``x (B, C)``, ``h (B, H)`` to the next ``h (B, H)``."""
        return self._next(self.from_input(x), self.from_hidden(h), h)

    def _next(self, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        size = self.hidden_size  # a, b (B, 3H)
        gates = torch.sigmoid(a[:, : 2 * size] + b[:, : 2 * size])  # (B, 2H)
        r, z = gates[:, :size], gates[:, size:]  # (B, H)
        n = torch.tanh(a[:, 2 * size :] + r * b[:, 2 * size :])  # (B, H)
        kept: Tensor = self.store(n + z * (h - n))  # (B, H): one product fewer than (1 - z) n + z h
        return kept

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """``x (B, T, C)`` from ``h (B, H)`` to every ``h (B, T, H)``: by torch's fused kernel in plain float."""
        if not (isinstance(self.from_hidden, nn.Linear) and isinstance(self.store, Store)):
            return self._one_by_one(x, h)
        weights = [self.from_input.weight, self.from_hidden.weight, self.from_input.bias, self.from_hidden.bias]
        # x (B, T, C), h (layers = 1, B, H); biases, layers, dropout, training, bidirectional, batch first
        y, _ = torch.ops.aten.gru.input(x, h[None], weights, True, 1, 0.0, False, False, True)
        hidden: Tensor = y
        return hidden

    def _one_by_one(self, x: Tensor, h: Tensor) -> Tensor:
        """Quantized or rounded: the input's part for all frames at once, the weights quantized once."""
        a, project = self.from_input(x), fixed(self.from_hidden)  # (B, T, 3H)
        kept = []
        for a_t in a.unbind(1):
            h = self._next(a_t, project(h), h)  # (B, H)
            kept.append(h)
        return torch.stack(kept, 1)  # (B, T, H)


class Rnn(StreamingModel):
    """Stacked recurrent layers and a linear read-out at every frame.

    Arguments: ``hidden`` units per layer, ``layers``, ``cell`` ("gru"), ``dropout`` before every layer but the first
    and before the read-out (training only), ``timescale`` in steps up to which units remember at the start.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: int = 64,
        layers: int = 1,
        cell: str = "gru",
        dropout: float = 0.0,
        timescale: float = 0.0,
    ) -> None:
        super().__init__(input_size, output_size)
        if cell != "gru":
            raise InputError(f"rnn: unknown cell {cell!r}. Known: gru.")
        cells = [GruCell(hidden if i else input_size, hidden, timescale) for i in range(layers)]
        self.layers = cast("Sequence[GruCell]", nn.ModuleList(cells))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden, output_size)

    def projections(self) -> dict[str, Projection]:
        known = super().projections()
        above = [*(f"layers.{i}.from_input" for i in range(1, len(self.layers))), "readout"]
        for i, reader in enumerate(above):
            known[f"layers.{i}.from_hidden"] = known[reader] = Projection(reads=f"layers.{i}.store")
        return known

    def initial_state(self, batch: int) -> State:
        like = self.input_mean
        return {f"layers.{i}.hidden": like.new_zeros(batch, cell.hidden_size) for i, cell in enumerate(self.layers)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, following = self.normalize(x), {}  # (B, C)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.hidden"
            h = following[name] = layer.step(self.dropout(h) if i else h, state[name])  # (B, H)
        return self.readout(self.dropout(h)), following  # (B, K)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.normalize(x), {}  # (B, T, C)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.hidden"
            h = layer(self.dropout(h) if i else h, state[name])  # (B, T, H)
            following[name] = h[:, -1]
        return self.readout(self.dropout(h)), following  # (B, T, K)
