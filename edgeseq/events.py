"""How a stream of answers follows the changes of what is true: how late, how often not at all, and how often wrongly.

The rule of intervals is that of the streaming test of MLPerf Tiny (v1.3, github.com/mlcommons/tiny,
``benchmark/runner``: ``calc_detection_stats``), carried over from one wake word to the labels of an endless stream:

- An **event** is a change of the true label to another one. It begins with the first frame that has the new label and
  ends behind the last one before another label comes. Frames without a label neither begin nor end one: of A, no label,
  B the event is B's first frame, and A, no label, A is none. The start of a stream is no event.
- Its **delay** is the time from its first frame to the first one behind which the answer is its label; 0 where that is
  the answer already. Answers count when they are said, so a look-ahead is a part of it. An event is **missed** where
  its label is the answer neither within it nor up to 1 s behind its end, nor before the same label begins once more.
  What a model that looks ahead says behind the end of a stream counts for the events that such a second reaches to.
- A **switch** is a change of the answer to a label; the first answer is one, a change to "unknown" is none. It is right
  where its label is the true one, or was in the last second: a hit, or a return to what is so. Else it is **false**,
  and is counted unless another one was counted in the second before it. Where nothing is labelled nobody knows, and
  nothing is counted.

T frames, E events, L answers behind the last frame, K labels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.data.dataset import IGNORED, Dataset, Recording
from edgeseq.decisions import NO_ANSWER
from edgeseq.errors import InputError

Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]

TOLERANCE = 1.0
"""Seconds behind an event's end in which its answer still counts, and in which false switches count as one."""
ORDERS = 5
"""In which each subject's recordings are stitched: of few recordings there are few changes."""


class Tally(msgspec.Struct, frozen=True):
    """What was counted in one stream or in several: ``delays`` of the ``events`` that were answered, in seconds.

    ``seconds`` of labelled time, and those of it in which the answer was the true label, or "unknown".
    """

    delays: tuple[float, ...] = ()
    events: int = 0
    false_switches: int = 0
    seconds: float = 0.0
    right_seconds: float = 0.0
    unknown_seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.delays + other.delays,
            self.events + other.events,
            self.false_switches + other.false_switches,
            self.seconds + other.seconds,
            self.right_seconds + other.right_seconds,
            self.unknown_seconds + other.unknown_seconds,
        )

    @property
    def f1(self) -> float:
        """2 H / (2 H + missed + false switches), of H events that were answered; 0 where there is nothing to count."""
        weighed = self.events + len(self.delays) + self.false_switches
        return 2 * len(self.delays) / weighed if weighed else 0.0

    def time_to(self, share: float) -> float:
        """The seconds within which that share of all events is answered; infinite where too many are missed."""
        needed = math.ceil(share * self.events - 1e-9)
        if not needed:
            return 0.0
        return sorted(self.delays)[needed - 1] if needed <= len(self.delays) else math.inf


