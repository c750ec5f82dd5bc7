"""Numbers too small for the processor's fast path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALLEST = 2.0**-126  # of the normal float32 numbers


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Inside the block, floats below 1e-38 count as 0, on this thread, where the processor can do that.

    A gradient that comes from the last frame alone fades over the frames before it until it is that small, and with
    such numbers processors compute many times slower.
    """
    before = bool((torch.tensor(_SMALLEST) * 0.5) == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
