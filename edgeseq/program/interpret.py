"""The step program in numpy: the reference that every file is compared with, and the engine of last resort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from edgeseq.program.graph import Array, Node, Program
from edgeseq.program.operators import operator

Step = Callable[[Array, Mapping[str, Array]], tuple[Array, dict[str, Array]]]
Watch = Callable[[Node, Sequence[Array]], None]


def interpret(program: Program, watch: Watch | None = None) -> Step:
    """A function ``(x (1, C), states) -> (y (1, K), next states)`` that runs the program node by node.

    It keeps nothing between calls, and the arrays it returns are never those it was given. ``watch`` is shown each
    node with its inputs before it runs.
    """
    run, y_name = evaluate(program, watch), program.y
    after = [(state.name, state.after) for state in program.states]

    def step(x: Array, states: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        values = run(x, states)
        return values[y_name].copy(), {name: values[source].copy() for name, source in after}

    return step


def evaluate(program: Program, watch: Watch | None = None) -> Callable[[Array, Mapping[str, Array]], dict[str, Array]]:
    """As :func:`interpret`, to every value of the step by name, and not copied: nothing may be written to them."""
    calls = [(_call(node, watch), node.inputs, _names(node)) for node in program.nodes]
    constants, x_name = dict(program.constants), program.x.name

    def step(x: Array, states: Mapping[str, Array]) -> dict[str, Array]:
        values = {**constants, **states, x_name: x}
        for run, inputs, output in calls:
            found = run(*[values[name] for name in inputs])
            if isinstance(output, str):
                values[output] = found
            else:
                values.update(zip(output, found, strict=True))
        return values

    return step


def _names(node: Node) -> str | list[str]:
    """The name of the node's result; of several, the names."""
    return [value.name for value in node.results] if node.others else node.output.name


def _call(node: Node, watch: Watch | None) -> Callable[..., Any]:
    run: Callable[..., Any] = partial(operator(node.operator).run, **node.attributes)
    if watch is None:
        return run
    see = watch

    def watched(*inputs: Any) -> Any:
        see(node, inputs)
        return run(*inputs)

    return watched
