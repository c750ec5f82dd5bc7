"""The step program of a model folder, captured in memory where the folder has none yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeseq.cli.output import installed
from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder

if TYPE_CHECKING:
    from edgeseq.manifest import MemoryForm
    from edgeseq.program import Program


@dataclass(frozen=True)
class Captured:
    """The step program of a folder and the forms of its linear memories; without it, what is ``missing`` for one."""

    program: Program | None = None
    memories: Mapping[str, MemoryForm] = field(default_factory=dict)
    missing: str = ""


def captured(folder: Folder, *, trust: bool) -> Captured:
    """The folder's step program as export wrote it, or as it would, where torch is installed."""
    from edgeseq.program import Program
    from edgeseq.program.graph import JSON_NAME

    if JSON_NAME in folder.manifest.files:
        return Captured(Program.read(folder.path), folder.manifest.memories)
    if not installed("torch"):
        return Captured(missing="torch is not installed here, and without it only exported folders are counted")
    from edgeseq.export.capture import capture
    from edgeseq.export.lower import lower
    from edgeseq.models.store import load_model

    try:
        form = lower(load_model(folder, trust=trust))
        return Captured(capture(form), form.memories)
    except EdgeseqError as error:
        return Captured(missing=str(error))
