"""LMUFormer: a convolutional tokenizer, blocks of an LMU and a channel mixer, and a pooled read-out.

    tokens    h_0 = x;  h_i = BN(ReLU(conv3(h_{i-1})));  h = h_n + conv3(h_n)
    LMU       u = ReLU(W_u h + b_u);  m_t = A m_{t-1} + B u_t;  r = ReLU(W_h [m; h] + b_h);  h <- h + BN(W_p r + b_p)
    mixer     h <- h + ReLU(BN(W_2 GELU(BN(W_1 h + b_1)) + b_2))
    read-out  z = W_o h + b_o at every frame, then its mean over the frames, or another pooling

Liu, Datta, Li, Beerel, "LMUFormer: low complexity yet powerful spiking model with Legendre memory units", ICLR 2024:
n = 4 stages, one block, one memory. Their convolutions look one frame ahead each, so that a frame's answer waits for
the L = n + 1 frames behind it. With ``causal`` they look back two frames instead, and nothing waits.

With look-ahead, stage i of the tokenizer works on the frame of i calls ago, the residual convolution on that of n calls
ago and the rest of the model on that of L. The published zero padding is that of every layer: so what a stage answers
for a frame that is not there is made zero, behind its norm, and so is u.

Shape letters: B batch, T frames, C inputs, H tokens' size (``dim``), U memory channels, Q order, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import LookAheadModel, Masks, Projection, State
from edgeseq.models.conv import StreamingConv
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.norms import fold_behind, folded_norm, norm, norm_behind, normed, of_frames
from edgeseq.models.readout import Pooling

KERNEL = 3


class Stage(nn.Module):
    """A stage of the tokenizer: convolution, ReLU and norm, in this order, so that the norm folds into neither."""

    def __init__(self, inputs: int, dim: int, folded: bool) -> None:
        super().__init__()
        self.conv = StreamingConv(inputs, dim, KERNEL, bias=False)
        self.norm: nn.Module = norm(dim, folded=folded)

    def run(self, x: Tensor, past: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, C)`` or ``(B, T, C)`` after ``past (B, 2, C)`` to ``(B, H)`` or ``(B, T, H)``, and the next.

        ``live``: which of the frames that it answers for are there.
        """
        h, past = (self.conv.step if x.ndim == 2 else self.conv)(x, past)
        return normed(self.norm, torch.relu(h), live), past


class Tokenizer(nn.Module):
    """Stages of convolutions and one whose answer is added to what it reads: the positions of the frames, learned."""

    def __init__(self, inputs: int, dim: int, stages: int, *, causal: bool, folded: bool) -> None:
        super().__init__()
        self.causal = causal
        made = [Stage(dim if i else inputs, dim, folded) for i in range(stages)]
        self.stages = cast("Sequence[Stage]", nn.ModuleList(made))
        self.residual = StreamingConv(dim, dim, KERNEL, bias=False)

    def initial_state(self, like: Tensor, batch: int) -> State:
        """The frames ``(B, 2, ...)`` ahead of the first that each convolution reads: zeros like ``like``."""
        convs = {f"tokenizer.{i}.past": stage.conv for i, stage in enumerate(self.stages)}
        convs["tokenizer.residual.past"] = self.residual
        return {name: conv.initial_state(like, batch) for name, conv in convs.items()}

    def run(self, x: Tensor, state: State, following: State, masks: Masks) -> Tensor:
        """``x (B, C)`` or ``(B, T, C)`` to tokens ``(B, H)`` or ``(B, T, H)``; next states go into ``following``."""
        h = masks.apply(x, 0)
        for i, stage in enumerate(self.stages):
            name = f"tokenizer.{i}.past"
            delay = 0 if self.causal else i + 1
            h, following[name] = stage.run(h, state[name], masks.of(delay))
            h = masks.apply(h, delay)
        name = "tokenizer.residual.past"
        past = state[name]
        y, following[name] = (self.residual.step if h.ndim == 2 else self.residual)(h, past)
        return (h if self.causal else self._before(h, past)) + y

    def _before(self, h: Tensor, past: Tensor) -> Tensor:
        """What the residual convolution reads in the middle of its window: the frame one call before that of ``h``."""
        if h.ndim == 2:
            return past[:, -1]
        return torch.cat([past[:, -1:], self.residual.store(h[:, :-1])], 1)


