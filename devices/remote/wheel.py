"""A wheel of what a board needs of edgeseq, made of the package that runs here: without a build, pip or a network.

The same package gives the same bytes, so that a board can be asked whether it has it already.
"""

from __future__ import annotations

import hashlib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path

import edgeseq
from edgeseq.folder import MODEL_FILES

# The rooms and files that `python -m edgeseq.devices` imports from; a test holds them to it.
ROOMS = ("devices", "program")
FILES = ("__init__", "card", "decisions", "early", "errors", "folder", "manifest")
HOST_ONLY = ("devices/live", "devices/remote", "devices/report")
# As pyproject.toml has them; a test compares.
BASE = ("numpy>=1.24", "msgspec>=0.18", "safetensors>=0.4")
RUNTIMES = {"tflite": "ai-edge-litert>=2.0", "onnx": "onnxruntime>=1.19"}  # what runs a format, on a 64-bit board
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first second that an archive can say


def runtimes(formats: Iterable[str]) -> tuple[str, ...]:
    """What pip is asked for to run files of these formats (:data:`~edgeseq.folder.MODEL_FILES`)."""
    wanted = set(formats)
    return tuple(RUNTIMES[name] for name in MODEL_FILES if name in wanted)


def build_wheel(into: Path) -> Path:
    """Write the wheel into a folder and return it. Its name is the version's, its bytes are the content's."""
    version = edgeseq.__version__
    info = f"edgeseq-{version}.dist-info"
    entries = dict(_modules(Path(edgeseq.__file__).parent))
    entries[f"{info}/METADATA"] = _metadata(version)
    entries[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgeseq\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    entries[f"{info}/RECORD"] = _record(entries, f"{info}/RECORD")
    made = into / f"edgeseq-{version}-py3-none-any.whl"
    # Stored as it is: what a compressor makes of it depends on the zlib at hand.
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as wheel:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix, on any system
            wheel.writestr(entry, content)
    return made


def _modules(package: Path) -> Iterator[tuple[str, bytes]]:
    """The modules by their place in the wheel, in order. The rooms may be links in the package."""
    found = [(f"{name}.py", package / f"{name}.py") for name in FILES]
    for room in ROOMS:
        found += [
            (f"{room}/{file.relative_to(package / room).as_posix()}", file) for file in (package / room).rglob("*.py")
        ]
    for name, file in sorted(found):
        if not name.startswith(tuple(f"{room}/" for room in HOST_ONLY)):
            yield f"edgeseq/{name}", file.read_bytes()


def _metadata(version: str) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        "Name: edgeseq",
        f"Version: {version}",
        "Summary: What a board needs of edgeseq: python -m edgeseq.devices",
        "License: Apache-2.0",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in BASE),
    ]
    return ("\n".join(lines) + "\n").encode()


def _record(entries: dict[str, bytes], own: str) -> bytes:
    """A line for each file with its hash and size; the file itself stands there without."""
    lines = [
        f"{name},sha256={urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}"
        for name, content in entries.items()
    ]
    return ("\n".join([*lines, f"{own},,"]) + "\n").encode()
