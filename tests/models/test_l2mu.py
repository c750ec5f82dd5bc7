"""The spiking Legendre memory unit: against its authors' vectors, its loop over all frames, and what it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from edgeseq.data import Recording
from edgeseq.errors import InputError
from edgeseq.manifest import Precision
from edgeseq.models.contract import parameter_count
from edgeseq.models.l2mu import L2mu
from edgeseq.models.legendre import discretize
from edgeseq.models.registry import build, presets
from edgeseq.quant.calibrate import calibrate, quantize_model

CONVENTIONS = ("compat", "legendre")
POPULATIONS = {"u": "u", "m": "m", "h": "h", "out": "out"}
NETWORKS = {
    "leaky": {},
    "synaptic": {"neuron": "synaptic"},
    "leaky_single": {"encoder": "single", "population": 4, "reset": "subtract_decayed"},
    "synaptic_stacked": {
        "neuron": "synaptic",
        "encoder": "stacked",
        "population": 4,
        "encoder_sizes": (10, 9),
    },
}


# -- the authors' vectors ---------------------------------------------------------------------------------------------


def published(vectors, network, convention):
    """The authors' network in float64, and the names that its parameters and populations have there."""
    found = {key.removeprefix(f"{network}/"): torch.from_numpy(np.asarray(v)) for key, v in vectors.items()
             if key.startswith(f"{network}/") and v.dtype.kind in "fiu"}  # fmt: skip
    hidden, memories = found["w/W_h"].shape[0], found["w/e_x"].shape[0]
    stacked = {f"encoder.layers.{i}": name for i, name in enumerate(("encoder", "decoder"))}
    single = {f"encoder.channels.{i}": f"enc{i}" for i in range(6)}
    names = {**(single if "enc0" in str(list(found)) else {}), **(stacked if "w/decoder.weight" in found else {})}
    inputs = 6 if names else found["w/e_x"].shape[1]
    model = L2mu(
        inputs,
        7,
        memories=memories,
        hidden=hidden,
        order=4,
        theta=float(found["cfg/theta"]),
        readout="sum",
        convention=convention,
        **NETWORKS[network],
    ).double()
    names.update(POPULATIONS)
    values = {
        "A": found[f"{convention}/A_apply"],
        "B": found["w/B"][:, 0],
        "from_input.weight": torch.cat([found["w/e_x"], found["w/W_x"]]),
        "to_u.weight": torch.cat([found["w/e_h"], found["w/e_m"]], 1),
        "to_h.weight": torch.cat([found["w/W_h"], found["w/W_m"]], 1),
        "readout.weight": found["w/output.weight"],
        "readout.bias": found["w/output.bias"],
    }
    if model.encoder:
        values["encoder.weight"] = torch.stack([found[f"w/enc{i}.weight"][:, 0] for i in range(6)])
        values["encoder.bias"] = torch.stack([found[f"w/enc{i}.bias"] for i in range(6)])
    for i, name in enumerate(("encoder", "decoder")[: len(stacked) if "encoder.layers.0" in names else 0]):
        values |= {f"encoder.linears.{i}.{key}": found[f"w/{name}.{key}"] for key in ("weight", "bias")}
    for ours, theirs in names.items():
        for key in model.populations()[ours].state_dict():
            values[f"{ours}.{key}"] = found[f"neuron/{theirs}/{key}"]
    model.load_state_dict(values, strict=False)
    missing = {name for name in model.state_dict() if name not in values}
    assert missing == {"input_mean", "input_scale"}
    return model, names, found


