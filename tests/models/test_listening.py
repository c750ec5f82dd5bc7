"""Every family behind a front end keeps the contract, and is that family on the features of the sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import EdgeseqError, InputError, Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.contract import LookAheadModel, Store, parameter_count
from edgeseq.models.listening import HEARD, INNER, Listening, behind
from edgeseq.models.quantized import StateGrid, quantized_linears, with_precision
from edgeseq.models.registry import build
from edgeseq.signal.log_mel import LogMel, log_mel

few = settings(max_examples=3, deadline=None, derandomize=True)
HOP, MELS, OUTPUTS = 6, 3, 4
FRONT = {"rate": 8000.0, "hop": HOP, "window": 16, "mels": MELS, "low": 300.0}
FRONTS = [FRONT, {**FRONT, "hop": 16}, {**FRONT, "hop": 3}]  # a window that reaches back, one that does not, one far


@pytest.fixture(scope="session")
def make(argument_sets):
    """``make(size, front=FRONT, dtype=float64)``: a model of the table behind a front end."""

    def made(size, front=FRONT, dtype=torch.float64, seed=0):
        torch.manual_seed(seed)
        family, arguments = argument_sets[size]
        model = build(family, front["hop"], OUTPUTS, {**arguments, "front": front})
        model.set_normalization([-20.0, -25.0, -30.0], [12.0, 9.0, 7.0])
        return model.to(dtype).eval()

    return made


@few
@given(
    chunks=st.lists(st.integers(1, 12) | st.sampled_from([32, 33]), min_size=1, max_size=3),
    front=st.sampled_from(FRONTS),
    fresh=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chunks_and_one_forward_and_the_loop_of_step_are_equal(
    size, make, chunks, front, fresh, seed, drawn, assert_equal_runs, in_chunks
):
    model = make(size, front)
    x, state = drawn(model, sum(chunks), seed=seed)
    state = None if fresh else state
    with torch.no_grad():
        steps = model.run_steps(x, state)
        assert_equal_runs(model(x, state), steps)
        assert_equal_runs(in_chunks(model, x, state, chunks), steps)
        last = model.last(x, state)
        assert_equal_runs((last[0][:, None], last[1]), (steps[0][:, -1:], steps[1]))


def test_it_is_the_family_on_the_features_and_flushes_as_it_does(size, make, drawn, assert_equal_runs):
    model = make(size)
    inner, (x, _) = model.model, drawn(model, 20)
    with torch.no_grad():
        y, after = model(x)
        expected, inner_after = inner(model.features(x))
        assert_equal_runs(
            (y, {n.removeprefix(INNER): t for n, t in after.items() if n != HEARD}), (expected, inner_after)
        )
        assert_equal_runs((model.flush(after)[0], {}), (inner.flush(inner_after)[0], {}))
        assert model.flush(after)[0].shape == (2, model.look_ahead, OUTPUTS)
    assert torch.equal(after[HEARD], x.flatten(1)[:, -10:])
    assert (model.look_ahead, model.tasks, model.output_size) == (inner.look_ahead, inner.tasks, inner.output_size)
    assert behind(model) is inner
    assert behind(inner) is inner


def test_what_live_says_reaches_the_family(make, drawn, assert_equal_runs):
    told = 0
    for size in ("lmuformer", "spiking-lmuformer", "gru"):
        model = make(size)
        x, state = drawn(model, 12)
        live = torch.ones(2, 12, 1, dtype=x.dtype)
        live[:, 8:] = 0
        with torch.no_grad():
            y, after = model(x, state, live)
            assert_equal_runs((y, after), model.run_steps(x, state, live))
            told += not torch.allclose(y, model(x, state)[0])
    assert told == 2  # a GRU cannot be told


def test_what_a_model_says_of_itself_it_says_behind_a_front_end(size, make):
    model = make(size)
    inner = model.model
    projections = model.projections()
    assert [name.removeprefix(INNER) for name in projections] == list(inner.projections())
    for name, place in projections.items():
        assert model.get_submodule(name) is inner.get_submodule(name.removeprefix(INNER))
        assert not place.follows or place.follows in projections
        assert not place.reads or isinstance(model.get_submodule(place.reads), Store)
        assert place.rectified == inner.projections()[name.removeprefix(INNER)].rectified
    parameters, states = dict(model.named_parameters()), model.initial_state(1)
    assert set(model.dynamics()) <= set(parameters)
    assert len(model.dynamics()) == len(inner.dynamics())
    for name, mask in model.masks().items():
        assert model.get_submodule(name).weight.shape == mask.shape
    assert set(model.counts()) <= set(states)
    assert set(model.counts()) == {HEARD, *(INNER + name for name in inner.counts())}
    assert model.facts() == inner.facts()
    assert parameter_count(model) == parameter_count(inner)
    assert set(parameters) == {INNER + name for name, _ in inner.named_parameters()}


def test_folding_changes_no_answer_and_gives_the_arguments_to_build_it_again(
    size, make, argument_sets, drawn, assert_equal_runs
):
    model = make(size)
    x, state = drawn(model, 15)
    with torch.no_grad():
        before = model(x, state)
        changes = model.fold()
        assert_equal_runs(model(x, state), before)
        family, arguments = argument_sets[size]
        again = build(family, HOP, OUTPUTS, {**arguments, **changes, "front": FRONT}).to(torch.float64).eval()
        again.load_state_dict(model.state_dict())
        assert_equal_runs(again(x, state), before)


def test_weights_hold_nothing_of_the_front_end(size, make):
    model = make(size)
    names = set(model.state_dict())
    assert names == {INNER + name for name in model.model.state_dict()}
    assert {"model.input_mean", "model.input_scale"} <= names


def test_frames_and_states_that_are_passed_in_are_not_changed(make, drawn):
    for front in FRONTS:
        model = make("gru", front)
        x, state = drawn(model, 9)
        kept = x.clone(), {name: tensor.clone() for name, tensor in state.items()}
        with torch.no_grad():
            for _, after in (model.step(x[:, 0], state), model(x, state)):
                for tensor in after.values():
                    tensor.fill_(7.0)
        assert torch.equal(x, kept[0])
        assert all(torch.equal(state[name], kept[1][name]) for name in state)


def test_a_window_that_is_its_hop_keeps_no_sound(make):
    model = make("gru", FRONTS[1])
    assert list(model.initial_state(1)) == ["model.layers.0.hidden"]
    assert HEARD not in model.counts()


def test_features_are_those_without_torch(make, drawn):
    """Both are float32; which product comes first is each one's own."""
    for front in FRONTS:
        model = make("gru", front, torch.float32)
        x, _ = drawn(model, 25, batch=1)
        found, expected = model.features(x)[0].numpy(), log_mel(LogMel.of(front), x[0].numpy())
        assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_raw_sound_goes_in_and_features_are_standardized(make, drawn):
    model = make("gru")
    x, _ = drawn(model, 20)
    f = model.features(x)
    mean, std = torch.tensor([-20.0, -25.0, -30.0]), torch.tensor([12.0, 9.0, 7.0])
    with torch.no_grad():
        y, _ = model(x)
        model.set_normalization([0.0] * 3, [1.0] * 3)
        assert torch.allclose(model.model((f - mean) / std)[0], y, atol=1e-6)


