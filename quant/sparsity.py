"""Unstructured and block pruning: weights of the linear maps that are set to 0 and stay so.

Gradual pruning takes them out on the way, s_t = s (1 - (1 - t)³): Zhu, Gupta, "To prune, or not to prune", 2017
(arXiv 1710.01878). There t runs over most of training; here over its first half (:data:`RAMP`), and only weights of the
other half, which have the share that was asked for, may be chosen.

Zeros of this kind save bytes in weights.packed. No engine computes fewer products for them (docs/measured.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgeseq.errors import InputError
from edgeseq.models.contract import StreamingModel, mask_zeros, set_mask, weight_of
from edgeseq.quant.saliency import Tensors, saliency
from edgeseq.training.settings import Settings

SCOPES = ("global", "layer")
UPDATES = 30  # times that gradual pruning takes weights out
RAMP = 0.5  # share of training in which weights go

Masks = dict[str, Tensor]  # by linear map, which of its weights (out, in) there are (bool)


def present(model: StreamingModel, names: Iterable[str] | None = None) -> Masks:
    """The weights that the linear maps ``names`` have, or all of the model's."""
    had = model.masks()
    maps = model.projections() if names is None else names
    weights = {name: weight_of(model.get_submodule(name)) for name in maps}
    return {name: had.get(name, torch.ones_like(weight, dtype=torch.bool)) for name, weight in weights.items()}


def zero_shares(model: StreamingModel, names: Iterable[str]) -> dict[str, float]:
    """Of the linear maps ``names``, the share of each that is pruned, and under "" that of all of them."""
    masks = present(model, names)
    gone, sizes = ({name: count(mask) for name, mask in masks.items()} for count in (_absent, Tensor.numel))
    shares = {name: gone[name] / sizes[name] for name in masks}
    return {"": sum(gone.values()) / max(1, sum(sizes.values())), **shares}


def _absent(mask: Tensor) -> int:
    return int((~mask).sum())


