"""The diagonal state space layer of S4D: one linear system of complex modes for each channel.

    dx_n/dt = a_n x_n + b_n u,   y = 2 Re Σ_n c_n x_n + D u,   a_n = -exp(log_decay_n) + i frequency_n
    zero-order hold:  Ā = exp(Δ a),                  B̄ = (Ā - 1) / a · b
    bilinear:         Ā = (1 + Δ a/2) / (1 - Δ a/2),  B̄ = Δ / (1 - Δ a/2) · b

Gu, Gupta, Goel, Ré, "On the parameterization and initialization of diagonal state space models", NeurIPS 2022. Only
the product c B̄ can be seen from outside, so b is 1, and what an initialization has in b is put into c. The state is
kept without B̄ too, in training as in the step:

    s_t = Ā s_{t-1} + u_t,   y_t = Re Σ_n w_n s_n + D u_t,   w = 2 c B̄

Shape letters: B batch, T frames, H channels, M modes (half of the state size N: the other half is conjugate),
L frames of a chunk, N chunks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import Store

CHUNK = 32  # frames computed in one product; of 16 to 128 the best on the whole for B = 8 to 64, 4 to 32 modes
INITIALIZATIONS = ("lin", "inv", "legs", "real")
RULES = ("zoh", "bilinear")
SMALLEST_MAGNITUDE = 1e-30  # of Ā, whose logarithm is then a number
SMALLEST_STEP = 1e-6  # of log-magnitude and phase: what float32 shows of an Ā next to 1
LARGEST_IMAGINARY_B = 2.0  # as the authors clip it: it grows with N


def initial_modes(init: str, size: int) -> tuple[Tensor, Tensor]:
    """a and b ``(M)`` of a state of ``size`` N = 2M at the start, in complex double; imaginary parts of a are >= 0.

    Raises:
        InputError: an unknown initialization, or a size that is not even.
    """
    if init not in INITIALIZATIONS:
        raise unknown("initialization", init, INITIALIZATIONS)
    if size < 2 or size % 2:
        raise InputError(f"s4d: state size {size} must be even and positive: modes come in conjugate pairs")
    if init == "legs":
        return _legs(size)
    n = torch.arange(size // 2, dtype=torch.float64)
    decay, frequency = torch.full_like(n, 0.5), torch.zeros_like(n)
    if init == "lin":
        frequency = math.pi * n
    elif init == "inv":
        frequency = size / math.pi * (size / (2 * n + 1) - 1)
    else:
        decay = n + 1
    return torch.complex(-decay, frequency), torch.ones(size // 2, dtype=torch.complex128)


def _legs(size: int) -> tuple[Tensor, Tensor]:
    """The normal part of HiPPO-LegS, diagonal: its eigenvalues, fastest first, and the input seen by each."""
    n = torch.arange(size, dtype=torch.float64)
    gain = torch.sqrt(2 * n + 1)
    half = gain[:, None] * gain[None, :] / 2
    skew = torch.triu(half, 1) - torch.tril(half, -1)  # the normal part is skew - 1/2
    frequency, vectors = torch.linalg.eigh(torch.complex(torch.zeros_like(skew), -skew))  # rising
    fastest = torch.arange(size - 1, size // 2 - 1, -1)
    frequency, vectors = frequency[fastest], vectors[:, fastest]
    vectors = vectors * torch.exp(-1j * torch.angle(vectors[0]))  # no library's phase: the first component is real
    b = vectors.mH @ gain.to(vectors.dtype)
    b = torch.complex(b.real, b.imag.clamp(-LARGEST_IMAGINARY_B, LARGEST_IMAGINARY_B))
    return torch.complex(torch.full_like(frequency, -0.5), frequency), b


class DiagonalSsm(nn.Module):
    """H independent systems of M modes. The state is real: real parts and imaginary parts, ``(B, 2, M, H)``.

    Arguments: state ``size`` N, ``init`` (lin, inv, legs, real), ``rule`` (zoh, bilinear), Δ log-uniform from
    ``dt_min`` to ``dt_max``, ``rate`` by which Δ is multiplied: 2 for frames twice as far apart as in training.
    """

    rate: Tensor
    memory_limit: int | None = None

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        init: str = "lin",
        rule: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        rate: float = 1.0,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise unknown("discretization", rule, RULES)
        if not (0 < dt_min <= dt_max < math.inf and 0 < rate < math.inf):
            raise InputError(f"s4d: dt_min {dt_min}, dt_max {dt_max} and rate {rate}: 0 < dt_min <= dt_max, 0 < rate")
        self.channels, self.modes, self.rule = channels, size // 2, rule
        a, b = initial_modes(init, size)
        kind = torch.get_default_dtype()
        c = torch.randn(channels, self.modes, dtype=torch.complex128) * b  # (H, M)
        self.log_dt = nn.Parameter(torch.empty(channels).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_decay = nn.Parameter(torch.log(-a.real).to(kind).repeat(channels, 1))  # (H, M)
        self.frequency = nn.Parameter(a.imag.to(kind).repeat(channels, 1))  # (H, M)
        self.C = nn.Parameter(torch.view_as_real(c).to(kind))  # (H, M, 2)
        self.D = nn.Parameter(torch.randn(channels))
        self.register_buffer("rate", torch.tensor(float(rate)))
        self.store: nn.Module = Store((2, self.modes, channels))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}rate")
        if stored is not None and not torch.allclose(stored.to(self.rate), self.rate):
            raise InputError(f"{prefix.rstrip('.')} was retimed to rate {float(stored):g}, not {float(self.rate):g}")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def dynamics(self) -> tuple[str, ...]:
        """The parameters that set time constants."""
        return ("log_dt", "log_decay", "frequency")

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, 2, M, H)``."""
        return self.D.new_zeros(batch, 2, self.modes, self.channels)

    def discretize(self) -> tuple[Tensor, Tensor]:
        """Ā and w ``(2, M, H)``, real and imaginary parts: computed in double, then rounded to the layer's type.

        Convolution and step both start from these, so that they are one system. With ``memory_limit`` Ā stands on a
        grid of log-magnitudes and one of phases, of so many steps each, and gradients pass straight through.
        """
        dt = (torch.exp(self.log_dt.double()) * self.rate.double())[:, None]  # (H, 1)
        a = torch.complex(-torch.exp(self.log_decay.double()), self.frequency.double())  # (H, M)
        c = torch.view_as_complex(self.C.double())
        if self.rule == "zoh":
            turn = torch.exp(dt * a)
            weight = 2 * c * (turn - 1) / a
        else:
            turn = (1 + dt * a / 2) / (1 - dt * a / 2)
            weight = 2 * c * dt / (1 - dt * a / 2)
        if self.memory_limit is not None:
            turn = _on_polar_grid(turn, self.memory_limit)
            weight = 2 * c * (turn - 1) / a  # B̄ by either rule: constant inputs come out as they did
        both = torch.view_as_real(torch.stack([turn, weight])).permute(0, 3, 2, 1)  # (2, 2, M, H)
        turn, weight = both.to(self.D.dtype).unbind(0)
        return turn, weight

    def step(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, H)``, ``s (B, 2, M, H)`` to ``y (B, H)`` and the next ``s``."""
        return FoldedSsm(self).step(u, s)

    def forward(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` from ``s (B, 2, M, H)`` to ``y (B, T, H)`` and the state after the last frame.

        Chunks of L frames: within a chunk one product with the kernel as a Toeplitz matrix, between chunks the
        recurrence over L steps at once. Exact for any start, and faster than an FFT at every length that was tried. A
        state that is rounded after every step is not linear: it takes one step after the other.
        """
        if not isinstance(self.store, Store):
            return self.one_by_one(u, s)
        batch, frames, channels = u.shape
        turn, weight = self.discretize()
        powers = self._powers(turn)  # (H, M, L + 1)
        x, starts, s = self._between(u, s, powers)  # (H, N, B, L), (H, N, B, M)
        w = _complex(weight.double()).mT[..., None]  # (H, M, 1)
        kernel = (w * powers[..., :-1]).sum(1).real.to(u.dtype)  # (H, L)
        kernel = torch.cat([kernel[:, :1] + self.D[:, None], kernel[:, 1:]], 1)
        decayed = torch.view_as_real((w * powers[..., 1:]).conj().resolve_conj())  # (H, M, L, 2): w Ā^(l+1)
        decayed = decayed.permute(0, 1, 3, 2).reshape(channels, -1, CHUNK).to(u.dtype)  # (H, 2M, L)
        inside = torch.bmm(x.flatten(1, 2), _toeplitz(kernel))  # (H, NB, L)
        y = torch.baddbmm(inside, torch.view_as_real(starts).reshape(channels, -1, 2 * self.modes), decayed)
        y = y.reshape(channels, -1, batch, CHUNK).permute(2, 1, 3, 0)  # (B, N, L, H)
        return y.reshape(batch, -1, channels)[:, :frames], s

    def convolved(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` by the FFT of twice the length, with the kernel of all frames: the authors' way to train.

        On a CPU the chunks are faster at every size (benchmarks/training_speed.py); this is what they are held to.
        """
        frames = u.shape[1]
        turn, weight = self.discretize()
        turn, w = (_complex(part.double()).mT for part in (turn, weight))  # (H, M)
        powers = torch.exp(torch.log(turn)[..., None] * torch.arange(1, frames + 1, device=u.device))  # (H, M, T)
        kernel = torch.cat([w.sum(1, keepdim=True), (w[..., None] * powers[..., :-1]).sum(1)], 1).real.to(u.dtype)
        signal = torch.fft.rfft(u.mT, 2 * frames)  # (B, H, T + 1)
        y = torch.fft.irfft(signal * torch.fft.rfft(kernel, 2 * frames), 2 * frames)[..., :frames]  # (B, H, T)
        start = _complex(s.transpose(0, 1)).mT  # (B, H, M)
        decayed = torch.einsum("bhm,hmt->bht", start, (w[..., None] * powers).to(start.dtype)).real
        return (y + decayed).mT + self.D * u, self.last(u, s)[1]

    def last(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, T, H)`` to the answer at the last frame ``y (B, H)``, and the state: without those in between."""
        if not isinstance(self.store, Store):
            y, s = self.one_by_one(u, s)
            return y[:, -1], s
        constants = self.discretize()
        s = self._between(u, s, self._powers(constants[0]))[-1]
        return FoldedSsm(self, constants).read(u[:, -1], s), s

    def _between(self, u: Tensor, s: Tensor, powers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``u`` in chunks ``(H, N, B, L)``, the state that each starts from ``(H, N, B, M)``, and that after all."""
        batch, frames, channels = u.shape
        chunks = -(-frames // CHUNK)
        x = pad(u, (0, 0, 0, chunks * CHUNK - frames)).reshape(batch, chunks, CHUNK, channels).permute(3, 1, 0, 2)
        gather = torch.view_as_real(powers[..., :-1].flip(-1)).permute(0, 2, 1, 3)  # (H, L, M, 2): Ā^(L-1-l)
        gather = gather.reshape(channels, CHUNK, -1).to(u.dtype)  # (H, L, 2M)
        ends = torch.bmm(x.flatten(1, 2), gather).reshape(channels, chunks, batch, self.modes, 2)
        now = _complex(s.transpose(0, 1)).permute(2, 0, 1)  # (H, B, M)
        over = powers[..., CHUNK].to(now.dtype)[:, None]  # (H, 1, M)
        starts = [now]
        for end in torch.view_as_complex(ends[:, :-1]).unbind(1):  # (H, B, M)
            now = over * now + end
            starts.append(now)
        left = frames - (chunks - 1) * CHUNK  # frames of the last chunk that are none of the padding
        end = torch.bmm(x[:, -1, :, :left], gather[:, CHUNK - left :]).reshape(channels, batch, self.modes, 2)
        now = powers[..., left].to(now.dtype)[:, None] * now + torch.view_as_complex(end)
        return x, torch.stack(starts, 1), torch.view_as_real(now).permute(1, 3, 2, 0).contiguous()

    def _powers(self, turn: Tensor) -> Tensor:
        """Ā^0 .. Ā^L ``(H, M, L + 1)``, in complex double: of the rounded Ā, which is the one that the step has."""
        turn = _complex(turn.double()).mT[..., None]  # (H, M, 1)
        powers = turn
        while powers.shape[-1] < CHUNK:
            powers = torch.cat([powers, powers * powers[..., -1:]], -1)
        return torch.cat([torch.ones_like(turn), powers], -1)

    def one_by_one(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` by the recurrence, discretized once."""
        folded, kept = FoldedSsm(self), []
        onto = u[..., None, None, :] * folded.onto  # (B, T, 2, 1, H)
        for u_t in onto.unbind(1):
            s = folded.next(u_t, s)
            kept.append(s)
        return folded.read(u, torch.stack(kept, 1)), s


class FoldedSsm(nn.Module):
    """The step of a :class:`DiagonalSsm` with its constants computed once, all real: what a device runs.

    s = straight · s + across · swap(s) + onto · u,   y = Σ signed · s + D u
    """

    def __init__(self, ssm: DiagonalSsm, constants: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        turn, weight = constants or ssm.discretize()  # (2, M, H)
        ones = torch.ones_like(ssm.D)[None]
        self.straight, self.across = _turning(turn)
        self.signed = torch.stack([weight[0], -weight[1]])  # Re(w s) = Re w Re s - Im w Im s
        self.onto = torch.stack([ones, torch.zeros_like(ones)])  # (2, 1, H): u is real
        self.D, self.store = ssm.D, ssm.store

    def freeze(self) -> FoldedSsm:
        """The constants as buffers, and nothing left to train."""
        for name in ("straight", "across", "signed", "onto", "D"):
            constant = getattr(self, name).detach().clone()
            delattr(self, name)
            self.register_buffer(name, constant)
        return self

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, 2, M, H)``."""
        return self.D.new_zeros(batch, *self.straight.shape)

    def step(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, H)``, ``s (B, 2, M, H)`` to ``y (B, H)`` and the next ``s``."""
        s = self.next(u.reshape(*u.shape[:-1], 1, 1, u.shape[-1]) * self.onto, s)
        return self.read(u, s), s

    def next(self, u: Tensor, s: Tensor) -> Tensor:
        """The next ``s``, of what ``u (B, 2, 1, H)`` adds to it."""
        swapped = torch.cat([s[:, 1:], s[:, :1]], 1)  # (B, 2, M, H)
        kept: Tensor = self.store(self.straight * s + self.across * swapped + u)
        return kept

    def read(self, u: Tensor, s: Tensor) -> Tensor:
        """``u (..., H)`` and ``s (..., 2, M, H)`` to ``y (..., H)``."""
        return (self.signed * s).sum((-3, -2)) + self.D * u


def _turning(turn: Tensor) -> tuple[Tensor, Tensor]:
    """What the state, and the state with its parts swapped, are multiplied by ``(2, M, H)`` to be turned by Ā."""
    real, imaginary = turn
    return torch.stack([real, real]), torch.stack([-imaginary, imaginary])


def _on_polar_grid(turn: Tensor, limit: int) -> Tensor:
    """Ā ``(H, M)`` with log-magnitudes of -1 to -``limit`` steps, so that it is never 1, and phases of as many to each
    side.
    """
    decay = -torch.log(turn.abs().clamp(min=SMALLEST_MAGNITUDE))
    return torch.polar(torch.exp(-_stepped(decay, limit, 1)), _stepped(turn.angle(), limit, -limit))


def _stepped(values: Tensor, limit: int, least: int) -> Tensor:
    """``values`` in whole steps of max|v| / ``limit``, of ``least`` or more; gradients pass as if it were not."""
    step = (values.detach().abs().max() / limit).clamp(min=SMALLEST_STEP)
    return values + (torch.round(values.detach() / step).clamp(least, limit) * step - values).detach()


def _complex(parts: Tensor) -> Tensor:
    """Real and imaginary parts ``(2, ...)`` as one complex tensor ``(...)``."""
    return torch.complex(parts[0].contiguous(), parts[1].contiguous())


def _toeplitz(kernel: Tensor) -> Tensor:
    """``(H, L)`` to the matrices ``(H, L, L)`` of the causal convolution with each: frame in, frame out."""
    lag = torch.arange(CHUNK, device=kernel.device)
    lag = lag[None, :] - lag[:, None]
    return torch.where(lag >= 0, kernel[:, lag.clamp(min=0)], 0.0)
