"""Frames from a sensor or a recording, one at a time and in their own time; the answer as it changes."""

from __future__ import annotations

import csv
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

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
    left out. The session goes on from its current state.

    Raises:
        InputError: a frame of another width or with a value that is not finite, named by frame and channel, before it
            reaches the model; a negative speed, a rate that is not positive, targets of another length.
    """
    manifest = session.manifest
    rate = manifest.input.step_rate if rate is None else rate
    if not rate > 0 or not speed >= 0:
        raise InputError(f"rate {rate:g} Hz at speed {speed:g}: the rate must be positive, the speed positive or 0")
    period = 1e9 / (rate * speed) if speed > 0 else 0.0
    clock, latencies, score = time.perf_counter_ns, deque[int](maxlen=KEPT), _Score(manifest, targets)
    count = changes = missed = 0
    begin = clock()
    for given in frames:
        frame = checked_frame(given, count, manifest)
        due = begin + int(count * period)
        wait = due - clock()
        if period and wait > 0:
            time.sleep(wait / 1e9)
        start = clock()
        logits = session.step(frame)
        answer = session.decide(logits)
        done = clock()
        latencies.append(done - start)
        missed += bool(period) and done > due + period
        score.add(count, logits, answer)
        if answer.changed:
            changes += 1
            if on_answer is not None:
                on_answer(count / rate, answer)
        count += 1
    if targets is not None and len(targets) != count:
        raise InputError(f"{len(targets)} targets were given for {count} frames")
    p50, p99 = np.percentile(latencies, (50, 99)) / 1e3 if latencies else (0.0, 0.0)
    return Summary(count, changes, (clock() - begin) / 1e9, float(p50), float(p99), missed, *score.shares())


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
        yield from read_golden(folder).x
    elif source == "-":
        yield from read_csv(sys.stdin, folder.manifest, "standard input")
    else:
        try:
            with Path(source).open(encoding="utf-8", newline="") as file:
                yield from read_csv(file, folder.manifest, source)
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from None
