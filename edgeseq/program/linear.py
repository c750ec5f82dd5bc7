"""Products with constant matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Shape


class Linear(Operator):
    """y = x Wᵀ + b over the last axis; x (..., in), W (out, in) and b (out) constants, b may be absent."""

    name = "linear"
    constant_inputs = (1, 2)

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        x, weight, *bias = shapes
        if len(weight) != 2 or x[-1] != weight[1] or bias not in ([], [(weight[0],)]):
            raise ValueError("x (..., in), W (out, in), b (out) are needed")
        return (*x[:-1], weight[0])

    def run(self, x: Array, weight: Array, bias: Array | None = None) -> Array:  # type: ignore[override]
        product: Array = x @ weight.T
        return product if bias is None else product + bias

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        x, weight, *bias = inputs
        if len(graph.shape(x)) == 2:
            return graph.add("Gemm", [x, weight, *bias], transB=1)
        turned = graph.add("Transpose", [weight], perm=[1, 0])  # folded when the session loads the file
        product = graph.add("MatMul", [x, turned])
        return graph.add("Add", [product, *bias]) if bias else product

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        keep = len(shape) != 2
        return graph.add(
            "FULLY_CONNECTED",
            inputs,
            shape,
            options="FullyConnectedOptions",
            version=5 if keep else 1,
            keepNumDims=keep,
        )

    def macs(self, shapes: Sequence[Shape], result: Shape) -> int:
        return int(np.prod(result, dtype=np.int64)) * shapes[1][1]


OPERATORS: tuple[Operator, ...] = (Linear(),)
