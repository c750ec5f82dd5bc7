"""Where a model is trained: on the CPU, or on a GPU that torch reaches through CUDA."""

from __future__ import annotations

import torch

from edgeseq.errors import InputError, unknown

CPU, CUDA, AUTO = "cpu", "cuda", "auto"


def resolved(device: str) -> str:
    """The device that a setting comes to on this machine: "auto" is "cuda" where there is a GPU, else "cpu".

    Raises:
        InputError: an unknown name, or "cuda" where torch sees no GPU.
    """
    if device not in (CPU, CUDA, AUTO):
        raise unknown("device", device, (CPU, CUDA, AUTO))
    if device == CPU:
        return CPU
    there = torch.cuda.is_available()
    if device == CUDA and not there:
        raise InputError(f"device {CUDA}: torch {torch.__version__} sees no GPU here. Set device to {CPU}, or {AUTO}")
    return CUDA if there else CPU
