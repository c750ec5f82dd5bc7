"""Spiking LMUFormer: convolutions, a Legendre memory and a channel mixer, with spikes between all of them.

With S a population of leaky integrate-and-fire neurons and N a batch norm, for every frame t:

    tokenizer   z = conv(x);  s = S(N(z));  z = conv(s);  ...            kernels of 3 frames, without bias
                e = z + conv(s)                                          of the last of them
    block       s_x = S(N(e));  s_u = S(N(W_u s_x + b_u))                a memory's input: spikes
                m = A m + B s_u;  s_m = S(N(m))                          the memory itself is linear
                s_h = S(N(W_h [s_m; s_x] + b_h));  e ← e + N(W_p s_h + b_p)
                e ← e + W_2 S(N(W_1 S(N(e)) + b_1)) + b_2
    read-out    z = W S(N(e)) + b                                        and pooled: readout.py

The neurons' time is that of the frames. They are SpikingJelly's: v = v + (1 - β)(I - v), a spike where v ≥ θ, and v is
0 after it; θ is 1, and 0.5 in those that a block begins with. Membrane-shortcut residuals: what is added are currents.

Liu, Datta, Li, Beerel, "LMUFormer: low complexity yet powerful spiking model with Legendre memory units", ICLR 2024;
what is here is what their code trains. (Their figure has the spikes of the memory fed back, and their recurrent
path leaves out the norm and the spikes behind it.) Their memory has one channel, U = 1; here it may have several.

Shape letters: B batch, T frames, C inputs, H channels (``dim``), U memory channels, Q order, R neurons behind the mixer
(``hidden``), K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.contract import LookAheadModel, State, Width
from edgeseq.models.conv import Delay, StreamingConv
from edgeseq.models.former_sizes import BlockSizes, Size, of_blocks, of_stages, resized
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.neurons import Neurons, prefixed
from edgeseq.models.norms import fold_behind, norm_behind
from edgeseq.models.places import made_by, read_by
from edgeseq.models.readout import Pooling
from edgeseq.models.s4d import TiedDropout
from edgeseq.models.spiking_call import Call, NeuronSettings, Population

KERNEL = 3  # frames of a convolution
BEGINNING = 0.5  # of the threshold of all others: that of the neurons that a block begins with


def spike_conv(inputs: int, outputs: int, kernel: int, *, bias: bool) -> StreamingConv:
    """A convolution that keeps spikes: 0 and 1 need no rounding at any precision of the state."""
    conv = StreamingConv(inputs, outputs, kernel, bias=bias)
    conv.store = nn.Identity()
    return conv


class SpikingLmuBlock(nn.Module):
    """A memory and its mixer, and a channel mixer, each a branch whose current is added."""

    def __init__(self, dim: int, sizes: BlockSizes, theta: float, settings: NeuronSettings, dropout: float) -> None:
        super().__init__()
        channels, order, hidden, expand = sizes
        self.begin = Population(dim, settings, share=BEGINNING)
        self.encoder = nn.Linear(dim, channels)
        self.input = Population(channels, settings, behind=True)
        self.memory = LegendreMemory(channels, order, theta)
        self.remembered = Population(channels * order, settings)
        self.mixer = nn.Linear(channels * order + dim, hidden)
        self.hidden = Population(hidden, settings, behind=True)
        self.projection = nn.Linear(hidden, dim)
        self.projection_norm: nn.Module = norm_behind(dim, folded=settings.folded)
        self.middle = Population(dim, settings)
        self.expand = nn.Linear(dim, expand)
        self.expanded = Population(expand, settings, behind=True)
        self.contract = nn.Linear(expand, dim)
        self.dropout = TiedDropout(dropout)

    def populations(self) -> dict[str, Population]:
        """The block's neurons by name, in the order of their states."""
        return {name: module for name, module in self.named_children() if isinstance(module, Population)}

    def fold(self) -> None:
        """Fold each norm that is behind a linear map into it; make the others affine maps."""
        for population in (self.begin, self.remembered, self.middle):
            population.fold()
        self.input.fold(self.encoder)
        self.hidden.fold(self.mixer)
        self.expanded.fold(self.expand)
        self.projection_norm = fold_behind(self.projection, self.projection_norm)

    def run(self, call: Call, name: str, e: Tensor, delay: int) -> Tensor:
        """``e (B, ..., H)`` of the frame of ``delay`` calls ago to the next block's; ``name`` is the block's."""
        begun = call.fire(f"{name}.begin", self.begin, e, delay)  # (B, ..., H)
        u = call.fire_ahead(f"{name}.input", self.input, self.encoder(begun), delay)  # (B, ..., U)
        m = call.remember(f"{name}.memory", self.memory, u)  # (B, ..., UQ)
        remembered = call.fire(f"{name}.remembered", self.remembered, m, delay)
        mixed = self.mixer(torch.cat([remembered, begun], -1))
        hidden = call.fire(f"{name}.hidden", self.hidden, mixed, delay)  # (B, ..., R)
        e = e + self.dropout(call.normed(self.projection_norm, self.projection(hidden), delay))
        middle = call.fire(f"{name}.middle", self.middle, e, delay)
        expanded = call.fire(f"{name}.expanded", self.expanded, self.expand(middle), delay)
        return cast(Tensor, e + self.dropout(self.contract(expanded)))  # (B, ..., H)


