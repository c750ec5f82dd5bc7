"""From what a model says at every frame, z_t, to its answer y_t: five ways to pool over the frames so far.

    last      y_t = z_t
    average   y_t = y_{t-1} + (1 - e^(-1/τ)) (z_t - y_{t-1})      forgets: for endless streams
    leaky     y_t = e^(-1/τ) y_{t-1} + z_t                        the same as a leaky count, of spikes
    mean      y_t = (z_1 + ... + z_t) / t                         never forgets: for segments only
    sum       y_t = z_1 + ... + z_t                               the same as a count, of spikes

(The average of a linear map is the map of the average, and carries K numbers in place of H.)

Shape letters: B batch, T frames, K outputs, L frames of a span.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import State, Store

POOLINGS = ("last", "average", "leaky", "mean", "sum")
ENDLESS = ("last", "average", "leaky")
SPAN = 128  # frames of an exponential sum computed in one product


class ExponentialSum(nn.Module):
    """``y_t = d y_{t-1} + g z_t`` with d = exp(-1 / timescale), ``timescale`` in steps.

    ``average``: g = 1 - d, so that y is an average of z; otherwise g = 1, and it is a leaky count.
    """

    def __init__(self, timescale: float, *, average: bool) -> None:
        super().__init__()
        if not 0 < timescale < math.inf:
            raise InputError(f"read-out: timescale {timescale} must be positive")
        self.timescale, self.average = timescale, average
        self.store: nn.Module = Store()

    def step(self, z: Tensor, y: Tensor) -> Tensor:
        """``z``, ``y (B, K)`` to the next ``y (B, K)``."""
        rate = -math.expm1(-1 / self.timescale)
        following: Tensor = self.store(y + rate * (z - y) if self.average else math.exp(-1 / self.timescale) * y + z)
        return following

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """``z (B, T, K)`` from ``y (B, K)`` to every ``y (B, T, K)``: a span of frames at a time, where not rounded."""
        if not isinstance(self.store, Store):
            return self._one_by_one(z, y)
        gain = -math.expm1(-1 / self.timescale) if self.average else 1.0
        frame = torch.arange(min(SPAN, z.shape[1]), dtype=torch.float64, device=z.device)
        lag = frame[:, None] - frame[None, :]
        weights = torch.where(lag >= 0, gain * torch.exp(-lag.clamp(min=0) / self.timescale), 0.0).to(z.dtype)  # (L, L)
        left = torch.exp(-(frame + 1) / self.timescale).to(z.dtype)[:, None]  # (L, 1)
        answers = []
        for part in z.split(SPAN, 1):  # (B, L, K)
            frames = part.shape[1]
            answers.append(weights[:frames, :frames] @ part + left[:frames] * y[:, None])
            y = answers[-1][:, -1]
        return torch.cat(answers, 1)

    def _one_by_one(self, z: Tensor, y: Tensor) -> Tensor:
        answers = []
        for z_t in z.unbind(1):
            y = self.step(z_t, y)
            answers.append(y)
        return torch.stack(answers, 1)


class Pooling(nn.Module):
    """The read-out of a model: ``kind`` as above, ``timescale`` in steps of those that forget.

    Its states are "readout.<kind>", and "readout.count" of the mean. ``live`` of :class:`LookAheadModel`, 0 for a frame
    that is not there: such frames are not counted.
    """

    def __init__(self, kind: str, size: int, timescale: float = 25.0) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise unknown("read-out", kind, POOLINGS)
        self.kind, self.size = kind, size
        self.tasks = ("frame", "segment") if kind in ENDLESS else ("segment",)
        exponential = kind in ("average", "leaky")
        self.exponential = ExponentialSum(timescale, average=kind == "average") if exponential else None

    def retime(self, factor: float) -> dict[str, float]:
        """Make it one for frames ``factor`` times as far apart; returns the arguments that change."""
        if self.exponential is None:
            return {}
        self.exponential.timescale /= factor
        return {"timescale": self.exponential.timescale}

    def counts(self) -> tuple[str, ...]:
        """The states that count or sum, and have no largest value (see :meth:`StreamingModel.counts`)."""
        return {"mean": ("readout.mean", "readout.count"), "sum": ("readout.sum",)}.get(self.kind, ())

    def states(self, like: Tensor, batch: int) -> State:
        """Zeros by name, of ``batch`` streams, in the dtype and on the device of ``like``."""
        state = {f"readout.{self.kind}": like.new_zeros(batch, self.size)} if self.kind != "last" else {}
        if self.kind == "mean":
            state["readout.count"] = like.new_zeros(batch, 1)
        return state

    def step(self, z: Tensor, state: State, following: State, live: Tensor | None = None) -> Tensor:
        """``z (B, K)`` to ``y (B, K)``; the next states go into ``following``."""
        if self.kind == "last":
            return z
        z = z if live is None else z * live
        y = state[f"readout.{self.kind}"]  # (B, K)
        if self.exponential is not None:
            y = self.exponential.step(z, y)
        elif self.kind == "sum":
            y = y + z
        else:
            y, count = self._mean(z, y, state["readout.count"], live)
        following[f"readout.{self.kind}"] = y
        if self.kind == "mean":
            following["readout.count"] = count
        return y

    @staticmethod
    def _mean(z: Tensor, mean: Tensor, count: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
        if live is None:
            return mean + (z - mean) / (count + 1), count + 1
        following = count + live
        return (mean * count + z) / following.clamp(min=1), following

    def forward(self, z: Tensor, state: State, following: State, live: Tensor | None = None) -> Tensor:
        """``z (B, T, K)`` to every ``y (B, T, K)``; the last states go into ``following``."""
        if self.kind == "last":
            return z
        z = z if live is None else z * live
        y = state[f"readout.{self.kind}"]  # (B, K)
        if self.exponential is not None:
            z = self.exponential(z, y)
        elif self.kind == "sum":
            z = y[:, None] + z.cumsum(1)
        else:
            before = state["readout.count"][:, None]  # (B, 1, 1)
            count = before + (torch.ones_like(z[..., :1]) if live is None else live).cumsum(1)  # (B, T, 1)
            total = y[:, None] * before + z.cumsum(1)  # (B, T, K)
            z = total / (count if live is None else count.clamp(min=1))
        following[f"readout.{self.kind}"] = z[:, -1]
        if self.kind == "mean":
            following["readout.count"] = count[:, -1]
        return z
