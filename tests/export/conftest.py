"""Small streaming modules made from a function of the frame and the states, and small models of each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import build
from edgeseq.program import Program

State = dict[str, Tensor]
Step = Callable[["Model", Tensor, State], tuple[Tensor, State]]
INPUTS = 6


class Model(StreamingModel):
    """A model of one step ``(model, x (1, 6), state) -> (y, next state)``; ``has`` are its modules and tensors."""

    def __init__(self, step: Step, states: Mapping[str, tuple[int, ...]], has: Mapping[str, Any]) -> None:
        super().__init__(INPUTS, 1)
        self.function, self.shapes = step, dict(states)
        for name, value in has.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def initial_state(self, batch: int) -> State:
        return {name: torch.zeros(batch, *shape) for name, shape in self.shapes.items()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.function(self, x, state)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return self.run_steps(x, state)


MakeModel = Callable[..., Model]
Captured = Callable[..., Program]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """``make_model(step, states={name: shape without batch}, **modules and tensors)``."""

    def make(step: Step, states: Mapping[str, tuple[int, ...]] | None = None, **has: Any) -> Model:
        return Model(step, {"h": (INPUTS,)} if states is None else states, has)

    return make


@pytest.fixture(scope="session")
def captured(make_model: MakeModel) -> Captured:
    """The program of a small model, made as ``make_model`` does."""
    return lambda step, states=None, **has: capture(lower(make_model(step, states, **has)))


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "lmu": ("lmu", {"channels": (3, 2), "orders": (5, 4), "thetas": (20.0, 7.5), "hidden": (8, 8), "products": 4}),
    "gru": ("rnn", {"hidden": 8, "layers": 2}),
    "tanh": ("rnn", {"cell": "tanh", "hidden": 8}),
    "relu": ("rnn", {"cell": "relu", "hidden": 8}),
    "lstm": ("rnn", {"cell": "lstm", "hidden": 8, "layers": 2}),
    "sparse-rnn": ("sparse_rnn", {"nodes": 4, "block": 8}),
    "s4d": ("s4d", {"hidden": 8, "layers": 1, "state": 8, "norm": "batch", "readout": "average"}),
    "spiking-lmuformer": (
        "spiking_lmuformer",
        {"dim": 8, "channels": 2, "order": 4, "theta": 9.5, "ratio": 2, "threshold": 0.2, "readout": "average"},
    ),
    "spiking-lmuformer-causal": (
        "spiking_lmuformer",
        {"dim": 8, "stages": 1, "order": 9, "theta": 6.0, "ratio": 2, "threshold": 0.2, "learn": True, "causal": True},
    ),
    "lmu-cell": ("lmu_cell", {"channels": 2, "order": 5, "theta": 20.0, "hidden": 8, "bias": True, "layers": 2}),
    "l2mu": ("l2mu", {"memories": 3, "order": 4, "theta": 9.5, "hidden": 8}),
    "lmuformer": ("lmuformer", {"dim": 8, "stages": 2, "order": 6, "theta": 20.0, "ratio": 2, "readout": "average"}),
    "lmuformer-causal": ("lmuformer", {"dim": 8, "stages": 1, "order": 9, "theta": 6.0, "ratio": 2, "causal": True}),
}


@pytest.fixture(scope="session")
def families() -> dict[str, tuple[str, dict[str, Any]]]:
    """By variant, a family and arguments that make it tiny."""
    return FAMILIES


def family_model(name: str, seed: int = 0) -> StreamingModel:
    torch.manual_seed(seed)
    family, arguments = FAMILIES[name]
    model = build(family, INPUTS, 4, arguments)
    model.set_normalization(np.linspace(-1, 1, INPUTS), np.linspace(0.5, 2, INPUTS))
    return model.eval()


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Each family, by name."""
    return request.param


@pytest.fixture
def model(family: str) -> StreamingModel:
    """A small model of each family, with random weights, in eval mode."""
    return family_model(family)


@pytest.fixture(scope="session")
def program(family: str) -> Program:
    """Its step program, captured once."""
    return capture(lower(family_model(family)))


@pytest.fixture(scope="session")
def frames() -> Callable[..., np.ndarray]:
    """``frames(count)``: a smooth walk (T, 6), as a sensor gives; of ``program``, as it takes it: (T, W)."""

    def walk(count: int, program: Program | None = None) -> np.ndarray:
        steps = np.random.default_rng(3).normal(size=(count, INPUTS))
        for t in range(1, count):
            steps[t] = 0.97 * steps[t - 1] + 0.25 * steps[t]
        said = program.x.shape[1] - INPUTS if program else 0  # a program that looks ahead is told of each frame
        return np.pad(steps.astype(np.float32), ((0, 0), (0, said)), constant_values=1)

    return walk
