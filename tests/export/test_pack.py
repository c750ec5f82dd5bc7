"""One packed state: the same step with the named states side by side in one tensor, in numpy and in every file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import Unsupported
from edgeseq.export.pack import layout, pack_states
from edgeseq.program import Builder, Program, Value, interpret

Shapes = tuple[tuple[int, ...], ...]


def mixed(shapes: Shapes, after: Callable[[Builder, list[str]], dict[str, str]], answer: str) -> Program:
    """A program with states ``s0, s1, ...`` of these shapes; ``answer`` is a name, or "sum" of x and what x gives."""
    names = [f"s{i}" for i in range(len(shapes))]
    builder = Builder(Value("x", (1, 6)), [Value(n, s) for n, s in zip(names, shapes, strict=True)])
    following = after(builder, names)
    return builder.finish(builder.add("tanh", "x") if answer == "new" else answer, following)


def doubled(builder: Builder, names: list[str]) -> dict[str, str]:
    return {name: builder.add("add", name, name) for name in names}


def kept(builder: Builder, names: list[str]) -> dict[str, str]:
    return {name: name for name in names}


def the_frame(builder: Builder, names: list[str]) -> dict[str, str]:
    frame = {(1, 6): "x"}
    return {
        name: frame.get(shape) or builder.add("reshape", "x", shape=list(shape))
        for name in names
        for shape in [builder.values[name].shape]
    }


def merged(builder: Builder, names: list[str]) -> dict[str, str]:
    """Every state becomes the same value."""
    one = builder.add("mul", names[0], names[-1])
    return dict.fromkeys(names, one)


PROGRAMS = {
    "one, doubled": mixed(((1, 6),), doubled, "new"),
    "one of three axes": mixed(((1, 2, 3),), doubled, "new"),
    "one, kept": mixed(((1, 6),), kept, "new"),
    "one of three axes, kept": mixed(((1, 2, 3),), kept, "new"),
    "one that becomes the frame": mixed(((1, 6),), the_frame, "new"),
    "one, and the answer is it": mixed(((1, 6),), doubled, "s0"),
    "one, kept, and the answer is it": mixed(((1, 6),), kept, "s0"),
    "one that becomes the frame, which is the answer": mixed(((1, 6),), the_frame, "x"),
    "one that becomes the answer": mixed(((1, 6),), lambda b, n: {"s0": b.add("tanh", "x")}, "tanh_0"),
    "several": mixed(((1, 6), (1, 2, 3), (1, 1), (1, 2, 2, 2)), doubled, "new"),
    "several, kept": mixed(((1, 6), (1, 2, 3), (1, 1)), kept, "new"),
    "several, and the answer is one": mixed(((1, 6), (1, 2, 3)), doubled, "s0"),
    "several that become the frame": mixed(((1, 6), (1, 2, 3), (1, 6)), the_frame, "x"),
    "several that become one value": mixed(((1, 6), (1, 6)), merged, "mul_0"),
    "two that trade places": mixed(((1, 6), (1, 6)), lambda b, n: {"s0": "s1", "s1": "s0"}, "s1"),
}


def example(program: Program, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    states = {s.name: rng.normal(size=s.before.shape).astype(np.float32) for s in program.states}
    return rng.normal(size=program.x.shape).astype(np.float32), states


def together(program: Program, states: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([states[state.name].ravel() for state in program.states])[None]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_packed_program_is_the_same_step(name):
    program = PROGRAMS[name]
    packed = pack_states(program)
    x, states = example(program)
    y, after = interpret(program)(x, states)
    found, following = interpret(packed)(x, {"state": together(program, states)})
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(following["state"], together(program, after))


@pytest.mark.parametrize("name", PROGRAMS)
def test_answer_and_next_state_come_from_nodes_of_their_own(name):
    packed = pack_states(PROGRAMS[name])
    made = [node.output.name for node in packed.nodes]
    assert packed.y in made
    assert packed.states[0].after in made
    assert packed.y != packed.states[0].after


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_written_file_is_the_same_step(name, file_engine, run_file):
    program = PROGRAMS[name]
    x, states = example(program)
    y, after = interpret(program)(x, states)
    found, following = run_file(program, file_engine, x, states)
    np.testing.assert_allclose(found, y, rtol=1e-6, atol=1e-6)
    for key, array in after.items():
        np.testing.assert_allclose(following[key], array, rtol=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_layout_is_without_gaps_in_the_programs_order(sizes):
    shapes = tuple((1, *s) for s in sizes)
    program = mixed(shapes, kept, "new")
    table = layout(program)
    assert [(e.name, e.shape, e.dtype) for e in table] == [(f"s{i}", s, "float32") for i, s in enumerate(shapes)]
    ends = np.cumsum([e.size for e in table])
    assert [e.offset for e in table] == [0, *ends[:-1]]
    assert ends[-1] == program.state_size == pack_states(program).states[0].before.size


def test_a_program_without_state_is_refused():
    builder = Builder(Value("x", (1, 3)), [])
    with pytest.raises(Unsupported, match="carries no state"):
        pack_states(builder.finish(builder.add("tanh", "x"), {}))


@pytest.mark.parametrize("name", ["state", "y", "next_state", "slice_0", "concat_4"])
@pytest.mark.parametrize("kind", ["constant", "state"])
def test_names_of_the_model_do_not_meet_those_of_the_file(name, kind, file_engine, run_file):
    states = [Value("a", (1, 6)), Value(name if kind == "state" else "b", (1, 6))]
    builder = Builder(Value("x", (1, 6)), states)
    weight = builder.constant(name if kind == "constant" else "w", np.arange(6, dtype=np.float32))
    y = builder.add("sub", builder.add("mul", "x", weight), states[1].name)
    program = builder.finish(y, {"a": builder.add("add", "a", weight), states[1].name: "a"})
    x, given = example(program)
    expected, after = interpret(program)(x, given)
    found, following = run_file(program, file_engine, x, given)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for key, array in after.items():
        np.testing.assert_array_equal(following[key], array)
