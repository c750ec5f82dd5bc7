"""Lowering: from a trained model to its step form, the module whose one step becomes the program."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeseq.export.integer import with_integers
from edgeseq.models.contract import State, StreamingModel


class StepForm(nn.Module):
    """One step at batch 1 in float32 and eval mode: ``(x (1, C), state) -> (y (1, K), next state)``.

    The state keeps its names. That it equals the training form is shown by the proof (:mod:`edgeseq.export.proof`).
    """

    def __init__(self, model: StreamingModel) -> None:
        super().__init__()
        self.model = model

    def initial_state(self) -> State:
        """The state before the first frame, at batch 1."""
        return self.model.initial_state(1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x (1, C)`` and the state to ``y (1, K)`` and the next state."""
        return self.model.step(x, state)


def lower(model: StreamingModel) -> StepForm:
    """The step form of a trained model, quantized layers in integers. The model itself is left as it is."""
    form = StepForm(copy.deepcopy(model).to(torch.float32)).eval()
    with_integers(form)
    return form.requires_grad_(False)
