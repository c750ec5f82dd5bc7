"""The fully spiking Legendre memory unit: populations of leaky integrate-and-fire neurons in place of u, m and h.

    s_u = N_u(E_x x_t + E_h s_h' + E_m s_m')             M neurons, one for each memory
    s_m[k] = N_m(A s_m'[k] + B s_u[k]),  k = 1 .. M      M Q neurons; A and B are the Legendre memory's
    s_h = N_h(W_x x_t + W_h s_h' + W_m s_m)              H neurons
    s_o = N_o(W_o s_h + b),  y_t: how often each of them fired

with ' for the spikes of the step before, and N for a population (:mod:`edgeseq.models.neurons`). Fra et al., "L2MU:
Legendre memory units with parallel spiking populations", arXiv 2407.04076; the code is github.com/neuromorphic-polito/
L2MU-Braille. What is fed back into A are spikes, so this memory is not linear. The published code applies A transposed,
which is no Legendre delay: ``convention`` "compat" does so too, for weights that come from there.

x may be real; an encoder ahead of it makes the whole model spiking: each channel drives a small population of its own
("single"), and more layers may read those ("stacked").

The spikes that are fed back are carried beside the membranes. They could be had from them, a reset acting a step late:
s' = [v' > θ]. But a comparison by itself, outside of a population, would split what XNNPACK takes of a TFLite file in
two, and be counted as neurons that are not there; and where states are rounded it would not find the spikes that were.

Shape letters: B batch, T frames, C inputs, X what E_x and W_x read, M memories, Q order, H hidden neurons, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edgeseq.errors import InputError, unknown
from edgeseq.models.contract import State, Store, StreamingModel, Width, fixed
from edgeseq.models.l2mu_loop import Rates, Sizes, States, Weights, run
from edgeseq.models.legendre import discretize
from edgeseq.models.neurons import Neurons, prefixed, taken
from edgeseq.models.places import differing, made_by, read_by
from edgeseq.models.readout import Pooling
from edgeseq.models.spike_encoder import SpikeEncoder

NEURONS = ("leaky", "synaptic")
CONVENTIONS = ("legendre", "compat")
RESETS = ("subtract", "subtract_decayed")  # those that act a step late
ENCODERS = ("none", "single", "stacked")
# The populations, with those of the conversion as one; the values are the published ones for seven Braille letters.
BETAS = {"u": 0.8, "m": 0.2, "h": 0.45, "out": 0.6, "encoder": 0.8}
THRESHOLDS = {"u": 0.2, "m": 0.4, "h": 0.65, "out": 0.15, "encoder": 0.5}
ALPHAS = {"u": 0.5, "m": 0.5, "h": 0.5, "out": 0.5, "encoder": 0.5}
RECURRENT = ("u", "h", "m")  # as the loop has them, m being the last
READ = ("h", "m")  # those whose last spikes are read
Map = Callable[[Tensor], Tensor]


class L2mu(StreamingModel):
    """An L2MU and a count of its output spikes.

    Arguments: ``memories`` M, their ``order`` and ``theta`` (window in steps), ``hidden`` neurons; ``neuron``: "leaky"
    or "synaptic" (a current that decays by alpha ahead of the membrane); ``beta``, ``threshold`` and ``alpha``: where
    they start, by population ("u", "m", "h", "out", "encoder"; those not named are the published ones), and whether
    they ``learn``; ``reset``: "subtract" or "subtract_decayed"; ``surrogate`` of a spike's derivative: "atan" (as
    published) or "sigmoid"; ``convention`` of A: "legendre" or "compat"; ``encoder``: "none", "single" or "stacked", of
    ``population`` neurons a channel and layers of ``encoder_sizes``; ``readout``: "leaky" (a count that forgets, over
    ``timescale`` steps), "sum" (of a segment) or another of :class:`Pooling`; ``dropout`` of hidden spikes before the
    output (training only).

    A window of many steps is not for this memory: B is of the order of 1 / theta, and where a spike of u stays below
    the threshold of m no memory ever fires. Nor are slow decays: with them gradients grow from frame to frame.

    Raises:
        InputError: a name that is unknown, or a size below 1.
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        memories: int = 16,
        order: int = 6,
        theta: float = 8.0,
        hidden: int = 64,
        neuron: str = "leaky",
        beta: Mapping[str, float] | None = None,
        threshold: Mapping[str, float] | None = None,
        alpha: Mapping[str, float] | None = None,
        learn: bool = True,
        reset: str = "subtract",
        surrogate: str = "atan",
        convention: str = "legendre",
        encoder: str = "none",
        population: int = 8,
        encoder_sizes: tuple[int, ...] = (32, 16),
        readout: str = "leaky",
        timescale: float = 25.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, output_size)
        _check_choices(neuron=(neuron, NEURONS), convention=(convention, CONVENTIONS), reset=(reset, RESETS))
        _check_choices(encoder=(encoder, ENCODERS))
        _check_sizes(memories=memories, hidden=hidden, population=population)
        _check_sizes(**{f"encoder_sizes[{i}]": size for i, size in enumerate(encoder_sizes)})
        betas, thresholds = _merged("beta", beta, BETAS), _merged("threshold", threshold, THRESHOLDS)
        alphas = _merged("alpha", alpha, ALPHAS)

        def populate(name: str, size: int) -> Neurons:
            synapse = alphas[name] if neuron == "synaptic" else None
            return Neurons(
                size,
                beta=betas[name],
                threshold=thresholds[name],
                alpha=synapse,
                reset=reset,
                surrogate=surrogate,
                learn=learn,
            )

        self.memories, self.order, self.hidden = memories, order, hidden
        self.convention, self.theta = convention, theta
        self.register_buffer("A", torch.empty(order, order))
        self.register_buffer("B", torch.empty(order))
        self._set_theta(theta)
        sizes = tuple(encoder_sizes) if encoder == "stacked" else ()
        self.encoder = None if encoder == "none" else SpikeEncoder(input_size, population, sizes, populate)
        width = self.encoder.size if self.encoder else input_size
        recurrent = hidden + memories * order
        self.from_input = nn.Linear(width, memories + hidden, bias=False)  # E_x and W_x
        self.to_u = nn.Linear(recurrent, memories, bias=False)  # E_h and E_m
        self.to_h = nn.Linear(recurrent, hidden, bias=False)  # W_h and W_m
        self.readout = nn.Linear(hidden, output_size)
        self.u, self.h, self.m, self.out = (
            populate(name, size)
            for name, size in (("u", memories), ("h", hidden), ("m", memories * order), ("out", output_size))
        )
        self.dropout = nn.Dropout(dropout)
        self.pooling = Pooling(readout, output_size, timescale)
        self.tasks = self.pooling.tasks
        self._reset_weights()

    @torch.no_grad()
    def _reset_weights(self) -> None:
        """As published: E_x, E_h uniform with variance 1 / inputs, E_m 0, W normal with variance 2 / (in + out)."""
        e_x, w_x = self.from_input.weight.split([self.memories, self.hidden])
        sizes = [self.hidden, self.memories * self.order]
        (e_h, e_m), (w_h, w_m) = (layer.weight.split(sizes, 1) for layer in (self.to_u, self.to_h))
        for weight in (e_x, e_h):
            reach = (3 / weight.shape[1]) ** 0.5
            weight.uniform_(-reach, reach)
        e_m.zero_()
        for weight in (w_x, w_h, w_m):
            weight.normal_(0, (2 / sum(weight.shape)) ** 0.5)

    def _set_theta(self, theta: float) -> None:
        self.theta = theta
        a, b = discretize(self.order, theta)
        self.A.copy_(a.T if self.convention == "compat" else a)
        self.B.copy_(b)

    def populations(self) -> dict[str, Neurons]:
        """The populations by name, in the order in which they fire."""
        first = self.encoder.populations() if self.encoder else {}
        return {**first, "u": self.u, "m": self.m, "h": self.h, "out": self.out}

    def widths(self) -> dict[str, Width]:
        m, h, q = self.memories, self.hidden, self.order
        memories = made_by(self, "to_u") + read_by("to_u", start=h, each=q) + read_by("to_h", start=h, each=q)
        hidden = made_by(self, "to_h") + read_by("to_h") + read_by("to_u") + read_by("readout")
        orders = read_by("to_u", start=h, runs=m) + read_by("to_h", start=h, runs=m)
        return {
            "memories": Width(m, made_by(self, "from_input") + memories),
            "order": Width(q, orders, nested=True, constants=("A", "B")),
            "hidden": Width(h, made_by(self, "from_input", start=m) + hidden),
            **(self.encoder.widths("encoder", read_by("from_input")) if self.encoder else {}),
        }

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        widths = self.widths()
        layers = [name for name in widths if name.startswith("encoder.layers.")]
        changed: dict[str, Any] = {
            name.removeprefix("encoder."): sizes[name]
            for name in widths
            if name not in layers and differing(widths, sizes, [name])
        }
        if differing(widths, sizes, layers):
            changed["encoder_sizes"] = [sizes[name] for name in layers]
        return changed

    def counts(self) -> tuple[str, ...]:
        return ("h.spikes", "m.spikes", *self.pooling.counts())

    def dynamics(self) -> tuple[str, ...]:
        """Decays and thresholds: one number for a whole population, whose steps move every neuron of it."""
        rates = ("beta", "threshold", "alpha")
        return tuple(name for name, _ in self.named_parameters() if name.split(".")[-1] in rates)

    def constrain(self) -> None:
        super().constrain()
        for neurons in self.populations().values():
            neurons.project()

    @torch.no_grad()
    def retime(self, factor: float) -> dict[str, Any]:
        """Every window and decay keeps its length in seconds; spikes are fed back after one step of any length."""
        self._set_theta(self.theta / factor)
        for neurons in self.populations().values():
            for decay in (neurons.beta, neurons.alpha):
                if decay is not None:
                    decay.copy_(decay.clamp(0, 1) ** factor)
        return {"theta": self.theta, **self.pooling.retime(factor)}

    def initial_state(self, batch: int) -> State:
        state: State = {}
        for name, neurons in self.populations().items():
            state.update(prefixed(name, neurons.initial_state(batch)))
            if name in READ:
                state[f"{name}.spikes"] = self.input_mean.new_zeros(batch, neurons.size)
        return {**state, **self.pooling.states(self.input_mean, batch)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x, following = self.normalize(x), dict[str, Tensor]()
        if self.encoder:
            x = self.encoder.run(x, state, following, step=True)  # (B, X)
        h, after = self._recur(self.to_u, self.to_h, self.from_input(x), state)  # (B, H)
        following.update(after)
        spikes, after = self.out.step(self.readout(self.dropout(h)), taken("out", state))  # (B, K)
        following.update(prefixed("out", after))
        y = self.pooling.step(spikes, state, following)
        return y, {name: following[name] for name in state}

    def _recur(self, to_u: Map, to_h: Map, drive: Tensor, state: State) -> tuple[Tensor, State]:
        """``drive (B, M + H)``, what u and h get of the input, to the spikes of h ``(B, H)`` and the next states."""
        into_u, into_h = drive.split([self.memories, self.hidden], -1)
        h, m = state["h.spikes"], state["m.spikes"]  # (B, H), (B, MQ)
        u, after_u = self.u.step(into_u + to_u(torch.cat([h, m], 1)), taken("u", state))  # (B, M)
        windows = linear(m.unflatten(1, (self.memories, self.order)), self.A) + u[..., None] * self.B  # (B, M, Q)
        m, after_m = self.m.step(windows.flatten(1), taken("m", state))  # (B, MQ)
        h, after_h = self.h.step(into_h + to_h(torch.cat([h, m], 1)), taken("h", state))  # (B, H)
        after = {**prefixed("u", after_u), **prefixed("m", after_m), **prefixed("h", after_h)}
        return h, {**after, "m.spikes": m, "h.spikes": h}

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(x.shape[0]) if state is None else state
        x, following = self.normalize(x), dict[str, Tensor]()
        if self.encoder:
            x = self.encoder.run(x, state, following, step=False)  # (B, T, X)
        currents, after = (self._fused if self._plain else self._one_by_one)(x, state)  # (B, T, K)
        following.update(after)
        spikes, after = self.out(currents, taken("out", state))  # (B, T, K)
        following.update(prefixed("out", after))
        y = self.pooling(spikes, state, following)
        return y, {name: following[name] for name in state}

    @property
    def _plain(self) -> bool:
        """Whether nothing is quantized or rounded."""
        stored = all(isinstance(part, Store) for name in RECURRENT for part in getattr(self, name).children())
        return stored and isinstance(self.to_u, nn.Linear)

    def _one_by_one(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        drive, to_u, to_h = self.from_input(x), fixed(self.to_u), fixed(self.to_h)  # (B, T, M + H)
        state, kept = {name: t for name, t in state.items() if name.split(".")[0] in RECURRENT}, []
        for drive_t in drive.unbind(1):
            h, state = self._recur(to_u, to_h, drive_t, state)
            kept.append(h)
        return self.readout(self.dropout(torch.stack(kept, 1))), state

    def _fused(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """By :mod:`edgeseq.models.l2mu_loop`, which has the batch last and the memory's neurons order by order."""
        sizes = Sizes(
            self.memories, self.hidden, self.order, self.u.rule.reset == "subtract_decayed", self.u.rule.surrogate
        )
        weights = Weights(self._by_order(self.to_u), self._by_order(self.to_h), self.A, self.B)
        first = States(
            self._rows("membrane", RECURRENT, state),
            self._rows("spikes", READ, state),
            self._rows("current", RECURRENT, state) if self.u.alpha is not None else None,
        )
        drive = self.from_input.weight @ x.permute(1, 2, 0)  # (T, M + H, B)
        spikes, last = run(sizes, drive, first, weights, self._rates())
        currents = (self.readout.weight @ self.dropout(spikes)).permute(2, 0, 1) + self.readout.bias  # (B, T, K)
        following = self._split("membrane", RECURRENT, last.membrane) | self._split("spikes", READ, last.spikes)
        if last.synapse is not None:
            following |= self._split("current", RECURRENT, last.synapse)
        return currents, following

    def _rows(self, key: str, names: Sequence[str], state: State) -> Tensor:
        """One kind of state of some populations ``(N, B)``."""
        parts = [state[f"{name}.{key}"] for name in names if name != "m"]
        m = state[f"m.{key}"].unflatten(1, (self.memories, self.order)).mT.flatten(1)
        return torch.cat([*parts, m], 1).T

    def _split(self, key: str, names: Sequence[str], rows: Tensor) -> State:
        """What :meth:`_rows` joins."""
        parts = rows.T.split([getattr(self, name).size for name in names], 1)
        m = parts[-1].unflatten(1, (self.order, self.memories)).mT.flatten(1)
        return {f"{name}.{key}": part for name, part in zip(names, (*parts[:-1], m), strict=True)}

    def _by_order(self, layer: nn.Linear) -> Tensor:
        """The weights ``(out, H + MQ)`` with the columns of m order by order."""
        h, m = layer.weight.split([self.hidden, self.memories * self.order], 1)
        return torch.cat([h, m.unflatten(1, (self.memories, self.order)).mT.flatten(1)], 1)

    def _rates(self) -> Rates:
        populations = [(neurons, neurons.decays()) for neurons in (self.u, self.h, self.m)]

        def column(values: list[Tensor]) -> Tensor:
            rows = [value.expand(neurons.size) for value, (neurons, _) in zip(values, populations, strict=True)]
            return torch.cat(rows)[:, None]  # (N, 1)

        alphas = [alpha for _, (alpha, _) in populations if alpha is not None]
        return Rates(
            column([beta for _, (_, beta) in populations]),
            column([neurons.threshold for neurons, _ in populations]),
            column(alphas) if alphas else None,
        )


def _merged(what: str, given: Mapping[str, float] | None, known: Mapping[str, float]) -> dict[str, float]:
    for name in given or {}:
        if name not in known:
            raise unknown(f"population of l2mu's {what}", name, known)
    return {**known, **(given or {})}


def _check_choices(**choices: tuple[str, tuple[str, ...]]) -> None:
    for kind, (value, known) in choices.items():
        if value not in known:
            raise unknown(f"l2mu {kind}", value, known)


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"l2mu: {name} is {size}, and must be 1 or more")
