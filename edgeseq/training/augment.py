"""Random crops of recordings, changed as a sensor on a body would change them. numpy only; one generator, no state.

Shape letters: T frames of a crop, N frames of a recording, C channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeseq.data import Recording
from edgeseq.data.dataset import PIXEL, SOUND, SPIKE
from edgeseq.training.settings import Augmentation

Floats = NDArray[np.float32]
Labels = NDArray[np.int16]
_ACCELERATION = {"g", "m/s2", "m/s^2", "m/s²"}
_ANGULAR_VELOCITY = {"rad/s", "deg/s", "dps", "°/s"}
COLOURS = 8  # frequencies, evenly spaced, at which the gain of a random filter is drawn
SLOW = 0.5  # seconds: what is slower than this is posture, not movement
# The other wrist is the mirror image of this one. x lies along the forearm and turns over, y and z stay. Acceleration
# is a polar vector; angular velocity is an axial one, for which a reflection turns over the other two.
_MIRROR_ACCELERATION = np.array([-1, 1, 1], np.float32)
_MIRROR_ANGULAR_VELOCITY = np.array([1, -1, -1], np.float32)


@dataclass(frozen=True)
class Triads:
    """Which channels form the x, y, z of an accelerometer or a gyroscope (each: the index of its x)."""

    acceleration: tuple[int, ...]
    angular_velocity: tuple[int, ...]

    @classmethod
    def of(cls, units: Sequence[str]) -> Triads:
        """Three neighbouring channels in the same fitting unit are a triad."""

        def starts(fitting: set[str]) -> tuple[int, ...]:
            found, i = [], 0
            while i + 3 <= len(units):
                if units[i] in fitting and units[i] == units[i + 1] == units[i + 2]:
                    found.append(i)
                    i += 3
                else:
                    i += 1
            return tuple(found)

        return cls(starts(_ACCELERATION), starts(_ANGULAR_VELOCITY))

    @property
    def gyroscope_channels(self) -> list[int]:
        """Indices of all channels that hold angular velocities."""
        return [start + axis for start in self.angular_velocity for axis in range(3)]


def mirror_signs(triads: Triads, channels: int) -> Floats:
    """Signs ``(C,)`` that make a recording one of the other wrist."""
    signs = np.ones(channels, np.float32)
    for start in triads.acceleration:
        signs[start : start + 3] = _MIRROR_ACCELERATION
    for start in triads.angular_velocity:
        signs[start : start + 3] = _MIRROR_ANGULAR_VELOCITY
    return signs


def random_rotation(rng: np.random.Generator, spread: Sequence[float]) -> Floats:
    """A rotation ``(3, 3)`` whose rotation vector is normal with these deviations (radians); Rodrigues' formula."""
    vector = rng.normal(size=3) * np.asarray(spread)
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3, dtype=np.float32)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    rotation: Floats = turn.astype(np.float32)
    return rotation


def resample(x: Floats, y: Labels, start: float, factor: float, frames: int) -> tuple[Floats, Labels]:
    """``frames`` frames from ``start``, ``factor`` times as fast: linear between samples, labels from the nearest."""
    at = start + factor * np.arange(frames)
    low = np.minimum(at.astype(np.int64), len(x) - 2)
    weight = (at - low).astype(np.float32)[:, None]
    between: Floats = x[low] * (1 - weight) + x[low + 1] * weight
    labels: Labels = y[np.minimum((at + 0.5).astype(np.int64), len(x) - 1)]
    return between, labels


def slow_part(x: Floats, window: int) -> Floats:
    """``x (N, C)`` averaged twice over ``window`` frames, centred: what lies under the movement.

    Of an acceleration that is gravity, and the arm's slow turning in it.
    """
    window = max(1, min(window, len(x)))
    sums = np.pad(x.astype(np.float64), ((window, window), (0, 0)), "edge")
    for _ in range(2):
        sums = np.stack([np.convolve(column, np.full(window, 1 / window), "same") for column in sums.T], 1)
    return sums[window : window + len(x)].astype(np.float32)


class Crop(NamedTuple):
    """Frames ``x (T, C)``, labels ``y (T,)`` and ``age (T,)``: frames since the crop's start or its last seam."""

    x: Floats
    y: Labels
    age: NDArray[np.int64]


