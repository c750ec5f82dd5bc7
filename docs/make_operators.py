"""Writes docs/operators.md from the code: ``python docs/make_operators.py``; with ``--check`` it only compares.

Attributes and equations are read from the operators. What an operator becomes in a file is found by asking it to write
itself for each of its ``EXAMPLES``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.export.aten import RULES
from edgeseq.program import Builder, Value, operator, operators
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
    "leaky": [([ROW, ROW, (), ()], {"reset": "subtract", "delay": True, "inclusive": False})],
    "synaptic": [([ROW, ROW, ROW, (), (), ()], {"reset": "subtract", "delay": True, "inclusive": False})],
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
## What a model's step may use

A model may use any PyTorch operation that `torch.export` says in these ATen operators; the rules are in
[export/aten.py](../export/aten.py). A module counts as what it calls: `nn.SiLU` is `silu`, and of `nn.Dropout` nothing
is left in eval mode. Whatever depends on constants alone (weights, buffers, numbers) is computed at capture and may be
anything. Another operator is refused with its name and the module that it came from.

A step takes and returns tensors only, changes none in place, and does not branch on their values: write `torch.where`.

| in PyTorch | ATen operator | becomes |
|---|---|---|
"""
# How each ATen operator is written in PyTorch, and what its rule is given: x and h (1, 4) come at run time, as does
# what example() computes; the others are constants. What PyTorch calls as ATen does needs no entry.
TRUTH, INT8 = "greater_0", "quantize_1"
NEURONS = ("subtract", True, False)  # reset, delay, inclusive
TORCH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "linear": ("`nn.Linear(...)(x)`, W constant", ("x", "W", "b")),
    "matmul": ("`x @ M`, M a constant matrix", ("x", "M")),
    "mm": ("`torch.mm(x, M)`, M a constant matrix", ("x", "M")),
    "addmm": ("`torch.addmm(h, x, M)`, M a constant matrix", ("h", "x", "M")),
    "add": ("`x + h`, `x + 2`", ("x", "h")),
    "sub": ("`x - h`", ("x", "h")),
    "mul": ("`x * h`", ("x", "h")),
    "div": ("`x / h`", ("x", "h")),
    "rsub": ("`1 - x`", ("x", 1.0)),
    "neg": ("`-x`", ("x",)),
    "pow": ("`x**2`, `x**0.5`", ("x", 2)),
    "gelu": ("`gelu(x)`, the exact form", ("x",)),
    "glu": ("`glu(x, dim)`", ("x",)),
    "leaky_relu": ("`leaky_relu(x, slope)`", ("x",)),
    "clamp": ("`x.clamp(low, high)`, numbers or tensors", ("x", -1.0, 1.0)),
    "clamp_min": ("`torch.clamp_min(x, low)`", ("x", -1.0)),
    "hardtanh": ("`hardtanh(x, low, high)`", ("x",)),
    "gt": ("`x > h`", ("x", "h")),
    "lt": ("`x < h`", ("x", "h")),
    "ge": ("`x >= h`", ("x", "h")),
    "le": ("`x <= h`", ("x", "h")),
    "where": ("`torch.where(x > h, x, h)`", (TRUTH, "x", "h")),
    "sum": ("`x.sum(dim)`, not over the batch", ("x", [1], True)),
    "mean": ("`x.mean(dim)`, not over the batch", ("x", [1], True)),
    "layer_norm": ("`nn.LayerNorm(n)(x)`, the last axis", ("x", [4], "g", "b")),
    "_native_batch_norm_legit_no_training": (
        "`nn.BatchNorm1d(n)(x)` in eval mode",
        ("x", "g", "b", "g", "g", 0.1, 1e-5),
    ),
    "softmax": ("`softmax(x, -1)`", ("x", -1)),
    "slice": ("`x[:, 1:3]`, step 1", ("x", 1, 1, 3)),
    "select": ("`x[:, 1]`", ("x", 1, 1)),
    "split": ("`x.split(2, -1)`, `x.chunk(2, -1)`", ("x", 2, 1)),
    "split_with_sizes": ("`x.split([1, 3], -1)`", ("x", [1, 3], 1)),
    "cat": ("`torch.cat([x, h], -1)`", (["x", "h"], 1)),
    "stack": ("`torch.stack([x, h], 1)`", (["x", "h"], 1)),
    "unsqueeze": ("`x.unsqueeze(dim)`, `x[:, None]`", ("x", 1)),
    "squeeze": ("`x.squeeze(dim)`", ("one", [2])),
    "permute": ("`x.permute(dims)`", ("x", [1, 0])),
    "transpose": ("`x.transpose(a, b)`, `x.mT`", ("x", 0, 1)),
    "t": ("`x.t()`", ("x",)),
    "expand": ("`x.expand(sizes)`", ("x", [3, 4])),
    "view": ("`x.view(sizes)`, `reshape`, `flatten`", ("x", [1, 2, 2])),
    "_unsafe_view": ("in `matmul` of three axes", ("x", [1, 2, 2])),
    "clone": ("`x.clone()`", ("x",)),
    "detach": ("`x.detach()`", ("x",)),
    "alias": ("a view of all of x", ("x",)),
    "_to_copy": ("`(x > h).float()`", (TRUTH,)),
    "edgeseq::quantize": ("an int8 layer's input", ("x", 0.5, 0)),
    "edgeseq::dequantize": ("an int8 layer's answer", (INT8, 0.5, 0)),
    "edgeseq::qlinear": ("an int8 layer", (INT8, "Wq", "bq", "s", 0.5, 0, 0.5, 0)),
    "edgeseq::leaky": ("`Neurons`, a step", ("x", "h", "a", "a", *NEURONS)),
    "edgeseq::synaptic": ("`Neurons` with `alpha`, a step", ("x", "h", "x", "a", "a", "a", *NEURONS)),
}


