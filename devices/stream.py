"""Frames from a sensor or a recording, one at a time and in their own time; the answer as it changes."""

from __future__ import annotations

import csv
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.decide import Answer
from edgeseq.devices.engines.base import Floats, frame_width
from edgeseq.devices.golden import read_golden
from edgeseq.devices.session import Session
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import Folder
from edgeseq.manifest import Manifest

KEPT = 100_000  # latencies that the summary is made from; a stream may run for days, and its memory must not grow
OnAnswer = Callable[[float, Answer], None]


class Summary(msgspec.Struct, frozen=True):
    """What a stream did. Latencies are of step and decision together, in microseconds, over the last 100,000 frames.

    ``missed_deadlines`` counts answers that came after the next frame was due (0 without pacing). The accuracies are
    over labelled frames: ``accuracy`` of the largest logit, ``answer_accuracy`` of the answer that was shown.
    """

    frames: int
    changes: int
    seconds: float
    latency_p50_us: float
    latency_p99_us: float
    missed_deadlines: int
    accuracy: float | None = None
    answer_accuracy: float | None = None


class Segment(NamedTuple):
    """A bounded recording to answer: its frames (C,), and its label index, negative where nobody knows it."""

    frames: Iterable[Any]
    target: int = -1


class SegmentAnswer(msgspec.Struct, frozen=True):
    """The answer to segment ``number`` (from 0), which took ``used`` of its ``frames`` frames."""

    number: int
    label: str
    probability: float
    used: int
    frames: int
    target: int

    @property
    def share(self) -> float:
        """The share of the segment that was heard."""
        return self.used / self.frames


class SegmentSummary(msgspec.Struct, frozen=True):
    """What a stream of segments did; latencies as in :class:`Summary`.

    ``steps``: frames that were computed, of ``frames`` that there were. ``share`` and ``share_p90``: mean and 90th
    percentile of the share of a segment that its answer took. ``accuracy``: over the labelled segments.
    """

    segments: int
    frames: int
    steps: int
    seconds: float
    latency_p50_us: float
    latency_p99_us: float
    missed_deadlines: int
    share: float | None = None
    share_p90: float | None = None
    accuracy: float | None = None


def stream(
    session: Session,
    frames: Iterable[Any],
    *,
    rate: float | None = None,
    speed: float = 1.0,
    on_answer: OnAnswer | None = None,
    targets: Sequence[int] | None = None,
) -> Summary:
    """Feed frames (C,) to a session at ``rate * speed`` steps per second; speed 0 is as fast as they come.

    ``rate`` is by default the manifest's step rate. ``on_answer`` gets the frame's time in the stream (seconds) and the
    answer, whenever that changes. ``targets`` are label indices, one for each frame; the manifest's ignored label is
    left out. The session goes on from its current state, but a model of segments from the initial one: there the frames
    are one segment, whose answer comes at their end at the latest. Where the model looks ahead the recording ends with
    the frames and the last answers are still given: reset the session before the next one.

    Raises:
        InputError: a frame of another width or with a value that is not finite, named by frame and channel, before it
            reaches the model; a negative speed, a rate that is not positive, targets of another length.
    """
    pace, score = _Pace(session, rate, speed), _Score(session.manifest, targets)
    changes, answer, segment = 0, None, session.manifest.task == "segment"
    if segment:
        session.reset()

    def tell(call: int, answer: Answer) -> None:
        nonlocal changes
        changes += 1
        if on_answer is not None:
            on_answer(call / pace.rate, answer)

    def hear(call: int, logits: Floats, answer: Answer) -> None:
        score.add(call, logits, answer)
        if answer.changed:
            tell(call, answer)

    for frame in frames:
        logits, answer = pace.step(frame)
        hear(pace.frames - 1, logits, answer)
    if answer is not None and not segment:
        for call, logits in enumerate(session.flush(), pace.frames):
            hear(call, logits, session.decide(logits))
    elif answer is not None and not answer.final:
        tell(pace.frames - 1, session.conclude())
    if targets is not None and len(targets) != pace.frames:
        raise InputError(f"{len(targets)} targets were given for {pace.frames} frames")
    return Summary(pace.frames, changes, *pace.summed(), *score.shares())


