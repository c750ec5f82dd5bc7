"""Operators that act on each element by itself, with numpy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Shape, Value

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x: Array) -> Array:
    # exp of a negative number only: no overflow for any finite x
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


class Unary(Operator):
    """y = f(x)."""

    def __init__(self, name: str, equation: str, run: Callable[[Array], Array], onnx: str, tflite: str) -> None:
        self.name = name  # type: ignore[misc]
        self.__doc__ = equation
        self._run, self._onnx, self._tflite = run, onnx, tflite

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        return x

    def run(self, x: Array) -> Array:  # type: ignore[override]
        return self._run(x)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add(self._onnx, inputs)

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add(self._tflite, inputs, shape)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64))


class Gelu(Unary):
    """y = x Φ(x), the exact form with the error function."""

    def __init__(self) -> None:
        super().__init__("gelu", type(self).__doc__ or "", self._meaning, "", "GELU")

    @staticmethod
    def _meaning(x: Array) -> Array:
        half = 0.5 * (1 + np.asarray(_erf(x.astype(np.float64) / math.sqrt(2)), dtype=np.float64))
        return (x * half).astype(x.dtype)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        def scalar(value: float) -> str:
            return graph.constant(np.array(value, np.float32))

        # The pattern that ONNX Runtime recognises and fuses; the operator itself came with opset 20.
        inner = graph.add("Erf", [graph.add("Div", [inputs[0], scalar(math.sqrt(2))])])
        gate = graph.add("Add", [inner, scalar(1.0)])
        return graph.add("Mul", [graph.add("Mul", [inputs[0], gate]), scalar(0.5)])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("GELU", inputs, shape, options="GeluOptions", approximate=False)


class Binary(Operator):
    """y = f(a, b), broadcast."""

    def __init__(self, name: str, equation: str, run: Any, onnx: str, tflite: str, options: str = "") -> None:
        self.name = name  # type: ignore[misc]
        self.__doc__ = equation
        self._run, self._onnx, self._tflite, self._options = run, onnx, tflite, options

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        a, b = shapes
        return np.broadcast_shapes(a, b)

    def run(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        result: Array = self._run(a, b)
        return result

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add(self._onnx, inputs)

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add(self._tflite, inputs, shape, options=self._options)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64))


class Compare(Binary):
    """y = f(a, b) as a truth value, broadcast."""

    def dtype(self, inputs: Sequence[Value]) -> str:
        super().dtype(inputs)
        return "bool"

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add(self._tflite, inputs, shape, dtype="bool", options=self._options)


class Where(Operator):
    """y = a where c is true, b elsewhere; broadcast."""

    name = "where"

    def dtype(self, inputs: Sequence[Value]) -> str:
        if inputs[0].dtype != "bool":
            raise ValueError(f"the condition is {inputs[0].dtype}, a comparison is needed")
        return super().dtype(inputs[1:])

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        c, a, b = shapes
        return np.broadcast_shapes(c, a, b)

    def run(self, c: Array, a: Array, b: Array) -> Array:  # type: ignore[override]
        return np.where(c, a, b)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("Where", inputs)

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("SELECT_V2", inputs, shape)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64))


OPERATORS: tuple[Operator, ...] = (
    Binary("add", "y = a + b, broadcast.", np.add, "Add", "ADD", "AddOptions"),
    Binary("sub", "y = a - b, broadcast.", np.subtract, "Sub", "SUB", "SubOptions"),
    Binary("mul", "y = a · b, broadcast.", np.multiply, "Mul", "MUL", "MulOptions"),
    Binary("div", "y = a / b, broadcast.", np.divide, "Div", "DIV", "DivOptions"),
    Binary("minimum", "y = min(a, b), broadcast.", np.minimum, "Min", "MINIMUM"),
    Binary("maximum", "y = max(a, b), broadcast.", np.maximum, "Max", "MAXIMUM"),
    Unary("neg", "y = -x.", np.negative, "Neg", "NEG"),
    Unary("abs", "y = |x|.", np.abs, "Abs", "ABS"),
    Unary("exp", "y = eˣ.", np.exp, "Exp", "EXP"),
    Unary("log", "y = ln x.", np.log, "Log", "LOG"),
    Unary("sqrt", "y = √x.", np.sqrt, "Sqrt", "SQRT"),
    Unary("round", "y = x rounded to a whole number, half to even.", np.rint, "Round", "ROUND"),
    Unary("relu", "y = max(x, 0).", lambda x: np.maximum(x, x.dtype.type(0)), "Relu", "RELU"),
    Unary("sigmoid", "y = 1 / (1 + e⁻ˣ).", _sigmoid, "Sigmoid", "LOGISTIC"),
    Unary("tanh", "y = tanh x.", np.tanh, "Tanh", "TANH"),
    Gelu(),
    Compare("greater", "y = a > b.", np.greater, "Greater", "GREATER"),
    Compare("greater_equal", "y = a ≥ b.", np.greater_equal, "GreaterOrEqual", "GREATER_EQUAL"),
    Where(),
)
