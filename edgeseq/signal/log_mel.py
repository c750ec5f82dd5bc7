"""Log-mel features of a sound, as librosa defines them, of windows that end with the last sample heard.

    z_k = Σ_n w_n x_n e^{-2πikn/N}      the windowed transform, as matrix products (cosines and sines)
    f_m = 10 log10 max(floor, Σ_k M_mk |z_k|²)

with w the periodic Hann window of N samples and M Slaney's mel filters of unit area. The two halves of a window turn
by πk against each other, so that even k need their sum only and odd k their difference: half of the products. Equal to
librosa's
``power_to_db(feature.melspectrogram(x, center=False, ...), amin=floor, top_db=None)`` of the sound behind N - H samples
of silence: nothing is looked ahead for, and frame t ends with sample (t + 1) H.

Shapes: N samples in a window, H in a hop, T frames, K bins that some filter reads, M mel bands.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import InputError, unknown

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
DECIBEL = float(10 / np.log(10))  # of a natural logarithm of a power

HOP, WINDOW = 0.016, 0.032  # seconds, where nothing else is said
_LINEAR_HZ, _LOG_FROM_HZ = 200 / 3, 1000.0  # Slaney: a mel is 200/3 Hz below 1 kHz, and above it
_LOG_STEP = np.log(6.4) / 27  # 27 of them are a factor of 6.4


class LogMel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the features are. ``rate``: samples per second, Hz. ``hop``, ``window``: samples. ``mels``: bands from
    ``low`` to ``high`` Hz (0: half the rate). ``floor``: the power below which all is silence, where 1 is full scale;
    float32 sums lose what is more than some 100 dB below the loudest band of the same window.
    """

    rate: Annotated[float, msgspec.Meta(gt=0)]
    hop: Annotated[int, msgspec.Meta(ge=1)]
    window: Annotated[int, msgspec.Meta(ge=2)]
    mels: Annotated[int, msgspec.Meta(ge=1)] = 40
    low: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    high: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    floor: Annotated[float, msgspec.Meta(gt=0)] = 1e-5

    @classmethod
    def of(cls, values: dict[str, Any]) -> LogMel:
        """The features of these ``values``.

        Raises:
            InputError: an unknown or missing name, or a value that makes no sense.
        """
        if not isinstance(values, dict):
            raise InputError(f"front {values!r}: settings by name are needed, {', '.join(cls.__struct_fields__)}")
        for name in values:
            if name not in cls.__struct_fields__:
                raise unknown("setting of a front end", name, cls.__struct_fields__)
        try:
            made = msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"front {values}: {error}") from None
        if not all(map(math.isfinite, msgspec.structs.astuple(made))):
            raise InputError(f"front {values}: finite numbers are needed")
        least, most = (float(bound) for bound in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
        if not least <= made.floor <= most:
            raise InputError(
                f"front: floor {made.floor:g} is no normal number of float32, in which the step computes: "
                f"{least:.2g} to {most:.2g} is needed"
            )
        if made.window < made.hop:
            raise InputError(f"front: a window of {made.window} samples is shorter than a hop of {made.hop}")
        if made.window % 2:
            raise InputError(f"front: a window of {made.window} samples has no halves: an even number is needed")
        if not made.low < made.top <= made.rate / 2:
            raise InputError(
                f"front: bands from {made.low:g} to {made.top:g} Hz are not possible at {made.rate:g} Hz: low < high "
                f"<= {made.rate / 2:g} is needed"
            )
        empty = np.flatnonzero(mel_filters(made).max(1) == 0)
        if len(empty):
            raise InputError(
                f"front: band {empty[0]} of {made.mels} lies between two bins of a window of {made.window} samples at "
                f"{made.rate:g} Hz and hears nothing: ask for fewer mels, or a longer window"
            )
        return made

    @property
    def top(self) -> float:
        """The highest frequency of all bands, in Hz."""
        return self.high or self.rate / 2

    def shown(self) -> str:
        """What is computed, for people."""
        window, hop = (1000 * samples / self.rate for samples in (self.window, self.hop))
        return (
            f"log-mel, of windows of {window:g} ms every {hop:g} ms: {self.mels} bands from {self.low:g} to "
            f"{self.top:g} Hz in dB, none below {10 * math.log10(self.floor):g}"
        )

    @property
    def kept(self) -> int:
        """Samples of the past that each window holds beside its hop: what is carried from frame to frame."""
        return self.window - self.hop


def for_rate(rate: float, hop: int = 0) -> dict[str, Any]:
    """The values of a front end for sound at ``rate`` Hz: windows of 32 ms, or two hops, every 16 ms, or ``hop``."""
    hop = hop or round(HOP * rate)
    return {"rate": rate, "hop": hop, "window": round(WINDOW / HOP * hop)}


def mel_filters(front: LogMel) -> Matrix:
    """Slaney's filters ``(M, N // 2 + 1)``: triangles of unit area between centres that are evenly spaced in mel."""
    edges = _hertz(np.linspace(_mel(front.low), _mel(front.top), front.mels + 2))  # (M + 2)
    bins = np.arange(front.window // 2 + 1) * front.rate / front.window
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters: Matrix = triangles * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters


class Transform(NamedTuple):
    """The constants of the features: ``hann (N)``, ``even (2 Ke, N / 2)``, ``odd (2 Ko, N / 2)``, ``filters (M, 2 K)``.

    Of both kinds of bins cosines, then sines; of both, in this order, the filters of their squares.
    """

    hann: Floats
    even: Floats
    odd: Floats
    filters: Floats


def transform(front: LogMel) -> Transform:
    """The constants. Bins that no filter reads are left out, but for one beside a bin that is read alone."""
    filters = mel_filters(front)
    heard = np.flatnonzero(filters.max(0) > 0)  # never 0, where a filter begins at the earliest
    bins = np.arange(min(heard[0], heard[-1] - 1), heard[-1] + 1)
    n = np.arange(front.window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / front.window)
    kinds = [bins[bins % 2 == kind] for kind in (0, 1)]
    angles = [2 * np.pi * (kind[:, None] * n[: front.window // 2] % front.window) / front.window for kind in kinds]
    even, odd = (np.concatenate([np.cos(angle), -np.sin(angle)]) for angle in angles)
    read = np.concatenate([np.tile(filters[:, kind], 2) for kind in kinds], 1)
    return Transform(*(matrix.astype(np.float32) for matrix in (hann, even, odd, read)))


def windows(front: LogMel, x: Floats) -> Floats:
    """``x (T, H)``, a sound from its start, to the window ``(T, N)`` that ends with each hop; silence came before."""
    sound = np.concatenate([np.zeros(front.kept, np.float32), np.asarray(x, np.float32).ravel()])
    return np.lib.stride_tricks.sliding_window_view(sound, front.window)[:: front.hop]


def log_mel(front: LogMel, x: Floats) -> Floats:
    """The features ``(T, M)`` in dB of ``x (T, H)``, a sound from its start, all at once.

    In the arithmetic of the step program, frame by frame: equal, bit for bit, to what its numpy engine streams.
    """
    hann, even, odd, filters = transform(front)
    w = windows(front, x)[:, None] * hann  # (T, 1, N): one product a frame, as a step has it
    first, second = w[..., : front.window // 2], w[..., front.window // 2 :]
    parts = np.concatenate([(first + second) @ even.T, (first - second) @ odd.T], -1)  # (T, 1, 2K)
    power = (parts * parts) @ filters.T  # (T, 1, M)
    decibels: Floats = (np.log(np.maximum(power, np.float32(front.floor))) * np.float32(DECIBEL))[:, 0]
    return decibels


def _mel(hertz: float) -> float:
    if hertz < _LOG_FROM_HZ:
        return hertz / _LINEAR_HZ
    return float(_LOG_FROM_HZ / _LINEAR_HZ + np.log(hertz / _LOG_FROM_HZ) / _LOG_STEP)


def _hertz(mel: Matrix) -> Matrix:
    above = mel - _LOG_FROM_HZ / _LINEAR_HZ
    hertz: Matrix = np.where(above < 0, mel * _LINEAR_HZ, _LOG_FROM_HZ * np.exp(_LOG_STEP * np.maximum(above, 0)))
    return hertz
