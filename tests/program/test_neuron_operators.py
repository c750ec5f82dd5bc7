"""Spiking neurons in the step program: nodes with several results, spikes beside the threshold, what they cost."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.devices.engines.litert import partition_counts
from edgeseq.errors import InputError
from edgeseq.export.pack import pack_states
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.program import Builder, Program, Value, cost, interpret
from edgeseq.program.cost import spikes
from edgeseq.program.neurons import LOWEST_THRESHOLD, RESETS

SIZE = 16
RULE = {"reset": "subtract", "delay": True, "inclusive": False}


def population(threshold=1.0, beta=0.9, alpha=None, size=SIZE, **rule) -> Program:
    """Neurons whose currents are the frame; the answer is their spikes."""
    names = ["membrane"] if alpha is None else ["current", "membrane"]
    b = Builder(Value("x", (1, size)), [Value(f"u.{name}", (1, size)) for name in names])
    constants = {"beta": beta, "threshold": threshold} | ({} if alpha is None else {"alpha": alpha})
    held = [b.constant(name, np.array(constants[name], np.float32)) for name in sorted(constants)]
    kind = "leaky" if alpha is None else "synaptic"
    y, *after = b.add_all(kind, "x", *(f"u.{name}" for name in names), *held, **{**RULE, **rule})
    return b.finish(y, {f"u.{name}": value for name, value in zip(names, after, strict=True)})


def neighbours(threshold: np.float32) -> np.ndarray:
    """Floats on both sides of a threshold, and some that are far from it (1, 16)."""
    up, down = [threshold], [threshold]
    for _ in range(4):
        up.append(np.nextafter(up[-1], np.float32(np.inf)))
        down.append(np.nextafter(down[-1], np.float32(-np.inf)))
    far = [0, 2 * threshold, 0.5 * threshold, -threshold, 1e9, -1e9, 3]
    return np.float32([[*up, *down[1:], *far]])


thresholds = st.floats(float(np.float32(0.01)), 100, width=32) | st.sampled_from([0.015625, 0.5, 1.0, 2.0, 64.0])


# -- beside the threshold ----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(threshold=thresholds, inclusive=st.booleans(), delay=st.booleans(), reset=st.sampled_from(["subtract", "zero"]))
def test_files_spike_exactly_where_the_membrane_is_above_the_threshold(
    file_engine, run_file, threshold, inclusive, delay, reset
):
    level = np.float32(threshold)
    program = population(threshold, beta=0.0, inclusive=inclusive, delay=delay, reset=reset)
    x, before = neighbours(level), np.zeros((1, SIZE), np.float32)
    y, after = run_file(program, file_engine, x, {"u.membrane": before})
    fired = x >= level if inclusive else x > level
    relaxed = x if delay else np.where(fired, x - level if reset == "subtract" else 0, x)
    np.testing.assert_array_equal(y, fired.astype(np.float32))
    np.testing.assert_array_equal(after["u.membrane"], relaxed)


@settings(max_examples=25)
@given(threshold=thresholds, inclusive=st.booleans(), reset=st.sampled_from(RESETS))
def test_files_reset_exactly_those_whose_membrane_was_above_the_threshold(
    file_engine, run_file, threshold, inclusive, reset
):
    level, zero = np.float32(threshold), np.zeros((1, SIZE), np.float32)
    program = population(threshold, beta=1.0, inclusive=inclusive, reset=reset)
    before = neighbours(level)
    _, after = run_file(program, file_engine, zero, {"u.membrane": before})
    fired = before >= level if inclusive else before > level
    relaxed = {"zero": zero, "none": before}.get(reset, before - level)
    np.testing.assert_array_equal(after["u.membrane"], np.where(fired, relaxed, before))


@pytest.mark.parametrize("threshold", [LOWEST_THRESHOLD, 1e5, 1e-3])
def test_the_limits_of_a_threshold_are_exact_too(threshold, file_engine, run_file):
    level = np.float32(threshold)
    near = np.float32([[np.nextafter(level, np.float32(0)), level, np.nextafter(level, np.float32(np.inf)), 1e30]])
    y, _ = run_file(population(level, 0.0, size=4), file_engine, near, {"u.membrane": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(y, [[0, 0, 1, 1]])


@pytest.mark.parametrize("alpha", [None, 0.7])
@pytest.mark.parametrize("reset", RESETS)
def test_a_stream_of_spikes_and_states_is_equal_in_every_file(alpha, reset, file_engine, open_written):
    program = population(0.37, 0.9, alpha, reset=reset)
    step, reference = open_written(program, file_engine), interpret(program)
    states = {state.name: np.zeros((1, SIZE), np.float32) for state in program.states}
    packed, fired = np.concatenate([*states.values()], 1), 0.0
    for x in np.random.default_rng(0).normal(0, 1, (100, 1, SIZE)).astype(np.float32):
        expected, states = reference(x, states)
        y, packed = step(x, packed)
        fired += expected.sum()
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(packed, np.concatenate([*states.values()], 1))
    assert 100 < fired < 100 * SIZE


@pytest.mark.parametrize("reset", RESETS)
def test_xnnpack_takes_a_population_as_one_partition(reset, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    write_tflite(population(alpha=0.5, reset=reset, inclusive=True), tmp_path / "model.tflite")
    interpreter = Interpreter(str(tmp_path / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    assert partition_counts(interpreter) == (1, 0)


# -- nodes with several results ----------------------------------------------------------------------------------------


def test_a_program_with_several_results_is_read_as_it_was_written(tmp_path):
    program = population(alpha=0.5)
    program.write(tmp_path)
    found = Program.read(tmp_path)
    assert (found.nodes, found.states) == (program.nodes, program.states)
    (node,) = found.nodes
    assert [value.name for value in node.results] == ["synaptic_0", "synaptic_0.current", "synaptic_0.membrane"]
    assert all(value in found.values.values() for value in node.results)


def test_a_program_without_neurons_is_written_as_ever(tmp_path):
    b = Builder(Value("x", (1, 2)), [Value("m", (1, 2))])
    y = b.add("add", "x", "m")
    b.finish(y, {"m": y}).write(tmp_path)
    text = (tmp_path / "step.json").read_bytes()
    assert b"others" not in text
    assert hashlib.sha256(text).hexdigest() == "6b2e5a3687085d90f37d93796dcc72fb0609e1f389ea68d7a945799a12774fb3"


def test_a_population_stays_if_only_its_membrane_is_needed():
    b = Builder(Value("x", (1, 4)), [Value("v", (1, 4))])
    held = [b.constant(name, np.array(1, np.float32)) for name in ("beta", "threshold")]
    _, membrane = b.add_all("leaky", "x", "v", *held, **RULE)
    program = b.finish("x", {"v": membrane})
    assert [node.operator for node in program.nodes] == ["leaky"]
    y, after = interpret(program)(np.ones((1, 4), np.float32), {"v": np.full((1, 4), 3, np.float32)})
    np.testing.assert_array_equal((y, after["v"]), (np.ones((1, 4)), np.full((1, 4), 3)))
    assert [node.operator for node in pack_states(program).nodes] == ["leaky", "reshape"]


def test_names_that_are_taken_are_not_given_to_further_results():
    b = Builder(Value("x", (1, 4)), [Value("v", (1, 4)), Value("leaky_0.membrane", (1, 4))])
    held = [b.constant(name, np.array(1, np.float32)) for name in ("beta", "threshold")]
    y, membrane = b.add_all("leaky", "x", "v", *held, **RULE)
    program = b.finish(y, {"v": membrane, "leaky_0.membrane": "v"})
    assert len(program.values) == 7


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ((), "has 0 further results, the operator gives 1"),
        ((Value("a", (1, SIZE)), Value("b", (1, SIZE))), "has 2 further results"),
        ((Value("a", (1, 3)),), r"its result is float32\[1, 3\]"),
        ((Value("leaky_0", (1, SIZE)),), "assigns a name that is already taken"),
        ((Value("x", (1, SIZE)),), "assigns a name that is already taken"),
    ],
)
def test_further_results_that_do_not_fit_are_refused(others, message):
    program = population()
    (node,) = program.nodes
    nodes = (msgspec.structs.replace(node, others=others),)
    with pytest.raises(InputError, match=message):
        Program(program.x, program.y, program.states, nodes, program.constants).check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "threshold must be at least"),
        ({"threshold": -1.0}, "threshold must be at least"),
        ({"threshold": np.inf}, "threshold must be at least"),
        ({"reset": "half"}, "reset 'half'"),
        ({"reset": "subtract_decayed", "delay": False}, "needs a delay"),
        ({"beta": np.ones(3, np.float32)}, "leaky does not fit"),
        ({"delay": "yes"}, "must be true or false"),
        ({"inclusive": 1}, "must be true or false"),
    ],
)
def test_neurons_that_no_file_can_compute_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        population(**arguments)


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "operations"), [(None, 6), (0.5, 8)])
def test_a_map_that_reads_spikes_accumulates_and_one_that_reads_membranes_multiplies(alpha, operations):
    names = ["membrane"] if alpha is None else ["current", "membrane"]
    b = Builder(Value("x", (1, 4)), [Value(name, (1, 4)) for name in names])
    count = 2 if alpha is None else 3
    held = [b.constant(f"c{i}", np.array(0.5, np.float32)) for i in range(count)]
    y, *after = b.add_all("leaky" if alpha is None else "synaptic", "x", *names, *held, **RULE)
    weight = b.constant("w", np.full((3, 4), 0.5, np.float32))
    answer = b.add("concat", b.add("linear", y, weight), b.add("linear", after[-1], weight), axis=1)
    program = b.finish(answer, dict(zip(names, after, strict=True)))
    found = cost(program)
    assert spikes(program) == {y}
    assert (found.acs, found.macs, found.elementwise) == (12, 12, 4 * operations)
