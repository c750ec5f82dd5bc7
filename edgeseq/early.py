"""Answering a segment before it ends: the rule over many segments at once, its calibration, and how it is chosen.

Shape letters: N segments, T frames of one segment, K labels, M rules, from the most cautious to the least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseq.errors import InputError
from edgeseq.manifest import Early

Values = NDArray[np.float64]
Counts = NDArray[np.int64]

CONFIDENCES = 200  # tried, evenly in the logarithm of the doubt
LEAST_DOUBT = 1e-4
FRAMES_TRIED = 512
FRAMES_FITTED = 64  # of a segment, evenly spread: neighbours say the same
BINS = 15
STEPS = 50  # of the fit, which takes about ten


def frames_in(seconds: float, rate: float) -> int:
    """The frames that ``seconds`` last at ``rate`` Hz, at least one: 0.1 s at 30 Hz is 3, whatever floats say."""
    return max(1, math.ceil(seconds * rate - 1e-9))


def probabilities(logits: ArrayLike, frames: ArrayLike, rule: Early, rate: float) -> Values:
    """The calibrated probabilities (..., K) of logits (..., K) that are answers after so many ``frames`` (...)."""
    seconds = np.asarray(frames, np.float64)[..., None] / rate
    scaled = np.asarray(logits, np.float64) / (rule.temperature * np.exp(rule.growth * np.log(seconds)))
    shifted = np.exp(scaled - scaled.max(-1, keepdims=True))
    found: Values = shifted / shifted.sum(-1, keepdims=True)
    return found


@dataclass(frozen=True)
class Segments:
    """What a model says of N segments: the logits (T, K) after each frame, and the label index (N,) of each segment.

    ``rate`` is in frames per second. What is said of a frame is there ``look_ahead`` frames later.
    """

    logits: Sequence[NDArray[np.float32]]
    labels: Counts
    rate: float
    look_ahead: int = 0

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise InputError("there is no labelled segment: nothing can be chosen, or scored, without one")

    @property
    def lengths(self) -> Counts:
        """Frames of each segment (N,)."""
        return np.array([len(y) for y in self.logits], np.int64)

    def probabilities(self, rule: Early) -> list[Values]:
        """The calibrated probabilities (T, K) after each frame."""
        return [probabilities(y, np.arange(1, len(y) + 1), rule, self.rate) for y in self.logits]


@dataclass(frozen=True)
class Answers:
    """What M rules answer to N segments, and after how many frames; the first rule answers every segment at its end.

    ``settings`` (M,): the confidence, or the frame, of each rule. ``labels``, ``used``: (N, M).
    """

    settings: Values
    labels: Counts
    used: Counts


class Outcome(msgspec.Struct, frozen=True):
    """How a rule does: the share of right answers, and the mean and 90th percentile of the share of real frames."""

    accuracy: float
    share: float
    share_p90: float


def by_confidence(segments: Segments, rule: Early, confidences: ArrayLike) -> Answers:
    """The answers of ``rule`` with other confidences, the first of which should be 1."""
    settings = np.asarray(confidences, np.float64)
    first, run = frames_in(rule.earliest, segments.rate), frames_in(rule.hold, segments.rate)
    columns = []
    for y, p in zip(segments.logits, segments.probabilities(rule), strict=True):
        best, in_time = y.argmax(-1), max(len(y) - segments.look_ahead, 0)  # later answers come with the last frame
        highest = np.maximum.accumulate(_held(best, p.max(-1), first, run)[:in_time])
        when = np.searchsorted(highest, settings, side="right")  # the first frame above each confidence
        ended = when == in_time
        frame = np.where(ended, len(y) - 1, when)
        columns.append((best[frame], np.where(ended, len(y), when + 1 + segments.look_ahead)))
    return Answers(settings, np.array([c[0] for c in columns], np.int64), np.array([c[1] for c in columns], np.int64))


def by_frame(segments: Segments, frames: ArrayLike) -> Answers:
    """The answers after so many frames, the same for all segments; of a shorter segment at its end."""
    settings = np.asarray(frames, np.int64)
    labels, used = [], []
    for y in segments.logits:
        spoken = np.where(settings + segments.look_ahead > len(y), len(y), settings)
        labels.append(y.argmax(-1)[spoken - 1])
        used.append(np.minimum(settings + segments.look_ahead, len(y)))
    return Answers(settings.astype(np.float64), np.array(labels, np.int64), np.array(used, np.int64))


def confidences(labels: int) -> Values:
    """The confidences (M,) to choose from: 1, then down to that of a guess among so many labels."""
    doubts = np.geomspace(LEAST_DOUBT, 1 - 1 / labels, CONFIDENCES)
    found: Values = np.concatenate([[1.0], np.unique(np.round(1 - doubts, 5))[::-1]])
    return found


def frame_counts(segments: Segments) -> Counts:
    """The frames (M,) to choose from, from the length of the longest segment down to 1."""
    longest = int(segments.lengths.max())
    found: Counts = np.unique(np.linspace(longest, 1, min(longest, FRAMES_TRIED)).round().astype(np.int64))[::-1]
    return found


def judge(segments: Segments, answers: Answers) -> list[Outcome]:
    """How each of the M rules does."""
    right = (answers.labels == segments.labels[:, None]).mean(0)
    shares = answers.used / segments.lengths[:, None]
    rows = zip(right, shares.mean(0), np.percentile(shares, 90, axis=0), strict=True)
    return [Outcome(*(float(value) for value in row)) for row in rows]


def provable_loss(count: int, level: float) -> float:
    """The least loss of accuracy that ``count`` segments can rule out: the bound where no answer gets worse."""
    return float(_bound(np.zeros(1), np.zeros(1), count, level)[0])


def pick(segments: Segments, answers: Answers, *, drop: float, level: float) -> int:
    """The least cautious of the rules that lose at most ``drop`` of the accuracy, shown at the confidence ``level``.

    The loss of a rule is bounded from above, one-sidedly, by the adjusted Wald interval for paired shares of Bonett
    and Price (J. Educ. Behav. Stat. 37, 2012). On segments too few to show ``drop`` a rule must be as good as one that
    makes no answer worse. The rules are tried from the most cautious on, up to the first that fails, so that trying
    many of them does not make the bound untrue (fixed sequence testing). A level of 0.5 is the plain estimate.
    """
    right = answers.labels == segments.labels[:, None]
    at_end = right[:, :1]
    worse, better = (at_end & ~right).sum(0), (~at_end & right).sum(0)  # (M,)
    allowed = max(drop, provable_loss(len(right), level)) + 1e-12
    passed = _bound(worse, better, len(right), level) <= allowed
    return len(passed) - 1 if passed.all() else max(int(passed.argmin()) - 1, 0)


def read_off(segments: Segments, answers: Answers, drop: float) -> int:
    """The least cautious rule whose accuracy here is within ``drop`` of that at the end: a point of a curve."""
    accuracy = (answers.labels == segments.labels[:, None]).mean(0)
    return int(np.flatnonzero(accuracy >= accuracy[0] - drop - 1e-12)[-1])


def calibrate(segments: Segments) -> tuple[float, float]:
    """``temperature`` and ``growth`` of a rule, of least negative log-likelihood over all frames of the segments.

    All segments count the same. The targets are softened as Platt (1999) does, by one segment of each label, so that
    segments that are all answered right do not make the model infinitely sure. The growth must pay for itself (Akaike's
    information criterion, of N independent segments).
    """
    y, seconds, target, weight = _sampled(segments)
    fits = [_fit(y, np.log(seconds), target, weight, numbers) for numbers in (1, 2)]
    (constant, loss), (growing, less) = fits
    chosen = growing if less + 1 / len(segments.labels) < loss else constant
    return float(np.exp(chosen[0])), float(chosen[1]) if len(chosen) > 1 else 0.0


def calibration_error(segments: Segments, rule: Early) -> float:
    """Expected calibration error: how far accuracy and probability of the likeliest label are apart, over all frames.

    In 15 bins of equal width (Guo et al. 2017).
    """
    p = np.concatenate(segments.probabilities(rule))
    right = p.argmax(-1) == np.repeat(segments.labels, segments.lengths)
    sure = p.max(-1)
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    apart = np.bincount(bins, right - sure, BINS)
    return float(np.abs(apart).sum() / len(p))


def _held(best: NDArray[np.intp], sure: Values, first: int, run: int) -> Values:
    """At each frame (T,) the least of the last ``run`` probabilities, if of one label; 0 ahead of frame ``first``."""
    held: Values = sure.copy()
    for back in range(1, min(run, len(sure))):
        same = np.zeros(len(sure), bool)
        same[back:] = best[back:] == best[:-back]
        held[back:] = np.minimum(held[back:], sure[:-back])
        held[~same] = 0.0
    if run > len(sure):
        held[:] = 0.0
    held[: first - 1] = 0.0
    return held


def _bound(worse: ArrayLike, better: ArrayLike, count: int, level: float) -> Values:
    """The upper bound of the loss of accuracy, of rules that make so many answers worse and better."""
    lost, won = (np.asarray(given, np.float64) + 1 for given in (worse, better))
    loss = (lost - won) / (count + 2)
    spread = np.sqrt(((lost + won) / (count + 2) - loss**2) / (count + 2))
    found: Values = loss + NormalDist().inv_cdf(level) * spread
    return found


def _sampled(segments: Segments) -> tuple[Values, Values, Values, Values]:
    """Logits (F, K), seconds (F,), softened targets (F, K) and weights (F,) of some frames of every segment."""
    count, labels = len(segments.labels), segments.logits[0].shape[1]
    rows = [np.unique(np.linspace(0, n - 1, min(n, FRAMES_FITTED)).round().astype(int)) for n in segments.lengths]
    y = np.concatenate([y[row] for y, row in zip(segments.logits, rows, strict=True)]).astype(np.float64)
    seconds = np.concatenate(rows) / segments.rate + 1 / segments.rate
    soft = (np.eye(labels) * count + 1) / (count + labels)
    target = np.repeat(soft[segments.labels], [len(row) for row in rows], axis=0)
    weight = np.concatenate([np.full(len(row), 1 / (len(row) * count)) for row in rows])
    return y, seconds, target, weight


def _fit(y: Values, log_seconds: Values, target: Values, weight: Values, numbers: int) -> tuple[Values, float]:
    """ln(temperature) and its slope over the logarithm of time, by Fisher scoring; and the loss."""
    basis = np.stack([np.ones_like(log_seconds), log_seconds][:numbers], 1)  # (F, numbers)
    centred = y - y.mean(-1, keepdims=True)
    at = np.zeros(numbers)
    at[0] = math.log(max(float(centred.std()), 1e-12))  # logits of about 1, wherever they start
    loss, slope, curve = _likelihood(at, centred, basis, target, weight)
    for _ in range(STEPS):
        step = np.linalg.solve(curve + 1e-9 * np.eye(numbers), -slope)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        while (found := _likelihood(at + step, centred, basis, target, weight))[0] > loss and np.abs(step).max() > 1e-9:
            step /= 2
        if found[0] > loss:
            break
        gained, at = loss - found[0], at + step
        loss, slope, curve = found
        if gained < 1e-10:
            break
    return at, loss


def _likelihood(at: Values, y: Values, basis: Values, target: Values, weight: Values) -> tuple[float, Values, Values]:
    """Negative log-likelihood of the parameters ``at``, its gradient, and its expected curvature."""
    scaled = y * np.exp(-basis @ at)[:, None]
    scaled -= scaled.max(-1, keepdims=True)
    total = np.log(np.exp(scaled).sum(-1))
    p = np.exp(scaled - total[:, None])
    mean = (p * scaled).sum(-1)
    variance = (p * (scaled - mean[:, None]) ** 2).sum(-1)
    loss = float((weight * (total - (target * scaled).sum(-1))).sum())
    slope = basis.T @ (weight * ((target * scaled).sum(-1) - mean))
    return loss, slope, (basis * (weight * variance)[:, None]).T @ basis
