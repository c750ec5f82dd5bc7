"""Recordings at another rate, as a slower or faster sensor would have given them.

A sinc under a Hann window, at the lower of the two rates: what the slower one cannot carry is taken out. It looks to
both sides of a frame, so it is for recordings, not for a stream.

Shapes: T frames before, N after, W frames read for each, C channels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import SPIKE, Dataset, Recording
from edgeseq.errors import InputError

LOBES = 8  # of the sinc, to each side
PART = 4096  # frames at once: each reads 16 and more, which for a long recording would not fit
LOWEST_SHARE, HIGHEST_SHARE = 1 / 16, 16  # of the old rate


def resampled(dataset: Dataset, rate: float) -> Dataset:
    """``dataset`` at ``rate`` Hz; a frame has the label of the old frame nearest to it.

    Raises:
        InputError: a rate that is not a positive number, or over 16 times off; a channel of spikes, or frames of
            several samples.
    """
    if not np.isfinite(rate) or not LOWEST_SHARE <= rate / dataset.rate <= HIGHEST_SHARE:
        low, high = LOWEST_SHARE * dataset.rate, HIGHEST_SHARE * dataset.rate
        raise InputError(f"rate {rate:g} Hz: {dataset.name} has {dataset.rate:g} Hz, {low:g} to {high:g} are possible")
    if dataset.samples != 1:
        raise InputError(
            f"{dataset.name} has {dataset.samples} samples in a frame: it is resampled before frames are made of it"
        )
    for channel, unit in zip(dataset.channels, dataset.units, strict=True):
        if unit == SPIKE:
            raise InputError(
                f"channel {channel!r} of {dataset.name} has unit {unit!r} and cannot come at another rate than "
                f"{dataset.rate:g} Hz: a filter makes no spikes of spikes, but numbers between 0 and 1. Encode the "
                f"signal that they came from at {rate:g} Hz, and train on that"
            )
    recordings = tuple(_at(recording, rate / dataset.rate) for recording in dataset.recordings)
    return dataclasses.replace(dataset, recordings=recordings, rate=rate, recorded=dataset.origin_fingerprint)


def _at(recording: Recording, ratio: float) -> Recording:
    """``ratio``: frames after for one before."""
    count = max(1, int(len(recording.x) * ratio))
    at = np.arange(count) / ratio  # (N): where the new frames lie among the old ones
    nearest = np.minimum(np.rint(at).astype(np.int64), len(recording.x) - 1)
    return dataclasses.replace(recording, x=_interpolate(recording.x, at, min(1.0, ratio)), y=recording.y[nearest])


def _interpolate(x: npt.NDArray[np.float32], at: npt.NDArray[np.float64], band: float) -> npt.NDArray[np.float32]:
    """``x (T, C)`` at the places ``at (N)``, without what is above ``band`` times its highest frequency."""
    parts = [_interpolate_part(x, at[start : start + PART], band) for start in range(0, len(at), PART)]
    return np.concatenate(parts)


def _interpolate_part(x: npt.NDArray[np.float32], at: npt.NDArray[np.float64], band: float) -> npt.NDArray[np.float32]:
    reach = int(np.ceil(LOBES / band))
    near = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)  # (N, W)
    distance = (at[:, None] - near) * band  # in lobes
    window = np.where(np.abs(distance) < LOBES, np.cos(0.5 * np.pi * distance / LOBES) ** 2, 0.0)
    weights = np.sinc(distance) * window  # (N, W)
    weights /= weights.sum(1, keepdims=True)  # a constant stays as it is
    frames = x[near.clip(0, len(x) - 1)].astype(np.float64)  # (N, W, C): the ends are held
    moved: npt.NDArray[np.float32] = np.einsum("nw,nwc->nc", weights, frames).astype(np.float32)
    return moved
