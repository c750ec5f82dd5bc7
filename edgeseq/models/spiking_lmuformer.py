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

Shape letters: B batch, T frames, C inputs, H channels (``dim``), U memory channels, Q order, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError
from edgeseq.models.contract import LookAheadModel, Masks, State
from edgeseq.models.conv import Delay, StreamingConv
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.neurons import Neurons, prefixed
from edgeseq.models.norms import fold_behind, folded_norm, norm, norm_behind, normed
from edgeseq.models.readout import Pooling
from edgeseq.models.s4d import TiedDropout

KERNEL = 3  # frames of a convolution
BEGINNING = 0.5  # of the threshold of all others: that of the neurons that a block begins with


@dataclass(frozen=True)
class NeuronSettings:
    """What all populations have in common; once ``folded``, 1 - β is part of the map or norm that drives them."""

    beta: float
    threshold: float
    learn: bool
    folded: bool


class Population(nn.Module):
    """Neurons behind a norm, with a ``share`` of the threshold of all.

    A norm ``behind`` a linear map is part of that map once it is folded; any other is an affine map then.
    """

    def __init__(self, size: int, settings: NeuronSettings, *, behind: bool = False, share: float = 1.0) -> None:
        super().__init__()
        self.norm: nn.Module = (norm_behind if behind else norm)(size, folded=settings.folded)
        self.neurons = Neurons(
            size,
            beta=settings.beta,
            threshold=share * settings.threshold,
            decay_input=not settings.folded,
            reset="zero",
            delay=False,
            inclusive=True,
            surrogate="sigmoid",
            learn=settings.learn,
        )

    @torch.no_grad()
    def fold(self, ahead: nn.Linear | None = None) -> None:
        """Make the norm part of the linear map ``ahead`` of it, or else an affine map; and 1 - β part of either."""
        if ahead is None:
            affine = self.norm = folded_norm(self.norm)
            driving: list[Tensor] = [affine.scale, affine.shift]
        else:
            self.norm = fold_behind(ahead, self.norm)
            driving = [ahead.weight, ahead.bias]
        for parameter in driving:
            parameter.mul_(1 - self.neurons.decays()[1])
        self.neurons.decay_input = False


class Call:
    """One way through the model, of a frame ``(B, C)`` or of many ``(B, T, C)``: the states before and after it."""

    def __init__(self, look_ahead: int, state: State, x: Tensor, live: Tensor | None) -> None:
        masks = Masks(look_ahead, state, x, live)
        # Which frames are there, of so many calls ago.
        self.there = {delay: masks.of(delay) for delay in range(look_ahead + 1)}
        self.waits = look_ahead > 0
        self.state, self.following = state, masks.following()
        self.many = x.ndim == 3

    def masked(self, x: Tensor, delay: int) -> Tensor:
        """``x (B, ..., C)``, made of the frames of ``delay`` calls ago: 0 for those that are not there."""
        there = self.there[delay] if self.waits else None
        return x if there is None else x * there

    def normed(self, norm: nn.Module, x: Tensor, delay: int) -> Tensor:
        """``x (B, ..., C)``, made of the frames of ``delay`` calls ago, through a norm."""
        return normed(norm, x, self.there[delay])

    def carry(self, name: str, layer: StreamingConv | Delay, x: Tensor) -> Tensor:
        """``x (B, ..., C)`` through a layer that keeps frames, whose state has this ``name``."""
        y, self.following[name] = (layer if self.many else layer.step)(x, self.state[name])
        return cast(Tensor, y)

    def remember(self, name: str, memory: LegendreMemory, u: Tensor) -> Tensor:
        """``u (B, ..., U)`` to the memory ``(B, ..., UQ)``."""
        m: Tensor = (memory if self.many else memory.step)(u, self.state[name])
        self.following[name] = m[:, -1] if self.many else m  # (B, U, Q)
        return m.flatten(-2)

    def fire(self, name: str, population: Population, current: Tensor, delay: int) -> Tensor:
        """``current (B, ..., N)`` of the frame of ``delay`` calls ago to spikes: none where no frame is there.

        Without a current a membrane at rest stays there, and one that is charged decays.
        """
        neurons = population.neurons
        driven = self.masked(self.normed(population.norm, current, delay), delay)
        before = {key: self.state[f"{name}.{key}"] for key in neurons.states}
        spikes, after = (neurons if self.many else neurons.step)(driven, before)
        self.following.update(prefixed(name, after))
        return cast(Tensor, spikes)

    def fire_ahead(self, name: str, population: Population, current: Tensor, delay: int) -> Tensor:
        """As ``fire``, ahead of a layer that mixes frames.

        Where no frame is there, spikes are 0 but their surrogate derivative is not: no gradient may come from there.
        """
        spikes = self.fire(name, population, current, delay)
        return self.masked(spikes, delay) if spikes.requires_grad else spikes


