"""Recurrent networks whose hidden units are wired by a random graph.

    W_h[u, v] = 0 unless the node of unit u is that of v, or an edge joins the two

in each gate's matrix of a recurrent cell (:mod:`edgeseq.models.cells`). A node is ``block`` units; an edge lets the
units of both its nodes read each other, and every node reads itself.

After Darji, "Investigating sparsity in recurrent neural networks" (thesis), whose graphs these are and whose properties
``facts`` gives. There the edges are given a direction and the nodes a layer, and mask the weights between layers, one
unit a node, while the recurrent matrices stay dense; here they wire the recurrent matrices, where most of the weights
are, and layers read each other in full.

Shape letters: B batch, T frames, N nodes, H = N · block hidden units, G gates of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import networkx
import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, Unsupported
from edgeseq.models.cells import RecurrentStack, stacked_cells
from edgeseq.models.contract import State, Width, fixed, set_mask
from edgeseq.models.places import at_once, differing, per_layer
from edgeseq.models.wiring import draw_wiring, wiring_facts

PARTS = ".parts."  # in the names of what one map is kept in
TILE = 8  # units: a smaller tile has fewer products than one call of a kernel costs
SAVING = 0.1  # share of the products below which tiles are not worth their calls

Run = tuple[int, int]  # units from, to
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tile:
    """Rows ``start`` to ``stop`` of the matrix and the runs of columns that they read."""

    start: int
    stop: int
    runs: tuple[Run, ...]

    @property
    def rows(self) -> int:
        """Number of units computed."""
        return self.stop - self.start

    def columns(self) -> Tensor:
        """Which units are read, in their order."""
        return torch.cat([torch.arange(*run) for run in self.runs])


def tiles_of(units: Tensor, height: int) -> tuple[Tile, ...]:
    """Cut ``units (H, H)`` (bool: row reads column) into tiles of ``height`` rows, and leave out unread columns.

    Columns are kept or left out ``height`` at a time. One tile of everything if that saves less than a tenth of the
    products.
    """
    size = len(units)
    edges = [(start, min(start + height, size)) for start in range(0, size, height)]
    tiles = []
    for start, stop in edges:
        read = [run for run in edges if bool(units[start:stop, run[0] : run[1]].any())]
        tiles.append(Tile(start, stop, _merged(read)))
    products = sum(tile.rows * len(tile.columns()) for tile in tiles)
    return tuple(tiles) if products <= (1 - SAVING) * size**2 else (Tile(0, size, ((0, size),)),)


def _merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    merged: list[Run] = []
    for start, stop in runs:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


class BlockSparseLinear(nn.Module):
    """``y = W x + b`` for ``G`` gates of ``H`` units, as linear maps that read only what their units are wired to.

    Rows are ordered by gate, as in torch.nn.GRU: the answer is that of a dense linear map with the same weights and
    zeros elsewhere. Nodes of at least 8 units are tiles of their own. Smaller ones share a tile; what is not wired
    inside of it is stored as 0, and is the part's ``mask``, for training to keep so.
    """

    wired: Tensor
    positions: Tensor
    bias_positions: Tensor

    def __init__(self, wiring: Tensor, block: int, gates: int) -> None:
        super().__init__()
        self.gates, self.size = gates, len(wiring) * block
        units = wiring.repeat_interleave(block, 0).repeat_interleave(block, 1)  # (H, H)
        self.tiles = tiles_of(units, max(1, TILE // block) * block)
        self.parts = nn.ModuleList(nn.Linear(len(tile.columns()), gates * tile.rows) for tile in self.tiles)
        for part, tile in zip(self.parts, self.tiles, strict=True):
            wired = units[tile.start : tile.stop, tile.columns()]
            if not bool(wired.all()):
                set_mask(part, wired.repeat(gates, 1))
        weights, biases = zip(*map(self._places, self.tiles), strict=True)
        self.register_buffer("wired", units, persistent=False)
        self.register_buffer("positions", torch.cat(weights), persistent=False)
        self.register_buffer("bias_positions", torch.cat(biases), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x (..., H)`` to ``y (..., G H)``."""
        return self._apply_parts(x, list(self.parts))

    def fixed(self) -> Map:
        """The same for a loop over frames: quantized parts prepare their weights once."""
        maps = [fixed(part) for part in self.parts]
        return lambda x: self._apply_parts(x, maps)

    def dense(self) -> tuple[Tensor, Tensor] | None:
        """Weight ``(G H, H)`` and bias ``(G H)`` of the dense map that this is; None where the parts are quantized."""
        if not all(isinstance(part, nn.Linear) for part in self.parts):
            return None
        parts = cast("Sequence[nn.Linear]", self.parts)
        if len(parts) == 1:
            return parts[0].weight, parts[0].bias
        weights = torch.cat([part.weight.flatten() for part in parts])
        biases = torch.cat([part.bias for part in parts])
        weight = weights.new_zeros(self.gates * self.size**2).scatter(0, self.positions, weights)
        bias = biases.new_zeros(self.gates * self.size).scatter(0, self.bias_positions, biases)
        return weight.view(self.gates * self.size, self.size), bias

    def products(self) -> int:
        """Multiply-accumulates of one call at batch 1: the weights that are stored."""
        return self.gates * sum(tile.rows * len(tile.columns()) for tile in self.tiles)

    @torch.no_grad()
    def assign(self, weight: Tensor, bias: Tensor) -> None:
        """Take over what there is room for of a dense map's ``weight (G H, H)`` and ``bias (G H)``."""
        for part, tile in zip(cast("Sequence[nn.Linear]", self.parts), self.tiles, strict=True):
            places, rows = self._places(tile)
            part.weight.copy_(weight.flatten()[places].view_as(part.weight))
            part.bias.copy_(bias[rows])
        self._clear_absent()

    @torch.no_grad()
    def scale_to_inputs(self) -> None:
        """Set absent weights to 0 and make the others as much larger as each unit has fewer inputs than ``H``."""
        for part, tile in zip(cast("Sequence[nn.Linear]", self.parts), self.tiles, strict=True):
            inputs = self.wired[tile.start : tile.stop].sum(1).repeat(self.gates)  # (G rows)
            part.weight.mul_((self.size / inputs).sqrt()[:, None])
        self._clear_absent()

    def _clear_absent(self) -> None:
        for part in self.parts:
            if getattr(part, "mask", None) is not None:
                cast(nn.Linear, part).weight.mul_(cast(Tensor, part.mask))

    def _places(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Where a tile's weights and biases stand in the dense matrix and bias, both flat."""
        rows = (torch.arange(self.gates)[:, None] * self.size + torch.arange(tile.start, tile.stop)).flatten()
        return (rows[:, None] * self.size + tile.columns()).flatten(), rows

    def _apply_parts(self, x: Tensor, maps: Sequence[Map]) -> Tensor:
        pieces = {run: x[..., run[0] : run[1]] for tile in self.tiles for run in tile.runs}
        answers = []
        for tile, project in zip(self.tiles, maps, strict=True):
            read = [pieces[run] for run in tile.runs]
            answers.append(project(torch.cat(read, -1) if len(read) > 1 else read[0]))  # (..., G rows)
        return self._by_gate(answers)

    def _by_gate(self, answers: list[Tensor]) -> Tensor:
        """The tiles' answers ``(..., G rows)`` in the order of the dense map; the last tile may have fewer rows."""
        if len(answers) == 1:
            return answers[0]
        lead, rows = answers[0].shape[:-1], self.tiles[0].rows
        even = [answer for answer, tile in zip(answers, self.tiles, strict=True) if tile.rows == rows]
        stacked = torch.cat(even, -1).reshape(*lead, len(even), self.gates, rows)
        ordered = stacked.transpose(-3, -2).reshape(*lead, self.gates, len(even) * rows)
        if len(even) < len(answers):
            ordered = torch.cat([ordered, answers[-1].reshape(*lead, self.gates, -1)], -1)
        return ordered.reshape(*lead, self.gates * self.size)


class SparseRnn(RecurrentStack):
    """Stacked recurrent layers, their hidden units wired by one random graph, and a linear read-out at every frame.

    Arguments: ``graph`` ("watts_strogatz" with ``neighbours`` and ``rewire``, or "barabasi_albert" with ``attach``) of
    ``nodes`` nodes, drawn with ``wiring_seed``; ``block`` units per node, one number for all layers or one for each, of
    which small ones save products but not time (docs/measured.md); ``cell``, ``layers``, ``dropout`` and ``timescale``
    as in ``rnn``. The wiring is stored with the weights.
    """

    wiring: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        graph: str = "watts_strogatz",
        nodes: int = 8,
        neighbours: int = 2,
        rewire: float = 0.0,
        attach: int = 1,
        wiring_seed: int = 0,
        block: int | Sequence[int] = 32,
        cell: str = "gru",
        layers: int = 1,
        dropout: float = 0.0,
        timescale: float = 0.0,
    ) -> None:
        blocks = per_layer("sparse_rnn", "block", block, layers)
        drawn = draw_wiring(graph, nodes, neighbours=neighbours, rewire=rewire, attach=attach, seed=wiring_seed)
        wiring = torch.from_numpy(drawn)
        recurrent = [partial(BlockSparseLinear, wiring, each) for each in blocks]
        hidden = [nodes * each for each in blocks]
        cells = stacked_cells("sparse_rnn", cell, input_size, hidden, timescale, recurrent)
        super().__init__(input_size, output_size, cells, dropout)
        self.register_buffer("wiring", wiring)

    def widths(self) -> dict[str, Width]:
        nodes = len(self.wiring)
        return {name: replace(each, size=each.size // nodes, lanes=nodes) for name, each in super().widths().items()}

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        widths = self.widths()
        return {"block": at_once([sizes[each] for each in widths])} if differing(widths, sizes, list(widths)) else {}

    def whole(self) -> State:
        tensors = {name: tensor for name, tensor in self.state_dict().items() if PARTS not in name}
        for name, layer in self._recurrent_maps().items():
            dense = layer.dense()
            if dense is None:
                raise Unsupported(f"{name}: its parts are quantized, each with ranges of its own, and make no one map")
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (tensor.detach().clone() for tensor in dense)
        return tensors

    def take(self, tensors: State) -> None:
        for name, layer in self._recurrent_maps().items():
            layer.assign(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        mine = self.state_dict()
        self.load_state_dict({name: tensor if PARTS in name else tensors[name] for name, tensor in mine.items()})

    def facts(self) -> Mapping[str, float]:
        """Of the wiring, and of the recurrent maps in all layers.

        ``tiles``: of the first layer's map. ``wired_share``: of the dense maps' weights, those that exist.
        ``products_share``: of their products, those that are computed; 1 where tiles would not have saved a tenth.
        """
        maps = list(self._recurrent_maps().values())
        return {
            **wiring_facts(self.wiring.cpu().numpy()),
            "tiles": len(maps[0].tiles),
            "wired_share": float(self.wiring.float().mean()),
            "products_share": sum(each.products() for each in maps) / sum(each.gates * each.size**2 for each in maps),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's.

        Raises:
            InputError: the weights are those of another wiring.
        """
        stored = state_dict.get("wiring")
        if stored is not None and not torch.equal(stored, self.wiring.to(stored.device)):
            raise InputError(
                f"these weights are wired by another graph ({int(stored.sum())} connections of {len(stored)} nodes) "
                f"than the arguments give here ({int(self.wiring.sum())} of {len(self.wiring)}): graph, nodes, "
                "neighbours, rewire, attach and wiring_seed must be as they were, and so must networkx "
                f"(here {networkx.__version__}), which draws it"
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _recurrent_maps(self) -> dict[str, BlockSparseLinear]:
        return {
            f"layers.{i}.from_hidden": cast(BlockSparseLinear, cell.from_hidden) for i, cell in enumerate(self.layers)
        }
