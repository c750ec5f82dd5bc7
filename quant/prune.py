"""Structured pruning: which units of which widths go, so that a smaller model of the same kind remains.

Greedy: of all widths, the units go next that matter least for each parameter that goes with them, counted anew after
every choice, since what a unit of one layer costs hangs on how many the next one has. A unit is a row here, a column
there, a bias, a channel's dynamics: all that :class:`~edgeseq.models.contract.Width` says of it. Where a width has
lanes, each loses a unit of its own.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import Place, StreamingModel, Width, parameter_count
from edgeseq.quant.saliency import Tensors, mode_energy, modes_of

Kept = dict[str, Tensor]  # by width, which units each lane keeps (lanes, k), rising


def units_to_keep(model: StreamingModel, share: float, saliency: Tensors) -> Kept:
    """Of the widths that become smaller, the units that stay when at least ``share`` of the parameters goes.

    ``saliency``: how much each number of each parameter matters, by the parameter's name.

    Raises:
        Unsupported: the family names no widths.
        InputError: the widths cannot get so small.
    """
    widths = model.widths()
    if not widths:
        raise Unsupported(f"{type(model).__name__} names no widths: nothing of it can be made narrower")
    ones = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    ledger = _Ledger(widths, _in_whole(model, ones), _in_whole(model, saliency))
    total = parameter_count(model)
    goal = total - math.ceil(share * total)
    while ledger.parameters() > goal:
        if not ledger.drop_least():
            left = ledger.parameters()
            raise InputError(
                f"structured {share:g}: with every width at its smallest this model still has {left:,} of its "
                f"{total:,} parameters ({100 * left / total:.0f} %): ask for {_less(1 - left / total)} or less"
            )
    return ledger.kept()


def modes_to_keep(model: StreamingModel, share: float) -> Kept:
    """Of the layers that have fewer then, the modes that each channel keeps when at least ``share`` of all modes goes.

    By energy as a share of the channel's: a mode of each channel of the layer goes where they add least to it.

    Raises:
        Unsupported: the model has no modes.
        InputError: a channel keeps one mode at least.
    """
    names = modes_of(model)
    if not names:
        raise Unsupported(f"modes: {type(model).__name__} has none; those that do are of the family s4d")
    energies = {name: mode_energy(model, name) for name in names}  # (H, M) each
    widths = model.widths()
    total = sum(energy.numel() for energy in energies.values())
    sizes = {name: energy.shape[1] for name, energy in energies.items()}
    rising = {name: energy.sort(1).values.mean(0) for name, energy in energies.items()}  # (M)
    gone = 0
    while gone < math.ceil(share * total - 1e-9):
        free = [name for name in names if sizes[name] > widths[name].least]
        if not free:
            raise InputError(
                f"modes {share:g}: {total - gone:,} of {total:,} modes are the least that it can have, one in each "
                f"channel: ask for {_less(gone / total)} or less"
            )
        name = min(free, key=lambda each: float(rising[each][-sizes[each]]))
        sizes[name] -= 1
        gone += len(energies[name])
    return {
        name: energy.topk(sizes[name], 1).indices.sort(1).values
        for name, energy in energies.items()
        if sizes[name] < energy.shape[1]
    }


class _Ledger:
    """What is left of a model while units are taken out: parameters and importance in each tensor of ``whole()``.

    Both are kept at the model's full size, with 0 where a unit has gone, so that what two widths share is counted once.
    """

    def __init__(self, widths: dict[str, Width], counts: Tensors, saliency: Tensors) -> None:
        self.widths, self.counts, self.saliency = widths, counts, saliency
        self.stays = {name: torch.ones(width.lanes, width.size, dtype=torch.bool) for name, width in widths.items()}

    def parameters(self) -> int:
        """Trained numbers that are left."""
        return round(sum(float(count.sum()) for count in self.counts.values()))

    def drop_least(self) -> bool:
        """Take out the units that matter least for each parameter of theirs; False where no width may get smaller.

        A memory of another order is another memory: what its last order matters says nothing of that, so that orders go
        when nothing else can.
        """
        free = {name: width for name, width in self.widths.items() if int(self.stays[name][0].sum()) > width.least}
        plain = {name: width for name, width in free.items() if not width.constants}
        found = [self._candidate(name, width) for name, width in (plain or free).items()]
        if not found:
            return False
        best = min(found, key=lambda candidate: candidate.score)
        self._drop(best.width, best.units)
        return True

    def kept(self) -> Kept:
        """The units that stay, of the widths that have lost some."""
        return {
            name: stays.nonzero()[:, 1].view(len(stays), -1) for name, stays in self.stays.items() if not stays.all()
        }

    def _candidate(self, name: str, width: Width) -> _Candidate:
        matter, count = (_per_unit(width, values) for values in (self.saliency, self.counts))  # (lanes, size)
        stays = self.stays[name]
        units = stays.sum(1) - 1 if width.nested else torch.where(stays, matter, math.inf).argmin(1)
        lost, freed = (float(each.gather(1, units[:, None]).sum()) for each in (matter, count))
        return _Candidate(name, units, lost / max(freed, 1.0))

    def _drop(self, name: str, units: Tensor) -> None:
        width = self.widths[name]
        self.stays[name][torch.arange(width.lanes), units] = False
        for place in width.places:
            for tensors in (self.counts, self.saliency):
                if place.name in tensors:
                    _clear(tensors[place.name], place, width, units)


@dataclass(frozen=True)
class _Candidate:
    """A unit of each lane of a width, and how much they matter for each parameter."""

    width: str
    units: Tensor
    score: float


def _per_unit(width: Width, tensors: Tensors) -> Tensor:
    """``(lanes, size)``: the sum of what stands in the places of each unit."""
    total = torch.zeros(width.lanes, width.size, dtype=torch.float64)
    for place in width.places:
        tensor = tensors.get(place.name)
        if tensor is None:  # of no parameter
            continue
        if place.lane_axis is not None:
            total += tensor.movedim((place.lane_axis, place.axis), (0, 1)).reshape(width.lanes, width.size, -1).sum(2)
            continue
        line = tensor.movedim(place.axis, 0).reshape(tensor.shape[place.axis], -1).sum(1)
        length = place.runs * width.lanes * width.size * place.each
        line = line[place.start : place.start + length]
        total += line.view(place.runs, width.lanes, width.size, place.each).sum((0, 3))
    return total


def _clear(tensor: Tensor, place: Place, width: Width, units: Tensor) -> None:
    """Set to 0, in place, what one unit of each lane, ``units (lanes)``, has in a place."""
    lanes = torch.arange(width.lanes)
    if place.lane_axis is not None:
        tensor.movedim((place.lane_axis, place.axis), (0, 1))[lanes, units] = 0
        return
    first = ((torch.arange(place.runs)[:, None] * width.lanes + lanes) * width.size + units) * place.each
    indices = place.start + first[..., None] + torch.arange(place.each)
    tensor.index_fill_(place.axis, indices.flatten(), 0)


def _less(share: float) -> str:
    """A share with two digits, rounded down."""
    return f"{math.floor(100 * share) / 100:.2f}"


@torch.no_grad()
def _in_whole(model: StreamingModel, values: Tensors) -> Tensors:
    """The ``values`` of each trained parameter, in the tensors of ``whole()``, in double; 0 where it is pruned."""
    filled = copy.deepcopy(model)
    for name, parameter in filled.named_parameters():
        parameter.copy_(values[name] if parameter.requires_grad else torch.zeros_like(parameter))
    StreamingModel.constrain(filled)  # the masks alone: a family would take the numbers for weights of its own
    buffers = dict(filled.named_buffers())
    return {name: tensor.double().clone() for name, tensor in filled.whole().items() if name not in buffers}
