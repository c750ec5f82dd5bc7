"""The host's half of the proof: training form, step form and step program compute the same.

The other half, from the program to each file in its engine, needs no torch and runs on the device too:
:mod:`edgeseq.devices.check`. Tolerances follow from the number format and are never loosened to pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseq.devices.check import finite, slope
from edgeseq.export.lower import lower
from edgeseq.manifest import Link
from edgeseq.models.contract import State, StreamingModel
from edgeseq.program import Program, interpret

Floats = NDArray[np.float32]

PARALLEL_TOLERANCE = 1e-4  # float32 sums in another order, carried over thousands of frames
FORCED_TOLERANCE = 1e-5  # float32, one step
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
    form, step = lower(model), interpret(program)
    state = form.initial_state()
    answers = np.empty_like(reference)
    forced = _Worst()
    with torch.no_grad():
        for t, frame in enumerate(torch.from_numpy(x)):
            before = state
            y, state = form(frame[None], before)
            answers[t] = y[0]
            forced.compare(y, state, *step(x[t][None], {name: tensor.numpy() for name, tensor in before.items()}))
            tick()
    free = _Worst()
    free.values("answers", reference, answers)
    for name, tensor in state.items():
        free.values(name, final[name], tensor.numpy())
    agreement = float(np.mean(reference.argmax(-1) == answers.argmax(-1)))
    growth = slope(np.abs(reference - answers).max(-1).astype(np.float64))
    return (
        free.link("training form ~ step form", len(x), PARALLEL_TOLERANCE, agreement, growth),
        forced.link("step form ~ program", len(x), FORCED_TOLERANCE),
    )


class _Worst:
    """The largest error seen, relative to max(1, largest reference value), and where."""

    def __init__(self) -> None:
        self.error, self.where = 0.0, ""

    def values(self, name: str, reference: Floats, found: Floats) -> None:
        error = finite(np.abs(found - reference).max() / max(1.0, float(np.abs(reference).max())))
        if error > self.error:
            self.error, self.where = error, name

    def compare(self, y: Tensor, state: State, got_y: Floats, got_state: dict[str, Floats]) -> None:
        self.values("answers", y.numpy(), got_y)
        for name, tensor in state.items():
            self.values(name, tensor.numpy(), got_state[name])

    def link(
        self, name: str, frames: int, tolerance: float, agreement: float | None = None, slope: float | None = None
    ) -> Link:
        note = f"largest in {self.where}" if self.where else ""
        return Link(name, frames, self.error, tolerance, self.error <= tolerance, agreement, slope, note)
