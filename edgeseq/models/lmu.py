"""The feed-forward Legendre memory unit, in blocks.

    u_t = W_u x_t + b_u
    m_t = A m_{t-1} + B u_t           (the Legendre memory, one per channel, A and B fixed)
    h_t = ReLU(W_h [m_t; x_t] + b_h)

Voelker, Kajić, Eliasmith, "Legendre memory units", NeurIPS 2019, without the links from h and m back to u, so that all
frames are computed at once: Chilkuri, Eliasmith, "Parallelizing Legendre memory unit training", ICML 2021, eq. 18-20.

Here u has several channels and no ReLU, and blocks are stacked: h of one is x of the next (added to it where the sizes
agree), so that a later memory can keep what is not linear in the input. A front of products, (P x) tanh(Q x), gives the
first memory energies and correlations to keep: what a memory that is linear and alone cannot see.

Shape letters: B batch, T frames, C inputs, P products, U memory channels, Q order, H hidden units, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.errors import InputError
from edgeseq.models.contract import Place, Projection, State, StreamingModel, Width
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.places import made_by, read_by


class Products(nn.Module):
    """``x (..., C)`` to ``[x, (P x) tanh(Q x)] (..., C + P)``."""

    def __init__(self, input_size: int, count: int) -> None:
        super().__init__()
        self.value = nn.Linear(input_size, count)
        self.gate = nn.Linear(input_size, count)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.value(x) * torch.tanh(self.gate(x))], -1)


class LmuBlock(nn.Module):
    """Encoder, memory and mixer of one block."""

    def __init__(
        self, input_size: int, channels: int, order: int, theta: float, hidden: int, residual: bool | None = None
    ) -> None:
        super().__init__()
        self.encoder = nn.Linear(input_size, channels)
        self.memory = LegendreMemory(channels, order, theta)
        self.mixer = nn.Linear(channels * order + input_size, hidden)
        self.residual = input_size == hidden if residual is None else residual
        if self.residual and input_size != hidden:
            raise InputError(f"lmu: a block of {hidden} hidden units cannot add them to its {input_size} inputs")

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, U, Q)``."""
        return self.memory.initial_state(batch)

    def mix(self, m: Tensor, x: Tensor) -> Tensor:
        """``m (..., U, Q)`` and ``x (..., C)`` to ``h (..., H)``."""
        return self.answer(self.mixer(torch.cat([m.flatten(-2), x], -1)), x)

    def answer(self, mixed: Tensor, x: Tensor) -> Tensor:
        """What the mixer says ``(..., H)`` of ``x (..., C)`` to ``h (..., H)``."""
        h = torch.relu(mixed)
        return x + h if self.residual else h

    def step(self, x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, C)`` and ``m (B, U, Q)`` to ``h (B, H)`` and the next ``m``."""
        m = self.memory.step(self.encoder(x), m)
        return self.mix(m, x), m

    def forward(self, x: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, T, C)`` from ``m (B, U, Q)``, or from zero, to ``h (B, T, H)`` and the last ``m``."""
        u = self.encoder(x)  # (B, T, U)
        if isinstance(self.mixer, nn.Linear) and self.memory.folds(u, self.mixer.out_features):
            size = self.memory.channels * self.memory.order
            remembered, m = self.memory.folded(u, m, self.mixer.weight[:, :size])  # (B, T, H)
            return self.answer(remembered + linear(x, self.mixer.weight[:, size:], self.mixer.bias), x), m
        memory = self.memory(u, m)  # (B, T, U, Q)
        return self.mix(memory, x), memory[:, -1]

    def last(self, x: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor]:
        """As ``forward``, for the last frame only: ``h (B, H)``."""
        m = self.memory.last(self.encoder(x), m)
        return self.mix(m, x[:, -1]), m


