"""The contract of a streaming model, which everything else relies on.

Shape letters: B batch, T frames, C input channels, K outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseq.errors import Unsupported

State = dict[str, Tensor]


@dataclass(frozen=True)
class Projection:
    """How a linear map stands in its model, for whoever compresses it.

    ``rectified``: a ReLU comes next, so that only the positive part of the answer counts. ``follows``: the map whose
    answer (after that ReLU) is this one's input, as it is and all of it. ``reads``: the store whose state is.
    """

    rectified: bool = False
    follows: str = ""
    reads: str = ""


@dataclass(frozen=True)
class Place:
    """Where the units of a :class:`Width` stand in the tensor ``name`` of :meth:`StreamingModel.whole`.

    Along ``axis``, from index ``start`` on, unit i of lane l in run r takes the ``each`` indices from
    start + ((r · lanes + l) · size + i) · each. The gates of a GRU are three runs, the orders of a memory behind one
    another for each of its channels as many runs. With ``lane_axis`` the lanes are the indices of that other axis.
    """

    name: str
    axis: int
    start: int = 0
    each: int = 1
    runs: int = 1
    lane_axis: int | None = None


@dataclass(frozen=True)
class Width:
    """Units that a smaller model may have fewer of, all tensors together: ``size`` of them in each of ``lanes``.

    Lanes keep the same number of units, each its own (the nodes of a wired network, the channels of a state space
    layer). At least ``least`` remain. ``nested``: only the last ones can go, as of a memory's order. ``constants`` are
    tensors that hang on the size and are not cut but made anew (A and B of a memory).
    """

    size: int
    places: tuple[Place, ...]
    lanes: int = 1
    least: int = 1
    nested: bool = False
    constants: tuple[str, ...] = ()


class Store(nn.Identity):
    """Where a layer keeps its state between steps: as it is. Compression puts a rounding in its place.

    ``shape`` is that of the scales of such a rounding: the last axes of the state, or () for one scale.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.shape = shape


