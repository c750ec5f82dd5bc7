"""Integer arithmetic in a TFLite file, as the engine reads it on the device: what it counts and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeseq.devices.check import wide_states
from edgeseq.devices.engines import open_engine
from edgeseq.errors import GateFailed
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.program import Builder, Program, Value

MakeFolder = Callable[..., Path]
Change = Callable[[dict[str, Any]], object]
FLOAT_ENGINES = ("litert", "litert-builtin")


def integer_program(seed: int = 0) -> Program:
    """m' = m + x; y = V relu(W [x, m] + b) + c, two int8 layers, and a third that stays in float32."""
    rng = np.random.default_rng(seed)
    b = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])

    def layer(name: str, q: str, rows: int, **grids: Any) -> str:
        shape = (rows, b.values[q].shape[1])
        weight = b.constant(f"{name}.w", rng.integers(-127, 128, shape).astype(np.int8))
        bias = b.constant(f"{name}.b", rng.integers(-500, 500, rows).astype(np.int32))
        scale = b.constant(f"{name}.s", rng.uniform(0.001, 0.01, rows).astype(np.float32))
        return b.add("qlinear", q, weight, bias, scale, **grids)

    both = b.add("concat", "x", "m", axis=1)
    q = b.add("quantize", both, scale=0.03125, zero=5)
    q = layer("first", q, 8, x_scale=0.03125, x_zero=5, y_scale=0.0625, y_zero=-128)
    q = layer("second", q, 4, x_scale=0.0625, x_zero=-128, y_scale=0.125, y_zero=0)
    wide = b.add("linear", "m", b.constant("third", rng.normal(size=(4, 3)).astype(np.float32)))
    y = b.add("add", b.add("dequantize", q, scale=0.125, zero=0), wide)
    return b.finish(y, {"m": b.add("mul", b.add("add", "m", "x"), b.constant("decay", np.float32([0.5])))})


@pytest.fixture
def integer_folder(make_folder: MakeFolder) -> Path:
    """A right folder with two int8 layers."""
    return make_folder(integer_program())


def changed(source: Path, out: Path, change: Change) -> Path:
    """A copy of a folder whose TFLite file has tensors, by name, changed, sealed again."""
    model = schema.ModelT.InitFromPackedBuf((source / "model.tflite").read_bytes(), 0)
    change({tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors})
    flat = flatbuffers.Builder()
    flat.Finish(model.Pack(flat), b"TFL3")
    with new_folder(out) as staging:
        for file in source.iterdir():
            (staging / file.name).write_bytes(file.read_bytes())
        (staging / "model.tflite").write_bytes(bytes(flat.Output()))
        seal(staging, open_folder(source).manifest)
    return out


@pytest.mark.parametrize("engine", FLOAT_ENGINES)
def test_integer_and_float_products_are_counted_apart(integer_folder: Path, engine: str) -> None:
    facts = open_engine(integer_folder, engine).facts
    assert (facts["integer_matmuls"], facts["float_matmuls"]) == (2, 1)


def test_a_float_model_has_no_integer_products(folder: Path) -> None:
    facts = open_engine(folder, "litert").facts
    assert facts["integer_matmuls"] == 0
    assert int(facts["float_matmuls"]) > 0


def test_an_int8_model_runs_in_one_piece_on_xnnpack(integer_folder: Path) -> None:
    facts = open_engine(integer_folder, "litert").facts
    assert (facts["xnnpack_partitions"], facts["ops_outside_xnnpack"]) == (1, 0)


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_engines_stream_an_int8_model_as_numpy_does(integer_folder: Path, engine: str) -> None:
    file, reference = open_engine(integer_folder, engine), open_engine(integer_folder, "numpy")
    for x in np.random.default_rng(7).normal(size=(300, 3)).astype(np.float32):
        np.testing.assert_allclose(file.step(x), reference.step(x), rtol=0, atol=1e-5)  # a step would be 0.125
        file.set_state(reference.get_state())


