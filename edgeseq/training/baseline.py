"""The baselines that a sequence model has to beat: a random forest on the last two seconds, and the commonest label.

Where states change faster than that (recordings are scored from their first second on), on the last second. It answers
from the first frame that is scored on, as models do: at the start of a recording on what there is. Of a segment it gets
the statistics of the whole, and the means of its eighths; of a segment of sound, cepstra of its twentieths, as much as
classical recognizers of single words get; of an image, the pixels.

Shape letters: T frames of a window, C channels, W windows, F features, K labels, M mel bands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseq.data import Dataset, Recording, Split
from edgeseq.data.dataset import PIXEL, SOUND, natural_order
from edgeseq.decisions import NO_ANSWER, answers
from edgeseq.errors import InputError, MissingDependency
from edgeseq.events import EventScores, Tally, scores, truths
from edgeseq.manifest import Decision
from edgeseq.metrics import Scores, score
from edgeseq.signal.log_mel import LogMel, for_rate, log_mel
from edgeseq.training.augment import Triads
from edgeseq.training.evaluate import smooth

WINDOW = 2.0  # seconds that one answer is made from, at most
SHORTER = 1.0  # where there are less that are not scored
SILENCE = 1e-10  # the power that cepstra are cut off at, librosa's own: a forest can tell quiet speakers by it
HOP = {"train": 1.0, "test": 0.1}  # seconds between windows
TREES = 300
TREES_OF_PIXELS = 60  # 300 would take ten minutes for the 60,000 digits, and tell no more than a point more
PARTS = 8  # of a segment
BINS, CEPSTRA = 20, 13  # of a segment of sound
Features = NDArray[np.floating[Any]]
Labels = NDArray[np.int16]
Cut = Callable[[Sequence[Recording], Dataset, float], Iterator[tuple[Features, Labels]]]


@dataclass(frozen=True)
class Forest:
    """A random forest that has learned to name K labels. ``form``: the form of the data it learned from."""

    model: Any
    form: Dataset

    def probabilities(self, x: Features) -> Features:
        """Of each label, for features (W, F): (W, K); 0 of a label that it has not learned."""
        found = np.zeros((len(x), len(self.form.labels)))
        found[:, self.model.classes_] = self.model.predict_proba(x)
        return found


def forest_baseline(split: Split, *, seed: int = 0, smoothing: float = 1.0) -> tuple[Scores, Scores]:
    """Scores on the test subjects of a random forest, as it answers and smoothed over ``smoothing`` seconds.

    See :func:`grow` and :func:`scored`, which raise what this does.
    """
    return scored(grow(split, seed=seed), split.test, smoothing=smoothing)


def grow(split: Split, *, seed: int = 0) -> Forest:
    """A random forest that learned from the training subjects, and from the validation subjects too: there is nothing
    to choose on them.

    Raises:
        InputError: no recording of the training subjects has labels behind its unscored start; images of different
            sizes.
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        raise MissingDependency("scikit-learn", "train", "the random forest") from None
    learned = _labelled(_in_order(split), split.train, "training", HOP["train"])
    x, y = (np.concatenate(parts) for parts in zip(*learned, strict=True))
    made = RandomForestClassifier(_trees(split.train), random_state=seed, class_weight="balanced")
    return Forest(made.fit(x[y >= 0], y[y >= 0]), split.train)


def scored(forest: Forest, test: Dataset, *, smoothing: float = 1.0) -> tuple[Scores, Scores]:
    """Scores of a forest on recordings, as it answers and smoothed over ``smoothing`` seconds.

    It answers every 0.1 s from where a recording is scored on. Segments it answers once each, with nothing to smooth:
    both scores are one.

    Raises:
        InputError: no recording has labels behind its unscored start; images of different sizes.
    """
    plain, smoothed = [], []
    for x, y in _labelled(test.recordings, test, "test", HOP["test"]):
        probabilities = forest.probabilities(x)
        plain.append((y, probabilities.argmax(-1)))
        log = _logs(probabilities)
        smoothed.append((y, smooth(log, smoothing / HOP["test"]).argmax(-1) if smoothing else log.argmax(-1)))
    labels = len(test.labels)
    return score(plain, labels), score(smoothed, labels)


