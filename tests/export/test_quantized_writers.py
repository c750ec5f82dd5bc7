"""int8 layers in the written files: that they compute the program bit for bit, and what the formats must hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgeseq.errors import Unsupported
from edgeseq.export.fusion import onnx_integer_matmuls
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.program import Builder, Program, Value, interpret

WRITERS = {"onnx": write_onnx, "tflite": write_tflite}
Grid = tuple[float, int]
PackedStep = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
sizes = st.lists(st.integers(1, 70), min_size=2, max_size=4)
fast = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def float32(value: Any) -> float:
    return float(np.float32(value))


def power_of_two(value: Any) -> Any:
    """The nearest: with such scales many sums lie exactly on a half step."""
    return 2 ** np.round(np.log2(value))


def layer(
    b: Builder, q: str, x: Grid, rng: np.random.Generator, out: int, zero: int, ties: bool = False
) -> tuple[str, Grid]:
    """A linear map of random weights whose results fill the int8 range: its int8 result and how that is read."""
    scale_of = power_of_two if ties else np.float32
    count, number = b.values[q].shape[-1], len(b.nodes)
    weight = rng.integers(-127, 128, (out, count)).astype(np.int8)
    weight_scale = scale_of(np.exp(rng.uniform(-7, -4, out))).astype(np.float32)
    bias = rng.integers(-3000, 3000, out).astype(np.int32)
    y = (float32(scale_of(x[0] * weight_scale.mean() * 74 * np.sqrt(count) * rng.uniform(0.5, 2))), zero)
    named = {f"w{number}": weight, f"b{number}": bias, f"s{number}": weight_scale}
    stored = [b.constant(name, array) for name, array in named.items()]
    return b.add("qlinear", q, *stored, x_scale=x[0], x_zero=x[1], y_scale=y[0], y_zero=y[1]), y


def chain(seed: int, widths: list[int], rows: int = 0, relu: bool = True, ties: bool = False) -> Program:
    """quantize, linear maps, dequantize; of ``rows`` rows at once if any, with many ``ties`` if wanted."""
    rng = np.random.default_rng(seed)
    shape = (1, rows, widths[0]) if rows else (1, widths[0])
    b = Builder(Value("x", shape), [Value("m", (1, 4))])
    scale = rng.uniform(0.005, 0.05)
    grid = (float32(power_of_two(scale) if ties else scale), int(rng.integers(-60, 60)))
    q = b.add("quantize", "x", scale=grid[0], zero=grid[1])
    for out in widths[1:]:
        q, grid = layer(b, q, grid, rng, out, -128 if relu else int(rng.integers(-40, 40)), ties)
    y = b.add("dequantize", q, scale=grid[0], zero=grid[1])
    y = b.add("reshape", y, shape=[1, b.values[y].size]) if rows else y
    return b.finish(y, {"m": b.add("round", "m")})


def two_readers() -> Program:
    """Two linear maps with the same weights that read values of different scales."""
    b = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    weight = b.constant("w", np.arange(-6, 6, dtype=np.int8).reshape(4, 3))
    bias, scale = b.constant("b", np.int32([1, 2, 3, 4])), b.constant("s", np.float32([1, 0.5, 2, 1]))
    answers = []
    for name, x_scale in (("x", 0.25), ("m", 0.5)):
        q = b.add("quantize", name, scale=x_scale, zero=3)
        y = b.add("qlinear", q, weight, bias, scale, x_scale=x_scale, x_zero=3, y_scale=0.5, y_zero=0)
        answers.append(b.add("dequantize", y, scale=0.5, zero=0))
    return b.finish(b.add("add", *answers), {"m": b.add("add", "m", "x")})


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=["onnxruntime", "litert"])
def exact_engine(request: pytest.FixtureRequest) -> str:
    """Each way to run a file whose integer arithmetic is the program's own."""
    return request.param


