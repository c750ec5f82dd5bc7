"""Operators that reduce or normalise over the last axes of one frame, never over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Shape
from edgeseq.program.layout import _ints


class _Reduction(Operator):
    accepts = ("axes",)
    onnx_name: ClassVar[str]
    tflite_name: ClassVar[str]

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        axes = _ints(attributes, "axes")
        if not axes or len(set(axes)) != len(axes) or not all(0 <= axis < len(x) for axis in axes):
            raise ValueError(f"axes {axes}")
        return tuple(1 if axis in axes else size for axis, size in enumerate(x))

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        axes = graph.constant(np.array(attributes["axes"], np.int32))
        return graph.add(self.tflite_name, [inputs[0], axes], shape, options="ReducerOptions", keepDims=True)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(shapes[0], dtype=np.int64))


class Sum(_Reduction):
    """y = Σ x over ``axes``, which stay as axes of size 1."""

    name = "sum"
    tflite_name = "SUM"

    def run(self, x: Array, axes: Sequence[int]) -> Array:  # type: ignore[override]
        return np.sum(x, axis=tuple(axes), keepdims=True, dtype=x.dtype)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        axes = graph.constant(np.array(attributes["axes"], np.int64))  # an input since opset 13
        return graph.add("ReduceSum", [inputs[0], axes], keepdims=1)


class Mean(_Reduction):
    """y = mean of x over ``axes``, which stay as axes of size 1."""

    name = "mean"
    tflite_name = "MEAN"

    def run(self, x: Array, axes: Sequence[int]) -> Array:  # type: ignore[override]
        return np.mean(x, axis=tuple(axes), keepdims=True, dtype=x.dtype)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("ReduceMean", inputs, axes=attributes["axes"], keepdims=1)  # an attribute until opset 18


class LayerNorm(Operator):
    """y = (x - mean x) / √(var x + ε) · g + b over the last axis; g, b (n) constants (Ba et al. 2016)."""

    name = "layer_norm"
    accepts = ("epsilon",)
    constant_inputs = (1, 2)

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        x, gain, bias = shapes
        if gain != (x[-1],) or bias != (x[-1],):
            raise ValueError("g (n) and b (n) of the last axis are needed")
        epsilon = attributes["epsilon"]
        if not isinstance(epsilon, float) or not epsilon > 0:
            raise ValueError(f"attribute epsilon must be a positive number, not {epsilon!r}")
        return x

    def run(self, x: Array, gain: Array, bias: Array, epsilon: float) -> Array:  # type: ignore[override]
        centred = x - x.mean(-1, keepdims=True, dtype=x.dtype)
        variance = np.square(centred).mean(-1, keepdims=True, dtype=x.dtype)
        result: Array = centred / np.sqrt(variance + x.dtype.type(epsilon)) * gain + bias
        return result

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("LayerNormalization", inputs, axis=-1, epsilon=attributes["epsilon"])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        x, gain, bias = inputs
        narrow = (*shape[:-1], 1)
        last = graph.constant(np.array([len(shape) - 1], np.int32))
        epsilon = graph.constant(np.array([attributes["epsilon"]], np.float32))
        mean = graph.add("MEAN", [x, last], narrow, options="ReducerOptions", keepDims=True)
        centred = graph.add("SUB", [x, mean], shape, options="SubOptions")
        square = graph.add("MUL", [centred, centred], shape, options="MulOptions")
        variance = graph.add("MEAN", [square, last], narrow, options="ReducerOptions", keepDims=True)
        scale = graph.add("RSQRT", [graph.add("ADD", [variance, epsilon], narrow, options="AddOptions")], narrow)
        normed = graph.add("MUL", [centred, scale], shape, options="MulOptions")
        scaled = graph.add("MUL", [normed, gain], shape, options="MulOptions")
        return graph.add("ADD", [scaled, bias], shape, options="AddOptions")

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return 5 * int(np.prod(result, dtype=np.int64))


class Softmax(Operator):
    """y = eˣ / Σ eˣ over the last axis."""

    name = "softmax"

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        return x

    def run(self, x: Array) -> Array:  # type: ignore[override]
        e = np.exp(x - x.max(-1, keepdims=True))
        result: Array = e / e.sum(-1, keepdims=True, dtype=x.dtype)
        return result

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("Softmax", inputs, axis=-1)

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("SOFTMAX", inputs, shape, options="SoftmaxOptions", beta=1.0)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return 3 * int(np.prod(result, dtype=np.int64))


OPERATORS: tuple[Operator, ...] = (Sum(), Mean(), LayerNorm(), Softmax())