def forest_events(forest: Forest, heard: Dataset, rules: Sequence[Decision]) -> list[EventScores]:
    """How a forest follows the changes in the streams ``heard`` under each of the ``rules``.

    It answers every 0.1 s, of windows that run through a change, and that answer stands until the next.
    """
    tallies = [Tally()] * len(rules)
    step = _step(heard, HOP["test"])
    first = round(heard.unscored * heard.rate)
    for recording, truth in zip(heard.recordings, truths(heard), strict=True):
        found = np.full((len(rules), len(truth.y)), NO_ANSWER)
        for x, _ in _windows([recording], heard, HOP["test"]):  # none of a stream that is too short
            said = answers(_logs(forest.probabilities(x)), rules, heard.rate / step)  # (R, W)
            found[:, first:] = np.repeat(said, step, axis=1)[:, : len(truth.y) - first]
        tallies = [before + truth.tally(each) for before, each in zip(tallies, found, strict=True)]
    return [scores(tally) for tally in tallies]


def _labelled(recordings: Sequence[Recording], form: Dataset, part: str, hop: float) -> list[tuple[Features, Labels]]:
    """What there is to learn, or to answer, in the recordings of a part.

    Raises:
        InputError: no label, or images of different sizes.
    """
    found = list(_cut(form)(recordings, form, hop))
    if not any((y >= 0).any() for _, y in found):
        raise InputError(
            f"no recording of the {part} subjects has a label after its first {form.unscored:g} s, "
            "which are not scored: record longer stretches"
        )
    return found


def _logs(probabilities: Features) -> NDArray[np.float32]:
    """Logits that stand for probabilities: of 0 they are finite."""
    logs: NDArray[np.float32] = np.log(probabilities + 1e-9).astype(np.float32)
    return logs


def _step(form: Dataset, hop: float) -> int:
    """The frames from a window to the next."""
    return max(1, round(hop * form.rate))


def majority_baseline(split: Split) -> Scores:
    """Scores on the test subjects of always answering the label that the training subjects have most of.

    Counted are the frames that models are scored on, or segments.
    """
    labels = len(split.test.labels)
    learned = np.concatenate([_scored(recording, split.train) for recording in split.train.recordings])
    answer = np.bincount(learned[learned >= 0], minlength=labels).argmax()
    asked = [_scored(recording, split.test) for recording in split.test.recordings]
    return score([(y, np.full(len(y), answer)) for y in asked], labels)


def _scored(recording: Recording, form: Dataset) -> Labels:
    """The labels of a recording that are scored: behind its unscored start, or the one of a segment."""
    return recording.y[:1] if form.task == "segment" else recording.y[round(form.unscored * form.rate) :]


def described(dataset: Dataset) -> str:
    """What a forest of this data learns from, in words: "2 s statistics, 300 trees"."""
    window = window_of(dataset)
    of: dict[Cut, str] = {
        _windows: f"{'' if dataset.unscored >= window else 'up to '}{window:g} s statistics",
        _segments: f"statistics and means of {PARTS} parts",
        _words: f"{BINS} × {CEPSTRA} cepstra",
        _pixels: "pixels",
    }
    return f"{of[_cut(dataset)]}, {_trees(dataset)} trees"


def window_of(dataset: Dataset) -> float:
    """Seconds that one answer to a stream is made from, at most."""
    return WINDOW if dataset.unscored >= WINDOW else SHORTER


def _cut(dataset: Dataset) -> Cut:
    """How recordings are cut into features and labels."""
    if dataset.task == "frame":
        return _windows
    kinds = set(dataset.units)
    return _words if kinds == {SOUND} else _pixels if kinds == {PIXEL} else _segments


def _trees(dataset: Dataset) -> int:
    return TREES_OF_PIXELS if _cut(dataset) is _pixels else TREES


def _in_order(split: Split) -> list[Recording]:
    """Recordings to learn from, by name, whatever the split: a forest draws rows by position."""
    recordings = [*split.train.recordings, *split.validation.recordings]
    place = {name: i for i, name in enumerate(natural_order({recording.name for recording in recordings}))}
    return sorted(recordings, key=lambda recording: place[recording.name])


