"""The step program: one step of a streaming model, as data.

A program is a list of nodes in single-assignment form. Each node applies one operator of the closed set in
:mod:`edgeseq.program.operators` to values that already exist and gives a new value a name, or each of several (a
neuron's spikes and its membrane). Values are the input frame ``x``, the states as they were before the step,
constants, and the results of earlier nodes. One value is the answer ``y``; each state names the value that it becomes.

On disk a program is ``step.json`` (this structure) and ``step.safetensors`` (its constants). Everything behind
training reads the program and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import InputError

Shape = tuple[int, ...]
Array = NDArray[Any]
Attribute = bool | int | float | str | list[int]

FORMAT_VERSION = 1
JSON_NAME = "step.json"
CONSTANTS_NAME = "step.safetensors"


class Value(msgspec.Struct, frozen=True):
    """A named tensor: its shape (the leading 1 is the batch) and numpy dtype name."""

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class Quantization(NamedTuple):
    """How an int8 value q is read: it stands for ``(q - zero) * scale``."""

    scale: float
    zero: int


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """``output = operator(inputs, attributes)``; ``origin`` is the module of the model it was captured from.

    ``others`` are further results, of an operator that has several.
    """

    operator: str
    inputs: tuple[str, ...]
    output: Value
    attributes: dict[str, Attribute] = {}
    origin: str = ""
    others: tuple[Value, ...] = ()

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that the node computes, its ``output`` first."""
        return (self.output, *self.others)


class State(msgspec.Struct, frozen=True):
    """A state: ``before`` is its value at the start of a step, ``after`` the name of the value it becomes.

    All its elements are ``initial`` before the first step.
    """

    before: Value
    after: str
    initial: float = 0.0

    @property
    def name(self) -> str:
        """The state's dotted name."""
        return self.before.name


class _StepFile(msgspec.Struct):
    """The content of step.json."""

    version: int
    x: Value
    y: str
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    constants: tuple[Value, ...]


@dataclass(frozen=True)
class Program:
    """One step of a model: ``x (1, C)`` and the states in, ``y (1, K)`` and the next states out."""

    x: Value
    y: str
    states: tuple[State, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, Array] = field(repr=False)

    @property
    def values(self) -> dict[str, Value]:
        """Every value of the program by name."""
        found = {self.x.name: self.x}
        found.update((state.name, state.before) for state in self.states)
        found.update((name, Value(name, array.shape, str(array.dtype))) for name, array in self.constants.items())
        found.update((value.name, value) for node in self.nodes for value in node.results)
        return found

    @property
    def state_size(self) -> int:
        """Number of state elements of one stream."""
        return sum(state.before.size for state in self.states)

    def check(self) -> Program:
        """Refuse a program that is not in single-assignment form or whose shapes do not follow; return it otherwise.

        Raises:
            InputError: naming the node and what is wrong with it.
        """
        known = {self.x.name: self.x}
        known.update((state.name, state.before) for state in self.states)
        known.update((name, Value(name, array.shape, str(array.dtype))) for name, array in self.constants.items())
        if len(known) != 1 + len(self.states) + len(self.constants):
            raise InputError("step program: an input, a state and a constant share a name")
        for value in (self.x, *(state.before for state in self.states)):
            if value.dtype != "float32":
                raise InputError(f"step program: {value.name!r} is {value.dtype}; a frame and states are float32")
        made: dict[str, Quantization | None] = {}
        for node in self.nodes:
            where = f"step program: node {node.output.name!r} ({node.operator})"
            if len(known.keys() | {value.name for value in node.results}) != len(known) + len(node.results):
                raise InputError(f"{where} assigns a name that is already taken")
            missing = [name for name in node.inputs if name not in known]
            if missing:
                raise InputError(f"{where} reads {missing[0]!r}, which no earlier node gives")
            shape, dtype, quantization = _infer(
                node.operator, node.inputs, node.attributes, known, self.constants, made
            )
            _check_results(node, shape, dtype, where)
            known.update((value.name, value) for value in node.results)
            made[node.output.name] = quantization
        for state in self.states:
            after = known.get(state.after)
            if after is None or (after.shape, after.dtype) != (state.before.shape, state.before.dtype):
                raise InputError(
                    f"step program: state {state.name!r} does not become a value of its own shape and type"
                )
        if self.y not in known:
            raise InputError(f"step program: the answer {self.y!r} is not a value of it")
        if known[self.y].dtype != self.x.dtype:
            raise InputError(f"step program: the answer {self.y!r} is {known[self.y].dtype}, {self.x.dtype} is needed")
        return self

    def write(self, folder: Path) -> None:
        """Write step.json and step.safetensors into ``folder``; equal programs give equal bytes."""
        from safetensors.numpy import save

        constants = tuple(Value(name, array.shape, str(array.dtype)) for name, array in self.constants.items())
        document = _StepFile(FORMAT_VERSION, self.x, self.y, self.states, self.nodes, constants)
        (folder / JSON_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        arrays = {name: np.asarray(array, order="C") for name, array in self.constants.items()}
        (folder / CONSTANTS_NAME).write_bytes(save(arrays))  # save_file makes files that only their owner may read

    @classmethod
    def read(cls, folder: Path) -> Program:
        """Read and check the program of a model folder.

        Raises:
            InputError: a file is missing, damaged, or of a newer format.
        """
        from safetensors.numpy import load

        try:
            document = msgspec.json.decode((folder / JSON_NAME).read_bytes(), type=_StepFile)
            stored = load((folder / CONSTANTS_NAME).read_bytes())
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} holds no step program ({Path(error.filename).name} is missing): run edgeseq export"
            ) from None
        except Exception as error:  # safetensors raises its own type, which has no public base
            raise InputError(f"{folder}: the step program cannot be read: {error}") from error
        if document.version != FORMAT_VERSION:
            raise InputError(
                f"{folder / JSON_NAME} has format version {document.version}; this edgeseq reads {FORMAT_VERSION}"
            )
        constants = {}
        for value in document.constants:
            array = stored.get(value.name)
            if array is None or array.shape != value.shape or str(array.dtype) != value.dtype:
                raise InputError(f"{folder / CONSTANTS_NAME}: constant {value.name!r} is missing or of another shape")
            constants[value.name] = array
        return cls(document.x, document.y, document.states, document.nodes, constants).check()


