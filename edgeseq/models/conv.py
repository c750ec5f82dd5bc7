"""Convolutions over time and delays, as streams run them: each carries the last frames that it has seen.

    y_t = b + Σ_k W_k x_{t-K+1+k},   k = 0 .. K-1

A convolution is causal here: the answer of a call is made of its own frame and of the K - 1 before it. One that looks a
frames ahead is the same map whose answer of call t is counted as that of frame t - a; whoever uses it keeps count, and
lets everything else wait as long (:class:`Delay`). Frames before the first are zero, as the padding of the published
models has it; those behind the last are zero too, where the caller makes them so.

Shape letters: B batch, T frames, K kernel, C inputs, O outputs, D frames of a delay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.contract import Store


class StreamingConv(nn.Module):
    """A convolution over time as a linear map of the window ``(B, K * C)``, oldest frame first.

    Of torch's ``Conv1d.weight (O, C, K)`` the map's weight is ``weight.permute(0, 2, 1).flatten(1)``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        if kernel < 1:
            raise InputError(f"a convolution over {kernel} frames: at least 1 is needed")
        self.inputs, self.kernel = inputs, kernel
        self.linear = nn.Linear(kernel * inputs, outputs, bias)
        self.store: nn.Module = Store() if kernel > 1 else nn.Identity()

    def initial_state(self, like: Tensor, batch: int) -> Tensor:
        """Zeros ``(B, K - 1, C)``, of the dtype and device of ``like``: there is nothing before the first frame."""
        return like.new_zeros(batch, self.kernel - 1, self.inputs)

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, C)`` and ``past (B, K - 1, C)`` to ``y (B, O)`` and the next ``past``."""
        window = torch.cat([past, self.store(x)[:, None]], 1)  # (B, K, C)
        return self.linear(window.flatten(1)), window[:, 1:]

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, T, C)`` after ``past`` to ``y (B, T, O)`` and the frames ``(B, K - 1, C)`` that come before more."""
        frames = x.shape[1]
        held = torch.cat([past, self.store(x)], 1)  # (B, K - 1 + T, C)
        windows = torch.cat([held[:, k : k + frames] for k in range(self.kernel)], 2)  # (B, T, KC)
        return self.linear(windows), held[:, frames:]


class Delay(nn.Module):
    """What came D calls ago."""

    def __init__(self, frames: int, size: int) -> None:
        super().__init__()
        if frames < 1:
            raise InputError(f"a delay of {frames} frames: at least 1 is needed")
        self.frames, self.size = frames, size
        self.store: nn.Module = Store()

    def initial_state(self, like: Tensor, batch: int) -> Tensor:
        """Zeros ``(B, D, C)``, in the dtype and on the device of ``like``."""
        return like.new_zeros(batch, self.frames, self.size)

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, C)`` and ``past (B, D, C)`` to the frame of D calls ago ``(B, C)`` and the next ``past``."""
        held = torch.cat([past, self.store(x)[:, None]], 1)
        return held[:, 0], held[:, 1:]

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, T, C)`` after ``past`` to the frames of D calls ago ``(B, T, C)`` and the last ``past``."""
        held = torch.cat([past, self.store(x)], 1)  # (B, D + T, C)
        return held[:, : x.shape[1]], held[:, x.shape[1] :]
