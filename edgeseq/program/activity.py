"""How busy a step program is on real frames, by NeuroBench's definitions (Yik et al., Nature Communications 2025).

    dense synaptic operations      weights of the trained linear maps, each for every row it is applied to
    effective synaptic operations  non-zero inputs times the non-zero weights that they meet; biases are none
    AC, MAC                        a whole call of a layer (one step of one batch) is made of accumulates if all its
                                   inputs are -1, 0 or 1, as an all-zero call is, and of multiply-accumulates otherwise
    activation sparsity            1 - non-zero answers / answers of neurons, ReLU and sigmoid
    connection sparsity            zero weights / weights of the trained linear maps, to 4 decimals
    membrane updates               membranes that a step changed, and all of them at a stream's first step

An int8 layer counts as its float twin does: its zero is the zero point, its one what the grid rounds 1 to.

A trained linear map is one whose constant is called ``weight``, as torch names it, less the columns of it that are taps
of a memory. Everything else that a step computes is invisible to these definitions, and stands beside them: other
products, as those of a memory or of diagonal states (``memory_macs``), and ``elementwise`` values.

Zeros are counted here, not skipped: a dense kernel does every operation, whatever its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from edgeseq.errors import InputError
from edgeseq.program.cost import NEURONS, cost
from edgeseq.program.graph import Array, Node, Program
from edgeseq.program.interpret import evaluate
from edgeseq.program.operators import operator
from edgeseq.program.quantized import LOWEST

LINEAR = ("linear", "qlinear")
SILENT = ("relu", "sigmoid")  # the activations, beside neurons, that NeuroBench looks at
SNNTORCH_BYTES = 12  # of each population of snnTorch beside its constants: spike factor (float32), reset mode (int64)


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A trained linear map. ``dense`` is of one step; the effective operations are of all frames together.

    ``values`` are the inputs and outputs of a step, ``value_bytes`` and ``weight_bytes`` the bytes of one of each.
    """

    weight: str
    weights: int
    zeros: int
    biases: int
    dense: int
    effective_macs: int
    effective_acs: int
    integer: bool
    weight_bytes: int
    values: int
    value_bytes: int


