"""How many spikes are others after quantization, counted on recordings streamed through both models.

A spike is a decision: a membrane that comes out a little lower may not fire, and what follows goes another way. So the
two models' accuracies say whether that matters, and the flips say how much of the network it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from edgeseq.data import Recording
from edgeseq.models.contract import StreamingModel
from edgeseq.models.neurons import Neurons

SECONDS = 20.0  # of the start of each recording


def populations(model: nn.Module) -> dict[str, Neurons]:
    """The populations of neurons of a model by name; none of one that does not spike."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Neurons)}


@dataclass
class Flips:
    """Of ``counted`` times that a neuron could fire, the float model's did in ``fired``; in ``flipped`` of them one of
    the two models fired and the other did not.
    """

    counted: int = 0
    fired: int = 0
    flipped: int = 0

    def add(self, spikes: Tensor, others: Tensor) -> None:
        """The spikes of a step, 0 or 1, and those of the other model."""
        self.counted += spikes.numel()
        self.fired += int(spikes.sum())
        self.flipped += int((spikes != others).sum())


@torch.no_grad()
def spike_flips(
    plain: StreamingModel, quantized: StreamingModel, recordings: Sequence[Recording], frames: int
) -> dict[str, Flips]:
    """What is counted of each population by name, and of "all" together.

    Both models run freely, each with its own state, over the first ``frames`` frames of each recording, or over all
    that it has. Empty for models that do not spike, and where there is nothing to run them over.
    """
    names = populations(plain)
    lengths = sorted((min(frames, len(recording.x)) for recording in recordings), reverse=True)
    if not names or not lengths or not lengths[0]:
        return {}
    longest = sorted(recordings, key=lambda recording: -len(recording.x))
    x = pad_sequence([torch.from_numpy(recording.x[:frames]) for recording in longest], batch_first=True)  # (B, T, C)
    found = {"all": Flips(), **{name: Flips() for name in names}}
    models = (plain.eval(), quantized.eval())
    states, running = [model.initial_state(len(x)) for model in models], len(x)
    with _watched(plain) as ours, _watched(quantized) as theirs:
        for t in range(lengths[0]):
            while lengths[running - 1] <= t:  # the longest come first: what has ended stands at the end
                running -= 1
            for k, model in enumerate(models):
                carried = {key: tensor[:running] for key, tensor in states[k].items()}
                _, states[k] = model.step(x[:running, t], carried)
            for name, spikes in ours.items():
                for flips in (found["all"], found[name]):
                    flips.add(spikes, theirs[name])
    return found


@contextmanager
def _watched(model: StreamingModel) -> Iterator[dict[str, Tensor]]:
    """The spikes ``(B, N)`` that each population fired last, by its name."""
    fired: dict[str, Tensor] = {}
    equations = {name: neurons.equation for name, neurons in populations(model).items()}
    try:
        for name, neurons in populations(model).items():
            neurons.equation = _noting(equations[name], name, fired)
        yield fired
    finally:
        for name, neurons in populations(model).items():
            neurons.equation = equations[name]


def _noting(
    equation: Callable[..., tuple[Tensor, ...]], name: str, fired: dict[str, Tensor]
) -> Callable[..., tuple[Tensor, ...]]:
    def noted(*inputs: Tensor, **rule: object) -> tuple[Tensor, ...]:
        found = equation(*inputs, **rule)
        fired[name] = found[0]
        return found

    return noted
