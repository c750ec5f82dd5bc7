"""The budget of ``edgeseq compress``: what one may write, and what is within it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.quant.budget import Budget, parse_budget

COSTS = {"bytes": 20_000, "file": 30_000, "drop": 0.5, "p50": 80.0, "macs": 10_000}


def test_sizes_and_times_have_units():
    assert parse_budget("bytes=32kB, drop=1.0,p50=0.5ms") == Budget(bytes=32_000, drop=1.0, p50=500.0)
    assert parse_budget("file=2KiB,macs=1000") == Budget(file=2048, macs=1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"'' names no limit: give at least one of bytes, file, drop, p50, macs"),
        (" , ", r"names no limit"),
        ("bytes", r"'bytes' is not NAME=VALUE"),
        ("byte=3", r"unknown budget 'byte'. Did you mean 'bytes'"),
        ("bytes=3 furlongs", r"bytes='3 furlongs': a number, 0 or more, is needed, in B, kB, MB"),
        ("bytes=-3kB", r"bytes='-3kB'"),
        ("drop=nan", r"drop='nan'"),
        ("p50=3kB", r"p50='3kB'.*us, ms, s"),
        ("p50=3", r"p50='3'"),
        ("drop=1,drop=2", r"names drop twice"),
    ],
)
def test_what_is_no_budget_is_refused_by_name(text, said):
    with pytest.raises(InputError, match=said):
        parse_budget(text)


@given(st.dictionaries(st.sampled_from(sorted(COSTS)), st.floats(0, 1e6)))
def test_what_is_above_its_limit_and_nothing_else_exceeds_the_budget(limits):
    excess = Budget(**limits).excess(COSTS)
    assert excess.keys() == limits.keys()
    for name, over in excess.items():
        assert (over > 0) == (COSTS[name] > limits[name])


def test_what_is_above_a_limit_of_nothing_is_counted_as_it_is():
    assert Budget(drop=0).excess(COSTS) == {"drop": 0.5}
    assert Budget(drop=0.25).excess(COSTS) == {"drop": 1.0}