class Activations(msgspec.Struct, frozen=True, kw_only=True):
    """Values that may be 0: the spikes of a population of neurons, or what a ReLU or sigmoid lets through.

    ``active`` of them were not 0, in all frames together. A population also has ``updates`` of its membranes, also in
    all frames, each of so many ``operations`` as NeuroBench counts.
    """

    name: str
    operator: str
    size: int
    active: int
    updates: int = 0
    operations: int = 0

    @property
    def neurons(self) -> bool:
        """Whether they are the spikes of neurons."""
        return self.operator in NEURONS


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What ``frames`` frames of ``streams`` streams made a program do.

    ``memory_macs`` and ``elementwise`` are of one step, and so are the bytes that it reads and writes.
    """

    streams: int
    frames: int
    batch: int
    layers: tuple[Layer, ...]
    activations: tuple[Activations, ...]
    memory_macs: int
    elementwise: int
    constant_bytes: int
    state_bytes: int

    @property
    def maps(self) -> tuple[Layer, ...]:
        """The layers, one of those that share their weights."""
        return tuple({layer.weight: layer for layer in self.layers}.values())

    @property
    def dense(self) -> int:
        """Dense synaptic operations of a step."""
        return sum(layer.dense for layer in self.layers)

    @property
    def effective_macs(self) -> float:
        """Effective multiply-accumulates of a step, on average."""
        return sum(layer.effective_macs for layer in self.layers) / self.frames

    @property
    def effective_acs(self) -> float:
        """Effective accumulates of a step, on average."""
        return sum(layer.effective_acs for layer in self.layers) / self.frames

    @property
    def populations(self) -> tuple[Activations, ...]:
        """The activations that are neurons."""
        return tuple(found for found in self.activations if found.neurons)

    @property
    def membrane_updates(self) -> float:
        """Membrane updates of a step, on average."""
        return sum(found.updates for found in self.populations) / self.frames

    @property
    def neuron_operations(self) -> float:
        """Operations of the membrane updates of a step, on average."""
        return sum(found.updates * found.operations for found in self.populations) / self.frames

    @property
    def activation_sparsity(self) -> float | None:
        """The share of zeros among the activations; None without any."""
        values = sum(found.size for found in self.activations) * self.frames
        return 1 - sum(found.active for found in self.activations) / values if values else None

    @property
    def connection_sparsity(self) -> float:
        """The share of zeros among the weights, to 4 decimals; 0 without any."""
        weights = sum(layer.weights for layer in self.maps)
        return round(sum(layer.zeros for layer in self.maps) / weights, 4) if weights else 0.0

    @property
    def parameters(self) -> int:
        """Weights and biases of the trained linear maps."""
        return sum(layer.weights + layer.biases for layer in self.maps)

    def neurobench(self) -> dict[str, Any]:
        """The metrics under NeuroBench's names: operations are per sample, which here is a stream.

        The footprint is what snnTorch's modules of these sizes and types hold; "after run" the states of the last
        batch are among their buffers.
        """
        footprint = self.constant_bytes + SNNTORCH_BYTES * len(self.populations)
        last = self.streams % self.batch or self.batch
        steps = self.frames / self.streams
        dense_updates = sum(found.size * found.operations for found in self.populations) * steps
        return {
            "Footprint": footprint,
            "FootprintAfterRun": footprint + last * self.state_bytes,
            "ParameterCount": self.parameters,
            "ConnectionSparsity": self.connection_sparsity,
            "ActivationSparsity": self.activation_sparsity or 0.0,
            "ActivationSparsityByLayer": {
                found.name: 1 - found.active / (found.size * self.frames) for found in self.activations
            },
            "SynapticOperations": {
                "Effective_MACs": self.effective_macs * steps,
                "Effective_ACs": self.effective_acs * steps,
                "Dense": self.dense * steps,
            },
            "MembraneUpdates": self.membrane_updates * steps,
            "NeuronOperations": {
                "Effective Neuron Ops": self.neuron_operations * steps,
                "Neuron Dense Ops": dense_updates,
            },
        }


def measure(
    program: Program, streams: Sequence[Array], batch: int = 1, folded: Mapping[str, int] | None = None
) -> Activity:
    """Run ``streams``, each of frames (T, C) and from the program's own start, and count.

    ``batch`` streams at a time make one call of a layer, which decides between MACs and ACs; it changes nothing else.
    ``folded``: by the name of a weight, how many of its first columns are taps of a memory, and so no synapses.

    Raises:
        InputError: there is no frame, or frames are not as wide as the program's input.
    """
    frames = sum(map(len, streams))
    if not frames:
        raise InputError("there is no frame to count on")
    width = program.x.shape[-1]
    for stream in streams:
        if stream.ndim != 2 or stream.shape[1] != width:
            raise InputError(f"frames of shape {stream.shape[1:]} do not fit the program, which reads ({width},)")
    taps = folded or {}
    counters: list[_Counter] = [
        _layer(program, node, taps.get(node.inputs[1], 0)) for node in program.nodes if _is_synapse(node)
    ]
    counters += [_activations(node) for node in program.nodes if _is_activation(node)]
    for start in range(0, len(streams), batch):
        _run(program, streams[start : start + batch], counters)
    spent = cost(program)
    layers = tuple(found.result() for found in counters if isinstance(found, _LayerCounter))
    activations = tuple(found.result() for found in counters if isinstance(found, _ActivationCounter))
    own = sum(_own_elementwise(program, node) for node in program.nodes if node.operator in NEURONS)
    return Activity(
        streams=len(streams),
        frames=frames,
        batch=batch,
        layers=layers,
        activations=activations,
        memory_macs=spent.macs + spent.acs - sum(layer.dense for layer in layers),
        elementwise=spent.elementwise - own,
        constant_bytes=spent.constant_bytes,
        state_bytes=spent.state_bytes,
    )


def _run(program: Program, streams: Sequence[Array], counters: Sequence[_Counter]) -> None:
    """Run the streams of one batch side by side; counters see every stream's values, and the end of each step."""
    step = evaluate(program)
    start = {state.name: np.full(state.before.shape, state.initial, np.float32) for state in program.states}
    states: list[Mapping[str, Array]] = [start] * len(streams)
    for t in range(max(map(len, streams))):
        for number, stream in enumerate(streams):
            if t < len(stream):
                values = step(np.asarray(stream[t : t + 1], np.float32), states[number])
                states[number] = {state.name: values[state.after] for state in program.states}
                for counter in counters:
                    counter.see(values, first=t == 0)
        for counter in counters:
            if isinstance(counter, _LayerCounter):
                counter.end()


