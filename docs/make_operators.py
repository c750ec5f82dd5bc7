"""Writes docs/operators.md from the code: ``python docs/make_operators.py``; with ``--check`` it only compares.

Attributes and equations are read from the operators. What an operator becomes in a file is found by asking it to write
itself for each of its ``EXAMPLES``.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.export.aten import RULES
from edgeseq.program import Value, operator, operators
from edgeseq.program.elementwise import Binary, Compare, Unary

TARGET = Path(__file__).with_name("operators.md")
ROW, TABLE, VECTOR = (1, 4), (1, 2, 4), (4,)
# Shapes of the inputs, and attributes; more than one example where the files differ. The elementwise ones need none.
EXAMPLES: dict[str, list[tuple[list[tuple[int, ...]], dict[str, Any]]]] = {
    "linear": [([ROW, (3, 4), (3,)], {}), ([TABLE, (3, 4), (3,)], {})],
    "where": [([ROW, ROW, ROW], {})],
    "slice": [([ROW], {"axis": 1, "start": 1, "stop": 3})],
    "concat": [([ROW, ROW], {"axis": 1})],
    "reshape": [([ROW], {"shape": [1, 2, 2]})],
    "transpose": [([ROW], {"axes": [1, 0]})],
    "sum": [([ROW], {"axes": [1]})],
    "mean": [([ROW], {"axes": [1]})],
    "layer_norm": [([ROW, VECTOR, VECTOR], {"epsilon": 1e-5})],
    "softmax": [([ROW], {})],
    "quantize": [([ROW], {"scale": 0.5, "zero": 0})],
    "dequantize": [([ROW], {"scale": 0.5, "zero": 0})],
    "qlinear": [
        ([shape, (3, 4), (3,), (3,)], {"x_scale": 0.5, "x_zero": 0, "y_scale": 0.5, "y_zero": 0})
        for shape in (ROW, TABLE)
    ],
}
DTYPES = {"where": ("bool",), "dequantize": ("int8",), "qlinear": ("int8", "int8", "int32")}  # the rest are float32
HEAD = """# The operators of the step program

Written by `python docs/make_operators.py` from the code; do not edit. A step program is a list of these operators in
single-assignment form ([step.json](../edgeseq/program/graph.py)); everything behind training reads nothing else. The
meaning is the numpy function `run` of the class, the reference for every engine. Values are float32, comparisons give
truth values, `quantize` and `qlinear` int8, the first axis is the batch and has size 1.

| operator | equation | attributes | ONNX (opset 17) | TFLite |
|---|---|---|---|---|
"""
TAIL = """
## What capture understands

A model may use any PyTorch operation that `torch.export` says in these ATen operators; the rules are in
[export/aten.py](../export/aten.py). Whatever depends on constants alone is computed at capture and may be anything.
Another operator is refused with its name and the module that it came from.

"""


class Recorder:
    """Stands for both writers and notes the kinds of node that an operator adds; a handle is a shape."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def constant(self, array: np.ndarray) -> Any:
        """A stored tensor."""
        return array.shape

    def shape(self, handle: Any) -> Any:
        """The shape of a handle."""
        return handle

    def array(self, handle: Any) -> np.ndarray:
        """The content of a stored tensor: any of its shape."""
        return np.ones(handle, np.float32)

    def quantized(self, handle: Any, scales: np.ndarray) -> Any:
        """A stored tensor with scales."""
        return handle

    def add(self, kind: str, inputs: Sequence[Any], shape: Any = None, **_: Any) -> Any:
        """One node; ONNX does not say the shape of its result, and no operator asks for it."""
        self.kinds.append(kind)
        return shape


def examples(name: str) -> list[tuple[list[tuple[int, ...]], dict[str, Any]]]:
    """Shapes and attributes to write the operator with."""
    entry = operator(name)
    if name not in EXAMPLES and isinstance(entry, Unary | Binary):
        return [([ROW] * (1 if isinstance(entry, Unary) else 2), {})]
    return EXAMPLES[name]


def written(name: str, target: str) -> str:
    """The nodes that the operator becomes, for each example; equal ones once."""
    found = []
    for shapes, attributes in examples(name):
        dtypes = [*DTYPES.get(name, ()), *["float32"] * len(shapes)]
        values = [Value(f"v{i}", shape, dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))]
        result, _ = operator(name).infer(values, attributes)
        recorder: Any = Recorder()
        if target == "onnx":
            operator(name).onnx(recorder, shapes, attributes)
        else:
            operator(name).tflite(recorder, shapes, attributes, result)
        found.append(", ".join(recorder.kinds))
    return "; or ".join(dict.fromkeys(found))


def document() -> str:
    """The content of docs/operators.md."""
    lines = []
    for name, entry in operators().items():
        equation = (entry.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
        if isinstance(entry, Compare):
            equation = equation.rstrip(".") + ", broadcast: a truth value."
        attributes = ", ".join(f"`{each}`" for each in entry.accepts)
        lines.append(
            f"| `{name}` | {equation} | {attributes} | {written(name, 'onnx')} | {written(name, 'tflite')} |\n"
        )
    known = textwrap.fill(", ".join(f"`{name}`" for name in sorted(RULES)) + ".", 118)
    return HEAD + "".join(lines) + TAIL + known + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(
            None if TARGET.read_text(encoding="utf-8") == document() else f"{TARGET} is out of date: run {__file__}"
        )
    TARGET.write_text(document(), encoding="utf-8")
    print(f"wrote {TARGET}")
