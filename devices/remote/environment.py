"""An environment with edgeseq and the runtimes, made on a board by its own Python and pip."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseq.devices.remote import install, refusals
from edgeseq.devices.remote.command import Done
from edgeseq.devices.remote.probe import Board, Python
from edgeseq.devices.remote.ssh import Link
from edgeseq.devices.remote.staging import staging
from edgeseq.devices.remote.wheel import BASE
from edgeseq.errors import DeviceUnreachable, EdgeseqError, InputError

INSTALL_SECONDS = 3600.0  # numpy and two runtimes on a slow card, over a slow line
_REMOVE_SECONDS = 600.0

Say = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of: an interpreter there, edgeseq's wheel, and the runtimes that are asked for.

    Without a ``wheelhouse``, a folder of wheels here, the board fetches what it needs itself.
    """

    board: Board
    python: Python
    wheel: Path
    optional: tuple[str, ...]
    wheelhouse: Path | None = None

    @property
    def name(self) -> str:
        """Where it lies among all: the same recipe, the same environment."""
        wheel = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        parts = [self.python.command, self.python.version, str(self.board.machine), wheel, *BASE, *self.optional]
        return f"envs/{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"

    @property
    def wheels(self) -> list[Path]:
        """Those of the wheelhouse that are for this kind of machine."""
        found = sorted(self.wheelhouse.glob("*.whl")) if self.wheelhouse else []
        return [each for each in found if each.stem.endswith(("-any", f"_{self.board.machine}"))]

    def from_wheels(self, wheelhouse: Path) -> Recipe:
        """The same from a wheelhouse, with the runtimes that it has.

        Raises:
            InputError: it is no folder, or holds no wheels.
        """
        if not any(wheelhouse.glob("*.whl")):
            fill = refusals.how_to_fill(wheelhouse, self.board, self.python, self.optional)
            raise InputError(f"the wheelhouse {wheelhouse} holds no wheels; this fills it: {fill}")
        offline = replace(self, wheelhouse=wheelhouse)
        held = {package(each.name) for each in offline.wheels}
        return replace(offline, optional=tuple(each for each in self.optional if package(each) in held))


def make(link: Link, recipe: Recipe, target: str, say: Say) -> tuple[str, ...]:
    """Make the environment ``target``; returns the runtimes that there is nothing of for this board.

    Raises:
        DeviceUnreachable: it could not be made; says why, and nothing of it is left.
    """
    made = staging(target.rpartition("/")[0], link.owner)
    wanted = {
        "staging": made,
        "target": target,
        "wheel": recipe.wheel.name,
        "needed": BASE,
        "optional": recipe.optional,
        "offline": recipe.wheelhouse is not None,
    }
    try:
        with linked({each.name: each for each in [*recipe.wheels, recipe.wheel]}) as wheels:
            say("sending edgeseq" + (f" and the wheels in {recipe.wheelhouse}" if recipe.wheelhouse else ""))
            link.send(wheels, f"{made}/wheels")
        names = [requirement.partition(">=")[0] for requirement in (*BASE, *recipe.optional)]
        say(f"installing {', '.join(names)}: once, for minutes on a small board")
        # -I: no module of the user's own comes ahead of the standard library.
        command = [recipe.python.command, "-I", "-", json.dumps(wanted)]
        done = link.run(command, input=Path(install.__file__).read_bytes(), timeout=INSTALL_SECONDS)
    except BaseException:
        with suppress(EdgeseqError):
            link.run(["rm", "-rf", "--", made], timeout=_REMOVE_SECONDS)
        raise
    answer = _answer(done)
    if "left_out" not in answer:
        said = str(answer.get("failed") or done.stderr or f"Python ended with {done.code}")
        why = refusals.explain(said, recipe.board, recipe.python, recipe.optional, recipe.wheelhouse)
        raise DeviceUnreachable(f"{link.name}: {why}")
    return tuple(answer["left_out"])


def _answer(done: Done) -> dict[str, list[str]]:
    try:
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        return {}


def package(text: str) -> str:
    """The package that a requirement, or the name of a wheel, begins with."""
    found = re.match(r"[A-Za-z0-9._]+(-[A-Za-z][A-Za-z0-9._]*)*", text)
    return re.sub(r"[-_.]+", "-", found[0] if found else text).lower()


@contextmanager
def linked(files: dict[str, Path]) -> Iterator[Path]:
    """A folder of links to these files, by their names there: what is sent is what they point to."""
    with tempfile.TemporaryDirectory(prefix="edgeseq-") as made:
        for name, file in files.items():
            (Path(made) / name).symlink_to(file.absolute())
        yield Path(made)
