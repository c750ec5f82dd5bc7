"""Integer arithmetic: float32 values onto an int8 grid and back, and linear maps of int8 values.

An int8 value q stands for ``(q - zero) · scale``. All rounding is half to even, as in XNNPACK, ONNX Runtime's QGemm and
torch's fake quantization, with which these meanings agree bit for bit. ONNX files hold activations as uint8, that is
q + 128: ONNX Runtime has no fast kernels for int8 ones on x86.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Attribute, Node, Quantization, Shape, Value

LOWEST, HIGHEST = -128, 127


def grid(attributes: Mapping[str, Attribute], prefix: str = "") -> Quantization:
    """The scale and zero point that attributes state.

    Raises:
        ValueError: the scale is no positive float32 value, or the zero point no int8 value.
    """
    scale, zero = attributes[f"{prefix}scale"], attributes[f"{prefix}zero"]
    # What JSON keeps as a double must be what every runtime keeps as a float32.
    if not isinstance(scale, float) or not 0 < scale < np.inf or float(np.float32(scale)) != scale:
        raise ValueError(f"attribute {prefix}scale must be a positive number that float32 holds exactly, not {scale!r}")
    if not isinstance(zero, int) or not LOWEST <= zero <= HIGHEST:
        raise ValueError(f"attribute {prefix}zero must be an integer from {LOWEST} to {HIGHEST}, not {zero!r}")
    return Quantization(scale, zero)


def _to_int8(scaled: Array, zero: int) -> Array:
    rounded = np.rint(scaled) + np.float32(zero)
    clipped: Array = np.minimum(np.maximum(rounded, np.float32(LOWEST)), np.float32(HIGHEST))
    return clipped.astype(np.int8)


def _onnx_grid(graph: OnnxGraph, quantization: Quantization) -> list[str]:
    zero = np.array(quantization.zero - LOWEST, np.uint8)
    return [graph.constant(np.array(quantization.scale, np.float32)), graph.constant(zero)]


class Quantize(Operator):
    """q = clip(rint(x · (1 / scale)) + zero, -128, 127), in float32; x float32, q int8."""

    name = "quantize"
    accepts = ("scale", "zero")

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        grid(attributes)
        return x

    def dtype(self, inputs: Sequence[Value]) -> str:
        super().dtype(inputs)
        return "int8"

    def makes(self, attributes: Attributes) -> Quantization:
        return grid(attributes)

    def run(self, x: Array, scale: float, zero: int) -> Array:  # type: ignore[override]
        return _to_int8(x * (np.float32(1) / np.float32(scale)), zero)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        scale, zero = grid(attributes)
        # QuantizeLinear divides, which now and then puts a value beside a half step on the other side of it: it is
        # given the product, and a scale of 1.
        reciprocal = graph.constant(np.array(np.float32(1) / np.float32(scale)))
        scaled = graph.add("Mul", [inputs[0], reciprocal])
        return graph.add("QuantizeLinear", [scaled, *_onnx_grid(graph, Quantization(1.0, zero))])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("QUANTIZE", inputs, shape, dtype="int8", quantization=grid(attributes))

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64))


class Dequantize(Operator):
    """x = (q - zero) · scale, in float32; q int8, x float32."""

    name = "dequantize"
    accepts = ("scale", "zero")

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (q,) = shapes
        grid(attributes)
        return q

    def dtype(self, inputs: Sequence[Value]) -> str:
        self.need(inputs, "int8")
        return "float32"

    def reads(self, attributes: Attributes) -> Quantization:
        return grid(attributes)

    def run(self, q: Array, scale: float, zero: int) -> Array:  # type: ignore[override]
        x: Array = (q.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return x

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("DequantizeLinear", [inputs[0], *_onnx_grid(graph, grid(attributes))])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("DEQUANTIZE", inputs, shape, version=2)

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64))


class QLinear(Operator):
    """q = clip(rint(a · (x_scale · s / y_scale)) + y_zero, -128, 127), a = (x - x_zero) Wᵀ + b.

    x (..., in) and q (..., out) int8, W (out, in) int8, b (out) int32 and s (out) float32 constants: s is the scale of
    each row of W, and x_scale · s that of b. The sum a is an int32 and exact; it is converted to float32 and multiplied
    there, with the product and the quotient of scales evaluated from left to right.

    A ReLU after it needs nothing: its result's range starts at 0, so y_zero is -128 and the clip is the ReLU.
    """

    name = "qlinear"
    accepts = ("x_scale", "x_zero", "y_scale", "y_zero")
    constant_inputs = (1, 2, 3)
    _dtypes: ClassVar = ("int8", "int8", "int32", "float32")

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        x, weight, bias, weight_scale = shapes
        if len(weight) != 2 or x[-1] != weight[1] or not bias == weight_scale == (weight[0],):
            raise ValueError("x (..., in), W (out, in), b (out), weight scale (out) are needed")
        for prefix in ("x_", "y_"):
            grid(attributes, prefix)
        return (*x[:-1], weight[0])

    def dtype(self, inputs: Sequence[Value]) -> str:
        self.need(inputs, *self._dtypes)
        return "int8"

    def reads(self, attributes: Attributes) -> Quantization:
        return grid(attributes, "x_")

    def makes(self, attributes: Attributes) -> Quantization:
        return grid(attributes, "y_")

    def check_constants(self, inputs: Sequence[Array | None], attributes: Attributes) -> None:
        _, weight, bias, weight_scale = inputs
        if weight is None or bias is None or weight_scale is None:
            raise ValueError("W, b and the weight scale must be constants")
        if weight.min() == LOWEST:
            raise ValueError("a weight is -128; two of its products do not fit 16 bits, as some kernels add them")
        largest = 255 * np.abs(weight.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
        if largest.max() > np.iinfo(np.int32).max:
            raise ValueError(f"a sum may reach {largest.max()}, more than int32 holds: a smaller bias is needed")
        multiplier = self._multiplier(weight_scale, attributes["x_scale"], attributes["y_scale"])
        if not ((multiplier > 0) & (multiplier < 256)).all():  # XNNPACK's bound; a NaN fails it too
            raise ValueError(
                "x_scale · weight scale / y_scale must be above 0 and below 256, "
                f"not {multiplier.min()} to {multiplier.max()}"
            )

    @staticmethod
    def _multiplier(weight_scale: Array, x_scale: Any, y_scale: Any) -> Array:
        multiplier: Array = np.float32(x_scale) * weight_scale / np.float32(y_scale)
        return multiplier

    def _bias_scale(self, weight_scale: Array, attributes: Attributes) -> Array:
        scales: Array = np.float32(self.reads(attributes).scale) * weight_scale
        return scales

    def run(  # type: ignore[override]
        self,
        x: Array,
        weight: Array,
        bias: Array,
        weight_scale: Array,
        x_scale: float,
        x_zero: int,
        y_scale: float,
        y_zero: int,
    ) -> Array:
        # float64 holds these sums exactly and has a fast product; numpy's product of integers has none.
        total = (x.astype(np.float64) - x_zero) @ weight.T.astype(np.float64) + bias
        return _to_int8(total.astype(np.float32) * self._multiplier(weight_scale, x_scale, y_scale), y_zero)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        x, weight, bias, weight_scale = inputs
        (rows, columns), shape = graph.array(weight).shape, graph.shape(x)
        if len(shape) != 2:  # QGemm takes matrices
            x = graph.add("Reshape", [x, graph.constant(np.array([-1, columns], np.int64))])
        none = graph.constant(np.zeros(rows, np.int8))
        bias_scale = graph.constant(self._bias_scale(graph.array(weight_scale), attributes))
        # ONNX Runtime makes one QGemm of these five.
        terms = [
            graph.add("DequantizeLinear", [x, *_onnx_grid(graph, self.reads(attributes))]),
            graph.add("DequantizeLinear", [weight, weight_scale, none], axis=0),
            graph.add("DequantizeLinear", [bias, bias_scale], axis=0),
        ]
        product = graph.add("Gemm", terms, transB=1)
        result = graph.add("QuantizeLinear", [product, *_onnx_grid(graph, self.makes(attributes))])
        if len(shape) == 2:
            return result
        return graph.add("Reshape", [result, graph.constant(np.array([*shape[:-1], rows], np.int64))])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        x, weight, bias, weight_scale = inputs
        scales = graph.array(weight_scale)
        # The kernels ignore the bias's scale, and compute with other numbers when it has none.
        stored = [
            graph.quantized(weight, scales),
            graph.quantized(bias, self._bias_scale(scales, attributes)),
        ]
        keep = len(shape) != 2
        return graph.add(
            "FULLY_CONNECTED",
            [x, *stored],
            shape,
            dtype="int8",
            quantization=self.makes(attributes),
            options="FullyConnectedOptions",
            version=5 if keep else 4,
            keepNumDims=keep,
        )

    def macs(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64)) * shapes[1][1]


def existing(name: str, inputs: Sequence[str], attributes: Attributes, nodes: Sequence[Node]) -> str | None:
    """The value of the program that ``name(inputs)`` would only compute again, if there is one.

    ``quantize(dequantize(q))`` on one grid is q. ``relu(dequantize(q))`` is the dequantized value where the grid starts
    at 0. A value is quantized to one grid once, however many maps read it.
    """
    if name in ("quantize", "relu"):
        source = next((node for node in nodes if node.output.name == inputs[0]), None)
        if source is not None and source.operator == "dequantize":
            if name == "quantize" and source.attributes == attributes:
                return source.inputs[0]
            if name == "relu" and source.attributes["zero"] == LOWEST:
                return source.output.name
    if name in ("quantize", "dequantize"):
        for node in nodes:
            if (node.operator, node.inputs, node.attributes) == (name, tuple(inputs), attributes):
                return node.output.name
    return None


OPERATORS: tuple[Operator, ...] = (Quantize(), Dequantize(), QLinear())
