"""Whether a model of somebody's own keeps the contract: names and kinds of its states, one step, nothing hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeseq.errors import InputError
from edgeseq.models.contract import LookAheadModel, State, StreamingModel

TOLERANCE = 1e-5  # relative to max(1, largest): one computation in float32, done twice
SCALES = (0.1, 1.0, 10.0, 100.0)  # of random frames and states, so that a state that moves at times is seen to move
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
Kept = dict[str, list[tuple[Any, int]]]


def check_states(states: object, batch: int = 1) -> None:
    """Refuse as the states of ``batch`` streams what is not a dict of dotted names to float32 tensors ``(batch, ...)``.

    Raises:
        InputError: naming the state.
    """
    if not isinstance(states, dict):
        raise InputError(f"initial_state returns {_kind(states)}: a dict is needed, of names to tensors")
    for name, tensor in states.items():
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise InputError(
                f"state {name!r} cannot be called that: a name has the letters a to z, digits, '_' and '-', its parts "
                "joined by dots, as in 'layers.0.hidden'"
            )
        if not isinstance(tensor, Tensor):
            raise InputError(f"state {name!r} of initial_state is {_kind(tensor)}: a tensor is needed")
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"state {name!r} is {kind}: float32 is needed, as of self.input_mean.new_zeros(batch, 8)")
        if tensor.ndim == 0 or len(tensor) != batch:
            raise InputError(
                f"state {name!r} has shape {list(tensor.shape)} for a batch of {batch}: its first axis must be "
                "the batch"
            )
        if not tensor.numel():
            raise InputError(f"state {name!r} has shape {list(tensor.shape)}, which holds nothing: leave it out")


@torch.no_grad()
def check_contract(model: StreamingModel) -> None:
    """Refuse a model in eval mode whose states or step are not those of a stream, by steps of random frames.

    Raises:
        InputError: a look-ahead that is none; a state as in :func:`check_states`; a step that fails, answers in another
            form or shape, keeps something in an attribute, answers differently each time, or leaves a state as it was.
    """
    _check_look_ahead(model)
    for batch in (2, 1):
        states = _initial(model, batch)
        check_states(states, batch)
    still = set(states)
    for x, state in _draws(model, states):
        before = attributes(model)
        first, second = (stepped(model, x, state) for _ in range(2))
        for name in changed(before, attributes(model)):
            raise InputError(
                f"step keeps something in attribute {name!r}, which no stream carries: carry it in the state"
            )
        if not all(alike(one, other) for one, other in zip(_tensors(first), _tensors(second), strict=True)):
            raise InputError(
                "step answers differently to the same frame and state: it draws random numbers, or keeps something "
                "beside its state, which must be all that it carries"
            )
        still -= {name for name, tensor in first[1].items() if not torch.equal(tensor, state[name])}
    if still:
        raise InputError(f"state {min(still)!r} never changes: make it a buffer (self.register_buffer)")


def _check_look_ahead(model: StreamingModel) -> None:
    ahead, name = model.look_ahead, type(model).__name__
    if not isinstance(ahead, int) or ahead < 0:
        raise InputError(f"{name} has look_ahead {ahead!r}: a whole number of steps, 0 or more, is needed")
    if ahead and not isinstance(model, LookAheadModel):
        raise InputError(
            f"{name} looks {ahead} steps ahead, and its step is not told where a recording ends: make it an "
            "edgeseq.models.contract.LookAheadModel, whose step takes live"
        )


def stepped(model: StreamingModel, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step at batch 1 of copies of ``x (1, C)`` and ``state``.

    Raises:
        InputError: it fails, or does not return ``y (1, K)`` and the states that it was given, each in its shape.
    """
    try:
        returned: Any = model.step(x.clone(), {name: tensor.clone() for name, tensor in state.items()})
    except KeyError as error:
        raise InputError(
            f"step fails with KeyError {error}: initial_state gives the states {_listed(state)}; what step reads of a "
            "state must be among them"
        ) from error
    except Exception as error:  # whatever the model's own code raises
        raise InputError(f"step fails on a frame {list(x.shape)}: {_said(error)}") from error
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        what = f"({', '.join(map(_kind, returned))})" if isinstance(returned, tuple) else _kind(returned)
        raise InputError(f"step returns {what}: the answer and the next state are needed, a tensor and a dict")
    y, after = returned
    if set(after) != set(state):
        raise InputError(
            f"step returns the states {_listed(after)}, and initial_state gives {_listed(state)}: they must be the same"
        )
    if not isinstance(y, Tensor) or tuple(y.shape) != (1, model.output_size):
        found = f"shape {list(y.shape)}" if isinstance(y, Tensor) else _kind(y)
        raise InputError(f"step answers with {found}: (1, {model.output_size}), one frame's, is needed")
    for name, tensor in after.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"step returns {_kind(tensor)} as state {name!r}: a tensor is needed")
        if tensor.shape != state[name].shape:
            had = list(state[name].shape)
            raise InputError(
                f"step returns state {name!r} with shape {list(tensor.shape)}, and initial_state gives {had}: a state "
                "keeps its shape"
            )
    return y, {name: after[name] for name in state}


def attributes(model: nn.Module) -> Kept:
    """What the modules hold in attributes of their own, by name, to compare later; not parameters and buffers."""
    usual = set(vars(nn.Module()))
    return {
        f"{path}.{name}" if path else name: [(leaf, _version(leaf)) for leaf in pytree.tree_leaves(value)]
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in usual
    }


def changed(before: Kept, after: Kept) -> list[str]:
    """Names of the attributes that are new, or hold something else than before: another tensor, or another value."""
    return [name for name, held in after.items() if name not in before or not _same(before[name], held)]


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are of one shape and equal but for rounding."""
    largest = max(1.0, float(one.abs().nan_to_num().max()))
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True)


def _same(before: list[tuple[Any, int]], after: list[tuple[Any, int]]) -> bool:
    return len(before) == len(after) and all(
        version == now and (held is found or (not isinstance(found, (Tensor, np.ndarray)) and bool(held == found)))
        for (held, version), (found, now) in zip(before, after, strict=True)
    )


def _version(leaf: object) -> int:
    """How often a tensor was written to in place; 0 of what does not count that."""
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else 0


def _initial(model: StreamingModel, batch: int) -> State:
    try:
        return model.initial_state(batch)
    except Exception as error:  # whatever the model's own code raises
        raise InputError(f"initial_state fails for a batch of {batch}: {_said(error)}") from error


def _draws(model: StreamingModel, states: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, State]]:
    """Random frames ``(1, C)`` and states, of several sizes."""
    generator = torch.Generator().manual_seed(0)
    for scale in SCALES:
        x = scale * torch.randn(1, model.input_size, generator=generator)
        yield x, {name: scale * torch.randn(tensor.shape, generator=generator) for name, tensor in states.items()}


def _tensors(answer: tuple[Tensor, State]) -> list[Tensor]:
    return [answer[0], *answer[1].values()]


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _listed(names: Mapping[Any, object]) -> str:
    return "(none)" if not names else ", ".join(map(repr, names))


def _kind(value: object) -> str:
    """What a value is, for people: "a tuple", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
