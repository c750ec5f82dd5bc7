"""How far two forms of a model are apart over many frames: what every link of the proof is made of. No torch.

A frame is compared as one vector: the logits (K,), then the packed state (S,). Errors are relative to
max(1, largest reference value), for the logits and for each named state apart; the largest of them counts.

In a model with int8 layers a float that differs in its last digit may be rounded to the other of two neighbours, and a
neuron beside its threshold may spike or not. Such frames are told from wrong ones by the reference itself:
:class:`Ties` sees how near each of its roundings and membranes came to one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseq.manifest import Link
from edgeseq.program import Program
from edgeseq.program.graph import Array, Node
from edgeseq.program.neurons import Leaky
from edgeseq.program.operators import operator

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Part = tuple[str, slice]

FORCED_TOLERANCE = 1e-5  # float32, one step from the same state
FREE_TOLERANCE = 1e-4  # float32, thousands of steps, each side with its own carried state
ANSWERS_TOLERANCE = 0.005  # int8: the share of frames that may have another argmax, running freely
RUNAWAY = 1.0  # int8, running freely: a value further off than the largest one there is has not healed
TIE = 1e-6  # relative: what float32 sums in another order are apart, before they are rounded to int8
SPIKE_TIE = 1e-5  # relative: how near a membrane has to be to its threshold for another engine to see it beyond
OWN_ROUNDING = "this engine rounds int8 layers in a way of its own: use litert, onnxruntime or a float32 model"
_LARGEST = sys.float_info.max / 2  # below what :func:`finite` makes of what is not a number
MOST_TIES = 0.02  # the share of frames that may be rounded the other way at a tie


def parts_of(labels: int, states: Sequence[tuple[str, int]]) -> list[Part]:
    """The named parts of a frame's vector, from the number of logits and the (name, size) of each state."""
    parts, at = [("the logits", slice(0, labels))], labels
    for name, size in states:
        parts.append((f"state {name}", slice(at, at + size)))
        at += size
    return parts


def steps_of(program: Program) -> float:
    """What one rounding the other way in each layer can come to: the coarsest scale, once a layer. 0 in float.

    One spike more or less can come to anything, as far as weights go: no bound (infinity) for a spiking program.
    """
    if spiking(program):
        return math.inf
    scales: list[float] = []
    rounded = {node.output.name for node in program.nodes if node.operator == "round"}
    for node in program.nodes:
        if node.operator == "dequantize":
            scales.append(float(node.attributes["scale"]))  # type: ignore[arg-type]
        elif rounded.intersection(node.inputs):
            scales += [float(program.constants[name].max()) for name in node.inputs if name in program.constants]
    layers = sum(node.operator in ("qlinear", "round") for node in program.nodes)
    return layers * max(scales, default=0.0)


def rounds(program: Program) -> bool:
    """Whether a program rounds anything: int8 layers, or a state on a grid."""
    return any(node.operator in ("quantize", "round") for node in program.nodes)


def integer_layers(program: Program) -> bool:
    """Whether a program has int8 layers, which not every engine rounds as the program does."""
    return any(node.operator in ("quantize", "qlinear") for node in program.nodes)


def spiking(program: Program) -> bool:
    """Whether a program has spiking neurons."""
    return any(isinstance(operator(node.operator), Leaky) for node in program.nodes)


def jumps(program: Program) -> bool:
    """Whether a last digit can become a step, as where something is rounded or spikes."""
    return rounds(program) or spiking(program)


class Ties:
    """Watches a program run: ``near`` says whether any rounding since the last ``clear`` came within ``TIE`` of a tie,
    or any membrane within ``SPIKE_TIE`` of its threshold.

    Sums of integers are exact, so only where floats are rounded two right engines can differ. With ``sums`` those of
    the int8 layers are watched too: the trained model computes them in float.
    """

    def __init__(self, *, sums: bool = False) -> None:
        self.near = False
        self._sums = sums

    def clear(self) -> None:
        """Begin a new frame."""
        self.near = False

    def watch(self, node: Node, inputs: Sequence[Array]) -> None:
        """Look at the inputs of one node."""
        if self.near:
            return
        neuron = operator(node.operator)
        if isinstance(neuron, Leaky):
            self.near = bool((neuron.margin(inputs, node.attributes) <= SPIKE_TIE).any())
            return
        at = self._rounded(node, inputs)
        if at is not None:
            distance = np.abs(at - np.floor(at) - 0.5)
            self.near = bool((distance <= TIE * max(1.0, float(np.abs(at).max(initial=0.0)))).any())

    def _rounded(self, node: Node, inputs: Sequence[Array]) -> Doubles | None:
        """What the node rounds, in steps; None where it rounds nothing."""
        attributes: Mapping[str, Any] = node.attributes
        if node.operator == "round":
            return inputs[0].astype(np.float64)
        if node.operator == "quantize":
            steps: Doubles = inputs[0].astype(np.float64) / attributes["scale"]
            return steps
        if node.operator == "qlinear" and self._sums:
            x, weight, bias, scale = (array.astype(np.float64) for array in inputs)
            sums: Doubles = (x - attributes["x_zero"]) @ weight.T + bias
            sums *= scale * attributes["x_scale"] / attributes["y_scale"]
            return sums
        return None


