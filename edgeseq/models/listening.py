"""Any family behind a front end: a model that reads raw sound by the hop.

    f_t = log-mel features of the window that ends with hop t       (edgeseq.signal.log_mel)
    y_t = the model's answer to f_t

The samples that a window shares with the hops before it are a state, the normalization of the training subjects is that
of the features, and everything is part of the step: a runner feeds samples.

Shape letters: B batch, T frames, H samples in a hop, N in a window, F bins (twice), M features, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import LookAheadModel, Projection, State, StreamingModel, Width
from edgeseq.signal.log_mel import DECIBEL, LogMel, transform

HEARD = "front.heard"
INNER = "model."  # ahead of the names of the model behind the front end


class LogMelFront(nn.Module):
    """Log-mel features of a stream; its state is the last N - H samples, the oldest first."""

    hann: Tensor
    even: Tensor
    odd: Tensor
    filters: Tensor

    def __init__(self, features: LogMel) -> None:
        super().__init__()
        self.features = features
        for name, constant in transform(features)._asdict().items():  # made of the arguments, not trained
            self.register_buffer(name, torch.from_numpy(constant), persistent=False)

    def initial_state(self, batch: int) -> Tensor:
        """Silence ``(B, N - H)``."""
        return self.hann.new_zeros(batch, self.features.kept)

    def forward(self, x: Tensor, heard: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The features of one hop ``x (B, H)`` or of many ``x (B, T, H)``, and the samples before the next hop.

        Features are ``(B, M)`` or ``(B, T, M)``. Without ``heard (B, N - H)`` silence came before.
        """
        heard = self.initial_state(x.shape[0]) if heard is None else heard
        sound = torch.cat([heard, x.flatten(1)], -1) if self.features.kept else x.flatten(1)  # (B, N - H + T H)
        one = x.ndim == 2
        windows = sound if one else sound.unfold(-1, self.features.window, self.features.hop)  # (B, N), (B, T, N)
        return self.decibels(windows), sound[:, sound.shape[1] - self.features.kept :]

    def decibels(self, windows: Tensor) -> Tensor:
        """``windows (..., N)`` to features ``(..., M)``."""
        first, second = (windows * self.hann).tensor_split(2, -1)  # (..., N / 2)
        parts = torch.cat([linear(first + second, self.even), linear(first - second, self.odd)], -1)  # (..., F)
        power = linear(parts * parts, self.filters)  # (..., M)
        return torch.log(power.clamp(min=self.features.floor)) * DECIBEL


class Listening(LookAheadModel):
    """The model ``model`` of ``features.mels`` inputs behind a front end: it reads ``features.hop`` samples a frame.

    What the model says of itself it says here too, its names behind "model.".
    """

    def __init__(self, features: LogMel, model: StreamingModel) -> None:
        super().__init__(features.hop, model.output_size, normalized=False)
        if model.input_size != features.mels:
            raise InputError(f"the front end makes {features.mels} features, and the model reads {model.input_size}")
        self.front, self.model = LogMelFront(features), model
        self.look_ahead, self.tasks = model.look_ahead, model.tasks

    @property
    def input_mean(self) -> Tensor:  # type: ignore[override]
        """Mean of each feature over the training subjects ``(M,)``."""
        return self.model.input_mean

    @property
    def input_scale(self) -> Tensor:  # type: ignore[override]
        """One over the standard deviation of each feature ``(M,)``."""
        return self.model.input_scale

    def features(self, x: Tensor) -> Tensor:
        return self.front(x)[0]  # type: ignore[no-any-return]

    def projections(self) -> dict[str, Projection]:
        inner = self.model.projections()
        return {
            INNER + name: replace(
                place,
                follows=place.follows and INNER + place.follows,
                reads=place.reads and INNER + place.reads,
            )
            for name, place in inner.items()
        }

    def widths(self) -> dict[str, Width]:
        return {
            INNER + name: replace(
                width,
                places=tuple(replace(place, name=INNER + place.name) for place in width.places),
                constants=tuple(INNER + constant for constant in width.constants),
            )
            for name, width in self.model.widths().items()
        }

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        return self.model.resized({name.removeprefix(INNER): size for name, size in sizes.items()})

    def whole(self) -> State:
        return {INNER + name: tensor for name, tensor in self.model.whole().items()}

    def take(self, tensors: State) -> None:
        self.model.take({name.removeprefix(INNER): tensor for name, tensor in tensors.items()})

    def masks(self) -> Mapping[str, Tensor]:
        return {INNER + name: mask for name, mask in self.model.masks().items()}

    def dynamics(self) -> tuple[str, ...]:
        return tuple(INNER + name for name in self.model.dynamics())

    def counts(self) -> tuple[str, ...]:
        return (*(INNER + name for name in self.model.counts()), *([HEARD] if self.front.features.kept else []))

    def facts(self) -> Mapping[str, float]:
        return self.model.facts()

    def fold(self) -> dict[str, Any]:
        return self.model.fold()

    def retime(self, factor: float) -> dict[str, Any]:
        """Refused: what a band hears hangs on the rate, the hop and the window together."""
        raise Unsupported(
            f"the front end of this model hears sound at {self.front.features.rate:g} Hz by hops of "
            f"{self.front.features.hop} samples, and has no other rate: train a model at the rate that you need"
        )

    def constrain(self) -> None:
        self.model.constrain()

    def initial_state(self, batch: int) -> State:
        heard = {HEARD: self.front.initial_state(batch)} if self.front.features.kept else {}
        return {**heard, **{INNER + name: tensor for name, tensor in self.model.initial_state(batch).items()}}

    def step(self, x: Tensor, state: State, live: Tensor | None = None) -> tuple[Tensor, State]:
        f, heard = self.front(x, state.get(HEARD))  # (B, M)
        y, following = self.model.step(f, _inner(state), *self._live(live))
        return y, self._carried(heard, following)

    def forward(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(self.model, x, state, live)  # (B, T, K)

    def last(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(self.model.last, x, state, live)  # (B, K)

    def _run(self, run: Any, x: Tensor, state: State | None, live: Tensor | None) -> tuple[Tensor, State]:
        f, heard = self.front(x, state.get(HEARD) if state else None)  # (B, T, M)
        y, following = run(f, _inner(state) if state else None, *self._live(live))
        return y, self._carried(heard, following)

    def _live(self, live: Tensor | None) -> tuple[Tensor | None, ...]:
        """What a model is told beside frames and state, if it can be told."""
        return (live,) if isinstance(self.model, LookAheadModel) else ()

    def _carried(self, heard: Tensor, following: State) -> State:
        kept = {HEARD: heard} if self.front.features.kept else {}
        return {**kept, **{INNER + name: tensor for name, tensor in following.items()}}


def _inner(state: State) -> State:
    return {name.removeprefix(INNER): tensor for name, tensor in state.items() if name != HEARD}


def behind(model: StreamingModel) -> StreamingModel:
    """The model behind a front end, or ``model`` itself if it has none."""
    return model.model if isinstance(model, Listening) else model
