"""Many samples in a frame: what is in it, what is left out, which label it has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, check
from edgeseq.data.frames import framed
from edgeseq.data.resample import resampled
from edgeseq.errors import InputError

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=5)


def sounds(lengths, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    recordings = tuple(
        Recording(
            rng.normal(size=(n, channels)).astype(np.float32), rng.integers(-1, 3, n).astype(np.int16), str(k), f"r{k}"
        )
        for k, n in enumerate(lengths)
    )
    names = tuple(f"c{k}" for k in range(channels))
    return Dataset("sounds", recordings, names, ("",) * channels, 8000.0, ("a", "b", "c"), official=(("0",), ("1",)))


@given(LENGTHS, st.integers(1, 3), st.integers(2, 20))
def test_whole_frames_hold_the_samples_as_they_came(lengths, channels, samples):
    before = sounds(lengths, channels)
    after = framed(before, samples)
    for old, new in zip(before.recordings, after.recordings, strict=True):
        assert new.x.shape == (max(1, len(old.x) // samples), samples * channels)
        assert new.y.shape == new.x.shape[:1]
        again = new.x.reshape(-1, channels)
        whole = min(len(again), len(old.x))
        np.testing.assert_array_equal(again[:whole], old.x[:whole])
        assert not again[whole:].any()  # a recording shorter than a frame is filled up with silence
        last = np.minimum(np.arange(1, len(new.x) + 1) * samples, len(old.x)) - 1
        np.testing.assert_array_equal(new.y, old.y[last])
        assert (new.subject, new.name) == (old.subject, old.name)


@given(LENGTHS, st.integers(1, 20))
def test_the_rate_and_the_origin_go_along(lengths, samples):
    before = sounds(lengths)
    after = framed(before, samples)
    assert (after.samples, after.rate) == (samples, 8000 / samples)
    assert after.origin_fingerprint == before.origin_fingerprint
    assert (after.channels, after.units, after.labels, after.official) == (
        *(before.channels, before.units, before.labels, before.official),
    )


@given(st.sampled_from([8000.0, 11025.0, 16000.0, 44100.0]), st.integers(1, 400))
def test_the_rate_of_samples_stays_what_it_was_to_the_last_digit(rate, samples):
    after = framed(dataclasses.replace(sounds([40]), rate=rate), samples)
    assert (after.sample_rate, after.rate) == (rate, rate / samples)


def test_frames_of_several_samples_come_at_no_other_rate():
    with pytest.raises(InputError, match="sounds has 30 samples in a frame: it is resampled before"):
        resampled(framed(sounds([400]), 30), 200.0)


def test_framed_data_passes_the_check_that_names_the_channel_of_a_bad_sample():
    data = dataclasses.replace(framed(sounds([40, 40], 2), 4), task="frame", rate=5.0)
    check(data)
    data.recordings[1].x[3, 5] = np.nan  # the third sample's second channel
    with pytest.raises(InputError, match=r"recording 'r1', row 3 .*channel 'c1'"):
        check(data)


def test_frames_are_made_once():
    data = framed(sounds([40]), 4)
    assert framed(data, 4) is data
    with pytest.raises(InputError, match="4 samples in a frame: 2 cannot be made of them"):
        framed(data, 2)
    with pytest.raises(InputError, match="0 samples in a frame: at least 1"):
        framed(sounds([40]), 0)
