"""How good a trained model is, recording by recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseq.data import Dataset, Recording
from edgeseq.metrics import Scores, score
from edgeseq.models.contract import LookAheadModel, StreamingModel
from edgeseq.training.answers import answer_frames, answer_segments

Floats = NDArray[np.float32]


def logits(model: StreamingModel, recordings: Sequence[Recording], batch: int = 32) -> list[Floats]:
    """Answers ``(T, K)`` to each frame of each recording, from the initial state.

    Recordings of similar length go together. They are filled up behind their end, which a causal model cannot see, and
    one that looks ahead is told. (Only of a model that looks ahead and cannot be told there are L answers less.)
    """
    found = _in_batches(model, recordings, batch, answer_frames)
    unsaid = 0 if isinstance(model, LookAheadModel) else model.look_ahead
    return [y[: len(recording.x) - unsaid] for recording, y in zip(recordings, found, strict=True)]


def segment_logits(model: StreamingModel, recordings: Sequence[Recording], batch: int = 32) -> list[Floats]:
    """The answer ``(K,)`` at the end of each recording."""
    return _in_batches(model, recordings, batch, answer_segments)


def _in_batches(
    model: StreamingModel,
    recordings: Sequence[Recording],
    batch: int,
    answer: Callable[[StreamingModel, Tensor, Tensor], Tensor],
) -> list[Floats]:
    """Of each recording what ``answer`` says of it, in eval mode."""
    was_training = model.training
    model.eval()
    found: dict[int, Floats] = {}
    order = sorted(range(len(recordings)), key=lambda i: len(recordings[i].x))
    with torch.no_grad():
        for first in range(0, len(order), batch):
            group = order[first : first + batch]
            lengths = torch.tensor([len(recordings[i].x) for i in group])
            x = torch.zeros(len(group), int(lengths.max()), model.input_size)
            for row, i in enumerate(group):
                x[row, : lengths[row]] = torch.from_numpy(recordings[i].x)
            y = answer(model, x.to(model.input_mean.device), lengths).cpu()
            found.update((i, y[row].numpy().copy()) for row, i in enumerate(group))
    model.train(was_training)
    return [found[i] for i in range(len(recordings))]


def evaluate(model: StreamingModel, dataset: Dataset, *, smoothing: float = 0.0) -> Scores:
    """Scores per frame over all recordings, without the unscored start of each; of segments, one answer each.

    With ``smoothing`` the answer is taken from probabilities averaged exponentially with that time constant (seconds).
    """
    if dataset.task == "segment":
        ends = segment_logits(model, dataset.recordings)
        return score(
            [(r.y[:1], y[None].argmax(-1)) for r, y in zip(dataset.recordings, ends, strict=True)],
            len(dataset.labels),
        )
    first = round(dataset.unscored * dataset.rate)
    answers = logits(model, dataset.recordings)
    if smoothing:
        answers = [smooth(y, smoothing * dataset.rate) for y in answers]
    pairs = [(r.y[: len(y)][first:], y[first:].argmax(-1)) for r, y in zip(dataset.recordings, answers, strict=True)]
    return score(pairs, len(dataset.labels))


def smooth(y: Floats, steps: float) -> Floats:
    """Exponential average ``(T, K)`` of the softmax of ``y (T, K)`` with a time constant of ``steps`` steps."""
    p: Floats = np.exp(y - y.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    keep = np.exp(-1 / steps)
    for t in range(1, len(p)):
        p[t] = keep * p[t - 1] + (1 - keep) * p[t]
    return p
