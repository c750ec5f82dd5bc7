"""What a program is said to do: by NeuroBench's own numbers, by hand, and by properties of counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.program import Builder, Program, Value, cost, interpret
from edgeseq.program.activity import measure

INPUTS = ("spikes", "ternary", "analog")


@pytest.fixture(scope="module")
def neurobench():
    with np.load(Path(__file__).with_name("neurobench_reference.npz")) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def net(neurobench) -> Program:
    """linear, Leaky, linear, Leaky, answering with the spikes of both."""
    return spiking(neurobench)


def spiking(of):
    sizes = [int(of[f"cfg/{name}"]) for name in "IHO"]
    b = Builder(Value("x", (1, sizes[0])), [Value(f"{n}.membrane", (1, size)) for n, size in enumerate(sizes[1:], 1)])
    spikes, after, both = "x", {}, []
    for number in (1, 2):
        weight, bias = (b.constant(f"{number}.{name}", of[f"w/{2 * number - 2}.{name}"]) for name in ("weight", "bias"))
        constants = [
            b.constant(f"{number}.{name}", np.float32(of[f"cfg/{name}{number}"])[()] * np.ones((), np.float32))
            for name in ("beta", "threshold")
        ]
        current = b.add("linear", spikes, weight, bias)
        state = f"{number}.membrane"
        spikes, after[state] = b.add_all(
            "leaky", current, state, *constants, reset="subtract", delay=True, inclusive=False
        )
        both.append(spikes)
    return b.finish(b.add("concat", *both, axis=1), after)


@pytest.mark.parametrize("kind", INPUTS)
def test_all_metrics_are_neurobench_s(net, neurobench, kind):
    def told(name):
        return neurobench[f"{kind}/{name}"].item()

    found = measure(net, neurobench[f"{kind}/x"], int(neurobench["cfg/bs"])).neurobench()
    operations, updates = found["SynapticOperations"], found["NeuronOperations"]
    assert operations["Dense"] == told("synops/Dense")
    assert operations["Effective_MACs"] == pytest.approx(told("synops/Effective_MACs"), rel=1e-12)
    assert operations["Effective_ACs"] == pytest.approx(told("synops/Effective_ACs"), rel=1e-12)
    assert found["ActivationSparsity"] == pytest.approx(told("activation_sparsity"), rel=1e-12)
    by_layer = [told(f"activation_sparsity_layer/{layer}") for layer in (1, 3)]
    assert list(found["ActivationSparsityByLayer"].values()) == pytest.approx(by_layer, rel=1e-12)
    assert found["ConnectionSparsity"] == told("connection_sparsity")
    assert found["ParameterCount"] == told("parameter_count")
    assert found["Footprint"] == told("footprint_bytes")
    assert found["FootprintAfterRun"] == told("footprint_bytes_after_run")
    assert found["MembraneUpdates"] == told("membrane_updates")
    assert updates["Effective Neuron Ops"] == told("neuron_ops/Effective_Neuron_Ops")
    assert updates["Neuron Dense Ops"] == told("neuron_ops/Neuron_Dense_Ops")


@pytest.mark.parametrize("kind", INPUTS)
def test_the_spikes_are_those_that_neurobench_saw(net, neurobench, kind):
    step = interpret(net)
    for number, stream in enumerate(neurobench[f"{kind}/x"]):
        states = {state.name: np.zeros(state.before.shape, np.float32) for state in net.states}
        seen = []
        for frame in stream:
            y, states = step(frame[None], states)
            seen.append(y[0])
        told = np.concatenate([neurobench[f"{kind}/spk_layer{layer}"][number] for layer in (1, 2)], -1)
        np.testing.assert_array_equal(np.stack(seen), told)


def test_the_batch_moves_operations_between_macs_and_acs_and_changes_nothing_else(net, neurobench):
    x = neurobench["analog/x"].copy()
    x[0, :, 1:] = 0
    x[0, :, 0] = 1  # this stream alone would make accumulates of it
    alone, together = measure(net, x, 1), measure(net, x, len(x))
    assert alone.effective_acs > together.effective_acs
    assert alone.effective_macs + alone.effective_acs == together.effective_macs + together.effective_acs
    assert alone.activations == together.activations


# -- by hand ----------------------------------------------------------------------------------------------------------

WEIGHT = np.array([[1, 0, 2], [0, 0, 3]], np.float32)


def single(weight=WEIGHT, name="w.weight", rows=()):
    """One linear map, and a state that nothing reads."""
    b = Builder(Value("x", (1, 3)), [Value("s", (1, 3))])
    x = b.add("reshape", "x", shape=[1, 1, 3]) if rows else "x"
    y = b.add("linear", x, b.constant(name, weight), b.constant("b", np.ones(len(weight), np.float32)))
    return b.finish(b.add("reshape", y, shape=[1, len(weight)]) if rows else y, {"s": "x"})


def frames(*rows):
    return [np.array(rows, np.float32)]


@pytest.mark.parametrize(
    ("frame", "macs", "acs"),
    [
        ((1, 1, 1), 0, 3),
        ((1, 5, 0), 1, 0),  # one value decides of the call, though no weight meets it
        ((0, 1, 0), 0, 0),
        ((0, 0, -1), 0, 2),
        ((0, 0, 0), 0, 0),
        ((0, 0, 2), 2, 0),
    ],
)
def test_effective_operations_are_non_zero_inputs_times_non_zero_weights(frame, macs, acs):
    found = measure(single(), frames(frame))
    assert (found.effective_macs, found.effective_acs, found.dense) == (macs, acs, 6)
    assert found.connection_sparsity == 0.5
    assert found.parameters == 8


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.5]), min_size=3, max_size=3), min_size=1, max_size=6))
def test_effective_operations_are_the_product_of_the_masks(rows):
    x, mask = np.array(rows, np.float32), (WEIGHT != 0).astype(int)
    told = ((x != 0).astype(int) @ mask.T).sum(1)
    ternary = np.isin(x, (-1, 0, 1)).all(1)
    found = measure(single(), [x])
    assert found.effective_acs * len(x) == pytest.approx(told[ternary].sum())
    assert found.effective_macs * len(x) == pytest.approx(told[~ternary].sum())


@pytest.mark.parametrize("order", [1, -1])
def test_one_stream_of_a_batch_decides_for_all(order):
    streams = [*frames((1, 1, 1)), *frames((0.5, 0, 0))][::order]
    found = measure(single(), streams, batch=2)
    assert (found.effective_macs, found.effective_acs) == (2, 0)  # 3 + 1, of two frames
    alone = measure(single(), streams)
    assert (alone.effective_macs, alone.effective_acs) == (0.5, 1.5)


def test_a_map_of_several_rows_counts_each():
    found = measure(single(rows=(1,)), frames((1, 1, 1), (0, 0, 0)))
    assert (found.dense, found.effective_acs) == (6, 1.5)


def test_recordings_of_different_lengths_share_a_batch():
    x = np.ones((5, 3), np.float32)
    found = measure(single(), [x, x[:2]], batch=2)
    assert (found.streams, found.frames, found.effective_acs) == (2, 7, 3)


def test_layers_that_share_a_weight_work_twice_and_hold_it_once():
    b = Builder(Value("x", (1, 2)), [Value("s", (1, 2))])
    weight = b.constant("w.weight", np.eye(2, dtype=np.float32))
    y = b.add("linear", b.add("linear", "x", weight), weight)
    found = measure(b.finish(y, {"s": "x"}), frames((1, 1)))
    assert (found.dense, found.effective_acs, found.parameters, found.connection_sparsity) == (8, 4, 4, 0.5)


# -- what the definitions do not see ----------------------------------------------------------------------------------


def test_products_that_are_no_trained_weights_are_memory_macs():
    b = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    matrix = b.constant("memory.A", np.full((3, 3), 0.5, np.float32))
    into = b.add("mul", "x", b.constant("memory.B", np.full(3, 2, np.float32)))
    m = b.add("add", b.add("linear", "m", matrix), into)
    y = b.add("tanh", b.add("linear", m, b.constant("readout.weight", WEIGHT)))
    program = b.finish(y, {"m": m})
    found = measure(program, frames((1, 2, 3)))
    assert (found.dense, found.memory_macs, found.elementwise) == (6, 12, 2)
    spent = cost(program)
    assert (found.dense + found.memory_macs, found.elementwise) == (spent.macs + spent.acs, spent.elementwise)


def test_columns_that_a_memory_was_folded_into_are_no_synapses():
    program, stream = single(), frames((9, 1, 1), (0, 0, 1))
    found = measure(program, stream, folded={"w.weight": 2})
    assert (found.dense, found.memory_macs) == (2, 4)
    assert (found.effective_macs, found.effective_acs) == (0, 2)
    assert found.connection_sparsity == 0
    assert found.dense + found.memory_macs == measure(program, stream).dense


def test_a_population_is_called_as_its_membrane_is(net, neurobench):
    found = measure(net, neurobench["spikes/x"][:1])
    assert [population.name for population in found.populations] == ["1", "2"]


def test_neurons_are_no_elementwise_operations(net, neurobench):
    found = measure(net, neurobench["spikes/x"][:1])
    assert (found.memory_macs, found.elementwise) == (0, 0)
    assert found.membrane_updates == 21


def test_a_membrane_that_rests_is_not_updated():
    b = Builder(Value("x", (1, 2)), [Value("v", (1, 2))])
    constants = [b.constant(name, np.full((), value, np.float32)) for name, value in (("beta", 0.5), ("threshold", 1))]
    y, v = b.add_all("leaky", "x", "v", *constants, reset="subtract", delay=True, inclusive=False)
    found = measure(b.finish(y, {"v": v}), frames((0, 0), (0, 0.5), (0, 0)))
    (population,) = found.populations
    assert population.updates == 2 + 1 + 1  # all at the first step; then one that charges, and decays
    assert found.activation_sparsity == 1


def test_a_synapse_costs_more_operations_and_its_membrane_is_what_counts():
    b = Builder(Value("x", (1, 1)), [Value("i", (1, 1)), Value("v", (1, 1))])
    values = (("alpha", 0.5), ("beta", 0.0), ("threshold", 9))
    constants = [b.constant(name, np.full((), value, np.float32)) for name, value in values]
    y, i, v = b.add_all("synaptic", "x", "i", "v", *constants, reset="zero", delay=False, inclusive=False)
    found = measure(b.finish(y, {"i": i, "v": v}), frames((0,), (1,), (0.5,), (0.5,)))
    (population,) = found.populations
    assert (population.updates, population.operations) == (2, 8)  # the first step, and 0 to 1; it stays there


# -- int8 -------------------------------------------------------------------------------------------------------------

GRIDS = ((1 / 255, -128), (1 / 127, 0), (1.01 / 255, -128), (2 / 255, -1))


def twins(scale, zero):
    """An int8 map behind an input grid, and a float one of the same weights; a ReLU follows both."""
    scale, out = float(np.float32(scale)), float(np.float32(0.1))
    weight = np.array([[1, 0, -1], [0, 0, 1]], np.float32)
    b = Builder(Value("x", (1, 3)), [Value("s", (1, 3))])
    constants = (
        b.constant("w.weight", (127 * weight).astype(np.int8)),
        b.constant("w.bias", np.zeros(2, np.int32)),
        b.constant("w.weight_scale", np.full(2, 1 / 127, np.float32)),
    )
    q = b.add("quantize", "x", scale=scale, zero=zero)
    made = b.add("qlinear", q, *constants, x_scale=scale, x_zero=zero, y_scale=out, y_zero=-128)
    integer = b.finish(b.add("dequantize", made, scale=out, zero=-128), {"s": "x"})
    b = Builder(Value("x", (1, 3)), [Value("s", (1, 3))])
    y = b.add("linear", "x", b.constant("w.weight", weight), b.constant("w.bias", np.zeros(2, np.float32)))
    return integer, b.finish(b.add("relu", y), {"s": "x"})


@pytest.mark.parametrize("grid", GRIDS)
def test_an_int8_layer_counts_as_its_float_twin(grid):
    stream = frames((1, 0, 1), (0, 0, 0), (1, 0, 0.5), (0, 1, 0), (0.25, 0.5, 0))
    integer, twin = (measure(program, stream) for program in twins(*grid))
    assert integer.layers[0].integer
    assert not twin.layers[0].integer
    for name in ("dense", "effective_macs", "effective_acs", "activation_sparsity", "connection_sparsity"):
        assert getattr(integer, name) == getattr(twin, name), name


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_frames_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no frame"):
        measure(single(), [np.zeros((0, 3), np.float32)])
    with pytest.raises(InputError, match="reads \\(3,\\)"):
        measure(single(), frames((1, 1)))
