"""Augmentation that is true for a sensor on a body."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Recording, load
from edgeseq.training.augment import Sampler, Triads, mirror_signs, random_rotation, resample, slow_part
from edgeseq.training.settings import Augmentation

PLAIN = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, mirror=0.0, scale=0.0, noise=0.0)
WATCH = ("g", "g", "g", "rad/s", "rad/s", "rad/s")


def recording(frames, channels=6, label=0, seed=0):
    x = np.random.default_rng(seed).normal(size=(frames, channels)).astype(np.float32)
    return Recording(x, np.full(frames, label, np.int16), "s", f"r{seed}")


def test_triads_are_three_neighbours_in_one_fitting_unit():
    assert Triads.of(WATCH) == Triads((0,), (3,))
    assert Triads.of(("deg/s", "m/s2", "m/s2", "m/s2", "V")) == Triads((1,), ())
    assert Triads.of(("g", "g", "rad/s", "")) == Triads((), ())


@given(st.integers(0, 10_000))
def test_a_rotation_is_a_rotation(seed):
    turn = random_rotation(np.random.default_rng(seed), (0.5, 0.2, 1.0)).astype(np.float64)
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1, abs=1e-6)


def test_the_mirror_of_the_mirror_is_the_same_wrist():
    signs = mirror_signs(Triads.of(WATCH), 6)
    assert np.array_equal(signs * signs, np.ones(6))
    assert signs.tolist() == [-1, 1, 1, 1, -1, -1]


def test_the_mirror_maps_left_recordings_onto_right_ones():
    """On the real recordings: per exercise, mirrored left means lie nearer to the right ones than they do unchanged."""
    watch = load("spar_watch")
    file = resources.files("edgeseq.data") / "spar_watch" / "spar_watch.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        side, exercise = stored["side"], stored["y"]
    means = np.stack([r.x.mean(0) for r in watch.recordings])
    signs = mirror_signs(Triads.of(watch.units), 6)
    plain = mirrored = 0.0
    for label in range(7):
        right = means[(exercise == label) & (side == 1)].mean(0)
        left = means[(exercise == label) & (side == 0)].mean(0)
        plain += float(np.square((left - right)[:3]).sum())
        mirrored += float(np.square((left * signs - right)[:3]).sum())
    assert mirrored < 0.5 * plain


@given(st.floats(0.5, 2.0), st.integers(2, 50))
def test_another_tempo_is_the_same_line_walked_faster(factor, frames):
    ramp = np.arange(200, dtype=np.float32)[:, None]
    labels = (np.arange(200) >= 100).astype(np.int16)
    x, y = resample(ramp, labels, 3.25, factor, frames)
    at = 3.25 + factor * np.arange(frames)
    assert np.allclose(x[:, 0], at, atol=1e-3)
    assert np.array_equal(y, (np.floor(at + 0.5) >= 100))


def test_faster_turns_are_faster_angular_velocities_and_gravity_stays():
    still = np.tile(np.array([0, 0, 1, 0, 2, 0], np.float32), (1000, 1))
    sampler = Sampler(
        [Recording(still, np.zeros(1000, np.int16), "s", "r")], WATCH, 50.0, Augmentation(1.5, 0, 0, 0, 0, 0)
    )
    seen = []
    for seed in range(20):
        x = sampler.draw(np.random.default_rng(seed), 100, 0, 0.0).x
        assert np.allclose(x[:, 2], 1)
        seen.append(float(x[0, 4]) / 2)
    assert min(seen) < 0.85 < 1.18 < max(seen)
    assert 1 / 1.5 - 1e-6 <= min(seen) <= max(seen) <= 1.5 + 1e-6


def test_a_faster_wave_pushes_with_the_square_around_the_same_gravity():
    t = np.arange(3000) / 50
    wave = 1 + 0.1 * np.sin(2 * np.pi * 5 * t)
    x = np.stack([0 * t, 0 * t, wave, 0 * t, 0 * t, 0 * t], 1).astype(np.float32)
    sampler = Sampler([Recording(x, np.zeros(3000, np.int16), "s", "r")], WATCH, 50.0, Augmentation(1.5, 0, 0, 0, 0, 0))
    for seed in range(10):
        seen = sampler.draw(np.random.default_rng(seed), 400, 0, 0.0).x[:, 2]
        spectrum = np.abs(np.fft.rfft((seen - seen.mean()) * np.hanning(400), 4000))
        factor = spectrum.argmax() * 50 / 4000 / 5
        assert seen.mean() == pytest.approx(1, abs=0.01)
        assert seen.std() * np.sqrt(2) == pytest.approx(0.1 * factor**2, rel=0.1)


def test_the_slow_part_of_a_straight_line_is_the_line():
    line = np.linspace(0, 1, 300, dtype=np.float32)[:, None].repeat(2, 1)
    assert np.allclose(slow_part(line, 25)[30:-30], line[30:-30], atol=1e-6)
    assert slow_part(line[:3], 25).shape == (3, 2)


@given(st.integers(3, 400), st.integers(0, 30), st.floats(0, 1), st.integers(0, 1000))
def test_a_crop_is_full_and_every_start_and_seam_is_unscored(length, settle, stitch, seed):
    """Short recordings are sewn together until the crop is full."""
    sampler = Sampler([recording(length, label=1), recording(length + 7, label=2, seed=1)], WATCH, 50.0, PLAIN)
    x, y, age = sampler.draw(np.random.default_rng(seed), 120, settle, stitch)
    assert x.shape == (120, 6)
    assert y.shape == (120,)
    assert (y[age < settle] == -1).all()
    assert (y[age >= settle] != -1).all()
    assert age[0] == 0
    assert ((np.diff(age) == 1) | (age[1:] == 0)).all()
    seams = np.flatnonzero(np.diff(y) != 0)
    assert all(y[seam + 1] == -1 or y[seam] == -1 for seam in seams) or settle == 0


def test_without_changes_a_crop_lies_on_a_recording():
    """Starts fall between samples, so a crop of a straight line is a stretch of that line."""
    ramp = np.repeat(np.arange(500, dtype=np.float32)[:, None], 6, 1)
    source = Recording(ramp, np.zeros(500, np.int16), "s", "r")
    x = Sampler([source], WATCH, 50.0, PLAIN).draw(np.random.default_rng(0), 100, 0, 0.0).x
    assert np.allclose(np.diff(x, axis=0), 1, atol=1e-3)
    assert 0 <= x[0, 0] <= x[-1, 0] <= 499


def test_the_same_generator_draws_the_same_crop():
    sampler = Sampler([recording(500), recording(700, seed=1)], WATCH, 50.0, Augmentation(mirror=0.5))
    first, again = (sampler.draw(np.random.default_rng([3, 4]), 100, 10, 0.5) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_statistics_are_those_of_the_recordings_and_of_both_wrists_with_a_mirror():
    recordings = [recording(500), recording(300, seed=1)]
    everything = np.concatenate([r.x for r in recordings])
    mean, std = Sampler(recordings, WATCH, 50.0, PLAIN).statistics()
    assert np.allclose(mean, everything.mean(0), atol=1e-6)
    assert np.allclose(std, everything.std(0), atol=1e-6)
    signs = mirror_signs(Triads.of(WATCH), 6)
    both = np.concatenate([everything, everything * signs])
    mean, std = Sampler(recordings, WATCH, 50.0, Augmentation(mirror=0.5)).statistics()
    assert np.allclose(mean, both.mean(0), atol=1e-6)
    assert np.allclose(std, both.std(0), atol=1e-5)
