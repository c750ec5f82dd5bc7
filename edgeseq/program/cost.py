"""What one step costs, counted on the program."""

from __future__ import annotations

import msgspec

from edgeseq.program.graph import Program
from edgeseq.program.operators import operator


class Cost(msgspec.Struct, frozen=True):
    """Cost of one step: counts of operations, and bytes at the program's own types."""

    macs: int
    elementwise: int
    nodes: int
    constant_bytes: int
    state_bytes: int


def cost(program: Program) -> Cost:
    """Count multiply-accumulates, other arithmetic per element, nodes, and the bytes of constants and states."""
    values = program.values
    macs = elementwise = 0
    for node in program.nodes:
        shapes = [values[name].shape for name in node.inputs]
        macs += operator(node.operator).macs(shapes, node.output.shape)
        elementwise += operator(node.operator).elementwise(shapes, node.output.shape)
    return Cost(
        macs=macs,
        elementwise=elementwise,
        nodes=len(program.nodes),
        constant_bytes=sum(array.nbytes for array in program.constants.values()),
        state_bytes=4 * program.state_size,
    )