def recorded(model, x):
    """The current, the spikes and the states of every population at every step, by name; and the last answer."""
    seen = {name: {"cur": [], "spk": [], "mem": [], "syn": []} for name in model.populations()}
    for name, neurons in model.populations().items():

        def equation(current, *rest, name=name, plain=neurons.equation, **rule):
            spikes, *after = plain(current, *rest, **rule)
            for key, tensor in zip(("cur", "spk", "mem", "syn"), (current, spikes, *reversed(after)), strict=False):
                seen[name][key].append(tensor)
            return spikes, *after

        neurons.equation = equation
    with torch.no_grad():
        y, state = model.run_steps(x)
    kept = {name: {key: torch.stack(v) for key, v in parts.items() if v} for name, parts in seen.items()}
    return kept, y[:, -1], state


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_current_spike_and_state_is_the_authors(reference, network, convention):
    model, names, found = published(reference("l2mu.npz"), network, convention)
    seen, y, _ = recorded(model, found["x"].double().transpose(0, 1))
    for ours, theirs in names.items():
        keys = ["cur", "mem", *(["syn"] if model.u.alpha is not None else [])]
        assert torch.equal(seen[ours]["spk"], found[f"{convention}/spk_{theirs}"].double()), ours
        assert seen[ours]["spk"].any()
        for key in keys:
            torch.testing.assert_close(
                seen[ours][key], found[f"{convention}/{key}_{theirs}"].double(), rtol=0, atol=2e-5, msg=f"{ours} {key}"
            )
    assert torch.equal(y, found[f"{convention}/spike_count"].double())


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_loss_and_gradients_of_the_fused_loop_are_the_authors(reference, network, convention):
    model, names, found = published(reference("l2mu.npz"), network, convention)
    y, _ = model(found["x"].double().transpose(0, 1))
    loss = cross_entropy(y[:, -1], found["labels"].long())
    loss.backward()
    assert loss.item() == pytest.approx(float(found[f"{convention}/loss"]), rel=1e-6)
    hidden, memories = model.hidden, model.memories
    e_x, w_x = model.from_input.weight.grad.split([memories, hidden])
    e_h, e_m = model.to_u.weight.grad.split([hidden, memories * 4], 1)
    w_h, w_m = model.to_h.weight.grad.split([hidden, memories * 4], 1)
    ours = {"e_x": e_x, "W_x": w_x, "e_h": e_h, "e_m": e_m, "W_h": w_h, "W_m": w_m,
            "output.weight": model.readout.weight.grad, "output.bias": model.readout.bias.grad}  # fmt: skip
    if model.encoder:
        for i in range(6):
            ours[f"enc{i}.weight"] = model.encoder.weight.grad[i, :, None]
            ours[f"enc{i}.bias"] = model.encoder.bias.grad[i]
        for name, layer in zip(("encoder", "decoder"), model.encoder.linears, strict=False):
            ours |= {f"{name}.weight": layer.weight.grad, f"{name}.bias": layer.bias.grad}
    if f"{convention}/grad/neuron/u/beta" in found:
        for name, theirs in names.items():
            neurons = model.populations()[name]
            ours |= {f"neuron/{theirs}/{key}": getattr(neurons, key).grad for key in ("beta", "threshold")}
    theirs = {key.split("/grad/")[1]: v for key, v in found.items() if f"{convention}/grad/" in key}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((ours[name] - gradient.double()).abs().max()) <= 2e-5 * scale, name


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("network", ["leaky", "synaptic_stacked"])
def test_the_first_stream_fires_as_the_authors(network, convention):
    with np.load(Path(__file__).with_name("l2mu_reference.npz")) as stored:
        model, _, found = published(dict(stored), network, convention)
    x = found["x"].double().transpose(0, 1)
    seen, y, state = recorded(model, x)
    for name in POPULATIONS:
        spikes = seen[name]["spk"]
        packed = np.packbits(spikes.numpy().astype(bool), axis=None)
        assert np.array_equal(packed, found[f"{convention}/spk_{name}"].numpy()), name
        expected = found[f"{convention}/mem_{name}"].double()
        torch.testing.assert_close(state[f"{name}.membrane"], expected, rtol=0, atol=2e-5)
    assert torch.equal(y, found[f"{convention}/spike_count"].double())
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0][:, -1], y, rtol=0, atol=0)


def test_only_the_convention_of_the_published_code_transposes_a():
    a, b = discretize(5, 8.0)
    ours, theirs = (L2mu(3, 2, order=5, theta=8.0, convention=name) for name in ("legendre", "compat"))
    for model, expected in ((ours, a), (theirs, a.T)):
        torch.testing.assert_close(model.A, expected.float())
        torch.testing.assert_close(model.B, b.float())


# -- forms that must agree --------------------------------------------------------------------------------------------

models = st.fixed_dictionaries(
    {
        "memories": st.integers(1, 4),
        "order": st.integers(1, 5),
        "hidden": st.integers(1, 7),
        "neuron": st.sampled_from(["leaky", "synaptic"]),
        "reset": st.sampled_from(["subtract", "subtract_decayed"]),
        "convention": st.sampled_from(CONVENTIONS),
        "encoder": st.sampled_from(["none", "single", "stacked"]),
        "learn": st.booleans(),
    }
)


