"""Files to a board. What is there stays as it is until the new one is complete.

rsync where both ends have it, which leaves what is there already where it is; else tar, over the link. Whatever comes
is unpacked beside its target under another name, and takes its place by a rename.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeseq.devices.remote.staging import staging
from edgeseq.errors import DeviceUnreachable, EdgeseqError, InputError

if TYPE_CHECKING:
    from edgeseq.devices.remote.ssh import Link

_ITEM, _END = "item", "end"  # in an archive: what is sent, and after it the sign that it came whole
_SCRIPT_SECONDS = 60.0

# $1 staging folder. Says whether there is an rsync.
_PREPARE = """
LC_ALL=C; export LC_ALL
mkdir -p -- "$1" || exit 1
command -v rsync 2>/dev/null || :
"""
# $1 staging folder, $2 target. A folder has to make way before another takes its name; a file is replaced at once.
_PLACE = f"""
place() {{
  if [ -d "$1/{_ITEM}" ] || [ -d "$2" ]; then
    if [ -e "$2" ] || [ -L "$2" ]; then mv -- "$2" "$1/old" || return 1; fi
    mv -- "$1/{_ITEM}" "$2" || {{ [ ! -e "$1/old" ] || mv -- "$1/old" "$2"; return 1; }}
  else
    mv -f -- "$1/{_ITEM}" "$2"
  fi
}}
place "$@"; code=$?
rm -rf -- "$1"
exit $code
"""
_UNPACK = f"""
LC_ALL=C; export LC_ALL
trap '' PIPE  # where nobody listens any more, dash would die of saying that tar was ended
trap 'rm -rf -- "$1"; exit 1' HUP INT TERM
rm -rf -- "$1/{_ITEM}"
tar -x -o -f - -C "$1" && [ -e "$1/{_END}" ] || {{ rm -rf -- "$1"; exit 1; }}
{_PLACE}"""
_FULL = ("No space left on device", "Disk quota exceeded")
_MENDS = (
    ("No space left on device", "make room on the board (df -h shows where)"),
    ("Wrote only", "make room on the board (df -h shows where)"),
    ("Disk quota exceeded", "make room on the board"),
    ("Read-only file system", "mount it for writing, or choose another place"),
    ("Permission denied", "choose a place that its user may write to"),
    ("tar: not found", "install tar there"),
)


def send(link: Link, local: Path, remote: str, timeout: float | None = None) -> None:
    """Make ``remote`` (relative to the home, or absolute) on the board a copy of a file or folder here.

    Links are followed. Folders on the way are made. Interrupted, or without room, it leaves ``remote`` untouched.

    Raises:
        InputError: there is nothing to send, or ``remote`` is no path.
        DeviceUnreachable: the link was lost, or the board has no room or does not let it be written.
    """
    if not local.exists():
        raise InputError(f"{local} is not there to be sent to {link.name}")
    parent, target = _split(remote)
    made = staging(parent, link.owner)
    doing = f"sending {str(local)!r} to {remote!r}"
    try:
        both = bool(_script(link, doing, _PREPARE, [made])) and shutil.which("rsync")
        if both and _rsync(link, doing, local, f"{made}/{_ITEM}", PurePosixPath(target).name, timeout):
            _script(link, doing, _PLACE, [made, target])
        else:
            _send_archive(link, doing, local, [made, target], timeout)
    except BaseException:
        with contextlib.suppress(EdgeseqError):
            link.run(["rm", "-rf", "--", made], timeout=_SCRIPT_SECONDS)
        raise


def _split(remote: str) -> tuple[str, str]:
    """The folder that a path on the board is in, and the path; neither can be taken for an option."""
    path = PurePosixPath(remote)
    if path.name in ("", "..") or remote.startswith("~") or "\0" in remote:
        raise InputError(f"{remote!r} is no path to send to: give one relative to the home, or from / on")
    start = "" if path.is_absolute() else "./"
    return f"{start}{path.parent}", f"{start}{path}"


def _script(link: Link, doing: str, text: str, args: Sequence[str]) -> str:
    done = link.script(text, args, timeout=_SCRIPT_SECONDS)
    if done.code:
        raise _failed(link, doing, done.stderr)
    return done.stdout.strip()


def _rsync(link: Link, doing: str, local: Path, item: str, name: str, timeout: float | None) -> bool:
    """Whether rsync did it; false where a board's shell says more than rsync bears, and tar says what is the matter.

    Not of a full disk, which all would be sent to once more to hear of it.
    """
    # -s: paths are no words for the shell there. -c: two files of one size and one second need not be the same.
    command = ["rsync", "-rptLcs", "-e", shlex.join(link.shared)]
    if local.is_dir():
        command += [f"--link-dest=../../{name}", "--", f"{local.absolute()}/", f"board:{item}/"]
    else:
        command += ["--", f"{local.absolute()}", f"board:{item}"]
    with link.client(command) as process:
        try:
            _, said = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DeviceUnreachable(f"{link.name}: {local} was not sent after {timeout:g} s") from None
    words = said.decode(errors="replace").strip()
    if process.returncode and not link.alive():
        raise link.lost(f"sending {str(local)!r}", words)
    if process.returncode and any(sign in words for sign in _FULL):
        raise _failed(link, doing, words)
    return process.returncode == 0


def _send_archive(link: Link, doing: str, local: Path, args: Sequence[str], timeout: float | None) -> None:
    with tempfile.TemporaryFile() as archive:
        try:
            # The GNU format: busybox cannot read long names in that of POSIX.
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, dereference=True) as opened:
                opened.add(local, _ITEM, filter=_nobody)
                opened.addfile(tarfile.TarInfo(_END))
        except OSError as error:
            raise InputError(f"{error.filename or local} cannot be read: {error.strerror}") from None
        size = archive.tell()
        archive.seek(0)
        code, said = link.stream(["sh", "-c", _UNPACK, "sh", *args], archive, size, lambda _: None, timeout)
    if code:
        raise _failed(link, doing, said)


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _failed(link: Link, doing: str, said: str) -> DeviceUnreachable:
    lines = said.strip().splitlines()
    told = next(
        (line for text, _ in _MENDS for line in lines if text in line), lines[-1] if lines else "it did not say why"
    )
    mend = next((f": {mend}" for text, mend in _MENDS if text in told), "")
    return DeviceUnreachable(f"{link.name}: {doing} failed ({told}){mend}")
