import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, default_split, load, split_by_subject, subject_folds
from edgeseq.errors import InputError


def of(**labels_of_subject):
    """One recording per subject, whose frames have these labels."""
    recordings = tuple(
        Recording(np.zeros((len(y), 1), np.float32), np.array(y, np.int16), subject, subject)
        for subject, y in labels_of_subject.items()
    )
    return Dataset("watch", recordings, ("ax",), ("g",), 1.0, ("walk", "run"))


def subjects(count):
    return of(**{str(k): [0, 1] for k in range(1, count + 1)})


def refusal(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_everybody_not_in_test_or_validation_trains():
    split = split_by_subject(subjects(10), test=["10", "1"], validation=["2"])
    assert split.subjects() == {
        "train": ["3", "4", "5", "6", "7", "8", "9"],
        "validation": ["2"],
        "test": ["1", "10"],
    }


def test_a_subject_in_two_parts_is_refused_by_name():
    message = refusal(split_by_subject, subjects(4), test=["1", "2"], validation=["2"])
    assert "subject '2' is in both test and validation" in message
    assert "Leave it in one" in message


@pytest.mark.parametrize("part", ["test", "validation"])
def test_an_unknown_subject_is_refused_with_the_closest_match(part):
    data = of(anna=[0, 1], berta=[0, 1], carl=[0, 1])
    chosen = {"test": ["anna"], "validation": ["berta"], part: ["cal"]}
    assert "Did you mean 'carl'" in refusal(split_by_subject, data, **chosen)


@pytest.mark.parametrize(
    ("test", "validation", "part"), [([], ["1"], "test"), (["1"], [], "validation"), (["1", "2"], ["3"], "train")]
)
def test_an_empty_part_is_refused_by_name(test, validation, part):
    message = refusal(split_by_subject, subjects(3), test=test, validation=validation)
    assert f"the {part} part has no subject" in message
    assert "1, 2, 3" in message


def test_a_label_that_training_never_sees_is_refused_with_the_subjects_that_have_it():
    data = of(a=[0, 1], b=[0, 1], c=[0, 0], d=[0, -1])
    message = refusal(split_by_subject, data, test=["a"], validation=["b"])
    assert "label 'run' is missing from training (subjects c, d)" in message
    assert "Only a, b have it: put one of them into training" in message


def test_a_label_that_nobody_has_is_refused_with_another_mend():
    data = dataclasses.replace(subjects(3), labels=("walk", "run", "fly"))
    message = refusal(split_by_subject, data, test=["1"], validation=["2"])
    assert "'fly'" in message
    assert "in data of your own, take it out of the labels" in message


def test_a_part_that_cannot_be_scored_is_refused():
    data = of(a=[0, 1], b=[-1, -1], c=[0, 1])
    assert "no frame of the test subjects (b)" in refusal(split_by_subject, data, test=["b"], validation=["a"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("call", [subject_folds, default_split])
def test_fewer_than_three_subjects_cannot_be_split(count, call):
    message = refusal(call, subjects(count))
    assert f"{count} subject(s)" in message
    assert "at least 3" in message
    assert "subject column" in message
    assert "subject_from" in message


def test_ten_subjects_make_five_folds_of_neighbours():
    assert subject_folds(subjects(10)) == [
        (("1", "2"), ("3",)),
        (("3", "4"), ("5",)),
        (("5", "6"), ("7",)),
        (("7", "8"), ("9",)),
        (("9", "10"), ("1",)),
    ]


@given(st.integers(3, 40), st.integers(2, 40))
def test_folds_test_everybody_once_and_never_share_a_subject(count, k):
    data = subjects(count)
    assume(k <= count and count - -(-count // k) >= 2)
    folds = subject_folds(data, k)
    assert len(folds) == k
    assert [subject for test, _ in folds for subject in test] == list(data.subjects)
    sizes = [len(test) for test, _ in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in range(k):
        parts = default_split(data, fold, k).subjects()
        everybody = [subject for part in parts.values() for subject in part]
        assert sorted(everybody) == sorted(data.subjects)
        assert len(parts["validation"]) == 1


@pytest.mark.parametrize(("count", "k", "mend"), [(10, 11, "2 to 10"), (10, 1, "2 to 10"), (3, 2, "3 to 3")])
def test_an_impossible_number_of_folds_is_refused_with_the_possible_ones(count, k, mend):
    assert mend in refusal(subject_folds, subjects(count), k)


def test_the_default_split_takes_one_fold_per_subject_where_there_are_fewer_than_five():
    assert default_split(subjects(3)).subjects() == {"train": ["3"], "validation": ["2"], "test": ["1"]}


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_does_not_exist_is_refused(fold):
    assert "0 to 4" in refusal(default_split, subjects(10), fold)


@pytest.mark.parametrize("fold", range(5))
def test_every_fold_of_spar_watch_trains_on_all_labels(fold):
    split = default_split(load("spar_watch"), fold)
    assert split.train.label_counts().all()
    assert [len(part) for part in split.subjects().values()] == [7, 1, 2]
