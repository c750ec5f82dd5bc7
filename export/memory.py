"""How a memory that is linear is computed on the device: by its recurrence, or by its impulse response.

    recurrence         m_t = A m_{t-1} + B u_t,  z_t = W m_t     U Q (Q + 1) + H U Q products
    impulse response   z_t = Σ_{k<K} (W A^k B) u_{t-k}            H U K products: the map W is folded into the taps

The second keeps the last K inputs in place of the memory, cannot diverge, and is cut off where what is lost is within
``ERROR`` of the largest memory that a bounded input can make (:func:`edgeseq.models.legendre.taps_for`): less than
float32 shows, so that the proof holds it to the same tolerances. The cheaper one is taken.

Shape letters: U memory channels, Q order, K taps, C inputs and H outputs of the block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseq.errors import InputError, Unsupported, unknown
from edgeseq.manifest import MemoryForm
from edgeseq.models.contract import Store
from edgeseq.models.legendre import discretize, impulse_response, taps_for
from edgeseq.models.lmu import Lmu, LmuBlock

ERROR = 1e-6
MOVE = 1.0  # what shifting one kept input by a place costs, in products: see benchmarks/memory_forms.py
FORMS = ("auto", "recurrence", "taps")


class TapsBlock(nn.Module):
    """An :class:`LmuBlock` that keeps the last K inputs of its memory, with the mixer folded into the taps."""

    taps: Tensor

    def __init__(self, block: LmuBlock, taps: int) -> None:
        super().__init__()
        self.encoder, self.residual, self.channels = block.encoder, block.residual, block.memory.channels
        a, b = discretize(block.memory.order, block.memory.theta)
        response = impulse_response(a, b, taps).flip(0)  # (K, Q), float64; the oldest input first
        mixer, size = block.mixer, block.memory.channels * block.memory.order
        remembered = mixer.weight[:, :size].double().unflatten(1, (-1, block.memory.order))  # (H, U, Q)
        folded = torch.cat([(remembered @ response.T).flatten(1), mixer.weight[:, size:].double()], 1)  # (H, UK + C)
        self.mixer = nn.Linear(folded.shape[1], folded.shape[0])
        with torch.no_grad():
            self.mixer.weight.copy_(folded)
            self.mixer.bias.copy_(mixer.bias)
        self.register_buffer("taps", response.to(mixer.weight.dtype))  # of the proof only: no step reads it

    def initial_state(self, batch: int) -> Tensor:
        """Zeros ``(B, U, K)``."""
        return self.taps.new_zeros(batch, self.channels, len(self.taps))

    def step(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, C)`` and the last inputs ``(B, U, K)``, the oldest first, to ``h (B, H)`` and the next of them."""
        window = torch.cat([window[..., 1:], self.encoder(x)[..., None]], -1)  # (B, U, K)
        h = torch.relu(self.mixer(torch.cat([window.flatten(1), x], -1)))  # (B, H)
        return (x + h if self.residual else h), window

    def trained_state(self, window: Tensor) -> Tensor:
        """The memory ``(B, U, Q)`` that the last inputs ``(B, U, K)`` stand for."""
        return window @ self.taps


def choose(block: LmuBlock, form: str) -> MemoryForm:
    """The form that ``block`` is to have; with "auto" the cheaper one. A rounded memory has its recurrence only.

    Raises:
        Unsupported: taps are asked for, and the block rounds its memory or quantizes what reads it.
    """
    memory = block.memory
    channels, order = memory.channels, memory.order
    outputs = block.mixer.out_features
    taps = taps_for(order, memory.theta, ERROR)
    by_steps, by_taps = channels * order * (order + 1 + outputs), outputs * channels * taps
    foldable = isinstance(block.mixer, nn.Linear) and isinstance(memory.store, Store)
    if form == "taps" and not foldable:
        raise Unsupported(
            "an LMU with int8 layers or a rounded state runs as its recurrence: taps hold the mixer folded into them. "
            "Use --memory recurrence, or a float32 model"
        )
    if form == "auto":
        form = "taps" if foldable and by_taps + MOVE * channels * taps < by_steps else "recurrence"
    return MemoryForm(form, by_steps, by_taps, taps)


def with_forms(model: nn.Module, forms: str | Mapping[str, str]) -> dict[str, MemoryForm]:
    """Give each memory of an :class:`Lmu`, in place, its form: one of ``FORMS`` for all, or one for each block by name.

    Returns the choices by the names of the blocks.

    Raises:
        InputError: an unknown form, or one for a block that the model does not have.
        Unsupported: taps are asked for, and there is nothing that could have them.
    """
    # Of this family alone, whose states are its blocks': another may read the memory of a block in ways of its own.
    blocks = {f"blocks.{i}": block for i, block in enumerate(model.blocks)} if type(model) is Lmu else {}
    if forms == "taps" and not blocks:
        raise Unsupported("this model has no memory that could be kept as taps: only the feed-forward lmu has")
    for form in [forms] if isinstance(forms, str) else forms.values():
        if form not in FORMS:
            raise unknown("form of a memory", form, FORMS)
    asked = dict.fromkeys(blocks, forms) if isinstance(forms, str) else dict(forms)
    if set(asked) != set(blocks):
        raise InputError(f"memories {sorted(blocks)} need a form each, not {sorted(asked)}: export the model anew")
    choices = {name: choose(block, asked[name]) for name, block in blocks.items()}
    for name, choice in choices.items():
        if choice.form == "taps":
            model.set_submodule(name, TapsBlock(blocks[name], choice.taps))
    return choices