def answers(program: Program, step: PackedStep, seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """What a file's step and the program say of random frames (T, 1, K)."""
    rng, reference = np.random.default_rng(seed), interpret(program)
    memory = (rng.integers(-9, 9, (1, 4)) / 2).astype(np.float32)
    x = rng.normal(0, 1.5, (frames, *program.x.shape)).astype(np.float32)
    found = np.stack([step(each, memory)[0] for each in x])
    return found, np.stack([reference(each, {"m": memory})[0] for each in x])


@fast
@given(
    seed=st.integers(0, 2**16),
    widths=sizes,
    rows=st.sampled_from([0, 0, 1, 3]),
    relu=st.booleans(),
    ties=st.booleans(),
)
def test_chained_int8_layers_are_equal_bit_for_bit(exact_engine, open_written, seed, widths, rows, relu, ties):
    program = chain(seed, widths, rows, relu, ties)
    found, expected = answers(program, open_written(program, exact_engine), seed, 20)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("rows", [0, 3])
def test_the_builtin_kernels_are_a_step_off_in_a_few_values_of_each_layer(layers, rows, open_written):
    program = chain(layers, [48] * (layers + 1), rows, relu=False)
    found, expected = answers(program, open_written(program, "litert-builtin"), layers, 100)
    last = next(node for node in reversed(program.nodes) if node.operator == "qlinear")
    steps = np.abs(np.rint((found - expected) / np.float32(last.attributes["y_scale"])))
    assert steps.max() <= layers
    assert (steps > 0).mean() <= 0.005 * layers


def test_values_on_and_beside_half_steps_are_rounded_as_in_numpy(exact_engine, open_written):
    scale = float32(0.0237)
    b = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    wide = b.add("dequantize", b.add("quantize", "x", scale=scale, zero=-7), scale=scale, zero=-7)
    program = b.finish(wide, {"m": "m"})
    step, reference = open_written(program, exact_engine), interpret(program)
    middle = ((np.arange(-110, 110) + 0.5) * np.float64(scale)).astype(np.float32)
    below, above = np.nextafter(middle, np.float32(-9)), np.nextafter(middle, np.float32(9))
    divided = np.rint(middle / np.float32(scale))
    assert (divided != np.rint(middle * (np.float32(1) / np.float32(scale)))).any()  # or this would prove nothing
    zero = np.zeros((1, 3), np.float32)
    for x in np.stack([below, middle, above], 1)[:, None]:
        np.testing.assert_array_equal(step(x, zero)[0], reference(x, {"m": zero})[0])


def test_sums_beside_half_steps_tell_in_which_order_scales_are_multiplied(exact_engine, open_written):
    rng, rows = np.random.default_rng(5), 400
    x_scale, y_scale = np.float32(0.0123), np.float32(0.0456)
    weight_scale = rng.uniform(1e-5, 3e-5, rows).astype(np.float32)
    multiplier = x_scale * weight_scale / y_scale
    bias = np.rint((rng.integers(20, 90, rows) + 0.5) / multiplier).astype(np.int32)  # weights of 0 leave it as the sum
    orders = (multiplier, weight_scale * (x_scale / y_scale), weight_scale / y_scale * x_scale)
    said = [np.rint(bias.astype(np.float32) * each) for each in orders]
    assert all((said[0] != other).any() for other in said[1:])  # or this would prove nothing
    b = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    stored = {"w": np.zeros((rows, 3), np.int8), "b": bias, "s": weight_scale}
    names = [b.constant(name, array) for name, array in stored.items()]
    x, y = float(x_scale), float(y_scale)
    q = b.add("quantize", "x", scale=x, zero=0)
    q = b.add("qlinear", q, *names, x_scale=x, x_zero=0, y_scale=y, y_zero=0)
    program = b.finish(b.add("dequantize", q, scale=y, zero=0), {"m": "m"})
    zero = np.zeros((1, 3), np.float32)
    expected, _ = interpret(program)(zero, {"m": zero})
    np.testing.assert_array_equal(expected[0], said[0] * y_scale)
    np.testing.assert_array_equal(open_written(program, exact_engine)(zero, zero)[0], expected)


def test_two_maps_of_one_weight_and_different_scales_compute_what_the_program_says(exact_engine, open_written):
    program = two_readers()
    step, reference = open_written(program, exact_engine), interpret(program)
    x, memory = np.float32([[1.5, -2, 0.75]]), np.float32([[0.5, 4, -3]])
    np.testing.assert_array_equal(step(x, memory)[0], reference(x, {"m": memory})[0])


@pytest.mark.parametrize("kind", WRITERS)
def test_equal_int8_programs_are_written_as_equal_bytes(kind, tmp_path):
    program = chain(1, [6, 5, 4])
    program.write(tmp_path)
    for name, each in {"a": program, "b": chain(1, [6, 5, 4]), "c": Program.read(tmp_path)}.items():
        WRITERS[kind](each, tmp_path / name)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_file_holds_int8_weights_once_and_at_one_byte(kind, tmp_path):
    program = chain(2, [64, 200, 64])
    WRITERS[kind](program, tmp_path / "file")
    weights = sum(array.nbytes for array in program.constants.values() if array.dtype == np.int8)
    assert weights < (tmp_path / "file").stat().st_size < 1.5 * weights


# -- ONNX -----------------------------------------------------------------------------------------------------------


def written_onnx(program: Program, folder: Path) -> Any:
    write_onnx(program, folder / "model.onnx")
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    return model.graph


def test_onnx_activations_are_uint8_and_weights_int8_per_row(tmp_path):
    graph = written_onnx(two_readers(), tmp_path)
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    zeros = [stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert [(zero.dtype, int(zero)) for zero in zeros] == 2 * [(np.uint8, 131), (np.uint8, 128)]
    weights = [node for node in graph.node if node.input[0] == "model.w"]
    assert [node.op_type for node in weights] == ["DequantizeLinear"] * 2
    for node in weights:
        assert (onnx.helper.get_attribute_value(node.attribute[0]), node.input[1]) == (0, "model.s")
        np.testing.assert_array_equal(stored[node.input[2]], np.zeros(4, np.int8))
    scales = [stored[node.input[1]] for node in graph.node if node.input[0] == "model.b"]
    np.testing.assert_array_equal(scales, [0.25 * stored["model.s"], 0.5 * stored["model.s"]])


def test_every_onnx_initializer_is_read_by_a_node(tmp_path):
    graph = written_onnx(two_readers(), tmp_path)
    assert {each.name for each in graph.initializer} <= {name for node in graph.node for name in node.input}


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("relu", [False, True])
def test_onnxruntime_computes_every_int8_layer_on_integers(rows, relu, tmp_path):
    write_onnx(chain(3, [6, 5, 7, 4], rows, relu), tmp_path / "model.onnx")
    assert onnx_integer_matmuls(tmp_path / "model.onnx") == (3, 0)


def test_float_products_are_counted_apart(program, tmp_path):
    write_onnx(program, tmp_path / "model.onnx")
    integer, floats = onnx_integer_matmuls(tmp_path / "model.onnx")
    assert integer == 0
    assert floats > 0
    b = Builder(Value("x", (1, 6)), [Value("m", (1, 6))])
    q, grid = layer(b, b.add("quantize", "x", scale=0.5, zero=0), (0.5, 0), np.random.default_rng(0), 6, 0)
    product = b.add("linear", "m", b.constant("float", np.eye(6, dtype=np.float32) + 1))
    mixed = b.add("add", b.add("dequantize", q, scale=grid[0], zero=grid[1]), product)
    write_onnx(b.finish(mixed, {"m": mixed}), tmp_path / "mixed.onnx")
    assert onnx_integer_matmuls(tmp_path / "mixed.onnx") == (1, 1)


def test_counting_a_file_that_is_no_onnx_is_refused_by_name(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing like it" * 9)
    with pytest.raises(Unsupported, match=r"model\.onnx cannot be run by onnxruntime \d"):
        onnx_integer_matmuls(tmp_path / "model.onnx")


# -- TFLite ---------------------------------------------------------------------------------------------------------


def written_tflite(program: Program, folder: Path) -> Any:
    write_tflite(program, folder / "model.tflite")
    return schema.ModelT.InitFromPackedBuf((folder / "model.tflite").read_bytes(), 0)


def quantization(tensor: Any) -> tuple[list[float], list[int], int] | None:
    found = tensor.quantization
    if found is None or found.scale is None or len(found.scale) == 0:
        return None
    return list(found.scale), list(found.zeroPoint), found.quantizedDimension


def test_tflite_tensors_carry_as_many_zero_points_as_scales(tmp_path):
    (graph,) = written_tflite(two_readers(), tmp_path).subgraphs
    products = [entry for entry in graph.operators if len(entry.inputs) == 3]
    assert len(products) == 2
    for entry, x_scale in zip(products, (0.25, 0.5), strict=True):
        x, weight, bias, y = (quantization(graph.tensors[i]) for i in (*entry.inputs, *entry.outputs))
        assert x == ([x_scale], [3], 0)
        assert weight == ([1, 0.5, 2, 1], [0] * 4, 0)
        assert bias == ([x_scale * each for each in (1, 0.5, 2, 1)], [0] * 4, 0)
        assert y == ([0.5], [0], 0)


def test_tflite_keeps_one_buffer_for_uses_of_different_scales_and_none_for_what_is_unused(tmp_path):
    model = written_tflite(two_readers(), tmp_path)
    (graph,) = model.subgraphs
    products = [entry for entry in graph.operators if len(entry.inputs) == 3]
    weights, biases = ([graph.tensors[entry.inputs[i]] for entry in products] for i in (1, 2))
    assert weights[0] is weights[1]  # their scale is the same
    assert biases[0] is not biases[1]
    assert biases[0].buffer == biases[1].buffer
    used = {int(i) for entry in graph.operators for i in (*entry.inputs, *entry.outputs)}
    assert used | {int(i) for i in graph.inputs} == set(range(len(graph.tensors)))
    assert {tensor.buffer for tensor in graph.tensors} == set(range(len(model.buffers)))
    assert b"s" not in [tensor.name for tensor in graph.tensors]  # the weight's scale lives in its tensor


def test_tflite_inputs_and_outputs_are_plain_float32(tmp_path):
    (graph,) = written_tflite(chain(4, [6, 5, 4]), tmp_path).subgraphs
    for index in (*graph.inputs, *graph.outputs):
        assert graph.tensors[index].type == schema.TensorType.FLOAT32
        assert quantization(graph.tensors[index]) is None


@pytest.mark.parametrize(("rows", "version"), [(0, 4), (3, 5)])
def test_tflite_operator_versions_are_the_lowest_that_have_int8(rows, version, tmp_path):
    model = written_tflite(chain(5, [6, 5, 4], rows), tmp_path)
    versions = {code.builtinCode: code.version for code in model.operatorCodes}
    builtin = schema.BuiltinOperator
    assert versions[builtin.QUANTIZE] == 1
    assert versions[builtin.DEQUANTIZE] == 2
    assert versions[builtin.FULLY_CONNECTED] == version
