"""Each family at a few sizes, and where the authors' reference vectors are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseq.models.contract import StreamingModel
from edgeseq.models.listening import Listening
from edgeseq.models.registry import build

INPUTS, OUTPUTS = 3, 4

# One line per family and size; the contract is tested for each, and every built-in family must be here.
ARGUMENT_SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "lmu": ("lmu", {"hidden": [8], "products": 5}),
    "lmu-one-channel": ("lmu", {"channels": [1], "orders": [1], "thetas": [1.5], "hidden": [4]}),
    "lmu-residual": ("lmu", {"channels": [2, 2], "orders": [4, 4], "thetas": [40.0, 9.5], "hidden": [6, 6]}),
    "lmu-three-blocks": (
        "lmu",
        {"channels": [3, 1, 2], "orders": [6, 9, 4], "thetas": [40.0, 9.5, 300.0], "hidden": [6, 5, 5], "products": 1,
         "dropout": 0.3},
    ),
    "lmu-cell": ("lmu_cell", {"channels": 2, "order": 5, "theta": 20.0, "hidden": 6, "layers": 2, "dropout": 0.3}),
    "lmu-cell-free": ("lmu_cell", {"channels": 2, "order": 4, "theta": 9.5, "hidden": 5, "links": [], "bias": True}),
    "lmu-cell-relu": (
        "lmu_cell",
        {"order": 4, "hidden": 5, "links": ["memory"], "recurrent": False, "activation": "relu", "layers": 2},
    ),
    "gru": ("rnn", {"hidden": 8, "timescale": 50.0}),
    "s4d": ("s4d", {"hidden": 5, "state": 6, "init": "legs", "dropout": 0.3}),
    "s4d-batch-average": (
        "s4d",
        {"hidden": 4, "layers": 1, "state": 4, "norm": "batch", "prenorm": True, "rule": "bilinear", "rate": 2.0,
         "readout": "average", "timescale": 9.0},
    ),
    "s4d-mean": ("s4d", {"hidden": 3, "layers": 3, "state": 2, "init": "real", "prenorm": True, "readout": "mean"}),
    "spiking-lmuformer": ("spiking_lmuformer", {"dim": 6, "order": 5, "theta": 20.0, "dropout": 0.3, "threshold": 0.2}),
    "spiking-lmuformer-causal": (
        "spiking_lmuformer",
        {"dim": 4, "stages": 1, "channels": 2, "order": 3, "theta": 9.5, "ratio": 1.5, "blocks": 2, "beta": 0.8,
         "threshold": 0.1, "learn": True, "causal": True, "readout": "average", "timescale": 9.0},
    ),
    "spiking-lmuformer-mean": (
        "spiking_lmuformer",
        {"dim": 7, "stages": 1, "order": 2, "readout": "mean", "folded": True, "threshold": 0.3},
    ),
    "lmuformer": ("lmuformer", {"dim": 4, "stages": 2, "order": 5, "theta": 20.0, "ratio": 2, "readout": "mean"}),
    "lmuformer-causal": (
        "lmuformer",
        {"dim": 3, "stages": 1, "blocks": 2, "channels": 2, "order": 3, "theta": 9.5, "ratio": 1, "causal": True,
         "readout": "average", "timescale": 9.0, "dropout": 0.3},
    ),
    "gru-one-unit": ("rnn", {"hidden": 1, "cell": "gru"}),
    "gru-two-layers": ("rnn", {"hidden": 5, "layers": 2, "dropout": 0.3}),
    "tanh": ("rnn", {"hidden": 6, "cell": "tanh", "layers": 2, "dropout": 0.3}),
    "relu": ("rnn", {"hidden": 6, "cell": "relu"}),
    "lstm": ("rnn", {"hidden": 5, "cell": "lstm", "layers": 2, "timescale": 50.0}),
    "sparse-rnn": ("sparse_rnn", {"nodes": 5, "neighbours": 2, "block": 8, "timescale": 50.0}),
    "sparse-rnn-units": ("sparse_rnn", {"graph": "barabasi_albert", "nodes": 21, "block": 1, "cell": "lstm"}),
    "sparse-rnn-dense": ("sparse_rnn", {"nodes": 6, "neighbours": 4, "rewire": 1.0, "block": 1, "cell": "tanh",
                                        "layers": 2}),
    "l2mu": ("l2mu", {"memories": 3, "order": 4, "theta": 9.5, "hidden": 6}),
    "l2mu-synaptic-stacked": (
        "l2mu",
        {"memories": 2, "order": 3, "theta": 5.0, "hidden": 5, "neuron": "synaptic", "encoder": "stacked",
         "population": 4, "encoder_sizes": [9, 7], "reset": "subtract_decayed", "dropout": 0.3,
         "threshold": {"encoder": 0.2}},
    ),
    "l2mu-single": (
        "l2mu",
        {"memories": 2, "order": 3, "theta": 4.5, "hidden": 4, "encoder": "single", "population": 3,
         "convention": "compat", "readout": "sum", "threshold": {"m": 0.1, "h": 0.1}},
    ),
}  # fmt: skip


def make(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> StreamingModel:
    """A model of the table in eval mode, with random weights and a normalization that is not trivial."""
    torch.manual_seed(seed)
    family, arguments = ARGUMENT_SETS[name]
    model = build(family, INPUTS, OUTPUTS, dict(arguments))
    model.set_normalization([0.5, -1.0, 2.0], [2.0, 0.5, 1.5])
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def make_model() -> Any:
    """``make_model(name, dtype, seed)`` of the table."""
    return make


@pytest.fixture(scope="session", params=sorted(ARGUMENT_SETS))
def size(request: pytest.FixtureRequest) -> str:
    """Each family and size of the table, by name."""
    return request.param


@pytest.fixture(scope="session")
def argument_sets() -> dict[str, tuple[str, dict[str, Any]]]:
    """The table."""
    return ARGUMENT_SETS


@pytest.fixture(scope="session")
def drawn() -> Any:
    """``drawn(model, frames)``: frames (B, T, C), no standard normal, and a state that is not zero."""

    def draw(model, frames, batch=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        dtype = model.input_mean.dtype
        x = torch.randn(batch, frames, model.input_size, generator=generator, dtype=dtype)
        x = 0.3 * x if isinstance(model, Listening) else 2 * x + 0.5
        state = {}
        for name, start in model.initial_state(batch).items():
            state[name] = torch.randn(start.shape, generator=generator, dtype=dtype)
            if name.endswith("readout.count"):
                state[name] = state[name].abs().round() + 1
            if name.split(".")[-1] == "live":  # some frames were there, none before them
                state[name] = (state[name] > 0).to(dtype).cummax(1).values
        return x, state

    return draw


@pytest.fixture(scope="session")
def assert_equal_runs() -> Any:
    """``assert_equal_runs((y, state), (y, state), tolerance)``: of the greatest value, where that is more than 1."""

    def check(found, expected, tolerance=1e-9):
        (y, after), (y_expected, after_expected) = found, expected
        assert list(after) == list(after_expected)
        for got, wanted in [(y, y_expected), *((after[name], after_expected[name]) for name in after)]:
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            assert got.numel() == 0 or (got - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))

    return check


@pytest.fixture(scope="session")
def in_chunks() -> Any:
    """``in_chunks(model, x, state, chunks)``: the answers and the last state of one call after another."""

    def run(model, x, state, chunks):
        answers = []
        for part in x.split(chunks, 1):
            y, state = model(part, state)
            answers.append(y)
        return torch.cat(answers, 1), state

    return run


@pytest.fixture(scope="session")
def small_reference() -> dict[str, np.ndarray]:
    """The authors' vectors that are shipped with the tests."""
    with np.load(Path(__file__).with_name("legendre_reference.npz")) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def reference() -> Any:
    """``reference(file)``: the authors' vectors, all of them; skipped where the folder is not there."""
    named = os.environ.get("EDGESEQ_REFERENCE")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "reference"

    def read(file: str) -> dict[str, np.ndarray]:
        if not (folder / file).is_file():
            assert not named, f"EDGESEQ_REFERENCE names {named}, which has no {file}"
            pytest.skip(f"no reference vectors {file}: set EDGESEQ_REFERENCE to their folder")
        with np.load(folder / file) as stored:
            return dict(stored)

    return read
