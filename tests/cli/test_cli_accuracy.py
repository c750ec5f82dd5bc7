"""Scores of an engine: each answer is counted for the frame, or the segment, that it is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.cli.accuracy import MEASURED, accuracy_notes, evaluate
from edgeseq.data import Dataset, Recording
from edgeseq.data.dataset import UNSCORED

RATE, LABELS = 10.0, 3


@dataclass
class Echo:
    """A session that answers, ``look_ahead`` frames late, with the label that a frame holds; before that with none."""

    look_ahead: int
    waiting: list[int] = field(default_factory=list)

    @property
    def manifest(self):
        return SimpleNamespace(input=SimpleNamespace(look_ahead=self.look_ahead))

    def reset(self):
        self.waiting = [-1] * self.look_ahead

    def answers(self, labels):
        self.waiting += labels
        said, self.waiting = self.waiting[: len(labels)], self.waiting[len(labels) :]
        return np.eye(LABELS, dtype=np.float32)[said] if said else np.empty((0, LABELS), np.float32)

    def run(self, x):
        return self.answers(x[:, 0].astype(int).tolist())

    def flush(self):
        return self.answers([0] * self.look_ahead)


def dataset(lengths, task, seed):
    rng = np.random.default_rng(seed)
    made = []
    for n in lengths:
        y = rng.integers(0, LABELS, n).astype(np.int16)
        x = y[:, None].astype(np.float32)
        made.append(Recording(x, y if task == "frame" else np.full(n, y[-1], np.int16), "a", "r"))
    return Dataset("d", tuple(made), ("a",), ("",), RATE, ("x", "y", "z"), task=task)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), late=st.integers(0, 5), seed=st.integers(0, 99))
def test_every_frame_after_the_first_seconds_is_counted_with_its_own_answer(lengths, late, seed):
    scores = evaluate(Echo(late), dataset(lengths, "frame", seed))
    counted = sum(max(0, n - round(UNSCORED * RATE)) for n in lengths)
    assert scores.frames == counted
    assert not counted or scores.accuracy == 1


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), late=st.integers(0, 5), seed=st.integers(0, 99))
def test_a_segment_is_counted_once_by_the_answer_to_its_last_frame(lengths, late, seed):
    scores = evaluate(Echo(late), dataset(lengths, "segment", seed))
    assert (scores.frames, scores.accuracy) == (len(lengths), 1)


@pytest.mark.parametrize(
    ("unit", "people", "said"),
    [
        ("frames", 2, "184 frames of 2 people"),
        ("segments", 1, "184 segments of 1 person"),
        ("segments", 0, "184 segments split at random"),
    ],
)
def test_the_note_says_of_what_and_whom(unit, people, said):
    counted = {"accuracy_unit": unit, "accuracy_frames": 184, "accuracy_subjects": people}
    (note,) = accuracy_notes([{"accuracy": 0.5, "accuracy_source": MEASURED, **counted}])
    assert said in note
