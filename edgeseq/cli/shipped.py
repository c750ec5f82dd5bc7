"""What a model's weights take to ship: bytes, bits for each parameter, and how each tensor is coded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgeseq.cli.output import Show
from edgeseq.folder import PACKED_NAME, Folder, shipped_bytes

if TYPE_CHECKING:
    from edgeseq.packed_file import Listed


class Shipped(msgspec.Struct, frozen=True):
    """``bytes`` in all; ``tensors`` of weights.packed, none where the numbers ship as they are."""

    bytes: int
    bits_per_parameter: float | None
    tensors: tuple[Listed, ...]

    def shown(self) -> str:
        """For people."""
        bits = "" if self.bits_per_parameter is None else f", {self.bits_per_parameter:.2f} bits for each parameter"
        return f"{self.bytes:,} bytes of weights{bits}"


def shipped(folder: Folder, parameters: int | None) -> Shipped | None:
    """Of a folder with so many ``parameters`` (None: not known); None where it holds no weights."""
    if not folder.has_weights:
        return None
    from edgeseq.packed_file import list_packed

    size = shipped_bytes(folder)
    tensors = list_packed(folder.file(PACKED_NAME)) if PACKED_NAME in folder.manifest.files else ()
    return Shipped(size, 8 * size / parameters if parameters else None, tensors)


def show_tensors(show: Show, found: Shipped) -> None:
    """The tensors that are coded, each in a line, and the others together."""
    if not found.tensors:
        return
    coded = [tensor for tensor in found.tensors if tensor.coded]
    plain = [tensor for tensor in found.tensors if not tensor.coded]
    rows = [[each.name, "×".join(map(str, each.shape)), each.coding, f"{each.size:,}"] for each in coded]
    rows.append([f"{len(plain)} others", "", "as they are", f"{sum(each.size for each in plain):,}"])
    rows.append(["names and codes", "", "", f"{found.bytes - sum(each.size for each in found.tensors):,}"])
    show.table(["tensor", ">shape", "coding", ">bytes"], rows)