@pytest.mark.parametrize("size", ["gru", "lmu", "lmuformer"])
def test_gradients_are_those_of_the_family_on_the_features(size, make, drawn):
    model, inner = make(size), make(size).model
    x, _ = drawn(model, 12)
    for part, frames in ((model, x), (inner, model.features(x))):
        y, _ = part(frames)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    reached = 0
    for (name, ours), theirs in zip(model.model.named_parameters(), inner.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        reached += ours.grad is not None and bool((ours.grad != 0).any())
        assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, atol=1e-9), name
    assert reached > 4


@pytest.mark.parametrize("state", ["float32", "int16", "int8"])
def test_a_precision_is_taken_or_refused_as_it_is_without_a_front_end(size, make, state, drawn):
    model, inner = make(size, dtype=torch.float32), make(size, dtype=torch.float32).model
    precision = Precision("int8", "int8", state)
    try:
        with_precision(inner, precision)
    except EdgeseqError as refused:
        with pytest.raises(type(refused)):
            with_precision(model, precision)
        return
    with_precision(model, precision)
    assert set(quantized_linears(model)) == {INNER + name for name in quantized_linears(inner)} != set()
    grids = [name for name, module in model.named_modules() if isinstance(module, StateGrid)]
    assert grids == [INNER + name for name, module in inner.named_modules() if isinstance(module, StateGrid)]
    assert bool(grids) == (state != "float32" and any(not n.endswith("live") for n in grids))
    x, start = drawn(model, 3)
    with torch.no_grad():
        y, after = model(x, start)
    assert y.shape == (2, 3, OUTPUTS)
    assert torch.equal(after[HEARD], x.flatten(1)[:, -10:])  # the sound is kept as it is at every precision


def test_every_look_ahead_is_that_of_the_family(make):
    assert make("lmuformer").look_ahead == make("lmuformer").model.look_ahead > 0
    assert isinstance(make("gru"), LookAheadModel)
    assert make("gru").look_ahead == 0


def test_another_rate_is_refused(make):
    for size in ("s4d", "lmu"):  # which have a step size of their own
        with pytest.raises(Unsupported, match="hears sound at 8000 Hz by hops of 6 samples"):
            make(size).retime(2.0)


def test_a_frame_that_is_not_a_hop_of_one_sound_is_refused():
    with pytest.raises(InputError, match="a hop of 6 samples"):
        build("rnn", 12, OUTPUTS, {"hidden": 2, "front": FRONT})
    with pytest.raises(InputError, match="makes 3 features, and the model reads 5"):
        Listening(LogMel.of(FRONT), build("rnn", 5, OUTPUTS, {"hidden": 2}))
    with pytest.raises(InputError, match="'hiden'"):
        build("rnn", HOP, OUTPUTS, {"hiden": 2, "front": FRONT})
