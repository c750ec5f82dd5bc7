"""The forms of the Legendre memory are one: recurrence, chunks, FFT, impulse response, folded, last frame alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.legendre import LegendreMemory, discretize, impulse_response, taps_for
from edgeseq.models.lmu import Lmu, LmuBlock

some = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 3), st.sampled_from([1, 2, 7, 16, 40, 70]))


def drawn(size, theta, seed=0):
    """A memory in float64, its input (B, T, C) and a start that is not zero."""
    batch, frames, channels, order = size
    generator = torch.Generator().manual_seed(seed)
    memory = LegendreMemory(channels, order, theta).double()
    memory.set_theta(theta)  # again, in float64
    u = torch.randn(batch, frames, channels, generator=generator, dtype=torch.float64)
    return memory, u, torch.randn(batch, channels, order, generator=generator, dtype=torch.float64)


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert float((found - expected).detach().abs().max()) <= 1e-9 * max(1.0, float(expected.detach().abs().max()))


@some
@given(size=sizes, theta=st.floats(1.5, 300), from_zero=st.booleans())
def test_every_form_of_all_frames_is_the_recurrence(size, theta, from_zero):
    memory, u, m = drawn(size, theta)
    start = None if from_zero else m
    expected = memory.one_by_one(u, start)
    assert_same(memory.chunked(u, start), expected)
    assert_same(memory(u, start), expected)
    assert_same(memory.last(u, start), expected[:, -1])
    if from_zero:
        assert_same(memory.convolved(u), expected)
        response = impulse_response(memory.A, memory.B, u.shape[1])
        past = [u[:, : t + 1].flip(1).transpose(1, 2) for t in range(u.shape[1])]  # (B, C, t + 1)
        by_taps = torch.stack([part @ response[: part.shape[-1]] for part in past], 1)
        assert_same(by_taps, expected)


@some
@given(size=sizes, theta=st.floats(1.5, 300), from_zero=st.booleans(), outputs=st.integers(1, 5))
def test_a_folded_map_of_the_memory_is_the_map_of_the_memory(size, theta, from_zero, outputs):
    memory, u, m = drawn(size, theta)
    start = None if from_zero else m
    weight = torch.randn(outputs, size[2] * size[3], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = memory.one_by_one(u, start)
    answers, last = memory.folded(u, start, weight)
    assert_same(answers, expected.flatten(2) @ weight.T)
    assert_same(last, expected[:, -1])


@pytest.mark.parametrize("from_zero", [True, False])
def test_gradients_of_every_form_are_those_of_the_recurrence(from_zero):
    memory, u, m = drawn((2, 45, 2, 20), 30.0)
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 45, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u.requires_grad_(True)
    m.requires_grad_(True)
    start, inputs = (None, (weight, u)) if from_zero else (m, (weight, u, m))

    def gradients(answers):
        return torch.autograd.grad((answers * upstream).sum(), inputs)

    expected = gradients(memory.one_by_one(u, start).flatten(2) @ weight.T)
    forms = {
        "chunked": memory.chunked(u, start).flatten(2) @ weight.T,
        "folded": memory.folded(u, start, weight)[0],
        **({"convolved": memory.convolved(u).flatten(2) @ weight.T} if from_zero else {}),
    }
    for name, answers in forms.items():
        for found, wanted in zip(gradients(answers), expected, strict=True):
            assert (found - wanted).abs().max() <= 1e-9 * float(wanted.abs().max()), name


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("from_zero", [True, False])
def test_a_block_that_folds_answers_as_one_that_does_not(residual, from_zero, monkeypatch):
    torch.manual_seed(0)
    block = LmuBlock(6, 1, 80, 100.0, 6 if residual else 5).double()
    x, m = torch.randn(40, 300, 6).double(), torch.randn(40, 1, 80).double()
    start = None if from_zero else m
    assert block.memory.folds(block.encoder(x), 6)
    folded = block(x, start)
    monkeypatch.setattr(block.memory, "folds", lambda *_: False)
    for found, expected in zip(folded, block(x, start), strict=True):
        assert_same(found, expected)


def test_small_orders_and_single_streams_do_not_fold():
    memory = LegendreMemory(12, 6, 100.0)
    assert not memory.folds(torch.zeros(32, 784, 12), 48)
    assert not LegendreMemory(1, 468, 784.0).folds(torch.zeros(1, 784, 1), 346)
    assert LegendreMemory(1, 468, 784.0).folds(torch.zeros(100, 784, 1), 346)


@pytest.mark.parametrize("state", [True, False])
def test_the_last_answer_alone_is_the_last_of_all(state):
    torch.manual_seed(0)
    model = Lmu(3, 4, channels=(2, 2), orders=(5, 9), thetas=(30.0, 60.0), hidden=(6, 6)).double().eval()
    x = torch.randn(2, 70, 3).double()
    start = {name: torch.randn_like(tensor) for name, tensor in model.initial_state(2).items()} if state else None
    y, after = model(x, start)
    last, ended = model.last(x, start)
    assert_same(last, y[:, -1])
    for name, tensor in after.items():
        assert_same(ended[name], tensor)


@pytest.mark.parametrize(("order", "theta"), [(1, 10.0), (6, 100.0), (12, 40.0), (64, 50.0), (256, 128.0)])
@pytest.mark.parametrize("error", [1e-3, 1e-6])
def test_taps_are_the_fewest_that_keep_the_stated_error(order, theta, error):
    taps = taps_for(order, theta, error)
    a, b = discretize(order, theta)
    sizes = impulse_response(a, b, 40 * int(theta) + 400).abs()
    whole = sizes.sum(0).max()
    assert sizes[taps:].sum(0).max() <= error * whole
    assert sizes[taps - 1 :].sum(0).max() > error * whole
    assert taps_for(order, theta, error / 10) > taps


def test_what_is_cut_off_is_within_the_stated_error_on_any_bounded_input():
    order, theta, error = 12, 40.0, 1e-3
    taps, (a, b) = taps_for(order, theta, error), discretize(order, theta)
    response = impulse_response(a, b, 1000)
    largest = response.abs().sum(0).max()
    for i in range(order):  # the worst input of all: the sign of the element's own response
        u = response[:, i].sign()
        assert abs(float(u[taps:] @ response[taps:, i])) <= error * float(largest)


def test_at_another_rate_the_window_is_as_long_in_seconds():
    torch.manual_seed(0)
    arguments = {"channels": (2,), "orders": (6,), "thetas": (100.0,), "hidden": (8,)}
    model = Lmu(1, 3, **arguments).double().eval()
    seconds = torch.arange(0, 8, 1 / 50, dtype=torch.float64)
    signal = (torch.sin(2 * torch.pi * 0.5 * seconds) + seconds / 8)[None, :, None]
    with torch.no_grad():
        at_50 = model(signal)[0][:, 1::2]
        assert model.retime(2) == {"thetas": [50.0]}
        at_25 = model(signal[:, 1::2])[0]
    rebuilt = Lmu(1, 3, **{**arguments, "thetas": [50.0]}).double()
    torch.testing.assert_close(rebuilt.blocks[0].memory.A, model.blocks[0].memory.A, rtol=0, atol=1e-6)
    spread = float(at_50.std(1).max())
    assert (at_25 - at_50)[:, 50:].abs().max() < 0.1 * spread
    with torch.no_grad():
        model.retime(0.5)
        assert (model(signal[:, 1::2])[0] - at_50)[:, 50:].abs().max() > 0.3 * spread  # the same, not retimed


def test_weights_of_another_window_are_refused():
    stored = LegendreMemory(2, 6, 100.0).state_dict()
    with pytest.raises(InputError, match="another window than theta 50"):
        LegendreMemory(2, 6, 50.0).load_state_dict(stored)
    LegendreMemory(2, 6, 100.0).double().load_state_dict(stored)


@pytest.mark.parametrize("wrong", [{"channels": (0,)}, {"hidden": (0,)}, {"thetas": (math.nan,)}, {"thetas": "[1"}])
def test_sizes_and_windows_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match=r"must be positive numbers|one entry per block"):
        Lmu(3, 2, **{"channels": (2,), "orders": (4,), "thetas": (9.0,), "hidden": (5,), **wrong})