class TokenizerStage(nn.Module):
    """A convolution over time and the neurons behind it."""

    def __init__(self, inputs: int, size: int, first: bool, last: bool, settings: NeuronSettings) -> None:
        super().__init__()
        self.last = last  # its answer is added too, without the norm, which is then not to be folded into it
        made = StreamingConv if first else spike_conv
        self.conv = made(inputs, size, KERNEL, bias=settings.folded and not last)
        self.population = Population(size, settings, behind=not last)

    def fold(self) -> None:
        """Fold the norm into the convolution, which gets a bias; of the last stage it becomes an affine map."""
        if self.last:
            self.population.fold()
            return
        plain = self.conv.linear
        self.conv.linear = nn.Linear(plain.in_features, plain.out_features).to(plain.weight)
        with torch.no_grad():
            self.conv.linear.weight.copy_(plain.weight)
            self.conv.linear.bias.zero_()
        self.population.fold(self.conv.linear)


class SpikingLmuformer(LookAheadModel):
    """A tokenizer of spiking convolutions, blocks with a linear memory between spikes, and a read-out of spikes.

    Arguments: ``dim`` channels H; ``stages`` of the tokenizer, those ahead of the last with so many ``filters``
    (without it H); ``blocks``; of the memory ``channels`` U, ``order`` Q and ``theta`` (window in steps); ``hidden``
    neurons behind the mixer (without it H) and ``expand`` neurons of the channel mixer (without it ``ratio`` times H):
    each one number, or one for each stage or block; ``causal``: convolutions of past frames alone, so that nothing
    waits (else the look-ahead is ``stages`` + 1 frames); ``readout`` and ``timescale`` of
    :class:`~edgeseq.models.readout.Pooling`; ``dropout`` of the branches' channels (training only); ``beta`` and
    ``threshold`` of the neurons, and whether each population may ``learn`` its own; ``folded``: norms are part of the
    linear maps, or affine maps (:meth:`fold`).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dim: int = 32,
        stages: int = 2,
        filters: Size | None = None,
        blocks: int = 1,
        channels: Size = 1,
        order: Size = 64,
        theta: float = 100.0,
        hidden: Size | None = None,
        ratio: float = 4.0,
        expand: Size | None = None,
        causal: bool = False,
        readout: str = "last",
        timescale: float = 25.0,
        dropout: float = 0.0,
        beta: float = 0.5,
        threshold: float = 1.0,
        learn: bool = False,
        folded: bool = False,
    ) -> None:
        super().__init__(input_size, output_size)
        for name, count in (("dim", dim), ("stages", stages), ("blocks", blocks)):
            if count < 1:
                raise InputError(f"spiking_lmuformer: {name} {count} must be at least 1")
        for name, choice in (("causal", causal), ("learn", learn), ("folded", folded)):
            if not isinstance(choice, bool):
                raise InputError(f"spiking_lmuformer: {name} {choice!r} must be true or false")
        if ratio * dim < 1:
            raise InputError(f"spiking_lmuformer: ratio {ratio} leaves no hidden unit of dim {dim}")
        if not 0 <= beta < 1:
            raise InputError(f"spiking_lmuformer: beta {beta} must be from 0 to less than 1, or no current comes in")
        if threshold <= 0:
            raise InputError(f"spiking_lmuformer: threshold {threshold} must be positive, or neurons fire at rest")
        self.pooling = Pooling(readout, output_size, timescale)
        self.tasks = self.pooling.tasks
        self.wait = 0 if causal else KERNEL // 2  # calls that a convolution is behind
        self.look_ahead = (stages + 1) * self.wait
        self.folded = folded
        settings = NeuronSettings(beta, threshold, learn, folded)
        tokens = of_stages("spiking_lmuformer", stages, filters, dim)
        hidden, expand = dim if hidden is None else hidden, round(ratio * dim) if expand is None else expand
        sizes = of_blocks("spiking_lmuformer", blocks, channels=channels, order=order, hidden=hidden, expand=expand)
        pairs = enumerate(zip((input_size, *tokens), tokens, strict=False))
        made = [TokenizerStage(*pair, i == 0, i == stages - 1, settings) for i, pair in pairs]
        self.tokenizer = cast("Sequence[TokenizerStage]", nn.ModuleList(made))
        self.position = spike_conv(dim, dim, KERNEL, bias=False)
        self.delay = Delay(self.wait, dim) if self.wait else None
        parts = nn.ModuleList(SpikingLmuBlock(dim, size, theta, settings, dropout) for size in sizes)
        self.blocks = cast("Sequence[SpikingLmuBlock]", parts)
        self.end = Population(dim, settings)
        self.readout = nn.Linear(dim, output_size)

    def widths(self) -> dict[str, Width]:
        stages = [f"tokenizer.{i}" for i in range(len(self.tokenizer))]
        answers = [
            made_by(self, f"{stage}.conv.linear") + made_by(self, f"{stage}.population.norm") for stage in stages
        ]
        tokens = answers.pop() + made_by(self, "position.linear") + read_by("position.linear", runs=KERNEL)
        tokens += made_by(self, "end.norm") + read_by("readout")
        found = {}
        for i, answer in enumerate(answers):
            places = answer + read_by(f"{stages[i + 1]}.conv.linear", runs=KERNEL)
            found[f"tokenizer.{i}.filters"] = Width(self.tokenizer[i + 1].conv.inputs, places)
        for i, block in enumerate(self.blocks):
            name, memory = f"blocks.{i}", block.memory
            tokens += read_by(f"{name}.encoder") + read_by(f"{name}.mixer", start=memory.channels * memory.order)
            tokens += read_by(f"{name}.expand")
            for made in ("begin.norm", "projection", "projection_norm", "middle.norm", "contract"):
                tokens += made_by(self, f"{name}.{made}")
            found |= self._block_widths(name, block)
        return {"dim": Width(self.readout.in_features, tokens), **found}

    def _block_widths(self, name: str, block: SpikingLmuBlock) -> dict[str, Width]:
        """What a block may have fewer of beside the tokens' channels."""
        memory, mixed, remembered = block.memory, f"{name}.mixer", f"{name}.remembered.norm"
        channels = made_by(self, f"{name}.encoder") + made_by(self, f"{name}.input.norm")
        channels += made_by(self, remembered, each=memory.order) + read_by(mixed, each=memory.order)
        orders = made_by(self, remembered, runs=memory.channels) + read_by(mixed, runs=memory.channels)
        constants = (f"{name}.memory.A", f"{name}.memory.B")
        hidden = made_by(self, mixed) + made_by(self, f"{name}.hidden.norm") + read_by(f"{name}.projection")
        expanded = made_by(self, f"{name}.expand") + made_by(self, f"{name}.expanded.norm")
        return {
            f"{name}.channels": Width(memory.channels, channels),
            f"{name}.order": Width(memory.order, orders, nested=True, constants=constants),
            f"{name}.hidden": Width(block.mixer.out_features, hidden),
            f"{name}.expand": Width(block.expand.out_features, expanded + read_by(f"{name}.contract")),
        }

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        return resized(self.widths(), sizes)

    def dynamics(self) -> tuple[str, ...]:
        """The neurons' betas and thresholds, if they learn."""
        return tuple(name for name, _ in self.named_parameters() if name.endswith((".beta", ".threshold")))

    def constrain(self) -> None:
        super().constrain()
        for module in self.modules():
            if isinstance(module, Neurons):
                module.project()

    def counts(self) -> tuple[str, ...]:
        spikes = [f"tokenizer.{i}.past" for i in range(1, len(self.tokenizer))]
        return (*super().counts(), *spikes, "position.past", *self.pooling.counts())

    def fold(self) -> dict[str, Any]:
        if self.folded:
            return {}
        for stage in self.tokenizer:
            stage.fold()
        for block in self.blocks:
            block.fold()
        self.end.fold()
        self.folded = True
        return {"folded": True}

    def initial_state(self, batch: int) -> State:
        state = {"live": self.input_mean.new_zeros(batch, self.look_ahead)} if self.look_ahead else {}
        for i, stage in enumerate(self.tokenizer):
            state[f"tokenizer.{i}.past"] = stage.conv.initial_state(self.input_mean, batch)
            state |= prefixed(f"tokenizer.{i}", stage.population.neurons.initial_state(batch))
        state["position.past"] = self.position.initial_state(self.input_mean, batch)
        if self.delay is not None:
            state["delay.past"] = self.delay.initial_state(self.input_mean, batch)
        for i, block in enumerate(self.blocks):
            for name, population in block.populations().items():
                if name == "remembered":
                    state[f"blocks.{i}.memory"] = block.memory.initial_state(batch)
                state |= prefixed(f"blocks.{i}.{name}", population.neurons.initial_state(batch))
        state |= prefixed("end", self.end.neurons.initial_state(batch))
        return state | self.pooling.states(self.input_mean, batch)

    def step(self, x: Tensor, state: State, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(x, state, live)

    def forward(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        return self._run(x, self.initial_state(x.shape[0]) if state is None else state, live)

    def _run(self, x: Tensor, state: State, live: Tensor | None) -> tuple[Tensor, State]:
        call = Call(self.look_ahead, state, x, live)
        e = self._tokens(call, call.masked(self.normalize(x), 0))  # (B, ..., H)
        for i, block in enumerate(self.blocks):
            e = block.run(call, f"blocks.{i}", e, self.look_ahead)
        z = self.readout(call.fire("end", self.end, e, self.look_ahead))  # (B, ..., K)
        pool = self.pooling if call.many else self.pooling.step
        return pool(z, state, call.following, call.there[self.look_ahead]), call.following

    def _tokens(self, call: Call, h: Tensor) -> Tensor:
        """Frames ``(B, ..., C)`` to tokens ``(B, ..., H)``, of the frame of ``look_ahead`` calls ago."""
        z = h
        for i, stage in enumerate(self.tokenizer):
            z = call.carry(f"tokenizer.{i}.past", stage.conv, h)  # (B, ..., H)
            h = call.fire_ahead(f"tokenizer.{i}", stage.population, z, (i + 1) * self.wait)
        positions = call.carry("position.past", self.position, h)
        return positions + (z if self.delay is None else call.carry("delay.past", self.delay, z))
