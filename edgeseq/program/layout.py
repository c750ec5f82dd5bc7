"""Operators that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Shape


def _ints(attributes: Attributes, name: str) -> list[int]:
    found = attributes[name]
    if not isinstance(found, list):
        raise ValueError(f"attribute {name} must be a list of integers, not {found!r}")
    return found


def _int(attributes: Attributes, name: str) -> int:
    found = attributes[name]
    if not isinstance(found, int):
        raise ValueError(f"attribute {name} must be an integer, not {found!r}")
    return found


class Slice(Operator):
    """y = x[..., start:stop, ...] on one axis."""

    name = "slice"
    accepts = ("axis", "start", "stop")

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        axis, start, stop = (_int(attributes, name) for name in self.accepts)
        if not 0 <= axis < len(x) or not 0 <= start < stop <= x[axis]:
            raise ValueError(f"[{start}:{stop}] on axis {axis}")
        return (*x[:axis], stop - start, *x[axis + 1 :])

    def run(self, x: Array, axis: int, start: int, stop: int) -> Array:  # type: ignore[override]
        return x[(slice(None),) * axis + (slice(start, stop),)]

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        axis, start, stop = (graph.constant(np.array([attributes[name]], np.int64)) for name in self.accepts)
        return graph.add("Slice", [inputs[0], start, stop, axis])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        begin = np.zeros(len(shape), np.int32)
        begin[_int(attributes, "axis")] = _int(attributes, "start")
        size = np.array(shape, np.int32)
        return graph.add("SLICE", [inputs[0], graph.constant(begin), graph.constant(size)], shape)


XNNPACK_PARTS = 5  # that it joins in one operator: one of more would be left outside of it


class Concat(Operator):
    """y = [a, b, ...] along one axis."""

    name = "concat"
    accepts = ("axis",)

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        axis = _int(attributes, "axis")
        first = shapes[0]
        if not 0 <= axis < len(first):
            raise ValueError(f"axis {axis}")
        for other in shapes[1:]:
            if (*other[:axis], *other[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]):
                raise ValueError(f"all axes but {axis} must agree")
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def run(self, *inputs: Array, axis: int) -> Array:  # type: ignore[override]
        return np.concatenate(inputs, axis)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("Concat", inputs, axis=attributes["axis"])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        axis = attributes["axis"]

        def joined(parts: Sequence[int]) -> int:
            made = self.shape([graph.shape(part) for part in parts], attributes)
            return graph.add("CONCATENATION", parts, made, options="ConcatenationOptions", axis=axis)

        while len(inputs) > XNNPACK_PARTS:
            inputs = [joined(inputs[:XNNPACK_PARTS]), *inputs[XNNPACK_PARTS:]]
        return joined(inputs)


class Reshape(Operator):
    """y = the elements of x in row-major order, in another shape."""

    name = "reshape"
    accepts = ("shape",)

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        target = tuple(_ints(attributes, "shape"))
        if min(target, default=1) < 1 or np.prod(x, dtype=np.int64) != np.prod(target, dtype=np.int64):
            raise ValueError(f"shape {list(target)} does not hold the same number of elements")
        return target

    def run(self, x: Array, shape: Sequence[int]) -> Array:  # type: ignore[override]
        return x.reshape(shape)

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("Reshape", [inputs[0], graph.constant(np.array(attributes["shape"], np.int64))])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        target = graph.constant(np.array(shape, np.int32))
        return graph.add("RESHAPE", [inputs[0], target], shape, options="ReshapeOptions", newShape=list(shape))


class Transpose(Operator):
    """y = x with its axes in the order of ``axes``."""

    name = "transpose"
    accepts = ("axes",)

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        (x,) = shapes
        axes = _ints(attributes, "axes")
        if sorted(axes) != list(range(len(x))):
            raise ValueError(f"axes {axes}")
        return tuple(x[axis] for axis in axes)

    def run(self, x: Array, axes: Sequence[int]) -> Array:  # type: ignore[override]
        turned: Array = x.transpose(axes)
        return turned

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str:
        return graph.add("Transpose", inputs, perm=attributes["axes"])

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> int:
        return graph.add("TRANSPOSE", [inputs[0], graph.constant(np.array(attributes["axes"], np.int32))], shape)


OPERATORS: tuple[Operator, ...] = (Slice(), Concat(), Reshape(), Transpose())