def stream_segments(
    session: Session,
    segments: Iterable[Segment],
    *,
    rate: float | None = None,
    speed: float = 1.0,
    on_answer: Callable[[SegmentAnswer], None] | None = None,
) -> SegmentSummary:
    """Answer each segment from the initial state on, at ``rate * speed`` steps per second; speed 0 does not wait.

    What comes of a segment after its answer is not computed. ``on_answer`` gets each answer when the segment has ended.

    Raises:
        Unsupported: the model answers at every frame of a stream.
        InputError: as :func:`stream` does, and a segment without a frame.
    """
    pace = _Pace(session, rate, speed)
    steps, answers = 0, list[SegmentAnswer]()
    for number, segment in enumerate(segments):
        session.reset()
        begin, answer, used = pace.frames, None, 0
        for frame in segment.frames:
            if answer is None or not answer.final:
                _, answer = pace.step(frame)
                used += 1
            else:
                pace.frames += 1
        if answer is None or not answer.final:
            answer = session.conclude()
        steps += used
        frames = pace.frames - begin
        answers.append(SegmentAnswer(number, answer.label, answer.probability, used, frames, segment.target))
        if on_answer is not None:
            on_answer(answers[-1])
    return SegmentSummary(len(answers), pace.frames, steps, *pace.summed(), *_judged(answers, session.labels))


def _judged(answers: Sequence[SegmentAnswer], labels: Sequence[str]) -> tuple[float | None, float | None, float | None]:
    """Mean and 90th percentile of the shares, and the accuracy over the labelled segments; None of nothing."""
    shares = [answer.share for answer in answers]
    right = [answer.label == labels[answer.target] for answer in answers if answer.target >= 0]
    accuracy = float(np.mean(right)) if right else None
    return (float(np.mean(shares)), float(np.percentile(shares, 90)), accuracy) if shares else (None, None, None)


class _Pace:
    """Steps a session when each frame is due, and keeps the time that it takes. ``frames``: those that there were."""

    def __init__(self, session: Session, rate: float | None, speed: float) -> None:
        self.rate = session.manifest.input.step_rate if rate is None else rate
        if not self.rate > 0 or not speed >= 0:
            raise InputError(
                f"rate {self.rate:g} Hz at speed {speed:g}: the rate must be positive, the speed positive or 0"
            )
        self.frames = 0
        self._session, self._period = session, 1e9 / (self.rate * speed) if speed > 0 else 0.0
        self._latencies, self._missed = deque[int](maxlen=KEPT), 0
        self._begin = time.perf_counter_ns()

    def step(self, given: Any) -> tuple[Floats, Answer]:
        """The logits and the answer after a frame, waited for."""
        session, clock = self._session, time.perf_counter_ns
        frame = checked_frame(given, self.frames, session.manifest)
        due = self._begin + int(self.frames * self._period)
        wait = due - clock()
        if self._period and wait > 0:
            time.sleep(wait / 1e9)
        start = clock()
        logits = session.step(frame)
        answer = session.decide(logits)
        done = clock()
        self._latencies.append(done - start)
        self._missed += bool(self._period) and done > due + self._period
        self.frames += 1
        return logits, answer

    def summed(self) -> tuple[float, float, float, int]:
        """Seconds since the start, the latency's median and 99th percentile (µs), and answers that came late."""
        p50, p99 = np.percentile(self._latencies, (50, 99)) / 1e3 if self._latencies else (0.0, 0.0)
        return (time.perf_counter_ns() - self._begin) / 1e9, float(p50), float(p99), self._missed


