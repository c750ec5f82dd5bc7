"""Files that others read while they are written anew: they see what was there before, or all of what is new."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def replace_file(file: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file beside the one of that name, whose place it takes when it is whole, and whose permissions it keeps.

    A link stays one: what it points to is replaced. A pipe or a device is written to. With ``sync`` the content is on
    the disk when this returns.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    file = Path(os.path.realpath(file))  # Path.resolve raises what is no OSError where links go round
    if file.exists() and not file.is_file():
        file.write_bytes(content)
        return
    staging = file.with_name(f".{file.name}.{os.urandom(4).hex()}.new")
    try:
        with staging.open("xb") as opened:
            opened.write(content)
            if sync:
                opened.flush()
                os.fsync(opened.fileno())
        if file.exists():
            shutil.copymode(file, staging)
        staging.replace(file)
    except OSError:
        with suppress(OSError):
            staging.unlink()
        raise
