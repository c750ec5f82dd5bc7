"""From logits to an answer: one that does not flicker, of an endless stream, or a final one, of a bounded segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeseq.decisions import frames_of, softmax, weight_of
from edgeseq.devices.engines.base import Floats
from edgeseq.early import frames_in, probabilities
from edgeseq.errors import InputError
from edgeseq.manifest import Decision, Early, Manifest

UNKNOWN = "unknown"
Held = Mapping[str, NDArray[Any]]  # what a decider is resumed from, by name


class Answer(NamedTuple):
    """The answer after a frame: a label or "unknown", its smoothed probability, and whether it is new.

    For "unknown" the probability is that of the likeliest label. ``final``: the answer to a segment, whatever else is
    heard of it; the stream's other answers never are.
    """

    label: str
    probability: float
    changed: bool
    final: bool = False


class Decider:
    """The decision rule of a manifest, frame after frame.

    The probabilities are averaged exponentially, ``p += (1 - exp(-1 / (rate * smoothing))) (softmax(logits) - p)``, and
    start as those of the first frame. The answer becomes the likeliest label when its average exceeds ``enter``, that
    of the present answer does not exceed ``leave``, and ``dwell`` seconds have passed since the last change; it becomes
    "unknown" at once when no average exceeds ``unknown``. It is "unknown" until a label has been entered, and for the
    first ``look_ahead`` frames, whose logits mean nothing. :func:`edgeseq.decisions.answers` says the same of whole
    streams.
    """

    def __init__(self, decision: Decision, labels: Sequence[str], rate: float, look_ahead: int = 0) -> None:
        """``rate`` is in steps per second, ``look_ahead`` in steps."""
        self._rule, self._labels, self._look_ahead = decision, tuple(labels), look_ahead
        self._weight, self._dwell = weight_of(decision.smoothing, rate), frames_of(decision.dwell, rate)
        self.reset()

    def reset(self) -> None:
        """Forget the averages and the answer, as before the first frame."""
        self._average: NDArray[np.float64] | None = None
        self._answer: int | None = None  # index of the label; None is unknown
        self._since = self._dwell  # frames since the answer changed: the first change need not wait
        self._seen, self._fresh = 0, True

    def held(self) -> Held:
        """What to go on from in the middle of a stream: how many frames there were. The averages are not in it."""
        return {"frames": np.array(self._seen)}

    def resume(self, held: Held) -> None:
        """Go on behind the frames that :meth:`held` spoke of, with a new answer; nothing held: as before the first.

        Raises:
            InputError: it is not what :meth:`held` gives.
        """
        self.reset()
        self._seen = _frames(held)

    def __call__(self, logits: Floats) -> Answer:
        """The answer after one frame's logits (K,).

        Raises:
            InputError: another number of logits than labels.
        """
        _check(logits, self._labels)
        self._seen += 1
        first, self._fresh = self._fresh, False
        if self._seen <= self._look_ahead:
            return Answer(UNKNOWN, 0.0, first)
        now = softmax(logits)
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
        elif average[best] > self._rule.enter and self._since >= self._dwell and not self._holds(average):
            target = best
        else:
            target = self._answer
        if target == self._answer:
            return False
        self._answer, self._since = target, 0
        return True

    def _holds(self, average: NDArray[np.float64]) -> bool:
        """Whether the present answer is still likely enough to stay."""
        return self._answer is not None and bool(average[self._answer] > self._rule.leave)


class SegmentDecider:
    """The answer to a bounded segment: "unknown", until the rule is met or the segment ends; then it stays.

    Without a rule, or where it is not met, :meth:`conclude` answers. Edge cases are those of
    :func:`edgeseq.early.by_confidence`, which says the same of whole segments.
    """

    def __init__(self, rule: Early | None, labels: Sequence[str], rate: float, look_ahead: int = 0) -> None:
        """``rate`` is in steps per second, ``look_ahead`` in steps."""
        self._rule = rule or Early()
        self._labels, self._rate, self._look_ahead = tuple(labels), rate, look_ahead
        self._first, self._run = frames_in(self._rule.earliest, rate), frames_in(self._rule.hold, rate)
        self.reset()

    def reset(self) -> None:
        """Forget the answer, as before the first frame of the next segment."""
        self._final: Answer | None = None
        self._last: Floats | None = None  # a copy: the engine may overwrite its logits
        self._seen = self._held = 0  # frames of the segment, and those in a row that one label was likely enough in
        self._held_label, self._fresh = -1, True

    def held(self) -> Held:
        """All that the answer depends on: a segment that is resumed is answered as if it had never been left."""
        held = {"frames": np.array(self._seen), "run": np.array([self._held_label, self._held])}
        if self._last is not None:
            held["logits"] = self._last
        if self._final is not None:
            held["answer"] = np.array([self._labels.index(self._final.label), self._final.probability])
        return held

    def resume(self, held: Held) -> None:
        """Go on behind the frames that :meth:`held` spoke of; with nothing held, as before the first.

        Raises:
            InputError: it is not what :meth:`held` gives.
        """
        self.reset()
        self._seen = _frames(held)
        if "run" in held:
            self._held_label, self._held = (int(value) for value in _numbers(held, "run", 2))
        if "logits" in held:
            self._last = _numbers(held, "logits", len(self._labels)).astype(np.float32)
        if "answer" in held:
            label, probability = _numbers(held, "answer", 2)
            if label not in range(len(self._labels)):
                raise InputError(f"the saved answer is label {label:g}, the model has {len(self._labels)}")
            self._final = Answer(self._labels[int(label)], float(probability), changed=True, final=True)

    def __call__(self, logits: Floats) -> Answer:
        """The answer after one frame's logits (K,).

        Raises:
            InputError: another number of logits than labels.
        """
        _check(logits, self._labels)
        self._seen += 1
        if self._final is not None:
            return self._final._replace(changed=False)
        first, self._fresh = self._fresh, False
        frames = self._seen - self._look_ahead
        if frames <= 0:
            return Answer(UNKNOWN, 0.0, first)
        self._last = np.array(logits, np.float32)
        label, probability = self._likeliest(self._last, frames)
        above = probability > self._rule.confidence
        self._held = self._held + 1 if above and label == self._held_label else int(above)
        self._held_label = label
        if self._held >= self._run and frames >= self._first:
            return self._answer(label, probability)
        return Answer(UNKNOWN, probability, first)

    def conclude(self, logits: Floats | None = None) -> Answer:
        """The answer at the segment's end, final: of the last ``logits`` (K,) of a flush, or the last that were seen.

        Raises:
            InputError: nothing was seen of a segment, or another number of logits than labels.
        """
        if self._final is not None:
            return self._final._replace(changed=False)
        last = self._last if logits is None else logits
        if last is None or not self._seen:
            raise InputError("the segment has no frame: there is nothing to answer")
        _check(last, self._labels)
        return self._answer(*self._likeliest(last, self._seen))

    def _answer(self, label: int, probability: float) -> Answer:
        self._final = Answer(self._labels[label], probability, changed=True, final=True)
        return self._final

    def _likeliest(self, logits: Floats, frames: int) -> tuple[int, float]:
        return int(logits.argmax()), float(probabilities(logits, frames, self._rule, self._rate).max())


def decider(manifest: Manifest) -> Decider | SegmentDecider:
    """The decision rule of a model: that of segments, or of an endless stream."""
    rule, late = manifest.decision, manifest.input.look_ahead
    if manifest.task == "segment":
        return SegmentDecider(rule.early, manifest.labels, manifest.input.step_rate, late)
    return Decider(rule, manifest.labels, manifest.input.step_rate, late)


def _frames(held: Held) -> int:
    frames = _numbers(held, "frames", 1)[0] if held else 0
    if frames < 0 or frames != int(frames):
        raise InputError(f"the saved state speaks of {frames:g} frames: a whole number is needed")
    return int(frames)


def _numbers(held: Held, name: str, count: int) -> NDArray[np.float64]:
    try:
        found = np.asarray(held[name], np.float64).ravel()
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"the saved state lacks its {name}: {error}") from None
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"the saved state has {name} {found.tolist()}: {count} finite numbers are needed")
    return found


def _check(logits: Floats, labels: Sequence[str]) -> None:
    if np.shape(logits) != (len(labels),):
        raise InputError(f"logits have shape {np.shape(logits)}: ({len(labels)},) is needed")
