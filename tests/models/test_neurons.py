"""Spiking neurons: against snnTorch, against the authors' vectors, and the fused form against the loop of steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.neurons import Neurons, prefixed, taken

B, T, N = 3, 30, 5
PLAIN = {"beta": 0.85, "threshold": 0.8}
JELLY = {"beta": 0.5, "decay_input": True, "reset": "zero", "delay": False, "inclusive": True, "surrogate": "sigmoid"}
FORMS = {
    f"{reset} {'late' if delay else 'at once'}{' inclusive' * inclusive} {surrogate}": {
        "reset": reset, "delay": delay, "inclusive": inclusive, "surrogate": surrogate, **PLAIN,
    }
    for reset, delay, inclusive, surrogate in itertools.product(
        ("subtract", "subtract_decayed", "zero", "none"), (True, False), (True, False), ("atan", "sigmoid")
    )
    if delay or reset != "subtract_decayed"
}  # fmt: skip


def population(dtype: torch.dtype = torch.float64, size: int = N, **arguments) -> Neurons:
    return Neurons(size, **arguments).to(dtype)


def currents(seed: int = 0, dtype: torch.dtype = torch.float64, frames: int = T) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0.3, 1.2, (B, frames, N))).to(dtype)


def random_state(model: Neurons, seed: int = 1) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(rng.normal(0, 1.5, (B, N))).to(model.beta) for name in model.states}


def loop(model: Neurons, current: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    kept = []
    for current_t in current.unbind(1):
        spikes, state = model.step(current_t, state)
        kept.append(spikes)
    return torch.stack(kept, 1), state


def graded(model: Neurons, run, current: Tensor, state: dict[str, Tensor], seed: int = 2):
    """Spikes, last states, and the gradients of a random linear function of them, by name."""
    current = current.clone().requires_grad_()
    state = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    spikes, after = run(current, state)
    rng = np.random.default_rng(seed)
    answers = [spikes, *after.values()]
    total = sum((y * torch.from_numpy(rng.normal(size=y.shape)).to(y)).sum() for y in answers)
    leaves = {"current": current, **{f"state {key}": tensor for key, tensor in state.items()}}
    leaves |= dict(model.named_parameters())
    return spikes.detach(), after, dict(zip(leaves, torch.autograd.grad(total, leaves.values()), strict=True))


# -- the fused form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.7])
@pytest.mark.parametrize("form", FORMS)
def test_the_fused_form_equals_the_loop_of_steps_and_so_do_its_gradients(form, alpha, decay_input):
    model = population(alpha=alpha, decay_input=decay_input, **FORMS[form])
    current, state = currents() * (1 + 3 * decay_input), random_state(model)
    spikes, after, slopes = graded(model, model, current, state)
    expected, last, true = graded(model, lambda *args: loop(model, *args), current, state)
    assert 0.02 < spikes.mean() < 0.98
    torch.testing.assert_close(spikes, expected, rtol=0, atol=0)
    torch.testing.assert_close(after, last, rtol=0, atol=0)
    assert set(slopes) == set(true)
    assert all(slope.abs().max() > 1e-3 for slope in true.values())
    torch.testing.assert_close(slopes, true, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_in_float32_the_fused_form_gives_the_same_bits_as_the_steps(form):
    model = population(torch.float32, alpha=0.7, **FORMS[form])
    current, state = currents(3, torch.float32, 200), random_state(model, 4)
    for found, expected in zip(model(current, state), loop(model, current, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, T - 1), unique=True, max_size=3), alpha=st.sampled_from([None, 0.6]))
def test_chunks_with_the_state_carried_equal_the_whole(cuts, alpha):
    model, current = population(alpha=alpha, **PLAIN), currents(5)
    whole, last = model(current)
    state, parts = model.initial_state(B), []
    for part in torch.tensor_split(current, sorted(cuts), 1):
        spikes, state = model(part, state)
        parts.append(spikes)
    assert torch.equal(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, last, rtol=0, atol=0)


def test_the_fused_form_changes_nothing_that_it_is_given():
    model, current = population(alpha=0.5, **PLAIN), currents(6)
    state = random_state(model)
    kept = current.clone(), {name: tensor.clone() for name, tensor in state.items()}
    spikes, after = model(current, state)
    spikes.sum().backward()
    assert torch.equal(current, kept[0])
    torch.testing.assert_close(state, kept[1], rtol=0, atol=0)
    assert all(tensor.data_ptr() != state[name].data_ptr() for name, tensor in after.items())


def test_gradients_reach_only_what_is_learned():
    model = population(learn=False, **PLAIN)
    assert not list(model.parameters())
    assert set(dict(model.named_buffers())) == {"beta", "threshold"}
    current = currents(7).requires_grad_()
    model(current)[0].sum().backward()
    assert current.grad is not None
    assert current.grad.abs().max() > 0


@pytest.mark.parametrize("value", [-0.3, 1.2])
def test_a_decay_outside_of_0_to_1_is_clipped_where_it_is_used(value):
    clipped = float(np.clip(value, 0, 1))
    wide, right = (population(beta=v, alpha=v, threshold=2.0) for v in (value, clipped))
    (found, last), (expected, after) = wide(currents(8)), right(currents(8))
    assert torch.equal(found, expected)
    torch.testing.assert_close(last, after, rtol=0, atol=0)
    assert wide.beta.item() == pytest.approx(value)


@pytest.mark.parametrize(("beta", "share"), [(-0.3, 1.0), (0.25, 0.75), (1.2, 0.0)])
def test_the_share_of_the_current_that_comes_in_is_that_of_a_clipped_decay(beta, share):
    model, current = population(beta=beta, decay_input=True, reset="zero"), currents(12)
    assert torch.equal(model.drive(current), share * current)


def test_what_is_learned_is_brought_back_to_where_it_means_something():
    wide = population(beta=1.4, alpha=-0.2, threshold=-3.0)
    wide.project()
    assert (wide.beta.item(), wide.alpha.item(), wide.threshold.item()) == (1.0, 0.0, 0.01)
    high = population(beta=-0.4, threshold=70.0)
    high.project()
    assert (high.beta.item(), high.alpha, high.threshold.item()) == (0.0, None, 70.0)
    fixed = population(beta=1.4, threshold=0.001, learn=False)
    fixed.project()
    assert (fixed.beta.item(), fixed.threshold.item()) == pytest.approx((1.4, 0.001))


def test_a_decay_that_was_brought_back_has_a_gradient_again():
    model = population(beta=1.4, alpha=-0.2, threshold=2.0)
    assert set(graded(model, model, currents(13), random_state(model))[2]) >= {"beta", "alpha"}
    before = graded(model, model, currents(13), random_state(model))[2]
    assert before["beta"] == before["alpha"] == 0
    model.project()
    after = graded(model, model, currents(13), random_state(model))[2]
    assert after["beta"].abs() > 1e-3
    assert after["alpha"].abs() > 1e-3


def test_a_state_on_a_grid_is_rounded_in_every_frame():
    class Coarse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.round(4 * x) / 4

    model, current = population(alpha=0.7, **PLAIN), currents(9)
    plain = model(current)[0]
    model.store, model.current_store = Coarse(), Coarse()
    state = random_state(model)
    spikes, after = model(current, state)
    expected, last = loop(model, current, state)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(after, last, rtol=0, atol=0)
    assert all(torch.equal(tensor, torch.round(4 * tensor) / 4) for tensor in after.values())
    assert not torch.equal(spikes, plain)


# -- snnTorch ----------------------------------------------------------------------------------------------------------

SNNTORCH = {
    "leaky": ({}, "subtract", True),
    "leaky to zero": ({"reset": "zero"}, "zero", True),
    "leaky without reset": ({"reset": "none"}, "none", True),
    "leaky to zero at once": ({"reset": "zero", "delay": False}, "zero", False),
    "synaptic": ({"alpha": 0.6}, "subtract", True),
    "synaptic without reset": ({"alpha": 0.6, "reset": "none"}, "none", True),
}


@pytest.mark.parametrize("name", SNNTORCH)
def test_neurons_are_those_of_snntorch_with_their_gradients(name):
    snntorch = pytest.importorskip("snntorch")
    arguments, reset, delay = SNNTORCH[name]
    model = population(torch.float32, **PLAIN, **arguments)
    options = {"beta": 0.85, "threshold": 0.8, "reset_mechanism": reset, "reset_delay": delay}
    learned = {"learn_beta": True, "learn_threshold": True}
    if model.alpha is None:
        theirs = snntorch.Leaky(**options, **learned)
    else:
        theirs = snntorch.Synaptic(alpha=0.6, **options, **learned, learn_alpha=True)

    def run(current: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        carried, kept = [state[key] for key in model.states], []
        for current_t in current.unbind(1):
            spikes, *carried = theirs(current_t, *carried)
            kept.append(spikes)
        return torch.stack(kept, 1), dict(zip(model.states, carried, strict=True))

    current, zero = currents(10, torch.float32), model.initial_state(B)
    spikes, after, slopes = graded(model, model, current, zero)
    expected, last, true = graded(theirs, run, current, zero)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(after, last, rtol=0, atol=0)
    if delay:  # without a delay snnTorch lets gradients through the reset
        assert set(slopes) == set(true)
        torch.testing.assert_close(
            slopes, true, rtol=1e-5, atol=1e-6 * max(float(g.abs().max()) for g in true.values())
        )


# -- the authors' vectors ----------------------------------------------------------------------------------------------


def double(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))


def test_neurons_are_those_of_spikingjelly_by_the_vectors_of_lmuformer(reference):
    vectors = reference("spiking_lmuformer.npz")
    names = sorted({key.split("/")[1] for key in vectors if key.startswith("lif/")})
    assert len(names) == 11
    for name in names:
        held = {key: vectors[f"lif/{name}/{key}"] for key in ("current", "spikes", "v_final", "threshold", "tau")}
        assert float(held["tau"]) == 2
        current = double(held["current"])
        model = population(size=current.shape[-1], threshold=float(held["threshold"]), **JELLY)
        spikes, after = model(current)
        np.testing.assert_array_equal(spikes.detach().numpy(), held["spikes"])
        np.testing.assert_allclose(after["membrane"].detach().numpy(), held["v_final"], atol=2e-6)


@pytest.mark.parametrize(
    ("network", "reset"),
    [("leaky", "subtract"), ("synaptic", "subtract"), ("leaky_single", "subtract_decayed"),
     ("synaptic_stacked", "subtract")],
)  # fmt: skip
@pytest.mark.parametrize("convention", ["compat", "legendre"])
def test_neurons_are_those_of_the_l2mu_cell_by_its_vectors(reference, network, reset, convention):
    vectors = reference("l2mu.npz")
    head = f"{network}/{convention}/cur_"
    names = [key.removeprefix(head) for key in vectors if key.startswith(head)]
    assert len(names) >= 4
    for name in names:
        part = {kind: vectors[f"{network}/{convention}/{kind}_{name}"] for kind in ("cur", "spk", "mem")}
        constants = {
            key: float(vectors[f"{network}/neuron/{name}/{key}"])
            for key in ("beta", "threshold", "alpha")
            if f"{network}/neuron/{name}/{key}" in vectors
        }
        model = population(size=part["cur"].shape[-1], reset=reset, **constants)
        current = double(part["cur"]).transpose(0, 1)
        spikes, after = model(current)
        np.testing.assert_array_equal(spikes.detach().transpose(0, 1).numpy(), part["spk"])
        scale = max(1.0, float(np.abs(part["mem"]).max()))
        np.testing.assert_allclose(after["membrane"].detach().numpy(), part["mem"][-1], atol=5e-6 * scale)
        state = model.initial_state(current.shape[0])
        for t, current_t in enumerate(current.unbind(1)):
            _, state = model.step(current_t, state)
            np.testing.assert_allclose(state["membrane"].detach().numpy(), part["mem"][t], atol=5e-6 * scale)


# -- arguments and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reset": "half"}, "half"),
        ({"surrogate": "tri"}, "tri"),
        ({"reset": "subtract_decayed", "delay": False}, "acts a step late: set delay"),
    ],
)
def test_neurons_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Neurons(3, **arguments)


def test_states_have_the_name_of_their_population_before_their_own():
    model = population(alpha=0.5)
    state = model.initial_state(2)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"current": (2, N), "membrane": (2, N)}
    named = {**prefixed("u", state), **prefixed("u2", model.initial_state(1))}
    assert sorted(named) == ["u.current", "u.membrane", "u2.current", "u2.membrane"]
    assert taken("u", named) == state
