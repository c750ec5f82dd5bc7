"""The written files: equal bytes from equal programs, and what the formats ask for and do not always refuse."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeseq.errors import Unsupported
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.pack import layout
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.manifest import StateEntry
from edgeseq.models.store import state_entries
from edgeseq.program import Builder, Program, Value, interpret

WRITERS = {"onnx": write_onnx, "tflite": write_tflite}


@pytest.fixture
def onnx_model(program, tmp_path):
    write_onnx(program, tmp_path / "model.onnx", name="watch")
    return onnx.load(tmp_path / "model.onnx")


@pytest.fixture
def tflite_file(program, tmp_path) -> Path:
    write_tflite(program, tmp_path / "model.tflite", name="watch")
    return tmp_path / "model.tflite"


@pytest.fixture
def tflite_model(tflite_file):
    return schema.ModelT.InitFromPackedBuf(tflite_file.read_bytes(), 0)


@pytest.mark.parametrize("kind", WRITERS)
def test_equal_programs_are_written_as_equal_bytes(kind, model, program, tmp_path):
    program.write(tmp_path)
    for name, each in {"a": program, "b": capture(lower(model)), "c": Program.read(tmp_path)}.items():
        WRITERS[kind](each, tmp_path / name)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_program_without_state_is_refused_and_writes_nothing(kind, tmp_path):
    builder = Builder(Value("x", (1, 3)), [])
    with pytest.raises(Unsupported):
        WRITERS[kind](builder.finish(builder.add("tanh", "x"), {}), tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_the_file_holds_the_weights_once(kind, program, tmp_path):
    WRITERS[kind](program, tmp_path / "file")
    constants = sum(array.nbytes for array in program.constants.values())
    entries = len(program.nodes) + len(program.constants) + len(program.states)
    assert constants < (tmp_path / "file").stat().st_size < constants + 2000 + 150 * entries


def test_a_written_file_streams_as_the_program_does(program, file_engine, open_written, frames):
    step, reference = open_written(program, file_engine), interpret(program)
    state = np.zeros((1, program.state_size), np.float32)
    states = {s.name: np.zeros(s.before.shape, np.float32) for s in program.states}
    for x in frames(200, program)[:, None]:
        y, state = step(x, state)
        expected, states = reference(x, states)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    packed = np.concatenate([array.ravel() for array in states.values()])
    np.testing.assert_allclose(state[0], packed, rtol=1e-5, atol=1e-5)


# -- ONNX -----------------------------------------------------------------------------------------------------------


def test_onnx_is_opset_17_and_passes_the_checker(onnx_model):
    onnx.checker.check_model(onnx_model, full_check=True)
    assert [(each.domain, each.version) for each in onnx_model.opset_import] == [("", 17)]
    assert onnx_model.graph.name == "watch"


def test_onnx_inputs_and_outputs_are_x_and_state(onnx_model, program):
    def described(tensors):
        return [(t.name, tuple(d.dim_value for d in t.type.tensor_type.shape.dim)) for t in tensors]

    size = program.state_size
    assert described(onnx_model.graph.input) == [("x", program.x.shape), ("state", (1, size))]
    assert described(onnx_model.graph.output) == [("y", (1, 4)), ("next_state", (1, size))]


def test_onnx_says_where_each_state_lies(onnx_model, program, model):
    props = {prop.key: prop.value for prop in onnx_model.metadata_props}
    table = msgspec.json.decode(props["edgeseq.states"], type=tuple[StateEntry, ...])
    assert table == layout(program) == state_entries(model)
    assert [entry["name"] for entry in json.loads(props["edgeseq.states"])] == list(model.initial_state(1))


def test_onnx_initializers_are_the_programs_constants(onnx_model, program):
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx_model.graph.initializer}
    for name, array in program.constants.items():
        np.testing.assert_array_equal(stored[f"model.{name}"], array)


# -- TFLite ---------------------------------------------------------------------------------------------------------


def test_tflite_buffer_0_is_empty_and_belongs_to_the_activations(tflite_model):
    (graph,) = tflite_model.subgraphs
    assert tflite_model.buffers[0].data is None or len(tflite_model.buffers[0].data) == 0
    written = {int(i) for operator in graph.operators for i in operator.outputs} | {int(i) for i in graph.inputs}
    for index, tensor in enumerate(graph.tensors):
        assert (tensor.buffer == 0) == (index in written), tensor.name
    assert all(len(buffer.data) > 0 for buffer in tflite_model.buffers[1:])


def test_tflite_data_starts_at_multiples_of_16(tflite_file):
    raw = tflite_file.read_bytes()
    model = schema.Model.GetRootAs(raw, 0)
    starts = []
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            field = buffer._tab.Offset(4)  # the data vector's place in the table of a Buffer
            starts.append(buffer._tab.Vector(field))
    assert len(starts) > 5
    assert [start % 16 for start in starts] == [0] * len(starts)


def test_tflite_has_one_signature_with_our_names(tflite_model, program):
    (graph,) = tflite_model.subgraphs
    (signature,) = tflite_model.signatureDefs
    assert signature.signatureKey == b"step"

    def described(maps):
        return {m.name.decode(): list(graph.tensors[m.tensorIndex].shape) for m in maps}

    assert described(signature.inputs) == {"x": list(program.x.shape), "state": [1, program.state_size]}
    assert described(signature.outputs) == {"y": [1, 4], "next_state": [1, program.state_size]}
    assert {graph.tensors[i].name for i in graph.outputs} == {b"y", b"next_state"}
    assert {t.type for t in graph.tensors} <= {schema.TensorType.FLOAT32, schema.TensorType.INT32}


def test_tflite_has_builtin_operators_only_and_old_readers_know_them(tflite_model):
    for code in tflite_model.operatorCodes:
        assert code.customCode is None
        assert code.builtinCode != schema.BuiltinOperator.CUSTOM
        assert code.deprecatedBuiltinCode == min(code.builtinCode, 127)
        assert code.version <= 5


def test_tflite_runs_in_one_piece_on_xnnpack_and_also_without_it(tflite_file):
    from ai_edge_litert import interpreter as runtime

    def kinds(resolver):
        interpreter = runtime.Interpreter(str(tflite_file), experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        return [operator["op_name"] for operator in interpreter._get_ops_details()], interpreter

    # A delegate's node comes after the operators that it took; what it did not take stays outside.
    names, interpreter = kinds(runtime.OpResolverType.AUTO)
    assert names.count("DELEGATE") == 1
    taken = next(op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE")
    details = interpreter.get_signature_runner("step").get_output_details()
    assert {int(d["index"]) for d in details.values()} <= {int(i) for i in taken["outputs"]}
    names, _ = kinds(runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    assert "DELEGATE" not in names
