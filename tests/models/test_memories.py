"""Memories on coarser grids: what stands on them, that every form computes with it, and which no longer forget."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.errors import GateFailed, Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.legendre import LegendreMemory, impulse_response
from edgeseq.models.memories import MEMORY_LIMITS, check_radius, memories, radius, response_errors, round_memories
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import build

KINDS = sorted(MEMORY_LIMITS)
MODELS = {
    "lmu": ("lmu", {"channels": [3, 2], "orders": [5, 4], "thetas": [20.0, 40.0], "hidden": [8, 8]}),
    "lmu_cell": ("lmu_cell", {"channels": 2, "order": 5, "theta": 20.0, "hidden": 8}),
    "lmuformer": ("lmuformer", {"dim": 8, "stages": 1, "order": 6, "theta": 20.0, "ratio": 2, "causal": True}),
    "l2mu": ("l2mu", {"memories": 3, "order": 4, "theta": 9.5, "hidden": 8}),
    "s4d": ("s4d", {"hidden": 6, "layers": 2, "state": 8}),
}
UNSTABLE = (24, 640.0)  # order and theta of which int8 makes a memory that grows


def rounded(name, kind):
    torch.manual_seed(0)
    family, arguments = MODELS[name]
    return with_precision(build(family, 4, 3, arguments), Precision(memory=kind)).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_chunks_and_the_loop_of_steps_compute_with_the_same_memory(name, kind):
    model, x = rounded(name, kind), torch.randn(2, 150, 4)
    with torch.no_grad():
        y, state = model(x)
        first, between = model(x[:, :67])
        rest, _ = model(x[:, 67:], between)
        one, last = model.run_steps(x)
    torch.testing.assert_close(y, one, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(torch.cat([first, rest], 1), one, atol=2e-4, rtol=1e-3)
    for key in state:
        torch.testing.assert_close(state[key], last[key], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_built_again_from_precision_and_weights(name, kind):
    model = rounded(name, kind)
    weights, again = copy.deepcopy(model.state_dict()), rounded(name, kind)
    again.load_state_dict(weights)
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, weights[key])
    x = torch.randn(2, 40, 4)
    with torch.no_grad():
        assert torch.equal(again(x)[0], model(x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lmu", "l2mu"])
def test_a_and_b_stand_on_a_symmetric_grid_each_and_stay_there(name, kind):
    plain, model = build(*_sized(name)), rounded(name, kind)
    for key, memory in memories(model).items():
        for part in ("A", "B"):
            values, wanted = getattr(memory, part), getattr(memories(plain)[key], part)
            step = wanted.abs().max() / MEMORY_LIMITS[kind]
            torch.testing.assert_close(values / step, torch.round(values / step), atol=5e-3, rtol=0)
            assert (values - wanted).abs().max() <= 0.501 * step
            assert not torch.equal(values, wanted)
        before = memory.A.clone(), memory.B.clone()
        round_memories([memory], kind)
        torch.testing.assert_close((memory.A, memory.B), before, atol=1e-7, rtol=1e-6)


def _sized(name):
    family, arguments = MODELS[name]
    return family, 4, 3, arguments


def test_another_window_is_rounded_too_and_one_that_does_not_fit_is_refused():
    memory = LegendreMemory(1, 4, 20.0)
    round_memories([memory], "int8")
    other = LegendreMemory(1, 4, 40.0)
    round_memories([other], "int8")
    memory.set_theta(40.0)
    assert torch.equal(memory.A, other.A)
    with pytest.raises(Exception, match="holds another window than theta 40"):
        memory.load_state_dict(LegendreMemory(1, 4, 20.0).state_dict())


@given(
    kind=st.sampled_from(KINDS),
    rule=st.sampled_from(("zoh", "bilinear")),
    decay=st.floats(-25, 6),
    frequency=st.floats(-400, 400),
    spread=st.floats(0, 3),
    seed=st.integers(0, 9),
)
def test_decays_of_s4d_are_below_1_and_off_by_half_a_step_of_each_grid(kind, rule, decay, frequency, spread, seed):
    torch.manual_seed(seed)
    ssm, limit = DiagonalSsm(3, 8, rule=rule), MEMORY_LIMITS[kind]
    with torch.no_grad():
        ssm.log_decay.copy_(decay + spread * torch.randn(3, 4))
        ssm.frequency.copy_(frequency + spread * torch.randn(3, 4))
        plain = torch.complex(*ssm.double().discretize()[0])
        round_memories([ssm], kind)
        found = torch.complex(*ssm.discretize()[0])
        wide = ssm.float().discretize()
    assert all(torch.isfinite(part).all() for part in wide)
    assert float(torch.hypot(*wide[0].double()).max()) < 1
    for part in (lambda z: torch.log(z.abs().clamp(min=1e-30)), torch.angle):
        step = max(float(part(plain).abs().max()) / limit, 1e-6)
        known = part(plain).abs() >= step  # smaller decays become the smallest one
        turned = (part(found) - part(plain)).abs()
        turned = torch.minimum(turned, 2 * math.pi - turned) if part is torch.angle else turned
        assert (turned[known] <= 0.51 * step).all()


def test_gradients_pass_the_grids_of_s4d_straight_through():
    torch.manual_seed(0)
    gradients = []
    ssm = DiagonalSsm(4, 8)
    for kind in (None, "int16"):
        if kind:
            round_memories([ssm], kind)
        ssm.zero_grad()
        turn, _ = ssm.discretize()
        turn.sum().backward()
        gradients.append([ssm.log_decay.grad, ssm.frequency.grad, ssm.log_dt.grad])
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-2)
    assert all(bool((part != 0).all()) for part in gradients[1])


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_a_constant_comes_out_of_rounded_modes_as_it_did(rule):
    torch.manual_seed(0)
    ssm = DiagonalSsm(5, 8, rule=rule).double()
    gains = []
    for kind in (None, "int8"):
        if kind:
            round_memories([ssm], kind)
        turn, weight = (torch.complex(*part) for part in ssm.discretize())
        gains.append((weight / (1 - turn)).detach())
    torch.testing.assert_close(*gains)


def test_a_memory_that_no_longer_forgets_is_refused_with_its_radius_and_the_mend():
    model = build("lmu", 4, 3, {"channels": [1], "orders": [UNSTABLE[0]], "thetas": [UNSTABLE[1]], "hidden": [4]})
    check_radius(with_precision(copy.deepcopy(model), Precision(memory="int16")))
    with_precision(model, Precision(memory="int8"))
    memory = model.blocks[0].memory
    assert radius(memory) == pytest.approx(float(torch.linalg.eigvals(memory.A).abs().max()), abs=1e-4)
    assert (
        impulse_response(memory.A, memory.B, 40_000)[-1].norm()
        > impulse_response(memory.A, memory.B, 20_000)[-1].norm()
    )
    with pytest.raises(GateFailed, match=r"blocks\.0\.memory: the spectral radius .* 1\.0.*--memory int16") as raised:
        check_radius(model)
    assert raised.value.exit_code == 5


def test_a_decay_in_float_that_is_1_is_refused_too():
    model = build("s4d", 4, 3, {"hidden": 4, "layers": 1, "state": 4})
    check_radius(model)
    ssm = next(module for module in model.modules() if isinstance(module, DiagonalSsm))
    with torch.no_grad():
        ssm.log_decay.fill_(-40.0)
    with pytest.raises(GateFailed, match="spectral radius"):
        check_radius(model)


def test_a_radius_of_exactly_1_is_refused():
    memory = LegendreMemory(1, 4, 10.0)
    memory.A.copy_(torch.eye(4))
    with pytest.raises(GateFailed, match="spectral radius of the memory is 1, and below 1 is needed"):
        check_radius(memory)


def test_spikes_that_are_fed_back_cannot_grow_and_are_not_judged():
    model = build("l2mu", 4, 3, MODELS["l2mu"][1])
    with torch.no_grad():
        model.A.mul_(10)
    check_radius(model)


def test_what_a_memory_answers_otherwise_is_said_with_how_much():
    plain = build("lmu", 4, 3, {"channels": [1, 1], "orders": [12, 3], "thetas": [200.0, 10.0], "hidden": [4, 4]})
    fine, coarse = (with_precision(copy.deepcopy(plain), Precision(memory=kind)) for kind in ("int16", "int8"))
    assert response_errors(plain, fine) == []
    (said,) = response_errors(plain, coarse)
    responses = [impulse_response(m.blocks[0].memory.A, m.blocks[0].memory.B, 1024) for m in (plain, coarse)]
    error = float((responses[1] - responses[0]).norm() / responses[0].norm())
    assert said.startswith("blocks.0.memory: ")
    assert f"{100 * error:.0f} %" in said


def test_a_model_without_a_memory_and_an_unknown_format_are_refused():
    with pytest.raises(Unsupported, match="has no linear memory to keep in int16"):
        with_precision(build("rnn", 4, 3, {"hidden": 4}), Precision(memory="int16"))
    model = build("lmu", 4, 3, MODELS["lmu"][1])
    before = model.blocks[0].memory.A.clone()
    with pytest.raises(Unsupported, match="memory precision 'int12'"):
        with_precision(model, Precision("int8", "int8", memory="int12"))
    assert torch.equal(model.blocks[0].memory.A, before)