def _windows(recordings: Sequence[Recording], form: Dataset, hop: float) -> Iterator[tuple[Features, Labels]]:
    """Of each recording the windows' features ``(W, F)`` and the labels ``(W,)`` of the frames they end with.

    A window that would begin ahead of the recording is shorter.
    """
    length, step = max(2, round(window_of(form) * form.rate)), _step(form, hop)
    triads = Triads.of(form.units)
    for recording in recordings:
        ends = np.arange(round(form.unscored * form.rate), len(recording.x), step)  # the frames that are answered
        if len(ends):
            windows = (recording.x[max(0, end - length + 1) : end + 1] for end in ends)
            yield np.stack([features(window, triads) for window in windows]), recording.y[ends]


def _segments(recordings: Sequence[Recording], form: Dataset, hop: float) -> Iterator[tuple[Features, Labels]]:
    """As :func:`_windows`, of each segment one."""
    triads = Triads.of(form.units)
    for recording in recordings:
        if len(recording.x) >= PARTS:
            means = [part.mean(0) for part in np.array_split(recording.x.astype(np.float64), PARTS)]
            yield np.concatenate([*means, features(recording.x, triads)])[None], recording.y[:1]


def _words(recordings: Sequence[Recording], form: Dataset, hop: float) -> Iterator[tuple[Features, Labels]]:
    """As :func:`_segments`, of sound: the mean cepstra of its twentieths."""
    front = LogMel.of({**for_rate(form.sample_rate), "floor": SILENCE})
    for recording in recordings:
        sound = recording.x.reshape(-1, len(form.channels))  # (samples, C)
        yield np.concatenate([cepstra(front, channel) for channel in sound.T])[None], recording.y[:1]


def cepstra(front: LogMel, sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cepstra ``(BINS · CEPSTRA,)`` of a sound (samples): of each twentieth the mean of its frames, at least of one."""
    silence = np.zeros(-len(sound) % front.hop, np.float32)
    bands = log_mel(front, np.concatenate([sound, silence]).reshape(-1, front.hop)).astype(np.float64)  # (T, M)
    angles = np.pi / front.mels * np.outer(np.arange(CEPSTRA), np.arange(front.mels) + 0.5)
    found = bands @ np.cos(angles).T  # (T, CEPSTRA): the first of the DCT-II
    edges = np.arange(BINS + 1) * len(found) // BINS
    return np.concatenate([found[a : max(b, a + 1)].mean(0) for a, b in itertools.pairwise(edges)])


def _pixels(recordings: Sequence[Recording], form: Dataset, hop: float) -> Iterator[tuple[Features, Labels]]:
    """As :func:`_segments`, of images: all values of all frames."""
    sizes = {len(recording.x) for recording in recordings}
    if len(sizes) > 1:
        raise InputError(f"{form.name} has images of {min(sizes)} to {max(sizes)} frames: cut them to one size")
    for recording in recordings:
        yield recording.x.reshape(1, -1), recording.y[:1]


def features(window: NDArray[np.float32], triads: Triads) -> Features:
    """Statistics ``(F,)`` of one window ``(T, C)``: of each channel, of the size of each triad, and correlations."""
    starts = sorted((*triads.acceleration, *triads.angular_velocity))
    sizes = [np.linalg.norm(window[:, i : i + 3], axis=1, keepdims=True) for i in starts]
    x = np.concatenate([window, *sizes], 1).astype(np.float64)
    x = np.repeat(x, 2, 0) if len(x) == 1 else x  # a first frame has not changed yet
    quantiles = np.quantile(x, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    change = np.abs(np.diff(x, axis=0)).mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a channel that stands still has no correlation: 0 below
        correlation = np.atleast_2d(np.corrcoef(x[:, : window.shape[1]].T))[np.triu_indices(window.shape[1], 1)]
    moments = [x.mean(0), x.std(0), x.min(0), x.max(0), *quantiles, change]
    found: Features = np.nan_to_num(np.concatenate([*moments, correlation]))
    return found
