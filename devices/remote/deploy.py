"""What a board gets before anything runs there: an environment with edgeseq, made once, and the model folders.

All of it lies in one place (``~/.local/share/edgeseq``, or where XDG_DATA_HOME points there)::

    envs/<hash of the Python there, edgeseq's wheel and the requirements>/
        checked/                   which folders have passed their check in it
        runs/<hash of the command>/    of a run of hours, until its report has come
    folders/<hash of the model folder>/
    cache/                         which engine was chosen

What was found out with an environment lies in it, and goes with it. What has no ``.complete`` in it was interrupted,
and does not count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeseq.devices.remote import install, refusals
from edgeseq.devices.remote.command import Done
from edgeseq.devices.remote.environment import Recipe, Say, linked, make, package
from edgeseq.devices.remote.probe import Board, probe, why_not
from edgeseq.devices.remote.ssh import Link
from edgeseq.devices.remote.staging import SWEEP
from edgeseq.devices.remote.wheel import build_wheel, runtimes
from edgeseq.errors import DeviceUnreachable
from edgeseq.folder import CARD_NAME, MANIFEST_NAME, Folder

_ASK_SECONDS = 60.0
_CLEAN_SECONDS = 600.0
_DATA = "case ${XDG_DATA_HOME-} in /*) data=$XDG_DATA_HOME ;; *) data=$HOME/.local/share ;; esac; data=$data/edgeseq"
# Says where everything lies, and what is complete there. What a link has left that has died goes.
_LOOK = f"""
{_DATA}{SWEEP}
printf '%s\\n' "$data"
cd -- "$data" 2>/dev/null || exit 0
sweep envs
sweep folders
for each in envs/*/{install.MARKER} folders/*/{install.MARKER}; do
  [ -e "$each" ] && printf '%s %s\\n' "${{each%/*}}" "$(cat "$each")"
done
:
"""
_MARK = f'LC_ALL=C; export LC_ALL; sync; for each do touch -- "$each/{install.MARKER}" || exit 1; done'
# $1 where everything lies. Neither another PYTHONPATH nor a folder edgeseq in the home may come ahead of what is there.
_WITHIN = """
LC_ALL=C XDG_CACHE_HOME=$1/cache; export LC_ALL XDG_CACHE_HOME; unset PYTHONPATH PYTHONHOME
mkdir -p -- "$1" && cd -- "$1" && shift && exec "$@"
"""
_CLEAN = f"""
LC_ALL=C; export LC_ALL
{_DATA}
cd -- "$data" 2>/dev/null || exit 0
rm -rf -- envs folders cache || exit 1
cd / && rmdir -- "$data" 2>/dev/null
:
"""


@dataclass(frozen=True)
class Place:
    """Where things lie on a board, as paths there: ``folders`` in the order they were given, ``env`` the environment.

    ``left_out`` are the runtimes that there is nothing of for it.
    """

    board: Board
    data: str
    env: str
    folders: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return f"{self.env}/bin/python"

    def run(self, link: Link, argv: Sequence[str], timeout: float | None = None) -> Done:
        """Run a program there, with nothing of the user's own in its way."""
        return link.script(_WITHIN, [self.data, *argv], timeout=timeout)


def deploy(
    link: Link, folders: Sequence[Folder], python: str = "python3", wheelhouse: Path | None = None, say: Say = print
) -> Place:
    """Put on a board what it lacks to run these folders; ``say`` is told each step that takes time.

    With ``wheelhouse``, a folder of wheels here, it installs from those alone, and needs no network.

    Raises:
        InputError: the wheelhouse holds no wheels.
        DeviceUnreachable: the link was lost, or the board cannot run edgeseq; nothing half installed is left.
    """
    data, there = _look(link)
    board, offline = probe(link, python), wheelhouse is not None
    with tempfile.TemporaryDirectory(prefix="edgeseq-") as made:
        asked = runtimes(name for folder in folders for name in folder.formats)
        used = board.python
        if used is None:
            raise DeviceUnreachable(f"{link.name} cannot run edgeseq: {_why_not(board, offline=offline)}")
        recipe = Recipe(board, used, build_wheel(Path(made)), asked)
        if recipe.name not in there and wheelhouse is not None:
            recipe = recipe.from_wheels(wheelhouse)
        why = _why_not(board, ready=recipe.name in there, offline=offline)
        if why is not None:
            raise DeviceUnreachable(f"{link.name} cannot run edgeseq: {why}")
        env = f"{data}/{recipe.name}"
        left_out = there[recipe.name] if recipe.name in there else make(link, recipe, env, say)
    left_out += tuple(package(each) for each in asked if each not in recipe.optional)
    paths = [f"{data}/folders/{folder.hash}" for folder in folders]
    for folder, path in zip(folders, paths, strict=True):
        if f"folders/{folder.hash}" not in there:
            say(f"sending {folder.path.name}")
            _send_folder(link, folder, path)
    _mark(link, [env, *paths])
    return Place(board, data, env, tuple(paths), left_out)


def clean(link: Link) -> str:
    """Remove everything that :func:`deploy` put on a board; returns where it lay.

    Raises:
        DeviceUnreachable: the link was lost, or the board does not let it be removed.
    """
    data, _ = _look(link)
    done = link.script(_CLEAN, timeout=_CLEAN_SECONDS)
    if done.code:
        raise DeviceUnreachable(f"{link.name}: {data!r} could not be removed ({refusals.last_lines(done.stderr, 1)})")
    return data


def _look(link: Link) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Where everything lies there, and what of it is complete, with the packages that it had to do without."""
    done = link.script(_LOOK, timeout=_ASK_SECONDS)
    lines = done.stdout.splitlines()
    if done.code or not lines:
        raise DeviceUnreachable(f"{link.name}: its shell runs no script ({refusals.last_lines(done.stderr, 1)})")
    return lines[0], {name: tuple(without) for name, *without in map(str.split, filter(str.strip, lines[1:]))}


def _why_not(board: Board, *, ready: bool = False, offline: bool = False) -> str | None:
    """Why edgeseq cannot run there; room and clock matter to what is still to be fetched alone."""
    without: dict[str, None] = {}
    if ready:
        without["disk_free_bytes"] = None
    if ready or offline:
        without["clock_ahead_seconds"] = None
    return why_not(msgspec.structs.replace(board, **without))


def _send_folder(link: Link, folder: Folder, path: str) -> None:
    """Send what the manifest lists, and nothing else that may lie there."""
    names = [*folder.manifest.files, MANIFEST_NAME, CARD_NAME]
    with linked({name: folder.path / name for name in names if (folder.path / name).exists()}) as files:
        link.send(files, path)


def _mark(link: Link, paths: Sequence[str]) -> None:
    """Say of folders there that they are complete, and in use."""
    done = link.script(_MARK, paths, timeout=_CLEAN_SECONDS)
    if done.code:
        raise DeviceUnreachable(f"{link.name}: {refusals.explain_write(done.stderr)}")
