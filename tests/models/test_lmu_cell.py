"""The recurrent LMU cell: its equations with any links, its published weights and size, quantized, at another rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import Recording
from edgeseq.errors import InputError, Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.contract import Projection, parameter_count
from edgeseq.models.lmu_cell import LmuCell
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import build, presets
from edgeseq.quant.calibrate import calibrate, quantize_model

LINKS = [(), ("hidden",), ("memory",), ("hidden", "memory")]
cells = st.fixed_dictionaries(
    {
        "links": st.sampled_from(LINKS),
        "input_to_hidden": st.booleans(),
        "recurrent": st.booleans(),
        "bias": st.booleans(),
        "activation": st.sampled_from(["tanh", "relu"]),
        "layers": st.integers(1, 2),
        "channels": st.integers(1, 3),
    }
)
few = settings(max_examples=25, deadline=None, derandomize=True)


def drawn(arguments, seed=0):
    """A model whose weights are all random, in float64."""
    torch.manual_seed(seed)
    model = LmuCell(3, 2, order=4, theta=9.5, hidden=5, **arguments).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    model.set_normalization([1.0, 2.0, 3.0], [2.0, 4.0, 0.5])
    return model


def frames(model, count, batch=2):
    generator = torch.Generator().manual_seed(1)
    state = model.initial_state(batch)
    x = torch.randn(batch, count, model.input_size, generator=generator).to(model.input_mean)
    return x, {name: torch.randn(t.shape, generator=generator).to(t) for name, t in state.items()}


def by_equations(model, arguments, x, state):
    """One stream ``x (T, C)`` in numpy, matrix by matrix."""
    w = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    state = {name: tensor[0].numpy() for name, tensor in state.items()}
    act = np.tanh if arguments["activation"] == "tanh" else lambda a: np.maximum(a, 0)
    links, channels, answers = arguments["links"], arguments["channels"], []
    for frame in x[0].numpy():
        h = (frame - [1, 2, 3]) / [2, 4, 0.5]
        for i in range(arguments["layers"]):
            name = f"layers.{i}"
            e, v, bias = w[f"{name}.encoder.weight"], w[f"{name}.mixer.weight"], arguments["bias"]
            m, old, size, read = state[f"{name}.memory"], state.get(f"{name}.hidden"), 4 * channels, len(h)
            u = e[:, :read] @ h + (w[f"{name}.encoder.bias"] if bias else 0)
            if "hidden" in links:
                u = u + e[:, read : read + 5] @ old
            if "memory" in links:
                u = u + e[:, -size:] @ m.ravel()
            m = m @ w[f"{name}.memory.A"].T + np.outer(u, w[f"{name}.memory.B"])
            a = v[:, :size] @ m.ravel() + (w[f"{name}.mixer.bias"] if bias else 0)
            if arguments["input_to_hidden"]:
                a = a + v[:, size : size + read] @ h
            if arguments["recurrent"]:
                a = a + v[:, -5:] @ old
            state[f"{name}.memory"], h = m, act(a)
            if old is not None:
                state[f"{name}.hidden"] = h
        answers.append(w["readout.weight"] @ h + w["readout.bias"])
    return np.array(answers), state


@few
@given(arguments=cells, count=st.integers(1, 40))
def test_any_links_are_the_equations_in_a_loop_and_at_once(arguments, count):
    model = drawn(arguments)
    x, state = frames(model, count, batch=1)
    expected, last = by_equations(model, arguments, x, state)
    with torch.no_grad():
        for y, after in (model(x, state), model.run_steps(x, state)):
            np.testing.assert_allclose(y[0].numpy(), expected, rtol=0, atol=1e-9 * max(1, np.abs(expected).max()))
            assert set(after) == set(last)
            for name, wanted in last.items():
                np.testing.assert_allclose(after[name][0], wanted, rtol=0, atol=1e-9 * max(1, np.abs(wanted).max()))


@few
@given(arguments=cells)
def test_what_no_link_reads_is_no_state(arguments):
    model = drawn(arguments)
    hidden = [name for name in model.initial_state(1) if name.endswith(".hidden")]
    assert len(hidden) == arguments["layers"] * (arguments["recurrent"] or "hidden" in arguments["links"])


@few
@given(arguments=cells)
def test_every_weight_has_a_gradient_and_the_same_at_once_as_in_a_loop(arguments):
    model = drawn(arguments)
    found = []
    for run in (model, model.run_steps):
        y, _ = run(*frames(model, 12))
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
        found.append(torch.autograd.grad((y * upstream).sum(), list(model.parameters())))
    for at_once, in_a_loop in zip(*found, strict=True):
        assert (at_once - in_a_loop).abs().max() <= 1e-9 * max(1.0, float(in_a_loop.abs().max()))
    assert all(gradient.abs().max() > 0 for gradient in found[0][-2:])


def test_weights_start_as_published():
    torch.manual_seed(0)
    layer = LmuCell(30, 2, channels=20, order=8, hidden=200, bias=True).layers[0]
    e_x, e_h, e_m = layer.encoder.weight.detach().split(layer.encoder_sizes, 1)
    for weight in (e_x, e_h):  # uniform, variance 1 / inputs
        assert float(weight.abs().max()) == pytest.approx((3 / weight.shape[1]) ** 0.5, rel=0.02)
        assert float(weight.var()) == pytest.approx(1 / weight.shape[1], rel=0.15)
    assert not e_m.any()
    for weight in layer.mixer.weight.detach().split(layer.mixer_sizes, 1):  # normal, 2 / (inputs + outputs)
        assert float(weight.std()) == pytest.approx((2 / sum(weight.shape)) ** 0.5, rel=0.05)
    assert not layer.encoder.bias.any()
    assert not layer.mixer.bias.any()


def test_permuted_digits_have_weights_of_their_own():
    layer = LmuCell(2, 10, order=12, hidden=20, init="psmnist").layers[0]
    e_x, e_h, e_m = layer.encoder.weight.split(layer.encoder_sizes, 1)
    w_m, w_x, w_h = layer.mixer.weight.split(layer.mixer_sizes, 1)
    assert torch.equal(e_x, torch.ones_like(e_x))
    assert not any(weight.any() for weight in (e_h, e_m, w_x, w_h))
    assert w_m.any()


def test_the_published_preset_has_the_published_size():
    preset = presets()["lmu_cell-published"]
    assert parameter_count(build(preset.family, 1, 10, preset.arguments)) == 102_027


def test_the_watch_preset_is_of_a_watchs_size():
    preset = presets()["lmu_cell"]
    assert parameter_count(build(preset.family, 6, 7, preset.arguments)) == pytest.approx(20_000, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"links": ["hiden"]}, "lmu_cell link 'hiden'. Did you mean 'hidden'"),
        ({"activation": "gelu"}, "lmu_cell activation 'gelu'"),
        ({"init": "psmnis"}, "lmu_cell init 'psmnis'. Did you mean 'psmnist'"),
        ({"channels": 0}, "channels 0 must be at least 1"),
        ({"hidden": -3}, "hidden -3"),
        ({"layers": 0}, "layers 0"),
        ({"order": 0}, "order 0"),
        ({"theta": 0.0}, "theta 0.0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        build("lmu_cell", 3, 2, arguments)


FREE = {"links": (), "recurrent": False, "layers": 2}


@pytest.mark.parametrize("factor", [2.0, 0.4])
def test_another_rate_is_another_window(factor):
    model = drawn(FREE)
    changed = model.retime(factor)
    assert changed == {"theta": 9.5 / factor}
    again = LmuCell(3, 2, order=4, hidden=5, **FREE, **changed).double()
    again.load_state_dict({n: t for n, t in model.state_dict().items() if "memory" not in n}, strict=False)
    x, _ = frames(model, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], again.eval()(x)[0], rtol=0, atol=1e-6)  # A is kept in float32


def test_a_held_signal_at_half_the_rate_gives_the_same_answers():
    """Every second frame twice, or once at half the rate: to a held input the memory is exact."""
    arguments = {**FREE, "layers": 1, "channels": 2}
    model = drawn(arguments)
    x, _ = frames(model, 30)
    with torch.no_grad():
        held = model(x.repeat_interleave(2, 1))[0][:, 1::2]
        model.retime(2.0)
        torch.testing.assert_close(model(x)[0], held, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"links": ()}, {"links": ("memory",), "recurrent": False}])
def test_what_reads_the_last_step_has_no_other_rate(arguments):
    with pytest.raises(Unsupported, match="runs at the rate that it was trained at, unless it has no links"):
        LmuCell(3, 2, **arguments).retime(2.0)


def test_a_quantizer_is_shared_only_where_all_of_h_is_read_as_it_is():
    linked = LmuCell(3, 2, layers=2).projections()
    assert linked["layers.1.encoder"] == Projection()
    assert linked["readout"] == Projection(reads="layers.1.store")
    recurrent = LmuCell(3, 2, layers=2, links=(), activation="relu").projections()
    assert recurrent["layers.1.encoder"] == Projection(reads="layers.0.store")
    assert recurrent["layers.0.mixer"] == Projection(rectified=True)
    free = LmuCell(3, 2, links=(), recurrent=False, layers=2, activation="relu").projections()
    assert free["layers.1.encoder"] == Projection(follows="layers.0.mixer")
    assert free["readout"] == Projection(follows="layers.1.mixer")
    assert LmuCell(3, 2, links=(), recurrent=False).projections()["readout"] == Projection()


def recordings(count=3, length=120, channels=3):
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(length, channels)), 0) * 0.3 for _ in range(count)]
    return [Recording(x.astype(np.float32), np.zeros(length, np.int16), "a", str(i)) for i, x in enumerate(walks)]


@pytest.mark.parametrize("state", ["float32", "int16", "int8"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(arguments=cells, cut=st.integers(1, 79))
def test_quantized_chunks_and_one_forward_and_the_loop_of_step_give_the_same_answers(state, arguments, cut):
    model = drawn(arguments).float()
    made = quantize_model(model, Precision("int8", "int8", state), calibrate(model, recordings())).eval()
    x = torch.from_numpy(recordings()[0].x[:80])[None]
    with torch.no_grad():
        steps, _ = made.run_steps(x)
        whole, _ = made(x)
        first, middle = made(x[:, :cut])
        second, _ = made(x[:, cut:], middle)
    for y in (whole, torch.cat([first, second], 1)):
        # Where sums in another order meet a tie, one value falls on the other side: rare, and a step of a scale.
        assert float(((y - steps).abs() > 1e-3).float().mean()) < 0.02


def test_dropout_stands_between_the_layers_in_a_step_too():
    model = build("lmu_cell", 3, 4, {"hidden": 40, "layers": 2, "dropout": 0.5}).train()
    seen = []
    model.layers[1].encoder.register_forward_hook(lambda module, given, answer: seen.append(given[0][:, :40]))
    state = {name: torch.randn_like(tensor) for name, tensor in model.initial_state(2).items()}
    model.step(torch.randn(2, 3), state)
    assert (seen[0] == 0).any()
    assert not (seen[0] == 0).all()


def test_an_equation_without_a_bias_has_none_to_train_when_it_is_quantized():
    model = build("lmu_cell", 3, 4, {"hidden": 8})
    count = parameter_count(model)
    with_precision(model, Precision("int8", "int8"))
    assert parameter_count(model) == count
