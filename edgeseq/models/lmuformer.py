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

Shape letters: B batch, T frames, C inputs, H tokens' size (``dim``), U memory channels, Q order, R of the LMU's mixer
(``hidden``), K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import LookAheadModel, Masks, Projection, State, Width
from edgeseq.models.conv import StreamingConv
from edgeseq.models.former_sizes import BlockSizes, Size, of_blocks, of_stages, resized
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.norms import fold_behind, folded_norm, norm, norm_behind, normed, of_frames
from edgeseq.models.places import made_by, read_by
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
    """Stages of convolutions and one whose answer is added to what it reads: the positions of the frames, learned.

    ``sizes``: the channels that each stage answers with.
    """

    def __init__(self, inputs: int, sizes: Sequence[int], *, causal: bool, folded: bool) -> None:
        super().__init__()
        self.causal = causal
        made = [Stage(*pair, folded) for pair in zip((inputs, *sizes), sizes, strict=False)]
        self.stages = cast("Sequence[Stage]", nn.ModuleList(made))
        self.residual = StreamingConv(sizes[-1], sizes[-1], KERNEL, bias=False)

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

    def __init__(self, dim: int, sizes: BlockSizes, theta: float, folded: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(dim, sizes.channels)
        self.memory = LegendreMemory(sizes.channels, sizes.order, theta)
        self.mixer = nn.Linear(sizes.channels * sizes.order + dim, sizes.hidden)
        self.projection = nn.Linear(sizes.hidden, dim)
        self.norm: nn.Module = norm_behind(dim, folded=folded)
        self.feedforward = FeedForward(dim, sizes.expand, folded)

    def encode(self, x: Tensor, live: Tensor | None) -> Tensor:
        """``x (..., H)`` to what the memory is given, ``u (..., U)``: nothing of a frame that is not there."""
        u = torch.relu(self.encoder(x))
        return u if live is None else u * live

    def answer(self, mixed: Tensor, x: Tensor, live: Tensor | None) -> Tensor:
        """What the LMU's mixer says ``(..., R)`` of ``x (..., H)`` to the block's answer ``(..., H)``.

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
            remembered, m = self.memory.folded(u, m, of_memory)  # (B, T, R)
            return self.answer(remembered + linear(x, of_x, self.mixer.bias), x, live), m
        memory = self.memory(u, m)  # (B, T, U, Q)
        return self.mix(memory, x, live), memory[:, -1]

    def fold(self) -> None:
        """Multiply the norms into the maps ahead of them."""
        self.norm = fold_behind(self.projection, self.norm)
        self.feedforward.fold()


class Lmuformer(LookAheadModel):
    """A tokenizer, LMUFormer blocks and a pooled linear read-out.

    Arguments: ``dim`` of the tokens; ``stages`` of the tokenizer, those ahead of the last with so many ``filters``
    (without it ``dim``); ``blocks``, each with a memory of ``channels`` and ``order`` over a window of ``theta`` steps,
    ``hidden`` units that read it (without it ``dim``), and ``expand`` units of the channel mixer (without it ``ratio``
    times ``dim``): each one number, or one for each stage or block; ``causal``: convolutions that do not look ahead
    (published models do, by ``stages`` + 1 frames); ``readout`` and ``timescale`` of
    :class:`~edgeseq.models.readout.Pooling`; ``dropout`` before every block but the first and before the read-out
    (training only); ``folded``: batch norms are what :meth:`fold` makes of them.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dim: int = 32,
        stages: int = 4,
        filters: Size | None = None,
        blocks: int = 1,
        channels: Size = 1,
        order: Size = 32,
        theta: float = 128.0,
        hidden: Size | None = None,
        ratio: int = 4,
        expand: Size | None = None,
        causal: bool = False,
        readout: str = "last",
        timescale: float = 25.0,
        dropout: float = 0.0,
        folded: bool = False,
    ) -> None:
        super().__init__(input_size, output_size)
        for name, size in {"dim": dim, "stages": stages, "blocks": blocks, "ratio": ratio}.items():
            if size < 1:
                raise InputError(f"lmuformer: {name} {size} must be at least 1")
        for name, choice in (("causal", causal), ("folded", folded)):
            if not isinstance(choice, bool):
                raise InputError(f"lmuformer: {name} {choice!r} must be true or false")
        self.look_ahead = 0 if causal else stages + 1
        self.folded = folded
        tokens = of_stages("lmuformer", stages, filters, dim)
        hidden, expand = dim if hidden is None else hidden, ratio * dim if expand is None else expand
        sizes = of_blocks("lmuformer", blocks, channels=channels, order=order, hidden=hidden, expand=expand)
        self.tokenizer = Tokenizer(input_size, tokens, causal=causal, folded=folded)
        made = [LmuformerBlock(dim, size, theta, folded) for size in sizes]
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

    def widths(self) -> dict[str, Width]:
        last = len(self.tokenizer.stages) - 1
        stages = [f"tokenizer.stages.{i}" for i in range(last + 1)]
        answers = [made_by(self, f"{stage}.conv.linear") + made_by(self, f"{stage}.norm") for stage in stages]
        tokens = answers.pop() + made_by(self, "tokenizer.residual.linear")
        tokens += read_by("tokenizer.residual.linear", runs=KERNEL) + read_by("readout")
        found = {}
        for i, answer in enumerate(answers):
            places = answer + read_by(f"{stages[i + 1]}.conv.linear", runs=KERNEL)
            found[f"tokenizer.{i}.filters"] = Width(self.tokenizer.stages[i + 1].conv.inputs, places)
        for i, block in enumerate(self.blocks):
            name, memory = f"blocks.{i}", block.memory
            size = memory.channels * memory.order
            tokens += read_by(f"{name}.encoder") + read_by(f"{name}.mixer", start=size)
            tokens += made_by(self, f"{name}.projection") + made_by(self, f"{name}.norm")
            tokens += read_by(f"{name}.feedforward.expand") + made_by(self, f"{name}.feedforward.reduce")
            tokens += made_by(self, f"{name}.feedforward.reduce_norm")
            found |= self._block_widths(name, block)
        return {"dim": Width(self.readout.in_features, tokens), **found}

    def _block_widths(self, name: str, block: LmuformerBlock) -> dict[str, Width]:
        """What a block may have fewer of beside the tokens' channels."""
        memory, mixed, expand = block.memory, f"{name}.mixer", f"{name}.feedforward.expand"
        channels = made_by(self, f"{name}.encoder") + read_by(mixed, each=memory.order)
        orders, constants = read_by(mixed, runs=memory.channels), (f"{name}.memory.A", f"{name}.memory.B")
        expanded = made_by(self, expand) + made_by(self, f"{expand}_norm") + read_by(f"{name}.feedforward.reduce")
        return {
            f"{name}.channels": Width(memory.channels, channels),
            f"{name}.order": Width(memory.order, orders, nested=True, constants=constants),
            f"{name}.hidden": Width(block.mixer.out_features, made_by(self, mixed) + read_by(f"{name}.projection")),
            f"{name}.expand": Width(block.feedforward.expand.out_features, expanded),
        }

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        return resized(self.widths(), sizes)

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
