"""Recordings with labels and subjects: what every reader returns and every training run starts from.

Shapes: R recordings, T frames of one recording, N frames of all, C channels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from edgeseq.errors import InputError, unknown

IGNORED = -1
"""Label index of a frame that has no label: it is neither trained on nor scored."""
TASKS = ("frame", "segment")
"""What is asked: the label of every frame of an endless stream, or one label of each bounded recording."""
UNSCORED = 2.0  # seconds
DEALT = "recordings "
"""How the names of the groups begin that recordings are dealt into where nobody knows who was recorded."""

SPIKE = "spike"
"""The unit of a channel that says where a spike is: 0 or 1."""
SOUND = "full scale"
"""The unit of a channel of sound: 1 is the loudest that its recorder can say."""
PIXEL = "pixel"
"""The unit of an image that is read pixel by pixel: nothing that a sensor does to a signal happens to it."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One unbroken stretch of frames of one subject.

    ``x``: (T, C) float32, physical units. ``y``: (T,) int16, index into the labels of the data set, -1 = unlabelled.
    ``subject``: who was recorded; where nobody knows, the random group that :func:`edgeseq.data.split.deal` put it
    into. ``name``: where it came from (a file, the lines of a file); errors quote it.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int16]
    subject: str
    name: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Recordings that share channels, sample rate and labels.

    ``channels`` and ``units``: one of each per column of ``x`` (a unit is "" where nobody said it). ``rate``: frames
    per second, Hz. ``labels``: the classes, by index. ``licence``, ``citation``, ``origin``: "" where unknown.
    ``worn``: where on the body the sensor was ("wrist"), "" where unknown; it decides which augmentations are true.
    ``signs``: of its accelerations, "android" or "apple" (:class:`edgeseq.manifest.Input`), "" where unknown.
    ``recorded``: the fingerprint of what was recorded, where this was resampled from it. ``task``: "frame", or
    "segment", where each recording is one bounded stretch with one label, that of all its frames. ``official``: the
    test and the validation subjects of the split that others' results are of, if there is one. ``unscored``: seconds at
    the start of each recording that are not scored, because nobody could know yet. ``samples``: how many samples, one
    after another, a frame holds (:func:`edgeseq.data.frames.framed`): its columns are those of the first sample, then
    those of the second. ``sampled``: samples per second, where a frame holds several; 0 where ``rate`` says it.
    Contents are compared by :meth:`fingerprint`, not by ``==``.
    """

    name: str
    recordings: tuple[Recording, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate: float
    labels: tuple[str, ...]
    licence: str = ""
    citation: str = ""
    origin: str = ""
    worn: str = ""
    signs: str = ""
    recorded: str = ""
    task: str = "frame"
    official: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    unscored: float = UNSCORED
    samples: int = 1
    sampled: float = 0.0

    @property
    def sample_rate(self) -> float:
        """Samples per second, Hz, as the recorder took them: ``rate`` times ``samples``, not rounded on the way."""
        return self.sampled or self.rate

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject once, in natural order: "2" before "10"."""
        return natural_order({recording.subject for recording in self.recordings})

    @property
    def frames(self) -> int:
        """Number of frames over all recordings, N."""
        return sum(len(recording.x) for recording in self.recordings)

    @property
    def hours(self) -> float:
        """Duration of all recordings together, in hours."""
        return self.frames / self.rate / 3600

    @property
    def dealt(self) -> bool:
        """Whether nobody knows who was recorded, so that the subjects are random groups of recordings."""
        return all(recording.subject.startswith(DEALT) for recording in self.recordings)

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Number of answers of each label, (len(labels),) int64: of labelled frames, or of segments."""
        counts = np.zeros(len(self.labels), np.int64)
        for recording in self.recordings:
            y = recording.y[:1] if self.task == "segment" else recording.y
            counts += np.bincount(y[y >= 0], minlength=len(self.labels))
        return counts

    def majority_share(self) -> float:
        """Accuracy of always answering the most frequent label, 0 to 1: the number a model has to beat."""
        counts = self.label_counts()
        return float(counts.max() / counts.sum()) if counts.sum() else 0.0

    def only(self, subjects: Sequence[str]) -> Dataset:
        """The recordings of these subjects, in their order here.

        Raises InputError for a subject that does not exist (with the closest match).
        """
        known = self.subjects
        for subject in subjects:
            if subject not in known:
                raise unknown(f"subject of {self.name}", subject, known)
        wanted = frozenset(subjects)
        return dataclasses.replace(self, recordings=tuple(r for r in self.recordings if r.subject in wanted))

    @property
    def origin_fingerprint(self) -> str:
        """The fingerprint of what was recorded, whatever it was resampled to: what a lineage names."""
        return self.recorded or self.fingerprint()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the contents: frames, labels, subjects, channels, rate; and the task, where it is "segment".

        The same on every platform and for every file format the data came from; file names are not part of it.
        """
        shape = [[recording.subject, *recording.x.shape] for recording in self.recordings]
        head = [float(self.rate).hex(), self.channels, self.units, self.labels, shape]
        head += [self.task] if self.task != "frame" else []  # fingerprints of before there were tasks stay
        digest = hashlib.sha256(json.dumps(head).encode())
        for recording in self.recordings:
            digest.update(np.ascontiguousarray(recording.x, "<f4").tobytes())
            digest.update(np.ascontiguousarray(recording.y, "<i2").tobytes())
        return digest.hexdigest()


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted as people sort them: runs of digits compare as numbers."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", name)
        # Numbers before text, and never a number against a text; the name itself decides between "01" and "1".
        return [(0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts], name

    return tuple(sorted(names, key=key))


def check(dataset: Dataset) -> Dataset:
    """The same data set, if a model can be trained on it.

    Raises InputError, naming the recording, for: no recordings, an empty recording, wrong shapes or types, x and y of
    different length, a label index out of range, a value that is not finite, fewer than two classes, an unknown task,
    a segment with more than one label. Warns about recordings shorter than one second, unless they are segments: most
    often the scraps between two gaps, rarely meant.
    """
    _check_description(dataset)
    for recording in dataset.recordings:
        _check_shapes(dataset, recording)
        _check_values(dataset, recording)
    _check_classes(dataset)
    if dataset.task == "frame":
        _warn_of_short_recordings(dataset)
    return dataset


def _check_description(dataset: Dataset) -> None:
    name = dataset.name
    if dataset.task not in TASKS:
        raise unknown(f"task of {name}", dataset.task, TASKS)
    if not dataset.recordings:
        raise InputError(f"{name}: there are no recordings. At least one is needed.")
    if not (math.isfinite(dataset.rate) and dataset.rate > 0):
        raise InputError(f"{name}: rate is {dataset.rate}. Give the sample rate in Hz, more than 0.")
    if len(dataset.units) != len(dataset.channels):
        raise InputError(
            f"{name}: {len(dataset.units)} units {dataset.units} for {len(dataset.channels)} channels "
            f"{dataset.channels}. Give one unit per channel ('' where unknown)."
        )
    for kind, names in (("channel", dataset.channels), ("label", dataset.labels)):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise InputError(f"{name}: {kind} {twice[0]!r} is named twice. Rename one of them.")
    if not dataset.channels:
        raise InputError(f"{name}: there are no channels. At least one column of numbers is needed.")


def _check_shapes(dataset: Dataset, recording: Recording) -> None:
    where, x, y = f"{dataset.name}, recording {recording.name!r}", recording.x, recording.y
    width = len(dataset.channels) * dataset.samples
    if x.ndim != 2 or x.shape[1] != width:
        raise InputError(f"{where}: x has shape {x.shape}. Give (frames, {width}), one column a channel.")
    if x.dtype != np.float32 or y.dtype != np.int16:
        raise InputError(f"{where}: x is {x.dtype} and y is {y.dtype}. Convert them to float32 and int16.")
    if y.shape != x.shape[:1]:
        raise InputError(f"{where}: x has {len(x)} frames and y has shape {y.shape}. Give one label per frame.")
    if not len(x):
        raise InputError(f"{where}: it is empty. Leave it out.")
    if not recording.subject:
        raise InputError(f"{where}: it has no subject. Name one; splits are made by subject.")


def _check_values(dataset: Dataset, recording: Recording) -> None:
    where = f"{dataset.name}, recording {recording.name!r}"
    bad = np.argwhere(~np.isfinite(recording.x))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        channel = dataset.channels[column % len(dataset.channels)]
        raise InputError(
            f"{where}, row {row} (counted from 0), channel {channel!r}: the value is "
            f"{recording.x[row, column]} ({len(bad)} such values in all). Fill it in from its neighbours, or cut the "
            "recording in two there."
        )
    outside = np.flatnonzero((recording.y < IGNORED) | (recording.y >= len(dataset.labels)))
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"{where}, row {row} (counted from 0): label index {recording.y[row]} is outside 0 to "
            f"{len(dataset.labels) - 1}. Add its name to labels, or use {IGNORED} for unlabelled."
        )
    changes = np.flatnonzero(np.diff(recording.y))
    if dataset.task == "segment" and len(changes):
        row = int(changes[0]) + 1
        names = [dataset.labels[k] if k >= 0 else "none" for k in (recording.y[row - 1], recording.y[row])]
        raise InputError(
            f"{where}, row {row} (counted from 0): the label changes from {names[0]!r} to {names[1]!r}, and a segment "
            "has one. Cut the recording there, or make the task frame."
        )


def _check_classes(dataset: Dataset) -> None:
    present = [label for label, count in zip(dataset.labels, dataset.label_counts(), strict=True) if count]
    if len(present) < 2:
        found = f"only one class, {present[0]!r}" if present else "no labelled frame"
        raise InputError(f"{dataset.name}: {found}. Nothing can be learned from it: add recordings of at least two.")


def _warn_of_short_recordings(dataset: Dataset) -> None:
    short = [recording for recording in dataset.recordings if len(recording.x) < dataset.rate]
    if short:
        warnings.warn(
            f"{dataset.name}: {len(short)} of {len(dataset.recordings)} recordings are shorter than 1 s; the first is "
            f"{short[0].name!r} with {len(short[0].x)} frames at {dataset.rate:g} Hz.",
            stacklevel=3,
        )
