"""Lowering: from a trained model to its step form, the module whose one step becomes the program."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseq.export.integer import with_integers
from edgeseq.export.memory import Taps, with_forms
from edgeseq.export.neurons import with_neurons
from edgeseq.manifest import MemoryForm
from edgeseq.models.contract import LookAheadModel, State, StreamingModel
from edgeseq.models.diagonal import DiagonalSsm, FoldedSsm


def call_step(model: StreamingModel, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of ``x (B, W)`` as a file takes it: of a model that looks ahead, its last value is ``live``."""
    if isinstance(model, LookAheadModel) and model.look_ahead:
        return model.step(x[:, :-1], state, x[:, -1:])
    return model.step(x, state)


def call_forward(model: StreamingModel, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """As :func:`call_step`, for many frames ``x (B, T, W)``."""
    if isinstance(model, LookAheadModel) and model.look_ahead:
        y, after = model(x[..., :-1], state, x[..., -1:])
        return y, after
    y, after = model(x, state)
    return y, after


class StepForm(nn.Module):
    """One step at batch 1 in float32 and eval mode: ``(x (1, W), state) -> (y (1, K), next state)``.

    W is the model's inputs, and one more of a model that looks ahead: whether there is a frame, 1 or 0.

    The state keeps its names. A memory that is kept as its last inputs has another shape than in training
    (``memories``: the form of each); :meth:`trained_state` says what it stands for. That all equals the training form
    is shown by the proof (:mod:`edgeseq.export.proof`).
    """

    def __init__(self, model: StreamingModel, memories: Mapping[str, MemoryForm]) -> None:
        super().__init__()
        self.model = model
        self.memories = dict(memories)
        self.input_width = model.input_size + (model.look_ahead > 0)

    def initial_state(self) -> State:
        """The state before the first frame, at batch 1."""
        return self.model.initial_state(1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x (1, W)`` and the state to ``y (1, K)`` and the next state."""
        return call_step(self.model, x, state)

    @property
    def keeps_states(self) -> bool:
        """Whether the states are those of the training form."""
        return not self._taps()

    def trained_state(self, state: State) -> State:
        """The training form's state that ``state`` stands for."""
        taps = self._taps()
        return {name: taps[name].trained_state(t) if name in taps else t for name, t in state.items()}

    def _taps(self) -> dict[str, Taps]:
        return {name: module for name, module in self.model.named_modules() if isinstance(module, Taps)}


def lower(model: StreamingModel, memories: str | Mapping[str, str] = "auto") -> StepForm:
    """The step form of a trained model: quantized layers in integers, state space layers folded to real constants,
    batch norms folded, neurons as single operators.

    The model itself is left as it is.

    ``memories``: the form of the linear memories (:func:`edgeseq.export.memory.with_forms`).
    """
    copied = copy.deepcopy(model).to(torch.float32)
    copied.eval().fold()
    form = StepForm(copied, with_forms(copied, memories)).eval()
    with_integers(form)
    with_neurons(form)
    for name, module in list(form.named_modules()):
        if isinstance(module, DiagonalSsm):
            form.set_submodule(name, FoldedSsm(module).freeze())
    return form.requires_grad_(False)