def checked_frame(frame: Any, index: int, manifest: Manifest) -> Floats:
    """A frame as float32 (C,), refused where it is not one: here, at the source, so that the step need not look.

    Raises:
        InputError: naming the frame and the channel.
    """
    width, channels = frame_width(manifest), manifest.input.channels
    try:
        values: Floats = np.asarray(frame, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"frame {index} is not numbers: {error}") from None
    if values.shape != (width,):
        names = ", ".join(channel.name for channel in channels)
        raise InputError(f"frame {index} has shape {values.shape}: ({width},) is needed ({names})")
    finite = np.isfinite(values)
    if not finite.all():
        wrong = int(finite.argmin())
        raise InputError(
            f"frame {index}: channel {channels[wrong % len(channels)].name} is {values[wrong]}; fill the gap or reset "
            "the stream before it reaches the model"
        )
    return values


def read_csv(source: TextIO, manifest: Manifest, name: str) -> Iterator[NDArray[np.float64]]:
    """Frames (C,) from lines of comma-separated values, as they come.

    A first line of names chooses the columns: every channel must be among them, in any order, and others are left out.
    Without one, the columns are the channels in the manifest's order.

    Raises:
        InputError: a missing channel, a line of another length, or a value that is not a number.
        Unsupported: a model that takes several samples in one step.
    """
    if manifest.input.samples_per_step != 1:
        raise Unsupported(f"{name}: lines can be read for models of one sample a step, this one takes several")
    wanted = [channel.name for channel in manifest.input.channels]
    lines: Iterator[list[str]] = _lines(source, name)
    first = next(lines, None)
    if first is None:
        return
    header = [cell.strip() for cell in first]
    columns, expected = list(range(len(wanted))), len(wanted)
    if not all(_is_number(cell) for cell in header):
        missing = [channel for channel in wanted if channel not in header]
        if missing:
            raise InputError(f"{name} has the columns {header}: {', '.join(missing)} missing")
        columns, expected = [header.index(channel) for channel in wanted], len(header)
    else:
        lines = chain([first], lines)
    for index, row in enumerate(lines):
        if len(row) != expected:
            raise InputError(f"{name}, frame {index}: {len(row)} values, {expected} are needed")
        try:
            yield np.array([float(row[column]) for column in columns])
        except ValueError as error:
            raise InputError(f"{name}, frame {index}: {error}") from None


def _lines(source: TextIO, name: str) -> Iterator[list[str]]:
    try:
        yield from (row for row in csv.reader(source) if row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not comma-separated text: {error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _Score:
    """Counts of right answers over the labelled frames."""

    def __init__(self, manifest: Manifest, targets: Sequence[int] | None) -> None:
        self._labels, self._ignored = manifest.labels, manifest.ignored_label
        self._look_ahead, self._targets = manifest.input.look_ahead, targets
        self._counted = self._logits = self._answers = 0

    def add(self, index: int, logits: Floats, answer: Answer) -> None:
        """The answer of call t belongs to frame t - look_ahead."""
        index -= self._look_ahead
        if self._targets is None or not 0 <= index < len(self._targets):
            return
        target = int(self._targets[index])
        if target == self._ignored:
            return
        self._counted += 1
        self._logits += int(logits.argmax()) == target
        self._answers += answer.label == self._labels[target]

    def shares(self) -> tuple[float | None, float | None]:
        """Share of right largest logits and of right answers; None where nothing was labelled."""
        if not self._counted:
            return None, None
        return self._logits / self._counted, self._answers / self._counted


def read_frames(source: str | None, folder: Folder) -> Iterator[Any]:
    """Frames (C,) of a CSV file, of standard input ("-"), or the golden ones of the folder (None).

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    if source is None:
        yield from read_golden(folder).frames
    elif source == "-":
        yield from read_csv(sys.stdin, folder.manifest, "standard input")
    else:
        try:
            with Path(source).open(encoding="utf-8", newline="") as file:
                yield from read_csv(file, folder.manifest, source)
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from None
