"""Why a board could not install what it needs, in plain words: pip's own are pages long, and name no mend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgeseq.devices.remote.probe import Board, Python
from edgeseq.devices.remote.wheel import BASE

LINES = 8  # of what pip said, where nobody knows better
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_READ_ONLY = re.compile(r"Read-only file system")
_CLOCK = re.compile(r"certificate (is not yet valid|has expired)", re.IGNORECASE)
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED.*")
_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Failed to establish a new connection"
    r"|Network is unreachable|Connection refused|Connection to \S+ timed out|Read timed out|ProxyError|Max retries"
)
_ABSENT = re.compile(r"No matching distribution found for (\S+)")
_NO_VENV = re.compile(r"ensurepip is not available|No module named '?(venv|ensurepip|pip)\b")
_PLATFORMS = ("manylinux_2_17", "manylinux_2_27", "manylinux_2_28")


def explain(said: str, board: Board, python: Python, optional: Sequence[str], wheelhouse: Path | None) -> str:
    """What keeps an environment from being made, out of what venv and pip said, and what mends it."""
    if _FULL.search(said) or _READ_ONLY.search(said):
        return explain_write(said)
    if _NO_VENV.search(said):
        return f"its Python {python.version} makes no environments: sudo apt install python3-venv"
    if _CLOCK.search(said):
        return f"its clock is wrong{_ahead(board)}, so that nothing can be installed over https: {_SET_CLOCK}"
    if found := _CERTIFICATE.search(said):
        return (
            f"the package index's certificate is not trusted there ({found[0]}): sudo apt install ca-certificates, or "
            f"{_wheelhouse(board, python, optional)}"
        )
    if wheelhouse is None and (found := _NETWORK.search(said)):
        return f"it reaches no package index ({found[0]}): {_wheelhouse(board, python, optional)}"
    if found := _ABSENT.search(said):
        where = f"the wheelhouse {wheelhouse} holds" if wheelhouse else "the package index has"
        how = f": {how_to_fill(wheelhouse, board, python, optional)}" if wheelhouse else ""
        return f"{where} no wheel of {found[1]} for it ({board.machine}, Python {python.version}, {board.libc}){how}"
    return f"installing failed there: {last_lines(said, LINES)}"


def explain_write(said: str) -> str:
    """Why something could not be written there."""
    if found := _FULL.search(said):
        return f"its disk is full ({found[0]}): make room there (df -h shows where)"
    if found := _READ_ONLY.search(said):
        return f"its home cannot be written ({found[0]}): mount it for writing"
    return f"nothing could be written there: {last_lines(said, 1)}"


def how_to_fill(
    wheelhouse: Path, board: Board, python: Python | None = None, optional: Sequence[str] = ("ai-edge-litert>=2.0",)
) -> str:
    """The command that fills a wheelhouse for a board."""
    platforms = " ".join(f"--platform {each}_{board.machine}" for each in _PLATFORMS)
    version = ".".join(python.version.split(".")[:2]) if python else "3.11"
    names = " ".join(f"'{requirement}'" for requirement in (*BASE, *optional))
    return f"pip download -d '{wheelhouse}' --only-binary=:all: {platforms} --python-version {version} {names}"


def last_lines(said: str, count: int) -> str:
    """The last lines of what a program said."""
    return "\n".join(said.strip().splitlines()[-count:]) or "it did not say why"


_SET_CLOCK = "set it (sudo timedatectl set-ntp true, or sudo date -s …)"


def _ahead(board: Board) -> str:
    ahead = board.clock_ahead_seconds
    if ahead is None:
        return ""
    return f" ({abs(ahead) / 3600:,.1f} hours {'ahead of' if ahead > 0 else 'behind'} ours)"


def _wheelhouse(board: Board, python: Python, optional: Sequence[str]) -> str:
    fill = how_to_fill(Path("wheels"), board, python, optional)
    return f"give it the wheels from here with --wheelhouse wheels, which this fills: {fill}"
