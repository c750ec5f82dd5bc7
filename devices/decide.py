"""From logits to an answer that does not flicker: smoothing, an entry threshold, a dwell time, and "unknown"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.engines.base import Floats
from edgeseq.errors import InputError
from edgeseq.manifest import Decision

UNKNOWN = "unknown"


class Answer(NamedTuple):
    """The answer after a frame: a label or "unknown", its smoothed probability, and whether it is new.

    For "unknown" the probability is that of the likeliest label.
    """

    label: str
    probability: float
    changed: bool


class Decider:
    """The decision rule of a manifest, frame after frame.

    The probabilities are averaged exponentially, ``p += (1 - exp(-1 / (rate * smoothing))) (softmax(logits) - p)``, and
    start as those of the first frame. The answer becomes the likeliest label when its average exceeds ``enter`` and
    ``dwell`` seconds have passed since the last change; it becomes "unknown" at once when no average exceeds
    ``unknown``. It is "unknown" until a label has been entered, and for the first ``look_ahead`` frames, whose logits
    mean nothing.
    """

    def __init__(self, decision: Decision, labels: Sequence[str], rate: float, look_ahead: int = 0) -> None:
        """``rate`` is in steps per second, ``look_ahead`` in steps."""
        self._rule, self._labels, self._look_ahead = decision, tuple(labels), look_ahead
        self._weight = -math.expm1(-1 / (rate * decision.smoothing)) if decision.smoothing > 0 else 1.0
        self._dwell = math.ceil(decision.dwell * rate - 1e-9)  # in frames; 0.1 s at 30 Hz is 3, whatever floats say
        self.reset()

    def reset(self) -> None:
        """Forget the averages and the answer, as before the first frame."""
        self._average: NDArray[np.float64] | None = None
        self._answer: int | None = None  # index of the label; None is unknown
        self._since = self._dwell  # frames since the answer changed: the first change need not wait
        self._seen = 0

    def __call__(self, logits: Floats) -> Answer:
        """The answer after one frame's logits (K,).

        Raises:
            InputError: another number of logits than labels.
        """
        if np.shape(logits) != (len(self._labels),):
            raise InputError(f"logits have shape {np.shape(logits)}: ({len(self._labels)},) is needed")
        self._seen += 1
        first = self._seen == 1
        if self._seen <= self._look_ahead:
            return Answer(UNKNOWN, 0.0, first)
        now = _softmax(logits)
        if self._average is None or self._weight == 1:  # exactly: a tie must not be decided by rounding
            self._average = now
        else:
            self._average = self._average + self._weight * (now - self._average)
        changed = self._decide(self._average)
        shown = int(self._average.argmax()) if self._answer is None else self._answer
        label = UNKNOWN if self._answer is None else self._labels[self._answer]
        return Answer(label, float(self._average[shown]), changed or first)

    def _decide(self, average: NDArray[np.float64]) -> bool:
        best = int(average.argmax())
        self._since += 1
        if not average[best] > self._rule.unknown:
            target: int | None = None
        elif average[best] > self._rule.enter and self._since >= self._dwell:
            target = best
        else:
            target = self._answer
        if target == self._answer:
            return False
        self._answer, self._since = target, 0
        return True


def _softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = np.exp(np.subtract(logits, np.max(logits), dtype=np.float64))
    probabilities: NDArray[np.float64] = shifted / shifted.sum()
    return probabilities
