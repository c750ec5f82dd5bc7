"""What a model says of streams in which labels change, and how much of them there is. For tuning a decision rule.

T frames, K labels, P pieces of streams, from a change to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.data import Dataset
from edgeseq.decisions import answers
from edgeseq.errors import InputError
from edgeseq.events import ORDERS, EventScores, Tally, Truth, scores, streams, truths
from edgeseq.manifest import Decision
from edgeseq.models.contract import StreamingModel
from edgeseq.training.evaluate import logits

ENOUGH = 100  # changes to choose on: of fewer, what a rule gains may be chance, or those few people
STREAMS = 4  # that the model hears together
ANSWERS = 1 << 27  # that are kept at once, a byte each


class Evidence(msgspec.Struct, frozen=True):
    """On how much a rule is chosen, or judged: each recording counts once, however often it is heard.

    ``people``: 0 where nobody knows who was recorded. ``hours`` of labelled time. ``changes``: those to different
    recordings where recordings are stitched, in so many ``orders`` (0: they hold changes of their own).
    """

    people: int
    hours: float
    changes: int
    orders: int

    @property
    def few(self) -> bool:
        """Whether the changes are too few to choose on with any certainty."""
        return self.changes < ENOUGH


@dataclass(frozen=True)
class Heard:
    """What a model says of streams: the logits (T, K) of each, and what is true of it.

    ``rate`` is in frames per second; what is said of a frame is there ``look_ahead`` frames later. ``evidence``: how
    much of it there is.
    """

    logits: Sequence[NDArray[np.float32]]
    truths: Sequence[Truth]
    rate: float
    look_ahead: int
    evidence: Evidence

    def tallies(self, rules: Sequence[Decision]) -> list[Tally]:
        """What is counted under each of the ``rules``, over all streams."""
        found = [Tally()] * len(rules)
        for y, truth in zip(self.logits, self.truths, strict=True):
            at_once = max(1, ANSWERS // len(truth.y))
            for first in range(0, len(rules), at_once):
                said = answers(y, rules[first : first + at_once], self.rate, self.look_ahead)
                for i, series in enumerate(said, first):
                    found[i] += truth.tally(series)
        return found

    def pieces(self, rules: Sequence[Decision]) -> NDArray[np.float64]:
        """What is counted under each of R ``rules`` by pieces: (R, P, 3), see :meth:`edgeseq.events.Truth.pieces`."""
        found = [
            [truth.pieces(series) for series in answers(y, rules, self.rate, self.look_ahead)]
            for y, truth in zip(self.logits, self.truths, strict=True)
        ]
        counts: NDArray[np.float64] = np.concatenate(found, axis=1).astype(np.float64)
        return counts


def hear(model: StreamingModel, dataset: Dataset, *, seed: int = 0, orders: int = ORDERS) -> Heard:
    """What ``model`` says of a data set's streams, from the initial state to the end of each.

    Recordings with one label each are stitched (:func:`edgeseq.events.stitched`), and the model runs through the seams.

    Raises:
        InputError: the data set has segments to answer.
    """
    if dataset.task != "frame":
        raise InputError(f"{dataset.name} has {dataset.task}s to answer: changes are scored where frames are")
    heard = streams(dataset, seed, orders)
    said, true = logits(model, heard.recordings, batch=STREAMS), truths(heard)
    evidence = _evidence(dataset, true, 0 if heard is dataset else orders)
    return Heard(said, true, dataset.rate, model.look_ahead, evidence)


def _evidence(dataset: Dataset, true: Sequence[Truth], orders: int) -> Evidence:
    """How much the streams with what is ``true`` hold, made of a data set's recordings in so many orders."""
    changes = sum(len(truth.onsets) for truth in true)
    seconds = sum(int(np.count_nonzero(truth.y >= 0)) for truth in true) / dataset.rate
    if orders:
        changes = min(changes, sum(bool((recording.y >= 0).any()) for recording in dataset.recordings))
        seconds /= orders
    return Evidence(0 if dataset.dealt else len(dataset.subjects), seconds / 3600, changes, orders)


def event_scores(heard: Heard, decision: Decision) -> EventScores:
    """How the rule ``decision`` does on what was heard."""
    return scores(heard.tallies([decision])[0])
