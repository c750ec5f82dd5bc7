"""Real channels to spikes: a small population for each channel, and layers of neurons behind those.

Shape letters: C channels, P neurons of a channel, X neurons of the last layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.models.contract import Place, State, Width
from edgeseq.models.neurons import Neurons, prefixed, taken
from edgeseq.models.places import read_by

Populate = Callable[[str, int], Neurons]  # from the name of a population and its size


class SpikeEncoder(nn.Module):
    """Real channels to spikes: each drives ``population`` neurons of its own; more layers of ``sizes`` may follow.

    The current of neuron p of channel c is w_cp x_c + b_cp.
    """

    def __init__(self, channels: int, population: int, sizes: tuple[int, ...], populate: Populate) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, population).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.empty(channels, population).uniform_(-1, 1))
        self.channels = nn.ModuleList(populate("encoder", population) for _ in range(channels))
        widths = (channels * population, *sizes)
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, sizes, strict=False))
        self.layers = nn.ModuleList(populate("encoder", size) for size in sizes)
        self.size = widths[-1]

    def populations(self) -> dict[str, Neurons]:
        """The populations by name."""
        channels = {f"encoder.channels.{i}": neurons for i, neurons in enumerate(self.channels)}
        layers = {f"encoder.layers.{i}": neurons for i, neurons in enumerate(self.layers)}
        return cast("dict[str, Neurons]", {**channels, **layers})

    def widths(self, name: str, readers: tuple[Place, ...]) -> dict[str, Width]:
        """What may be narrower of the encoder, which is ``name`` in its model and whose spikes ``readers`` read.

        Each channel keeps neurons of its own.
        """
        made = tuple(Place(f"{name}.{key}", 1, lane_axis=0) for key in ("weight", "bias"))
        maps = [f"{name}.linears.{i}" for i in range(len(self.linears))]
        reading = [*(read_by(each) for each in maps), readers]  # of the channels' neurons, then of each layer's
        lanes, size = self.weight.shape
        found = {f"{name}.population": Width(size, made + reading[0], lanes)}
        for i, (each, neurons) in enumerate(zip(maps, self.layers, strict=True)):
            rows = (Place(f"{each}.weight", 0), Place(f"{each}.bias", 0))
            found[f"{name}.layers.{i}"] = Width(cast(Neurons, neurons).size, rows + reading[i + 1])
        return found

    def run(self, x: Tensor, state: State, following: State, *, step: bool) -> Tensor:
        """``x (..., C)`` to spikes ``(..., X)``, of one frame or of all; the next states go into ``following``."""
        currents = (x[..., None] * self.weight + self.bias).flatten(-2).split(self.weight.shape[1], -1)  # (..., P)
        populations = iter(self.populations().items())

        def fire(current: Tensor) -> Tensor:
            name, neurons = next(populations)
            spikes, after = (neurons.step if step else neurons)(current, taken(name, state))
            following.update(prefixed(name, after))
            return spikes

        spikes = torch.cat([fire(current) for current in currents], -1)  # (..., C P)
        for layer in self.linears:
            spikes = fire(layer(spikes))
        return spikes
