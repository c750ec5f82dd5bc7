"""Splits by subject: nobody is in two parts, so that a score says how the model does on a person it never met.

(Windows of one recording overlap and look alike: a split by window would flatter the model.)

Where nobody knows who was recorded, whole recordings are dealt at random into groups, which then stand for subjects: a
score then says how the model does on other recordings, maybe of the same people.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np

from edgeseq.data.dataset import DEALT, Dataset, Recording
from edgeseq.errors import InputError, unknown

FOLDS = 5
PARTS = 8  # of a fold of groups: the validation recordings are one part of each fold that is not tested
RULE = "random split by recording: no subjects are known"
OFFICIAL = "the data set's own test recordings: no subjects are known"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three data sets with no subject in common."""

    train: Dataset
    validation: Dataset
    test: Dataset

    def subjects(self) -> dict[str, list[str]]:
        """The subjects of ``train``, ``validation`` and ``test``, each in natural order."""
        return {
            "train": list(self.train.subjects),
            "validation": list(self.validation.subjects),
            "test": list(self.test.subjects),
        }

    @property
    def rule(self) -> str:
        """How the parts were made, where it is not by subject; else ""."""
        if not self.train.dealt:
            return ""
        return OFFICIAL if self.train.official else RULE


def deal(dataset: Dataset) -> Dataset:
    """The same data set with a random group in place of each subject that nobody knows.

    Each label's recordings are dealt in turn into 5 × 8 groups, so that every fold has its share of it. The order is
    that of hashes of their contents: the same on every machine, whatever their order in the file. Recordings of the
    same frames share a group, whatever their labels, or one would be trained on and its like tested: a warning says how
    many there are.
    """
    contents = [_content(recording) for recording in dataset.recordings]
    labels: dict[bytes, int] = {}  # of each content, the least where they differ
    for content, recording in zip(contents, dataset.recordings, strict=True):
        label = int(recording.y[0])
        labels[content] = min(label, labels.get(content, label))
    if len(labels) < len(contents):
        warnings.warn(
            f"{dataset.name}: {len(contents) - len(labels)} of {len(contents)} recordings repeat another one frame by "
            "frame. Each goes to the group of its like; leave them out if they are there by mistake.",
            stacklevel=2,
        )
    order = sorted(labels, key=lambda content: (labels[content], content))
    groups = {content: f"{DEALT}{k % FOLDS}.{k // FOLDS % PARTS}" for k, content in enumerate(order)}
    dealt = zip(dataset.recordings, contents, strict=True)
    recordings = tuple(dataclasses.replace(recording, subject=groups[content]) for recording, content in dealt)
    return dataclasses.replace(dataset, recordings=recordings)


def _content(recording: Recording) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(recording.x, "<f4").tobytes()).digest()


def split_by_subject(dataset: Dataset, *, test: Sequence[str], validation: Sequence[str]) -> Split:
    """Split into the test subjects, the validation subjects, and all others for training.

    Raises InputError for: fewer than three subjects, an unknown subject (with the closest match), a subject in both
    lists, a part that is empty or has no labelled frame, a label that no training subject has.
    """
    subjects = _enough_subjects(dataset)
    for subject in (*test, *validation):
        if subject not in subjects:
            raise unknown(f"subject of {dataset.name}", subject, subjects)
    both = sorted(set(test) & set(validation))
    if both:
        raise InputError(
            f"{dataset.name}: subject {both[0]!r} is in both test and validation; the score would be of a person the "
            "model was chosen on. Leave it in one of them."
        )
    parts = {
        "train": [subject for subject in subjects if subject not in {*test, *validation}],
        "validation": validation,
        "test": test,
    }
    for part, members in parts.items():
        if not members:
            raise InputError(
                f"{dataset.name}: the {part} part has no subject. Give each of train, validation and test at least "
                f"one of: {', '.join(subjects)}."
            )
    split = Split(**{part: dataset.only(members) for part, members in parts.items()})
    _labels_can_be_learned(dataset, split)
    return split


