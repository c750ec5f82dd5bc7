"""Capture: names, constants, states that do nothing, and what must be refused instead of guessed."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from edgeseq.errors import EdgeseqError, GateFailed, Unsupported
from edgeseq.export.aten import RULES
from edgeseq.export.capture import capture
from edgeseq.export.lower import call_step, lower
from edgeseq.program import interpret

TWO = {"a": (6,), "b": (6,)}


def run(program, **arrays):
    """One step on rows of numbers given by name, ``x`` among them."""
    given = {name: np.asarray([row], np.float32) for name, row in arrays.items()}
    return interpret(program)(given.pop("x", np.zeros((1, 6), np.float32)), given)


def ramp(start=0.0):
    return np.arange(6) + start


def test_states_that_begin_equal_stay_two_inputs(make_model):
    shared = torch.zeros(1, 6)
    model = make_model(lambda m, x, s: (s["a"] - s["b"], s), TWO)
    model.initial_state = lambda batch: {"a": shared, "b": shared}  # export merges one tensor given twice
    y, _ = run(capture(lower(model)), a=ramp(), b=np.full(6, 2))
    np.testing.assert_array_equal(y[0], ramp() - 2)


@pytest.mark.parametrize("change", ["state", "x"])
def test_a_step_that_changes_its_arguments_is_refused(captured, change):
    def step(m, x, s):
        (x if change == "x" else s["h"]).add_(1)
        return x + s["h"], {"h": s["h"] * 1}

    with pytest.raises(Unsupported, match=f"changes '{'x' if change == 'x' else 'state_h'}' in place"):
        captured(step)


def test_a_step_that_changes_a_buffer_is_refused(captured):
    def step(m, x, s):
        m.count.add_(1)
        return x * m.count, s

    with pytest.raises(Unsupported, match=r"changes '.*count' in place"):
        captured(step, count=torch.zeros(6))


def test_a_ring_buffer_written_without_mutation_is_captured(captured):
    program = captured(
        lambda m, x, s: (s["ring"].mean(1), {"ring": torch.cat([x[:, None], s["ring"][:, :-1]], 1)}), {"ring": (3, 6)}
    )
    ring = np.stack([ramp(), ramp(10), ramp(20)])
    y, after = run(program, x=ramp(30), ring=ring)
    np.testing.assert_allclose(y[0], ring.mean(0))
    np.testing.assert_array_equal(after["ring"][0], [ramp(30), ramp(), ramp(10)])


def test_a_ring_buffer_written_in_place_is_refused(captured):
    def step(m, x, s):
        s["ring"][:, 0] = x
        return s["ring"].mean(1), s

    with pytest.raises(Unsupported, match="in place"):
        captured(step, {"ring": (3, 6)})


def test_a_ring_buffer_written_into_a_copy_is_refused(captured):
    def step(m, x, s):
        ring = s["ring"].clone()
        ring[:, 0] = x
        return ring.mean(1), {"ring": ring}

    with pytest.raises(Unsupported, match=r"operator '.*(select_scatter|copy).*' of module 'the model'"):
        captured(step, {"ring": (3, 6)})


def test_names_that_torch_would_merge_stay_apart(captured):
    program = captured(lambda m, x, s: (s["a.b"] - s["a_b"], {"a.b": x, "a_b": s["a.b"]}), {"a.b": (6,), "a_b": (6,)})
    assert [state.name for state in program.states] == ["a.b", "a_b"]
    y, after = run(program, x=ramp(5), **{"a.b": ramp(1), "a_b": np.ones(6)})
    np.testing.assert_array_equal(y[0], ramp())
    np.testing.assert_array_equal(after["a.b"][0], ramp(5))
    np.testing.assert_array_equal(after["a_b"][0], ramp(1))


def test_a_state_passed_through_stays_what_it_was(captured):
    program = captured(lambda m, x, s: (x + s["a"], {"a": s["a"], "b": s["b"] + x}), TWO)
    _, after = run(program, x=ramp(), a=ramp(7), b=ramp())
    np.testing.assert_array_equal(after["a"][0], ramp(7))


def test_an_answer_that_is_a_state(captured):
    y, after = run(captured(lambda m, x, s: (s["h"], {"h": x})), x=ramp(), h=ramp(3))
    np.testing.assert_array_equal(y[0], ramp(3))
    np.testing.assert_array_equal(after["h"][0], ramp())


def test_two_states_that_become_the_same_value(captured):
    def step(m, x, s):
        both = x + s["b"]
        return s["a"] * 1, {"a": both, "b": both}

    _, after = run(captured(step, TWO), x=ramp(), a=ramp(), b=ramp(3))
    np.testing.assert_array_equal(after["a"][0], 2 * ramp() + 3)
    np.testing.assert_array_equal(after["b"], after["a"])


def test_states_that_trade_places(captured):
    _, after = run(captured(lambda m, x, s: (x, {"a": s["b"], "b": s["a"]}), TWO), a=ramp(), b=ramp(9))
    np.testing.assert_array_equal(after["a"][0], ramp(9))
    np.testing.assert_array_equal(after["b"][0], ramp())


def test_an_answer_or_a_state_that_depends_on_nothing(captured):
    program = captured(lambda m, x, s: (torch.full((1, 2), 3.0), {"h": torch.arange(6.0)[None]}))
    y, after = run(program, h=ramp(9))
    np.testing.assert_array_equal(y, [[3, 3]])
    np.testing.assert_array_equal(after["h"][0], ramp())


def test_what_follows_from_constants_alone_is_computed_at_capture(captured):
    def step(m, x, s):
        scale = torch.arange(6.0) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + torch.zeros(6)
        return x * scale @ (m.w @ m.w) * torch.exp(m.rate), {"h": s["h"] + torch.eye(6)[2]}

    torch.manual_seed(0)
    w = torch.randn(6, 6)
    program = captured(step, w=w, rate=nn.Parameter(torch.tensor(-1.0)))
    assert [node.operator for node in program.nodes] == ["mul", "linear", "mul", "add"]
    y, _ = run(program, x=ramp(1), h=ramp())
    scale = np.arange(6) * np.arange(1, 7)
    np.testing.assert_allclose(y[0], (ramp(1) * scale) @ (w @ w).numpy() * np.exp(-1), rtol=1e-5)


def test_constants_carry_the_models_names(model, program):
    assert {"input_mean", "input_scale", "readout.weight", "readout.bias"} <= set(program.constants)
    stored = set(model.state_dict())
    modules = {name for name, _ in model.named_modules() if name}
    for name in set(program.constants) - stored:  # computed from weights, named after one or its module; or a number
        assert name.startswith(("scalar_", *(f"{known}." for known in stored | modules))), name


def test_every_node_says_its_module(captured):
    program = captured(lambda m, x, s: (m.head(x), s), head=nn.Sequential(nn.Linear(6, 3), nn.Tanh()))
    assert [(node.operator, node.origin) for node in program.nodes] == [("linear", "head.0"), ("tanh", "head.1")]


@pytest.mark.parametrize("name", ["modelling", "models", "model_head", "head"])
def test_a_module_keeps_its_whole_name(captured, name):
    program = captured(lambda m, x, s: (getattr(m, name)(x), s), **{name: nn.Linear(6, 3)})
    assert [node.origin for node in program.nodes] == [name]


@pytest.mark.parametrize("name", ["relu_0", "x", "y", "state", "next_state", "const_0", "mul_1"])
def test_a_weight_may_have_any_name(captured, name):
    weight = torch.arange(6.0) + 1

    def step(m, x, s):
        return torch.relu(x * getattr(m, name)) * 2, {"h": s["h"] * 2}

    y, _ = run(captured(step, **{name: weight}), x=ramp(), h=ramp())
    np.testing.assert_array_equal(y[0], 2 * ramp() * weight.numpy())


def test_dropout_and_batch_norm_are_captured_as_in_eval_mode(captured):
    norm = nn.BatchNorm1d(6)
    norm.running_mean.copy_(torch.arange(6.0))
    norm.running_var.fill_(3.0)
    program = captured(lambda m, x, s: (m.drop(m.norm(x)), s), norm=norm.train(), drop=nn.Dropout(0.9).train())
    assert [node.operator for node in program.nodes] == ["mul", "add"]
    y, _ = run(program, x=ramp(1), h=ramp())
    np.testing.assert_allclose(y[0], np.full(6, 1 / np.sqrt(3 + 1e-5)), rtol=1e-5)


def test_a_branch_on_data_is_refused(captured):
    with pytest.raises(Unsupported, match="may not branch on data"):
        captured(lambda m, x, s: (x if x.sum() > 0 else -x, s))


def test_a_branch_on_data_is_refused_with_its_line_and_without_the_graph(captured, capfd):
    def step(m, x, s):
        if x.sum() > 0:
            return x, s
        return -x, s

    with pytest.raises(Unsupported, match=rf"test_capture\.py:{step.__code__.co_firstlineno + 1}"):
        captured(step)
    assert capfd.readouterr() == ("", "")


def test_what_torch_says_of_a_step_that_it_exports_is_passed_on(captured, capfd):
    def step(m, x, s):
        print("a word", file=sys.stderr)
        return x * 2, {"h": x}

    captured(step)
    assert "a word" in capfd.readouterr().err


def keep_tensor(m, x):
    m.kept = x


def keep_in_place(m, x):
    m.kept.add_(x)


def keep_in_list(m, x):
    m.kept.append(x)


def keep_count(m, x):
    m.kept = m.kept + 1


@pytest.mark.parametrize(
    ("keep", "start"),
    [
        (keep_tensor, {}),
        (keep_tensor, {"kept": None}),
        (keep_in_place, {"kept": "tensor"}),
        (keep_in_list, {"kept": []}),
        (keep_count, {"kept": 0}),
    ],
)
@pytest.mark.parametrize("inner", [False, True], ids=["model", "module"])
def test_a_step_that_keeps_something_in_an_attribute_is_refused_with_its_name(captured, keep, start, inner):
    head = nn.Linear(6, 6)
    values = {name: torch.zeros(1, 6) if value == "tensor" else copy.copy(value) for name, value in start.items()}

    def step(m, x, s):
        holder = m.head if inner else m
        for name, value in values.items():
            if not hasattr(holder, name):
                object.__setattr__(holder, name, value)
        keep(holder, x)
        return m.head(x) + s["h"], {"h": x}

    with pytest.raises(Unsupported, match=f"in attribute '{'head.' if inner else ''}kept': carry it in the state"):
        captured(step, head=head)


def test_attributes_that_stay_as_they_are_are_captured(captured):
    def step(m, x, s):
        m.gain, m.shape = 2.0, x.shape
        return x * m.gain + m.table[0], {"h": x}

    program = captured(step, gain=2.0, shape=torch.Size([1, 6]), table=[torch.ones(6)])
    np.testing.assert_array_equal(run(program, x=ramp(), h=ramp())[0][0], 2 * ramp() + 1)


class Cumulative(nn.Module):
    def forward(self, x):
        return x.cumsum(-1)


def test_an_operator_outside_the_set_is_refused_with_the_module_it_came_from(captured):
    with pytest.raises(Unsupported, match=r"operator 'cumsum' of module 'head\.1' is not in the step program's set"):
        captured(lambda m, x, s: (m.head(x), s), head=nn.Sequential(nn.Linear(6, 3), Cumulative()))


def test_an_operator_outside_the_set_is_refused_with_the_lines_that_call_it(captured):
    def step(m, x, s):
        return torch.cumsum(x, -1), {"h": x.cumsum(-1)}

    line = step.__code__.co_firstlineno + 1
    with pytest.raises(Unsupported, match=rf"'cumsum' of module 'the model' .*\(called at test_capture\.py:{line}\);"):
        captured(step)
    with pytest.raises(Unsupported, match=r"'cumsum'.*\(called at test_capture\.py:\d+\);"):
        captured(lambda m, x, s: (m.head(x), s), head=Cumulative())


def test_an_argument_outside_the_set_is_refused_with_the_module_it_came_from(captured):
    with pytest.raises(Unsupported, match=r"operator 'gelu' of module 'head' cannot be said.*exact form"):
        captured(lambda m, x, s: (m.head(x), s), head=nn.GELU(approximate="tanh"))


@pytest.mark.parametrize(
    "step",
    [
        lambda m, x, s: x,
        lambda m, x, s: (x, s["h"]),
        lambda m, x, s: (x, s, x),
        lambda m, x, s: (x, {"g": s["h"]}),
        lambda m, x, s: (x, {}),
        lambda m, x, s: (x, {**s, "more": x}),
        lambda m, x, s: (x[0], s),
        lambda m, x, s: (x[None], s),
        lambda m, x, s: (x, {"h": s["h"][:, :3]}),
        lambda m, x, s: (x > 0, s),
        lambda m, x, s: (x, {"h": s["h"] > 0}),
    ],
    ids=["no state", "bare state", "three", "other", "fewer", "more", "rank 1", "rank 3", "short", "bool y", "bool h"],
)  # fmt: skip
def test_a_step_that_does_not_keep_the_contract_is_refused_in_words(captured, step):
    with pytest.raises(EdgeseqError, match=r"must|needed|does not become"):
        captured(step)


@pytest.mark.parametrize("broken", ["the answer", "state 'h'"])
def test_a_rule_that_says_something_else_is_noticed(captured, monkeypatch, broken):
    monkeypatch.setitem(RULES, "tanh", lambda b, x: b.add("sigmoid", x))
    with pytest.raises(GateFailed, match=broken):
        captured(
            lambda m, x, s: (x.tanh(), s) if broken == "the answer" else (x, {"h": s["h"].tanh()}),
        )


def test_a_difference_outside_of_ordinary_values_is_noticed(captured, monkeypatch):
    monkeypatch.setitem(RULES, "clamp", lambda b, x, low, high: x)
    with pytest.raises(GateFailed):
        captured(lambda m, x, s: (x.clamp(-8, 8), s))


def test_noise_in_a_step_is_noticed(captured):
    with pytest.raises(GateFailed):
        captured(lambda m, x, s: (x + torch.rand(1, 6), s))


def test_capture_twice_gives_the_same_program(model):
    one, two = (capture(lower(model)) for _ in range(2))
    assert (one.nodes, one.states, one.y, list(one.constants)) == (two.nodes, two.states, two.y, list(two.constants))
    assert all(np.array_equal(one.constants[name], two.constants[name]) for name in one.constants)


def test_lower_leaves_the_model_as_it_is(model):
    model.double().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = lower(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    assert not form.training
    assert {tensor.dtype for tensor in form.state_dict().values()} - {torch.bool} == {torch.float32}
    assert not {t.data_ptr() for t in form.state_dict().values()} & {t.data_ptr() for t in model.state_dict().values()}


def test_the_program_is_the_models_step(model, program):
    model = model.eval()
    x, state = torch.randn(program.x.shape), {name: torch.randn_like(t) for name, t in model.initial_state(1).items()}
    with torch.no_grad():
        y, after = call_step(model, x, state)
    found, states = interpret(program)(x.numpy(), {name: t.numpy() for name, t in state.items()})
    np.testing.assert_allclose(found, y.numpy(), atol=1e-6)
    assert list(states) == list(after)
    for name, tensor in after.items():
        np.testing.assert_allclose(states[name], tensor.numpy(), atol=1e-6)
