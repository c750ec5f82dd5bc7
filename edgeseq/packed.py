"""weights.packed: a model's tensors at their true size. No torch.

Four codings of a tensor, each of which gives back exactly the float32 numbers that it stands for:

    Plain     the numbers themselves
    Sparse    those that are not 0, and where they stand
    Rows      v = level · (top / limit), one top a row; |level| = limit is ± top itself      int8 and int4 linear maps
    Bucketed  v = p(level) · α + β, one α and β for each bucket of consecutive numbers       quantized distillation
              p(level) = level / (2^b - 1), or a learned point

All of it in float32, each operation rounded. Levels are Huffman coded where that is shorter (Polino, Pascanu, Alistarh,
"Model compression via distillation and quantization", ICLR 2018, do the same); levels that are 0 of a Rows, and the
places of what a Sparse or Bucketed holds, are a bitmap or the gaps between them, whichever is shorter.

The file: 20 bytes (magic, format, size of the header, CRC-32 of all that follows), the header as deflated MessagePack,
and what the tensors are made of, one tensor after the other (:mod:`edgeseq.packed_file`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Plain:
    """Any tensor as it is."""

    values: Array

    def decoded(self) -> Array:
        """The tensor."""
        return self.values


@dataclass(frozen=True)
class Sparse:
    """A float32 tensor of which many numbers are 0."""

    values: Floats

    def decoded(self) -> Floats:
        """The tensor."""
        return self.values


@dataclass(frozen=True)
class Rows:
    """``levels (out, in)`` from -limit to limit, ``top (out)``."""

    levels: NDArray[np.int8]
    top: Floats
    limit: int

    def decoded(self) -> Floats:
        """The tensor ``(out, in)``."""
        top = self.top.reshape(-1, *(1,) * (self.levels.ndim - 1))
        values = self.levels.astype(np.float32) * (top / np.float32(self.limit))
        return np.where(np.abs(self.levels) == self.limit, np.sign(self.levels) * top, values).astype(np.float32)


@dataclass(frozen=True)
class Bucketed:
    """A tensor of ``shape``, flat, in buckets of ``bucket`` numbers (0: one bucket).

    ``levels`` uint8 of the numbers that are ``present`` (all, if None: those that are not are 0, and are in no bucket),
    of ``bits``; ``alpha``, ``beta`` one a bucket; ``points`` learned, in place of the even ones.
    """

    shape: tuple[int, ...]
    levels: NDArray[np.uint8]
    bits: int
    bucket: int
    alpha: Floats
    beta: Floats
    points: Floats | None = None
    present: NDArray[np.bool_] | None = None

    def decoded(self) -> Floats:
        """The tensor of ``shape``."""
        levels = self.levels.reshape(-1)
        of = np.arange(len(levels)) // (self.bucket or max(len(levels), 1))
        if self.points is None:
            parts = levels.astype(np.float32) / np.float32(2**self.bits - 1)
        else:
            parts = self.points[levels]
        values: Floats = parts * self.alpha[of] + self.beta[of]
        if self.present is None:
            return values.reshape(self.shape)
        whole = np.zeros(self.present.size, np.float32)
        whole[self.present.reshape(-1)] = values
        return whole.reshape(self.shape)


Coded = Plain | Sparse | Rows | Bucketed
