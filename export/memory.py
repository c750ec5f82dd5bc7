"""How a memory that is linear is computed on the device: by its recurrence, or by its impulse response.

    recurrence         m_t = A m_{t-1} + B u_t,  z_t = W m_t     U Q (Q + 1) + H U Q products
    impulse response   z_t = Σ_{k<K} (W A^k B) u_{t-k}            H U K products: the map W is folded into the taps
                       m_t = Σ_{k<K} A^k B u_{t-k}                U Q K products, where no map reads the memory

The second keeps the last K inputs in place of the memory, cannot diverge, and is cut off where what is lost is within
``ERROR`` of the largest memory that a bounded input can make (:func:`edgeseq.models.legendre.taps_for`): less than
float32 shows, so that the proof holds it to the same tolerances. The cheaper one is taken. Ahead of spikes the memory
passes a norm alone; if what it is given are spikes too, the taps only add.

A block that can have taps calls ``memory.step(u, m)`` and gives what that returns, flattened, to its reader: a linear
map, of other inputs behind it too, or an affine one of each element. Both are replaced, and the block runs as it did.

Shape letters: U memory channels, Q order, K taps, H outputs of the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.manifest import MemoryForm
from edgeseq.models.contract import Store
from edgeseq.models.legendre import LegendreMemory, discretize, impulse_response, taps_for
from edgeseq.models.listening import INNER, Listening
from edgeseq.models.lmu import Lmu
from edgeseq.models.lmuformer import Lmuformer
from edgeseq.models.norms import Affine
from edgeseq.models.spiking_lmuformer import SpikingLmuformer

ERROR = 1e-6
MOVE = 1.0  # what shifting one kept input by a place costs, in products: see benchmarks/memory_forms.py
FORMS = ("auto", "recurrence", "taps")

# What reads the memory in each of the ``blocks`` of these families, and of no other: one from outside may read the
# memory of such a block in ways of its own.
READERS: dict[type[nn.Module], str] = {Lmu: "mixer", Lmuformer: "mixer", SpikingLmuformer: "remembered.norm"}


class Taps(nn.Module):
    """The last K inputs of a :class:`LegendreMemory`, in its place."""

    taps: Tensor

    def __init__(self, memory: LegendreMemory, taps: int) -> None:
        super().__init__()
        self.channels = memory.channels
        self.register_buffer("taps", _response(memory, taps).to(memory.A))  # of the proof only: no step reads it

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, U, K)``."""
        return self.taps.new_zeros(batch, self.channels, len(self.taps))

    def step(self, u: Tensor, window: Tensor) -> Tensor:
        """``u (B, U)`` and the last inputs ``(B, U, K)``, the oldest first, to the next of them."""
        return torch.cat([window[..., 1:], u[..., None]], -1)

    def trained_state(self, window: Tensor) -> Tensor:
        """The memory ``(B, U, Q)`` that the last inputs ``(B, U, K)`` stand for."""
        return window @ self.taps


class Recall(nn.Module):
    """The memory made of its last inputs, and then its ``reader``."""

    def __init__(self, memory: LegendreMemory, reader: nn.Module, taps: int) -> None:
        super().__init__()
        self.channels, self.reader = memory.channels, reader
        self.map = nn.Linear(taps, memory.order, bias=False).to(memory.A)
        with torch.no_grad():
            self.map.weight.copy_(_response(memory, taps).T)

    def forward(self, window: Tensor) -> Tensor:
        """``window (B, UK)`` to what the reader says of the memory ``(B, UQ)``."""
        answer: Tensor = self.reader(self.map(window.unflatten(-1, (self.channels, -1))).flatten(-2))
        return answer


