"""The step program as a TFLite file: builtin operators only, one signature ``step``: ``x, state -> y, next_state``.

Written with the schema's own classes. What the format asks for, and does not always refuse when it is missing:
buffer 0 is the empty one and belongs to every activation; data vectors start at multiples of 16 bytes; operator
versions are the lowest that mean what we mean, so that older runtimes read the file too; as many zero points as scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.errors import MissingDependency
from edgeseq.export.pack import pack_states
from edgeseq.folder import NEXT_STATE, SIGNATURE, Y
from edgeseq.program import Builder, Program, operator
from edgeseq.program.graph import Array, Quantization, Shape, Value

_FILE_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
READ_ONLY = ("reshape", "slice", "concat", "transpose", "linear", "qlinear", "quantize", "dequantize", "sum", "mean")
_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}  # schema: TensorType


class _Graph:
    """Collects tensors and operators in the schema's object form; handles are tensor indices."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self._code_index: dict[tuple[int, int], int] = {}
        self.arrays: dict[int, Array] = {}
        self._shared: dict[tuple[str, Shape, bytes], int] = {}
        self._quantized: dict[tuple[int, bytes], int] = {}

    def tensor(self, name: str, shape: Shape, dtype: str, buffer: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), _TYPES[dtype], buffer
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, array: Array, name: str = "") -> int:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._shared:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(key[2], np.uint8)
            self.buffers.append(buffer)
            label = name or f"const_{len(self._shared)}"
            self._shared[key] = self.tensor(label, array.shape, str(array.dtype), len(self.buffers) - 1)
            self.arrays[self._shared[key]] = array
        return self._shared[key]

    def quantized(self, handle: int, scales: Array) -> int:
        key = (handle, scales.tobytes())
        if key not in self._quantized:  # with other scales: another tensor on the same buffer
            held, array = self.tensors[handle], self.arrays[handle]
            self._quantized[key] = self.tensor(held.name, array.shape, str(array.dtype), held.buffer)
            self._set_quantization(self._quantized[key], scales, np.zeros(len(scales), np.int64))
        return self._quantized[key]

    def _set_quantization(self, handle: int, scales: Array, zeros: Array) -> None:
        found = self.schema.QuantizationParametersT()
        found.scale, found.zeroPoint, found.quantizedDimension = scales, zeros, 0
        self.tensors[handle].quantization = found

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Shape,
        *,
        dtype: str = "float32",
        quantization: Quantization | None = None,
        options: str = "",
        version: int = 1,
        **fields: Any,
    ) -> int:
        entry = self.schema.OperatorT()
        entry.opcodeIndex = self._code(getattr(self.schema.BuiltinOperator, kind), version)
        output = self.tensor(f"{kind.lower()}_{len(self.operators)}", shape, dtype)
        entry.inputs, entry.outputs = list(inputs), [output]
        if quantization is not None:
            self._set_quantization(
                output, np.array([quantization.scale], np.float32), np.array([quantization.zero], np.int64)
            )
        if options:
            entry.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            entry.builtinOptions = getattr(self.schema, f"{options}T")()
            for field, value in fields.items():
                if not hasattr(entry.builtinOptions, field):
                    raise AttributeError(f"{options} has no field {field}")
                setattr(entry.builtinOptions, field, value)
        self.operators.append(entry)
        return output

    def shape(self, handle: int) -> Shape:
        return tuple(self.tensors[handle].shape)

    def array(self, handle: int) -> Array:
        return self.arrays[handle]

    def drop_unused(self, public: Iterable[int]) -> dict[int, int]:
        """Drop tensors and buffers that no operator and no ``public`` name uses; returns new indices by old ones.

        An operator may have made another constant of one of the program's.
        """
        used = {*public, *(i for entry in self.operators for i in (*entry.inputs, *entry.outputs))}
        index = {old: new for new, old in enumerate(sorted(used))}
        buffers = sorted({0, *(self.tensors[old].buffer for old in used)})
        self.tensors = [self.tensors[old] for old in index]
        self.buffers = [self.buffers[old] for old in buffers]
        for tensor in self.tensors:
            tensor.buffer = buffers.index(tensor.buffer)
        for entry in self.operators:
            entry.inputs, entry.outputs = ([index[i] for i in each] for each in (entry.inputs, entry.outputs))
        return index

    def _code(self, builtin: int, version: int) -> int:
        if (builtin, version) not in self._code_index:
            code = self.schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)  # what readers from before 2020 look at
            self.codes.append(code)
            self._code_index[builtin, version] = len(self.codes) - 1
        return self._code_index[builtin, version]