class StreamingModel(nn.Module, ABC):
    """A model that reads one frame at a time and carries an explicit state.

    In eval mode, for any split of ``x`` into chunks, ``forward`` over the chunks with the state carried equals one
    ``forward``, and equals the loop of ``step``. Nothing is hidden in attributes: the state dict is all that a stream
    carries. Each entry has the batch as its first axis and a dotted name.

    Raw physical units go in: the normalization of the training subjects is part of the model.

    ``tasks``: "frame" (an answer at every frame of an endless stream) and "segment" (one for a bounded stretch); a
    model that averages over all that it has seen is for segments only.
    """

    tasks: tuple[str, ...] = ("frame", "segment")
    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, input_size: int, output_size: int, *, normalized: bool = True) -> None:
        """``normalized``: whether frames are standardized as they come, or by something of the model's own."""
        super().__init__()
        self.input_size = input_size
        self.output_size = output_size
        self.look_ahead = 0
        if normalized:
            self.register_buffer("input_mean", torch.zeros(input_size))
            self.register_buffer("input_scale", torch.ones(input_size))

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Standardize inputs with these statistics of the training subjects, per channel and in the input's units.

        A ``std`` of 0, of a channel that never changes, is taken as 1.
        """
        self.input_mean.copy_(torch.as_tensor(mean))
        scale = (1 / torch.as_tensor(std)).to(self.input_scale)
        self.input_scale.copy_(torch.where(torch.isinf(scale), torch.ones_like(scale), scale))

    def normalize(self, x: Tensor) -> Tensor:
        """Standardize ``x (..., C)``."""
        return (x - self.input_mean) * self.input_scale

    def features(self, x: Tensor) -> Tensor:
        """What is standardized of recordings from their start, ``x (B, T, C)``: the frames, or what is made of them."""
        return x

    def projections(self) -> dict[str, Projection]:
        """The model's linear maps by name: what may be quantized or pruned. A family adds what it knows of them."""
        return {name: Projection() for name, module in self.named_modules() if isinstance(module, nn.Linear)}

    def dynamics(self) -> tuple[str, ...]:
        """Names of the parameters that set the state's time constants: trained slowly and without weight decay."""
        return ()

    def masks(self) -> Mapping[str, Tensor]:
        """By name of a linear map, which of its weights ``(out, in)`` exist (bool); the others are 0 and stay so.

        Those that were pruned (:func:`set_mask`), and those that a family never had.
        """
        return {
            name: mask for name, module in self.named_modules() if (mask := getattr(module, "mask", None)) is not None
        }

    def widths(self) -> dict[str, Width]:
        """What structured pruning may make narrower, by name; nothing of a family that does not say."""
        return {}

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The arguments that change for a model whose :meth:`widths` have these ``sizes``, all of them given."""
        raise Unsupported(f"{type(self).__name__} names no widths: nothing of it can be made narrower")

    def whole(self) -> State:
        """Parameters and buffers by name, as :class:`Place` has them: a map that is kept in parts as one matrix."""
        return dict(self.state_dict())

    def take(self, tensors: State) -> None:
        """Take over what :meth:`whole` of a model of the same arguments gave."""
        self.load_state_dict(tensors)

    def counts(self) -> tuple[str, ...]:
        """Names of states that count, sum or say yes or no: they are kept as they are at every state precision."""
        return ()

    def facts(self) -> Mapping[str, float]:
        """What is to be said of this model beside its sizes, such as the properties of its wiring."""
        return {}

    def retime(self, factor: float) -> dict[str, Any]:
        """Make the model, in place, one for frames ``factor`` times as far apart; returns the arguments that change.

        Raises:
            Unsupported: the family's equations have no step size.
        """
        raise Unsupported(f"{type(self).__name__} has no step size: it runs at the rate that it was trained at only")

    def fold(self) -> dict[str, Any]:
        """Make each batch norm, in place, what it is in eval mode: part of its neighbour, or an affine map.

        Returns the arguments that change: a model built with them takes the weights as they now are.
        """
        return {}

    def constrain(self) -> None:
        """Bring parameters, in place, back to where they mean something: called after each step of the optimizer.

        A family that overrides it calls this one too, which sets pruned weights to 0.
        """
        for module in self.modules():
            mask = getattr(module, "mask", None)
            if mask is not None:
                with torch.no_grad():
                    weight_of(module).mul_(mask)

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of ``batch`` streams that have not seen a frame, in the model's dtype and on its device."""

    @abstractmethod
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame: ``x (B, C)`` and the state to ``y (B, K)`` and the next state; changes nothing in place."""

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Many frames at once: ``x (B, T, C)`` to ``y (B, T, K)`` and the state after the last frame.

        Parallel over time where the mathematics allow it; from the initial state if none is given.
        """
        return self.run_steps(x, state)

    def last(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """``x (B, T, C)`` to the answer after its last frame ``(B, K)``, and the state: of ``forward``, or cheaper."""
        y, state = self(x, state)
        return y[:, -1], state

    def run_steps(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What ``forward`` computes, by the loop of ``step``: the reference for it."""
        state = self.initial_state(x.shape[0]) if state is None else state
        answers = []
        for t in range(x.shape[1]):
            y, state = self.step(x[:, t], state)
            answers.append(y)
        return torch.stack(answers, 1), state

    def flush(self, state: State) -> tuple[Tensor, State]:
        """What is still to be said after a recording's last frame: ``y (B, L, K)`` of its last L = look-ahead frames.

        Nothing, ``(B, 0, K)``, of a model that does not look ahead.
        """
        return self.input_mean.new_zeros(len(next(iter(state.values()))), 0, self.output_size), state


class LookAheadModel(StreamingModel):
    """A model that is told which calls bring a frame: it may wait for the L = ``look_ahead`` frames behind the one that
    it speaks of.

    The answer of call t is that of frame t - L; the first L answers mean nothing. ``live`` says what a call brings: 1
    for a frame, and 0 in the L calls after a recording's last frame (:meth:`flush`), whose answers are those of its
    last frames. The last L values of it, oldest first, are the state "live", 0 before the first frame. Each layer works
    on the frame of some calls ago, and takes what it makes of a frame that is not there for zero, as if the recording
    were padded with zeros ahead of every layer: so nothing from outside of a recording is in any answer.

    With L = 0 nothing waits, there is no such state, and the model's file does not read ``live``. In training it says
    which frames the statistics of batch norms are of, where segments are filled up to the length of others. Without
    ``live`` every call brings a frame.
    """

    def counts(self) -> tuple[str, ...]:
        return ("live",) if self.look_ahead else ()

    @abstractmethod
    def step(self, x: Tensor, state: State, live: Tensor | None = None) -> tuple[Tensor, State]:
        """One call: ``x (B, C)``, the state and ``live (B, 1)`` to ``y (B, K)`` and the next state."""

    @abstractmethod
    def forward(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        """Many calls at once: ``x (B, T, C)`` and ``live (B, T, 1)`` to ``y (B, T, K)`` and the last state."""

    def last(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        """The answer of ``forward`` to the last call ``(B, K)``, and the state."""
        y, state = self(x, state, live)
        return y[:, -1], state

    def run_steps(self, x: Tensor, state: State | None = None, live: Tensor | None = None) -> tuple[Tensor, State]:
        """What ``forward`` computes, by the loop of ``step``: the reference for it."""
        state = self.initial_state(x.shape[0]) if state is None else state
        answers = []
        for t in range(x.shape[1]):
            y, state = self.step(x[:, t], state, None if live is None else live[:, t])
            answers.append(y)
        return torch.stack(answers, 1), state

    def flush(self, state: State) -> tuple[Tensor, State]:
        """``y (B, L, K)`` of the last L frames of a recording, by L calls that bring no frame."""
        if not self.look_ahead:
            return super().flush(state)
        rest = self.input_mean.new_zeros(len(next(iter(state.values()))), self.look_ahead, self.input_size)
        y, state = self(rest, state, rest.new_zeros(*rest.shape[:2], 1))
        return y, state


class Masks:
    """Which of the frames that a look-ahead model works on are there: ``live`` by how many calls ago they came.

    Made of the state "live" ``(B, L)`` and the calls' own values ``(B, 1)`` or ``(B, T, 1)``. With L = 0 there are no
    answers but those of the calls' own frames, so that only the statistics of norms need to know.
    """

    def __init__(self, look_ahead: int, state: State, x: Tensor, live: Tensor | None) -> None:
        self.look_ahead = look_ahead
        self._all = live
        self._frames = 1 if x.ndim == 2 else x.shape[1]
        if look_ahead:
            now = x.new_ones(*x.shape[:-1], 1) if live is None else live
            past = state["live"] if x.ndim == 2 else state["live"][..., None]
            self._all = torch.cat([past, now], 1)  # (B, L + 1), or (B, L + T, 1)

    def of(self, delay: int) -> Tensor | None:
        """1 where the frame of ``delay`` calls ago is there, else 0: ``(B, 1)`` or ``(B, T, 1)``; None if all are."""
        if self._all is None:
            return None
        start = self.look_ahead - delay
        return self._all[:, start : start + self._frames]

    def apply(self, x: Tensor, delay: int) -> Tensor:
        """``x (B, ..., C)``, made of the frames of ``delay`` calls ago: 0 for those that are not there."""
        there = self.of(delay) if self.look_ahead else None
        return x if there is None else x * there

    def following(self) -> State:
        """The next state "live", if there is one."""
        if not self.look_ahead or self._all is None:
            return {}
        kept = self._all[:, self._all.shape[1] - self.look_ahead :]
        return {"live": kept.flatten(1)}


def fixed(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """A linear map for a loop over frames: what it would compute of its weights at every call is computed once."""
    prepare: Callable[[], Callable[[Tensor], Tensor]] | None = getattr(layer, "fixed", None)
    return prepare() if prepare else layer


def weight_of(layer: nn.Module) -> Tensor:
    """The weights ``(out, in)`` that are trained, of a linear map that is quantized or not."""
    return cast(Tensor, getattr(layer, "linear", layer).weight)


@torch.no_grad()
def set_mask(layer: nn.Module, mask: Tensor) -> None:
    """Prune the linear map ``layer`` to the weights where ``mask (out, in)`` is True, of those that it still has."""
    weight, had = weight_of(layer), getattr(layer, "mask", None)
    mask = mask.to(weight.device) if had is None else mask.to(weight.device) & had
    layer.register_buffer("mask", mask, persistent=False)
    weight.mul_(mask)


def mask_zeros(model: nn.Module, names: Iterable[str]) -> None:
    """Prune each linear map of ``names``, in place, to the weights that are not 0: what is 0 there stays so."""
    for name in names:
        layer = model.get_submodule(name)
        set_mask(layer, weight_of(layer) != 0)


def parameter_count(model: nn.Module) -> int:
    """Number of trained numbers; constants such as the LMU's A and B are not counted, nor weights that do not exist."""
    absent = sum(int((~mask).sum()) for mask in model.masks().values()) if isinstance(model, StreamingModel) else 0
    return sum(p.numel() for p in model.parameters() if p.requires_grad) - absent
