"""Recurrent cells: equal to torch's own, how they start, and all the way to int8 files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices import check
from edgeseq.errors import InputError
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.manifest import Precision
from edgeseq.models.cells import CELLS
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.registry import build
from edgeseq.models.rnn import Rnn
from edgeseq.models.store import load_model
from edgeseq.quant.calibrate import calibrate, quantize_model
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.stage import train

LAYERS = {"tanh": nn.RNN, "relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
SHORT = {"rounds": 1, "steps": 2, "batch": 4, "crop": 1.0, "settle": 0.1}
FRAMES, RATE = 200, 25.0


def weights_of(model, theirs):
    """Pairs of the model's parameters and those of torch's layer."""
    return [
        (getattr(map_, kind), getattr(theirs, f"{kind}_{name}_l{i}"))
        for i, layer in enumerate(model.layers)
        for map_, name in ((layer.from_input, "ih"), (layer.from_hidden, "hh"))
        for kind in ("weight", "bias")
    ]


def torchs_own(model, cell):
    """torch's own layers with the model's weights."""
    kind = {"nonlinearity": cell} if cell in ("tanh", "relu") else {}
    theirs = LAYERS[cell](model.input_size, model.layers[0].hidden_size, len(model.layers), batch_first=True, **kind)
    theirs = theirs.double()
    with torch.no_grad():
        for ours, wanted in weights_of(model, theirs):
            wanted.copy_(ours)
    return theirs


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("run", ["forward", "run_steps"])
@pytest.mark.parametrize("cell", CELLS)
def test_each_cell_is_torchs_own_in_values_and_gradients(cell, layers, run):
    torch.manual_seed(0)
    model = Rnn(5, 4, hidden=7, layers=layers, cell=cell).double()
    theirs, kinds = torchs_own(model, cell), CELLS[cell].states
    x, start = torch.randn(2, 30, 5).double(), torch.randn(len(kinds), layers, 2, 7).double()
    state = {f"layers.{i}.{kind}": start[k, i] for i in range(layers) for k, kind in enumerate(kinds)}
    assert list(state) == list(model.initial_state(1))
    y, after = getattr(model, run)(x, state)
    hidden, final = theirs(x, tuple(start) if cell == "lstm" else start[0])
    expected, ends = model.readout(hidden), final if cell == "lstm" else (final,)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for i in range(layers):
        for kind, end in zip(kinds, ends, strict=True):
            torch.testing.assert_close(after[f"layers.{i}.{kind}"], end[i], rtol=0, atol=1e-12)
    upstream = torch.randn_like(y)
    (y * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for found, wanted in weights_of(model, theirs):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_starts_as_torchs_own_does(cell):
    torch.manual_seed(0)
    for parameter in Rnn(5, 4, hidden=40, cell=cell).layers[0].parameters():
        assert 0.9 * 40**-0.5 < parameter.abs().max() <= 40**-0.5


@pytest.mark.parametrize(("cell", "kept", "let_in"), [("gru", 1, None), ("lstm", 1, 0)])
def test_units_start_with_time_constants_up_to_the_timescale(cell, kept, let_in):
    torch.manual_seed(0)
    (layer,) = Rnn(3, 2, hidden=300, cell=cell, timescale=150.0).layers
    gates = layer.from_input.bias.detach().view(layer.gates, -1)
    steps = 1 / (1 - torch.sigmoid(gates[kept])) - 1
    assert 1 <= steps.min() < 1.1
    assert 120 < steps.max() <= 150
    assert math.exp(float(steps.log().mean())) == pytest.approx(150**0.5, rel=0.2)
    recurrent = layer.from_hidden.bias.view(layer.gates, -1)
    changed = {kept} if let_in is None else {kept, let_in}
    if let_in is not None:
        assert torch.equal(gates[let_in], -gates[kept])
    for gate in range(layer.gates):
        assert bool((recurrent[gate] == 0).all()) == (gate in changed)
        assert (gates[gate].abs().max() <= 300**-0.5) == (gate not in changed)


@pytest.mark.parametrize("cell", ["tanh", "relu"])
def test_units_without_gates_start_alone_and_keep_what_they_have_for_up_to_the_timescale(cell):
    torch.manual_seed(0)
    (layer,) = Rnn(3, 2, hidden=300, cell=cell, timescale=150.0).layers
    weight = layer.from_hidden.weight.detach()
    steps = 1 / (1 - weight.diagonal())
    assert 1 <= steps.min() < 1.1
    assert 120 < steps.max() <= 151
    assert math.exp(float(steps.log().mean())) == pytest.approx(150**0.5, rel=0.2)
    assert not (weight - weight.diagonal().diag()).any()
    assert not layer.from_hidden.bias.any()
    assert not layer.from_input.bias.any()
    assert layer.from_input.weight.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "lsmt"}, r"unknown cell of rnn 'lsmt'\. Did you mean 'lstm'\? Known: gru, lstm, relu, tanh"),
        ({"timescale": -1.0}, "rnn: timescale -1"),
        ({"timescale": math.nan}, "rnn: timescale nan"),
        ({"hidden": 0}, "rnn: hidden 0 must be at least 1"),
        ({"layers": 0}, "rnn: layers must be at least 1"),
        ({"hidden": [4, 5, 6], "layers": 2}, r"rnn: hidden \[4, 5, 6\] has 3 entries"),
        ({"dropout": 1.5}, "dropout"),
    ],
)
def test_values_that_no_network_can_have_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        build("rnn", 3, 4, arguments)


# -- compressed -----------------------------------------------------------------------------------------------------


def walks(count=3):
    rng = np.random.default_rng(0)
    return [
        Recording((np.cumsum(rng.normal(size=(80, 6)), 0) * 0.3).astype(np.float32), np.zeros(80, np.int16), "a", "b")
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("cell", "state"), [("tanh", "float32"), ("relu", "int16"), ("gru", "int8"), ("lstm", "float32"), ("lstm", "int8")]
)
def test_a_quantized_cell_still_is_the_loop_of_its_steps(cell, state):
    torch.manual_seed(0)
    model = build("rnn", 6, 4, {"hidden": 12, "cell": cell, "layers": 2}).eval()
    x = torch.from_numpy(np.stack([r.x for r in walks()]))
    with torch.no_grad():
        plain, _ = model(x)
        quantize_model(model, Precision("int8", "int8", state), calibrate(model, walks()))
        (y, after), (steps, ended) = model(x), model.run_steps(x)
    assert 0 < (y - plain).abs().mean() < 0.1 * plain.std()  # rounded, and not by much
    assert ((y - steps).abs() > 1e-3).float().mean() < 0.01  # sums in another order, where they meet a tie
    for name in after:
        assert ((after[name] - ended[name]).abs() > 1e-3).float().mean() < 0.02
    grids = list(model.initial_state(1)) if state != "float32" else []
    assert len(state_grids(model)) == len(grids)
    for grid, name in zip(state_grids(model).values(), grids, strict=True):
        codes = after[name] / grid.scale
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=grid.limit * 1e-6)


def test_maps_that_read_an_int8_state_take_its_grid():
    torch.manual_seed(0)
    model = build("rnn", 6, 4, {"hidden": 12, "cell": "lstm", "layers": 2}).eval()
    quantize_model(model, Precision("int8", "int8", "int8"), calibrate(model, walks()))
    layers, grids = quantized_linears(model), state_grids(model)
    for reader, store in [("layers.0.from_hidden", 0), ("layers.1.from_input", 0), ("readout", 1)]:
        assert layers[reader].input.scale == grids[f"layers.{store}.store"].scale
    assert list(grids) == [f"layers.{i}.{kind}" for i in (0, 1) for kind in ("store", "cell_store")]


@pytest.fixture(scope="session")
def waves(tmp_path_factory):
    """Two recordings of 4 s of each of five subjects."""
    t, recordings = np.arange(int(4 * RATE)) / RATE, []
    for subject in "12345":
        rng = np.random.default_rng(int(subject))
        for label in range(2):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2)) + rng.normal(0, 0.1)
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, ("slow", "fast")), path)
    return str(path)


@pytest.mark.parametrize(
    ("preset", "sizes", "state", "layers"),
    [
        ("tanh", {"model.hidden": 8}, "float32", 5),
        ("relu", {"model.hidden": 8}, "int16", 5),
        ("lstm", {"model.hidden": 8}, "int8", 3),
        ("sparse_rnn", {"model.nodes": 5, "model.block": 8}, "int8", 7),
    ],
)
def test_each_cell_is_trained_quantized_exported_and_proven(preset, sizes, state, layers, waves, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MIN_FRAMES", FRAMES)
    monkeypatch.setattr(stage, "MIN_FRAMES", FRAMES)
    trained = train(waves, tmp_path / "float", preset=preset, changes={**SHORT, **sizes}, test=["3"], validation=["5"])
    assert all(link.passed for link in export(trained.path, tmp_path / "float-files", frames=FRAMES).manifest.proof)
    small = quantize(trained.path, tmp_path / "int8", state=state, changes=SHORT)
    assert len(quantized_linears(load_model(small))) == layers
    links = {link.name: link for link in export(small.path, tmp_path / "int8-files", frames=FRAMES).manifest.proof}
    assert all(link.passed for link in links.values())
    for engine in ("litert", "onnxruntime"):
        assert links[f"{engine} integer layers"].note == f"{layers} of {layers} int8 layers"
