"""Pooling over the frames so far: each kind by its definition, and frames that are not there."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.quantized import StateGrid
from edgeseq.models.readout import ENDLESS, POOLINGS, SPAN, Pooling

few = settings(max_examples=25, deadline=None, derandomize=True)
TIMESCALE = 7.0
KEEP = math.exp(-1 / TIMESCALE)


def drawn(count, seed=0, batch=2):
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def from_start(pooling, z, live=None):
    following = {}
    return pooling(z, pooling.states(z, len(z)), following, live), following


def by_steps(pooling, z, state, live=None):
    answers = []
    for t in range(z.shape[1]):
        following = {}
        answers.append(pooling.step(z[:, t], state, following, None if live is None else live[:, t]))
        state = following
    return torch.stack(answers, 1), state


def by_definition(kind, z):
    """Each answer of its own from all frames up to it."""
    answers = []
    for t in range(1, z.shape[1] + 1):
        so_far, ago = z[:, :t], torch.arange(t - 1, -1, -1, dtype=torch.float64)
        decayed = (KEEP**ago)[:, None] * so_far
        answers.append(
            {
                "last": so_far[:, -1],
                "mean": so_far.mean(1),
                "sum": so_far.sum(1),
                "leaky": decayed.sum(1),
                "average": (1 - KEEP) * decayed.sum(1),
            }[kind]
        )
    return torch.stack(answers, 1)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("count", [1, 20, SPAN, 2 * SPAN + 3])
def test_an_answer_is_what_its_definition_says(kind, count):
    pooling, z = Pooling(kind, 3, TIMESCALE), drawn(count)
    torch.testing.assert_close(from_start(pooling, z)[0], by_definition(kind, z))


@pytest.mark.parametrize("kind", POOLINGS)
@few
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=4), some=st.booleans(), seed=st.integers(0, 9))
def test_chunks_and_steps_with_frames_that_are_not_there_are_one_call(kind, cuts, some, seed):
    pooling, z = Pooling(kind, 3, TIMESCALE), drawn(sum(cuts), seed)
    live = (torch.rand(2, sum(cuts), 1, generator=torch.Generator().manual_seed(seed)) < 0.6).double() if some else None
    whole, last = from_start(pooling, z, live)
    state, found, start = pooling.states(z, 2), [], 0
    for cut in cuts:
        following = {}
        part = None if live is None else live[:, start : start + cut]
        found.append(pooling(z[:, start : start + cut], state, following, part))
        state, start = following, start + cut
    for y, after in ((torch.cat(found, 1), state), by_steps(pooling, z, pooling.states(z, 2), live)):
        torch.testing.assert_close(y, whole)
        assert after.keys() == last.keys() == pooling.states(z, 2).keys()
        for name, tensor in after.items():
            torch.testing.assert_close(tensor, last[name])


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_frames_that_are_not_there_are_not_counted(kind):
    pooling, z = Pooling(kind, 3), drawn(9)
    live = torch.ones(2, 9, 1).double()
    live[:, :3] = 0
    y, following = from_start(pooling, z, live)
    torch.testing.assert_close(y[:, 3:], by_definition(kind, z[:, 3:]))
    assert (y[:, :3] == 0).all()
    if kind == "mean":
        assert (following["readout.count"] == 6).all()


@pytest.mark.parametrize("kind", ["average", "leaky"])
def test_a_rounded_state_is_carried_as_it_was_rounded(kind):
    pooling, z = Pooling(kind, 3, TIMESCALE), drawn(2 * SPAN)
    grid = StateGrid((), "int8").double()
    grid.set_range(torch.tensor(4.0))
    pooling.exponential.store = grid
    with torch.no_grad():
        y, following = from_start(pooling, z)
        assert torch.equal(y, grid(y))
        steps, after = by_steps(pooling, z, pooling.states(z, 2))
    assert torch.equal(steps, y)
    assert torch.equal(after[f"readout.{kind}"], following[f"readout.{kind}"])


@pytest.mark.parametrize("kind", ["average", "leaky"])
def test_at_another_rate_the_seconds_that_are_remembered_are_the_same(kind):
    pooling, z = Pooling(kind, 3, TIMESCALE), drawn(1)
    coarse = Pooling(kind, 3, TIMESCALE)
    assert coarse.retime(2.0) == {"timescale": TIMESCALE / 2}
    nothing = torch.zeros(2, 8, 3).double()
    left = [from_start(p, torch.cat([z, nothing[:, :n]], 1))[0] for p, n in ((pooling, 8), (coarse, 4))]
    torch.testing.assert_close(left[0][:, -1] / left[0][:, 0], left[1][:, -1] / left[1][:, 0])


def test_what_each_kind_is_for_and_keeps():
    for kind in POOLINGS:
        pooling = Pooling(kind, 3)
        assert pooling.tasks == (("frame", "segment") if kind in ENDLESS else ("segment",))
        assert set(pooling.counts()) <= set(pooling.states(torch.zeros(1), 2))
        assert bool(pooling.counts()) == (kind in ("mean", "sum"))
    assert {n: tuple(t.shape) for n, t in Pooling("mean", 3).states(torch.zeros(1), 2).items()} == {
        "readout.mean": (2, 3),
        "readout.count": (2, 1),
    }
    assert Pooling("last", 3).states(torch.zeros(1), 2) == Pooling("mean", 3).retime(2.0) == {}


def test_an_unknown_kind_and_a_timescale_that_is_none_are_refused():
    with pytest.raises(InputError, match=r"unknown read-out 'men'\. Did you mean 'mean'"):
        Pooling("men", 3)
    for timescale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="must be positive"):
            Pooling("average", 3, timescale)