@pytest.mark.parametrize("engine", FLOAT_ENGINES)
def test_a_bias_scale_that_the_kernels_would_ignore_fails_the_gate(
    integer_folder: Path, tmp_path: Path, engine: str
) -> None:
    def double(tensors: dict[str, Any]) -> None:
        scale = tensors["second.b"].quantization.scale
        tensors["second.b"].quantization.scale = [scale[0], 2 * scale[1], *scale[2:]]

    wrong = changed(integer_folder, tmp_path / "wrong", double)
    with pytest.raises(
        GateFailed, match=r"model\.tflite: bias 'second\.b' has scale .* in row 1, input scale x weight"
    ):
        open_engine(wrong, engine)


def test_a_bias_without_scales_fails_the_gate(integer_folder: Path, tmp_path: Path) -> None:
    def strip(tensors: dict[str, Any]) -> None:
        tensors["first.b"].quantization = None

    wrong = changed(integer_folder, tmp_path / "wrong", strip)
    with pytest.raises(GateFailed, match=r"bias 'first\.b' has 0 scales, its weights 8"):
        open_engine(wrong, "litert")


def test_weights_with_a_zero_point_fail_the_gate(integer_folder: Path, tmp_path: Path) -> None:
    def shift(tensors: dict[str, Any]) -> None:
        tensors["first.w"].quantization.zeroPoint = [0, 0, 3, 0, 0, 0, 0, 0]

    wrong = changed(integer_folder, tmp_path / "wrong", shift)
    with pytest.raises(GateFailed, match=r"weights 'first\.w' have zero point 3, 0 is needed"):
        open_engine(wrong, "litert-builtin")  # XNNPACK refuses to load it


@pytest.mark.parametrize("name", ["x", "state", "y", "next_state"])
def test_a_quantized_input_or_output_fails_the_gate(integer_folder: Path, tmp_path: Path, name: str) -> None:
    def quantize(tensors: dict[str, Any]) -> None:
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint = [0.5], [0]
        tensors[name].quantization = found

    wrong = changed(integer_folder, tmp_path / "wrong", quantize)
    with pytest.raises(GateFailed, match=rf"tensor '{name}' is quantized \(scale 0.5\), float32 is needed"):
        open_engine(wrong, "litert")


def test_a_file_that_is_only_packed_anew_is_taken(integer_folder: Path, tmp_path: Path) -> None:
    same = changed(integer_folder, tmp_path / "same", lambda tensors: None)
    assert open_engine(same, "litert").facts["integer_matmuls"] == 2


def keeping(recurrent: bool) -> Program:
    """A state that is what an int8 layer answers: to the frame alone, or to its own value too."""
    b = Builder(Value("x", (1, 3)), [Value("h", (1, 2, 3))])
    before = b.add("slice", "h", axis=1, start=1, stop=2)
    last = b.add("reshape", before, shape=[1, 3])
    read = b.add("add", "x", last) if recurrent else "x"
    q = b.add("quantize", read, scale=0.03125, zero=5)
    weight = b.constant("w", np.eye(3, dtype=np.int8) * 100)
    bias, scale = b.constant("b", np.zeros(3, np.int32)), b.constant("s", np.full(3, 0.01, np.float32))
    q = b.add("qlinear", q, weight, bias, scale, x_scale=0.03125, x_zero=5, y_scale=0.0625, y_zero=0)
    answer = b.add("dequantize", q, scale=0.0625, zero=0)
    after = b.add("concat", before, b.add("reshape", answer, shape=[1, 1, 3]), axis=1)
    return b.finish(last, {"h": after})


def test_a_state_that_an_int8_layer_makes_of_itself_is_not_wide_and_one_that_only_waits_is():
    (rounded,), (waiting,) = (wide_states(keeping(recurrent), "float32") for recurrent in (True, False))
    assert not rounded.passed
    assert rounded.note == "rounded: h"
    assert waiting.passed
    assert wide_states(keeping(True), "int8") == []


def test_a_state_that_is_quantized_and_read_back_is_not_wide():
    b = Builder(Value("x", (1, 3)), [Value("h", (1, 3))])
    q = b.add("quantize", b.add("add", "x", "h"), scale=0.03125, zero=5)
    (link,) = wide_states(b.finish("x", {"h": b.add("dequantize", q, scale=0.03125, zero=5)}), "float32")
    assert not link.passed
