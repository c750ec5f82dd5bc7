"""The host's half of the proof: it holds for a real model, and it does not hold where something is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeseq.devices.compare import ANSWERS_TOLERANCE, FORCED_TOLERANCE, jumps
from edgeseq.export.lower import call_forward
from edgeseq.export.proof import PARALLEL_TOLERANCE, prove_step, run_training_form
from edgeseq.program import Node, State, Value

CHAIN = ["training form ~ step form", "training form, forced", "step form ~ program"]


def test_the_chain_holds_for_a_model_and_its_program(model, program, frames):
    ticks = []
    links = prove_step(model, program, frames(600, program), lambda: ticks.append(1))
    assert [link.name for link in links] == CHAIN
    assert [ANSWERS_TOLERANCE, PARALLEL_TOLERANCE, FORCED_TOLERANCE] == [5e-3, 1e-4, 1e-5]
    free = ANSWERS_TOLERANCE if jumps(program) else PARALLEL_TOLERANCE
    assert [link.tolerance for link in links] == [free, FORCED_TOLERANCE, FORCED_TOLERANCE]
    assert all(link.passed and link.frames == 600 and link.error <= link.tolerance for link in links)
    assert all(link.error > 0 for link in links if link.gate == "values")
    assert links[0].agreement == 1.0
    assert abs(links[0].slope) < 1e-4
    assert len(ticks) == 600


@pytest.mark.parametrize("which", ["readout.weight", "input_mean", "input_scale"])
def test_a_weight_that_is_off_by_a_thousandth_breaks_the_programs_link_alone(model, program, frames, which):
    constants = {**program.constants, which: program.constants[which] + np.float32(1e-3)}
    links = prove_step(model, replace(program, constants=constants), frames(50, program))
    assert [link.passed for link in links] == [True, True, False]
    assert links[2].error > 1e-5


def test_a_state_that_is_lost_breaks_the_programs_link(model, program, frames):
    first = program.states[0]
    zero = Node("sub", (first.after, first.after), Value("zero", first.before.shape))
    lost = State(first.before, "zero")
    broken = replace(program, nodes=(*program.nodes, zero), states=(lost, *program.states[1:])).check()
    links = prove_step(model, broken, frames(20, program))
    assert [link.passed for link in links] == [True, True, False]
    assert links[2].note == f"largest in state {first.name}"


def test_a_forward_that_disagrees_with_its_step_breaks_the_first_link_alone(model, program, frames, monkeypatch):
    forward = type(model).forward

    def off(self, x, *state_and_live):
        y, following = forward(self, x, *state_and_live)
        return y + 1e-2 * x[..., :1], following

    monkeypatch.setattr(type(model), "forward", off)
    links = prove_step(model, program, frames(50, program))
    # A model that spikes is held to its answers when it runs freely, and those are right: the frames alone are not.
    assert [link.passed for link in links] == [jumps(program), False, True]
    assert "largest in the logits" in links[0].note
    assert links[1].note.startswith("largest in the logits")


def test_a_forward_that_returns_another_state_breaks_the_first_link(model, program, frames, monkeypatch):
    forward = type(model).forward

    def off(self, x, *state_and_live):
        y, following = forward(self, x, *state_and_live)
        return y, {name: tensor + 0.1 for name, tensor in following.items()}

    monkeypatch.setattr(type(model), "forward", off)
    free, forced, _ = prove_step(model, program, frames(50, program))
    assert free.passed == jumps(program)
    assert not forced.passed


@pytest.mark.parametrize("where", ["answer", "state"])
def test_what_is_not_a_number_breaks_the_link(model, program, frames, monkeypatch, where):
    forward = type(model).forward

    def off(self, x, *state_and_live):
        y, following = forward(self, x, *state_and_live)
        if where == "state":
            return y, {name: tensor * np.nan for name, tensor in following.items()}
        return y * np.nan, following

    monkeypatch.setattr(type(model), "forward", off)
    assert not prove_step(model, program, frames(20, program))[0].passed


def test_the_training_form_is_run_in_chunks_with_its_state_carried(model, program, frames):
    x = frames(1203, program)
    y, state = run_training_form(model, x)
    with torch.no_grad():
        whole, after = call_forward(model, torch.from_numpy(x)[None], None)
    np.testing.assert_allclose(y, whole[0].numpy(), atol=1e-5)
    for name, tensor in after.items():
        np.testing.assert_allclose(state[name], tensor.numpy(), rtol=1e-5, atol=1e-5)
