"""The decision rule of endless streams over whole streams, for many rules at once: to choose one, and to score it.

:class:`edgeseq.devices.decide.Decider` says the same frame after frame; here as there a float is computed by the same
operations in the same order, so that no tie falls another way.

T frames, L frames of look-ahead, K labels, S smoothings, R rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseq.manifest import Decision

Values = NDArray[np.float64]
Answers = NDArray[np.integer[Any]]

NO_ANSWER = -1  # the index of "unknown"


def softmax(logits: ArrayLike) -> Values:
    """The probabilities (K,) of one frame's logits (K,), in float64."""
    shifted = np.exp(np.subtract(logits, np.max(logits), dtype=np.float64))
    probabilities: Values = shifted / shifted.sum()
    return probabilities


def weight_of(smoothing: float, rate: float) -> float:
    """What a new frame weighs in an average with a time constant of ``smoothing`` seconds at ``rate`` Hz."""
    return -math.expm1(-1 / (rate * smoothing)) if smoothing > 0 else 1.0


def frames_of(dwell: float, rate: float) -> int:
    """The frames that ``dwell`` seconds last: 0.1 s at 30 Hz is 3, whatever floats say."""
    return math.ceil(dwell * rate - 1e-9)


def averages(logits: ArrayLike, smoothings: Sequence[float], rate: float) -> Values:
    """The smoothed probabilities (T, S, K) of the logits (T, K) of consecutive frames at ``rate`` Hz.

    Each smoothing is a time constant in seconds; 0 leaves the probabilities as they are.
    """
    weights = np.array([weight_of(smoothing, rate) for smoothing in smoothings])[:, None]
    rows = np.asarray(logits)
    found = np.empty((len(rows), len(weights), rows.shape[-1]))
    for t, row in enumerate(rows):
        now = softmax(row)
        before = found[t - 1] if t else now
        found[t] = np.where(weights == 1, now, before + weights * (now - before))
    return found


def answers(logits: ArrayLike, rules: Sequence[Decision], rate: float, look_ahead: int = 0) -> Answers:
    """The answers (R, L + T) under ``rules`` to logits (T, K) of consecutive frames at ``rate`` Hz.

    They are label indices, -1 where the answer is "unknown", as they are said: what the logits say of a frame is there
    L = ``look_ahead`` frames later, and the last ones are said behind the last frame.
    """
    smoothings = sorted({rule.smoothing for rule in rules})
    average = averages(logits, smoothings, rate)
    of = np.array([smoothings.index(rule.smoothing) for rule in rules])
    enter, leave, unknown = (
        np.array(column) for column in zip(*((r.enter, r.leave, r.unknown) for r in rules), strict=True)
    )
    dwell = np.array([frames_of(rule.dwell, rate) for rule in rules])
    best, top, first = average.argmax(-1), average.max(-1), of * average.shape[-1]  # (T, S), (T, S), (R,)
    found = np.full((look_ahead + len(average), len(rules)), NO_ANSWER, np.min_scalar_type(-average.shape[-1]))
    answer, since = np.full(len(rules), NO_ANSWER), dwell.copy()
    for t, row in enumerate(average.reshape(len(average), -1)):
        highest = top[t].take(of)
        since += 1
        holds = (answer != NO_ANSWER) & (row.take(first + answer, mode="wrap") > leave)
        enters = (highest > enter) & (since >= dwell) & ~holds
        target = np.where(highest > unknown, np.where(enters, best[t].take(of), answer), NO_ANSWER)
        since[target != answer] = 0
        answer = target
        found[look_ahead + t] = answer
    said: Answers = found.T
    return said
