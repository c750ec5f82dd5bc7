"""Durations counted by bin."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.bench import UNTIMED
from edgeseq.devices.bench.counts import BINS, Counts, add, count, latency_of

SAMPLES = st.lists(st.integers(0, 10**12), max_size=200)
WIDTH = 2 ** (1 / BINS)


@given(SAMPLES, SAMPLES)
def test_counts_of_parts_are_those_of_the_whole(one: list[int], other: list[int]) -> None:
    assert add([count(one), count(other)]) == count(one + other)


@given(SAMPLES)
def test_counts_survive_json(samples: list[int]) -> None:
    counts = count(samples)
    assert msgspec.json.decode(msgspec.json.encode(counts), type=Counts) == counts
    assert sum(counts.bins.values()) == len(samples)


@given(SAMPLES.filter(bool))
def test_a_quantile_is_within_a_bin_of_the_true_one(samples: list[int]) -> None:
    found = latency_of(count(samples))
    for share, quantile in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        true = max(sorted(samples)[math.ceil(share * len(samples)) - 1], 1)
        assert quantile is not None
        assert true / WIDTH <= 1e3 * quantile * (1 + 1e-9)
        assert 1e3 * quantile <= true * WIDTH * (1 + 1e-9)
    assert found.max == max(samples) / 1e3


def test_quantiles_agree_with_those_of_the_samples() -> None:
    samples = np.random.default_rng(0).lognormal(11, 0.5, 50_000).astype(int).tolist()
    found = latency_of(count(samples))
    for share, quantile in ((50, found.p50), (90, found.p90), (99, found.p99)):
        assert quantile == pytest.approx(np.percentile(samples, share) / 1e3, rel=0.01)


def test_nothing_counted_has_no_quantiles() -> None:
    assert latency_of(count([])) == latency_of(add([])) == UNTIMED
