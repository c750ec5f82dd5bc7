"""Durations of a long run as counts by bin: what they take does not grow with the hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from edgeseq.devices.bench.report import UNTIMED, Latency

BINS = 64  # to a factor of two: each bin is 1.1 % wide, and a quantile is right to half of that


class Counts(msgspec.Struct, frozen=True):
    """How many durations fell into bin i, from 2**(i / 64) to 2**((i + 1) / 64) nanoseconds; and the longest, in ns."""

    bins: dict[int, int] = {}
    longest: int = 0


def count(samples: Sequence[int]) -> Counts:
    """Count samples in nanoseconds; less than one is one."""
    if not samples:
        return Counts()
    bins, numbers = np.unique(np.floor(BINS * np.log2(np.maximum(samples, 1))).astype(int), return_counts=True)
    return Counts(dict(zip(bins.tolist(), numbers.tolist(), strict=True)), max(samples))


def add(several: Iterable[Counts]) -> Counts:
    """The counts of all of them together."""
    bins: Counter[int] = Counter()
    longest = 0
    for counts in several:
        bins.update(counts.bins)
        longest = max(longest, counts.longest)
    return Counts(dict(sorted(bins.items())), longest)


def latency_of(counts: Counts) -> Latency:
    """Quantiles in microseconds: each the middle of its bin, the longest exactly."""
    if not counts.bins:
        return UNTIMED
    bins = np.array(sorted(counts.bins))
    upto = np.cumsum([counts.bins[index] for index in bins.tolist()])
    ranks = np.ceil(np.array((0.5, 0.9, 0.99)) * upto[-1])
    middles = 2 ** ((bins[np.searchsorted(upto, ranks)] + 0.5) / BINS)
    p50, p90, p99 = np.minimum(middles, max(counts.longest, 1)) / 1e3
    return Latency(float(p50), float(p90), float(p99), counts.longest / 1e3)
