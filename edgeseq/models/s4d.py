"""S4D: stacked diagonal state space layers, each followed by a gated mixing of its channels.

    v_t = S4D(u)_t                                         (one linear system a channel: see diagonal.py)
    h_t = u_t + (W_a g_t + b_a) σ(W_g g_t + b_g),   g = GELU(v)

with a norm behind the sum (or, ``prenorm``, ahead of the state space layer). Gu, Gupta, Goel, Ré, "On the
parameterization and initialization of diagonal state space models", NeurIPS 2022, in one direction only. Published
models average their last layer over the whole sequence; here that is one read-out of three:

    last      y_t = z_t
    average   y_t = y_{t-1} + (1 - e^(-1/τ)) (z_t - y_{t-1})
    mean      y_t = (z_1 + ... + z_t) / t

of z_t = W h_t + b. (The average of a linear map is the map of the average, and carries K numbers in place of H.)

Shape letters: B batch, T frames, C inputs, H channels, M modes, K outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, dropout, gelu, glu

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import State, Store, StreamingModel
from edgeseq.models.diagonal import DiagonalSsm

NORMS = ("layer", "batch")
READOUTS = ("last", "average", "mean")
SPAN = 128  # frames of the exponential average computed in one product


class TiedDropout(nn.Module):
    """Dropout of whole channels: the same ones at every frame of a sequence ``(B, T, H)``."""

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise InputError(f"dropout {share}: from 0 to less than 1 is possible")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.share:
            return x
        return x * dropout(torch.ones_like(x[:, :1] if x.ndim == 3 else x), self.share)


class BatchNorm(nn.Module):
    """Over batch and time ``(..., H)``; when not training an affine map of each channel."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1) if x.ndim == 3 else x
        flat = batch_norm(flat, self.running_mean, self.running_var, self.weight, self.bias, self.training)
        return flat.reshape(x.shape) if x.ndim == 3 else flat


def _norm(kind: str, channels: int) -> nn.Module:
    if kind not in NORMS:
        raise unknown("norm", kind, NORMS)
    return nn.LayerNorm(channels) if kind == "layer" else BatchNorm(channels)


