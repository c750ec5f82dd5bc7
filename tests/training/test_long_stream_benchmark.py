"""The benchmark of hour-long streams: how they are joined, and what is said of the minutes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.models.registry import build

SOURCE = Path(__file__).parents[2] / "benchmarks" / "long_stream.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("long_stream", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["long_stream"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["long_stream"]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=6), frames=st.integers(1, 300), seed=st.integers(0, 9))
def test_every_recording_is_heard_once_before_any_is_heard_again(benchmark, lengths, frames, seed):
    made = benchmark.orders(lengths, frames, 4, seed)
    assert made == benchmark.orders(lengths, frames, 4, seed)
    count = len(lengths)
    for order in made:
        assert sum(lengths[i] for i in order) >= frames > sum(lengths[i] for i in order[:-count])
        for first in range(0, len(order), count):
            assert sorted(order[first : first + count]) == list(range(count))


def test_streams_have_orders_of_their_own(benchmark):
    made = benchmark.orders([5] * 9, 400, 8, seed=0)
    assert len({tuple(order) for order in made}) == 8


def test_recordings_are_joined_end_to_end_and_cut(benchmark):
    parts = [np.arange(3), np.arange(10, 14), np.arange(20, 22)]
    assert benchmark.joined(parts, [2, 0, 1], 7).tolist() == [20, 21, 0, 1, 2, 10, 11]


def test_minutes_are_means_over_their_counted_frames(benchmark):
    values = np.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]])
    counted = np.array([[1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]], bool)
    found = benchmark.by_minute(values, counted, 3)
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1]])


@given(slopes=st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=4))
def test_a_straight_decay_is_found_with_its_interval(benchmark, slopes):
    minutes = np.arange(60)
    found = benchmark.curve(0.5 + np.array(slopes)[:, None] * minutes / 60)
    assert found.slope == pytest.approx(100 * np.mean(slopes), abs=2e-3)
    assert found.slope_half == pytest.approx(3.182 * 100 * np.std(slopes, ddof=1) / 2, abs=2e-3)
    # From minute 1 to the middle of minutes 31 to 60 are 44.5 minutes.
    assert found.drift == pytest.approx(found.slope * 44.5 / 60, abs=2e-3)
    assert found.spans["minute 1"] == found.minutes[0]
    assert found.spans["minute 60"] == found.minutes[59]
    assert found.spans["11-30"] == pytest.approx(np.mean(found.minutes[10:30]), abs=2e-3)


def test_the_spans_are_all_minutes_but_for_the_last_named_twice(benchmark):
    named = [m for first, last in list(benchmark.SPANS.values())[:4] for m in range(first, last)]
    assert named == list(range(60))


def test_the_state_is_carried_over_the_whole_stream(benchmark):
    torch.manual_seed(0)
    net = build("rnn", 2, 5, {"hidden": 16, "timescale": 200.0}).eval()
    x = np.random.default_rng(0).normal(size=(3, 40, 2)).astype(np.float32)
    with torch.no_grad():
        net.readout.bias.zero_()  # else it decides every answer
        whole = net(torch.from_numpy(x))[0].argmax(-1).numpy()
    np.testing.assert_array_equal(benchmark.answered(net, x, 10), whole)
    alone = benchmark.answered(net, np.ascontiguousarray(x[:, 30:]), 10)
    assert not np.array_equal(alone, whole[:, 30:])


def test_the_committed_rows_are_of_sixteen_hours_and_of_both_trainings(benchmark):
    rows = benchmark.read()
    assert len({row.key for row in rows}) == len(rows) > 0
    assert all(row.streams == 16 and len(row.settled.minutes) == 60 for row in rows)
    both = {(m, t, fold, 0) for m in ("lmu", "gru") for t in benchmark.TRAINING for fold in (0, 1)}
    assert both <= {row.key for row in rows}
    for row in rows:
        assert f"| {row.model} | {row.training} | {row.fold} |" in benchmark.table(rows)
