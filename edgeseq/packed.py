"""weights.packed: a model's tensors at their true size. No torch.

Four codings of a tensor, each of which gives back exactly the float32 numbers that it stands for:

    Plain     the numbers themselves
    Sparse    those that are not 0, and where they stand
    Rows      v = level · top / limit, one top a row; |level| = limit is ± top itself        int8 and int4 linear maps
    Bucketed  v = p(level) · α + β, one α and β for each bucket of consecutive numbers       quantized distillation
              p(level) = level / (2^b - 1), or a learned point

Levels are Huffman coded where that is shorter (Polino, Pascanu, Alistarh, "Model compression via distillation and
quantization", ICLR 2018, do the same).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Plain:
    """Any tensor as it is."""

    values: NDArray[np.generic]


@dataclass(frozen=True)
class Sparse:
    """A float32 tensor of which many numbers are 0."""

    values: Floats


@dataclass(frozen=True)
class Rows:
    """``levels (out, in)`` from -limit to limit, ``top (out)``."""

    levels: NDArray[np.int8]
    top: Floats
    limit: int


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


Coded = Plain | Sparse | Rows | Bucketed
