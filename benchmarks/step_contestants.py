"""Who takes part in benchmarks/step_latency.py: each takes one frame as a numpy array and gives logits as one.

``edgeseq`` engines run the files of an exported folder; the others (step_torch.py, step_executorch.py) compute the same
model as one would without edgeseq. All of them carry the state, and all must give the answers of the step program
before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from turns import Step, paced, tight

from edgeseq.devices.engines import ENGINES
from edgeseq.devices.session import Session
from edgeseq.errors import GateFailed
from edgeseq.folder import Folder

AGREED = 100  # frames from the start whose answers must be those of the step program
RUNNERS = ("litert", "litert-builtin", "onnxruntime", "numpy")
Frames = Sequence[NDArray[np.float32]]
Around = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Contestant:
    """``tight(first, count)`` and ``paced(first, count, rate)`` give nanoseconds; ``answers`` are (AGREED, K).

    ``keeps`` is what must live as long as its step does.
    """

    name: str
    precision: str
    runtime: str
    answers: NDArray[np.float32]
    tight: Callable[[int, int], list[int]]
    paced: Callable[[int, int, float], list[int]]
    keeps: Any = None


def local(
    name: str, precision: str, runtime: str, step: Step, frames: Frames, around: Around = nullcontext
) -> Contestant:
    """One that steps in this process, each turn inside ``around``."""

    def chosen(first: int, count: int) -> Frames:
        return [frames[(first + i) % len(frames)] for i in range(count)]

    def tight_turn(first: int, count: int) -> list[int]:
        with around():
            return tight(step, chosen(first, count))

    def paced_turn(first: int, count: int, rate: float) -> list[int]:
        with around():
            return paced(step, chosen(first, count), rate)

    with around():
        answers = np.stack([np.ravel(step(frame)).copy() for frame in frames[:AGREED]])
    return Contestant(name, precision, runtime, answers, tight_turn, paced_turn)


def engine(folder: Folder, name: str, frames: Frames) -> Contestant:
    session = Session(folder, name)
    facts = session.facts
    precision = "int8" if folder.manifest.precision.weights == "int8" else "fp32"
    made = local(name, precision, f"{facts['runtime']} {facts['version']}", session.step, frames)
    return replace(made, keeps=session)


def check(one: Contestant, reference: Contestant) -> None:
    """A float model must give the numbers of the step program; int8, in an engine that rounds otherwise, its answers.

    Raises:
        GateFailed: it does not, so that its times would mean nothing.
    """
    error = float(np.abs(one.answers - reference.answers).max())
    same = float((one.answers.argmax(1) == reference.answers.argmax(1)).mean())
    exact = one.precision == "fp32" or (one.name in ENGINES and ENGINES[one.name].exact)
    if (exact and error > 1e-4 * max(1.0, float(np.abs(reference.answers).max()))) or same < 0.9:
        raise GateFailed(
            f"{one.name} ({one.precision}) is off the step program by {error:.2g} and gives its answer in "
            f"{100 * same:.0f} % of {AGREED} frames: it computes another model, so its times mean nothing"
        )
