"""Many samples in a frame, as a model reads them that listens to sound by the hop.

Shapes: N samples, H samples in a hop, T frames, C channels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edgeseq.data.dataset import Dataset, Recording
from edgeseq.errors import InputError


def framed(dataset: Dataset, samples: int) -> Dataset:
    """``dataset`` with ``samples`` samples, one after another, in each frame: (N, C) becomes (N // H, H · C).

    A frame has the label of its last sample; samples behind the last whole frame are left out, and a recording that is
    shorter than a frame is filled up with zeros. The data set's rate is then that of the frames, and its
    ``sample_rate`` what it was.

    Raises:
        InputError: the frames hold several samples already, or fewer than one is asked for.
    """
    if samples == dataset.samples:
        return dataset
    if dataset.samples != 1:
        raise InputError(f"{dataset.name} has {dataset.samples} samples in a frame: {samples} cannot be made of them")
    if samples < 1:
        raise InputError(f"{samples} samples in a frame: at least 1 is needed")
    return dataclasses.replace(
        dataset,
        recordings=tuple(_framed(recording, samples) for recording in dataset.recordings),
        rate=dataset.rate / samples,
        samples=samples,
        sampled=dataset.rate,
        recorded=dataset.origin_fingerprint,
    )


def _framed(recording: Recording, samples: int) -> Recording:
    x, y = recording.x, recording.y
    if len(x) < samples:
        x, y = np.pad(x, ((0, samples - len(x)), (0, 0))), np.pad(y, (0, samples - len(y)), "edge")
    count = len(x) // samples
    frames = x[: count * samples].reshape(count, -1)  # (T, H · C)
    return dataclasses.replace(recording, x=frames, y=y[samples - 1 :: samples][:count])
