"""Recordings of nobody knows whom: split at random, the same way each time, every label in every part."""

from __future__ import annotations

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, deal, default_split, subject_folds
from edgeseq.data.dataset import DEALT
from edgeseq.data.split import OFFICIAL, RULE
from edgeseq.errors import InputError


def unknown(*counts, seed=0):
    """As many segments of each label; all differ."""
    rng = np.random.default_rng(seed)
    recordings = tuple(
        Recording(rng.normal(size=(4, 1)).astype(np.float32), np.full(4, label, np.int16), "", f"{label}-{k}")
        for label, count in enumerate(counts)
        for k in range(count)
    )
    return Dataset("set", recordings, ("a",), ("",), 9.0, tuple(f"l{k}" for k in range(len(counts))), task="segment")


def names(part):
    return {recording.name for recording in part.recordings}


@given(st.lists(st.integers(9, 40), min_size=2, max_size=4))
def test_each_recording_is_tested_once_and_never_beside_its_own_training(counts):
    data = deal(unknown(*counts))
    splits = [default_split(data, fold) for fold in range(5)]
    tested = [name for split in splits for name in names(split.test)]
    assert sorted(tested) == sorted(names(data))
    for split in splits:
        parts = [names(part) for part in (split.train, split.validation, split.test)]
        assert set.union(*parts) == names(data)
        assert sum(map(len, parts)) == len(data.recordings)
        rest = len(parts[0]) + len(parts[1])
        assert abs(len(parts[1]) - rest / 8) <= 4 + rest / 40


@given(st.lists(st.integers(16, 60), min_size=2, max_size=5))
def test_each_fold_has_its_share_of_each_label(counts):
    data = deal(unknown(*counts))
    for fold in range(5):
        found = default_split(data, fold).test.label_counts()
        assert np.all(np.abs(found - np.array(counts) / 5) <= 1)


@pytest.mark.filterwarnings("ignore:.*repeat another one")
@given(st.randoms(use_true_random=False), st.booleans())
def test_groups_hang_on_what_is_in_a_recording_and_not_on_its_place(random, repeats):
    data = unknown(30, 25)
    data = repeated(data, (2, 1), (40, 0)) if repeats else data  # both with the other label
    shuffled = list(data.recordings)
    random.shuffle(shuffled)
    other = deal(dataclasses.replace(data, recordings=tuple(shuffled)))
    assert {r.name: r.subject for r in other.recordings} == {r.name: r.subject for r in deal(data).recordings}


def test_a_split_says_that_it_is_at_random():
    data = unknown(30, 30)
    assert default_split(deal(data)).rule == RULE
    known = tuple(dataclasses.replace(r, subject=str(k % 7)) for k, r in enumerate(data.recordings))
    assert default_split(dataclasses.replace(data, recordings=known)).rule == ""


def test_of_a_label_with_two_recordings_one_is_always_trained_on():
    data = deal(unknown(40, 40, 2, seed=3))
    for fold in range(5):
        split = default_split(data, fold)
        assert split.train.label_counts().all()
        assert 0 < len(split.validation.recordings) < len(split.train.recordings) / 4


def test_a_label_with_one_recording_is_named_where_it_is_tested():
    data = deal(unknown(40, 40, 1))
    refused = []
    for fold in range(5):
        try:
            assert default_split(data, fold).train.label_counts()[2] == 1
        except InputError as error:
            refused.append(str(error))
    assert len(refused) == 1
    assert "label 'l2' is missing from training" in refused[0]


def test_an_official_split_is_the_only_one_and_says_so():
    data = deal(unknown(30, 30))
    parts = (f"{DEALT}train", f"{DEALT}validation", f"{DEALT}test")
    official = dataclasses.replace(
        data,
        recordings=tuple(dataclasses.replace(r, subject=parts[k % 3]) for k, r in enumerate(data.recordings)),
        official=((parts[2],), (parts[1],)),
    )
    split = default_split(official)
    assert split.subjects() == {"train": [parts[0]], "validation": [parts[1]], "test": [parts[2]]}
    assert split.rule == OFFICIAL
    with pytest.raises(InputError, match=r"it has one split, its official one\. Leave the fold out"):
        default_split(official, 0)


def test_few_recordings_still_make_five_folds():
    data = deal(unknown(6, 6))
    for test, validation in subject_folds(data):
        assert test
        assert validation
    assert not any(set(a) & set(b) for (a, _), (b, _) in itertools.combinations(subject_folds(data), 2))


def test_groups_make_five_folds_and_no_other_number():
    with pytest.raises(InputError, match=r"3 folds of groups of recordings are not possible\. Ask for 5"):
        subject_folds(deal(unknown(20, 20)), 3)


def test_each_fold_is_chosen_on_groups_of_its_own():
    for fold, (test, validation) in enumerate(subject_folds(deal(unknown(60, 60)))):
        assert {name.split(".")[0] for name in test} == {f"{DEALT}{fold}"}
        assert {name.split(".")[1] for name in validation} == {str(fold)}


def repeated(data, *picks):
    """With some recordings once more, at the end, each with the label that is given."""
    copies = [
        dataclasses.replace(data.recordings[k], y=np.full(4, label, np.int16), name=f"again {k}") for k, label in picks
    ]
    return dataclasses.replace(data, recordings=(*data.recordings, *copies))


@pytest.mark.filterwarnings("ignore:.*repeat another one")
@given(st.lists(st.tuples(st.integers(0, 59), st.integers(0, 1)), min_size=1, max_size=30))
def test_equal_recordings_are_in_one_group_and_never_trained_on_and_tested(picks):
    data = deal(repeated(unknown(30, 30), *picks))
    groups = {}
    for recording in data.recordings:
        groups.setdefault(recording.x.tobytes(), set()).add(recording.subject)
    assert len(groups) == 60
    assert all(len(found) == 1 for found in groups.values())


@pytest.mark.filterwarnings("ignore:.*repeat another one")
def test_repeated_recordings_leave_the_groups_of_the_others_as_they_were():
    data = unknown(30, 30)
    before = {recording.name: recording.subject for recording in deal(data).recordings}
    after = {
        recording.name: recording.subject for recording in deal(repeated(data, (3, 0), (3, 0), (41, 1))).recordings
    }
    assert {name: after[name] for name in before} == before


def test_repeated_recordings_are_counted_in_a_warning():
    with pytest.warns(UserWarning, match=r"set: 3 of 63 recordings repeat another one"):
        deal(repeated(unknown(30, 30), (3, 0), (3, 0), (41, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deal(unknown(30, 30))
