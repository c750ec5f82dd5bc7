"""What the front end of a step costs: that part of the step program which makes features of samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from edgeseq.cli.output import kilobytes, percent
from edgeseq.program.cost import Cost

if TYPE_CHECKING:
    from edgeseq.program import Program

FRONT = "front"  # the module of the front end, in every model that has one
WINDOW = "front.hann"  # its constant that no family's own module of that name has


class FrontCost(msgspec.Struct, frozen=True):
    """The cost of a step up to the features, and its share of all the step's multiplications, 0 to 1."""

    cost: Cost
    share: float

    def shown(self) -> str:
        """For people."""
        spent = self.cost
        return (
            f"{spent.macs:,} of these MACs ({percent(self.share)}) and {spent.elementwise:,} elementwise operations, "
            f"{kilobytes(spent.constant_bytes)} of the constants and {kilobytes(spent.state_bytes)} of the state"
        )


def front_end(program: Program) -> Program | None:
    """The step up to its features: samples and those heard before them in, features out; None without a front end.

    The features are what the rest of the step reads of the front end's module; what they are made of is followed back.
    """
    if WINDOW not in program.constants:
        return None
    ours = {node.output.name for node in program.nodes if node.origin == FRONT}
    features = [name for node in program.nodes if node.origin != FRONT for name in node.inputs if name in ours]
    states = tuple(state for state in program.states if state.name.startswith(f"{FRONT}."))
    needed, kept = {features[0], *(state.after for state in states)}, []
    for node in reversed(program.nodes):
        if node.output.name in needed:
            kept.append(node)
            needed.update(node.inputs)
    constants = {name: array for name, array in program.constants.items() if name in needed}
    return replace(program, y=features[0], states=states, nodes=tuple(reversed(kept)), constants=constants)


def front_cost(program: Program) -> FrontCost | None:
    """What the front end of ``program`` costs, if it has one."""
    from edgeseq.program import cost

    part = front_end(program)
    if part is None:
        return None
    spent, whole = cost(part), cost(program)
    return FrontCost(spent, spent.macs / max(1, whole.macs + whole.acs))
