"""What a step would cost in energy on a chip of its own: an estimate from counted operations, never a measurement.

Prices are those of 45 nm at 0.9 V (Horowitz, "Computing's energy problem", ISSCC 2014), in pJ:

           int8   int32   fp32       access to 64 bits
    add    0.03   0.1     0.9        SRAM    10 (8 KB), 20 (32 KB), 100 (1 MB)
    mult   0.2    3.1     3.7        DRAM    1300 to 2600

Two conventions, on the effective operations of :mod:`edgeseq.program.activity`:

    fp32   4.6 MACs + 0.9 ACs                      what papers on spiking networks charge
    int8   (0.2 + 0.1) MACs + 0.1 ACs              of int8 layers: an 8-bit product added to a sum of 32 bits; the
                                                   layers, memories and neurons that stay float32 pay fp32

and beside the synapses, at fp32 in both: 4.6 for each product of a memory, 3.7 for each other value computed, and for
a neuron's update one product for each of its states (3.7) and additions for its other operations (0.9). ``low`` and
``high`` are the band that the formula leaves open: whether another value is an addition (0.9) or a function by a
polynomial of degree 4 (18.4), and whether a neuron's operations are all additions or all products. What a chip adds of
its own (another process, instructions, control, leakage) is in no band: an instruction of a CPU costs about 70 pJ,
whatever it computes.

Traffic is apart: bytes moved, at the price of a byte of the smallest memory above that holds the model, where all bits
of a word are used. A memory made to measure costs less: ``low`` is at the price of the next smaller one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from edgeseq.program.activity import Activity

FP32, INT8 = "fp32", "int8"
ESTIMATED = "estimated"  # the provenance of every number here
ADD, MULTIPLY = 0.9, 3.7  # pJ of fp32
MAC = MULTIPLY + ADD
INT8_MAC, INT8_AC = 0.2 + 0.1, 0.1  # the sum has 32 bits
POLYNOMIAL = 4 * MAC
WORD = 8  # bytes of an access


class Memory(NamedTuple):
    """A kind of memory: the bytes that it holds, and pJ of an access to 8 of them."""

    name: str
    holds: float
    access: float


MEMORIES = (
    Memory("8 KB SRAM", 8 * 1024, 10.0),
    Memory("32 KB SRAM", 32 * 1024, 20.0),
    Memory("1 MB SRAM", 1024 * 1024, 100.0),
    Memory("DRAM", math.inf, 1950.0),
)
DRAM_BAND = 1300.0, 2600.0


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Arithmetic of one step in pJ, under a convention.

    ``synapses`` are the effective synaptic operations: alone they are what papers quote. ``dense`` is what they cost
    where zeros are not skipped. ``low`` and ``high`` bound ``step``.
    """

    convention: str
    provenance: str = ESTIMATED
    synapses: float
    dense: float
    neurons: float
    memory: float
    elementwise: float
    low: float
    high: float

    @property
    def step(self) -> float:
        """All operations of a step, the synaptic ones where they are effective."""
        return self.synapses + self.neurons + self.memory + self.elementwise

    @property
    def dense_step(self) -> float:
        """All operations of a step as a dense kernel does them."""
        return self.dense + self.neurons + self.memory + self.elementwise


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that one step moves, and what that costs in pJ in the memory that holds the model.

    ``effective_bytes`` are weights that meet a non-zero input (of a layer with several rows: on average over them),
    ``dense_bytes`` all of them; both with every other constant, the states read and written, and each layer's inputs
    and outputs. ``low`` and ``high`` bound ``effective``.
    """

    provenance: str = ESTIMATED
    held_bytes: int
    memory: str
    effective_bytes: float
    dense_bytes: int
    effective: float
    dense: float
    low: float
    high: float


def conventions(activity: Activity) -> tuple[str, ...]:
    """The conventions that a program can be priced by: fp32, and int8 if it has int8 layers."""
    return (FP32, INT8) if any(layer.integer for layer in activity.layers) else (FP32,)


def energy(activity: Activity, convention: str = FP32) -> Energy:
    """Price the arithmetic of a step, on average over the frames counted."""
    synapses = dense = 0.0
    for layer in activity.layers:
        mac, ac = (INT8_MAC, INT8_AC) if layer.integer and convention == INT8 else (MAC, ADD)
        synapses += (mac * layer.effective_macs + ac * layer.effective_acs) / activity.frames
        dense += mac * layer.dense
    neurons, updates = _neurons(activity), activity.neuron_operations
    memory = MAC * activity.memory_macs
    return Energy(
        convention=convention,
        synapses=synapses,
        dense=dense,
        neurons=neurons,
        memory=memory,
        elementwise=MULTIPLY * activity.elementwise,
        low=synapses + memory + ADD * (updates + activity.elementwise),
        high=synapses + memory + MULTIPLY * updates + POLYNOMIAL * activity.elementwise,
    )


def _neurons(activity: Activity) -> float:
    """Membrane updates of a step in pJ: one product for each state that decays, the other operations as additions."""
    total = 0.0
    for found in activity.populations:
        products = 2 if found.operator == "synaptic" else 1
        total += found.updates * (MULTIPLY * products + ADD * (found.operations - products))
    return total / activity.frames


def traffic(activity: Activity) -> Traffic:
    """Price the bytes that a step moves, on average over the frames counted."""
    weights = sum(layer.weights * layer.weight_bytes for layer in activity.maps)
    others = activity.constant_bytes - weights + 2 * activity.state_bytes
    others += sum(layer.values * layer.value_bytes for layer in activity.layers)
    touched = sum(
        (layer.effective_macs + layer.effective_acs) * layer.weight_bytes / _uses(layer.dense, layer.weights)
        for layer in activity.layers
    )
    dense = others + sum(layer.weights * layer.weight_bytes for layer in activity.layers)
    effective = others + touched / activity.frames
    held = activity.constant_bytes + activity.state_bytes
    place = next(number for number, memory in enumerate(MEMORIES) if held <= memory.holds)
    price = MEMORIES[place].access / WORD
    low, high = (price / WORD for price in _band(place))
    return Traffic(
        held_bytes=held,
        memory=MEMORIES[place].name,
        effective_bytes=effective,
        dense_bytes=dense,
        effective=effective * price,
        dense=dense * price,
        low=effective * low,
        high=effective * high,
    )


def _uses(dense: int, weights: int) -> float:
    """How often a layer applies a weight that it reads once: to each row of its input."""
    return dense / weights


def _band(place: int) -> tuple[float, float]:
    """The least and greatest price of an access: memories between two sizes cost between them."""
    if MEMORIES[place].name == "DRAM":
        return DRAM_BAND
    return MEMORIES[max(0, place - 1)].access, MEMORIES[place].access
