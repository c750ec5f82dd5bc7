"""The random forest that models are compared with."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, split_by_subject
from edgeseq.data.dataset import PIXEL, SOUND
from edgeseq.data.frames import framed
from edgeseq.errors import InputError, MissingDependency
from edgeseq.events import streams
from edgeseq.manifest import Decision
from edgeseq.signal.log_mel import LogMel, for_rate, log_mel
from edgeseq.training.augment import Triads
from edgeseq.training.baseline import (
    cepstra,
    described,
    features,
    forest_baseline,
    forest_events,
    grow,
    majority_baseline,
    scored,
)

RATE = 20.0


def movements(seconds=6.0, channels=2, unlabelled=0):
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE)) / RATE
    recordings = []
    for subject in "1234":
        for label, frequency in enumerate((0.7, 3.0)):
            x = np.sin(2 * np.pi * frequency * t[:, None] + rng.uniform(0, 6, channels))
            y = np.full(len(t), label, np.int16)
            y[len(y) - unlabelled :] = -1
            recordings.append(Recording(x.astype(np.float32), y, subject, f"{subject}-{label}"))
    names = tuple("abcdef"[:channels])
    return Dataset("movements", tuple(recordings), names, ("V",) * channels, RATE, ("slow", "fast"))


def split(dataset):
    return split_by_subject(dataset, test=["1"], validation=["2"])


@pytest.mark.parametrize("channels", [1, 2])
def test_it_answers_every_tenth_of_a_second_after_the_window(channels):
    plain, smoothed = forest_baseline(split(movements(channels=channels)))
    assert plain.frames == smoothed.frames == 2 * 40  # of two recordings, 4 s each
    assert plain.accuracy > 0.9
    assert np.sum(plain.confusion) == plain.frames


@pytest.mark.parametrize("unscored", [0.0, 0.5, 2.0, 3.0])
def test_it_is_scored_from_the_same_frame_on_as_models_are(unscored):
    data = dataclasses.replace(movements(seconds=5.0), unscored=unscored)
    plain, _ = forest_baseline(split(data))
    assert plain.frames == 2 * round(10 * (5.0 - unscored))
    hidden = tuple(  # labels of where models are not scored decide nothing
        dataclasses.replace(r, y=np.where(np.arange(len(r.y)) < unscored * RATE, -1, r.y).astype(np.int16))
        for r in data.recordings
    )
    assert forest_baseline(split(dataclasses.replace(data, recordings=hidden)))[0] == plain


@pytest.fixture(scope="module")
def grown():
    """A forest, and streams of somebody it has not met in which four labels follow each other."""
    parts = split(movements())
    twice = dataclasses.replace(parts.test, recordings=parts.test.recordings * 2)
    return grow(parts), streams(twice, orders=3)


def test_it_follows_a_change_within_its_window_and_later_where_it_is_smoothed(grown):
    plain, calm, deaf = forest_events(*grown, [Decision(), Decision(1.0), Decision(enter=1.0)])
    assert plain.events == calm.events > 0
    assert plain.missed == calm.missed == 0
    assert 0 < plain.delay_median < plain.delay_p90 <= 2.0
    assert calm.delay_median > plain.delay_median
    assert plain.accuracy > 0.7
    assert (deaf.missed, deaf.f1, deaf.unknown) == (1.0, 0.0, 1.0)  # nothing is ever likelier than 1


def test_between_two_of_its_answers_the_last_one_stands(grown):
    forest, heard = grown
    (found,) = forest_events(forest, heard, [Decision()])
    assert found.unknown == 0.0  # though it is asked at every other frame only
    later = tuple(dataclasses.replace(r, x=r.x[1:], y=r.y[1:]) for r in heard.recordings)
    (shifted,) = forest_events(forest, dataclasses.replace(heard, recordings=later), [Decision()])
    assert abs(shifted.delay_median - found.delay_median) <= 2 / RATE + 1e-9


def test_a_stream_shorter_than_what_is_not_scored_holds_no_change(grown):
    forest, heard = grown
    short = tuple(dataclasses.replace(r, x=r.x[:20], y=r.y[:20]) for r in heard.recordings)
    (found,) = forest_events(forest, dataclasses.replace(heard, recordings=short), [Decision()])
    assert (found.events, found.hours) == (0, 0.0)


def test_a_forest_that_was_grown_scores_as_the_baseline_does():
    parts = split(movements())
    assert scored(grow(parts, seed=3), parts.test, smoothing=0.5) == forest_baseline(parts, seed=3, smoothing=0.5)


def test_where_less_is_left_unscored_the_window_is_shorter():
    short = dataclasses.replace(movements(seconds=1.9), unscored=0.5)
    assert described(short) == "up to 1 s statistics, 300 trees"
    assert described(movements()) == "2 s statistics, 300 trees"
    assert described(dataclasses.replace(movements(), unscored=1.0)) == "1 s statistics, 300 trees"


def test_the_majority_is_that_of_training_and_counted_where_models_are_scored():
    def recording(subject, counts):
        y = np.repeat(np.array([0, 1, 0], np.int16), counts)
        return Recording(np.zeros((len(y), 1), np.float32), y, subject, subject)

    # Training: 45 frames of 0 and 60 of 1, but of those that are scored 5 and 60; the validation subject is not asked.
    parts = recording("1", (40, 10, 30)), recording("2", (400, 0, 0)), recording("3", (40, 60, 5))
    streams = Dataset("some", parts, ("x",), ("V",), RATE, ("a", "b"))
    found = majority_baseline(split(streams))
    assert (found.frames, found.accuracy) == (40, 0.25)


def test_the_majority_of_segments_counts_each_once():
    def segment(subject, label, frames):
        return Recording(np.zeros((frames, 1), np.float32), np.full(frames, label, np.int16), subject, "-")

    of_test = [segment("1", label, 5) for label in (0, 0, 0, 1)]
    parts = (*of_test, segment("2", 1, 9), segment("3", 0, 5), segment("3", 0, 6), segment("3", 1, 99))
    words = Dataset("some", parts, ("x",), ("V",), RATE, ("a", "b"), task="segment")
    found = majority_baseline(split(words))
    assert (found.frames, found.accuracy) == (4, 0.75)


def test_unlabelled_time_is_neither_learned_nor_counted():
    plain, _ = forest_baseline(split(movements(unlabelled=40)))
    assert plain.frames == 2 * 20
    assert len(plain.confusion) == 2


def test_the_order_of_the_recordings_decides_nothing():
    forward = movements()
    backward = dataclasses.replace(forward, recordings=forward.recordings[::-1])
    assert forest_baseline(split(forward), seed=3) == forest_baseline(split(backward), seed=3)


def test_without_smoothing_both_answers_are_one():
    plain, smoothed = forest_baseline(split(movements()), smoothing=0.0)
    assert plain == smoothed


def test_recordings_shorter_than_its_window_are_refused():
    with pytest.raises(InputError, match="training subjects has a label after its first 2 s"):
        forest_baseline(split(movements(seconds=1.9)))


def test_without_scikit_learn_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgeseq\[train\]'"):
        forest_baseline(split(movements()))


def test_features_of_a_triad_do_not_depend_on_how_the_sensor_is_turned():
    rng = np.random.default_rng(1)
    window = rng.normal(size=(40, 3)).astype(np.float32)
    turned = window @ np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    triads = Triads.of(("g", "g", "g"))
    ours, theirs = features(window, triads), features(turned, triads)
    size = [4 * i + 3 for i in range(10)]  # the fourth column of each statistic is the triad's size
    assert np.allclose(ours[size], theirs[size], atol=1e-5)
    assert not np.allclose(ours, theirs, atol=1e-2)


def test_features_of_a_channel_that_stands_still_are_finite():
    assert np.isfinite(features(np.ones((40, 2), np.float32), Triads.of(("V", "V")))).all()


def segments(unit, xs, rate):
    recordings = tuple(
        Recording(np.asarray(x, np.float32).reshape(-1, 1), np.full(len(x), label, np.int16), subject, f"{subject}-{k}")
        for subject in "1234"
        for k, (label, x) in enumerate(xs(subject))
    )
    return Dataset("some", recordings, ("x",), (unit,), rate, ("low", "high"), task="segment")


def tones(subject):
    """Words of 30 to 300 ms, whose loudness says nothing."""
    rng = np.random.default_rng(int(subject))
    for _ in range(6):
        for label, hertz in enumerate((400, 1500)):
            t = np.arange(rng.integers(240, 2400)) / 8000
            yield label, rng.uniform(0.01, 1) * np.sin(2 * np.pi * (hertz + rng.normal(0, 40)) * t)


def test_words_are_told_apart_by_their_cepstra_whether_framed_or_not():
    words = segments(SOUND, tones, 8000.0)
    assert described(words) == "20 × 13 cepstra, 300 trees"
    plain, smoothed = forest_baseline(split(words))
    assert plain == smoothed
    assert plain.accuracy > 0.9
    in_frames = framed(words, 128)
    assert described(in_frames) == described(words)
    assert forest_baseline(split(in_frames))[0].accuracy > 0.9


def test_the_first_cepstrum_is_the_sum_of_the_bands_and_a_short_word_fills_all_bins():
    front = LogMel.of(for_rate(8000.0))
    sound = np.random.default_rng(0).normal(0, 0.1, 5 * front.hop - 7).astype(np.float32)
    found = cepstra(front, sound).reshape(20, 13)
    bands = log_mel(front, np.append(sound, np.zeros(7, np.float32)).reshape(-1, front.hop))
    assert np.allclose(found[:, 0], bands.sum(1)[np.arange(20) // 4], rtol=1e-5)
    assert np.linalg.matrix_rank(found) == 5


def test_cepstra_are_the_dct_of_the_bands():
    fft = pytest.importorskip("scipy.fft")
    front = LogMel.of(for_rate(8000.0))
    sound = np.random.default_rng(1).normal(0, 0.1, 20 * front.hop).astype(np.float32)
    bands = log_mel(front, sound.reshape(-1, front.hop)).astype(np.float64)
    expected = fft.dct(bands, type=2, axis=1)[:, :13] / 2
    np.testing.assert_allclose(cepstra(front, sound).reshape(20, 13), expected, atol=1e-6 * np.abs(bands).max())


def test_images_are_told_apart_by_their_pixels_and_must_be_of_one_size():
    def images(subject):
        rng = np.random.default_rng(int(subject))
        return [(label, rng.random(16) * 0.5 + 0.5 * (np.arange(16) == 3 * label + 5)) for label in (0, 1) * 8]

    pictures = segments(PIXEL, images, 16.0)
    assert described(pictures) == "pixels, 60 trees"
    assert forest_baseline(split(pictures))[0].accuracy > 0.9
    first, *others = pictures.recordings
    odd = (dataclasses.replace(first, x=first.x[:9], y=first.y[:9]), *others)
    with pytest.raises(InputError, match="some has images of 9 to 16 frames"):
        forest_baseline(split(dataclasses.replace(pictures, recordings=odd)))