def spike_conv(inputs: int, outputs: int, kernel: int, *, bias: bool) -> StreamingConv:
    """A convolution that keeps spikes: 0 and 1 need no rounding at any precision of the state."""
    conv = StreamingConv(inputs, outputs, kernel, bias=bias)
    conv.store = nn.Identity()
    return conv


class SpikingLmuBlock(nn.Module):
    """A memory and its mixer, and a channel mixer, each a branch whose current is added."""

    def __init__(
        self,
        size: int,
        channels: int,
        order: int,
        theta: float,
        hidden: int,
        settings: NeuronSettings,
        dropout: float,
    ) -> None:
        super().__init__()
        self.begin = Population(size, settings, share=BEGINNING)
        self.encoder = nn.Linear(size, channels)
        self.input = Population(channels, settings, behind=True)
        self.memory = LegendreMemory(channels, order, theta)
        self.remembered = Population(channels * order, settings)
        self.mixer = nn.Linear(channels * order + size, size)
        self.hidden = Population(size, settings, behind=True)
        self.projection = nn.Linear(size, size)
        self.projection_norm: nn.Module = norm_behind(size, folded=settings.folded)
        self.middle = Population(size, settings)
        self.expand = nn.Linear(size, hidden)
        self.expanded = Population(hidden, settings, behind=True)
        self.contract = nn.Linear(hidden, size)
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
        hidden = call.fire(f"{name}.hidden", self.hidden, mixed, delay)  # (B, ..., H)
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

    Arguments: ``dim`` channels H, ``stages`` of the tokenizer, ``blocks``; of the memory ``channels`` U, ``order`` Q
    and ``theta`` (window in steps); ``ratio`` of the channel mixer's hidden units to H; ``causal``: convolutions of
    past frames alone, so that nothing waits (else the look-ahead is ``stages`` + 1 frames); ``readout`` and
    ``timescale`` of :class:`~edgeseq.models.readout.Pooling`; ``dropout`` of the branches' channels (training only);
    ``beta`` and ``threshold`` of the neurons, and whether each population may ``learn`` its own; ``folded``: norms are
    part of the linear maps, or affine maps (:meth:`fold`).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        dim: int = 32,
        stages: int = 2,
        blocks: int = 1,
        channels: int = 1,
        order: int = 64,
        theta: float = 100.0,
        ratio: float = 4.0,
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
        for name, count in (("dim", dim), ("stages", stages), ("blocks", blocks), ("channels", channels)):
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
        made = [TokenizerStage(dim if i else input_size, dim, i == 0, i == stages - 1, settings) for i in range(stages)]
        self.tokenizer = cast("Sequence[TokenizerStage]", nn.ModuleList(made))
        self.position = spike_conv(dim, dim, KERNEL, bias=False)
        self.delay = Delay(self.wait, dim) if self.wait else None
        sizes = (channels, order, theta, round(ratio * dim))
        self.blocks = cast(
            "Sequence[SpikingLmuBlock]",
            nn.ModuleList(SpikingLmuBlock(dim, *sizes, settings, dropout) for _ in range(blocks)),
        )
        self.end = Population(dim, settings)
        self.readout = nn.Linear(dim, output_size)

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
