"""How each operator of a captured graph is said in the step program's own: one small rule per operator.

A rule gets the builder, the node's arguments (names of values for tensors, Python values for the rest) and returns the
name of the result, or a list of names where ATen returns several tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeseq.program import Builder

Result = str | list[str]
Rule = Callable[..., Result]


class Refused(Exception):
    """An argument of a known operator that the program cannot say; the message says what is accepted."""


def _scalar(b: Builder, value: Any) -> str:
    """A value's name, or a number as a constant."""
    return value if isinstance(value, str) else b.constant(f"scalar_{value}", np.array(value, np.float32))


def _axis(b: Builder, x: str, dim: int) -> int:
    return dim % len(b.values[x].shape)


def _axes(b: Builder, x: str, dims: Sequence[int] | int | None) -> list[int]:
    rank = len(b.values[x].shape)
    dims = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    return sorted(dim % rank for dim in dims)


def _shape(b: Builder, x: str) -> tuple[int, ...]:
    return b.values[x].shape


def _reshape(b: Builder, x: str, shape: Sequence[int]) -> str:
    known = -int(np.prod(shape)) or 1
    filled = [b.values[x].size // known if size == -1 else int(size) for size in shape]
    return x if tuple(filled) == _shape(b, x) else b.add("reshape", x, shape=filled)


def _same(b: Builder, x: str, *_: Any, **__: Any) -> str:
    return x


def _unary(name: str) -> Rule:
    return lambda b, x: b.add(name, x)


def _binary(name: str) -> Rule:
    def rule(b: Builder, x: Any, y: Any, alpha: float = 1) -> str:
        y = _scalar(b, y)
        if alpha != 1:
            y = b.add("mul", y, _scalar(b, alpha))
        return b.add(name, _scalar(b, x), y)

    return rule


def _compare(name: str, *, swap: bool) -> Rule:
    def rule(b: Builder, x: str, y: Any) -> str:
        y = _scalar(b, y)
        return b.add(name, y, x) if swap else b.add(name, x, y)

    return rule


def _linear(b: Builder, x: str, weight: str, bias: str | None = None) -> str:
    if weight not in b.constants:
        raise Refused("its matrix must be a constant of the model")
    return b.add("linear", x, weight, *([bias] if bias else []))


def _matmul(b: Builder, x: str, y: str) -> str:
    matrix = b.constants.get(y)
    if matrix is None or matrix.ndim != 2:
        raise Refused("the right side must be a constant matrix of the model")
    return b.add("linear", x, b.constant(f"{y}.T", np.ascontiguousarray(matrix.T)))


def _addmm(b: Builder, bias: str, x: str, y: str) -> str:
    product = _matmul(b, x, y)
    return b.add("add", product, bias)


def _gelu(b: Builder, x: str, approximate: str = "none") -> str:
    if approximate != "none":
        raise Refused("only the exact form is known: GELU(approximate='none')")
    return b.add("gelu", x)


def _silu(b: Builder, x: str) -> str:
    return b.add("mul", x, b.add("sigmoid", x))


def _glu(b: Builder, x: str, dim: int = -1) -> str:
    axis = _axis(b, x, dim)
    half = _shape(b, x)[axis] // 2
    gate = b.add("slice", x, axis=axis, start=half, stop=2 * half)
    return b.add("mul", b.add("slice", x, axis=axis, start=0, stop=half), b.add("sigmoid", gate))


def _leaky_relu(b: Builder, x: str, slope: float = 0.01) -> str:
    return b.add("sub", b.add("relu", x), b.add("mul", b.add("relu", b.add("neg", x)), _scalar(b, slope)))


def _pow(b: Builder, x: str, exponent: Any) -> str:
    if exponent == 2:
        return b.add("mul", x, x)
    if exponent == 0.5:
        return b.add("sqrt", x)
    raise Refused(f"exponent {exponent}; 2 and 0.5 are known")


def _reciprocal(b: Builder, x: str) -> str:
    return b.add("div", _scalar(b, 1.0), x)


def _rsqrt(b: Builder, x: str) -> str:
    return _reciprocal(b, b.add("sqrt", x))


def _clamp(b: Builder, x: str, low: Any = None, high: Any = None) -> str:
    x = x if low is None else b.add("maximum", x, _scalar(b, low))
    return x if high is None else b.add("minimum", x, _scalar(b, high))


def _hardtanh(b: Builder, x: str, low: float = -1.0, high: float = 1.0) -> str:
    return _clamp(b, x, low, high)  # a captured graph leaves out arguments that have their default value


def _reduce(name: str) -> Rule:
    def rule(b: Builder, x: str, dims: Any = None, keepdim: bool = False, **_: Any) -> str:
        axes = _axes(b, x, dims)
        reduced = b.add(name, x, axes=axes)
        left = [size for axis, size in enumerate(_shape(b, x)) if axis not in axes]
        return reduced if keepdim else _reshape(b, reduced, left)

    return rule


def _layer_norm(b: Builder, x: str, shape: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> str:
    if len(shape) != 1:
        raise Refused(f"normalized shape {list(shape)}; only the last axis is known")
    size = shape[0]
    gain = gain or b.constant(f"ones_{size}", np.ones(size, np.float32))
    bias = bias or b.constant(f"zeros_{size}", np.zeros(size, np.float32))
    return b.add("layer_norm", x, gain, bias, epsilon=float(eps))


def _batch_norm(
    b: Builder, x: str, gain: Any, bias: Any, mean: str, var: str, momentum: float, eps: float
) -> list[str]:
    """In eval mode: an affine map per channel, computed here once in float64. ATen's other two results have no use."""
    spread = np.sqrt(b.constants[var].astype(np.float64) + eps)
    scale = (b.constants[gain] if gain else 1.0) / spread
    shift = (b.constants[bias] if bias else 0.0) - b.constants[mean] * scale
    per_channel = (1, -1, *[1] * (len(_shape(b, x)) - 2))
    name = mean.removesuffix(".running_mean")
    scaled = b.add("mul", x, b.constant(f"{name}.scale", scale.reshape(per_channel).astype(np.float32)))
    return [b.add("add", scaled, b.constant(f"{name}.shift", shift.reshape(per_channel).astype(np.float32)))]


def _softmax(b: Builder, x: str, dim: int, *_: Any) -> str:
    if _axis(b, x, dim) != len(_shape(b, x)) - 1:
        raise Refused(f"dim {dim}; only the last axis is known")
    return b.add("softmax", x)


def _slice(b: Builder, x: str, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> str:
    if step != 1:
        raise Refused(f"step {step}; only step 1 is known")
    axis = _axis(b, x, dim)
    first, last, _ = slice(start, stop).indices(_shape(b, x)[axis])
    if (first, last) == (0, _shape(b, x)[axis]):
        return x
    return b.add("slice", x, axis=axis, start=first, stop=last)


def _select(b: Builder, x: str, dim: int, index: int) -> str:
    axis = _axis(b, x, dim)
    shape = _shape(b, x)
    index %= shape[axis]
    return _reshape(b, _slice(b, x, axis, index, index + 1), [*shape[:axis], *shape[axis + 1 :]])


def _split(b: Builder, x: str, sizes: int | Sequence[int], dim: int = 0) -> list[str]:
    total = _shape(b, x)[_axis(b, x, dim)]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_slice(b, x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _cat(b: Builder, parts: Sequence[str], dim: int = 0) -> str:
    return b.add("concat", *parts, axis=_axis(b, parts[0], dim)) if len(parts) > 1 else parts[0]


def _stack(b: Builder, parts: Sequence[str], dim: int = 0) -> str:
    return _cat(b, [_unsqueeze(b, part, dim) for part in parts], dim)


def _unsqueeze(b: Builder, x: str, dim: int) -> str:
    shape = list(_shape(b, x))
    shape.insert(dim % (len(shape) + 1), 1)
    return _reshape(b, x, shape)


def _squeeze(b: Builder, x: str, dims: Any = None) -> str:
    axes = _axes(b, x, dims)
    return _reshape(b, x, [n for axis, n in enumerate(_shape(b, x)) if n != 1 or axis not in axes])


def _permute(b: Builder, x: str, dims: Sequence[int]) -> str:
    axes = [_axis(b, x, dim) for dim in dims]
    return x if axes == sorted(axes) else b.add("transpose", x, axes=axes)


def _transpose(b: Builder, x: str, first: int, second: int) -> str:
    axes = list(range(len(_shape(b, x))))
    first, second = _axis(b, x, first), _axis(b, x, second)
    axes[first], axes[second] = axes[second], axes[first]
    return _permute(b, x, axes)


def _expand(b: Builder, x: str, shape: Sequence[int], **_: Any) -> str:
    if _broadcast(b, x, shape) == _shape(b, x):
        return x
    return b.add(
        "mul", x, b.constant("ones_" + "x".join(map(str, shape)), np.ones(_broadcast(b, x, shape), np.float32))
    )


def _broadcast(b: Builder, x: str, shape: Sequence[int]) -> tuple[int, ...]:
    own = (1,) * (len(shape) - len(_shape(b, x))) + _shape(b, x)
    return tuple(size if wanted == -1 else int(wanted) for size, wanted in zip(own, shape, strict=True))


def _where(b: Builder, condition: str, x: Any, y: Any) -> str:
    return b.add("where", condition, _scalar(b, x), _scalar(b, y))


def _to(b: Builder, x: str, *_: Any, dtype: Any = None, **__: Any) -> str:
    """A change of type: a truth value becomes 0 or 1, float32 stays as it is."""
    import torch

    if dtype not in (None, torch.float32):
        raise Refused(f"type {dtype}; a step is computed in float32")
    return _where(b, x, 1.0, 0.0) if b.values[x].dtype == "bool" else x


def _quantize(b: Builder, x: str, scale: float, zero: int) -> str:
    return b.add("quantize", x, scale=scale, zero=zero)


def _dequantize(b: Builder, q: str, scale: float, zero: int) -> str:
    return b.add("dequantize", q, scale=scale, zero=zero)


def _qlinear(
    b: Builder,
    x: str,
    weight: str,
    bias: str,
    weight_scale: str,
    x_scale: float,
    x_zero: int,
    y_scale: float,
    y_zero: int,
) -> str:
    parameters = {"x_scale": x_scale, "x_zero": x_zero, "y_scale": y_scale, "y_zero": y_zero}
    return b.add("qlinear", x, weight, bias, weight_scale, **parameters)


def _leaky(
    b: Builder, current: str, membrane: str, beta: str, threshold: str, reset: str, delay: bool, inclusive: bool
) -> list[str]:
    inputs = (current, membrane, beta, threshold)
    return b.add_all("leaky", *inputs, reset=reset, delay=delay, inclusive=inclusive)


def _synaptic(
    b: Builder,
    current: str,
    synapse: str,
    membrane: str,
    alpha: str,
    beta: str,
    threshold: str,
    reset: str,
    delay: bool,
    inclusive: bool,
) -> list[str]:
    inputs = (current, synapse, membrane, alpha, beta, threshold)
    return b.add_all("synaptic", *inputs, reset=reset, delay=delay, inclusive=inclusive)


RULES: dict[str, Rule] = {
    "linear": _linear, "matmul": _matmul, "mm": _matmul, "addmm": _addmm,
    "add": _binary("add"), "sub": _binary("sub"), "mul": _binary("mul"), "div": _binary("div"),
    "rsub": lambda b, x, y, alpha=1: _binary("sub")(b, y, x, alpha),
    "minimum": _binary("minimum"), "maximum": _binary("maximum"),
    "neg": _unary("neg"), "abs": _unary("abs"), "exp": _unary("exp"), "log": _unary("log"), "sqrt": _unary("sqrt"),
    "rsqrt": _rsqrt, "reciprocal": _reciprocal, "pow": _pow, "square": lambda b, x: b.add("mul", x, x),
    "round": _unary("round"), "relu": _unary("relu"), "sigmoid": _unary("sigmoid"), "tanh": _unary("tanh"),
    "gelu": _gelu, "silu": _silu,
    "glu": _glu, "leaky_relu": _leaky_relu, "clamp": _clamp, "clamp_min": _clamp, "hardtanh": _hardtanh,
    "gt": _compare("greater", swap=False), "lt": _compare("greater", swap=True),
    "ge": _compare("greater_equal", swap=False), "le": _compare("greater_equal", swap=True), "where": _where,
    "sum": _reduce("sum"), "mean": _reduce("mean"), "layer_norm": _layer_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "softmax": _softmax, "slice": _slice, "select": _select, "split": _split, "split_with_sizes": _split,
    "cat": _cat, "stack": _stack, "unsqueeze": _unsqueeze, "squeeze": _squeeze, "permute": _permute,
    "transpose": _transpose, "t": lambda b, x: _transpose(b, x, 0, 1), "expand": _expand,
    "view": _reshape, "_unsafe_view": _reshape, "clone": _same, "detach": _same, "alias": _same, "_to_copy": _to,
    "edgeseq::quantize": _quantize, "edgeseq::dequantize": _dequantize, "edgeseq::qlinear": _qlinear,
    "edgeseq::leaky": _leaky, "edgeseq::synaptic": _synaptic,
}  # fmt: skip
