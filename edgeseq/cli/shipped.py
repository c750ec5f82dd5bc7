"""What a model's weights take to ship: bytes, bits for each parameter, how each tensor is coded, and what is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgeseq.card import Zeros, loaded_as
from edgeseq.cli.output import Show, kilobytes
from edgeseq.folder import PACKED_NAME, Folder, shipped_bytes, zeros_of

if TYPE_CHECKING:
    from edgeseq.packed_file import Listed

LOADED = (".onnx", ".tflite", "step.safetensors")  # how the names of files end that engines load


class Shipped(msgspec.Struct, frozen=True):
    """``bytes`` in all; ``tensors`` of weights.packed, none where the numbers ship as they are.

    ``places`` are the parameters with those that were pruned, ``zeros`` what is 0 of the maps that were (None: none
    were); ``loaded`` the files that engines load, with their bytes, and ``loaded_as`` what they hold the weights in.
    """

    bytes: int
    bits_per_parameter: float | None
    places: int | None
    zeros: Zeros | None
    loaded: dict[str, int]
    loaded_as: str
    tensors: tuple[Listed, ...]

    def shown(self) -> str:
        """For people: what ships."""
        if self.bits_per_parameter is None or self.places is None:
            return f"{self.bytes:,} bytes of weights"
        left = f" ({self.places - self.zeros.count:,} not 0)" if self.zeros else ""
        return (
            f"{self.bytes:,} bytes of weights, {self.bits_per_parameter:.2f} bits for each of {self.places:,} "
            f"parameters{left}"
        )

    def shown_loaded(self) -> str:
        """For people: what engines load."""
        files = ", ".join(f"{name} ({size:,} bytes)" for name, size in self.loaded.items())
        return f"{files}: " * bool(files) + f"the weights as {self.loaded_as}"


def shipped(folder: Folder, parameters: int | None) -> Shipped | None:
    """Of a folder with so many ``parameters`` that are there (None: not known); None where it holds no weights."""
    if not folder.has_weights:
        return None
    from edgeseq.packed_file import list_packed

    size, zeros = shipped_bytes(folder), zeros_of(folder)
    places = None if parameters is None else parameters + (zeros.count if zeros else 0)
    return Shipped(
        bytes=size,
        bits_per_parameter=8 * size / places if places else None,
        places=places,
        zeros=zeros,
        loaded={name: folder.file(name).stat().st_size for name in folder.manifest.files if name.endswith(LOADED)},
        loaded_as=loaded_as(folder.manifest),
        tensors=list_packed(folder.file(PACKED_NAME)) if PACKED_NAME in folder.manifest.files else (),
    )


def shrunk(before: int | None, after: int) -> str:
    """For people: bytes of weights that ship, beside what they were (None: not known)."""
    if before is None:
        return f"weights ship in {kilobytes(after)}"
    times = max(before, after) / max(min(before, after), 1)
    other = "smaller" if after <= before else "larger"
    return f"weights ship in {kilobytes(after)}, were {kilobytes(before)} ({times:.1f} times {other})"


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