def _check_results(node: Node, shape: Shape, dtype: str, where: str) -> None:
    from edgeseq.program.operators import operator

    further = operator(node.operator).others
    if len(node.others) != len(further):
        raise InputError(f"{where} has {len(node.others)} further results, the operator gives {len(further)}")
    for value in node.results:
        if (shape, dtype) != (value.shape, value.dtype):
            raise InputError(
                f"{where} says its result is {value.dtype}{list(value.shape)}, "
                f"but the operator gives {dtype}{list(shape)}"
            )


def _infer(
    name: str,
    inputs: Sequence[str],
    attributes: Mapping[str, Attribute],
    known: Mapping[str, Value],
    constants: Mapping[str, Array],
    made: Mapping[str, Quantization | None],
) -> tuple[Shape, str, Quantization | None]:
    """Shape, dtype and, for int8, quantization of ``name(inputs)``; ``made`` are the quantizations so far.

    Raises:
        InputError: they do not fit, a constant is needed, or an int8 value is read otherwise than it was made.
    """
    from edgeseq.program.operators import operator

    entry = operator(name)
    for position in entry.constant_inputs:
        if position < len(inputs) and inputs[position] not in constants:
            raise InputError(
                f"operator {name}: input {position}, {inputs[position]!r}, must be a constant of the model"
            )
    shape, dtype = entry.infer([known[value] for value in inputs], attributes)
    try:
        entry.check_constants([constants.get(value) for value in inputs], attributes)
    except ValueError as error:
        raise InputError(f"operator {name} does not fit its constants {', '.join(inputs[1:])}: {error}") from None
    reads = entry.reads(attributes)
    if reads is not None and made.get(inputs[0]) != reads:
        was = made.get(inputs[0])
        origin = f"was made with scale {was.scale}, zero point {was.zero}" if was else "has no scale"
        raise InputError(
            f"operator {name} reads {inputs[0]!r} with scale {reads.scale}, zero point {reads.zero}, but it {origin}"
        )
    return shape, dtype, entry.makes(attributes)


class Builder:
    """Grows a program node by node; shapes and types come from the operators."""

    def __init__(self, x: Value, states: list[Value]) -> None:
        self.x = x
        self.states = states
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.values: dict[str, Value] = {value.name: value for value in [x, *states]}
        self.origin = ""
        self._made: dict[str, Quantization | None] = {}

    def constant(self, name: str, array: Array) -> str:
        """Add a constant and return its name: an equal one of the same name is shared, another gets a number."""
        unique, number = name, 0
        while unique in self.values:
            held = self.constants.get(unique)
            if held is not None and held.dtype == array.dtype and np.array_equal(held, array):
                return unique
            number += 1
            unique = f"{name}.{number}"
        self.constants[unique] = array
        self.values[unique] = Value(unique, array.shape, str(array.dtype))
        return unique

    def add(self, name: str, *inputs: str, **attributes: Attribute) -> str:
        """Append ``operator(inputs)`` and return the name of its result, the first one.

        What :func:`edgeseq.program.quantized.existing` finds in the program already is not computed again.
        """
        return self.add_all(name, *inputs, **attributes)[0]

    def add_all(self, name: str, *inputs: str, **attributes: Attribute) -> list[str]:
        """Append ``operator(inputs)``, of one that has several results, and return their names."""
        from edgeseq.program.operators import operator
        from edgeseq.program.quantized import existing

        shape, dtype, quantization = _infer(name, inputs, attributes, self.values, self.constants, self._made)
        found = existing(name, inputs, attributes, self.nodes)
        if found is not None:
            return [found]
        number = len(self.nodes)
        while f"{name}_{number}" in self.values:  # a weight or a state of the model may be called so
            number += 1
        output = Value(f"{name}_{number}", shape, dtype)
        others = tuple(Value(self._free(f"{output.name}.{each}"), shape, dtype) for each in operator(name).others)
        node = Node(name, inputs, output, attributes, self.origin, others)
        self.nodes.append(node)
        self.values.update((value.name, value) for value in node.results)
        self._made[output.name] = quantization
        return [value.name for value in node.results]

    def _free(self, name: str) -> str:
        while name in self.values:
            name += "_"
        return name

    def finish(self, y: str, after: dict[str, str], initial: Mapping[str, float] | None = None) -> Program:
        """The program: only what the answer and the states need is kept. States start from ``initial``, or from 0."""
        needed = {y, *after.values()}
        kept = []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(value.name for value in node.results):
                kept.append(node)
                needed.update(node.inputs)
        constants = {name: array for name, array in self.constants.items() if name in needed}
        states = tuple(State(value, after[value.name], (initial or {}).get(value.name, 0.0)) for value in self.states)
        return Program(self.x, y, states, tuple(reversed(kept)), constants).check()
