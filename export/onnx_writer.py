"""The step program as an ONNX file: opset 17, ``x, state -> y, next_state``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeseq.errors import MissingDependency
from edgeseq.export.pack import layout, pack_states
from edgeseq.folder import NEXT_STATE, Y
from edgeseq.program import Program, operator
from edgeseq.program.graph import Array, Shape

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17; every ONNX Runtime since 1.12 reads it


class _Graph:
    """Collects ONNX nodes and initializers; handles are tensor names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.shapes: dict[str, Shape] = {}
        self.arrays: dict[str, Array] = {}
        self._shared: dict[tuple[str, Shape, bytes], str] = {}

    def constant(self, array: Array) -> str:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.initializer(f"const_{len(self._shared)}", array)
        return self._shared[key]

    def initializer(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self.shapes[name], self.arrays[name] = array.shape, array
        return name

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def shape(self, handle: str) -> Shape:
        return self.shapes[handle]

    def array(self, handle: str) -> Array:
        return self.arrays[handle]

    def rename(self, old: str, new: str) -> None:
        """Give the result of a node its public name, everywhere it is used."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name == old:
                        names[position] = new

    def used_initializers(self) -> list[Any]:
        """Those that a node reads: an operator may have made another constant of one of the program's."""
        read = {name for node in self.nodes for name in node.input}
        return [each for each in self.initializers if each.name in read]


def write_onnx(program: Program, path: Path, *, name: str = "edgeseq") -> None:
    """Write ``program`` (with its states by name) to ``path``; equal programs give equal bytes.

    The table of states is repeated in the file's metadata under ``edgeseq.states``, so that the file alone says what
    lies where in ``state``.

    Raises:
        MissingDependency: onnx is not installed.
        Unsupported: the program has no state.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise MissingDependency("onnx", "train", "writing ONNX") from None
    packed = pack_states(program)
    state = packed.states[0]
    graph = _Graph()
    # Names of their own: a model may call its weights y, or as a node is called.
    handles = {value: graph.initializer(f"model.{value}", array) for value, array in packed.constants.items()}
    for value in (packed.x, state.before):
        handles[value.name] = value.name
        graph.shapes[value.name] = value.shape
    for node in packed.nodes:
        found = operator(node.operator).onnx(graph, [handles[n] for n in node.inputs], node.attributes)
        for value, handle in zip(node.results, [found] if isinstance(found, str) else found, strict=True):
            handles[value.name] = handle
            graph.shapes[handle] = value.shape
    graph.rename(handles[packed.y], Y)
    graph.rename(handles[state.after], NEXT_STATE)

    def info(tensor: str, shape: Shape) -> Any:
        return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [info(packed.x.name, packed.x.shape), info(state.name, state.before.shape)],
            [info(Y, packed.values[packed.y].shape), info(NEXT_STATE, state.before.shape)],
            graph.used_initializers(),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgeseq",
    )
    helper.set_model_props(model, {"edgeseq.states": msgspec.json.encode(layout(program)).decode()})
    path.write_bytes(model.SerializeToString(deterministic=True))
