"""The contract of a streaming model, for every family: the state dict is all that a stream carries."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.models.contract import parameter_count
from edgeseq.models.registry import FAMILIES, build

few = settings(max_examples=8, deadline=None, derandomize=True)
# Lengths around a chunk of the parallel LMU, so that states are carried inside of a call, and not, and just so.
lengths = st.lists(st.integers(1, 40) | st.sampled_from([31, 32, 33, 64, 65]), min_size=1, max_size=4)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def test_every_family_is_in_the_table(argument_sets):
    assert {family for family, _ in argument_sets.values()} == set(FAMILIES)


@pytest.mark.parametrize("dtype", TOLERANCE)
@few
@given(chunks=lengths, batch=st.integers(1, 3), seed=st.integers(0, 99))
def test_chunks_with_carried_state_and_one_forward_and_the_loop_of_step_are_equal(
    size, make_model, dtype, chunks, batch, seed, drawn, assert_equal_runs, in_chunks
):
    model = make_model(size, dtype)
    x, state = drawn(model, sum(chunks), batch, seed)
    with torch.no_grad():
        steps = model.run_steps(x, state)
        assert_equal_runs(model(x, state), steps, TOLERANCE[dtype])
        assert_equal_runs(in_chunks(model, x, state, chunks), steps, TOLERANCE[dtype])


def test_the_state_carried_in_is_used(size, make_model, drawn):
    model = make_model(size)
    x, state = drawn(model, 1, 1, 0)
    with torch.no_grad():
        after, from_start = model(x, state)[1], model(x)[1]
    for name in state:
        assert name == "live" or not torch.allclose(after[name], from_start[name]), name


def test_without_a_state_forward_begins_at_the_initial_state(size, make_model, drawn, assert_equal_runs):
    model = make_model(size)
    x, _ = drawn(model, 20, 2, 0)
    with torch.no_grad():
        assert_equal_runs(model(x), model(x, model.initial_state(2)), 1e-12)
        assert_equal_runs(model(x), model.run_steps(x), 1e-9)


def test_shapes_are_the_contracts(size, make_model, drawn):
    model = make_model(size)
    x, state = drawn(model, 5, 2, 0)
    y, after = model(x, state)
    y_t, after_t = model.step(x[:, 0], state)
    assert y.shape == (2, 5, model.output_size)
    assert y_t.shape == (2, model.output_size)
    for name, tensor in state.items():
        assert tensor.shape[0] == 2
        assert after[name].shape == after_t[name].shape == tensor.shape
        assert "." in name or name == "live"


@settings(max_examples=4, deadline=None, derandomize=True)
@given(frames=st.integers(1, 70), seed=st.integers(0, 99))
def test_gradients_of_the_parallel_form_are_those_of_the_step_loop(size, make_model, frames, seed, drawn):
    model = make_model(size)

    def gradients(run):
        x, state = drawn(model, frames, 2, seed)
        x.requires_grad_(True)
        for tensor in state.values():
            tensor.requires_grad_(True)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        y, after = run(x, state)
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        loss = (y * upstream).sum() + sum(tensor.square().sum() for tensor in after.values())
        return torch.autograd.grad(loss, [*weights, x, *state.values()])

    parallel, steps = gradients(model), gradients(model.run_steps)
    assert len(parallel) > 4
    for found, expected in zip(parallel, steps, strict=True):
        assert (found - expected).abs().max() <= 1e-9 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("run", ["step", "forward"])
def test_frames_and_states_that_are_passed_in_are_not_changed(size, make_model, run, drawn):
    model = make_model(size)
    x, state = drawn(model, 40, 2, 3)
    x_before, before = x.clone(), {name: tensor.clone() for name, tensor in state.items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        _, after = model.step(x[:, 0], state) if run == "step" else model(x, state)
        for tensor in after.values():
            tensor.fill_(7.0)  # the next state is not a view of what came in, either
    assert torch.equal(x, x_before)
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_stream_does_not_depend_on_its_batch_mates(size, make_model, drawn, assert_equal_runs):
    model = make_model(size)
    x, state = drawn(model, 40, 3, 4)
    with torch.no_grad():
        together = model(x, state)
        alone = [model(x[i : i + 1], {n: t[i : i + 1] for n, t in state.items()}) for i in range(3)]
        changed = model(torch.cat([x[:1], 100 * x[1:]]), {n: torch.cat([t[:1], -t[1:]]) for n, t in state.items()})
    for i, (y, after) in enumerate(alone):
        assert_equal_runs((together[0][i : i + 1], {n: t[i : i + 1] for n, t in together[1].items()}), (y, after), 1e-9)
    assert_equal_runs((changed[0][:1], {n: t[:1] for n, t in changed[1].items()}), alone[0], 1e-9)


def test_an_answer_does_not_depend_on_later_frames(size, make_model, drawn):
    model = make_model(size)
    x, state = drawn(model, 70, 1, 5)
    later = x.clone()
    later[:, 40:] = -9
    with torch.no_grad():
        y, changed = model(x, state)[0], model(later, state)[0]
    assert torch.allclose(y[:, :40], changed[:, :40], atol=1e-10)
    assert not torch.allclose(y[:, 40:], changed[:, 40:])


def test_nothing_is_kept_between_calls(size, make_model, drawn, assert_equal_runs):
    model = make_model(size)
    x, state = drawn(model, 40, 2, 6)
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        first = model(x, state)
        model(3 * x)
        model.step(x[:, 1], state)
        model.initial_state(5)
        assert_equal_runs(model(x, state), first, 0)
        assert_equal_runs(fresh(x, state), first, 0)


def test_the_initial_state_is_fresh_and_of_the_models_type(size, make_model):
    for dtype in (torch.float32, torch.float64):
        model = make_model(size, dtype)
        state = model.initial_state(2)
        assert {tensor.dtype for tensor in state.values()} == {dtype}
        for tensor in state.values():
            tensor.fill_(3.0)
        assert all((tensor == 0).all() for tensor in model.initial_state(2).values())


def test_raw_units_go_in(size, make_model, drawn):
    model = make_model(size)
    x, state = drawn(model, 20, 1, 7)
    mean, std = torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([2.0, 0.5, 1.5]).double()
    with torch.no_grad():
        y, _ = model(x, state)
        model.set_normalization([0.0] * 3, [1.0] * 3)
        assert torch.allclose(model((x - mean) / std, state)[0], y, atol=1e-6)


def test_dropout_acts_in_training_only(make_model, drawn):
    for name in ("lmu-three-blocks", "gru-two-layers"):
        model = make_model(name)
        x, state = drawn(model, 20, 1, 8)
        with torch.no_grad():
            assert torch.equal(model(x, state)[0], model(x, state)[0])
            model.train()
            assert not torch.equal(model(x, state)[0], model(x, state)[0])


def test_parameters_are_counted_without_constants(make_model):
    # encoder 3 + 1, memory none, mixer (1 + 3) 4 + 4, read-out 4 4 + 4
    assert parameter_count(make_model("lmu-one-channel")) == 4 + 20 + 20
    # three gates from 3 inputs and 1 unit with two biases each, read-out 4 + 4
    assert parameter_count(make_model("gru-one-unit")) == 9 + 3 + 3 + 3 + 8


TOLD = {
    "s4d": {"hidden": 4, "layers": 2, "state": 4, "norm": "batch"},
    "lmuformer": {"dim": 4, "channels": 2, "order": 3, "causal": True},
    "spiking_lmuformer": {"dim": 4, "channels": 2, "order": 3, "causal": True},
}


@pytest.mark.parametrize("family", TOLD)
@pytest.mark.parametrize("readout", ["last", "mean", "average"])
def test_a_model_that_does_not_wait_answers_its_frames_alike_whether_told_of_an_end_or_not(family, readout):
    torch.manual_seed(0)
    model = build(family, 3, 4, {**TOLD[family], "readout": readout}).double().eval()
    x, ends = torch.randn(3, 50, 3, dtype=torch.float64), (50, 31, 1)
    live = torch.stack([(torch.arange(50) < end).double() for end in ends])[..., None]
    with torch.no_grad():
        found, expected = model(x, None, live)[0], model(x)[0]
        steps = model.run_steps(x, None, live)[0]
        last = model.last(x[:1], None, live[:1])[0]
    for k, end in enumerate(ends):
        torch.testing.assert_close(found[k, :end], expected[k, :end])
        torch.testing.assert_close(steps[k, :end], expected[k, :end])
        if readout == "mean":  # nothing more is counted
            torch.testing.assert_close(found[k, end:], expected[k, end - 1].expand(50 - end, -1))
    torch.testing.assert_close(last, expected[:1, -1])
