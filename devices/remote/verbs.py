"""A verb of ``python -m edgeseq.devices`` on a board: the document that it prints there, or the error it ended with."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import msgspec

from edgeseq.devices.remote.command import Done
from edgeseq.devices.remote.deploy import Place
from edgeseq.devices.remote.refusals import last_lines
from edgeseq.devices.remote.ssh import Link
from edgeseq.errors import DeviceUnreachable, EdgeseqError, GateFailed, InputError, MissingDependency, Unsupported

_KINDS: dict[int, type[EdgeseqError]] = {
    kind.exit_code: kind for kind in (InputError, MissingDependency, Unsupported, GateFailed)
}
_DAMAGED = 10
# Ends with that where a folder is not as it was sent: its files are not those of its manifest.
_OPEN = f"""
import sys
from edgeseq.errors import InputError
from edgeseq.folder import open_folder
try:
    open_folder(sys.argv[1])
except InputError:
    sys.exit({_DAMAGED})
"""


def call(
    link: Link, place: Place, verb: str, paths: Sequence[str], options: Sequence[str], timeout: float | None, doing: str
) -> dict[str, Any]:
    """Run a verb on folders there; returns its document. ``doing`` says what it does, in an error.

    A folder that was damaged there, by a power cut or somebody's hand, is removed; of several, none is: whoever calls
    with each alone hears which one it is.

    Raises:
        EdgeseqError: what the verb ended with.
        DeviceUnreachable: it ended without a word, or the link was lost.
    """
    done = place.run(link, [place.python, "-m", "edgeseq.devices", verb, *paths, "--json", *options], timeout)
    try:
        return document(link, done, doing)
    except InputError as error:
        if len(paths) != 1 or place.run(link, [place.python, "-c", _OPEN, *paths]).code != _DAMAGED:
            raise
        place.run(link, ["rm", "-rf", "--", *paths])
        raise InputError(f"{error} (removed there: the same command sends it again)") from None


def document(link: Link, done: Done, doing: str) -> dict[str, Any]:
    """What a program there printed, as the verbs do: JSON, in the last line.

    Raises:
        EdgeseqError: the error that it holds.
        DeviceUnreachable: it is none.
    """
    try:
        found = msgspec.json.decode(done.stdout.strip().rpartition("\n")[2], type=dict[str, Any])
    except msgspec.MsgspecError:
        raise DeviceUnreachable(f"{link.name}: {doing} {_ended(done)}") from None
    if "error" in found:
        failed = found["error"]
        raise error_of(failed["exit_code"], f"{link.name}: {doing}: {failed['message']}")
    return found


def _ended(done: Done) -> str:
    if 128 < done.code < 128 + signal.NSIG:
        name = signal.Signals(done.code - 128).name
        why = ", which is what a board does that has no memory left" if name == "SIGKILL" else ""
        return f"was ended there by {name}{why}: {last_lines(done.stderr, 3)}"
    return f"failed there: {last_lines(done.stderr, 3)}"


def error_of(exit_code: int, message: str) -> EdgeseqError:
    """The error that has this exit code; DeviceUnreachable where a board's own has none that means the same here."""
    kind = _KINDS.get(exit_code, DeviceUnreachable)
    error = kind.__new__(kind)
    EdgeseqError.__init__(error, message)  # not its own: that of a missing package words its message itself
    return error


def one_error(errors: Sequence[EdgeseqError], message: str) -> EdgeseqError:
    """One error for several: of their kind where they are of one, else DeviceUnreachable."""
    codes = {error.exit_code for error in errors}
    return error_of(codes.pop() if len(codes) == 1 else DeviceUnreachable.exit_code, message)
