"""Every operator alone: its numpy meaning against torch, and against the files that are written from it.

``EXAMPLES`` has one entry per operator; a new operator needs one more. The further inputs of an operator are states
that pass through a step unchanged; an operator of one input has a state that becomes the answer. An int8 input is made
by quantizing a frame that holds its very values, and an int8 answer is dequantized. Several results are joined to one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from edgeseq.models import neurons
from edgeseq.program import Builder, Program, Value, interpret, operator, operators
from edgeseq.program.neurons import RESETS

few = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

Draw = Any  # hypothesis's draw
Shape = tuple[int, ...]
SMALLEST = 2.0**-126  # below it engines may flush to zero
GRIDS = {
    "quantize": ("", ""),
    "dequantize": ("", ""),
    "qlinear": ("x_", "y_"),
}  # attributes of the int8 input and result


@dataclass(frozen=True)
class Case:
    """One call: its inputs, of which the last ``constants`` are constants of the program, and its attributes."""

    inputs: tuple[np.ndarray, ...]
    constants: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """How calls of an operator are drawn, what torch says of them, and the relative error that float32 is allowed."""

    draw: Callable[[Draw], Case]
    torch: Callable[..., torch.Tensor]
    tolerance: float = 0.0


def values(low: float, high: float) -> st.SearchStrategy[float]:
    """Finite float32 between the bounds, and often a zero of either sign or a whole number, so that there are ties."""
    low, high = float(np.float32(low)), float(np.float32(high))
    ordinary = st.floats(low, high, width=32, allow_subnormal=False)
    special = [v for v in (0.0, -0.0, 1.0, -1.0, 2.0, low, high) if low <= v <= high]
    return ordinary | st.sampled_from(special)


def frame_shapes(low: int = 2, high: int = 4) -> st.SearchStrategy[Shape]:
    return st.lists(st.integers(1, 9), min_size=low - 1, max_size=high - 1).map(lambda sizes: (1, *sizes))


def tensor(draw: Draw, shape: Shape, low: float = -1e4, high: float = 1e4) -> np.ndarray:
    return draw(arrays(np.float32, shape, elements=values(low, high)))


def of_one(low: float, high: float) -> Callable[[Draw], Case]:
    return lambda draw: Case((tensor(draw, draw(frame_shapes()), low, high),))


def partner(draw: Draw, shape: Shape, constant: bool = False) -> Shape:
    """A shape that broadcasts with ``shape``: of any rank for a constant, with the batch axis otherwise."""
    rank = draw(st.integers(0 if constant else 2, 4))
    sizes = [draw(st.integers(1, 9) if size == 1 else st.sampled_from([1, size])) for size in shape[-rank:] if rank]
    sizes = [1] * (rank - len(sizes)) + sizes
    return (1, *sizes[1:]) if rank >= len(shape) or not constant else tuple(sizes)


def of_two(low: float, high: float, second: tuple[float, float] | None = None) -> Callable[[Draw], Case]:
    def draw_case(draw: Draw) -> Case:
        shape, constant = draw(frame_shapes()), draw(st.booleans())
        shapes = [shape, partner(draw, shape, constant)]
        if not constant:
            shapes = draw(st.permutations(shapes))
        return Case((tensor(draw, shapes[0], low, high), tensor(draw, shapes[1], *(second or (low, high)))), constant)

    return draw_case


def where_case(draw: Draw) -> Case:
    shape = draw(frame_shapes())
    shapes = [[1, *(draw(st.sampled_from([1, size])) for size in shape[1:])] for _ in range(3)]
    return Case(tuple(tensor(draw, tuple(each)) for each in shapes))


def linear_case(draw: Draw) -> Case:
    shape, out = draw(frame_shapes()), draw(st.integers(1, 9))
    x, weight = tensor(draw, shape, -8, 8), tensor(draw, (out, shape[-1]), -8, 8)
    return Case((x, weight, tensor(draw, (out,), -8, 8)), 2) if draw(st.booleans()) else Case((x, weight), 1)


def layer_norm_case(draw: Draw) -> Case:
    shape = draw(frame_shapes())
    # Values that differ: with a variance near nothing, rounding alone decides.
    size = int(np.prod(shape))
    x = np.random.default_rng(draw(st.integers(0, 99))).normal(1, 3, size).astype(np.float32).reshape(shape)
    gain, bias = tensor(draw, shape[-1:], -4, 4), tensor(draw, shape[-1:], -4, 4)
    return Case((x, gain, bias), 2, {"epsilon": draw(st.sampled_from([1e-5, 1e-3, 1.0]))})


def slice_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()))
    axis = draw(st.integers(0, x.ndim - 1))
    start = draw(st.integers(0, x.shape[axis] - 1))
    return Case((x,), attributes={"axis": axis, "start": start, "stop": draw(st.integers(start + 1, x.shape[axis]))})


def concat_case(draw: Draw) -> Case:
    shape = draw(frame_shapes())
    axis = draw(st.integers(1, len(shape) - 1))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    return Case(tuple(tensor(draw, each) for each in shapes), draw(st.integers(0, len(sizes) - 1)), {"axis": axis})


def reshape_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()))
    merged = draw(st.sampled_from([[1, x.size], [1, 1, x.size], [x.size], [1, x.size, 1], [*x.shape[::-1]]]))
    return Case((x,), attributes={"shape": merged})


def transpose_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()))
    return Case((x,), attributes={"axes": draw(st.permutations(range(x.ndim)))})


def reduce_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()), -8, 8)
    return Case((x,), attributes={"axes": sorted(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))})


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32) | st.sampled_from([0.25, 0.5, 1.0, 2.0])  # whole numbers lie on half steps


zeros = st.integers(-128, 127)


def round_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()))
    return Case((np.rint(2 * x) / 2 if draw(st.booleans()) else x,))  # half of them on half steps


def quantize_case(draw: Draw) -> Case:
    x = tensor(draw, draw(frame_shapes()), -300, 300)
    return Case((x,), attributes={"scale": draw(scales(2**-6, 8)), "zero": draw(zeros)})


def dequantize_case(draw: Draw) -> Case:
    q = draw(arrays(np.int8, draw(frame_shapes())))
    return Case((q,), attributes={"scale": draw(scales(2**-20, 2**20)), "zero": draw(zeros)})


def qlinear_case(draw: Draw) -> Case:
    shape, out = draw(frame_shapes()), draw(st.integers(1, 9))
    x = draw(arrays(np.int8, shape))
    weight = draw(arrays(np.int8, (out, shape[-1]), elements=st.integers(-127, 127)))
    bias = draw(arrays(np.int32, (out,), elements=st.integers(-30000, 30000)))
    weight_scale = draw(arrays(np.float32, (out,), elements=st.floats(2**-10, 2**-4, width=32)))
    x_scale, steps = draw(scales(2**-6, 8)), draw(st.floats(2**4, 2**11, width=32))
    y_scale = float(np.float32(x_scale * weight_scale.max() * steps))
    grids = {"x_scale": x_scale, "x_zero": draw(zeros), "y_scale": y_scale, "y_zero": draw(zeros)}
    return Case((x, weight, bias, weight_scale), 3, grids)


def neuron_case(names: int) -> Callable[[Draw], Case]:
    """A current and ``names`` states, often at the threshold; then decays and the threshold, which are constants."""

    def draw_case(draw: Draw) -> Case:
        shape, reset = draw(frame_shapes()), draw(st.sampled_from(RESETS))
        tensors = [tensor(draw, shape, -4, 4) for _ in range(1 + names)]
        decays = [np.float32(draw(values(0, 1))) for _ in range(names)]
        threshold = np.float32(draw(st.sampled_from([0.5, 1.0, 2.0]) | st.floats(0.015625, 4, width=32)))
        rule = {"reset": reset, "delay": reset == "subtract_decayed" or draw(st.booleans())}
        constants = [np.asarray(each) for each in (*decays, threshold)]
        return Case((*tensors, *constants), len(constants), {**rule, "inclusive": draw(st.booleans())})

    return draw_case


def joined(function: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[..., torch.Tensor]:
    """All results of an operator in a row."""
    return lambda *inputs, **attributes: torch.cat(function(*inputs, **attributes), -1)


def torch_quantize(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    fake = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)  # what is trained with
    return (torch.round(fake / scale) + zero).to(torch.int8)


def torch_qlinear(
    x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, s: torch.Tensor, x_scale: float, x_zero: int, **y: Any
) -> torch.Tensor:
    total = (x.int() - x_zero) @ w.int().T + b  # an int32 product, where numpy's is of doubles
    scaled = total.float() * (x_scale * s / y["y_scale"])
    return (torch.round(scaled) + y["y_zero"]).clamp(-128, 127).to(torch.int8)


def reduced(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, axes: function(x, axes, keepdim=True)


EXAMPLES: dict[str, Example] = {
    "linear": Example(linear_case, functional.linear, 1e-6),
    "add": Example(of_two(-1e30, 1e30), torch.add),
    "sub": Example(of_two(-1e30, 1e30), torch.sub),
    "mul": Example(of_two(-1e18, 1e18), torch.mul),
    "div": Example(of_two(-1e15, 1e15, second=(2.0**-20, 1e15)), torch.div, 2e-7),
    "minimum": Example(of_two(-1e30, 1e30), torch.minimum),
    "maximum": Example(of_two(-1e30, 1e30), torch.maximum),
    "neg": Example(of_one(-1e30, 1e30), torch.neg),
    "abs": Example(of_one(-1e30, 1e30), torch.abs),
    "exp": Example(of_one(-80, 80), torch.exp, 1e-5),  # XNNPACK's error grows with |x|: 2e-6 at 29
    "log": Example(of_one(2.0**-100, 1e30), torch.log, 1e-6),
    "sqrt": Example(of_one(0, 1e30), torch.sqrt, 2e-7),
    "round": Example(round_case, torch.round),
    "relu": Example(of_one(-1e30, 1e30), torch.relu),
    "sigmoid": Example(of_one(-1e4, 1e4), torch.sigmoid, 1e-6),
    "tanh": Example(of_one(-1e4, 1e4), torch.tanh, 1e-6),
    "gelu": Example(of_one(-1e4, 1e4), functional.gelu, 2e-6),
    "greater": Example(of_two(-4, 4), torch.gt),
    "greater_equal": Example(of_two(-4, 4), torch.ge),
    "where": Example(where_case, torch.where),
    "slice": Example(slice_case, lambda x, axis, start, stop: x.narrow(axis, start, stop - start)),
    "concat": Example(concat_case, lambda *parts, axis: torch.cat(parts, axis)),
    "reshape": Example(reshape_case, lambda x, shape: x.reshape(shape)),
    "transpose": Example(transpose_case, lambda x, axes: x.permute(axes)),
    "sum": Example(reduce_case, reduced(torch.sum), 1e-6),
    "mean": Example(reduce_case, reduced(torch.mean), 1e-6),
    "layer_norm": Example(
        layer_norm_case, lambda x, g, b, epsilon: functional.layer_norm(x, x.shape[-1:], g, b, epsilon), 5e-6
    ),
    "softmax": Example(of_one(-1e4, 1e4), lambda x: torch.softmax(x, -1), 1e-6),
    "quantize": Example(quantize_case, torch_quantize),
    "dequantize": Example(dequantize_case, lambda q, scale, zero: (q.float() - zero) * scale),
    "qlinear": Example(qlinear_case, torch_qlinear),
    "leaky": Example(neuron_case(1), joined(neurons.leaky)),
    "synaptic": Example(neuron_case(2), joined(neurons.synaptic)),
}


def program_of(name: str, case: Case) -> Program:
    """A program of this operator alone; a truth value is made by a comparison before, or a choice of 1 and 0 after."""
    count = len(case.inputs) - case.constants
    runtime = ["x", *(f"input.{i}" for i in range(1, count))]
    states = [Value(key, a.shape) for key, a in zip(runtime[1:], case.inputs[1:count], strict=True)]
    shape, dtype = operator(name).infer(
        [
            Value(str(i), a.shape, "bool" if name == "where" and i == 0 else str(a.dtype))
            for i, a in enumerate(case.inputs)
        ],
        case.attributes,
    )
    builder = Builder(Value("x", case.inputs[0].shape), states or [Value("last", shape)])
    constants = [builder.constant(f"constant.{i}", a) for i, a in enumerate(case.inputs[count:])]
    inputs = [*runtime, *constants]
    if name == "where":
        inputs[0] = builder.add("greater", "x", builder.constant("zero", np.float32([0])))
    if case.inputs[0].dtype == np.int8:
        inputs[0] = builder.add("quantize", "x", **grid(name, case, 0))
    y, *others = builder.add_all(name, *inputs, **case.attributes)
    if others:
        y = builder.add("concat", y, *others, axis=len(shape) - 1)
    if dtype == "bool":
        y = builder.add("where", y, builder.constant("one", np.float32([1])), builder.constant("none", np.float32([0])))
    if dtype == "int8":
        y = builder.add("dequantize", y, **grid(name, case, 1))
    return builder.finish(y, {state.name: state.name for state in states} or {"last": y})


def grid(name: str, case: Case, which: int) -> dict[str, Any]:
    """The scale and zero point of an operator's int8 input (0) or result (1)."""
    prefix = GRIDS[name][which]
    return {key: case.attributes[prefix + key] for key in ("scale", "zero")}


