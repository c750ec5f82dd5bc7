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

from edgeseq.devices.compare import Comparison, Part, Ties, free_link, jumps, parts_of, steps_of
from edgeseq.errors import GateFailed
from edgeseq.export.lower import StepForm, call_forward, lower
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
            y, state = call_forward(model, part, state)
            answers.append(y[0])
    return torch.cat(answers).numpy(), {name: tensor.numpy() for name, tensor in state.items()}


def run_step_form(form: StepForm, x: Floats) -> dict[str, Floats]:
    """The state in which the step form ends on one stream ``x (T, C)``."""
    state = form.initial_state()
    with torch.no_grad():
        for frame in torch.from_numpy(x):
            _, state = form(frame[None], state)
    return _arrays(state)


def prove_step(
    model: StreamingModel,
    program: Program,
    x: Floats,
    tick: Callable[[], None] = lambda: None,
    form: StepForm | None = None,
) -> tuple[Link, ...]:
    """The links from the training form to the program on the stream ``x (T, C)``; ``tick`` is called once a frame.

    ``form`` is what the program was captured from: ``lower(model)`` if not given.

    States are compared as the training form has them (:meth:`StepForm.trained_state`), and as the program has them.

    Free-running: the training form in chunks against the loop of the step form, each with its own state.
    Teacher-forced: the training form and the program are given the step form's state before every frame.

    Raises:
        GateFailed: the program keeps other states than the step form.
    """
    form = form or lower(model)
    _check_states(form, program)
    stepped = _run_step_form(form, program, x, tick)
    reference, final = run_training_form(model, x)
    parts = parts_of(model.output_size, [(name, array.size) for name, array in final.items()])
    free, ended = Comparison(parts), _arrays(form.trained_state(_tensors(stepped.final)))
    for expected, got in zip(reference, stepped.answers, strict=True):
        free.add(_vector(expected, final), _vector(got, ended))
    return (
        free_link(
            *("training form ~ step form", free, reference, stepped.answers),
            tolerance=PARALLEL_TOLERANCE,
            rounded=jumps(program),
        ),
        _forced_training_form(model, form, x, stepped, parts).link("training form, forced", steps_of(program)),
        stepped.program.link("step form ~ program", steps_of(program)),
    )


def _check_states(form: StepForm, program: Program) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in form.initial_state().items()}
    kept = {state.name: state.before.shape for state in program.states}
    if ours != kept:
        raise GateFailed(
            f"the step program keeps the states {kept}, and the trained model's step {ours}: export the model anew"
        )


@dataclass(frozen=True)
class _Stepped:
    """The step form on a stream: the states before (T) and the vectors after every frame, and the program beside it."""

    answers: Floats
    before: list[State]
    after: list[State]
    near: list[bool]
    final: dict[str, Floats]
    program: Comparison


def _run_step_form(form: StepForm, program: Program, x: Floats, tick: Callable[[], None]) -> _Stepped:
    ties, sums = Ties(), Ties(sums=True)

    def watch(node: Node, inputs: Sequence[Array]) -> None:
        ties.watch(node, inputs)
        sums.watch(node, inputs)

    step = interpret(program, watch)
    state = form.initial_state()
    labels = form.model.output_size
    parts = parts_of(labels, [(name, tensor.numel()) for name, tensor in state.items()])
    stepped = _Stepped(np.empty((len(x), labels), np.float32), [], [], [], {}, Comparison(parts))
    with torch.no_grad():
        for t, frame in enumerate(torch.from_numpy(x)):
            stepped.before.append(state)
            y, state = form(frame[None], state)
            stepped.answers[t] = y[0]
            stepped.after.append(state)
            ties.clear()
            sums.clear()
            found = step(x[t][None], _arrays(stepped.before[t]))
            stepped.program.add(_vector(y.numpy(), _arrays(state)), _vector(*found), ties.near)
            stepped.near.append(sums.near)
            tick()
    stepped.final.update(_arrays(state))
    return stepped


def _forced_training_form(
    model: StreamingModel, form: StepForm, x: Floats, stepped: _Stepped, parts: Sequence[Part]
) -> Comparison:
    """All frames as a batch of streams of one frame each, each from the step form's state before it."""
    compared = Comparison(parts)
    with torch.no_grad():
        for start in range(0, len(x), CHUNK):
            stop = min(start + CHUNK, len(x))
            frames, before = torch.from_numpy(x[start:stop])[:, None], _batch(form, stepped.before[start:stop])
            y, after = call_forward(model, frames, before)
            expected = _arrays(_batch(form, stepped.after[start:stop]))
            found = _arrays(after)
            for row, t in enumerate(range(start, stop)):
                compared.add(
                    _vector(stepped.answers[t], {name: array[row] for name, array in expected.items()}),
                    _vector(y[row].numpy(), {name: array[row] for name, array in found.items()}),
                    stepped.near[t],
                )
    return compared


def _batch(form: StepForm, states: Sequence[State]) -> State:
    """States of single streams as those of one batch, as the training form has them."""
    return form.trained_state({name: torch.cat([state[name] for state in states]) for name in states[0]})


def _tensors(state: Mapping[str, Floats]) -> State:
    return {name: torch.from_numpy(array) for name, array in state.items()}


def _arrays(state: State) -> dict[str, Floats]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def _vector(y: Floats, state: Mapping[str, Floats]) -> NDArray[np.float64]:
    return np.concatenate([y.ravel(), *(array.ravel() for array in state.values())], dtype=np.float64)
