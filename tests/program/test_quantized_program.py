"""int8 values in a step program: what is refused, what is made once, and what survives the disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeseq.errors import InputError
from edgeseq.program import Builder, Program, Value, cost, interpret, operator, operators
from edgeseq.program.graph import Node, Quantization

X, Y = {"scale": 0.25, "zero": 3}, {"scale": 0.5, "zero": -128}
GRIDS = {"x_scale": 0.25, "x_zero": 3, "y_scale": 0.5, "y_zero": -128}
BINARY = ("add", "sub", "mul", "div", "minimum", "maximum", "greater", "greater_equal", "concat")


def builder() -> Builder:
    return Builder(Value("x", (1, 3)), [Value("m", (1, 3))])


def constants(b: Builder, /, **changed: np.ndarray) -> list[str]:
    weight = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    held = {"w": weight, "b": np.int32([1, 2, 3, 4]), "s": np.float32([1, 0.5, 2, 1])}
    return [b.constant(name, array) for name, array in {**held, **changed}.items()]


def qlinear_program() -> Program:
    b = builder()
    q = b.add("qlinear", b.add("quantize", "x", **X), *constants(b), **GRIDS)
    return b.finish(b.add("dequantize", q, **Y), {"m": "m"})


# -- meaning --------------------------------------------------------------------------------------------------------


@given(x=arrays(np.float32, (1, 16), elements=st.floats(-100, 100, width=32)), scale=st.floats(2**-6, 4, width=32))
def test_quantized_and_back_is_what_training_sees(x, scale):
    found = operator("dequantize").run(operator("quantize").run(x, scale=scale, zero=9), scale=scale, zero=9)
    np.testing.assert_array_equal(
        found, torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, 9, -128, 127).numpy()
    )


def test_half_steps_go_to_the_even_neighbour():
    halves = np.float32([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]])
    np.testing.assert_array_equal(operator("round").run(halves), [[-2, -2, 0, 0, 2, 2]])
    np.testing.assert_array_equal(operator("quantize").run(halves, scale=1.0, zero=1), [[-1, -1, 1, 1, 3, 3]])


@pytest.mark.parametrize("columns", [1, 58, 60000])
def test_sums_are_exact_for_any_number_of_inputs(columns):
    rng = np.random.default_rng(columns)
    x = rng.choice(np.int8([-128, 127]), (1, columns))
    weight = rng.choice(np.int8([-127, 127, 126]), (3, columns))
    bias = np.int32([-30000, 0, 12345])
    total = (x.astype(object) + 128) @ weight.T.astype(object) + bias  # Python's own integers
    scale = np.float32(2.0**-24)
    expected = [int(np.clip(np.rint(np.float32(int(each)) * scale), -128, 127)) for each in total[0]]
    grids = {"x_scale": 1.0, "x_zero": -128, "y_scale": 1.0, "y_zero": 0}
    found = operator("qlinear").run(x, weight, bias, np.full(3, scale), **grids)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found[0], expected)


def test_a_range_that_starts_at_0_is_a_relu():
    b = builder()
    q = b.add("quantize", "x", **X)
    signed = b.add("dequantize", b.add("qlinear", q, *constants(b), **{**GRIDS, "y_zero": 0}), scale=0.5, zero=0)
    rectified = b.add("dequantize", b.add("qlinear", q, *constants(b), **GRIDS), **Y)
    program = b.finish(b.add("concat", b.add("relu", signed), rectified, axis=1), {"m": "m"})
    y, _ = interpret(program)(np.float32([[1, -2, 0.5]]), {"m": np.zeros((1, 3), np.float32)})
    np.testing.assert_array_equal(y[0, :4], y[0, 4:])
    assert (y == 0).any()
    assert (y > 0).any()


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in operators() if n not in ("dequantize", "qlinear", "where")])
def test_an_operator_that_knows_no_int8_refuses_it(name):
    b = builder()
    q = b.add("quantize", "x", **X)
    vector = b.constant("v", np.ones(3, np.float32))
    more = {"linear": [b.constant("w", np.ones((2, 3), np.float32))], "layer_norm": [vector, vector]}
    more |= {"leaky": ["x", vector, vector], "synaptic": ["x", "x", vector, vector, vector]}
    given = {"axis": 1, "start": 0, "stop": 1, "axes": [1], "shape": [1, 3], "epsilon": 1e-5, **X}
    given |= {"reset": "subtract", "delay": True, "inclusive": False}
    if name == "transpose":
        given["axes"] = [0, 1]
    attributes = {key: given[key] for key in operator(name).accepts}
    inputs = [q, *more.get(name, ["x"] if name in BINARY else [])]
    with pytest.raises(InputError, match=f"operator {name} does not fit .* is int8, float32 is needed"):
        b.add(name, *inputs, **attributes)


def test_a_state_or_an_answer_that_is_int8_is_refused():
    b = builder()
    q = b.add("quantize", "x", **X)
    with pytest.raises(InputError, match="state 'm' does not become a value of its own shape and type"):
        b.finish("x", {"m": q})
    with pytest.raises(InputError, match=f"the answer '{q}' is int8"):
        b.finish(q, {"m": "m"})


@pytest.mark.parametrize("wrong", [{"scale": 0.5}, {"zero": 4}])
def test_an_int8_value_is_read_only_as_it_was_made(wrong):
    b = builder()
    q = b.add("quantize", "x", **X)
    with pytest.raises(
        InputError, match=r"dequantize reads 'quantize_0' .*but it was made with scale 0.25, zero point 3"
    ):
        b.add("dequantize", q, **{**X, **wrong})
    grids = {**GRIDS, **{f"x_{key}": value for key, value in wrong.items()}}
    with pytest.raises(InputError, match=r"qlinear reads 'quantize_0' .*but it was made with scale 0.25, zero point 3"):
        b.add("qlinear", q, *constants(b), **grids)


def test_a_program_from_disk_that_reads_int8_otherwise_is_refused():
    program = qlinear_program()
    *first, last = program.nodes
    for changed in ({"scale": 0.25}, {"zero": -127}):
        other = replace_attributes(last, changed)
        with pytest.raises(InputError, match=r"dequantize reads 'qlinear_1' .*made with scale 0.5, zero point -128"):
            replace(program, nodes=(*first, other)).check()


def replace_attributes(node: Node, changed: dict[str, Any]) -> Node:
    return Node(node.operator, node.inputs, node.output, {**node.attributes, **changed}, node.origin)


def test_a_constant_of_int8_has_no_scale_to_be_read_with():
    b = builder()
    with pytest.raises(InputError, match=r"reads 'c' .*but it has no scale"):
        b.add("dequantize", b.constant("c", np.zeros((1, 3), np.int8)), **X)


@pytest.mark.parametrize("scale", [0.1, 0.0, -1.0, float("nan"), float("inf"), 1, "1"])
def test_a_scale_is_a_positive_float_that_float32_holds(scale):
    with pytest.raises(InputError, match="attribute scale must be a positive number that float32 holds exactly"):
        builder().add("quantize", "x", scale=scale, zero=0)


@pytest.mark.parametrize("zero", [-129, 128, 0.0])
def test_a_zero_point_is_an_int8_value(zero):
    with pytest.raises(InputError, match="attribute zero must be an integer from -128 to 127"):
        builder().add("quantize", "x", scale=0.5, zero=zero)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"w": np.full((4, 3), -128, np.int8)}, "a weight is -128"),
        ({"b": np.full(4, 2**31 - 100, np.int32)}, "a sum may reach 21474.*more than int32 holds"),
        ({"s": np.float32([1, 1, 0, 1])}, "above 0 and below 256, not 0.0 to 0.5"),
        ({"s": np.float32([1, 1, 512, 1])}, "above 0 and below 256, not 0.5 to 256.0"),
        ({"s": np.float32([1, 1, np.nan, 1])}, "above 0 and below 256, not nan"),
        ({"w": np.ones((4, 3), np.int16)}, "input w is int16, int8 is needed"),
        ({"b": np.ones(4, np.float32)}, "input b is float32, int32 is needed"),
        ({"s": np.ones(4, np.float64)}, "input s is float64, float32 is needed"),
    ],
)
def test_constants_that_no_kernel_computes_rightly_are_refused(changed, message):
    b = builder()
    q = b.add("quantize", "x", **X)
    with pytest.raises(InputError, match=f"operator qlinear does not fit.*{message}"):
        b.add("qlinear", q, *constants(b, **changed), **GRIDS)


def test_a_weight_scale_that_is_computed_is_refused():
    b = builder()
    q = b.add("quantize", "x", **X)
    with pytest.raises(InputError, match="operator qlinear: input 3, 'x', must be a constant"):
        b.add("qlinear", q, *constants(b)[:2], "x", **GRIDS)


# -- what is made once ----------------------------------------------------------------------------------------------


def test_a_value_is_quantized_to_one_grid_once():
    b = builder()
    one = b.add("quantize", "x", **X)
    assert b.add("quantize", "x", **X) == one
    assert b.add("quantize", "m", **X) != one
    assert b.add("quantize", "x", **Y) != one
    assert b.add("dequantize", one, **X) == b.add("dequantize", one, **X)


def test_quantizing_what_was_dequantized_gives_the_int8_value_itself():
    b = builder()
    q = b.add("quantize", "x", **X)
    wide = b.add("dequantize", q, **X)
    assert b.add("quantize", wide, **X) == q
    assert b.add("quantize", wide, scale=0.25, zero=4) != q
    assert b.add("quantize", wide, scale=0.5, zero=3) != q


def test_a_relu_of_a_range_that_starts_at_0_is_left_out():
    b = builder()
    wide = b.add("dequantize", b.add("quantize", "x", **Y), **Y)
    assert b.add("relu", wide) == wide
    signed = b.add("dequantize", b.add("quantize", "x", **X), **X)
    assert b.add("relu", signed) != signed
    assert b.add("relu", "x") != "x"


def test_what_is_made_once_is_still_checked():
    b = builder()
    wide = b.add("dequantize", b.add("quantize", "x", **X), **X)
    with pytest.raises(InputError, match="attributes"):
        b.add("quantize", wide, scale=0.25)
    with pytest.raises(InputError, match="must be a positive number"):
        b.add("quantize", wide, scale=0.1, zero=3)


def test_a_chain_stays_int8_between_its_layers():
    b = builder()
    q = b.add("quantize", "x", **X)
    for _ in range(2):
        weight, bias, scale = constants(b, w=np.ones((3, 3), np.int8), b=np.ones(3, np.int32), s=np.ones(3, np.float32))
        wide = b.add(
            "dequantize", b.add("qlinear", q, weight, bias, scale, **{**GRIDS, "y_scale": 0.25, "y_zero": 3}), **X
        )
        q = b.add("quantize", wide, **X)
    program = b.finish(wide, {"m": "m"})
    assert [node.operator for node in program.nodes] == ["quantize", "qlinear", "qlinear", "dequantize"]


# -- disk and cost --------------------------------------------------------------------------------------------------


@given(scale=st.floats(2**-30, 2**30, width=32), zero=st.integers(-128, 127))
def test_scales_survive_the_disk_exactly(scale, zero, tmp_path_factory):
    b = builder()
    y = b.add("dequantize", b.add("quantize", "x", scale=scale, zero=zero), scale=scale, zero=zero)
    folder = tmp_path_factory.mktemp("program")
    b.finish(y, {"m": "m"}).write(folder)
    found = [operator(n.operator).reads(n.attributes) or n.attributes for n in Program.read(folder).nodes]
    assert found == [{"scale": scale, "zero": zero}, Quantization(scale, zero)]


def test_cost_counts_integer_products_and_bytes_at_their_own_types():
    found = cost(qlinear_program())
    assert found.macs == 4 * 3
    assert found.elementwise == 3 + 4  # one value in, one out
    assert found.constant_bytes == 12 + 4 * 4 + 4 * 4