def folded_reader(memory: LegendreMemory, reader: nn.Linear, taps: int) -> nn.Linear:
    """What ``reader`` says of the memory, and of its inputs behind that, as a map of the last inputs and of those."""
    weight, size = reader.weight.double(), memory.channels * memory.order
    remembered = weight[:, :size].unflatten(1, (-1, memory.order))  # (H, U, Q)
    response = _response(memory, taps)
    folded = torch.cat([(remembered @ response.T).flatten(1), weight[:, size:]], 1)  # (H, UK + others)
    made = nn.Linear(folded.shape[1], folded.shape[0]).to(reader.bias)
    with torch.no_grad():
        made.weight.copy_(folded)
        made.bias.copy_(reader.bias)
    return made


def _response(memory: LegendreMemory, taps: int) -> Tensor:
    """What each of the last inputs has left in the memory, ``(K, Q)`` in float64, the oldest input first."""
    return impulse_response(*discretize(memory.order, memory.theta), taps).flip(0)


def choose(block: nn.Module, form: str, reader: str = "mixer") -> MemoryForm:
    """The form that the memory of ``block`` is to have, which ``reader`` reads; with "auto" the cheaper one.

    A memory that is rounded, or whose A and B are, has its recurrence only.

    Raises:
        Unsupported: taps are asked for, and the block rounds its memory or quantizes what reads it.
    """
    memory, read = cast(LegendreMemory, block.memory), block.get_submodule(reader)
    size, taps = memory.channels * memory.order, taps_for(memory.order, memory.theta, ERROR)
    outputs = 0 if isinstance(read, Affine) else cast(nn.Linear, read).out_features
    by_steps, by_taps = size * (memory.order + 1 + outputs), (outputs * memory.channels or size) * taps
    foldable = isinstance(read, (nn.Linear, Affine)) and isinstance(memory.store, Store) and memory.limit is None
    if form == "taps" and not foldable:
        raise Unsupported(
            "an LMU with int8 layers or a rounded state or memory runs as its recurrence: taps hold what reads them "
            "folded in. "
            "Use --memory recurrence, or a float32 model"
        )
    if form == "auto":
        form = "taps" if foldable and by_taps + MOVE * memory.channels * taps < by_steps else "recurrence"
    return MemoryForm(form, by_steps, by_taps, taps)


def with_forms(model: nn.Module, forms: str | Mapping[str, str]) -> dict[str, MemoryForm]:
    """Give each memory of a model, in place, its form: one of ``FORMS`` for all, or one for each block by name.

    Batch norms are folded already. Returns the choices by the names of the blocks.

    Raises:
        InputError: an unknown form, or one for a block that the model does not have.
        Unsupported: taps are asked for, and there is nothing that could have them.
    """
    owner, inside = (model.model, INNER) if isinstance(model, Listening) else (model, "")
    reader = READERS.get(type(owner), "")
    parts = enumerate(cast(nn.ModuleList, owner.blocks)) if reader else ()
    blocks = {f"{inside}blocks.{i}": block for i, block in parts}
    if forms == "taps" and not blocks:
        known = ", ".join(family.__name__ for family in READERS)
        raise Unsupported(f"this model has no memory that could be kept as taps: only models of {known} have")
    for form in [forms] if isinstance(forms, str) else forms.values():
        if form not in FORMS:
            raise unknown("form of a memory", form, FORMS)
    asked = dict.fromkeys(blocks, forms) if isinstance(forms, str) else dict(forms)
    if set(asked) != set(blocks):
        raise InputError(f"memories {sorted(blocks)} need a form each, not {sorted(asked)}: export the model anew")
    choices = {name: choose(block, asked[name], reader) for name, block in blocks.items()}
    for name, choice in choices.items():
        if choice.form == "taps":
            with_taps(blocks[name], choice.taps, reader)
    return choices


def with_taps(block: nn.Module, taps: int, reader: str = "mixer") -> None:
    """Put the last ``taps`` inputs in place of the memory of ``block``, and fold its ``reader`` into them."""
    memory, read = cast(LegendreMemory, block.memory), block.get_submodule(reader)
    made = folded_reader(memory, read, taps) if isinstance(read, nn.Linear) else Recall(memory, read, taps)
    block.set_submodule(reader, made)
    block.memory = Taps(memory, taps)