@dataclass
class _LayerCounter:
    node: Node
    layer: Layer  # with no operation yet
    taps: int  # inputs ahead of those that count
    columns: Array  # non-zero weights of each input that counts
    zero: int  # that an input of 0 is stored as
    one: float  # that an input of 1 is stored as, less the zero
    total: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})  # by whether the call was ternary
    call: int = 0
    ternary: bool = True

    def see(self, values: Mapping[str, Array], *, first: bool) -> None:
        x = values[self.node.inputs[0]]
        x = x.reshape(-1, x.shape[-1])[:, self.taps :]
        if self.zero:
            x = x.astype(np.int32) - self.zero
        present = x != 0
        self.call += int(present.sum(0) @ self.columns)
        self.ternary = self.ternary and bool((np.abs(x[present]) == self.one).all())

    def end(self) -> None:
        self.total[self.ternary] += self.call
        self.call, self.ternary = 0, True

    def result(self) -> Layer:
        return msgspec.structs.replace(self.layer, effective_macs=self.total[False], effective_acs=self.total[True])


@dataclass
class _ActivationCounter:
    node: Node
    activations: Activations  # none of them active yet
    zero: int
    active: int = 0
    updates: int = 0

    def see(self, values: Mapping[str, Array], *, first: bool) -> None:
        self.active += int(np.count_nonzero(values[self.node.output.name] != self.zero))
        if self.activations.neurons:
            before, after = values[_membrane(self.node)], values[self.node.results[-1].name]
            self.updates += after.size if first else int(np.count_nonzero(after != before))

    def result(self) -> Activations:
        return msgspec.structs.replace(self.activations, active=self.active, updates=self.updates)


_Counter = _LayerCounter | _ActivationCounter


def _is_synapse(node: Node) -> bool:
    """Whether a node is a trained linear map: its constant is called "weight" (and a number, if the name was taken)."""
    parts = node.inputs[1].split(".") if node.operator in LINEAR else []
    return "weight" in parts[-2:] and (parts[-1] == "weight" or parts[-1].isdigit())


def _is_activation(node: Node) -> bool:
    clipped = node.operator == "qlinear" and node.attributes["y_zero"] == LOWEST  # its clip is a ReLU
    return clipped or node.operator in (*NEURONS, *SILENT)


def _membrane(node: Node) -> str:
    """The membrane that a population reads: its inputs are the current and then its states, the membrane last."""
    return node.inputs[len(node.others)]


def _layer(program: Program, node: Node, taps: int) -> _LayerCounter:
    integer = node.operator == "qlinear"
    weight = program.constants[node.inputs[1]][:, taps:]
    read, made = program.values[node.inputs[0]], node.output
    layer = Layer(
        weight=node.inputs[1],
        weights=weight.size,
        zeros=weight.size - int(np.count_nonzero(weight)),
        biases=program.values[node.inputs[2]].size if len(node.inputs) > 2 else 0,
        dense=made.size * weight.shape[1],
        effective_macs=0,
        effective_acs=0,
        integer=integer,
        weight_bytes=weight.itemsize,
        values=read.size + made.size,
        value_bytes=np.dtype(made.dtype).itemsize,
    )
    scale, zero = operator(node.operator).reads(node.attributes) or (1.0, 0)
    return _LayerCounter(node, layer, taps, np.count_nonzero(weight, 0), zero, float(np.rint(1 / scale)))


def _activations(node: Node) -> _ActivationCounter:
    operations = {"leaky": 4, "synaptic": 8 if node.attributes.get("reset") == "zero" else 6}.get(node.operator, 0)
    name = _membrane(node).removesuffix(".membrane") if operations else node.output.name
    found = Activations(name=name, operator=node.operator, size=node.output.size, active=0, operations=operations)
    return _ActivationCounter(node, found, LOWEST if node.operator == "qlinear" else 0)


def _own_elementwise(program: Program, node: Node) -> int:
    values = program.values
    return operator(node.operator).elementwise([values[name].shape for name in node.inputs], node.output.shape)
