"""One measurement at a time on a machine: two at once would measure each other.

Who measures holds a lock on a file in a folder of the user's own in the system's temporary folder: not in the cache,
for a bench over ssh has another one than a bench that is typed on the board. The file has a name of its own for each
machine that shares the folder, and stays: a lock on one that was deleted would keep nobody away. The system releases
the lock when the process ends, however that comes.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

from edgeseq.errors import InputError


def lock_file() -> Path:
    """Where the lock of this machine and user lies.

    Raises:
        OSError: there is no temporary folder to write to.
    """
    name = f"bench-{re.sub(r'[^A-Za-z0-9.-]', '_', platform.node())}.lock"
    return Path(tempfile.gettempdir()) / f"edgeseq-{os.getuid()}" / name


@contextmanager
def alone(*, wait: bool = False) -> Iterator[None]:
    """Measure while no other process of this user does; with ``wait``, after the one that does.

    Where there can be no lock that is said on standard error, and nothing keeps a second one away.

    Raises:
        InputError: another process measures, and is not to be waited for; the message names it.
    """
    with ExitStack() as held:
        try:
            import fcntl  # noqa: F401  (first: where there is none, users have no numbers either)

            path = lock_file()
            _make_own(path.parent)
            lock = held.enter_context(FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b"))
            _take(lock, path, wait)
        except (OSError, ImportError) as error:
            print(f"edgeseq: nothing keeps another bench from measuring here meanwhile: {error}", file=sys.stderr)
        yield


def _make_own(folder: Path) -> None:
    """Make a folder that is nobody else's, in one where anybody may have made something of that name before.

    Raises:
        OSError: it cannot be made, or is a link, a file or another user's.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{folder} is not a folder of this user: remove it")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


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
