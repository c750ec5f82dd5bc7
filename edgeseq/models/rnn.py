"""Recurrent networks: Elman's with tanh or ReLU, gated recurrent units, long short-term memory.

The cells, their equations and where they come from: :mod:`edgeseq.models.cells`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeseq.models.cells import RecurrentStack, stacked_cells
from edgeseq.models.places import at_once, differing, per_layer


class Rnn(RecurrentStack):
    """Stacked recurrent layers and a linear read-out at every frame.

    Arguments: ``hidden`` units, one number for all ``layers`` or one for each, ``cell`` ("tanh", "relu", "gru" or
    "lstm"), ``dropout`` before every layer but the first and before the read-out (training only), ``timescale`` in
    steps up to which units remember at the start (0: as torch starts its own).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: int | Sequence[int] = 64,
        layers: int = 1,
        cell: str = "gru",
        dropout: float = 0.0,
        timescale: float = 0.0,
    ) -> None:
        cells = stacked_cells("rnn", cell, input_size, per_layer("rnn", "hidden", hidden, layers), timescale)
        super().__init__(input_size, output_size, cells, dropout)

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        widths = self.widths()
        return {"hidden": at_once([sizes[each] for each in widths])} if differing(widths, sizes, list(widths)) else {}
