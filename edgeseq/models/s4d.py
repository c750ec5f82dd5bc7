"""S4D: stacked diagonal state space layers, each followed by a gated mixing of its channels.

    v_t = S4D(u)_t                                         (one linear system a channel: see diagonal.py)
    h_t = u_t + (W_a g_t + b_a) σ(W_g g_t + b_g),   g = GELU(v)

with a norm behind the sum (or, ``prenorm``, ahead of the state space layer). Gu, Gupta, Goel, Ré, "On the
parameterization and initialization of diagonal state space models", NeurIPS 2022, in one direction only. Published
models average their last layer over the whole sequence; here that is one read-out of several (readout.py).

Shape letters: B batch, T frames, C inputs, H channels, M modes, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, glu

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import LookAheadModel, Place, State, Width
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.norms import Affine, BatchNorm, folded_norm, normed
from edgeseq.models.places import at_once, differing, made_by, per_layer, read_by
from edgeseq.models.readout import Pooling

NORMS = ("layer", "batch", "affine")


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


def _norm(kind: str, channels: int) -> nn.Module:
    if kind not in NORMS:
        raise unknown("norm", kind, NORMS)
    made: nn.Module = {"layer": nn.LayerNorm, "batch": BatchNorm, "affine": Affine}[kind](channels)
    return made


class S4dBlock(nn.Module):
    """A state space layer, the mixing of its channels, the residual and the norm."""

    def __init__(self, channels: int, norm: str, prenorm: bool, share: float, ssm: DiagonalSsm) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.norm = _norm(norm, channels)
        self.ssm = ssm
        self.mixer = nn.Linear(channels, 2 * channels)
        self.dropout = TiedDropout(share)

    def ahead(self, u: Tensor, live: Tensor | None) -> Tensor:
        """``u (..., H)``, of frames that are there where ``live (..., 1)`` is 1: what the state space layer reads."""
        return normed(self.norm, u, live) if self.prenorm else u

    def behind(self, v: Tensor, u: Tensor, live: Tensor | None) -> Tensor:
        """``v (..., H)``, what it answers, and the block's input ``u (..., H)`` to ``h (..., H)``."""
        h: Tensor = u + self.dropout(glu(self.mixer(self.dropout(gelu(v))), -1))
        return h if self.prenorm else normed(self.norm, h, live)

    def step(self, u: Tensor, s: Tensor, live: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``u (B, H)``, ``s (B, 2, M, H)`` and ``live (B, 1)`` to ``h (B, H)`` and the next ``s``."""
        v, s = self.ssm.step(self.ahead(u, live), s)
        return self.behind(v, u, live), s

    def forward(self, u: Tensor, s: Tensor, live: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` from ``s`` and ``live (B, T, 1)`` to ``h (B, T, H)`` and the state after the last frame."""
        v, s = self.ssm(self.ahead(u, live), s)
        return self.behind(v, u, live), s

    def last(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` from ``s`` to ``h (B, H)`` after the last frame, and the state; not in training."""
        v, s = self.ssm.last(self.ahead(u, None), s)
        return self.behind(v, u[:, -1], None), s


class S4d(LookAheadModel):
    """An encoder, S4D blocks, and a causal read-out.

    Arguments: ``hidden`` channels H, ``layers``, ``state`` size N = 2M, one number for all layers or one
    for each; ``init`` (lin, inv, legs, real), ``rule`` (zoh,
    bilinear), ``dt_min``, ``dt_max`` and ``rate`` of the state space layers; ``norm`` (layer, batch, or affine: what a
    trained batch norm is) and ``prenorm``; ``dropout`` of channels (training only); ``readout`` and ``timescale`` of
    :class:`~edgeseq.models.readout.Pooling`.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        state: int | Sequence[int] = 16,
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
        for name, size in (("layers", layers), ("hidden", hidden)):
            if size < 1:
                raise InputError(f"s4d: {name} {size} must be at least 1")
        if not isinstance(prenorm, bool):
            raise InputError(f"s4d: prenorm {prenorm!r} must be true or false")
        self.pooling = Pooling(readout, output_size, timescale)
        self.tasks = self.pooling.tasks
        settings: dict[str, Any] = {"init": init, "rule": rule, "dt_min": dt_min, "dt_max": dt_max, "rate": rate}
        self.rate = float(rate)  # in full precision, for whoever writes it down
        self.encoder = nn.Linear(input_size, hidden)
        states = per_layer("s4d", "state size", state, layers)
        made = [S4dBlock(hidden, norm, prenorm, dropout, DiagonalSsm(hidden, size, **settings)) for size in states]
        self.layers = cast("Sequence[S4dBlock]", nn.ModuleList(made))
        self.norm = _norm(norm, hidden) if prenorm else nn.Identity()
        self.readout = nn.Linear(hidden, output_size)

    def dynamics(self) -> tuple[str, ...]:
        return tuple(f"layers.{i}.ssm.{name}" for i, layer in enumerate(self.layers) for name in layer.ssm.dynamics())

    def widths(self) -> dict[str, Width]:
        size = self.encoder.out_features
        places = [*made_by(self, "encoder"), *read_by("readout"), *made_by(self, "norm")]
        found: dict[str, Width] = {}
        for i, layer in enumerate(self.layers):
            ssm, mixer = f"layers.{i}.ssm", f"layers.{i}.mixer"
            places += [Place(f"{ssm}.{name}", 0) for name in ("log_dt", "log_decay", "frequency", "C", "D")]
            places += [*made_by(self, mixer, runs=2), *read_by(mixer), *made_by(self, f"layers.{i}.norm")]
            modes = tuple(Place(f"{ssm}.{name}", 1, lane_axis=0) for name in ("log_decay", "frequency", "C"))
            found[f"layers.{i}.modes"] = Width(layer.ssm.modes, modes, lanes=size)
        least = 2 if isinstance(self.layers[0].norm, nn.LayerNorm) else 1  # of one channel it says nothing
        return {**found, "hidden": Width(size, tuple(places), least=min(least, size))}

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        widths = self.widths()
        modes = [name for name in widths if name != "hidden"]
        changed: dict[str, Any] = {"hidden": sizes["hidden"]} if differing(widths, sizes, ["hidden"]) else {}
        if differing(widths, sizes, modes):
            changed["state"] = at_once([2 * sizes[name] for name in modes])
        return changed

    def counts(self) -> tuple[str, ...]:
        return self.pooling.counts()

    def retime(self, factor: float) -> dict[str, Any]:
        if factor <= 0:
            raise InputError(f"s4d: frames {factor} times as far apart: a positive number is needed")
        self.rate *= factor
        for layer in self.layers:
            layer.ssm.rate.fill_(self.rate)
        return {"rate": self.rate, **self.pooling.retime(factor)}

    def fold(self) -> dict[str, Any]:
        owners: list[S4d | S4dBlock] = [self, *self.layers]
        batch = [owner for owner in owners if isinstance(owner.norm, BatchNorm)]
        for owner in batch:
            owner.norm = folded_norm(owner.norm)
        return {"norm": "affine"} if batch else {}

    def initial_state(self, batch: int) -> State:
        state = {f"layers.{i}.state": layer.ssm.initial_state(batch) for i, layer in enumerate(self.layers)}
        return state | self.pooling.states(self.input_mean, batch)

    def step(self, x: Tensor, state: State, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(x, state, live)  # (B, K)

    def forward(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(x, self.initial_state(x.shape[0]) if state is None else state, live)  # (B, T, K)

    def _run(self, x: Tensor, state: State, live: Tensor | None) -> tuple[Tensor, State]:
        """One call ``x (B, C)``, or many ``(B, T, C)``; ``live`` is for the norms alone, as nothing waits."""
        h, following = self.encoder(self.normalize(x)), {}  # (B, H), or (B, T, H)
        for i, layer in enumerate(self.layers):
            name = f"layers.{i}.state"
            run = layer.step if x.ndim == 2 else layer
            h, following[name] = run(h, state[name], live)
        z = self.readout(normed(self.norm, h, live))
        pool = self.pooling.step if x.ndim == 2 else self.pooling
        return pool(z, state, following, live), following

    def last(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        if self.pooling.kind != "last" or self.training:
            return super().last(x, state, live)  # every frame of the last layer counts: in the read-out, or in a norm
        state = self.initial_state(x.shape[0]) if state is None else state
        h, following = self.encoder(self.normalize(x)), {}  # (B, T, H)
        for i, layer in enumerate(self.layers[:-1]):
            name = f"layers.{i}.state"
            h, following[name] = layer(h, state[name], live)
        name = f"layers.{len(self.layers) - 1}.state"
        h, following[name] = self.layers[-1].last(h, state[name])
        return self.readout(self.norm(h)), following
