"""The sizes of an LMUFormer, spiking or not: of the stages of its tokenizer and of its blocks.

Each may be given for all layers at once or one by one, and follows the tokens' size where it is not given at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeseq.models.contract import Width
from edgeseq.models.places import at_once, differing, per_layer

FOLLOWING = ("filters", "hidden", "expand")  # those that hang on ``dim`` where they are not given
Size = int | Sequence[int]


class BlockSizes(NamedTuple):
    """Of one block: the memory's ``channels`` and ``order``, its mixer's ``hidden`` units, and the channel mixer's."""

    channels: int
    order: int
    hidden: int
    expand: int


def of_blocks(family: str, blocks: int, **sizes: Size) -> list[BlockSizes]:
    """The sizes of each block, by the names of :class:`BlockSizes`.

    Raises:
        InputError: a size below 1, or a list that has not one entry for each block.
    """
    each = {name: per_layer(family, name, size, blocks) for name, size in sizes.items()}
    return [BlockSizes(**{name: found[i] for name, found in each.items()}) for i in range(blocks)]


def of_stages(family: str, stages: int, filters: Size | None, dim: int) -> list[int]:
    """The channels that each stage of a tokenizer answers with: ``dim`` of the last, whose answer the tokens are.

    Raises:
        InputError: a size below 1, or a list that has not one entry for each stage but the last.
    """
    return [*per_layer(family, "filters", dim if filters is None else filters, stages - 1), dim]


def resized(widths: Mapping[str, Width], sizes: Mapping[str, int]) -> dict[str, int | list[int]]:
    """The arguments that change for the ``sizes`` of ``widths``: those that follow ``dim`` are then said outright."""
    changed: dict[str, int | list[int]] = {}
    for argument in ("dim", *FOLLOWING, "channels", "order"):
        names = [name for name in widths if name.split(".")[-1] == argument]
        if names and (differing(widths, sizes, names) or (argument in FOLLOWING and "dim" in changed)):
            changed[argument] = at_once([sizes[name] for name in names])
    return changed
