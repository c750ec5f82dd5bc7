"""Prices: by hand from Horowitz's table, and what must hold of any estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeseq.program.activity import Activations, Activity, Layer
from edgeseq.program.energy import ESTIMATED, MEMORIES, conventions, energy, traffic

FRAMES = 10


def layer(macs=0, acs=0, *, integer=False, size=100, name="w.weight"):
    """A layer of ``size`` weights, 5 inputs and 20 outputs; ``macs`` and ``acs`` a step."""
    return Layer(
        weight=name,
        weights=size,
        zeros=0,
        biases=20,
        dense=size,
        effective_macs=macs * FRAMES,
        effective_acs=acs * FRAMES,
        integer=integer,
        weight_bytes=1 if integer else 4,
        values=25,
        value_bytes=1 if integer else 4,
    )


def activity(*layers, activations=(), memory_macs=0, elementwise=0, constants=1000, states=80):
    return Activity(
        streams=1,
        frames=FRAMES,
        batch=1,
        layers=layers,
        activations=activations,
        memory_macs=memory_macs,
        elementwise=elementwise,
        constant_bytes=constants,
        state_bytes=states,
    )


def neurons(operator="leaky", operations=4, updates=8):
    """A population that makes so many updates a step."""
    return Activations(name="u", operator=operator, size=8, active=0, updates=updates * FRAMES, operations=operations)


def test_the_literature_s_price_is_4_6_a_mac_and_0_9_an_ac_of_effective_operations():
    found = energy(activity(layer(10, 20)))
    assert found.synapses == pytest.approx(10 * 4.6 + 20 * 0.9)
    assert found.dense == pytest.approx(100 * 4.6)
    assert found.provenance == ESTIMATED == "estimated"


def test_int8_prices_are_for_int8_layers_alone():
    counted = activity(layer(10, 20, integer=True), layer(5, 0), memory_macs=3)
    assert conventions(counted) == ("fp32", "int8")
    found = energy(counted, "int8")
    assert found.synapses == pytest.approx(10 * 0.3 + 20 * 0.1 + 5 * 4.6)
    assert found.dense == pytest.approx(100 * 0.3 + 100 * 4.6)
    assert found.memory == pytest.approx(3 * 4.6)
    assert energy(counted).synapses == pytest.approx(15 * 4.6 + 20 * 0.9)
    assert conventions(activity(layer())) == ("fp32",)


@pytest.mark.parametrize(
    ("operator", "operations", "price"), [("leaky", 4, 3.7 + 3 * 0.9), ("synaptic", 6, 2 * 3.7 + 4 * 0.9)]
)
def test_a_neuron_pays_a_product_for_each_of_its_states(operator, operations, price):
    found = energy(activity(activations=(neurons(operator, operations),)))
    assert found.neurons == pytest.approx(8 * price)
    assert (found.low, found.high) == pytest.approx((8 * operations * 0.9, 8 * operations * 3.7))


def test_activations_that_are_no_neurons_are_paid_as_elementwise_only():
    relu = Activations(name="r", operator="relu", size=8, active=30)
    found = energy(activity(activations=(relu,), elementwise=8))
    assert (found.neurons, found.elementwise) == (0, pytest.approx(8 * 3.7))


@given(
    st.integers(0, 100), st.integers(0, 100), st.integers(0, 50), st.integers(0, 50), st.sampled_from([4, 6, 8]),
    st.booleans(),
)  # fmt: skip
def test_a_step_lies_in_its_band_and_no_higher_than_a_dense_one(macs, acs, memory, elementwise, operations, integer):
    working = layer(macs, min(acs, 100 - macs), integer=integer)
    counted = activity(
        working, activations=(neurons("leaky", operations),), memory_macs=memory, elementwise=elementwise
    )
    for convention in conventions(counted):
        found = energy(counted, convention)
        parts = found.synapses + found.neurons + found.memory + found.elementwise
        assert found.step == pytest.approx(parts)
        assert found.low <= found.step * (1 + 1e-12)
        assert found.step <= found.high * (1 + 1e-12)
        assert found.step <= found.dense_step * (1 + 1e-12)
    assert energy(counted, "int8").step <= energy(counted, "fp32").step


def test_traffic_is_weights_touched_other_constants_states_both_ways_and_values():
    counted = activity(layer(10, 20, integer=True), constants=1000, states=80)
    found = traffic(counted)
    others = (1000 - 100) + 2 * 80 + 25
    assert found.effective_bytes == pytest.approx(30 + others)
    assert found.dense_bytes == 100 + others
    assert found.held_bytes == 1080
    assert (found.memory, found.effective) == ("8 KB SRAM", pytest.approx(found.effective_bytes * 10 / 8))
    assert found.dense == pytest.approx(found.dense_bytes * 10 / 8)


def test_a_weight_of_several_rows_is_read_once():
    several = replace(layer(400, 0), dense=400)  # each weight for four rows
    found = traffic(activity(several))
    assert found.effective_bytes == pytest.approx(found.dense_bytes)


@pytest.mark.parametrize(
    ("held", "memory", "price", "band"),
    [
        (8 * 1024, "8 KB SRAM", 10, (10, 10)),
        (8 * 1024 + 1, "32 KB SRAM", 20, (10, 20)),
        (32 * 1024 + 1, "1 MB SRAM", 100, (20, 100)),
        (1024 * 1024 + 1, "DRAM", 1950, (1300, 2600)),
    ],
)
def test_bytes_cost_what_the_memory_that_holds_the_model_asks(held, memory, price, band):
    found = traffic(activity(layer(), constants=held - 80, states=80))
    assert found.memory == memory
    assert found.effective == pytest.approx(found.effective_bytes * price / 8)
    assert (found.low, found.high) == pytest.approx(tuple(found.effective_bytes * each / 8 for each in band))


def test_memories_are_in_order_and_the_last_holds_anything():
    sizes = [memory.holds for memory in MEMORIES]
    assert sizes == sorted(sizes)
    assert np.isinf(sizes[-1])