@dataclass
class Comparison:
    """The largest errors of each part so far, in frames near a tie and in all others."""

    parts: Sequence[Part]
    frames: int = 0
    flipped: int = 0
    coarse: int = 0  # of those: further off than floats ever are, so by a step of int8 or by a spike

    def __post_init__(self) -> None:
        size = max(part.stop for _, part in self.parts)
        self._reference, self._error, self._at_ties = np.zeros(size), np.zeros(size), np.zeros(size)

    def add(self, expected: Doubles, found: Doubles, near: bool = False) -> None:
        """One frame: what the reference says and what was found; ``near``: the reference came near a tie."""
        self.frames += 1
        np.maximum(self._reference, np.abs(expected), out=self._reference)
        difference = np.abs(found - expected)
        if near and self._differs(expected, difference):
            self.flipped += 1
            self.coarse += self._differs(expected, difference, FREE_TOLERANCE)
            np.maximum(self._at_ties, difference, out=self._at_ties)
        else:
            np.maximum(self._error, difference, out=self._error)  # lets NaN through

    def error(self) -> tuple[float, str]:
        """The largest relative error of all frames that no tie excuses, and the part it is in."""
        error, where, _ = self._largest(self._error)
        return error, where

    def _differs(self, expected: Doubles, difference: Doubles, tolerance: float = FORCED_TOLERANCE) -> bool:
        return any(
            difference[part].max() > tolerance * max(1.0, float(np.abs(expected[part]).max())) for _, part in self.parts
        )

    def _largest(self, difference: Doubles, *, absolute: bool = False) -> tuple[float, str, float]:
        """The largest error, relative, of all parts; the part, and what the error is relative to."""
        errors = []
        for name, part in self.parts:
            scale = max(1.0, float(self._reference[part].max()))
            errors.append((finite(difference[part].max() / scale), name, scale))
        return max(errors, key=lambda entry: entry[0] * (entry[2] if absolute else 1.0))

    def link(self, name: str, steps: float, *, exact: bool = True) -> Link:
        """The teacher-forced link. ``steps``: see :func:`steps_of`; not ``exact``: the engine rounds in its own way.

        Where there is no bound, as in spiking programs, every engine is held to what an exact one is.
        """
        if 0 < steps < math.inf and not exact:  # its rounding is not told from a tie's, and both come to a step
            error, where, scale = self._largest(np.maximum(self._error, self._at_ties), absolute=True)
            tolerance = max(FORCED_TOLERANCE, steps / scale)
            note = f"largest in {where}; {OWN_ROUNDING}" if error else "equal"
            return Link(name, self.frames, error, tolerance, error <= tolerance, note=note)
        error, where = self.error()
        notes = [f"largest in {where}" if error else "equal"]
        passed = error <= FORCED_TOLERANCE
        if self.flipped:
            worst, _, scale = self._largest(self._at_ties, absolute=True)
            passed = passed and self.coarse <= MOST_TIES * self.frames and worst * scale <= min(steps, _LARGEST)
            frames = "1 frame" if self.flipped == 1 else f"{self.flipped} frames"
            way = "spiked or rounded" if math.isinf(steps) else "rounded"
            notes.append(f"{frames} {way} the other way at a tie (by {worst:.1e})")
        return Link(name, self.frames, error, FORCED_TOLERANCE, passed, note="; ".join(notes))


def free_link(
    name: str,
    comparison: Comparison,
    reference: Floats,
    found: Floats,
    *,
    tolerance: float,
    rounded: bool,
    exact: bool = True,
) -> Link:
    """The free-running link of answers ``reference`` and ``found`` (N, K); ``comparison`` holds the values compared.

    In float the error counts, and every answer must be the same except at ties. Where the model rounds or spikes
    (``rounded``: :func:`jumps`), one value that falls on the other side changes what follows, and heals: there the
    share of frames with another answer counts, and values may not run away. Ties count among them, unless all values
    are within the tolerance: then nothing fell on the other side, and two outputs that spike alike are as near as that.
    """
    scale = max(1.0, float(np.abs(reference).max()))
    agreement, wrong, ties = agreement_of(reference, found, tolerance * scale)
    error, where = comparison.error()
    growth = slope(np.abs(np.subtract(found, reference, dtype=np.float64)).max(-1) / scale)
    notes = [f"largest in {where}"] if error else ["equal"]
    tied = [f"{ties} frames differ where the two likeliest labels are closer than the tolerance"] if ties else []
    if rounded:
        near = error <= tolerance
        notes = [f"values within {error:.1e}, {notes[0]}"] if error else notes
        notes += tied if near else []
        share = wrong / len(reference) if near else round(1 - agreement, 12)
        passed = share <= ANSWERS_TOLERANCE and error <= RUNAWAY
        notes += [] if exact else [OWN_ROUNDING]
        note = "; ".join(notes)
        return Link(name, len(reference), share, ANSWERS_TOLERANCE, passed, agreement, growth, note, gate="answers")
    notes += [f"another answer in {wrong} frames"] if wrong else []
    notes += tied
    passed = error <= tolerance and not wrong
    return Link(name, len(reference), error, tolerance, passed, agreement, growth, "; ".join(notes))


def agreement_of(reference: Floats, found: Floats, tolerance: float) -> tuple[float, int, int]:
    """Share of frames (N, K) with the same argmax; how many of the others are wrong, and how many are ties."""
    differs = reference.argmax(-1) != found.argmax(-1)
    if reference.shape[-1] < 2:
        return 1.0, 0, 0
    top = np.sort(reference, -1)[:, -2:]
    tie = (top[:, 1] - top[:, 0]) < tolerance
    return float(1 - differs.mean()), int((differs & ~tie).sum()), int((differs & tie).sum())


def slope(errors: Doubles) -> float:
    """Growth of the error per 1,000 frames, by least squares; 0 where there is nothing to fit."""
    if len(errors) < 2 or not np.isfinite(errors).all():
        return 0.0
    return 1000 * float(np.polyfit(np.arange(len(errors)), errors, 1)[0])


def finite(error: float) -> float:
    """The error, or the largest float for what is not a number: JSON cannot say NaN, and it must not get lost."""
    return float(error) if np.isfinite(error) else sys.float_info.max
