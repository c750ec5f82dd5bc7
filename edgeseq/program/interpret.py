"""The step program in numpy: the reference that every file is compared with, and the engine of last resort."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edgeseq.program.graph import Array, Program
from edgeseq.program.operators import operator

Step = Callable[[Array, Mapping[str, Array]], tuple[Array, dict[str, Array]]]


def interpret(program: Program) -> Step:
    """A function ``(x (1, C), states) -> (y (1, K), next states)`` that runs the program node by node.

    It keeps nothing between calls, and the arrays it returns are never those it was given.
    """
    calls = [(partial(operator(n.operator).run, **n.attributes), n.inputs, n.output.name) for n in program.nodes]
    constants = dict(program.constants)
    x_name, y_name = program.x.name, program.y
    after = [(state.name, state.after) for state in program.states]

    def step(x: Array, states: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        values = {**constants, **states, x_name: x}
        for run, inputs, output in calls:
            values[output] = run(*[values[name] for name in inputs])
        return values[y_name].copy(), {name: values[source].copy() for name, source in after}

    return step
