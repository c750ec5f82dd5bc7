"""What every operator of the step program defines, and what a writer offers to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from edgeseq.errors import InputError
from edgeseq.program.graph import Array, Attribute, Quantization, Shape, Value

Attributes = Mapping[str, Attribute]


class OnnxGraph(Protocol):
    """What an operator may ask of the ONNX writer. A handle is a tensor's name."""

    def constant(self, array: Array) -> str:
        """A stored tensor."""

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One ONNX node with one output."""

    def shape(self, handle: str) -> Shape:
        """The shape of a program value's handle."""

    def array(self, handle: str) -> Array:
        """The content of a stored tensor."""


class TfliteGraph(Protocol):
    """What an operator may ask of the TFLite writer. A handle is a tensor's index."""

    def constant(self, array: Array) -> int:
        """A stored tensor."""

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Shape,
        *,
        dtype: str = "float32",
        quantization: Quantization | None = None,
        options: str = "",
        version: int = 1,
        **fields: Any,
    ) -> int:
        """One builtin operator with one output; ``options`` is the schema's option table, ``fields`` its content."""

    def shape(self, handle: int) -> Shape:
        """The shape of a tensor."""

    def array(self, handle: int) -> Array:
        """The content of a stored tensor."""

    def quantized(self, handle: int, scales: Array) -> int:
        """A stored tensor of integers as one with a scale (n) for each row of its first axis, and zero points 0."""


class Operator:
    """One operator. The first line of the class's docstring is its equation, shown in the documentation.

    ``accepts`` names the attributes; ``constant_inputs`` the positions that must be constants of the program;
    ``others`` the further results, if any: of the first one's shape and type, and given in a row behind it.
    """

    name: ClassVar[str]
    accepts: ClassVar[tuple[str, ...]] = ()
    constant_inputs: ClassVar[tuple[int, ...]] = ()
    others: ClassVar[tuple[str, ...]] = ()

    def infer(self, inputs: Sequence[Value], attributes: Attributes) -> tuple[Shape, str]:
        """Shape and dtype of the result.

        Raises:
            InputError: the inputs or attributes do not fit.
        """
        wrong = set(attributes) ^ set(self.accepts)
        if wrong:
            raise InputError(f"operator {self.name}: attributes {sorted(attributes)}, accepted {list(self.accepts)}")
        try:
            return self.shape([value.shape for value in inputs], attributes), self.dtype(inputs)
        except (ValueError, IndexError) as error:
            shapes = ", ".join(str(list(value.shape)) for value in inputs)
            raise InputError(f"operator {self.name} does not fit inputs {shapes}: {error}") from None

    def dtype(self, inputs: Sequence[Value]) -> str:
        """The dtype of the result; float32 unless the operator says otherwise."""
        self.need(inputs, *["float32"] * len(inputs))
        return "float32"

    @staticmethod
    def need(inputs: Sequence[Value], *dtypes: str) -> None:
        """Refuse inputs of other dtypes than those given, with a ValueError."""
        for value, dtype in zip(inputs, dtypes, strict=True):
            if value.dtype != dtype:
                raise ValueError(f"input {value.name} is {value.dtype}, {dtype} is needed")

    def reads(self, attributes: Attributes) -> Quantization | None:
        """How the first input is read, where it is int8."""
        return None

    def makes(self, attributes: Attributes) -> Quantization | None:
        """How the result is to be read, where it is int8."""
        return None

    def check_constants(self, inputs: Sequence[Array | None], attributes: Attributes) -> None:
        """Refuse constants whose values do not fit, with a ValueError; inputs that are no constants are None."""

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        """Shape of the result; ValueError where the inputs do not fit."""
        raise NotImplementedError

    def run(self, *inputs: Array, **attributes: Any) -> Array | tuple[Array, ...]:
        """The meaning, in numpy: the reference for every other engine. A tuple where there are ``others``."""
        raise NotImplementedError

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> str | list[str]:
        """Write the operator as ONNX (opset 17) nodes; returns the result's handle, or a list of all."""
        raise NotImplementedError

    def tflite(
        self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape
    ) -> int | list[int]:
        """Write the operator as TFLite builtins; returns the result's handle, or a list of all."""
        raise NotImplementedError

    def macs(self, shapes: Sequence[Shape], result: Shape) -> int:
        """Multiply-accumulates of one call."""
        return 0

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        """Elements computed outside of multiply-accumulates: activations, products, sums of states."""
        return 0
