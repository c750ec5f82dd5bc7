"""The host's half of the proof: training form, step form and step program compute the same.

The other half, from the program to each file in its engine, needs no torch and runs on the device too:
:mod:`edgeseq.devices.check`. Tolerances follow from the number format and are never loosened to pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseq.devices.compare import Comparison, Ties, free_link, parts_of, rounds, steps_of
from edgeseq.export.lower import lower
from edgeseq.manifest import Link
from edgeseq.models.contract import State, StreamingModel
from edgeseq.program import Program, interpret

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
    Teacher-forced: the program is given the step form's state before every frame.
    """
    reference, final = run_training_form(model, x)
    form, ties = lower(model), Ties()
    step = interpret(program, ties.watch)
    state = form.initial_state()
    parts = parts_of(reference.shape[1], [(name, tensor.numel()) for name, tensor in state.items()])
    free, forced = Comparison(parts), Comparison(parts)
    answers = np.empty_like(reference)
    with torch.no_grad():
        for t, frame in enumerate(torch.from_numpy(x)):
            before = state
            y, state = form(frame[None], before)
            answers[t] = y[0]
            ties.clear()
            found = step(x[t][None], {name: tensor.numpy() for name, tensor in before.items()})
            forced.add(_vector(y.numpy(), _arrays(state)), _vector(*found), ties.near)
            tick()
    for expected, got in zip(reference, answers, strict=True):
        free.add(_vector(expected, final), _vector(got, _arrays(state)))
    name = "training form ~ step form"
    return (
        free_link(name, free, reference, answers, tolerance=PARALLEL_TOLERANCE, rounded=rounds(program)),
        forced.link("step form ~ program", steps_of(program)),
    )


def _arrays(state: State) -> dict[str, Floats]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def _vector(y: Floats, state: Mapping[str, Floats]) -> NDArray[np.float64]:
    return np.concatenate([y.ravel(), *(array.ravel() for array in state.values())], dtype=np.float64)