def drawn(arguments, seed=0):
    """A model with weights that let every population fire, e_m among them."""
    torch.manual_seed(seed)
    model = L2mu(3, 4, theta=7.5, threshold={"m": 0.2, "h": 0.4, "encoder": 0.3}, **arguments)
    with torch.no_grad():
        model.to_u.weight.normal_(0, 0.4)
    return model.double()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(arguments=models, frames=st.integers(1, 30), batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_gradients_of_the_fused_loop_are_those_of_autograd(arguments, frames, batch, seed):
    model = drawn(arguments, seed)
    x = torch.randn(batch, frames, 3, dtype=torch.float64)
    state = {name: torch.randn_like(tensor).requires_grad_() for name, tensor in model.initial_state(batch).items()}
    wanted = [*(p for p in model.parameters() if p.requires_grad), *state.values()]
    found = []
    for run in (model, model.run_steps):
        y, after = run(x, state)
        upstream = np.random.default_rng(1)
        loss = sum((t * torch.from_numpy(upstream.normal(size=t.shape))).sum() for t in (y, *after.values()))
        found.append([loss.detach(), *torch.autograd.grad(loss, wanted)])
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=0, atol=1e-9 * max(1.0, float(plain.abs().max())))


def test_with_and_without_gradients_the_answers_are_the_same():
    model = drawn({"memories": 3, "order": 4, "hidden": 6})
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    with_gradients, after = model(x)
    with torch.no_grad():
        without, again = model(x)
    assert torch.equal(with_gradients, without)
    assert with_gradients.any()
    assert all(torch.equal(after[name], again[name]) for name in after)


def recordings(count=3, length=90):
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(length, 3)), 0) * 0.3 for _ in range(count)]
    return [Recording(x.astype(np.float32), np.zeros(length, np.int16), "a", str(i)) for i, x in enumerate(walks)]


@pytest.mark.parametrize("state", ["float32", "int16", "int8"])
@pytest.mark.parametrize("encoder", ["none", "stacked"])
def test_quantized_chunks_and_one_forward_and_the_loop_of_step_give_the_same_answers(state, encoder):
    model = drawn({"memories": 3, "order": 4, "hidden": 12, "encoder": encoder, "readout": "average"}).float()
    made = quantize_model(model, Precision("int8", "int8", state), calibrate(model, recordings())).eval()
    x = torch.from_numpy(recordings()[0].x[:80])[None]
    with torch.no_grad():
        steps, _ = made.run_steps(x)
        whole, _ = made(x)
        first, middle = made(x[:, :33])
        second, _ = made(x[:, 33:], middle)
    assert steps.any()
    for y in (whole, torch.cat([first, second], 1)):
        torch.testing.assert_close(y, steps, rtol=0, atol=1e-5)


def test_spikes_pass_an_int8_quantizer_exactly():
    model = drawn({"memories": 3, "order": 4, "hidden": 12}).float()
    quantize_model(model, Precision("int8", "int8"), calibrate(model, recordings()))
    spikes = torch.tensor([0.0, 1.0])
    for layer in (model.to_u, model.to_h, model.readout):
        assert torch.equal(layer.input(spikes), spikes)
    assert model.A.dtype == torch.float32


def test_a_quantized_model_can_be_trained_on():
    model = drawn({"memories": 3, "order": 4, "hidden": 12}).float()
    made = quantize_model(model, Precision("int8", "int8"), calibrate(model, recordings())).train()
    y, _ = made(torch.from_numpy(recordings()[0].x[:40])[None])
    y.sum().backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


# -- what it is -------------------------------------------------------------------------------------------------------


def test_the_published_preset_has_the_published_size():
    """119,091, with A, B and the decay and threshold of each of four populations."""
    preset = presets()["l2mu-published"]
    model = build(preset.family, 12, 7, preset.arguments)
    assert parameter_count(model) + model.A.numel() + model.B.numel() == 119_091


def test_the_watch_preset_is_of_a_watchs_size():
    preset = presets()["l2mu"]
    model = build(preset.family, 6, 7, preset.arguments)
    assert 14_000 <= parameter_count(model) <= 26_000
    assert "frame" in model.tasks


def test_membranes_and_the_spikes_that_are_fed_back_are_carried():
    plain = L2mu(3, 2, memories=4, order=3, hidden=5).initial_state(1)
    assert {name: tensor.shape[1] for name, tensor in plain.items()} == {
        "u.membrane": 4, "m.membrane": 12, "m.spikes": 12, "h.membrane": 5, "h.spikes": 5, "out.membrane": 2,
        "readout.leaky": 2,
    }  # fmt: skip
    synaptic = L2mu(3, 2, neuron="synaptic", encoder="single", readout="sum").initial_state(1)
    assert len(synaptic) == 2 * (3 + 4) + 2 + 1