def write_tflite(program: Program, path: Path, *, name: str = "edgeseq") -> None:
    """Write ``program`` (with its states by name) to ``path``; equal programs give equal bytes.

    Raises:
        MissingDependency: ai-edge-litert or flatbuffers is not installed.
        Unsupported: the program has no state.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise MissingDependency("ai-edge-litert with flatbuffers", "train", "writing TFLite") from None
    packed = _unshared(pack_states(program))
    state = packed.states[0]
    graph = _Graph(schema)

    def declare(value: Value) -> int:
        return graph.tensor(value.name, value.shape, value.dtype)

    handles = {packed.x.name: declare(packed.x), state.name: declare(state.before)}
    inputs = dict(handles)
    handles.update((key, graph.constant(array, key)) for key, array in packed.constants.items())
    for node in packed.nodes:
        inputs_of = [handles[n] for n in node.inputs]
        found = operator(node.operator).tflite(graph, inputs_of, node.attributes, node.output.shape)
        made = [found] if isinstance(found, int) else found
        handles.update(zip((value.name for value in node.results), made, strict=True))
    outputs = {Y: handles[packed.y], NEXT_STATE: handles[state.after]}
    for public, index in outputs.items():
        graph.tensors[index].name = public
    index_of = graph.drop_unused((*inputs.values(), *outputs.values()))
    inputs, outputs = ({key: index_of[old] for key, old in each.items()} for each in (inputs, outputs))
    path.write_bytes(_serialize(schema, graph, inputs, outputs, name))


def _unshared(program: Program) -> Program:
    """The same program, with a copy where LiteRT's builtin kernels would write over a value that is still needed.

    There a reshape's result lies in its input's memory, and an elementwise operator writes its result over its input's
    if nothing else reads that one, by name: a value that is read under its other name afterwards is spoilt.
    """
    last_read, same = _last_reads(program)
    builder = Builder(program.x, [state.before for state in program.states])
    renamed = {value: value for value in builder.values}
    renamed.update((name, builder.constant(name, array)) for name, array in program.constants.items())
    for position, node in enumerate(program.nodes):
        builder.origin = node.origin
        inputs = []
        for name in node.inputs:
            given = renamed[name]
            if node.operator not in READ_ONLY and same.get(name, name) != name and last_read[same[name]] > position:
                size = builder.values[given].shape[-1]
                given = builder.add("slice", given, axis=len(builder.values[given].shape) - 1, start=0, stop=size)
            inputs.append(given)
        made = builder.add_all(node.operator, *inputs, **node.attributes)
        renamed.update((value.name, name) for value, name in zip(node.results, made, strict=True))
    return builder.finish(renamed[program.y], {state.name: renamed[state.after] for state in program.states})


def _last_reads(program: Program) -> tuple[dict[str, int], dict[str, str]]:
    """The last node that reads each memory, by the value that it was made for; and that value, of reshaped ones."""
    same: dict[str, str] = {}
    last: dict[str, int] = {}
    for position, node in enumerate(program.nodes):
        for name in node.inputs:
            last[same.get(name, name)] = position
        if node.operator == "reshape":
            same[node.output.name] = same.get(node.inputs[0], node.inputs[0])
    for name in (program.y, *(state.after for state in program.states)):
        last[same.get(name, name)] = len(program.nodes)
    return last, same


def _serialize(schema: Any, graph: _Graph, inputs: dict[str, int], outputs: dict[str, int], name: str) -> bytes:
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors, subgraph.operators = "main", graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs = list(inputs.values()), list(outputs.values())
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [_tensor_map(schema, *item) for item in inputs.items()]
    signature.outputs = [_tensor_map(schema, *item) for item in outputs.items()]
    model = schema.ModelT()
    model.version, model.description = 3, name
    model.operatorCodes, model.subgraphs, model.buffers = graph.codes, [subgraph], graph.buffers
    model.signatureDefs = [signature]
    builder = _aligned_builder()
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())


def _aligned_builder() -> Any:
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        """Starts vectors of bytes, which are the stored tensors, at multiples of 16; the generated code asks for 1."""

        def StartVector(self, elem_size: int, count: int, alignment: int) -> Any:
            return super().StartVector(elem_size, count, _ALIGNMENT if elem_size == 1 else alignment)

    return AlignedBuilder(1024)


def _tensor_map(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
