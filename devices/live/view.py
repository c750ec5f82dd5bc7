"""What can be seen of one stream: its last frames, how long they took, and how it stands."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgeseq.decisions import softmax
from edgeseq.devices.live.wearer import Answered, Event, Wearer
from edgeseq.manifest import how_it_follows
from edgeseq.signal.framer import Gap
from edgeseq.signal.readings import SECOND

KEPT = 20.0  # seconds of frames that somebody may look at
TIMED = 1000  # answers that quantiles are of
CHANGES, GAPS = 200, 20  # the last ones, that are shown
STEP = SECOND  # what a clock that was set, by however much, moves the time that is shown
LONGEST_STEP = 3600 * SECOND


class Seen(NamedTuple):
    """A frame that was answered, and the number of its answer's label, -1 for none."""

    number: int
    time: float
    answered: Answered
    label: int

    def row(self) -> list[float]:
        """Its time in seconds, channels, probabilities of the labels, whether it is bridged, and the label's number."""
        frame = self.answered.frame
        values, bridged = (frame.values.tolist(), float(frame.bridged)) if frame else ([], 0.0)
        return [self.time, *values, *softmax(self.answered.logits).tolist(), bridged, self.label]


class View:
    """What can be seen of one stream."""

    def __init__(self, wearer: Wearer, rate: float) -> None:
        self.wearer = wearer
        self.heard = 0  # when something last came, in ns of our clock
        self._frames: deque[Seen] = deque(maxlen=round(KEPT * rate))
        self._changes: deque[dict[str, Any]] = deque(maxlen=CHANGES)
        self._gaps: deque[dict[str, Any]] = deque(maxlen=GAPS)
        self._steps: deque[int] = deque(maxlen=TIMED)
        self._totals: deque[int] = deque(maxlen=TIMED)
        self._number = itertools.count(1)
        self._clock: int | None = None
        self._shown = 0  # nanoseconds since the first event
        self._last: dict[str, Any] = {}
        self._model: dict[str, Any] = {}
        self.settle()

    def add(self, event: Event, total_ns: int) -> None:
        """Take an event, ``total_ns`` after the message that it comes of had arrived."""
        at = self._elapsed(event.time)
        if isinstance(event, Gap):
            self._gaps.append({"time": at, "seconds": round(event.seconds, 2), "why": event.why})
            return
        self._show(event, at)
        self._totals.append(total_ns)

    def _show(self, event: Answered, at: float) -> None:
        answer = event.answer
        self._last = {"label": answer.label, "probability": answer.probability, "time": at}
        if answer.changed:
            self._changes.append({"number": next(self._number), **self._last})
        if event.frame is None:
            return
        self._steps.append(event.step_ns)
        labels = self.wearer.session.labels
        chosen = labels.index(answer.label) if answer.label in labels else -1  # unknown
        self._frames.append(Seen(next(self._number), at, event, chosen))

    def settle(self) -> None:
        """Take how things stand behind a message: who looks has no business with what is at work."""
        wearer, framer = self.wearer, self.wearer.framer
        if self._model.get("model") != wearer.model:
            manifest = wearer.session.manifest
            self._model = {
                "model": wearer.model,
                "engine": wearer.session.engine,
                "labels": wearer.session.labels,
                "rule": manifest.decision.shown(),
                "follows": how_it_follows(manifest.metrics),
            }
        self._standing = {
            **self._model,
            "rates": {name: round(rate, 1) for name, rate in framer.rates.items()},
            "counts": {**msgspec.to_builtins(framer.counts), "messages_doubled": wearer.inbox.doubled},
            "delay": framer.delay,
            "missing": framer.missing,
        }

    @property
    def missing(self) -> str:
        """What the stream lacks to be answered, in words."""
        return str(self._standing["missing"])

    def look(self, since: int) -> tuple[dict[str, Any], list[Seen], tuple[list[int], list[int]]]:
        """How things stand, the frames since a number that an earlier look gave, and the times taken, in ns."""
        seen = {
            **self._standing,
            "number": self._frames[-1].number if self._frames else 0,
            "answer": self._last,
            "changes": list(self._changes),
            "gaps": list(self._gaps),
        }
        return seen, [each for each in self._frames if each.number > since], (list(self._steps), list(self._totals))

    def _elapsed(self, time: int) -> float:
        """Seconds of the stream, which only rise, whatever the sender's clock does."""
        step = 0 if self._clock is None else time - self._clock
        if -STEP < step < 0:  # the beginning of a hole may lie before the last frame
            return round(self._shown / SECOND, 3)
        self._clock = time
        self._shown += step if 0 <= step < LONGEST_STEP else STEP
        return round(self._shown / SECOND, 3)


def quantiles(taken: Sequence[int]) -> dict[str, float] | None:
    """The median and the 99th percentile in microseconds."""
    if not taken:
        return None
    p50, p99 = np.percentile(taken, (50, 99)) / 1e3
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
