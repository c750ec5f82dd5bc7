"""What a model answers to whole recordings, those that look ahead included.

A model with look-ahead L speaks of frame t in call t + L. Behind a recording's end it gets L calls that bring no frame
(``live`` is 0), after which every frame has its answer. What fills a recording up to the length of others is no frame
either: no answer hangs on it, nor the statistics of batch norms in training.

Shape letters: B batch, T frames, C channels, K labels, L frames of look-ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgeseq.models.contract import LookAheadModel, State, StreamingModel
from edgeseq.training.batches import Batch


def respond(model: StreamingModel, batch: Batch, starts: State | None) -> tuple[Tensor, State]:
    """The model's answers to what a batch asks, and the state after it.

    Of crops, ``(B, T - L, K)`` for their first T - L frames: the last L wait for frames that are not there. Of
    segments, ``(B, 1, K)``.
    """
    if batch.lengths is not None:
        answers, state = _segments(model, batch.x, batch.lengths)
        return answers[:, None], state
    y, state = model(batch.x, starts)
    return y[:, model.look_ahead :], state


def answer_frames(model: StreamingModel, x: Tensor, lengths: Tensor) -> Tensor:
    """The answer to every frame, ``(B, T, K)``, of recordings ``x (B, T, C)`` filled up behind ``lengths (B,)`` frames.

    A model that looks ahead without being a LookAheadModel cannot be told that a recording has ended: it says nothing
    of the last L frames, ``(B, T - L, K)``.
    """
    y, _ = _call(model, x, lengths)
    return y[:, model.look_ahead :]


def answer_segments(model: StreamingModel, x: Tensor, lengths: Tensor) -> Tensor:
    """The answer at the end of each segment, ``(B, K)``; arguments as for :func:`answer_frames`."""
    return _segments(model, x, lengths)[0]


def _segments(model: StreamingModel, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
    if bool((lengths == x.shape[1]).all()):
        return _call(model, x, lengths, last=True)
    y, state = _call(model, x, lengths)
    ends = lengths - 1 + (model.look_ahead if isinstance(model, LookAheadModel) else 0)
    return y[torch.arange(len(y)), ends], state


def _call(model: StreamingModel, x: Tensor, lengths: Tensor, *, last: bool = False) -> tuple[Tensor, State]:
    """``forward``, or ``last``, over the recordings and the calls behind their end."""
    filled = bool((lengths < x.shape[1]).any())
    if isinstance(model, LookAheadModel) and (filled or model.look_ahead):
        x = pad(x, (0, 0, 0, model.look_ahead))
        live = (torch.arange(x.shape[1]) < lengths[:, None]).to(x)[..., None]  # (B, T + L, 1)
        y, state = model.last(x, None, live) if last else model(x, None, live)
    else:
        y, state = model.last(x) if last else model(x)
    return y, state