def frame_of(name: str, case: Case) -> np.ndarray:
    """The frame that gives the operator its first input."""
    x = case.inputs[0]
    return operator("dequantize").run(x, **grid(name, case, 0)) if x.dtype == np.int8 else x


def states_of(program: Program, case: Case) -> dict[str, np.ndarray]:
    given = {f"input.{i}": array for i, array in enumerate(case.inputs)}
    return {s.name: given.get(s.name, np.full(s.before.shape, 7, np.float32)) for s in program.states}


def says(name: str, case: Case, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """The operator's numpy meaning, and the size of its terms: the same over absolute values where it sums."""
    inputs = [a.astype(dtype) if a.dtype == np.float32 else a for a in case.inputs]
    run = operator(name).run
    if name == "where":
        inputs[0] = inputs[0] > 0
    found = run(*inputs, **case.attributes)
    found = np.concatenate(found, -1) if isinstance(found, tuple) else np.asarray(found)
    summed = name in ("linear", "sum", "mean")
    return found, run(*map(np.abs, inputs), **case.attributes) if summed else np.abs(found.astype(dtype))


def assert_steps(name: str, engine: str, case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    """Integer values are equal, bit for bit; LiteRT's own kernels are one step off at most, and dequantize loosely."""
    assert found.shape == expected.shape
    if engine != "litert-builtin":
        np.testing.assert_array_equal(found, expected)
    steps = (found - expected) / np.float32(grid(name, case, 1)["scale"])
    assert np.abs(np.rint(steps)).max() <= (engine == "litert-builtin" and name != "dequantize")
    # q · scale - zero · scale in one fused step, from eight values on
    assert np.abs(steps - np.rint(steps)).max() <= 1e-4


def assert_close(found: np.ndarray, expected: np.ndarray, size: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    allowed = tolerance * np.maximum(1.0 if tolerance else 0.0, size.astype(np.float64)) + SMALLEST
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    assert (error <= allowed).all(), f"largest error {error.max()}, expected {expected}, found {found}"


def test_every_operator_has_an_example():
    assert list(EXAMPLES) == list(operators())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, d) for name in EXAMPLES for d in ("float32", "float64") if d == "float32" or name not in GRIDS],
)
@few
@given(data=st.data())
def test_numpy_meaning_is_torchs(name, dtype, data):
    case = EXAMPLES[name].draw(data.draw)
    expected, size = says(name, case, np.dtype(dtype).type)
    inputs = [torch.from_numpy(a.astype(dtype) if a.dtype == np.float32 else a) for a in case.inputs]
    if name == "where":
        inputs[0] = inputs[0] > 0
    found = EXAMPLES[name].torch(*inputs, **case.attributes).numpy()
    assert expected.dtype == found.dtype  # a meaning that widens would hide what float32 does
    node = next(node for node in program_of(name, case).nodes if node.operator == name)
    shape = (*node.output.shape[:-1], node.output.shape[-1] * len(node.results)) if node.others else node.output.shape
    assert (shape, node.output.dtype) == (expected.shape, str(expected.dtype).replace("64", "32"))
    tolerance = EXAMPLES[name].tolerance
    assert_close(found, expected, size, tolerance if dtype == "float32" else min(tolerance, 1e-12))


@pytest.mark.parametrize("name", EXAMPLES)
@few
@given(data=st.data())
def test_written_file_computes_the_numpy_meaning(name, file_engine, run_file, data):
    case = EXAMPLES[name].draw(data.draw)
    program = program_of(name, case)
    x, states = frame_of(name, case), states_of(program, case)
    expected, following = interpret(program)(x, states)
    y, found = run_file(program, file_engine, x, states)
    if name in GRIDS:
        assert_steps(name, file_engine, case, y, expected)
        return
    _, size = says(name, case)
    assert_close(y, expected, size, EXAMPLES[name].tolerance)
    for key, array in following.items():
        assert_close(found[key], array, size if key == "last" else np.zeros(1), EXAMPLES[name].tolerance)
