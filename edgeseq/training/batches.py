"""Batches to learn from: crops of endless streams, or whole segments. numpy's generator draws them; no state is kept.

Shape letters: B batch, T frames, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edgeseq.data import Dataset, Recording
from edgeseq.models.contract import State, StreamingModel
from edgeseq.models.listening import behind
from edgeseq.training.augment import Floats, Sampler
from edgeseq.training.settings import Settings

POOL = 16  # batches among whose segments neighbours in length are put together


@dataclass(frozen=True)
class Carry:
    """Which crops of a batch start from the state that a crop of the last batch ended in, and from whose.

    ``order (B,)``: of which crop; ``taken (B,)``: whether, or from the initial state.
    """

    order: Tensor
    taken: Tensor

    def starts(self, model: StreamingModel, last: State) -> State:
        """The states of ``model`` to start from, given those in which its last batch ended."""
        fresh = model.initial_state(len(self.order))
        return {
            name: torch.where(self.taken.view(-1, *[1] * (t.ndim - 1)), t.detach()[self.order], fresh[name])
            for name, t in last.items()
        }


@dataclass(frozen=True)
class Batch:
    """Crops to learn from: ``x (B, T, C)``, labels ``y (B, T)`` (-1: not scored) and ``age (B, T)``.

    ``age`` counts frames since a crop's start or its last seam. Without ``carry`` all start from the initial state.
    Of segments, which have ``lengths (B,)`` and are filled up behind their end, ``y`` and ``age`` are ``(B, 1)``: those
    of the answer at the end.
    """

    x: Tensor
    y: Tensor
    age: Tensor
    carry: Carry | None
    lengths: Tensor | None = None

    def to(self, device: str) -> Batch:
        """The same on another device, but for ``lengths``, which are read by Python."""
        carry = self.carry and Carry(self.carry.order.to(device), self.carry.taken.to(device))
        return Batch(self.x.to(device), self.y.to(device), self.age.to(device), carry, self.lengths)


class Batches(Protocol):
    """Where a round of training has its batches from."""

    def statistics(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation ``(C,)`` of what is drawn."""

    def round(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of one round, drawn with ``rng`` one after another."""


def batches_of(dataset: Dataset, settings: Settings) -> Batches:
    """Those that suit the data set's task."""
    return Segments(dataset, settings) if dataset.task == "segment" else Crops(dataset, settings)


class Crops:
    """Random crops; some start from the state that another ended in."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.settings = settings
        self.sampler = _sampler(dataset, dataset.recordings, settings)
        self.statistics = self.sampler.statistics
        self.frames, self.settle = (int(seconds * dataset.rate) for seconds in (settings.crop, settings.settle))

    def round(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of one round; nothing is carried into its first."""
        for step in range(self.settings.steps):
            yield self._draw(rng, first=step == 0)

    def _draw(self, rng: np.random.Generator, *, first: bool) -> Batch:
        size, stitch = self.settings.batch, self.settings.stitch
        crops = [self.sampler.draw(rng, self.frames, self.settle, stitch) for _ in range(size)]
        x, y, age = (torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True))
        carry = None
        if self.settings.carry and not first:
            order = torch.from_numpy(rng.permutation(size))
            carry = Carry(order, torch.from_numpy(rng.random(size) < self.settings.carry))
        return Batch(x, y.long(), age, carry)


class Segments:
    """Whole recordings, each as often as any other; those of similar length share a batch."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        labelled = [recording for recording in dataset.recordings if recording.y[0] >= 0]
        self.settings = settings
        self.sampler = _sampler(dataset, labelled, settings)
        self.statistics = self.sampler.statistics
        self.labels = np.array([recording.y[0] for recording in self.sampler.recordings], np.int64)
        self.lengths = np.array([len(recording.x) for recording in self.sampler.recordings])

    def round(self, rng: np.random.Generator) -> Iterator[Batch]:
        """The batches of one round: all recordings in a random order, then again in another."""
        for chosen in self._chosen(rng):
            yield self._draw(rng, chosen)

    def _chosen(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Indices of the recordings ``(B,)`` of each batch of a round."""
        size, steps, count = self.settings.batch, self.settings.steps, len(self.lengths)
        passes = [rng.permutation(count) for _ in range(-(-size * steps // count))]
        order = np.concatenate(passes)[: size * steps]
        for first in range(0, steps, POOL):
            pool = order[first * size : (first + POOL) * size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")].reshape(-1, size)
            yield from pool[rng.permutation(len(pool))]

    def _draw(self, rng: np.random.Generator, chosen: np.ndarray) -> Batch:
        drawn = [self.sampler.whole(rng, int(index)) for index in chosen]
        lengths = torch.tensor([len(x) for x in drawn])
        x = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(each) for each in drawn], batch_first=True)
        return Batch(x, torch.from_numpy(self.labels[chosen])[:, None], lengths[:, None] - 1, None, lengths)


def _sampler(dataset: Dataset, recordings: Sequence[Recording], settings: Settings) -> Sampler:
    return Sampler(recordings, dataset.units, dataset.rate, settings.augmentation, dataset.samples)


@torch.no_grad()
def statistics(model: StreamingModel, batches: Batches, dataset: Dataset) -> tuple[Floats, Floats]:
    """What ``model`` is to be normalized with: of the frames that are drawn, or of the features it makes of recordings.

    Mean and standard deviation, ``(C,)`` or ``(M,)``.
    """
    if behind(model) is model:
        return batches.statistics()
    made = [model.features(torch.from_numpy(recording.x)[None])[0].double() for recording in dataset.recordings]
    features = torch.cat(made)  # (all T, M)
    return features.mean(0).float().numpy(), features.std(0, correction=0).float().numpy()
