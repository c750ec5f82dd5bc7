"""What one step costs, counted on the program.

    mac   one multiplication and the addition of its product to a sum
    ac    the same where one factor can only be 0 or 1: an addition that happens or not
    elementwise   every other value computed: activations, gates, products and sums by themselves

Counted so are, for each element:

- each weight of a linear map, for each row it is applied to;
- each product of ``mul`` that nothing but additions (add, sub, sum) reads, directly or moved (slice, concat, reshape,
  transpose). It takes one addition of its first reader with it, which is then not counted as elementwise.

So a diagonal state space, s ← a s + u and y = Σ c s, counts as the matrices it replaces would: a complex product is 4
macs, and a real part of one is 2. Bias additions are part of their linear map. A product with a constant that only
masks or repeats (zeros and ones, or ones that make the result larger) multiplies nothing, and is elementwise.

A spiking neuron is elementwise: 6 values a step (the decayed membrane, with its current, two comparisons, what a reset
takes, and the membrane without it), 8 with a synapse (the decayed current, and with its input). Resets and delays that
need one or two fewer are counted alike.

Spikes are 0 or 1: what a neuron gives as its first result, what ``where`` makes of the constants 0 and 1, that value
moved, carried as a state that starts from 0 or 1, or rounded to int8, and products of two such values. Accumulates are
told apart as NeuroBench does (Yik et al., 2025), but every one of them is counted, whether there is a spike in it or
not: a dense kernel does them all.
"""

from __future__ import annotations

import msgspec
import numpy as np

from edgeseq.program.graph import Node, Program
from edgeseq.program.operators import operator

ADDS = ("add", "sub", "sum")
MOVES = ("slice", "concat", "reshape", "transpose")
KEEPS = (*MOVES, "quantize", "dequantize", "mul", "minimum", "maximum")  # 0 or 1 where all their inputs are
NEURONS = ("leaky", "synaptic")
LEAVES = ""  # the reader of an answer or a next state, which no operator of the program is


class Cost(msgspec.Struct, frozen=True):
    """Cost of one step: counts of operations, and bytes at the program's own types.

    ``parameters`` are the trained numbers, where whoever counts knows them: constants such as an LMU's A are none.
    """

    macs: int
    elementwise: int
    nodes: int
    constant_bytes: int
    state_bytes: int
    acs: int = 0
    parameters: int | None = None


def cost(program: Program, parameters: int | None = None) -> Cost:
    """Count a step as the module says; ``parameters`` are passed on."""
    values, zero_or_one = program.values, spikes(program)
    readers = _readers(program)
    macs = acs = elementwise = 0
    taken: dict[str, int] = {}  # additions of a node that are in a mac or an ac already
    for node in program.nodes:
        shapes, entry = [values[name].shape for name in node.inputs], operator(node.operator)
        products, others = entry.macs(shapes, node.output.shape), entry.elementwise(shapes, node.output.shape)
        reading = readers[node.output.name] if node.operator == "mul" and not _copies(program, node) else []
        if reading and all(kind in ADDS for _, kind in reading):
            products, others = node.output.size, 0
            first = reading[0][0]
            taken[first] = taken.get(first, 0) + products
        if any(name in zero_or_one for name in node.inputs):
            acs += products
        else:
            macs += products
        elementwise += max(0, others - taken.get(node.output.name, 0))
    return Cost(
        macs=macs,
        acs=acs,
        elementwise=elementwise,
        nodes=len(program.nodes),
        constant_bytes=sum(array.nbytes for array in program.constants.values()),
        state_bytes=4 * program.state_size,
        parameters=parameters,
    )


def spikes(program: Program) -> set[str]:
    """The values of a program, other than constants, that can only be 0 or 1 (before they are rounded to int8)."""
    changing = [state for state in program.states if state.after != state.name]
    states = [state for state in changing if state.initial in (0.0, 1.0)]
    while True:
        known = {state.name for state in states}
        for node in program.nodes:
            if _spikes(program, node, known):
                known.add(node.output.name)
        left = [state for state in states if state.after in known]
        if len(left) == len(states):
            return known
        states = left  # what was taken for spikes because of the others is looked at again


def _spikes(program: Program, node: Node, known: set[str]) -> bool:
    def either(name: str) -> bool:
        held = program.constants.get(name)
        return name in known if held is None else bool(np.isin(held, (0, 1)).all())

    if node.operator in NEURONS:
        return True
    if node.operator == "where":
        return all(map(either, node.inputs[1:]))
    return node.operator in KEEPS and all(map(either, node.inputs))


def _copies(program: Program, node: Node) -> bool:
    """Whether a ``mul`` multiplies nothing: by a mask of zeros and ones, or by ones that only repeat the other."""
    for name, other in (node.inputs, reversed(node.inputs)):
        held = program.constants.get(name)
        if held is not None and np.isin(held, (0, 1)).all():
            repeats = node.output.size > program.values[other].size
            if (held.any() and not held.all()) or (held.all() and repeats):
                return True
    return False


def _readers(program: Program) -> dict[str, list[tuple[str, str]]]:
    """By value, the nodes that read it as (result, operator), in order; what only moves it is passed through."""
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in program.values}
    for left in (program.y, *(state.after for state in program.states)):
        found[left].append((left, LEAVES))
    for node in reversed(program.nodes):
        result = node.output.name
        seen = found[result] if node.operator in MOVES else [(result, node.operator)]
        for name in dict.fromkeys(node.inputs):
            found[name] = [*seen, *found[name]]
    return found
