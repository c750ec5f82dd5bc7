"""edgeseq: streaming sequence models, from training to a proven file on a small computer.

import edgeseq

session = edgeseq.Session("runs/gru-export")
logits = session.step(frame)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseq.devices.session import Session
    from edgeseq.folder import open_folder
    from edgeseq.models.store import save_model

__version__ = "0.1.0"
__all__ = ["Session", "__version__", "open_folder", "save_model"]


def __getattr__(name: str) -> Any:  # imported at first use, so that `edgeseq --help` answers at once
    if name == "Session":
        from edgeseq.devices.session import Session

        return Session
    if name == "open_folder":
        from edgeseq.folder import open_folder

        return open_folder
    if name == "save_model":
        from edgeseq.models.store import save_model

        return save_model
    raise AttributeError(f"module 'edgeseq' has no attribute {name!r}")