class FeedForward(nn.Module):
    """The channel mixer: two linear maps of each frame with GELU between them and a ReLU behind both."""

    def __init__(self, dim: int, hidden: int, folded: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.expand_norm: nn.Module = norm_behind(hidden, folded=folded)
        self.reduce = nn.Linear(hidden, dim)
        self.reduce_norm: nn.Module = norm_behind(dim, folded=folded)

    def forward(self, h: Tensor) -> Tensor:
        """``h (..., H)`` to what is added to it."""
        wide = gelu(self.expand_norm(self.expand(h)))
        return torch.relu(self.reduce_norm(self.reduce(wide)))

    def fold(self) -> None:
        """Multiply the norms into the maps ahead of them."""
        self.expand_norm = fold_behind(self.expand, self.expand_norm)
        self.reduce_norm = fold_behind(self.reduce, self.reduce_norm)


class LmuformerBlock(nn.Module):
    """The LMU with its projection, and the channel mixer, each added to what it reads."""

    def __init__(self, dim: int, channels: int, order: int, theta: float, ratio: int, folded: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(dim, channels)
        self.memory = LegendreMemory(channels, order, theta)
        self.mixer = nn.Linear(channels * order + dim, dim)
        self.projection = nn.Linear(dim, dim)
        self.norm: nn.Module = norm_behind(dim, folded=folded)
        self.feedforward = FeedForward(dim, ratio * dim, folded)

    def encode(self, x: Tensor, live: Tensor | None) -> Tensor:
        """``x (..., H)`` to what the memory is given, ``u (..., U)``: nothing of a frame that is not there."""
        u = torch.relu(self.encoder(x))
        return u if live is None else u * live

    def answer(self, mixed: Tensor, x: Tensor, live: Tensor | None) -> Tensor:
        """What the LMU's mixer says ``(..., H)`` of ``x (..., H)`` to the block's answer ``(..., H)``.

        Its norms are three, so that in training they are given all at once what ``live (..., 1)`` says is there.
        """
        return of_frames(self._answer, live if self.training else None, mixed, x)

    def _answer(self, mixed: Tensor, x: Tensor) -> Tensor:
        h = x + self.norm(self.projection(torch.relu(mixed)))
        return cast(Tensor, h + self.feedforward(h))

    def mix(self, m: Tensor, x: Tensor, live: Tensor | None) -> Tensor:
        """``m (..., U, Q)`` and ``x (..., H)`` to the block's answer ``(..., H)``."""
        return self.answer(self.mixer(torch.cat([m.flatten(-2), x], -1)), x, live)

    def step(self, x: Tensor, m: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, H)``, ``m (B, U, Q)`` and ``live (B, 1)`` to ``h (B, H)`` and the next ``m``."""
        m = self.memory.step(self.encode(x, live), m)
        return self.mix(m, x, live), m

    def forward(self, x: Tensor, m: Tensor | None, live: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, T, H)`` from ``m (B, U, Q)``, or from zero, and ``live (B, T, 1)`` to ``h`` and the last ``m``."""
        u = self.encode(x, live)  # (B, T, U)
        if isinstance(self.mixer, nn.Linear) and self.memory.folds(u, self.mixer.out_features):
            size = self.memory.channels * self.memory.order
            of_memory, of_x = self.mixer.weight.split([size, x.shape[-1]], 1)
            remembered, m = self.memory.folded(u, m, of_memory)  # (B, T, H)
            return self.answer(remembered + linear(x, of_x, self.mixer.bias), x, live), m
        memory = self.memory(u, m)  # (B, T, U, Q)
        return self.mix(memory, x, live), memory[:, -1]

    def fold(self) -> None:
        """Multiply the norms into the maps ahead of them."""
        self.norm = fold_behind(self.projection, self.norm)
        self.feedforward.fold()


class Lmuformer(LookAheadModel):
    """A tokenizer, LMUFormer blocks and a pooled linear read-out.

    Arguments: ``dim`` of the tokens; ``stages`` of the tokenizer; ``blocks``, each with a memory of ``channels`` and
    ``order`` over a window of ``theta`` steps, and with a channel mixer ``ratio`` times as wide as the tokens;
    ``causal``: convolutions that do not look ahead (published models do, by ``stages`` + 1 frames); ``readout`` and
    ``timescale`` of :class:`~edgeseq.models.readout.Pooling`; ``dropout`` before every block but the first and before
    the read-out (training only); ``folded``: batch norms are what :meth:`fold` makes of them.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dim: int = 32,
        stages: int = 4,
        blocks: int = 1,
        channels: int = 1,
        order: int = 32,
        theta: float = 128.0,
        ratio: int = 4,
        causal: bool = False,
        readout: str = "last",
        timescale: float = 25.0,
        dropout: float = 0.0,
        folded: bool = False,
    ) -> None:
        super().__init__(input_size, output_size)
        sizes = {"dim": dim, "stages": stages, "blocks": blocks, "channels": channels, "ratio": ratio}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"lmuformer: {name} {size} must be at least 1")
        for name, choice in (("causal", causal), ("folded", folded)):
            if not isinstance(choice, bool):
                raise InputError(f"lmuformer: {name} {choice!r} must be true or false")
        self.look_ahead = 0 if causal else stages + 1
        self.folded = folded
        self.tokenizer = Tokenizer(input_size, dim, stages, causal=causal, folded=folded)
        made = [LmuformerBlock(dim, channels, order, theta, ratio, folded) for _ in range(blocks)]
        self.blocks = cast("Sequence[LmuformerBlock]", nn.ModuleList(made))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(dim, output_size)
        self.pooling = Pooling(readout, output_size, timescale)
        self.tasks = self.pooling.tasks

    def projections(self) -> dict[str, Projection]:
        known = super().projections()
        rectified = [f"tokenizer.stages.{i}.conv.linear" for i in range(len(self.tokenizer.stages))]
        for i in range(len(self.blocks)):
            rectified += [f"blocks.{i}.encoder", f"blocks.{i}.mixer"]
            rectified += [f"blocks.{i}.feedforward.reduce"] if self.folded else []  # else its norm is in between
            known[f"blocks.{i}.projection"] = Projection(follows=f"blocks.{i}.mixer")
        known.update((name, Projection(rectified=True)) for name in rectified)
        return known

    def counts(self) -> tuple[str, ...]:
        return (*super().counts(), *self.pooling.counts())

    def retime(self, factor: float) -> NoReturn:
        raise Unsupported(
            "an LMUFormer's convolutions have no step size, whatever its memory's window is: it runs at the rate that "
            "it was trained at only"
        )

    def fold(self) -> dict[str, Any]:
        if self.folded:
            return {}
        for stage in self.tokenizer.stages:
            stage.norm = folded_norm(stage.norm)
        for block in self.blocks:
            block.fold()
        self.folded = True
        return {"folded": True}

    def initial_state(self, batch: int) -> State:
        state: State = {"live": self.input_mean.new_zeros(batch, self.look_ahead)} if self.look_ahead else {}
        state |= self.tokenizer.initial_state(self.input_mean, batch)
        state |= {f"blocks.{i}.memory": block.memory.initial_state(batch) for i, block in enumerate(self.blocks)}
        return state | self.pooling.states(self.input_mean, batch)

    def step(self, x: Tensor, state: State, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(x, state, live)  # (B, K)

    def forward(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        start = self.initial_state(len(x)) if state is None else state
        return self._run(x, start, live, carried=state is not None)  # (B, T, K)

    def _run(self, x: Tensor, state: State, live: Tensor | None, *, carried: bool = True) -> tuple[Tensor, State]:
        """One call ``x (B, C)``, or many ``(B, T, C)``; not ``carried``: from the initial state."""
        masks = Masks(self.look_ahead, state, x, live)
        following = masks.following()
        there = masks.of(self.look_ahead)  # (B, 1), or (B, T, 1)
        h = self.tokenizer.run(self.normalize(x), state, following, masks)  # (B, H), or (B, T, H)
        for i, block in enumerate(self.blocks):
            name = f"blocks.{i}.memory"
            h = self.dropout(h) if i else h
            if x.ndim == 2:
                h, following[name] = block.step(h, state[name], there)
            else:
                h, following[name] = block(h, state[name] if carried else None, there)
        z = self.readout(self.dropout(h))  # (B, K), or (B, T, K)
        pool = self.pooling.step if x.ndim == 2 else self.pooling
        y = pool(z, state, following, there)
        return y, {name: following[name] for name in state}
