"""Recurrent cells from linear maps, so that each can be quantized, and the stack that they form.

With a_t = W_x x_t + b_x and b_t = W_h h_{t-1} + b_h, each of them the gates' parts one after the other:

    tanh   h_t = tanh(a_t + b_t)                                    Elman, "Finding structure in time", 1990
    relu   h_t = max(0, a_t + b_t)
    gru    r_t = σ(a_r + b_r),  z_t = σ(a_z + b_z)                  Cho et al., EMNLP 2014, with the reset gate after
           n_t = tanh(a_n + r_t b_n)                                the product, as in cuDNN
           h_t = (1 - z_t) n_t + z_t h_{t-1}
    lstm   i_t = σ(a_i + b_i),  f_t = σ(a_f + b_f)                  Hochreiter, Schmidhuber, 1997, with the forget gate
           g_t = tanh(a_g + b_g),  o_t = σ(a_o + b_o)               of Gers et al., 2000
           c_t = f_t c_{t-1} + i_t g_t
           h_t = o_t tanh(c_t)

The weights are those of torch.nn.RNN, GRU and LSTM: gates in the order r, z, n and i, f, g, o.

Shape letters: B batch, T frames, C inputs, H hidden units, G gates, K outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import Place, Projection, State, Store, StreamingModel, Width, fixed
from edgeseq.models.places import read_by

Carried = tuple[Tensor, ...]  # a cell's states, each (B, H): the hidden one first, which is also its answer
Recurrent = Callable[[int], nn.Module]  # from a number of gates G to a linear map from H to G · H


class Cell(nn.Module, ABC):
    """One layer. ``recurrent`` makes its map from hidden to hidden units; a dense one if not given."""

    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("hidden",)

    def __init__(
        self, input_size: int, hidden: int, timescale: float = 0.0, recurrent: Recurrent | None = None
    ) -> None:
        super().__init__()
        self.hidden_size = hidden
        self.from_input = nn.Linear(input_size, self.gates * hidden)
        self.from_hidden = recurrent(self.gates) if recurrent else nn.Linear(hidden, self.gates * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        scale: Callable[[], None] | None = getattr(self.from_hidden, "scale_to_inputs", None)
        if scale:
            scale()
        self.store: nn.Module = Store()
        if timescale > 1:
            self._remember(timescale)

    def step(self, x: Tensor, state: Carried) -> Carried:
        """``x (B, C)`` and the states to the next ones."""
        return self._next(self.from_input(x), self.from_hidden(state[0]), state)

    def forward(self, x: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """``x (B, T, C)`` to every ``h (B, T, H)`` and the last states: by torch's fused kernel in plain float."""
        stored = all(isinstance(module, Store) for name, module in self.named_children() if name.endswith("store"))
        read, recurrent = _dense(self.from_input), _dense(self.from_hidden)
        if read is None or recurrent is None or not stored:
            return self._one_by_one(x, state)
        return self._fused(x, state, [read[0], recurrent[0], read[1], recurrent[1]])

    @abstractmethod
    def _next(self, a: Tensor, b: Tensor, state: Carried) -> Carried:
        """From ``a, b (B, G H)``, what the gates get from the frame and from the hidden units, the next states."""

    @abstractmethod
    def _fused(self, x: Tensor, state: Carried, weights: list[Tensor]) -> tuple[Tensor, Carried]:
        """``forward`` by a kernel of torch, whose hidden states are (layers = 1, B, H)."""

    def _one_by_one(self, x: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """Quantized or rounded: the input's part for all frames at once, the weights quantized once."""
        a, project = self.from_input(x), fixed(self.from_hidden)  # (B, T, G H)
        kept = []
        for a_t in a.unbind(1):
            state = self._next(a_t, project(state[0]), state)  # (B, H)
            kept.append(state[0])
        return torch.stack(kept, 1), state  # (B, T, H)

    @abstractmethod
    def _remember(self, timescale: float) -> None:
        """Start with units that remember for 1 to ``timescale`` steps, log-uniform."""

    @torch.no_grad()
    def _gate_bias(self, gate: int) -> Tensor:
        """The bias ``(H)`` of a gate in the input's map, to be set; that in the recurrent map is set to 0."""
        for module in self.from_hidden.modules():
            if isinstance(module, nn.Linear):
                module.bias.view(self.gates, -1)[gate].zero_()
        return self.from_input.bias.view(self.gates, -1)[gate]


class ElmanCell(Cell):
    """Equal to torch.nn.RNN with the same weights."""

    gates = 1
    activation: ClassVar[Callable[[Tensor], Tensor]]

    def _next(self, a: Tensor, b: Tensor, state: Carried) -> Carried:
        return (self.store(type(self).activation(a + b)),)  # (B, H)

    @torch.no_grad()
    def _remember(self, timescale: float) -> None:
        """Each unit at first reads itself alone, and keeps 1 - 1/τ of what it has for τ steps.

        After Le, Jaitly, Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015, where
        all of it is kept (the identity).
        """
        steps = torch.empty(self.hidden_size).uniform_(0, math.log(timescale)).exp()
        weight, bias = torch.diag(1 - 1 / steps), self._gate_bias(0).zero_()
        assign: Callable[[Tensor, Tensor], None] | None = getattr(self.from_hidden, "assign", None)
        if assign:
            assign(weight, bias)
        else:
            cast(nn.Linear, self.from_hidden).weight.copy_(weight)


class TanhCell(ElmanCell):
    """The hyperbolic tangent as the activation."""

    activation = torch.tanh

    def _fused(self, x: Tensor, state: Carried, weights: list[Tensor]) -> tuple[Tensor, Carried]:
        # biases, layers, dropout, training, bidirectional, batch first
        y, _ = torch.ops.aten.rnn_tanh.input(x, state[0][None], weights, True, 1, 0.0, False, False, True)
        return y, (y[:, -1],)


class ReluCell(ElmanCell):
    """The positive part as the activation."""

    activation = torch.relu

    def _fused(self, x: Tensor, state: Carried, weights: list[Tensor]) -> tuple[Tensor, Carried]:
        y, _ = torch.ops.aten.rnn_relu.input(x, state[0][None], weights, True, 1, 0.0, False, False, True)
        return y, (y[:, -1],)


class GruCell(Cell):
    """Equal to torch.nn.GRU with the same weights."""

    gates = 3

    def _next(self, a: Tensor, b: Tensor, state: Carried) -> Carried:
        size, (h,) = self.hidden_size, state  # a, b (B, 3H)
        gates = torch.sigmoid(a[:, : 2 * size] + b[:, : 2 * size])  # (B, 2H)
        r, z = gates[:, :size], gates[:, size:]  # (B, H)
        n = torch.tanh(a[:, 2 * size :] + r * b[:, 2 * size :])  # (B, H)
        return (self.store(n + z * (h - n)),)  # (B, H): one product fewer than (1 - z) n + z h

    def _fused(self, x: Tensor, state: Carried, weights: list[Tensor]) -> tuple[Tensor, Carried]:
        y, _ = torch.ops.aten.gru.input(x, state[0][None], weights, True, 1, 0.0, False, False, True)
        return y, (y[:, -1],)

    @torch.no_grad()
    def _remember(self, timescale: float) -> None:
        """By the update gate: 1 / (1 - σ(b)) ≈ 1 + eᵇ steps.

        After Tallec, Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
        """
        self._gate_bias(1).uniform_(0, math.log(timescale))


class LstmCell(Cell):
    """Equal to torch.nn.LSTM with the same weights."""

    gates = 4
    states = ("hidden", "cell")

    def __init__(
        self, input_size: int, hidden: int, timescale: float = 0.0, recurrent: Recurrent | None = None
    ) -> None:
        super().__init__(input_size, hidden, timescale, recurrent)
        self.cell_store: nn.Module = Store()

    def _next(self, a: Tensor, b: Tensor, state: Carried) -> Carried:
        size, (_, c) = self.hidden_size, state
        sums = a + b  # (B, 4H)
        gates = torch.sigmoid(sums)  # (B, 4H): that of g has no use, but is cheaper than to cut it out
        i, f, o = gates[:, :size], gates[:, size : 2 * size], gates[:, 3 * size :]  # (B, H)
        g = torch.tanh(sums[:, 2 * size : 3 * size])  # (B, H)
        c = self.cell_store(f * c + i * g)  # (B, H)
        return self.store(o * torch.tanh(c)), c

    def _fused(self, x: Tensor, state: Carried, weights: list[Tensor]) -> tuple[Tensor, Carried]:
        start = [tensor[None] for tensor in state]
        y, _, c = torch.ops.aten.lstm.input(x, start, weights, True, 1, 0.0, False, False, True)
        return y, (y[:, -1], c[0])

    @torch.no_grad()
    def _remember(self, timescale: float) -> None:
        """As the GRU's, by the forget gate; the input gate lets in what it forgets: σ(-b) = 1 - σ(b)."""
        kept = self._gate_bias(1).uniform_(0, math.log(timescale))
        self._gate_bias(0).copy_(-kept)


CELLS: dict[str, type[Cell]] = {"tanh": TanhCell, "relu": ReluCell, "gru": GruCell, "lstm": LstmCell}


def _dense(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a map that is plain, as one matrix ``(G H, H)``."""
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias
    scattered: Callable[[], tuple[Tensor, Tensor] | None] | None = getattr(layer, "dense", None)
    return scattered() if scattered else None


def stacked_cells(
    family: str,
    cell: str,
    input_size: int,
    hidden: Sequence[int],
    timescale: float,
    recurrent: Sequence[Recurrent] = (),
) -> list[Cell]:
    """A cell of each number of ``hidden`` units, each but the first reading the one before.

    Raises:
        InputError: an unknown cell, no layers, or a ``timescale`` that is negative.
    """
    if not hidden:
        raise InputError(f"{family}: layers must be at least 1")
    if cell not in CELLS:
        raise unknown(f"cell of {family}", cell, CELLS)
    if not 0 <= timescale < math.inf:
        raise InputError(f"{family}: timescale {timescale:g}: steps that units remember for, or 0, are needed")
    maps: Sequence[Recurrent | None] = recurrent or [None] * len(hidden)
    sizes = zip([input_size, *hidden[:-1]], hidden, maps, strict=True)
    return [CELLS[cell](inputs, units, timescale, made) for inputs, units, made in sizes]


class RecurrentStack(StreamingModel):
    """Cells on top of each other and a linear read-out at every frame.

    ``dropout`` acts before every cell but the first and before the read-out (training only).
    """

    def __init__(self, input_size: int, output_size: int, cells: Sequence[Cell], dropout: float) -> None:
        super().__init__(input_size, output_size)
        self.layers = cast("Sequence[Cell]", nn.ModuleList(cells))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(cells[-1].hidden_size, output_size)

    def projections(self) -> dict[str, Projection]:
        known = super().projections()
        above = [*(f"layers.{i}.from_input" for i in range(1, len(self.layers))), "readout"]
        for i, reader in enumerate(above):
            own = [name for name in known if name.startswith(f"layers.{i}.from_hidden")]  # one map, or its parts
            known.update(dict.fromkeys([*own, reader], Projection(reads=f"layers.{i}.store")))
        return known

    def widths(self) -> dict[str, Width]:
        readers = [*(f"layers.{i}.from_input" for i in range(1, len(self.layers))), "readout"]
        return {
            f"layers.{i}.hidden": self._width(cell, f"layers.{i}", reader)
            for i, (cell, reader) in enumerate(zip(self.layers, readers, strict=True))
        }

    def _width(self, cell: Cell, name: str, reader: str) -> Width:
        """The units of a cell, which ``reader`` reads beside itself."""
        rows = [f"{name}.{layer}.{kind}" for layer in ("from_input", "from_hidden") for kind in ("weight", "bias")]
        read = (*read_by(f"{name}.from_hidden"), *read_by(reader))
        return Width(cell.hidden_size, (*(Place(row, 0, runs=cell.gates) for row in rows), *read))

    def initial_state(self, batch: int) -> State:
        return {
            f"layers.{i}.{name}": self.input_mean.new_zeros(batch, cell.hidden_size)
            for i, cell in enumerate(self.layers)
            for name in cell.states
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        following: State = {}
        h = self.normalize(x)  # (B, C)
        for i, cell in enumerate(self.layers):
            names = [f"layers.{i}.{name}" for name in cell.states]
            carried = cell.step(self.dropout(h) if i else h, tuple(state[name] for name in names))
            following.update(zip(names, carried, strict=True))
            h = carried[0]  # (B, H)
        return self.readout(self.dropout(h)), following  # (B, K)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        following: State = {}
        h = self.normalize(x)  # (B, T, C)
        for i, cell in enumerate(self.layers):
            names = [f"layers.{i}.{name}" for name in cell.states]
            h, carried = cell(self.dropout(h) if i else h, tuple(state[name] for name in names))  # (B, T, H)
            following.update(zip(names, carried, strict=True))
        return self.readout(self.dropout(h)), following  # (B, T, K)