def test_a_count_of_all_spikes_is_for_segments_and_kept_exactly():
    model = L2mu(3, 2, readout="sum")
    assert model.tasks == ("segment",)
    assert "readout.sum" in model.counts()
    assert L2mu(3, 2).counts() == ("h.spikes", "m.spikes")


def test_decays_and_thresholds_are_trained_slowly_where_they_learn():
    names = L2mu(3, 2, encoder="single", neuron="synaptic").dynamics()
    assert len(names) == 3 * (3 + 4)
    assert "encoder.channels.2.alpha" in names
    assert L2mu(3, 2, learn=False).dynamics() == ()


def test_those_not_named_start_as_published():
    model = L2mu(3, 2, beta={"u": 0.3}, threshold={"h": 0.9})
    betas = {name: round(neurons.beta.item(), 6) for name, neurons in model.populations().items()}
    assert betas == {"u": 0.3, "m": 0.2, "h": 0.45, "out": 0.6}
    assert model.h.threshold.item() == pytest.approx(0.9)


def test_populations_start_as_published_for_seven_braille_letters():
    """Beta and threshold of each, and the memory's window and order, of the authors' best run on these data."""
    preset = presets()["l2mu-published"]
    model = build(preset.family, 12, 7, preset.arguments)
    found = {name: (neurons.beta.item(), neurons.threshold.item()) for name, neurons in model.populations().items()}
    published = {"u": (0.8, 0.2), "h": (0.45, 0.65), "m": (0.2, 0.4), "out": (0.6, 0.15)}
    assert found == {name: pytest.approx(constants) for name, constants in published.items()}
    assert (model.order, model.theta, model.hidden, model.memories) == (7, 10.0, 120, 70)
    assert preset.training["learning_rate"] == 1.45e-3
    assert preset.training["batch"] == 64


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_another_rate_keeps_windows_and_decays_in_seconds(factor):
    arguments = {"order": 4, "theta": 20.0, "neuron": "synaptic", "timescale": 30.0}
    model = L2mu(3, 2, **arguments)
    changed = model.retime(factor)
    assert changed == {"theta": 20.0 / factor, "timescale": 30.0 / factor}
    a, _ = discretize(4, 20.0 / factor)
    torch.testing.assert_close(model.A, a.float())
    assert model.u.beta.item() == pytest.approx(0.8**factor)
    assert model.m.alpha.item() == pytest.approx(0.5**factor)
    again = L2mu(3, 2, **{**arguments, **changed})
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 20, 3)
    with torch.no_grad():
        assert torch.equal(again(x)[0], model(x)[0])


@pytest.mark.parametrize("run", ["forward", "steps"])
def test_dropout_takes_hidden_spikes_from_the_output_alone(run):
    model = drawn({"memories": 3, "order": 4, "hidden": 6, "dropout": 0.9}).train()
    x = torch.randn(1, 60, 3, dtype=torch.float64)
    with torch.no_grad():
        y, after = model.eval()(x)
        again, expected = (model.train() if run == "forward" else model.train().run_steps)(x)
    assert not torch.allclose(y, again)
    torch.testing.assert_close(after["h.membrane"], expected["h.membrane"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neuron": "leeky"}, "l2mu neuron 'leeky'. Did you mean 'leaky'"),
        ({"convention": "legendr"}, "l2mu convention 'legendr'. Did you mean 'legendre'"),
        ({"reset": "zero"}, "l2mu reset 'zero'"),
        ({"encoder": "triple"}, "l2mu encoder 'triple'"),
        ({"readout": "max"}, "read-out 'max'"),
        ({"beta": {"hidden": 0.5}}, "population of l2mu's beta 'hidden'"),
        ({"memories": 0}, "memories is 0, and must be 1 or more"),
        ({"hidden": -2}, "hidden is -2"),
        ({"population": 0, "encoder": "single"}, "population is 0"),
        ({"encoder": "stacked", "encoder_sizes": [4, 0]}, "encoder_sizes"),
        ({"order": 0}, "order 0"),
        ({"theta": 0.0}, "theta 0.0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        build("l2mu", 3, 2, arguments)
