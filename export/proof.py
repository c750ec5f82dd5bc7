"""The host's half of the proof: training form, step form and step program compute the same.

The other half, from the program to each file in its engine, needs no torch and runs on the device too:
:mod:`edgeseq.devices.check`. Tolerances follow from the number format and are never loosened to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseq.devices.compare import Comparison, Part, Ties, free_link, parts_of, rounds, steps_of
from edgeseq.export.lower import lower
from edgeseq.manifest import Link
from edgeseq.models.contract import State, StreamingModel
from edgeseq.program import Node, Program, interpret
from edgeseq.program.graph import Array

Floats = NDArray[np.float32]

PARALLEL_TOLERANCE = 1e-4  # float32 sums in another order, carried over thousands of frames
CHUNK = 500  # frames of the training form at once, with the state carried over


def run_training_form(model: StreamingModel, x: Floats) -> tuple[Floats, dict[str, Floats]]:
    """Answers ``(T, K)`` and final state of the trained model on one stream ``x (T, C)``, in chunks."""
    state, answers = model.initial_state(1), []
    with torch.no_grad():
        for part in torch.from_numpy(x)[None].split(CHUNK, 1):
            y, state = model(part, state)
            answers.append(y[0])
    return torch.cat(answers).numpy(), {name: tensor.numpy() for name, tensor in state.items()}


def prove_step(
    model: StreamingModel, program: Program, x: Floats, tick: Callable[[], None] = lambda: None
) -> tuple[Link, ...]:
    """The links from the training form to the program on the stream ``x (T, C)``; ``tick`` is called once a frame.

    Free-running: the training form in chunks against the loop of the step form, each with its own state.
    Teacher-forced: the training form and the program are given the step form's state before every frame.
    """
    stepped = _run_step_form(model, program, x, tick)
    reference, final = run_training_form(model, x)
    free = Comparison(stepped.parts)
    for expected, got in zip(reference, stepped.answers, strict=True):
        free.add(_vector(expected, final), _vector(got, stepped.final))
    return (
        free_link(
            *("training form ~ step form", free, reference, stepped.answers),
            tolerance=PARALLEL_TOLERANCE,
            rounded=rounds(program),
        ),
        _forced_training_form(model, x, stepped).link("training form, forced", steps_of(program)),
        stepped.program.link("step form ~ program", steps_of(program)),
    )


@dataclass(frozen=True)
class _Stepped:
    """The step form on a stream: the states before (T) and the vectors after every frame, and the program beside it."""

    parts: Sequence[Part]
    answers: Floats
    before: list[State]
    after: list[NDArray[np.float64]]
    near: list[bool]
    final: dict[str, Floats]
    program: Comparison


def _run_step_form(model: StreamingModel, program: Program, x: Floats, tick: Callable[[], None]) -> _Stepped:
    form, ties, sums = lower(model), Ties(), Ties(sums=True)

    def watch(node: Node, inputs: Sequence[Array]) -> None:
        ties.watch(node, inputs)
        sums.watch(node, inputs)

    step = interpret(program, watch)
    state = form.initial_state()
    parts = parts_of(model.output_size, [(name, tensor.numel()) for name, tensor in state.items()])
    stepped = _Stepped(parts, np.empty((len(x), model.output_size), np.float32), [], [], [], {}, Comparison(parts))
    with torch.no_grad():
        for t, frame in enumerate(torch.from_numpy(x)):
            stepped.before.append(state)
            y, state = form(frame[None], state)
            stepped.answers[t] = y[0]
            stepped.after.append(_vector(y.numpy(), _arrays(state)))
            ties.clear()
            sums.clear()
            found = step(x[t][None], _arrays(stepped.before[t]))
            stepped.program.add(stepped.after[t], _vector(*found), ties.near)
            stepped.near.append(sums.near)
            tick()
    stepped.final.update(_arrays(state))
    return stepped


def _forced_training_form(model: StreamingModel, x: Floats, stepped: _Stepped) -> Comparison:
    """All frames as a batch of streams of one frame each, each from the step form's state before it."""
    compared = Comparison(stepped.parts)
    with torch.no_grad():
        for start in range(0, len(x), CHUNK):
            stop = min(start + CHUNK, len(x))
            states = {name: torch.cat([state[name] for state in stepped.before[start:stop]]) for name in stepped.final}
            y, after = model(torch.from_numpy(x[start:stop])[:, None], states)
            for row, t in enumerate(range(start, stop)):
                got = _vector(y[row].numpy(), {name: tensor[row].numpy() for name, tensor in after.items()})
                compared.add(stepped.after[t], got, stepped.near[t])
    return compared


def _arrays(state: State) -> dict[str, Floats]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def _vector(y: Floats, state: Mapping[str, Floats]) -> NDArray[np.float64]:
    return np.concatenate([y.ravel(), *(array.ravel() for array in state.values())], dtype=np.float64)
