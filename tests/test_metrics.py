"""Scores per frame, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.metrics import score

PAIRS = st.lists(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(-1, 3), min_size=n, max_size=n), st.lists(st.integers(0, 3), min_size=n, max_size=n)
        )
    ),
    min_size=1,
    max_size=4,
)


@given(PAIRS)
def test_scores_are_those_of_scikit_learn_over_the_labelled_frames(pairs):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    arrays = [(np.array(true), np.array(answered)) for true, answered in pairs]
    true, answered = (np.concatenate(side) for side in zip(*arrays, strict=True))
    counted = true >= 0
    found = score(arrays, 4)
    assert found.frames == counted.sum()
    if not counted.any():
        assert np.isnan(found.accuracy)
        return
    true, answered = true[counted], answered[counted]
    assert found.accuracy == pytest.approx(accuracy_score(true, answered))
    assert np.array_equal(found.confusion, confusion_matrix(true, answered, labels=range(4)))
    occurring = sorted(set(true))
    assert found.macro_f1 == pytest.approx(f1_score(true, answered, labels=occurring, average="macro", zero_division=0))
