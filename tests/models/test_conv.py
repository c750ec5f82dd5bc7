"""Convolutions and delays as streams run them: torch's own, whole, frame by frame and in chunks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import pad

from edgeseq.errors import InputError
from edgeseq.models.conv import Delay, StreamingConv
from edgeseq.models.quantized import StateGrid

few = settings(max_examples=30, deadline=None, derandomize=True)


def frames(count, batch=2, size=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, size, generator=generator, dtype=torch.float64)


def by_steps(layer, x, past):
    answers = []
    for x_t in x.unbind(1):
        y, past = layer.step(x_t, past)
        answers.append(y)
    return torch.stack(answers, 1), past


def in_chunks(layer, x, past, cuts):
    answers = []
    for part in x.split(cuts, 1):
        y, past = layer(part, past)
        answers.append(y)
    return torch.cat(answers, 1), past


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@few
@given(count=st.integers(1, 12), kernel=st.integers(1, 5), outputs=st.integers(1, 4), bias=st.booleans())
def test_a_convolution_is_torchs_with_its_padding_on_the_left(count, kernel, outputs, bias):
    torch.manual_seed(0)
    theirs = nn.Conv1d(3, outputs, kernel, bias=bias).double()
    ours = StreamingConv(3, outputs, kernel, bias=bias).double()
    with torch.no_grad():
        ours.linear.weight.copy_(theirs.weight.permute(0, 2, 1).flatten(1))
        if bias:
            ours.linear.bias.copy_(theirs.bias)
    x = frames(count)
    expected = theirs(pad(x.mT, (kernel - 1, 0))).mT
    for run in (ours, lambda *given: by_steps(ours, *given)):
        y, past = run(x, ours.initial_state(x, 2))
        assert_same([y, past], [expected, pad(x, (0, 0, kernel - 1, 0))[:, count:]])


@few
@given(cuts=st.lists(st.integers(1, 6), min_size=1, max_size=4), size=st.integers(1, 4), kind=st.sampled_from("CD"))
def test_chunks_and_steps_from_any_past_are_one_call(cuts, size, kind):
    layer = (StreamingConv(3, 2, size + 1) if kind == "C" else Delay(size, 3)).double()
    x, past = frames(sum(cuts)), frames(size, seed=1)
    whole = layer(x, past)
    assert_same(by_steps(layer, x, past), whole)
    assert_same(in_chunks(layer, x, past, cuts), whole)


@few
@given(count=st.integers(1, 9), size=st.integers(1, 5))
def test_a_delay_answers_what_came_so_many_calls_ago_and_zero_before(count, size):
    delay, x = Delay(size, 3), frames(count)
    y, kept = delay(x, delay.initial_state(x, 2))
    held = pad(x, (0, 0, size, 0))
    assert_same([y, kept], [held[:, :count], held[:, count:]])


@pytest.mark.parametrize("layer", [StreamingConv(3, 2, 3).double(), Delay(2, 3).double()], ids=["convolution", "delay"])
def test_kept_frames_are_rounded_once_in_every_way_of_running(layer):
    grid = StateGrid((), "int8").double()
    grid.set_range(torch.tensor(2.0))
    layer.store = grid
    x = frames(7)
    with torch.no_grad():
        past = layer.initial_state(x, 2)
        whole = layer(x, past)
        assert torch.equal(whole[1], grid(whole[1]))
        assert not torch.equal(whole[1], x[:, -2:])
        assert_same(by_steps(layer, x, past), whole)
        assert_same(in_chunks(layer, x, past, [3, 1, 3]), whole)


def test_a_convolution_over_one_frame_keeps_nothing():
    layer = StreamingConv(3, 2, 1)
    assert layer.initial_state(torch.zeros(1), 4).shape == (4, 0, 3)
    assert isinstance(layer.store, nn.Identity)


def test_nothing_is_not_a_number_of_frames():
    with pytest.raises(InputError, match="a convolution over 0 frames"):
        StreamingConv(3, 2, 0)
    with pytest.raises(InputError, match="a delay of 0 frames"):
        Delay(0, 3)
