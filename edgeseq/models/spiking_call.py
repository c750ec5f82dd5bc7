"""Populations of a spiking model behind their norms, and one way of frames through them.

Shape letters: B batch, C and N channels, U memory channels, Q order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.models.contract import Masks, State
from edgeseq.models.conv import Delay, StreamingConv
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.neurons import Neurons, prefixed
from edgeseq.models.norms import fold_behind, folded_norm, norm, norm_behind, normed


@dataclass(frozen=True)
class NeuronSettings:
    """What all populations have in common; once ``folded``, 1 - β is part of the map or norm that drives them."""

    beta: float
    threshold: float
    learn: bool
    folded: bool


class Population(nn.Module):
    """Neurons behind a norm, with a ``share`` of the threshold of all.

    A norm ``behind`` a linear map is part of that map once it is folded; any other is an affine map then.
    """

    def __init__(self, size: int, settings: NeuronSettings, *, behind: bool = False, share: float = 1.0) -> None:
        super().__init__()
        self.norm: nn.Module = (norm_behind if behind else norm)(size, folded=settings.folded)
        self.neurons = Neurons(
            size,
            beta=settings.beta,
            threshold=share * settings.threshold,
            decay_input=not settings.folded,
            reset="zero",
            delay=False,
            inclusive=True,
            surrogate="sigmoid",
            learn=settings.learn,
        )

    @torch.no_grad()
    def fold(self, ahead: nn.Linear | None = None) -> None:
        """Make the norm part of the linear map ``ahead`` of it, or else an affine map; and 1 - β part of either."""
        if ahead is None:
            affine = self.norm = folded_norm(self.norm)
            driving: list[Tensor] = [affine.scale, affine.shift]
        else:
            self.norm = fold_behind(ahead, self.norm)
            driving = [ahead.weight, ahead.bias]
        for parameter in driving:
            parameter.mul_(1 - self.neurons.decays()[1])
        self.neurons.decay_input = False


class Call:
    """One way through the model, of a frame ``(B, C)`` or of many ``(B, T, C)``: the states before and after it."""

    def __init__(self, look_ahead: int, state: State, x: Tensor, live: Tensor | None) -> None:
        masks = Masks(look_ahead, state, x, live)
        # Which frames are there, of so many calls ago.
        self.there = {delay: masks.of(delay) for delay in range(look_ahead + 1)}
        self.waits = look_ahead > 0
        self.state, self.following = state, masks.following()
        self.many = x.ndim == 3

    def masked(self, x: Tensor, delay: int) -> Tensor:
        """``x (B, ..., C)``, made of the frames of ``delay`` calls ago: 0 for those that are not there."""
        there = self.there[delay] if self.waits else None
        return x if there is None else x * there

    def normed(self, norm: nn.Module, x: Tensor, delay: int) -> Tensor:
        """``x (B, ..., C)``, made of the frames of ``delay`` calls ago, through a norm."""
        return normed(norm, x, self.there[delay])

    def carry(self, name: str, layer: StreamingConv | Delay, x: Tensor) -> Tensor:
        """``x (B, ..., C)`` through a layer that keeps frames, whose state has this ``name``."""
        y, self.following[name] = (layer if self.many else layer.step)(x, self.state[name])
        return cast(Tensor, y)

    def remember(self, name: str, memory: LegendreMemory, u: Tensor) -> Tensor:
        """``u (B, ..., U)`` to the memory ``(B, ..., UQ)``."""
        m: Tensor = (memory if self.many else memory.step)(u, self.state[name])
        self.following[name] = m[:, -1] if self.many else m  # (B, U, Q)
        return m.flatten(-2)

    def fire(self, name: str, population: Population, current: Tensor, delay: int) -> Tensor:
        """``current (B, ..., N)`` of the frame of ``delay`` calls ago to spikes: none where no frame is there.

        Without a current a membrane at rest stays there, and one that is charged decays.
        """
        neurons = population.neurons
        driven = self.masked(self.normed(population.norm, current, delay), delay)
        before = {key: self.state[f"{name}.{key}"] for key in neurons.states}
        spikes, after = (neurons if self.many else neurons.step)(driven, before)
        self.following.update(prefixed(name, after))
        return cast(Tensor, spikes)

    def fire_ahead(self, name: str, population: Population, current: Tensor, delay: int) -> Tensor:
        """As ``fire``, ahead of a layer that mixes frames.

        Where no frame is there, spikes are 0 but their surrogate derivative is not: no gradient may come from there.
        """
        spikes = self.fire(name, population, current, delay)
        return self.masked(spikes, delay) if spikes.requires_grad else spikes
