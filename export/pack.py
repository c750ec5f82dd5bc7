"""One packed state tensor: the form in which files carry their states."""

from __future__ import annotations

from edgeseq.errors import Unsupported
from edgeseq.folder import STATE
from edgeseq.manifest import StateEntry, state_table
from edgeseq.program import Builder, Node, Program, Value


def layout(program: Program) -> tuple[StateEntry, ...]:
    """Where each state of the program lies in the packed tensor, in the program's order."""
    return state_table((state.name, state.before.shape, state.initial) for state in program.states)


def pack_states(program: Program) -> Program:
    """The same step with one state ``state (1, S)`` in, sliced into the named ones, and one out, concatenated.

    Every output of the result is made by a node of its own, as the formats need: ONNX cannot pass an input through, and
    neither can give one tensor two meanings.

    Raises:
        Unsupported: the program carries no state.
    """
    if not program.states:
        raise Unsupported("the model carries no state from step to step: there is nothing to stream")
    packed = Value(STATE, (1, program.state_size))
    builder = Builder(program.x, [packed])
    renamed = {program.x.name: program.x.name}
    renamed.update((name, builder.constant(name, array)) for name, array in program.constants.items())
    builder.origin = "state"
    for entry in layout(program):
        part = STATE
        if len(program.states) > 1:
            part = builder.add("slice", STATE, axis=1, start=entry.offset, stop=entry.offset + entry.size)
        renamed[entry.name] = builder.add("reshape", part, shape=list(entry.shape)) if len(entry.shape) != 2 else part
    for node in program.nodes:
        _copy(builder, node, renamed)
    builder.origin = "state"
    after = [renamed[state.after] for state in program.states]
    flat = [
        name
        if builder.values[name].shape == (1, state.before.size)
        else builder.add("reshape", name, shape=[1, state.before.size])
        for name, state in zip(after, program.states, strict=True)
    ]
    y = renamed[program.y]
    made = {value.name for node in builder.nodes for value in node.results}
    following = builder.add("concat", *flat, axis=1) if len(flat) > 1 else flat[0]
    if following not in made and len(flat) == 1:
        following = builder.add("reshape", following, shape=[1, program.state_size])
    if y not in made or y == following:
        y = builder.add("reshape", y, shape=list(builder.values[y].shape))
    return builder.finish(y, {STATE: following})


def _copy(builder: Builder, node: Node, renamed: dict[str, str]) -> None:
    builder.origin = node.origin
    inputs = [renamed[name] for name in node.inputs]
    found = builder.add_all(node.operator, *inputs, **node.attributes)
    renamed.update(zip((value.name for value in node.results), found, strict=True))