def example() -> Builder:
    """A program that has the values that the entries of ``TORCH`` speak of."""
    made = Builder(Value("x", ROW), [Value("h", ROW), Value("one", (1, 4, 1))])
    shapes = {"W": (4, 4), "M": (4, 4), "b": (4,), "g": (4,), "s": (4,), "a": ()}
    for name, shape in shapes.items():
        made.constant(name, np.full(shape, 0.5, np.float32))
    made.constant("Wq", np.ones((4, 4), np.int8))
    made.constant("bq", np.ones(4, np.int32))
    assert (made.add("greater", "x", "h"), made.add("quantize", "x", scale=0.5, zero=0)) == (TRUTH, INT8)
    made.nodes.clear()  # the rules' own are what is looked at
    return made


def spoken(aten: str) -> tuple[str, str]:
    """How an ATen operator is written in PyTorch, and the operators that its rule makes of it."""
    alone = isinstance(operators().get(aten), Unary) or aten in ("square", "reciprocal", "rsqrt", "silu")
    default = (f"`{aten}(x)`", ("x",)) if alone else (f"`{aten}(x, h)`", ("x", "h"))
    written, arguments = TORCH.get(aten, default)
    builder = example()
    RULES[aten](builder, *arguments)
    kinds = Counter(node.operator for node in builder.nodes)
    made = ", ".join(f"{count} `{kind}`" if count > 1 else f"`{kind}`" for kind, count in kinds.items())
    return written, made or "nothing"


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
    known = [f"| {how} | `{aten}` | {made} |\n" for aten in RULES for how, made in [spoken(aten)]]
    return HEAD + "".join(lines) + TAIL + "".join(known)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(
            None if TARGET.read_text(encoding="utf-8") == document() else f"{TARGET} is out of date: run {__file__}"
        )
    TARGET.write_text(document(), encoding="utf-8")
    print(f"wrote {TARGET}")