def subject_folds(dataset: Dataset, k: int = 5) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The ``k`` folds of a cross-validation: (test subjects, validation subjects) of each.

    Test subjects are consecutive in natural order (ten subjects, five folds: 1 2, 3 4, ...) and every subject is
    tested once; the validation subject is the next one after them, from the last back to the first. Of groups of
    recordings (:func:`deal`), which make five folds, the validation groups are an eighth of those that are not tested,
    which leaves something of each label to training.

    Raises InputError for fewer than three subjects, or a ``k`` that leaves a fold without test or training subjects.
    """
    subjects = _enough_subjects(dataset)
    if dataset.dealt:
        return _dealt_folds(dataset, k)
    count = len(subjects)
    if not 2 <= k <= count or count - math.ceil(count / k) < 2:
        fewest = next(n for n in range(2, count + 1) if count - math.ceil(count / n) >= 2)
        raise InputError(
            f"{dataset.name}: {k} folds of {count} subjects are not possible. Ask for {fewest} to {count}."
        )
    borders = np.cumsum([0, *(count // k + (fold < count % k) for fold in range(k))]).tolist()
    return [(subjects[first:last], (subjects[last % count],)) for first, last in itertools.pairwise(borders)]


def _dealt_folds(dataset: Dataset, k: int) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    if dataset.official:  # its parts are no groups
        raise InputError(f"{dataset.name}: it has one split, its official one. Leave the fold out.")
    if k != FOLDS:
        raise InputError(f"{dataset.name}: {k} folds of groups of recordings are not possible. Ask for {FOLDS}.")
    places = {name: name.removeprefix(DEALT).split(".") for name in dataset.subjects}
    parts = sorted({part for _, part in places.values()})  # of few recordings there are not eight
    labels: dict[str, set[int]] = {name: set() for name in places}  # that each group has
    for recording in dataset.recordings:
        labels[recording.subject].update(recording.y[:1][recording.y[:1] >= 0].tolist())

    def groups(tested: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        test = tuple(name for name, (fold, _) in places.items() if fold == str(tested))
        rest = [name for name in places if name not in test]
        choices = [
            tuple(name for name in rest if places[name][1] == parts[(tested + k) % len(parts)])
            for k in range(len(parts))
        ]
        # Of a label with two recordings the one that is not tested may be among those of the first choice.
        left = set().union(*(labels[name] for name in rest))
        learned = (set().union(*(labels[name] for name in rest if name not in choice)) == left for choice in choices)
        return test, next((choice for choice, all_left in zip(choices, learned, strict=True) if all_left), choices[0])

    return [groups(tested) for tested in range(FOLDS)]


def default_split(dataset: Dataset, fold: int | None = None, folds: int | None = None) -> Split:
    """The split by fold ``fold`` (counted from 0) of :func:`subject_folds`.

    Without ``fold`` the data set's official split, or the first fold of one that has none. ``folds``: how many; without
    it 5, or one per subject where there are fewer.
    Raises InputError as :func:`subject_folds` and :func:`split_by_subject` do, and for a fold out of range.
    """
    if fold is None and dataset.official:
        test, validation = dataset.official
        return split_by_subject(dataset, test=test, validation=validation)
    fold = fold or 0
    k = min(FOLDS, len(dataset.subjects)) if folds is None else folds
    pairs = subject_folds(dataset, k)
    if not 0 <= fold < len(pairs):
        raise InputError(f"{dataset.name}: there is no fold {fold}. Choose one of 0 to {len(pairs) - 1}.")
    test, validation = pairs[fold]
    return split_by_subject(dataset, test=test, validation=validation)


def _enough_subjects(dataset: Dataset) -> tuple[str, ...]:
    subjects = dataset.subjects
    if len(subjects) < 3:
        raise InputError(
            f"{dataset.name}: {len(subjects)} subject(s) ({', '.join(subjects)}), and a split by subject needs at "
            "least 3: one each for training, validation and test. Add recordings of others. In data of your own that "
            "has them, add a subject column or take the subject from the file or folder name (subject_from=file or "
            "folder)."
        )
    return subjects


def _labels_can_be_learned(dataset: Dataset, split: Split) -> None:
    for part, data in (("validation", split.validation), ("test", split.test)):
        if not data.label_counts().any():
            raise InputError(
                f"{dataset.name}: no frame of the {part} subjects ({', '.join(data.subjects)}) has a label, so nothing "
                "can be scored. Choose others."
            )
    for index, count in enumerate(split.train.label_counts()):
        if count == 0:
            label = dataset.labels[index]
            having = [s for s in dataset.subjects if dataset.only([s]).label_counts()[index]]
            mend = (
                f"Only {', '.join(having)} have it: put one of them into training."
                if having
                else "No recording has it: add some that do, or, in data of your own, take it out of the labels."
            )
            raise InputError(
                f"{dataset.name}: label {label!r} is missing from training (subjects "
                f"{', '.join(split.train.subjects)}). {mend}"
            )
