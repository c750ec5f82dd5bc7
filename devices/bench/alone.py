"""One measurement at a time on a machine: two at once would measure each other.

Who measures holds a lock on a file in the user's cache, which has a name of its own for each machine that shares that
folder. The system releases the lock when the process ends, however that comes.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from edgeseq.devices.engines.choice import memory_file
from edgeseq.errors import InputError


def lock_file() -> Path:
    """Where the lock of this machine lies: beside the remembered choices of engines."""
    return memory_file().with_name(f"bench-{re.sub(r'[^A-Za-z0-9.-]', '_', platform.node())}.lock")


@contextmanager
def alone(*, wait: bool = False) -> Iterator[None]:
    """Measure while no other process of this user does; with ``wait``, after the one that does.

    Where there can be no lock that is said on standard error, and nothing keeps a second one away.

    Raises:
        InputError: another process measures, and is not to be waited for; the message names it.
    """
    with ExitStack() as held:
        path = lock_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b"))
            _take(lock, path, wait)
        except (OSError, ImportError) as error:
            print(f"edgeseq: nothing keeps another bench from measuring here meanwhile: {error}", file=sys.stderr)
        yield


def _take(lock: FileIO, path: Path, wait: bool) -> None:
    import fcntl  # here: the rest runs where there is none

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = lock.read(32).decode("ascii", "replace").strip()
        who = f"process {number}" if number.isdigit() else "another process"
        if not wait:
            raise InputError(
                f"{who} measures on this machine, and two at once would measure each other: wait until it has ended, "
                f"or end it (it holds {path})"
            ) from None
        print(f"edgeseq: waiting until {who} has measured here", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    with suppress(OSError):  # a full disk: the lock is held all the same, and nobody reads by whom
        lock.truncate(0)
        lock.seek(0)
        lock.write(f"{os.getpid()}\n".encode())