class Lmu(StreamingModel):
    """Stacked feed-forward LMU blocks and a linear read-out at every frame.

    Arguments: ``channels``, ``orders``, ``thetas`` (window in steps) and ``hidden`` units, one entry per block;
    ``products`` of the front; ``dropout`` before every block but the first and before the read-out (training only);
    ``residual``: which blocks add h to their input (where it is not given, those with as many units as inputs).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        channels: Sequence[int] = (12,),
        orders: Sequence[int] = (16,),
        thetas: Sequence[float] = (100.0,),
        hidden: Sequence[int] = (64,),
        products: int = 0,
        dropout: float = 0.0,
        residual: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(input_size, output_size)
        per_block: dict[str, Sequence[Any]] = {
            "channels": channels,
            "orders": orders,
            "thetas": thetas,
            "hidden": hidden,
        }
        if len({len(value) for value in per_block.values()}) != 1 or not channels:
            given = ", ".join(f"{name} {list(value)}" for name, value in per_block.items())
            raise InputError(f"lmu: one entry per block is needed in each of {given}")
        for name, values in per_block.items():
            if isinstance(values, str) or min(values) <= 0:
                raise InputError(f"lmu: {name} {values!r} must be positive numbers, one for each block")
        added = [None] * len(hidden) if residual is None else residual
        if len(added) != len(hidden) or not all(each is None or isinstance(each, bool) for each in added):
            raise InputError(f"lmu: residual {residual!r} must be true or false for each of {len(hidden)} blocks")
        self.front = Products(input_size, products) if products else nn.Identity()
        sizes = zip([input_size + products, *hidden[:-1]], channels, orders, thetas, hidden, added, strict=True)
        self.blocks = cast("Sequence[LmuBlock]", nn.ModuleList(LmuBlock(*size) for size in sizes))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden[-1], output_size)

    def projections(self) -> dict[str, Projection]:
        known = super().projections()
        known.update((f"blocks.{i}.mixer", Projection(rectified=True)) for i in range(len(self.blocks)))
        readers = [*(f"blocks.{i}.encoder" for i in range(1, len(self.blocks))), "readout"]
        for i, (block, reader) in enumerate(zip(self.blocks, readers, strict=True)):
            if not block.residual:  # else the input is added, and nobody reads the mixer's answer as it is
                known[reader] = Projection(follows=f"blocks.{i}.mixer")
        return known

    def widths(self) -> dict[str, Width]:
        found: dict[str, Width] = {}
        for i, block in enumerate(self.blocks):
            mixer, encoder, memory = f"blocks.{i}.mixer", f"blocks.{i}.encoder", block.memory
            places = (*made_by(self, encoder), *read_by(mixer, each=memory.order))
            found[f"blocks.{i}.channels"] = Width(memory.channels, places)
            made, constants = read_by(mixer, runs=memory.channels), (f"blocks.{i}.memory.A", f"blocks.{i}.memory.B")
            found[f"blocks.{i}.order"] = Width(memory.order, made, nested=True, constants=constants)
        for name, summed in self._sums().items():
            places = tuple(place for i in summed for place in (*made_by(self, f"blocks.{i}.mixer"), *self._read(i + 1)))
            found[name] = Width(self.blocks[summed[0]].mixer.out_features, places)
        if isinstance(self.front, Products) and not self.blocks[0].residual:
            made = (*made_by(self, "front.value"), *made_by(self, "front.gate"))
            found["products"] = Width(self.front.value.out_features, (*made, *self._read(0, self.input_size)))
        return found

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        now = self._sizes()
        then: dict[str, Any] = {
            "channels": [sizes[f"blocks.{i}.channels"] for i in range(len(self.blocks))],
            "orders": [sizes[f"blocks.{i}.order"] for i in range(len(self.blocks))],
            "hidden": list(now["hidden"]),
            "products": sizes.get("products", now["products"]),
        }
        for name, summed in self._sums().items():
            for i in summed:
                then["hidden"][i] = sizes[name]
        inputs = [self.input_size + then["products"], *then["hidden"][:-1]]
        residual = [block.residual for block in self.blocks]
        alike = [one == other for one, other in zip(inputs, then["hidden"], strict=True)]
        changed = {name: value for name, value in then.items() if value != now[name]}
        return changed | ({"residual": residual} if residual != alike else {})

    def _sizes(self) -> dict[str, Any]:
        """The arguments that widths are of, as they are."""
        return {
            "channels": [block.memory.channels for block in self.blocks],
            "orders": [block.memory.order for block in self.blocks],
            "hidden": [block.mixer.out_features for block in self.blocks],
            "products": self.front.value.out_features if isinstance(self.front, Products) else 0,
        }

    def _sums(self) -> dict[str, list[int]]:
        """By name of a width, the blocks that write into one sum; but none of that which the model's inputs are in."""
        sums: list[list[int]] = [[]]
        for i, block in enumerate(self.blocks):
            if block.residual:
                sums[-1].append(i)
            else:
                sums.append([i])
        return {f"blocks.{summed[0]}.hidden": summed for summed in sums[1:]}

    def _read(self, block: int, start: int = 0) -> tuple[Place, ...]:
        """Where a block, or the read-out behind the last one, reads its inputs, from one of them on."""
        if block == len(self.blocks):
            return read_by("readout", start=start)
        memory = self.blocks[block].memory
        behind = memory.channels * memory.order + start
        return (*read_by(f"blocks.{block}.encoder", start=start), *read_by(f"blocks.{block}.mixer", start=behind))

    def retime(self, factor: float) -> dict[str, Any]:
        for block in self.blocks:
            block.memory.set_theta(block.memory.theta / factor)
        return {"thetas": [block.memory.theta for block in self.blocks]}

    def initial_state(self, batch: int) -> State:
        return {f"blocks.{i}.memory": block.initial_state(batch) for i, block in enumerate(self.blocks)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, following = self.front(self.normalize(x)), {}  # (B, C + P)
        for i, block in enumerate(self.blocks):
            name = f"blocks.{i}.memory"
            h, following[name] = block.step(self.dropout(h) if i else h, state[name])  # (B, H), (B, U, Q)
        return self.readout(self.dropout(h)), following  # (B, K)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return self._run(x, state, last=False)  # (B, T, K)

    def last(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return self._run(x, state, last=True)  # (B, K)

    def _run(self, x: Tensor, state: State | None, *, last: bool) -> tuple[Tensor, State]:
        h, following = self.front(self.normalize(x)), {}  # (B, T, C + P)
        for i, block in enumerate(self.blocks):
            name = f"blocks.{i}.memory"
            h = self.dropout(h) if i else h
            run = block.last if last and i == len(self.blocks) - 1 else block
            h, following[name] = run(h, state[name] if state else None)  # (B, T, H), (B, U, Q)
        return self.readout(self.dropout(h)), following  # (B, T, K)
