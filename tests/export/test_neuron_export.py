"""Spiking neurons from a trained model to its program: whole populations, the same spikes, and the proof."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from edgeseq.devices.compare import rounds, steps_of
from edgeseq.errors import Unsupported
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.export.neurons import with_neurons
from edgeseq.export.proof import prove_step
from edgeseq.models.contract import State, StreamingModel
from edgeseq.models.neurons import Neurons, prefixed, taken
from edgeseq.program import interpret
from edgeseq.program.neurons import population

INPUTS, SIZE, LABELS = 6, 12, 4
FORMS = [
    {"reset": reset, "delay": delay, "inclusive": inclusive}
    for reset, delay, inclusive in itertools.product(
        ("subtract", "subtract_decayed", "zero", "none"), (True, False), (True, False)
    )
    if delay or reset != "subtract_decayed"
]


class Spiking(StreamingModel):
    """Two populations, the second of which feeds back into itself, and a trace of its spikes."""

    def __init__(self, **rule) -> None:
        super().__init__(INPUTS, LABELS)
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(INPUTS, SIZE), nn.Linear(2 * SIZE, SIZE)
        self.u = Neurons(SIZE, threshold=0.4, **rule)
        self.h = Neurons(SIZE, threshold=0.3, alpha=0.6, **rule)
        self.readout = nn.Linear(SIZE, LABELS)

    def initial_state(self, batch: int) -> State:
        zero = torch.zeros(batch, SIZE)
        populations = prefixed("u", self.u.initial_state(batch)) | prefixed("h", self.h.initial_state(batch))
        return {**populations, "spikes": zero, "trace": zero.clone()}

    def step(self, x, state):
        s_u, u = self.u.step(self.first(x), taken("u", state))
        s_h, h = self.h.step(self.second(torch.cat([s_u, state["spikes"]], -1)), taken("h", state))
        trace = 0.9 * state["trace"] + s_h
        return self.readout(trace), {**prefixed("u", u), **prefixed("h", h), "spikes": s_h, "trace": trace}


@pytest.mark.parametrize("rule", FORMS, ids=str)
def test_a_population_is_one_node_that_spikes_as_the_model_does(rule, frames):
    model = Spiking(**rule).eval()
    program = capture(lower(model))
    kinds = [node.operator for node in program.nodes]
    assert (kinds.count("leaky"), kinds.count("synaptic")) == (1, 1)
    assert not {"greater", "greater_equal", "where"} & set(kinds)
    assert [population(node) for node in program.nodes if node.others] == ["u", "h"]
    step, state = interpret(program), model.initial_state(1)
    fired = 0.0
    with torch.no_grad():
        for x in 2 * frames(200):
            arrays = {name: tensor.numpy() for name, tensor in state.items()}
            y, state = model.step(torch.from_numpy(x)[None], state)
            found, after = step(x[None], arrays)
            np.testing.assert_allclose(found, y.numpy(), atol=1e-5)
            np.testing.assert_array_equal(after["spikes"], state["spikes"].numpy())
            fired += float(state["spikes"].sum())
    assert fired > 20


def test_the_input_of_a_decaying_current_is_scaled_by_a_constant():
    program = capture(lower(Spiking(decay_input=True, beta=0.5)))
    made = {node.output.name: node for node in program.nodes}
    neurons = [node for node in program.nodes if node.others]
    for node in neurons:
        scaled = made[node.inputs[0]]
        gains = [program.constants[name] for name in scaled.inputs if name in program.constants]
        assert scaled.operator == "mul"
        assert [float(gain) for gain in gains] == [0.5]


def test_decays_are_clipped_in_the_program():
    model = Spiking(beta=1.4)
    model.h.alpha.data.fill_(-0.2)
    program = capture(lower(model))
    first, second = (node for node in program.nodes if node.others)
    assert [float(program.constants[name]) for name in first.inputs[2:]] == pytest.approx([1, 0.4])
    assert [float(program.constants[name]) for name in second.inputs[3:]] == pytest.approx([0, 1, 0.3])


def test_lowering_leaves_the_trained_model_as_it_is():
    model = Spiking()
    before = model.u.equation
    lower(model)
    assert model.u.equation is before
    assert with_neurons(model).u.equation is not before
    spikes, _ = model.u(torch.randn(2, 5, SIZE))
    assert spikes.requires_grad


def test_a_threshold_that_no_file_can_compute_is_refused_with_its_value():
    model = Spiking()
    model.u.threshold.data.fill_(-0.5)
    with pytest.raises(
        Unsupported, match=r"'leaky' of module .*u.threshold: the threshold must be at least .* not -0.5"
    ):
        capture(lower(model))


@pytest.mark.parametrize("rule", [FORMS[0], FORMS[-3]], ids=str)
def test_the_chain_holds_for_neurons(rule, frames):
    model = Spiking(**rule).eval()
    program = capture(lower(model))
    links = prove_step(model, program, 2 * frames(1500))
    assert [link.name for link in links if not link.passed] == []
    assert (rounds(program), steps_of(program)) == (False, np.inf)
    assert [link.error <= 1e-5 for link in links[1:]] == [True, True]
    assert links[0].gate == "answers"


@pytest.mark.parametrize("name", ["threshold", "beta"])
def test_a_constant_that_is_off_breaks_the_programs_link(name, frames):
    model = Spiking().eval()
    wrong = Spiking().eval()
    getattr(wrong.h, name).data.add_(2e-4)
    links = prove_step(model, capture(lower(wrong)), 2 * frames(300))
    assert [link.passed for link in links[1:]] == [True, False]