@dataclass(frozen=True)
class Sparsity:
    """What ``share`` of the weights ``there`` goes: those that matter least, in whole blocks of (rows, columns).

    For example ``Sparsity(0.8, present(model)).apply(model)``. Linear maps that are not in ``there`` stay as they are.
    ``scope``: "global" compares the weights of all maps, "layer" takes the share of each. Each map keeps the block that
    matters most. ``squared``: see :func:`edgeseq.quant.saliency.saliency`.

    Raises:
        InputError: a block that holds a map in whole, or a share that leaves a map without a block.
    """

    share: float
    there: Masks
    scope: str = "global"
    block: tuple[int, int] = (1, 1)
    squared: Tensors | None = None

    def __post_init__(self) -> None:
        rows, columns = self.block
        for name, mask in self.there.items():
            out, inputs = mask.shape
            if mask.numel() > 1 and rows >= out and columns >= inputs:
                raise InputError(f"block {rows}x{columns} holds all of {name} ({out}x{inputs}): name a smaller one")
        for names in self._groups():
            sizes = [_blocked(self.there[name].double(), self.block) for name in names]
            total = float(sum(size.sum() for size in sizes))
            most = total - float(sum(size.max() for size in sizes))
            if round(self.share * total) > most + rows * columns / 2:
                where = names[0] if len(names) == 1 else "all linear maps"
                possible = math.floor(100 * most / total) / 100
                raise InputError(
                    f"weights {self.share:g}: a linear map keeps {_said(self.block)}, so that of the {round(total):,} "
                    f"weights of {where} {round(most):,} can go: ask for {possible:.2f} or less"
                )

    def masks(self, model: StreamingModel, done: float = 1.0) -> Masks:
        """What remains of the ``model`` when the part ``done`` of the share is gone; it lacks no more than that yet.

        With blocks of one weight the count is exact (rounded); else it is off by half a block at most.
        """
        matter, now = saliency(model, self.squared), present(model, self.there)
        scores = {name: torch.where(mask, matter[f"{name}.weight"], 0).double() for name, mask in now.items()}
        kept: Masks = {}
        for names in self._groups():
            kept |= self._lowest(names, scores, now, done * self.share)
        return kept

    def apply(self, model: StreamingModel, done: float = 1.0) -> None:
        """Prune the model, in place, to :meth:`masks`."""
        for name, mask in self.masks(model, done).items():
            set_mask(model.get_submodule(name), mask)

    def _groups(self) -> list[list[str]]:
        """The maps whose weights are compared with each other."""
        return [list(self.there)] if self.scope == "global" else [[name] for name in self.there]

    def _lowest(self, names: list[str], scores: Masks, now: Masks, share: float) -> Masks:
        """The masks of the maps ``names`` without the blocks that matter least for each of their weights."""
        values, sizes, shapes = [], [], []
        for name in names:
            there, left = (_blocked(each[name].double(), self.block) for each in (self.there, now))
            importance = _blocked(scores[name], self.block) / left.clamp(min=1)
            value = torch.where(left > 0, importance, -1.0).flatten()  # what is gone already goes first
            if bool((left > 0).any()):
                value[value.argmax()] = math.inf
            values.append(value)
            sizes.append(there.flatten())
            shapes.append(there.shape)
        ranked = torch.cat(values)
        order = torch.argsort(ranked, stable=True)[: int(ranked.isfinite().sum())]
        size = torch.cat(sizes)[order]
        middles = size.cumsum(0) - size / 2  # what is gone when half of a block is: it goes if that is not too much
        goal = round(share * sum(float(each.sum()) for each in sizes))
        goes = torch.zeros(len(ranked), dtype=torch.bool)
        goes[order[: int((middles <= goal).sum())]] = True
        parts = goes.split([len(each) for each in values])
        rows, columns = self.block
        kept = {}
        for name, part, shape in zip(names, parts, shapes, strict=True):
            spread = part.view(shape).repeat_interleave(rows, 0).repeat_interleave(columns, 1)
            out, inputs = now[name].shape
            kept[name] = now[name] & ~spread[:out, :inputs].to(now[name].device)
        return kept


@dataclass
class Gradual:
    """A schedule of training (:data:`edgeseq.training.loop.Schedule`) that prunes the model to ``sparsity``.

    It takes weights out at some steps of the first :data:`RAMP` of training, more at the start than at the end.
    """

    sparsity: Sparsity
    settings: Settings
    _started: bool = field(default=False, init=False)

    def __call__(self, model: StreamingModel, progress: float) -> None:
        """Ahead of the step at ``progress``: prune, if it is time."""
        if not self._started:  # a resumed run has its zeros, but no masks
            mask_zeros(model, model.projections())
            self._started = True
        steps = self.settings.rounds * self.settings.steps
        step, last = round(progress * steps), max(round(RAMP * steps) - 1, 0)
        every = max(1, last // UPDATES)
        if step <= last and (step % every == 0 or step == last):
            self.sparsity.apply(model, cubic(step / last if last else 1.0))


def cubic(t: float) -> float:
    """Share of the final sparsity at the share ``t`` of the way."""
    return 1 - (1 - min(t, 1.0)) ** 3


def open_masks(model: StreamingModel) -> None:
    """Give each linear map, in place, a mask of the weights that it has, for training to keep as it changes."""
    for name, mask in present(model).items():
        set_mask(model.get_submodule(name), mask)


def _said(block: tuple[int, int]) -> str:
    return "one weight" if block == (1, 1) else f"one block of {block[0]}x{block[1]}"


def _blocked(values: Tensor, block: tuple[int, int]) -> Tensor:
    """The sums over blocks of ``values (out, in)``; those at the edges may be smaller."""
    (rows, columns), (out, inputs) = block, values.shape
    padded = pad(values, (0, -inputs % columns, 0, -out % rows))
    return padded.view(padded.shape[0] // rows, rows, -1, columns).sum((1, 3)).cpu()
