"""States that golden frames never came to: what is behind a neuron that stayed silent is looked at from there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.engines.base import Floats
from edgeseq.manifest import Manifest
from edgeseq.program import Program
from edgeseq.program.cost import spikes
from edgeseq.program.neurons import Leaky
from edgeseq.program.operators import operator

RANDOM_FRAMES = 300
LEAST = 0.1  # the range of a state that the golden frames left at 0
LIVE = "live"  # the state of a model that looks ahead which says where frames were
_SEED = 0x5EED


def random_states(
    program: Program, manifest: Manifest, largest: Floats, x: Floats, count: int = RANDOM_FRAMES
) -> Iterator[tuple[Floats, Floats]]:
    """``count`` packed states (S,) to step from, each with one of the frames x (N, C); the same ones every time.

    Spikes are there with probability one half. Other states are uniform in ± ``largest`` (S,), their largest value in
    the golden frames, and at least ± 0.1; those of neurons reach far enough beyond their thresholds to fire.
    """
    rng, bits = np.random.default_rng(_SEED), _bits(program, manifest)
    known = np.where(np.isfinite(largest), largest, 0)  # a program that came to NaN has failed, and is to be told so
    low, high = _ranges(program, manifest, np.maximum(known, LEAST).astype(np.float64))
    for _ in range(count):
        drawn = rng.uniform(low, high)
        drawn[bits] = drawn[bits] >= 0.5
        yield drawn.astype(np.float32), x[rng.integers(len(x))]


def of_neurons(program: Program) -> set[str]:
    """The states of a program that are those of neurons: membranes, synapses, and spikes that are kept."""
    neurons = [node for node in program.nodes if isinstance(operator(node.operator), Leaky)]
    read = {name for node in neurons for name in node.inputs[1:]}
    return {state.name for state in program.states} & (read | spikes(program) if neurons else set())


def _bits(program: Program, manifest: Manifest) -> NDArray[np.bool_]:
    bits, known = np.zeros(manifest.state_size, bool), spikes(program)
    for entry in manifest.states:
        bits[entry.offset : entry.offset + entry.size] = entry.name in known
    return bits


def _ranges(
    program: Program, manifest: Manifest, largest: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest value of each state, (S,) and (S,); of spikes 0 and 1."""
    low, high, bits = -largest, largest.copy(), _bits(program, manifest)
    low[bits], high[bits] = 0, 1
    reach = _reach(program)
    for entry in manifest.states:
        part = slice(entry.offset, entry.offset + entry.size)
        if entry.name in reach:
            below, above = (values.ravel() for values in reach[entry.name])
            low[part], high[part] = np.minimum(low[part], -below), np.maximum(high[part], above)
        elif entry.name == LIVE and manifest.input.look_ahead:
            low[part] = high[part] = 1
    return low, high


def _reach(program: Program) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """By state, how far below and above 0 it must be drawn so that its neurons fire in some steps, and rest in others.

    A membrane that is reset a step late has to be beyond 2 θ / β to fire without a current, and so is drawn up to
    2 θ (1 + 1 / β); a synapse up to 2 θ / α. One that is late and set to zero fires by its currents alone.
    """
    shapes, found = {state.name: state.before.shape for state in program.states}, {}
    for node in program.nodes:
        neuron = operator(node.operator)
        if not isinstance(neuron, Leaky):
            continue
        count = len(neuron.others)  # of states, behind the current: a synapse, if there is one, and the membrane
        threshold = program.constants[node.inputs[-1]].astype(np.float64)
        for name, decay in zip(node.inputs[1 : 1 + count], node.inputs[1 + count : -1], strict=True):
            if name not in shapes:
                continue
            slow = 1 / np.maximum(program.constants[decay].astype(np.float64), LEAST)
            membrane = name == node.inputs[count]
            below, above = (threshold, 2 * threshold * (1 + slow)) if membrane else (2 * threshold * slow,) * 2
            found[name] = (np.broadcast_to(below, shapes[name]), np.broadcast_to(above, shapes[name]))
    return found
