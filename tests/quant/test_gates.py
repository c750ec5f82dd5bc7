"""The gate of accuracy: how far the score may fall, and what cannot be judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import Folder
from edgeseq.manifest import Channel, Input, Manifest, Normalization
from edgeseq.quant.gates import SCORE, check_drop, check_limit


def parent(score: float | None) -> Folder:
    source = Input((Channel("a", "V"),), 50.0, Normalization((0.0,), (1.0,)))
    metrics = {} if score is None else {SCORE: score}
    manifest = Manifest(
        name="p", family="rnn", arguments={}, task="frame", labels=("x", "y"), input=source, states=(), metrics=metrics
    )
    return Folder(Path("runs/p"), manifest)


@given(before=st.integers(0, 10**6), after=st.integers(0, 10**6), allowed=st.integers(0, 300))
def test_it_fails_exactly_where_the_drop_in_points_is_more_than_allowed(before, after, allowed):
    folder, metrics = parent(before / 10**6), {SCORE: after / 10**6}
    if before - after <= allowed * 10**4:
        check_drop(folder, metrics, float(allowed))
    else:
        with pytest.raises(GateFailed, match=f"at most {allowed} are allowed") as raised:
            check_drop(folder, metrics, float(allowed))
        assert raised.value.exit_code == 5


def test_it_says_both_scores_and_the_mend():
    said = r"falls by 2\.50 points, from 90\.00 % to 87\.50 %, and at most 1 are allowed: .*--max-drop"
    with pytest.raises(GateFailed, match=said):
        check_drop(parent(0.9), {SCORE: 0.875}, 1.0)


def test_without_a_limit_anything_goes_and_no_number_never_does():
    check_drop(parent(None), {SCORE: 0.0}, None)
    with pytest.raises(GateFailed):
        check_drop(parent(0.9), {SCORE: float("nan")}, 100.0)


def test_a_limit_that_means_nothing_is_refused():
    with pytest.raises(InputError, match="max_drop -1"):
        check_limit(parent(0.9), -1.0)
    with pytest.raises(InputError, match="max_drop nan"):
        check_limit(parent(0.9), float("nan"))
    with pytest.raises(InputError, match="does not say its validation macro f1"):
        check_limit(parent(None), 1.0)
