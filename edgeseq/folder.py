"""The model folder: one folder is one model, at every stage. Stages read a folder and write a new one.

Nothing is edited in place: a stage fills a staging folder beside the target, which takes its name only when it is
complete, so that an interrupted stage leaves nothing that looks like a model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.card import Zeros, card
from edgeseq.errors import InputError
from edgeseq.manifest import FORMAT_VERSION, Manifest

MANIFEST_NAME = "manifest.json"
CARD_NAME = "README.md"
WEIGHTS_NAME = "weights.safetensors"
PACKED_NAME = "weights.packed"
HEADER_SIZE = 8  # bytes ahead of a safetensors file's header, which say how long it is
GOLDEN_NAME = "golden.npz"
SIGNATURE = "step"  # of a TFLite file
X, STATE, Y, NEXT_STATE = "x", "state", "y", "next_state"  # the tensors of every model file
MODEL_FILES = {"tflite": "model.tflite", "onnx": "model.onnx"}
_PRETRAINED = Path(__file__).parent / "pretrained"
# Where SHA-256 is: hashlib would load OpenSSL, 3.4 MB of a board's memory, for what Python has built in.
_HASHERS = ("_sha2", "_sha256", "hashlib")


@dataclass(frozen=True)
class Folder:
    """An opened model folder whose files match their hashes."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """The path of one of the folder's files.

        Raises:
            InputError: the folder does not have it.
        """
        if name not in self.manifest.files:
            have = ", ".join(sorted(self.manifest.files))
            raise InputError(f"{self.path} holds no {name} (it holds {have}): run {self.how_to_export}")
        return self.path / name

    @property
    def how_to_export(self) -> str:
        """The command that exports it."""
        trust = " --trust" if ":" in self.manifest.family else ""
        return f"edgeseq export {self.path} --out {self.path}-export{trust}"

    @property
    def formats(self) -> tuple[str, ...]:
        """The exported formats that the folder holds."""
        return tuple(name for name, file in MODEL_FILES.items() if file in self.manifest.files)

    @property
    def has_weights(self) -> bool:
        """Whether the trained tensors are there: a board needs only what was exported."""
        return not self.manifest.files.keys().isdisjoint((WEIGHTS_NAME, PACKED_NAME))

    @property
    def hash(self) -> str:
        """The hash of the manifest, and so of everything in the folder."""
        return _sha256((self.path / MANIFEST_NAME).read_bytes())


def pretrained() -> tuple[str, ...]:
    """The names of the trained models that come with edgeseq."""
    return tuple(sorted(manifest.parent.name for manifest in _PRETRAINED.glob(f"*/{MANIFEST_NAME}")))


def open_folder(path: str | Path) -> Folder:
    """Open a model folder, or a pretrained one by its name, and check every file against its hash.

    Raises:
        InputError: not a model folder, a newer format, or a file that is missing or was changed.
    """
    path = _located(Path(path))
    try:
        raw = (path / MANIFEST_NAME).read_bytes()
    except FileNotFoundError:
        hides = " (and hides the one of that name that comes with edgeseq)" if str(path) in pretrained() else ""
        raise InputError(f"{path} is not a model folder: it has no {MANIFEST_NAME}{hides}") from None
    except OSError as error:
        raise InputError(f"{path / MANIFEST_NAME} cannot be read: {error.strerror}") from None
    manifest = _decode(path, raw)
    for name, expected in manifest.files.items():
        file = path / name
        if Path(name).name != name:
            raise InputError(f"{path / MANIFEST_NAME} names the file {name!r}, which is not in the folder")
        if not file.is_file():
            raise InputError(f"{path} is incomplete: {name} is missing")
        if _sha256(file.read_bytes()) != expected:
            raise InputError(f"{file} was changed after it was written: its sha256 is not the manifest's; make it anew")
    if manifest.digest != _digest(raw):
        raise InputError(f"{path / MANIFEST_NAME} was changed after it was written: make the folder anew")
    return Folder(path, manifest)


def _located(path: Path) -> Path:
    """The folder itself, or where the pretrained one of that name lies; a folder of that name here comes first."""
    if path.is_dir():
        return path
    names = pretrained()
    if str(path) in names:
        return _PRETRAINED / path
    known = f", and with edgeseq come {', '.join(names)}" if names and len(path.parts) == 1 else ""
    raise InputError(f"{path} is not a folder; a model folder is what edgeseq train writes{known}")


def _decode(path: Path, raw: bytes) -> Manifest:
    class Version(msgspec.Struct):
        format: int

    try:
        version = msgspec.json.decode(raw, type=Version).format
        if version > FORMAT_VERSION:
            raise InputError(
                f"{path / MANIFEST_NAME} has format {version}, this edgeseq reads {FORMAT_VERSION}: upgrade edgeseq"
            )
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path / MANIFEST_NAME} cannot be read: {error}") from None


@contextmanager
def new_folder(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A staging folder to fill and :func:`seal`; it becomes ``out`` when the block ends without an error.

    Raises:
        InputError: ``out`` exists (and ``overwrite`` is not set, or it is not a model folder), or cannot be written.
    """
    check_target(Path(out), overwrite=overwrite)
    out = Path(out).resolve()  # a link stays, what it points to is replaced
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None
    staging.chmod(0o755)
    replaced = staging.with_name(f"{staging.name}.old")
    try:
        yield staging
        check_target(out, overwrite=overwrite)  # again: much time may have passed
        if out.exists():
            out.rename(replaced)
        staging.rename(out)
    finally:
        if not out.exists() and replaced.exists():
            replaced.rename(out)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists (with ``overwrite`` only one that is not a model folder) or cannot be made.

    Makes the folder that the target is to lie in.
    """
    if not out.name:
        raise InputError(f"{out} cannot be the target: name a folder that does not exist yet")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(out.parent, os.W_OK)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None
    if not writable:
        raise InputError(f"{out} cannot be written: {out.parent} is read-only")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{out} exists: name another folder with --out, or pass --overwrite")
    if not (out / MANIFEST_NAME).is_file():
        raise InputError(f"{out} exists and is not a model folder, so it is not overwritten: name another one")


def shipped_bytes(folder: Folder) -> int:
    """What the model takes to ship: all of weights.packed, or where there is none the trained tensors as they are.

    Raises:
        InputError: the folder holds neither.
    """
    if PACKED_NAME in folder.manifest.files:
        return folder.file(PACKED_NAME).stat().st_size
    weights = folder.file(WEIGHTS_NAME)
    with weights.open("rb") as file:
        header = int.from_bytes(file.read(HEADER_SIZE), "little")
    return max(weights.stat().st_size - HEADER_SIZE - header, 0)


def zeros_of(folder: Folder) -> Zeros | None:
    """How many weights of the maps that were pruned are 0 in the file; None where none were, or it has no weights."""
    if not folder.manifest.pruned or WEIGHTS_NAME not in folder.manifest.files:
        return None
    from safetensors.numpy import load_file

    held = load_file(folder.file(WEIGHTS_NAME))
    names = (f"{layer}{inner}.weight" for layer in folder.manifest.pruned for inner in ("", ".linear"))
    found = [held[name] for name in names if name in held]
    return Zeros(sum(int((weight == 0).sum()) for weight in found), sum(weight.size for weight in found))


def copy_weights(folder: Folder, staging: Path) -> None:
    """Put the weights of a folder, packed too if they are, into a staging folder as they are."""
    for name in (WEIGHTS_NAME, *([PACKED_NAME] if PACKED_NAME in folder.manifest.files else [])):
        shutil.copyfile(folder.file(name), staging / name)


def seal(staging: Path, manifest: Manifest) -> Manifest:
    """Write the model card and the manifest with the hash of every other file; returns the manifest as written."""
    names = sorted(file.name for file in staging.iterdir() if file.name not in (MANIFEST_NAME, CARD_NAME))
    sealed = msgspec.structs.replace(manifest, files={name: _sha256((staging / name).read_bytes()) for name in names})
    sealed = msgspec.structs.replace(sealed, digest=_digest(msgspec.json.encode(sealed)))
    made = Folder(staging, sealed)
    shipped = shipped_bytes(made) if made.has_weights else None
    (staging / CARD_NAME).write_text(card(sealed, shipped, zeros_of(made)), encoding="utf-8")
    (staging / MANIFEST_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n")
    return sealed


def _digest(raw: bytes) -> str:
    """The sha256 of a manifest's content, whatever its layout in the file and whichever fields this edgeseq knows."""
    content = {**msgspec.json.decode(raw, type=dict[str, Any]), "digest": ""}
    return _sha256(msgspec.json.encode(content, order="sorted"))


def _sha256(content: bytes) -> str:
    module = import_module(next(name for name in _HASHERS if find_spec(name)))
    return str(module.sha256(content).hexdigest())
