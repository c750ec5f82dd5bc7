"""A linear memory as its last inputs: the same answers, the cheaper form chosen, proven, and said."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeseq.errors import InputError, Unsupported
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.export.memory import ERROR, choose, with_taps
from edgeseq.export.proof import prove_step, run_step_form, run_training_form
from edgeseq.manifest import Precision
from edgeseq.models.contract import StreamingModel
from edgeseq.models.legendre import taps_for
from edgeseq.models.lmu import Lmu, LmuBlock
from edgeseq.models.lmuformer import Lmuformer
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import build
from edgeseq.models.spiking_lmuformer import SpikingLmuformer
from edgeseq.program import cost

INPUTS = 6


def lmu(orders=(24, 5), thetas=(8.0, 20.0), hidden=(8, 8), dtype=torch.float32):
    """By default a first block that is cheaper as taps, and a second that is cheaper as a recurrence."""
    torch.manual_seed(0)
    model = Lmu(INPUTS, 4, channels=(2, 3), orders=orders, thetas=thetas, hidden=hidden)
    model.set_normalization(np.linspace(-1, 1, INPUTS), np.linspace(0.5, 2, INPUTS))
    return model.to(dtype).eval()


def forms(lowered):
    return {name: choice.form for name, choice in lowered.memories.items()}


def test_the_cheaper_form_is_chosen_for_each_memory():
    lowered = lower(lmu())
    assert forms(lowered) == {"blocks.0": "taps", "blocks.1": "recurrence"}
    for choice in lowered.memories.values():
        assert (choice.taps_macs < choice.recurrence_macs) == (choice.form == "taps")


@pytest.mark.parametrize("form", ["recurrence", "taps"])
def test_the_counts_that_are_chosen_by_are_those_of_the_program(form):
    model = lmu()
    lowered = lower(model, form)
    key = "taps_macs" if form == "taps" else "recurrence_macs"
    memories = sum(getattr(choice, key) for choice in lowered.memories.values())
    others = sum(INPUTS * c + 8 * w for c, w in ((2, INPUTS), (0, 0)))  # encoder and the mixer's other inputs
    others += 8 * 3 + 8 * 8 + 8 * 4
    spent = cost(capture(lowered))
    # A program may count the product of u and B, one for each element of the memory, as an elementwise operation.
    b = sum(block.memory.channels * block.memory.order for block in model.blocks)
    assert spent.macs - memories - others in ((0, -b) if form == "recurrence" else (0,))


def test_taps_hold_their_stated_error_in_float64():
    model = lmu(dtype=torch.float64)
    block = model.blocks[0]
    block.memory.set_theta(block.memory.theta)  # again, in float64
    taps = copy.deepcopy(block)
    with_taps(taps, taps_for(block.memory.order, block.memory.theta, ERROR))
    generator = torch.Generator().manual_seed(0)
    m, window = block.initial_state(1), taps.initial_state(1)
    largest = 0.0
    for _ in range(400):
        x = torch.randn(1, INPUTS, generator=generator, dtype=torch.float64)
        h, m = block.step(x, m)
        found, window = taps.step(x, window)
        largest = max(largest, float(m.detach().abs().max()))
        assert float((found - h).detach().abs().max()) < 20 * ERROR * max(1.0, largest)
        assert float((taps.memory.trained_state(window) - m).detach().abs().max()) < 20 * ERROR * max(1.0, largest)


def test_the_proof_holds_with_the_state_that_the_last_inputs_stand_for(frames):
    model = lmu()
    form = lower(model)
    program = capture(form)
    assert {state.name: state.before.shape for state in program.states} == {
        "blocks.0.memory": (1, 2, form.memories["blocks.0"].taps),
        "blocks.1.memory": (1, 3, 5),
    }
    links = prove_step(model, program, frames(300))
    assert [link.passed for link in links] == [True] * 3, links
    assert links[1].error < 1e-5


@pytest.mark.parametrize("what", ["taps", "mixer"])
def test_a_wrong_tap_breaks_the_proof(frames, what):
    model = lmu()
    form = lower(model)
    block = form.model.blocks[0]
    (block.memory.taps if what == "taps" else block.mixer.weight)[0, -1] += 0.05
    links = prove_step(model, capture(form), frames(300), form=form)
    assert not links[0].passed or not links[1].passed


def test_the_golden_state_is_that_of_the_step_form(frames):
    model, x = lmu(), frames(120)
    form = lower(model)
    ended = run_step_form(form, x)
    _, trained = run_training_form(model, x)
    assert not form.keeps_states
    assert ended["blocks.0.memory"].shape != trained["blocks.0.memory"].shape
    as_trained = form.trained_state({name: torch.from_numpy(array) for name, array in ended.items()})
    for name, tensor in as_trained.items():
        np.testing.assert_allclose(tensor.numpy(), trained[name], atol=1e-4)
    assert lower(model, "recurrence").keeps_states


FORMERS = {
    "lmuformer": {"dim": 8, "stages": 1, "order": 24, "theta": 8.0, "ratio": 2},
    "lmuformer two channels": {"dim": 8, "stages": 1, "channels": 2, "order": 24, "theta": 8.0, "causal": True},
    "spiking_lmuformer": {"dim": 8, "stages": 1, "order": 40, "theta": 8.0},
    "spiking_lmuformer two channels": {"dim": 8, "stages": 1, "channels": 2, "order": 40, "theta": 8.0, "causal": True},
}


def former(name):
    """One whose norms have seen frames."""
    torch.manual_seed(0)
    model = build(name.split()[0], INPUTS, 4, FORMERS[name])
    model.set_normalization(np.linspace(-1, 1, INPUTS), np.linspace(0.5, 2, INPUTS))
    with torch.no_grad():
        for _ in range(20):
            model(2 * torch.randn(4, 40, INPUTS))
    return model.eval()


@pytest.mark.parametrize("name", FORMERS)
def test_the_memory_of_an_lmuformer_is_proven_as_taps(name, frames):
    """Ahead of spikes there is no map to fold: the memory is made of its last inputs."""
    model = former(name)
    x = np.pad(frames(300), ((0, 0), (0, int(model.look_ahead > 0))), constant_values=1)
    spent = {}
    for form in ("recurrence", "taps"):
        lowered = lower(model, form)
        program = capture(lowered)
        links = prove_step(model, program, x, form=lowered)
        assert [link.passed for link in links] == [True] * 3, links
        found = cost(program)
        spent[form] = found.macs + found.acs
    (choice,) = lower(model).memories.values()
    assert choice.form == "taps"
    # As in the programs, but for the product of u and B, which may be elementwise there.
    u_and_b = model.blocks[0].memory.channels * model.blocks[0].memory.order
    assert spent["recurrence"] - spent["taps"] - (choice.recurrence_macs - choice.taps_macs) in (0, -u_and_b)
    memory = lowered.trained_state(lowered.initial_state())["blocks.0.memory"]
    assert memory.shape == model.initial_state(1)["blocks.0.memory"].shape


def test_taps_of_spikes_add_and_are_spikes_themselves():
    spiking = capture(lower(former("spiking_lmuformer"), "taps"))
    without = cost(capture(lower(former("spiking_lmuformer"), "recurrence")))
    (memory,) = (state for state in spiking.states if state.before.name == "blocks.0.memory")
    taps, order = memory.before.shape[-1], 40
    assert cost(spiking).acs - without.acs == order * (taps - 1)  # B u added too
    assert without.macs - cost(spiking).macs == order**2


def test_int8_layers_and_rounded_states_run_as_the_recurrence():
    for precision in (Precision("int8", "int8"), Precision(state="int16")):
        model = with_precision(lmu(), precision)
        assert set(forms(lower(model)).values()) == {"recurrence"}
        with pytest.raises(Unsupported, match="recurrence"):
            lower(model, "taps")


def test_a_form_that_does_not_exist_and_a_block_that_does_not_exist_are_refused():
    with pytest.raises(InputError, match=r"form of a memory 'tap'\. Did you mean 'taps'"):
        lower(lmu(), "tap")
    with pytest.raises(InputError, match=r"blocks\.1"):
        lower(lmu(), {"blocks.0": "taps"})


def test_published_sizes_choose_by_their_products():
    torch.manual_seed(0)
    lmuformer = choose(Lmuformer(1, 2, dim=256, order=256, theta=128.0).blocks[0], "auto")
    assert lmuformer.form == "taps"
    assert lmuformer.taps_macs < 0.4 * lmuformer.recurrence_macs
    spiking = SpikingLmuformer(1, 2, dim=256, order=512, theta=128.0, folded=True).blocks[0]
    chosen = choose(spiking, "auto", "remembered.norm")
    assert chosen.form == "taps"
    assert chosen.taps_macs < 0.4 * chosen.recurrence_macs
    watch = Lmu(1, 2, channels=(12,), orders=(6,), thetas=(100.0,), hidden=(48,)).blocks[0]
    assert choose(watch, "auto").form == "recurrence"


class Holder(StreamingModel):
    """A model from outside that reads the memory of one of our blocks in its own way."""

    def __init__(self):
        super().__init__(INPUTS, 3)
        self.block = LmuBlock(INPUTS, 1, 16, 3.0, 3)

    def initial_state(self, batch):
        return {"kept": self.block.initial_state(batch)}

    def step(self, x, state):
        m = self.block.memory.step(self.block.encoder(x), state["kept"])
        return self.block.mix(m, x), {"kept": m}


def test_blocks_in_a_model_from_outside_are_left_as_they_are():
    torch.manual_seed(0)
    held = Holder().eval()
    assert choose(held.block, "auto").form == "taps"
    form = lower(held)
    assert form.memories == {}
    assert form.keeps_states
    capture(form)


def test_taps_are_refused_where_there_is_no_memory_to_have_them():
    torch.manual_seed(0)
    with pytest.raises(Unsupported, match="only models of Lmu"):
        lower(build("rnn", INPUTS, 4, {"hidden": 4}), "taps")
    with pytest.raises(InputError, match="unknown form of a memory 'bogus'"):
        lower(build("rnn", INPUTS, 4, {"hidden": 4}), "bogus")


def test_shifting_the_last_inputs_counts_too():
    """Taps with a few products fewer than the recurrence, which moving them costs."""
    for order in range(2, 80):
        block = LmuBlock(INPUTS, 1, order, 40.0, 8)
        found = choose(block, "auto")
        if 0 < found.recurrence_macs - found.taps_macs < found.taps:
            assert found.form == "recurrence"
            return
    pytest.fail("no size at the boundary was tried")