class S4dBlock(nn.Module):
    """A state space layer, the mixing of its channels, the residual and the norm."""

    def __init__(self, channels: int, norm: str, prenorm: bool, share: float, ssm: DiagonalSsm) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.norm = _norm(norm, channels)
        self.ssm = ssm
        self.mixer = nn.Linear(channels, 2 * channels)
        self.dropout = TiedDropout(share)

    def ahead(self, u: Tensor) -> Tensor:
        """``u (..., H)``: what the state space layer reads."""
        normed: Tensor = self.norm(u) if self.prenorm else u
        return normed

    def behind(self, v: Tensor, u: Tensor) -> Tensor:
        """``v (..., H)``, what it answers, and the block's input ``u (..., H)`` to ``h (..., H)``."""
        h: Tensor = u + self.dropout(glu(self.mixer(self.dropout(gelu(v))), -1))
        return h if self.prenorm else cast(Tensor, self.norm(h))

    def step(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, H)``, ``s (B, 2, M, H)`` to ``h (B, H)`` and the next ``s``."""
        v, s = self.ssm.step(self.ahead(u), s)
        return self.behind(v, u), s

    def forward(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` from ``s`` to ``h (B, T, H)`` and the state after the last frame."""
        v, s = self.ssm(self.ahead(u), s)
        return self.behind(v, u), s

    def last(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` from ``s`` to ``h (B, H)`` after the last frame, and the state."""
        v, s = self.ssm.last(self.ahead(u), s)
        return self.behind(v, u[:, -1]), s


class ExponentialAverage(nn.Module):
    """``y_t = y_{t-1} + k (z_t - y_{t-1})``, from 0, with k = 1 - exp(-1 / timescale); ``timescale`` in steps."""

    def __init__(self, timescale: float) -> None:
        super().__init__()
        if not 0 < timescale < math.inf:
            raise InputError(f"s4d: timescale {timescale} must be positive")
        self.timescale = timescale
        self.store: nn.Module = Store()

    def step(self, z: Tensor, y: Tensor) -> Tensor:
        """``z``, ``y (B, K)`` to the next ``y (B, K)``."""
        following: Tensor = self.store(y + -math.expm1(-1 / self.timescale) * (z - y))
        return following

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """``z (B, T, K)`` from ``y (B, K)`` to every ``y (B, T, K)``: a span of frames at a time, where not rounded."""
        if not isinstance(self.store, Store):
            return self._one_by_one(z, y)
        k = -math.expm1(-1 / self.timescale)
        frame = torch.arange(min(SPAN, z.shape[1]), dtype=torch.float64, device=z.device)
        lag = frame[:, None] - frame[None, :]
        weights = torch.where(lag >= 0, k * torch.exp(-lag.clamp(min=0) / self.timescale), 0.0).to(z.dtype)  # (L, L)
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


class S4d(StreamingModel):
    """An encoder, S4D blocks, and a causal read-out.

    Arguments: ``hidden`` channels H, ``layers``, ``state`` size N = 2M; ``init`` (lin, inv, legs, real), ``rule`` (zoh,
    bilinear), ``dt_min``, ``dt_max`` and ``rate`` of the state space layers; ``norm`` (layer, batch) and ``prenorm``;
    ``dropout`` of channels (training only); ``readout`` (last, average, mean: for segments only), ``timescale`` in
    steps of the average.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        state: int = 16,
        init: str = "lin",
        rule: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        rate: float = 1.0,
        norm: str = "layer",
        prenorm: bool = False,
        dropout: float = 0.0,
        readout: str = "last",
        timescale: float = 25.0,
    ) -> None:
        super().__init__(input_size, output_size)
        if readout not in READOUTS:
            raise unknown("read-out", readout, READOUTS)
        for name, size in (("layers", layers), ("hidden", hidden)):
            if size < 1:
                raise InputError(f"s4d: {name} {size} must be at least 1")
        if not isinstance(prenorm, bool):
            raise InputError(f"s4d: prenorm {prenorm!r} must be true or false")
        self.kind = readout
        self.tasks = ("segment",) if readout == "mean" else ("frame", "segment")
        settings: dict[str, Any] = {"init": init, "rule": rule, "dt_min": dt_min, "dt_max": dt_max, "rate": rate}
        self.rate = float(rate)  # in full precision, for whoever writes it down
        self.encoder = nn.Linear(input_size, hidden)
        made = [S4dBlock(hidden, norm, prenorm, dropout, DiagonalSsm(hidden, state, **settings)) for _ in range(layers)]
        self.layers = cast("Sequence[S4dBlock]", nn.ModuleList(made))
        self.norm = _norm(norm, hidden) if prenorm else nn.Identity()
        self.readout = nn.Linear(hidden, output_size)
        self.average = ExponentialAverage(timescale) if readout == "average" else None

    def dynamics(self) -> tuple[str, ...]:
        return tuple(f"layers.{i}.ssm.{name}" for i, layer in enumerate(self.layers) for name in layer.ssm.dynamics())

    def retime(self, factor: float) -> dict[str, Any]:
        if factor <= 0:
            raise InputError(f"s4d: frames {factor} times as far apart: a positive number is needed")
        self.rate *= factor
        for layer in self.layers:
            layer.ssm.rate.fill_(self.rate)
        if self.average is None:
            return {"rate": self.rate}
        self.average.timescale /= factor
        return {"rate": self.rate, "timescale": self.average.timescale}

    def initial_state(self, batch: int) -> State:
        state = {f"layers.{i}.state": layer.ssm.initial_state(batch) for i, layer in enumerate(self.layers)}
        if self.kind != "last":
            state[f"readout.{self.kind}"] = self.input_mean.new_zeros(batch, self.output_size)
        if self.kind == "mean":
            state["readout.count"] = self.input_mean.new_zeros(batch, 1)
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, following = self.encoder(self.normalize(x)), {}  # (B, H)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.state"
            h, following[name] = layer.step(h, state[name])
        z = self.readout(self.norm(h))  # (B, K)
        if self.average is not None:
            z = following["readout.average"] = self.average.step(z, state["readout.average"])
        elif self.kind == "mean":
            mean, count = state["readout.mean"], state["readout.count"] + 1  # (B, K), (B, 1)
            z = following["readout.mean"] = mean + (z - mean) / count
            following["readout.count"] = count
        return z, following

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.encoder(self.normalize(x)), {}  # (B, T, H)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.state"
            h, following[name] = layer(h, state[name])
        return self._pooled(self.readout(self.norm(h)), state, following)

    def last(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if self.kind != "last" or self.training:
            return super().last(x, state)  # every frame of the last layer counts, for the read-out or for a batch norm
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.encoder(self.normalize(x)), {}  # (B, T, H)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.state"
            run = layer.last if i == len(self.layers) - 1 else layer
            h, following[name] = run(h, state[name])
        return self.readout(self.norm(h)), following

    def _pooled(self, z: Tensor, state: State, following: State) -> tuple[Tensor, State]:
        """``z (B, T, K)`` to the answers ``(B, T, K)``, with the states of the read-out."""
        if self.average is not None:
            z = self.average(z, state["readout.average"])
            following["readout.average"] = z[:, -1]
        elif self.kind == "mean":
            mean, count = state["readout.mean"], state["readout.count"]
            counts = count[:, None] + torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)[:, None]
            z = ((mean * count)[:, None] + z.cumsum(1)) / counts  # (B, T, K) / (B, T, 1)
            following["readout.mean"], following["readout.count"] = z[:, -1], counts[:, -1]
        return z, following
