"""The Legendre memory unit as it was published: a recurrent cell with a linear memory and hidden units that are not.

    u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} (+ b_u)
    m_t = A m_{t-1} + B u_t                         (the Legendre memory, one per channel, A and B fixed)
    h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t (+ b_h))

Voelker, Kajić, Eliasmith, "Legendre memory units", NeurIPS 2019: one channel, every link, no bias. Which links exist is
chosen as in Keras LMU (github.com/nengo/keras-lmu), where u has several channels too. e_x, e_h, e_m are one linear map,
and so are W_m, W_x, W_h, each on its inputs in a row.

Shape letters: B batch, T frames, C inputs, U memory channels, Q order, M = U Q, H hidden units, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.models.contract import Place, Projection, State, Store, StreamingModel, Width, fixed
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.places import at_once, differing, made_by, per_layer, read_by

LINKS = ("hidden", "memory")
INITS = ("random", "psmnist")
Map = Callable[[Tensor], Tensor]
FUSED = {"tanh": torch.ops.aten.rnn_tanh.input, "relu": torch.ops.aten.rnn_relu.input}
ACTIVATIONS: dict[str, Map] = {"tanh": torch.tanh, "relu": torch.relu}


class LmuCellLayer(nn.Module):
    """One layer; ``links`` names what u reads of the last step. The arguments are those of :class:`LmuCell`."""

    def __init__(
        self,
        input_size: int,
        channels: int,
        order: int,
        theta: float,
        hidden: int,
        *,
        links: Sequence[str],
        input_to_hidden: bool,
        recurrent: bool,
        bias: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.hidden_size, self.activation = hidden, activation
        self.reads_hidden, self.reads_memory = "hidden" in links, "memory" in links
        self.input_to_hidden, self.recurrent = input_to_hidden, recurrent
        size = channels * order
        self.encoder_sizes = (input_size, hidden * self.reads_hidden, size * self.reads_memory)  # of x, h, m
        self.mixer_sizes = (size, input_size * input_to_hidden, hidden * recurrent)  # of m, x, h
        self.encoder = nn.Linear(sum(self.encoder_sizes), channels, bias=bias)
        self.memory = LegendreMemory(channels, order, theta)
        self.mixer = nn.Linear(sum(self.mixer_sizes), hidden, bias=bias)
        self.store: nn.Module = Store() if self.keeps_hidden else nn.Identity()

    @property
    def keeps_hidden(self) -> bool:
        """Whether h is read in the next step, and so is a state."""
        return self.recurrent or self.reads_hidden

    @torch.no_grad()
    def reset(self, init: str) -> None:
        """The published initial weights, biases 0; "psmnist": those of the permuted-digits experiment, e_x = 1 and W_m.

        LeCun: uniform with variance 1 / inputs. Glorot: normal with variance 2 / (inputs + outputs), of each matrix.
        """
        e_x, e_h, e_m = self.encoder.weight.split(self.encoder_sizes, 1)
        for weight in (e_x, e_h):
            reach = (3 / max(weight.shape[1], 1)) ** 0.5
            weight.uniform_(-reach, reach)
        e_m.zero_()
        w_m, w_x, w_h = self.mixer.weight.split(self.mixer_sizes, 1)
        for weight in (w_m, w_x, w_h):
            weight.normal_(0, (2 / sum(weight.shape)) ** 0.5)
        for layer in (self.encoder, self.mixer):
            if layer.bias is not None:
                layer.bias.zero_()
        if init == "psmnist":
            e_x.fill_(1.0)
            for weight in (e_h, w_x, w_h):
                weight.zero_()

    def step(self, x: Tensor, m: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, C)``, ``m (B, U, Q)`` and, where it is a state, ``h (B, H)`` to the next ``m`` and ``h``."""
        return self._next(self.encoder, self.mixer, x, m, h)

    def _next(self, encode: Map, mix: Map, x: Tensor, m: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        u = encode(_joined(x, h if self.reads_hidden else None, m.flatten(1) if self.reads_memory else None))  # (B, U)
        m = self.memory.step(u, m)  # (B, U, Q)
        return m, self._hidden(mix, m, x, h)

    def _hidden(self, mix: Map, m: Tensor, x: Tensor, h: Tensor | None) -> Tensor:
        """``m (..., U, Q)``, ``x (..., C)`` and, where W_h is, ``h (..., H)`` to the next ``h (..., H)``."""
        a = mix(_joined(m.flatten(-2), x if self.input_to_hidden else None, h if self.recurrent else None))
        kept: Tensor = self.store(ACTIVATIONS[self.activation](a))
        return kept

    def forward(self, x: Tensor, m: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, T, C)`` from ``m (B, U, Q)`` and ``h (B, H)`` to the last ``m`` and every ``h (B, T, H)``."""
        plain = isinstance(self.encoder, nn.Linear) and isinstance(self.mixer, nn.Linear) and not self._rounds_state
        if self.reads_hidden or self.reads_memory:
            return self._linked(x, m, h) if plain else self._one_by_one(x, m, h)
        memories = self.memory(self.encoder(x), m)  # (B, T, U, Q): u does not wait for anything
        if h is None:
            return memories[:, -1], self._hidden(self.mixer, memories, x, None)
        run = self._fused if plain else self._hidden_one_by_one
        return memories[:, -1], run(memories, x, h)

    @property
    def _rounds_state(self) -> bool:
        return not (isinstance(self.store, nn.Identity) and isinstance(self.memory.store, Store))

    def _fused(self, m: Tensor, x: Tensor, h: Tensor) -> Tensor:
        """By torch's own kernel: W_m m + W_x x of all frames in one product."""
        w_m, w_x, w_h = self.mixer.weight.split(self.mixer_sizes, 1)
        given = _joined(m.flatten(2), x if self.input_to_hidden else None)  # (B, T, M + C)
        weights = [torch.cat([w_m, w_x], 1), w_h]
        if self.mixer.bias is not None:
            weights += [self.mixer.bias, torch.zeros_like(self.mixer.bias)]
        # given, h (layers = 1, B, H); biases, layers, dropout, training, bidirectional, batch first
        y, _ = FUSED[self.activation](given, h[None], weights, len(weights) == 4, 1, 0.0, False, False, True)
        return cast(Tensor, y)

    def _hidden_one_by_one(self, m: Tensor, x: Tensor, h: Tensor) -> Tensor:
        mix, kept = fixed(self.mixer), []
        for m_t, x_t in zip(m.unbind(1), x.unbind(1), strict=True):
            h = self._hidden(mix, m_t, x_t, h)  # (B, H)
            kept.append(h)
        return torch.stack(kept, 1)  # (B, T, H)

    def _one_by_one(self, x: Tensor, m: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """Quantized or rounded: the equations as they are, the weights quantized once."""
        encode, mix = fixed(self.encoder), fixed(self.mixer)
        kept = []
        for x_t in x.unbind(1):
            m, h = self._next(encode, mix, x_t, m, h)
            kept.append(h)
        return m, torch.stack(kept, 1)

    def _linked(self, x: Tensor, m: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """The part of x in both products for all frames at once, the part of the last step frame by frame."""
        e_x, e_state = self.encoder.weight.split([self.encoder_sizes[0], sum(self.encoder_sizes[1:])], 1)
        w_m, w_x, w_h = self.mixer.weight.split(self.mixer_sizes, 1)
        w_state, activation = torch.cat([w_m, w_h], 1), ACTIVATIONS[self.activation]
        into_u = linear(x, e_x, self.encoder.bias)  # (B, T, U)
        into_h = linear(x[..., : w_x.shape[1]], w_x, self.mixer.bias)  # (B, T, H): of no columns without that link
        kept = []
        for u, a in zip(into_u.unbind(1), into_h.unbind(1), strict=True):
            seen = _joined(h if self.reads_hidden else None, m.flatten(1) if self.reads_memory else None)
            m = self.memory.step(torch.addmm(u, seen, e_state.T), m)  # (B, U, Q)
            h = activation(torch.addmm(a, _joined(m.flatten(1), h if self.recurrent else None), w_state.T))  # (B, H)
            kept.append(h)
        return m, torch.stack(kept, 1)


def _joined(*parts: Tensor | None) -> Tensor:
    """In a row, those that there are."""
    there = [part for part in parts if part is not None]
    return torch.cat(there, -1) if len(there) > 1 else there[0]


class LmuCell(StreamingModel):
    """Stacked LMU cells and a linear read-out at every frame.

    Arguments: ``channels`` of u (memories), their ``order`` and ``hidden`` units, each one number for all ``layers`` or
    one for each; ``theta`` (window in steps); ``links``: what u reads of the last step, "hidden", "memory" or both;
    ``input_to_hidden`` and ``recurrent``: whether there are W_x and W_h; ``bias`` of both linear maps; ``activation``:
    "tanh" or "relu"; ``dropout`` before every layer but the first and before the read-out (training only); ``init``:
    "random" or "psmnist" (see :meth:`LmuCellLayer.reset`).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        channels: int | Sequence[int] = 1,
        order: int | Sequence[int] = 12,
        theta: float = 100.0,
        hidden: int | Sequence[int] = 64,
        layers: int = 1,
        links: Sequence[str] = LINKS,
        input_to_hidden: bool = True,
        recurrent: bool = True,
        bias: bool = False,
        activation: str = "tanh",
        dropout: float = 0.0,
        init: str = "random",
    ) -> None:
        super().__init__(input_size, output_size)
        if layers < 1:
            raise InputError(f"lmu_cell: layers {layers} must be at least 1")
        given = {"channels": channels, "order": order, "hidden": hidden}
        made = [per_layer("lmu_cell", name, size, layers) for name, size in given.items()]
        choices = [("link", link, LINKS) for link in links]
        for kind, value, known in (*choices, ("activation", activation, ACTIVATIONS), ("init", init, INITS)):
            if value not in known:
                raise unknown(f"lmu_cell {kind}", value, known)
        self.layers = cast("Sequence[LmuCellLayer]", nn.ModuleList())
        inputs = input_size
        for memories, orders, units in zip(*made, strict=True):
            layer = LmuCellLayer(
                inputs,
                memories,
                orders,
                theta,
                units,
                links=links,
                input_to_hidden=input_to_hidden,
                recurrent=recurrent,
                bias=bias,
                activation=activation,
            )
            layer.reset(init)
            cast(nn.ModuleList, self.layers).append(layer)
            inputs = units
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(inputs, output_size)

    def projections(self) -> dict[str, Projection]:
        known = super().projections()
        readers = [*(f"layers.{i}.encoder" for i in range(1, len(self.layers))), "readout"]
        for i, (layer, reader) in enumerate(zip(self.layers, readers, strict=True)):
            rectified = layer.activation == "relu"
            known[f"layers.{i}.mixer"] = Projection(rectified=rectified)
            if reader != "readout" and (layer.reads_hidden or layer.reads_memory):
                continue  # it reads more than h
            if layer.keeps_hidden:
                known[reader] = Projection(reads=f"layers.{i}.store")
            elif rectified:
                known[reader] = Projection(follows=f"layers.{i}.mixer")
        return known

    def widths(self) -> dict[str, Width]:
        found: dict[str, Width] = {}
        for i, layer in enumerate(self.layers):
            name, memory = f"layers.{i}", layer.memory
            (inputs, hidden, _), mixer = layer.encoder_sizes, layer.mixer_sizes
            own = made_by(self, f"{name}.mixer") + self._read(i + 1)
            own += read_by(f"{name}.encoder", start=inputs) * layer.reads_hidden
            own += read_by(f"{name}.mixer", start=mixer[0] + mixer[1]) * layer.recurrent
            found[f"{name}.hidden"] = Width(layer.hidden_size, own)
            per_channel, per_order = {"each": memory.order}, {"runs": memory.channels}
            channels, orders = (
                read_by(f"{name}.mixer", **sizes)
                + read_by(f"{name}.encoder", start=inputs + hidden, **sizes) * layer.reads_memory
                for sizes in (per_channel, per_order)
            )
            found[f"{name}.channels"] = Width(memory.channels, made_by(self, f"{name}.encoder") + channels)
            constants = (f"{name}.memory.A", f"{name}.memory.B")
            found[f"{name}.order"] = Width(memory.order, orders, nested=True, constants=constants)
        return found

    def _read(self, layer: int) -> tuple[Place, ...]:
        """Where a layer, or the read-out behind the last one, reads its inputs."""
        if layer == len(self.layers):
            return read_by("readout")
        mixer = read_by(f"layers.{layer}.mixer", start=self.layers[layer].mixer_sizes[0])
        return read_by(f"layers.{layer}.encoder") + mixer * self.layers[layer].input_to_hidden

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        widths, changed = self.widths(), dict[str, Any]()
        for argument in ("channels", "order", "hidden"):
            names = [f"layers.{i}.{argument}" for i in range(len(self.layers))]
            if differing(widths, sizes, names):
                changed[argument] = at_once([sizes[name] for name in names])
        return changed

    def retime(self, factor: float) -> dict[str, Any]:
        first = self.layers[0]
        if first.keeps_hidden or first.reads_memory:
            raise Unsupported(
                "lmu_cell: only the memory has a step size, not what u and h read of the last step: it runs at the "
                "rate that it was trained at, unless it has no links and recurrent is false"
            )
        theta = first.memory.theta / factor
        for layer in self.layers:
            layer.memory.set_theta(theta)
        return {"theta": theta}

    def initial_state(self, batch: int) -> State:
        state: State = {}
        for i, layer in enumerate(self.layers):
            state[f"layers.{i}.memory"] = layer.memory.initial_state(batch)
            if layer.keeps_hidden:
                state[f"layers.{i}.hidden"] = self.input_mean.new_zeros(batch, layer.hidden_size)
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, following = self.normalize(x), dict[str, Tensor]()  # (B, C)
        for i, layer in enumerate(self.layers):
            memory, hidden = f"layers.{i}.memory", f"layers.{i}.hidden"
            m, h = layer.step(self.dropout(h) if i else h, state[memory], state.get(hidden))  # (B, U, Q), (B, H)
            following[memory] = m
            if layer.keeps_hidden:
                following[hidden] = h
        return self.readout(self.dropout(h)), following  # (B, K)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.normalize(x), dict[str, Tensor]()  # (B, T, C)
        for i, layer in enumerate(self.layers):
            memory, hidden = f"layers.{i}.memory", f"layers.{i}.hidden"
            m, h = layer(self.dropout(h) if i else h, state[memory], state.get(hidden))  # (B, U, Q), (B, T, H)
            following[memory] = m
            if layer.keeps_hidden:
                following[hidden] = h[:, -1]
        return self.readout(self.dropout(h)), following  # (B, T, K)