class EventScores(msgspec.Struct, frozen=True):
    """Scores of the changes in ``hours`` of labelled time (see the module for what is counted).

    ``delay_median`` and ``delay_p90`` (90th percentile): seconds, of the events that were answered; None if none was.
    ``missed``: share of the events, None where there is none. ``f1`` weighs answered events against missed ones and
    false switches. ``accuracy`` and ``unknown``: shares of the labelled time in which the answer, as it was said then,
    was the true label, and was "unknown".
    """

    delay_median: float | None
    delay_p90: float | None
    missed: float | None
    false_switches_per_hour: float
    events: int
    hours: float
    f1: float
    accuracy: float
    unknown: float


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of one stream, made ready for scoring many series of answers to it.

    ``y``: (T,), the label indices. ``onsets``, ``ends``, ``labels``: (E,), of each event its first frame, the first
    that answers it no more, and its label index. ``welcome``: (T, K), whether a switch to a label after a frame is
    right, or cannot be judged.
    """

    rate: float
    y: Counts
    onsets: Counts
    ends: Counts
    labels: Counts
    welcome: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Labels, rate: float) -> Truth:
        """The truth of a stream with label indices ``labels`` (T,), negative where there is none, at ``rate`` Hz."""
        y = np.asarray(labels, np.int64)
        late, at = _frames(rate), np.flatnonzero(y >= 0)
        cuts = np.flatnonzero(np.diff(y[at])) + 1  # among the labelled frames, the first of each event
        onsets, names = at[cuts], y[at[cuts]]
        ends = at[np.append(cuts[1:], len(at)) - 1] + 1 if len(cuts) else onsets
        return cls(rate, y, onsets, _windows(onsets, ends, names, late), names, _welcome(y, late))

    def tally(self, answers: Labels) -> Tally:
        """What is counted of the ``answers`` (T + L,): label indices, negative for "unknown", as said after each frame.

        The last L are said behind the stream's end, and are answers to its last events at most.

        Raises:
            InputError: there are fewer answers than frames.
        """
        delays = [delay / self.rate for delay in self._delays(answers) if delay is not None]
        within = answers[: len(self.y)]
        known = self.y >= 0
        frames = (known, known & (within == self.y), known & (within < 0))
        return Tally(
            tuple(delays),
            len(self.onsets),
            len(self._false_switches(within)),
            *(int(np.count_nonzero(chosen)) / self.rate for chosen in frames),
        )

    def pieces(self, answers: Labels) -> Counts:
        """What :meth:`tally` counts, by pieces of the stream: (1 + E, 3) events, answered events and false switches.

        The first piece ends at the first event, each other one lasts from an event to the next.
        """
        found = np.zeros((1 + len(self.onsets), 3), np.int64)
        found[1:, 0] = 1
        found[1:, 1] = [delay is not None for delay in self._delays(answers)]
        false = self._false_switches(answers[: len(self.y)])
        np.add.at(found[:, 2], np.searchsorted(self.onsets, false, side="right"), 1)
        return found

    def _delays(self, answers: Labels) -> list[int | None]:
        """Of each event the frames to its answer, None where it is missed."""
        if len(answers) < len(self.y):
            raise InputError(f"answers have shape {np.shape(answers)}: one for each of {len(self.y)} frames is needed")
        found: list[int | None] = []
        for onset, end, label in zip(self.onsets.tolist(), self.ends.tolist(), self.labels.tolist(), strict=True):
            hit = answers[onset:end] == label
            found.append(int(hit.argmax()) if hit.any() else None)
        return found

    def _false_switches(self, answers: Labels) -> list[int]:
        """The frames of the false switches that are counted."""
        before = np.concatenate([[NO_ANSWER], answers[:-1]])
        switches = np.flatnonzero((answers != before) & (answers >= 0))
        said = answers[switches]
        found, free, late = list[int](), -1, _frames(self.rate)
        beyond = said >= self.welcome.shape[1]  # labels that are never true here
        allowed = self.welcome[switches, np.where(beyond, 0, said)] if self.welcome.shape[1] else beyond
        for frame in switches[np.where(beyond, self.y[switches] >= 0, ~allowed)].tolist():
            if frame > free:
                found.append(frame)
                free = frame + late
        return found


def score_events(pairs: Iterable[tuple[Labels, Labels]], rate: float) -> EventScores:
    """Scores over ``(true (T,), answered (T + L,))`` label indices, one pair a stream, at ``rate`` Hz; negative: none.

    Raises:
        InputError: there are fewer answers than frames.
    """
    return scores(sum((Truth.of(true, rate).tally(answered) for true, answered in pairs), Tally()))


def scores(tally: Tally) -> EventScores:
    """The scores of what was counted."""
    hours = tally.seconds / 3600
    delays = tally.delays
    return EventScores(
        delay_median=float(np.median(delays)) if delays else None,
        delay_p90=float(np.quantile(delays, 0.9)) if delays else None,
        missed=1 - len(delays) / tally.events if tally.events else None,
        false_switches_per_hour=tally.false_switches / hours if hours else 0.0,
        events=tally.events,
        hours=hours,
        f1=tally.f1,
        accuracy=tally.right_seconds / tally.seconds if tally.seconds else 0.0,
        unknown=tally.unknown_seconds / tally.seconds if tally.seconds else 0.0,
    )


def streams(dataset: Dataset, seed: int = 0, orders: int = 1) -> Dataset:
    """The recordings to score changes on: as they are, or :func:`stitched` where none of them has a change of label."""
    changing = any(len(np.unique(recording.y[recording.y >= 0])) > 1 for recording in dataset.recordings)
    return dataset if changing else stitched(dataset, seed, orders)


def stitched(dataset: Dataset, seed: int = 0, orders: int = 1) -> Dataset:
    """Streams of a subject each: that one's recordings one after another, in ``orders`` orders drawn from ``seed``.

    A model is to run through the seams with the state that it carries, as it does through a real change.
    """
    rng = np.random.default_rng(seed)
    made = []
    for subject, which in itertools.product(dataset.subjects, range(orders)):
        theirs = [recording for recording in dataset.recordings if recording.subject == subject]
        order = [theirs[i] for i in rng.permutation(len(theirs))]
        x, y = (np.concatenate([getattr(recording, name) for recording in order]) for name in ("x", "y"))
        made.append(Recording(x, y, subject, f"{subject}, {len(order)} recordings in random order {which}"))
    return dataclasses.replace(dataset, recordings=tuple(made), recorded=dataset.origin_fingerprint)


def truths(dataset: Dataset) -> list[Truth]:
    """The truth of each recording, in whose unscored start nothing counts as labelled."""
    first = round(dataset.unscored * dataset.rate)
    found = []
    for recording in dataset.recordings:
        y = recording.y.copy()
        y[:first] = IGNORED
        found.append(Truth.of(y, dataset.rate))
    return found


def _frames(rate: float) -> int:
    """The whole frames in the tolerance."""
    return math.floor(TOLERANCE * rate + 1e-9)


def _windows(onsets: Counts, ends: Counts, labels: Counts, late: int) -> Counts:
    """Of each event, the first frame that answers it no more. ``ends``: the frame behind each one's last."""
    found = ends + late + 1
    for label in np.unique(labels):
        same = np.flatnonzero(labels == label)
        found[same[:-1]] = np.minimum(found[same[:-1]], onsets[same[1:]])
    return found


def _welcome(y: Counts, late: int) -> NDArray[np.bool_]:
    """Whether a switch to each label (T, K) is right: it is true, or was until ``late`` frames ago, or nobody knows."""
    frames = np.arange(len(y))
    classes = int(y.max(initial=NO_ANSWER)) + 1
    found = np.empty((len(y), classes), np.bool_)
    for label in range(classes):
        behind = np.maximum.accumulate(np.where(y == label, frames + 1, -late - 1))  # the last time it ended
        found[:, label] = (frames <= behind + late) | (y < 0)
    return found
