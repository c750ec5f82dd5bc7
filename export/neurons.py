"""Populations of spiking neurons for capture: two operators with the step program's own meaning, in torch.

They are registered with torch so that a captured graph keeps a population whole.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseq.models import neurons
from edgeseq.models.neurons import Neurons


@torch.library.custom_op("edgeseq::leaky", mutates_args=())
def leaky(
    current: Tensor,
    membrane: Tensor,
    beta: Tensor,
    threshold: Tensor,
    reset: str,
    delay: bool,
    inclusive: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes and next membrane (:func:`edgeseq.models.neurons.leaky`)."""
    return neurons.leaky(current, membrane, beta, threshold, reset=reset, delay=delay, inclusive=inclusive)


@torch.library.custom_op("edgeseq::synaptic", mutates_args=())
def synaptic(
    current: Tensor,
    synapse: Tensor,
    membrane: Tensor,
    alpha: Tensor,
    beta: Tensor,
    threshold: Tensor,
    reset: str,
    delay: bool,
    inclusive: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, next synapse and next membrane (:func:`edgeseq.models.neurons.synaptic`)."""
    constants = alpha, beta, threshold
    return neurons.synaptic(current, synapse, membrane, *constants, reset=reset, delay=delay, inclusive=inclusive)


@leaky.register_fake
def _(current: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(current), torch.empty_like(current)


@synaptic.register_fake
def _(current: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(current), torch.empty_like(current), torch.empty_like(current)


def with_neurons(model: nn.Module) -> nn.Module:
    """Let the populations of ``model`` compute their steps, in place, by the operators that capture knows."""
    for module in model.modules():
        if isinstance(module, Neurons):
            module.equation = _leaky if module.alpha is None else _synaptic
    return model


def _leaky(*tensors: Tensor, surrogate: str, **rule: Any) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], leaky(*tensors, **rule))


def _synaptic(*tensors: Tensor, surrogate: str, **rule: Any) -> tuple[Tensor, Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor, Tensor], synaptic(*tensors, **rule))
