"""The linear memories of a model, of whatever family: which there are, on coarser grids, and whether they forget.

    s_t = A s_{t-1} + B u_t        A and B of a Legendre memory: a symmetric grid each, one scale a tensor
                                   Ā of an S4D layer: log-magnitude and phase, a grid each, one scale a layer

A memory forgets if its spectral radius is below 1. An L2MU's feeds back spikes in place of the state, of which none is
more than 1, so nothing can grow there: it has no radius to look at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.errors import GateFailed
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.l2mu import L2mu
from edgeseq.models.legendre import LegendreMemory, impulse_response, on_grid

Memory = LegendreMemory | DiagonalSsm | L2mu
MEMORY_LIMITS = {"int8": 127, "int16": 32767}
WINDOW = 1024  # frames of an impulse response that is compared
LARGEST_ERROR = 0.1  # of it, relative, which goes without a word


def memories(model: nn.Module) -> dict[str, Memory]:
    """The memories of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Memory)}


@torch.no_grad()
def round_memories(found: Iterable[Memory], kind: str) -> None:
    """Put memories on the grids of ``kind``, "int8" or "int16", in place; what is on one already stays where it is."""
    limit = MEMORY_LIMITS[kind]
    for memory in found:
        if isinstance(memory, L2mu):
            memory.A.copy_(on_grid(memory.A, limit))
            memory.B.copy_(on_grid(memory.B, limit))
        elif isinstance(memory, LegendreMemory):
            memory.round_to(limit)
        else:
            memory.memory_limit = limit  # its Ā is made of what is trained, anew at every call


@torch.no_grad()
def radius(memory: LegendreMemory | DiagonalSsm) -> float:
    """The largest absolute eigenvalue of a step, of the numbers that are computed with."""
    if isinstance(memory, LegendreMemory):
        values: Tensor = torch.linalg.eigvals(memory.A.double())
        return float(values.abs().max())
    turn, _ = memory.discretize()
    return float(torch.hypot(*turn.double()).max())


def check_radius(model: nn.Module) -> None:
    """Refuse a model with a memory that does not forget: what it carries would grow without end on a stream.

    Raises:
        GateFailed: the spectral radius of a memory is 1 or more.
    """
    for name, memory in memories(model).items():
        if isinstance(memory, L2mu):
            continue
        if not (found := radius(memory)) < 1:
            raise GateFailed(
                f"{name or type(memory).__name__}: the spectral radius of the memory is {found:.7g}, and below 1 is "
                "needed, or what it carries grows without end. If it was put on a coarser grid, use --memory int16 or "
                "float32; otherwise train it with shorter time constants"
            )


@torch.no_grad()
def response_errors(plain: nn.Module, rounded: nn.Module) -> list[str]:
    """What to say of memories of ``rounded`` that answer an impulse otherwise than those of ``plain`` do."""
    found, originals = [], memories(plain)
    for name, memory in memories(rounded).items():
        if isinstance(memory, L2mu):
            continue  # not a linear answer: how many spikes are others says more
        wanted, given = (_response(each) for each in (cast(LegendreMemory, originals[name]), memory))
        error = float((given - wanted).norm() / wanted.norm())
        if not error <= LARGEST_ERROR:
            found.append(
                f"{name or type(memory).__name__}: its memory is rounded so that its impulse response is off by "
                f"{100 * error:.0f} %: it remembers something else than it was trained to; use --memory int16"
            )
    return found


def _response(memory: LegendreMemory | DiagonalSsm) -> Tensor:
    """What the first frames hold, or answer, of an impulse: ``(frames, ...)``."""
    if isinstance(memory, DiagonalSsm):
        impulse = torch.zeros(1, WINDOW, memory.channels).to(memory.D)
        impulse[:, 0] = 1
        return memory.convolved(impulse, memory.initial_state(1))[0][0]
    return impulse_response(memory.A, memory.B, WINDOW)
