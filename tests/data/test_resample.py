"""Recordings at another rate: what a slower or faster sensor would have given, labels with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording
from edgeseq.data.resample import PART, resampled
from edgeseq.errors import InputError


def waves(hertz, rate, seconds=8.0, labels=None):
    t = np.arange(int(seconds * rate)) / rate
    x = np.stack([np.sin(2 * np.pi * hertz * t), np.full(len(t), 3.5)], 1).astype(np.float32)
    y = np.zeros(len(t), np.int16) if labels is None else labels
    return Dataset("waves", (Recording(x, y, "1", "one"),), ("a", "b"), ("V", "V"), rate, ("slow", "fast"))


@pytest.mark.parametrize("rate", [25.0, 20.0, 40.0, 100.0, 61.7])
def test_a_wave_that_both_rates_carry_is_the_same_wave(rate):
    found = resampled(waves(3.0, 50.0), rate)
    (recording,) = found.recordings
    expected = waves(3.0, rate).recordings[0].x[: len(recording.x)]
    inner = slice(int(rate), -int(rate))  # the ends are held
    assert found.rate == rate
    assert abs(len(recording.x) - 8 * rate) <= 1
    np.testing.assert_allclose(recording.x[inner], expected[inner], atol=2e-3)


def test_a_wave_that_the_slower_rate_cannot_carry_is_taken_out():
    kept = resampled(waves(22.0, 50.0), 25.0).recordings[0].x[:, 0]
    assert np.abs(kept[25:-25]).max() < 0.01
    assert np.abs(waves(22.0, 50.0).recordings[0].x[::2, 0]).max() > 0.9  # what every second frame would have shown


@settings(max_examples=20, deadline=None, derandomize=True)
@given(rate=st.floats(4, 700), frames=st.integers(1, 200))
def test_every_length_and_rate_gives_frames_within_the_recording(rate, frames):
    dataset = waves(1.0, 50.0, (frames + 0.5) / 50)
    (recording,) = resampled(dataset, rate).recordings
    assert len(recording.x) == len(recording.y) == max(1, int(frames * (rate / 50)))
    assert recording.x.dtype == np.float32
    np.testing.assert_allclose(recording.x[:, 1], 3.5, rtol=1e-6)  # a constant stays one, at the ends too


def test_a_frame_has_the_label_of_the_nearest_old_one():
    labels = np.array([0] * 100 + [-1] * 100 + [1] * 200, np.int16)
    (recording,) = resampled(waves(1.0, 50.0, labels=labels), 25.0).recordings
    np.testing.assert_array_equal(recording.y, labels[::2])
    (recording,) = resampled(waves(1.0, 50.0, labels=labels), 61.7).recordings
    at = np.arange(len(recording.y)) / 61.7  # seconds
    np.testing.assert_array_equal(recording.y, labels[np.minimum(np.round(at * 50).astype(int), 399)])


def test_what_is_not_touched_stays():
    before = waves(1.0, 50.0)
    after = resampled(before, 25.0)
    assert (after.channels, after.units, after.labels, after.name) == (
        before.channels,
        before.units,
        before.labels,
        before.name,
    )
    assert (after.recordings[0].subject, after.recordings[0].name) == ("1", "one")
    assert after.fingerprint() != before.fingerprint()
    assert after.origin_fingerprint == before.origin_fingerprint == before.fingerprint()


def test_a_long_recording_is_resampled_in_parts_without_seams():
    found = resampled(waves(3.0, 50.0, seconds=400.0), 100.0).recordings[0].x[:, 0]
    expected = np.sin(2 * np.pi * 3.0 * np.arange(len(found)) / 100.0)
    assert len(found) > 4 * PART
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=2e-3)


@pytest.mark.parametrize("rate", [0.0, -5.0, 1.0, 5000.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_or_far_off_is_refused(rate):
    with pytest.raises(InputError, match=r"3\.125 to 800 are possible"):
        resampled(waves(1.0, 50.0), rate)


def test_spikes_are_not_resampled_for_a_filter_makes_none_of_them():
    mixed = dataclasses.replace(waves(1.0, 50.0), units=("V", "spike"))
    with pytest.raises(InputError, match=r"channel 'b' of waves has unit 'spike'.*a filter makes no spikes of spikes"):
        resampled(mixed, 25.0)
