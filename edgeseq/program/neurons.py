"""Leaky integrate-and-fire neurons, each population a single operator: its spikes and its next states.

The equations are those of :mod:`edgeseq.models.neurons`, in the order of operations written there, so that float32
gives the same spikes in training, here and in every file that is given the same currents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from edgeseq.program.base import Attributes, OnnxGraph, Operator, TfliteGraph
from edgeseq.program.graph import Array, Node, Shape

RESETS = ("subtract", "subtract_decayed", "zero", "none")
LOWEST_THRESHOLD = 2.0**-30  # from there on the distance of two neighbouring floats, times STEEP, is at least 1
STEEP = np.float32(2.0**60)
_RELU = 1  # schema: ActivationFunctionType


class _Math:
    """The arithmetic that an expansion is written in, for one target; ``spike`` is where they differ."""

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        raise NotImplementedError

    def sub(self, a: Any, b: Any) -> Any:
        """a - b."""
        raise NotImplementedError

    def mul(self, a: Any, b: Any) -> Any:
        """a · b."""
        raise NotImplementedError

    def fired(self, membrane: Any, threshold: Any, height: Any = None) -> Any:
        """``height`` (1 if None) where the membrane is above the threshold, 0 elsewhere."""
        raise NotImplementedError


class _Numpy(_Math):
    def __init__(self, *, inclusive: bool) -> None:
        self._above = np.greater_equal if inclusive else np.greater

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def sub(self, a: Array, b: Array) -> Array:
        return a - b

    def mul(self, a: Array, b: Array) -> Array:
        return a * b

    def fired(self, membrane: Array, threshold: Array, height: Array | None = None) -> Array:
        spikes: Array = self._above(membrane, threshold).astype(membrane.dtype)
        return spikes if height is None else spikes * height


class _Onnx(_Math):
    def __init__(self, graph: OnnxGraph, *, inclusive: bool) -> None:
        self.graph = graph
        self._above = "GreaterOrEqual" if inclusive else "Greater"

    def add(self, a: str, b: str) -> str:
        return self.graph.add("Add", [a, b])

    def sub(self, a: str, b: str) -> str:
        return self.graph.add("Sub", [a, b])

    def mul(self, a: str, b: str) -> str:
        return self.graph.add("Mul", [a, b])

    def fired(self, membrane: str, threshold: str, height: str | None = None) -> str:
        above = self.graph.add(self._above, [membrane, threshold])
        if height is None:
            return self.graph.add("Cast", [above], to=1)  # float32
        return self.graph.add("Where", [above, height, self.graph.constant(np.zeros((), np.float32))])


class _Tflite(_Math):
    """Comparisons would end XNNPACK's partition: a spike is min(relu((v - θ) · 2⁶⁰), 1).

    Three populations of 70 and their maps are one partition so, and 2.7 µs a step; with GREATER and CAST they are five
    with 12 operators outside of them, and 3.4 µs (x86-64).

    That is exact. Near θ the difference of two floats has no rounding (Sterbenz), so it is 0 or has the right sign; and
    times 2⁶⁰ the smallest one that is not 0 is above 1. For ≥ the float below θ stands in its place.
    """

    def __init__(self, graph: TfliteGraph, shape: Shape, *, inclusive: bool) -> None:
        self.graph, self.shape, self.inclusive = graph, shape, inclusive

    def _binary(self, kind: str, options: str, a: int, b: int, **fields: Any) -> int:
        return self.graph.add(kind, [a, b], self.shape, options=options, **fields)

    def add(self, a: int, b: int) -> int:
        return self._binary("ADD", "AddOptions", a, b)

    def sub(self, a: int, b: int) -> int:
        return self._binary("SUB", "SubOptions", a, b)

    def mul(self, a: int, b: int) -> int:
        return self._binary("MUL", "MulOptions", a, b)

    def fired(self, membrane: int, threshold: int, height: int | None = None) -> int:
        level = self.graph.array(threshold)
        if self.inclusive:
            level = np.nextafter(level, np.float32(-np.inf))
        distance = self.sub(membrane, self.graph.constant(np.asarray(level, np.float32)))
        steep = self.graph.constant(np.asarray(STEEP))
        above = self._binary("MUL", "MulOptions", distance, steep, fusedActivationFunction=_RELU)
        top = self.graph.constant(np.ones((), np.float32)) if height is None else height
        return self.graph.add("MINIMUM", [above, top], self.shape)


def _charge(do: _Math, current: Any, membrane: Any, beta: Any, threshold: Any, *, reset: str, delay: bool) -> Any:
    """The membrane that is compared with the threshold."""
    late = delay and reset != "none"
    if late and reset == "zero":
        membrane = do.sub(membrane, do.mul(do.fired(membrane, threshold), membrane))
    if late and reset == "subtract_decayed":
        membrane = do.sub(membrane, do.fired(membrane, threshold, threshold))
    charged = do.add(do.mul(membrane, beta), current)
    if late and reset == "subtract":
        charged = do.sub(charged, do.fired(membrane, threshold, threshold))
    return charged


def _leaky(
    do: _Math, current: Any, membrane: Any, beta: Any, threshold: Any, *, reset: str, delay: bool
) -> tuple[Any, Any]:
    """Spikes and next membrane."""
    charged = _charge(do, current, membrane, beta, threshold, reset=reset, delay=delay)
    spikes = do.fired(charged, threshold)
    if delay or reset == "none":
        return spikes, charged
    return spikes, do.sub(charged, do.mul(spikes, charged if reset == "zero" else threshold))


class Leaky(Operator):
    """s = [v > θ], v ← β v + I - r θ, r = [v before > θ]; inputs I, v, β, θ; results s (0 or 1) and v.

    That is reset "subtract" with ``delay``; the other resets, and what ``delay`` and ``inclusive`` (≥) mean, are in
    edgeseq/models/neurons.py. β and θ are constants, θ at least 2⁻³⁰.
    """

    name = "leaky"
    accepts = ("reset", "delay", "inclusive")
    others: ClassVar[tuple[str, ...]] = ("membrane",)
    constant_inputs: ClassVar[tuple[int, ...]] = (2, 3)
    operations: ClassVar[int] = 6
    _inputs: ClassVar[tuple[str, ...]] = ("current", "membrane", "beta", "threshold")

    def shape(self, shapes: Sequence[Shape], attributes: Attributes) -> Shape:
        current, *states = shapes[: 1 + len(self.others)]
        if any(state != current for state in states):
            raise ValueError("the states need the shape of the current")
        if len(shapes) != len(self._inputs) or any(np.broadcast_shapes(each, current) != current for each in shapes):
            raise ValueError(f"inputs {', '.join(self._inputs)} are needed, the constants of one value or one a neuron")
        if not all(isinstance(attributes[name], bool) for name in ("delay", "inclusive")):
            raise ValueError("attributes delay and inclusive must be true or false")
        if attributes["reset"] not in RESETS:
            raise ValueError(f"reset {attributes['reset']!r}; {', '.join(RESETS)} are known")
        if attributes["reset"] == "subtract_decayed" and not attributes["delay"]:
            raise ValueError("reset 'subtract_decayed' needs a delay")
        return current

    def check_constants(self, inputs: Sequence[Array | None], attributes: Attributes) -> None:
        threshold = inputs[-1]
        if threshold is None or not bool(((threshold >= LOWEST_THRESHOLD) & np.isfinite(threshold)).all()):
            raise ValueError(f"the threshold must be at least {LOWEST_THRESHOLD:.1e}, not {threshold}")

    def run(self, *inputs: Array, reset: str, delay: bool, inclusive: bool) -> tuple[Array, ...]:  # type: ignore[override]
        found: tuple[Array, ...] = self._expand(_Numpy(inclusive=inclusive), inputs, reset=reset, delay=delay)
        return found

    def margin(self, inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
        """How far the membranes that a step compares with their threshold are from it, relative to max(1, θ)."""
        do = _Numpy(inclusive=attributes["inclusive"])
        current, membrane, beta, threshold = self._alone(do, inputs)
        charged = _charge(do, current, membrane, beta, threshold, reset=attributes["reset"], delay=attributes["delay"])
        distance: Array = np.abs(charged - threshold) / np.maximum(1, np.abs(threshold))
        return distance

    def onnx(self, graph: OnnxGraph, inputs: Sequence[str], attributes: Attributes) -> list[str]:
        do = _Onnx(graph, inclusive=bool(attributes["inclusive"]))
        return list(self._expand(do, inputs, reset=attributes["reset"], delay=attributes["delay"]))

    def tflite(self, graph: TfliteGraph, inputs: Sequence[int], attributes: Attributes, shape: Shape) -> list[int]:
        do = _Tflite(graph, shape, inclusive=bool(attributes["inclusive"]))
        return list(self._expand(do, inputs, reset=attributes["reset"], delay=attributes["delay"]))

    def elementwise(self, shapes: Sequence[Shape], result: Shape) -> int:
        return self.operations * int(np.prod(result, dtype=np.int64))

    def _alone(self, do: _Math, inputs: Sequence[Any]) -> Sequence[Any]:
        """The inputs of the neuron without its synapse."""
        return inputs

    def _expand(self, do: _Math, inputs: Sequence[Any], *, reset: Any, delay: Any) -> tuple[Any, ...]:
        current, *rest = self._alone(do, inputs)
        spikes, membrane = _leaky(do, current, *rest, reset=reset, delay=delay)
        return (spikes, membrane) if len(self.others) == 1 else (spikes, current, membrane)


class Synaptic(Leaky):
    """i ← α i + I, then `leaky` on the current i; inputs I, i, v, α, β, θ; results s (0 or 1), i and v."""

    name = "synaptic"
    others = ("current", "membrane")
    constant_inputs = (3, 4, 5)
    operations = 8
    _inputs = ("current", "synapse", "membrane", "alpha", "beta", "threshold")

    def _alone(self, do: _Math, inputs: Sequence[Any]) -> Sequence[Any]:
        current, synapse, membrane, alpha, beta, threshold = inputs
        return do.add(do.mul(synapse, alpha), current), membrane, beta, threshold


def population(node: Node) -> str:
    """What the model calls the population of a node: the module that its threshold belongs to."""
    threshold = node.inputs[-1]
    if threshold.endswith(".threshold"):
        return threshold.removesuffix(".threshold")
    return node.origin or node.output.name


OPERATORS: tuple[Operator, ...] = (Leaky(), Synaptic())
