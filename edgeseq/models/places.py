"""Where the units of a width stand in the usual layers, and the arguments that say how many there are.

A size is an argument of one number for all layers, or of one for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from edgeseq.errors import InputError
from edgeseq.models.contract import Place, Width


def made_by(model: nn.Module, name: str, *, start: int = 0, each: int = 1, runs: int = 1) -> tuple[Place, ...]:
    """Units that the layer ``name`` answers with: the rows of a linear map with their biases, the numbers of a norm.

    What has no tensors, such as a norm that was folded away, has no places.
    """
    tensors = model.get_submodule(name).state_dict()
    return tuple(Place(f"{name}.{key}", 0, start, each, runs) for key in tensors)


def read_by(name: str, *, start: int = 0, each: int = 1, runs: int = 1) -> tuple[Place, ...]:
    """Units that the linear map ``name`` reads: columns of its weights ``(out, in)``."""
    return (Place(f"{name}.weight", 1, start, each, runs),)


def per_layer(family: str, name: str, size: int | Sequence[int], count: int) -> list[int]:
    """``size`` of each of ``count`` layers.

    Raises:
        InputError: another count of them, or one below 1.
    """
    sizes = [size] * count if isinstance(size, int) else list(size)
    if len(sizes) != count:
        raise InputError(f"{family}: {name} {sizes} has {len(sizes)} entries: give one number, or {count} of them")
    for each in sizes:
        if each < 1:
            raise InputError(f"{family}: {name} {size} must be at least 1")
    return sizes


def at_once(sizes: Sequence[int]) -> int | list[int]:
    """One number for all layers where they agree, or the list."""
    return sizes[0] if len(set(sizes)) == 1 else list(sizes)


def differing(widths: Mapping[str, Width], sizes: Mapping[str, int], names: Sequence[str]) -> bool:
    """Whether any of the widths ``names`` is to have another size than it has."""
    return any(sizes[name] != widths[name].size for name in names)