class Sampler:
    """Draws training crops, or changes whole recordings. Crops fall on recordings in proportion to their length.

    Spikes are 0 or 1: of recordings with a channel of them only the time may shift, and spikes drop out. Where a frame
    holds several ``samples``, the signal that they are of is what is changed.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        units: Sequence[str],
        rate: float,
        augmentation: Augmentation,
        samples: int = 1,
    ) -> None:
        """``rate`` is in frames per second."""
        self.recordings = [_unframed(r, samples) for r in recordings if len(r.x) * samples > 2]
        self.augmentation, self.samples = augmentation, samples
        self.triads = Triads.of(units)
        self.rate = rate * samples
        self._spikes = np.array([unit == SPIKE for unit in units])  # (C,)
        self._spiking = bool(self._spikes.any())
        self._silent = self._spikes | np.array([unit == SOUND for unit in units])  # (C,): 0 is nothing at all
        self._slow: list[Floats] = []
        if not {SOUND, PIXEL} & set(units):  # which lie on nothing
            self._slow = [slow_part(r.x, int(SLOW * rate)) for r in self.recordings]
        for slow in self._slow:
            slow[:, self.triads.gyroscope_channels] = 0  # a turn has no rest
        lengths = np.array([len(recording.x) for recording in self.recordings], np.float64)
        self._share = lengths / lengths.sum()
        everything = np.concatenate([recording.x for recording in self.recordings]).astype(np.float64)
        self._mean, self._std = everything.mean(0).astype(np.float32), everything.std(0).astype(np.float32)

    def draw(self, rng: np.random.Generator, frames: int, settle: int, stitch: float) -> Crop:
        """One crop of ``frames`` frames; the first ``settle`` labels after its start and seams are -1."""
        x, y, age = self._crop(rng, frames * self.samples, settle * self.samples, stitch)
        last = slice(self.samples - 1, None, self.samples)  # what is said of a frame is said of its last sample
        return Crop(x.reshape(frames, -1), y[last], age[last] // self.samples)

    def _crop(self, rng: np.random.Generator, frames: int, settle: int, stitch: float) -> Crop:
        xs, ys, ages, length = [], [], [], 0
        seam = int(rng.integers(frames // 4, frames)) if rng.random() < stitch else frames
        while length < frames:
            x, y = self._piece(rng, seam - length if length < seam else frames - length)
            y = y.copy()
            y[:settle] = -1
            xs.append(self._worn(rng, x))
            ys.append(y)
            ages.append(np.arange(len(x)))
            length += len(x)
        return Crop(np.concatenate(xs), np.concatenate(ys), np.concatenate(ages))

    def _piece(self, rng: np.random.Generator, frames: int) -> tuple[Floats, Labels]:
        """Up to ``frames`` frames of one recording, at another tempo and with a movement of another size."""
        index = int(rng.choice(len(self.recordings), p=self._share))
        recording = self.recordings[index]
        last = len(recording.x) - 1
        if self._spiking:
            first = int(rng.integers(max(1, last + 2 - frames)))
            return recording.x[first : first + frames], recording.y[first : first + frames]
        factor = self._factor(rng)
        if factor * (frames - 1) > last:
            factor = min(factor, 1.0)
            frames = min(frames, int(last / factor) + 1)
        start = rng.uniform(0, max(0.0, last - factor * (frames - 1)))
        return self._moved(rng, index, start, factor, frames)

    def whole(self, rng: np.random.Generator, index: int) -> Floats:
        """Recording ``index`` from end to end: at another tempo, worn otherwise, shifted in time."""
        recording, shift = self.recordings[index], self.augmentation.shift * self.rate
        x = recording.x
        if not self._spiking:
            factor = self._factor(rng)
            x, _ = self._moved(rng, index, 0.0, factor, int((len(x) - 1) / factor) + 1)
        x = shifted(self._worn(rng, x), round(rng.uniform(-shift, shift)), self._silent)
        return x if self.samples == 1 else _whole_frames(x, self.samples)

    def _factor(self, rng: np.random.Generator) -> float:
        limit = math.log(self.augmentation.tempo)
        return math.exp(rng.uniform(-limit, limit))

    def _moved(
        self, rng: np.random.Generator, index: int, start: float, factor: float, frames: int
    ) -> tuple[Floats, Labels]:
        """``frames`` frames of a recording from ``start``, at a tempo, with a movement of another size."""
        recording = self.recordings[index]
        x, y = resample(recording.x, recording.y, start, factor, frames)
        amplitude = math.exp(rng.normal() * self.augmentation.scale)
        if not self._slow:
            return x * np.float32(amplitude), y
        slow, _ = resample(self._slow[index], recording.y, start, factor, frames)
        return slow + (x - slow) * self._gains(factor, amplitude), y

    def _gains(self, factor: float, amplitude: float) -> Floats:
        """By how much each channel's movement grows, ``(C,)``: velocities with the tempo, accelerations squared."""
        gains = np.full(len(self._mean), amplitude, np.float32)
        gains[self.triads.gyroscope_channels] *= np.float32(factor)
        for start in self.triads.acceleration:
            gains[start : start + 3] *= np.float32(factor**2)
        return gains

    def _worn(self, rng: np.random.Generator, x: Floats) -> Floats:
        """As another strap on another wrist would have turned it, with noise; spikes with some missing."""
        a = self.augmentation
        if self._spiking:
            lost = (rng.random(x.shape) < a.drop) & self._spikes
            return np.where(lost, np.float32(0), x)
        if rng.random() < a.mirror:
            x = x * mirror_signs(self.triads, x.shape[1])
        turn = random_rotation(rng, (math.hypot(a.rotation, a.roll), a.rotation, a.rotation))
        for start in (*self.triads.acceleration, *self.triads.angular_velocity):
            x[:, start : start + 3] = x[:, start : start + 3] @ turn
        if a.colour:
            x = coloured(rng, x, a.colour)
        if a.noise:
            x += rng.standard_normal(x.shape, np.float32) * (np.float32(a.noise * rng.random()) * self._std)
        return x

    def statistics(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation ``(C,)`` of what is drawn: with a mirror, of both wrists."""
        if self._spiking:  # spikes are read as they are
            zero, one = np.float32(0), np.float32(1)
            return np.where(self._spikes, zero, self._mean), np.where(self._spikes, one, self._std)
        if not self.augmentation.mirror:
            return self._mean, self._std
        mirrored = self._mean * mirror_signs(self.triads, len(self._mean))
        mean = (self._mean + mirrored) / 2
        return mean, np.sqrt(self._std**2 + ((self._mean - mirrored) / 2) ** 2)


def coloured(rng: np.random.Generator, x: Floats, spread: float) -> Floats:
    """``x (N, C)`` as another microphone, room or throat would colour it.

    A random smooth filter, of normal gains with a deviation of ``spread`` dB at ``COLOURS`` frequencies.
    """
    spectrum = np.fft.rfft(x, axis=0)
    gains = rng.normal(0, spread, COLOURS)
    decibels = np.interp(np.linspace(0, COLOURS - 1, len(spectrum)), np.arange(COLOURS), gains)
    filtered: Floats = np.fft.irfft(spectrum * 10 ** (decibels / 20)[:, None], len(x), 0).astype(np.float32)
    return filtered


def _unframed(recording: Recording, samples: int) -> Recording:
    """The recording with its samples one by one, each with its frame's label."""
    if samples == 1:
        return recording
    count = len(recording.x) * samples
    return dataclasses.replace(recording, x=recording.x.reshape(count, -1), y=np.repeat(recording.y, samples))


def _whole_frames(x: Floats, samples: int) -> Floats:
    """``x (N, C)`` as frames ``(T, H · C)``: what is behind the last whole one is left out, but one there is."""
    x = np.pad(x, ((0, max(0, samples - len(x))), (0, 0)))
    count = len(x) // samples
    return x[: count * samples].reshape(count, -1)


def shifted(x: Floats, frames: int, silent: NDArray[np.bool_]) -> Floats:
    """``x (T, C)``, ``frames`` later: before it comes nothing, 0, on ``silent (C,)`` channels, and its end on others.

    A negative number of frames makes it earlier. The length stays.
    """
    if not frames:
        return x
    at = np.arange(len(x)) - frames
    outside = (at < 0) | (at >= len(x))
    moved: Floats = np.where(outside[:, None] & silent, np.float32(0), x[at.clip(0, len(x) - 1)])
    return moved
