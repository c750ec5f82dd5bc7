"""Which engine runs a folder on this machine, and whether one may be opened at all: tried once, and remembered.

Both are kept in ``edgeseq/engines.json`` in the user's cache, each for one folder and one machine
(:mod:`~.engines.machine`). EDGESEQ_ENGINE names an engine to take instead of the fastest that works.

What a crash or a wrong answer says of an engine stays true. Time that was up, or a process that the system ended, says
something of the moment: a choice made without such an engine holds for a day, and one that is named is tried anew by
the next process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeseq.devices.engines import ENGINES, as_folder, candidates, open_engine, open_here
from edgeseq.devices.engines.apart import is_apart
from edgeseq.devices.engines.base import Engine, NoRuntime
from edgeseq.devices.engines.machine import machine_here
from edgeseq.devices.engines.prove import Proven, is_installed, prove, time_in_turns
from edgeseq.devices.whole import replace_file
from edgeseq.errors import GateFailed, InputError, MissingDependency, Unsupported
from edgeseq.folder import Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.devices.facts import Facts

FORCED = "EDGESEQ_ENGINE"
KEPT = 200  # choices, and engines tried; the oldest goes first: a search makes folders by the hundred
DAY = 86400.0  # seconds
_FAULTS: dict[int, type[InputError | GateFailed]] = {kind.exit_code: kind for kind in (InputError, GateFailed)}


class Choice(msgspec.Struct, frozen=True):
    """The engine of a folder, and what came of trying each; ``measured``: by their times, else by the table's order."""

    engine: str
    proven: tuple[Proven, ...]
    measured: bool

    @property
    def order(self) -> tuple[str, ...]:
        """The chosen engine, then the others that work, the fastest first."""
        others = [p for p in self.proven if p.works and p.engine != self.engine]
        return (self.engine, *(p.engine for p in sorted(others, key=_speed)))


class _Remembered(msgspec.Struct, frozen=True):
    """A choice, and what it holds for. ``weights``: their precision, which decides which kernels were tried; ``at``:
    when, in seconds since 1970.
    """

    machine: str
    folder: str
    weights: str
    choice: Choice
    at: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether it still does; a clock that was put back since then counts as another day."""
        passing = any(proven.passing for proven in self.choice.proven)
        return not passing or 0 <= time.time() - self.at < DAY


class _Tried(msgspec.Struct, frozen=True):
    """What came of one engine that was tried without the others, and what that holds for."""

    machine: str
    folder: str
    weights: str
    proven: Proven


class _Memory(msgspec.Struct, frozen=True):
    choices: tuple[_Remembered, ...] = ()
    tried: tuple[_Tried, ...] = ()

    @property
    def trials(self) -> list[_Tried]:
        """What is known for good of engines, whether they were tried for a choice or without the others."""
        chosen = [_Tried(e.machine, e.folder, e.weights, proven) for e in self.choices for proven in e.choice.proven]
        return [trial for trial in (*chosen, *self.tried) if not trial.proven.passing]


def open_chosen(folder: Folder) -> Engine:
    """The engine that EDGESEQ_ENGINE names, or the one that is chosen for this folder here.

    Raises:
        InputError, MissingDependency, Unsupported, GateFailed: as :func:`~edgeseq.devices.engines.open_engine` says.
    """
    forced = os.environ.get(FORCED)
    if forced:
        return open_engine(folder, forced)
    refused = []
    for name in choose(folder).order:
        try:
            return open_here(folder, name)
        except (MissingDependency, Unsupported) as error:  # it worked in a process of its own, and does not in this one
            refused.append(str(error))
    raise NoRuntime(f"running {folder.path}", refused)


def choose(folder: str | Path | Folder) -> Choice:
    """The choice that is remembered for this folder here; where there is none it is measured, and remembered.

    Raises:
        InputError: the folder is not exported, or a file of it cannot be read.
        GateFailed: a file is not the manifest's model, or no engine answers as the trained model did.
        MissingDependency: no engine works here.
    """
    folder, file, machine = as_folder(folder), memory_file(), machine_here()
    for entry in _read(file).choices:
        if (entry.machine, entry.folder) == (machine, folder.hash) and entry.holds:
            return entry.choice
    return _choose_once(folder.path.resolve(), folder.hash, file, machine)


@lru_cache(maxsize=KEPT)  # for where the file cannot be written: once a process is often enough
def _choose_once(path: Path, digest: str, file: Path, machine: str) -> Choice:
    folder = open_folder(path)
    choice = measure(folder)
    remember(folder, choice)
    return choice


def measure(folder: Folder) -> Choice:
    """Try all automatic engines that the folder has files for, each alone, and :func:`pick` one.

    Where no process answers the first that opens in this one is taken, of those that did not crash in theirs.

    Raises:
        InputError, GateFailed, MissingDependency: as :func:`choose` does.
    """
    from edgeseq.devices.facts import EMULATED, read_facts  # here: what is remembered needs none of it

    names = candidates(folder)
    if not names:
        raise InputError(f"{folder.path} holds no model that an engine runs: run {folder.how_to_export}")
    facts = read_facts()
    timed = facts.provenance != EMULATED
    proven = [_prove(folder, name, timed=timed, facts=facts) for name in names]
    return pick(folder, proven, timed=timed) if _answered(proven) else _first_that_opens(folder, proven)


def _prove(folder: Folder, name: str, *, timed: bool, facts: Facts | None = None) -> Proven:
    try:
        return prove(folder, name, timed=timed, facts=facts)
    except OSError as error:
        return Proven(name, False, f"no process can be started: {error}", passing=True)


def _answered(proven: Sequence[Proven]) -> bool:
    """Whether any process did; numpy's always does, unless it is the process that does not work and not numpy."""
    return any(found.runtime or found.fault is not None for found in proven) or proven[-1].engine != "numpy"


def pick(folder: Folder, proven: Sequence[Proven], *, timed: bool) -> Choice:
    """The fastest of the engines that work, ``timed`` in turns; the first of them where times mean nothing.

    Raises:
        InputError, GateFailed: what an engine found wrong with the folder; or each one answers wrongly.
        MissingDependency: none works.
    """
    for found in proven:
        if found.fault is not None:
            raise _FAULTS[found.fault](found.reason)
    working = [found.engine for found in proven if found.works]
    if not working:
        reasons = [found.reason for found in proven]
        if any(found.runtime for found in proven):
            raise GateFailed(f"no engine answers as the trained model did: {folder.path}; {'; '.join(reasons)}")
        raise NoRuntime(f"running {folder.path}", reasons)
    times: dict[str, float] = {}
    if timed and len(working) > 1:
        with suppress(OSError):  # no process can be started any more: each has a time of its own
            times = time_in_turns(folder, working)
    proven = [msgspec.structs.replace(found, p50_us=times.get(found.engine, found.p50_us)) for found in proven]
    fastest = min((found for found in proven if found.works), key=_speed)
    return Choice(fastest.engine, tuple(proven), timed)


def _speed(proven: Proven) -> float:
    return float("inf") if proven.p50_us is None else proven.p50_us


def _first_that_opens(folder: Folder, proven: Sequence[Proven]) -> Choice:
    _say(f"no engine can be tried in a process of its own here ({proven[-1].reason}): the first that opens is taken")
    refused = [found.reason for found in proven if not found.passing]
    for name in (found.engine for found in proven if found.passing):
        try:
            open_here(folder, name)
        except (MissingDependency, Unsupported) as error:
            refused.append(str(error))
        else:
            return Choice(name, tuple(proven), False)
    raise NoRuntime(f"running {folder.path}", refused)


def deadly(folder: Folder, names: Sequence[str]) -> dict[str, str]:
    """Those of the engines that must not be opened in this process, and why.

    One that came through alive on this machine, on a folder of this precision, is taken to be safe; any other is tried
    on this folder first, in a process of its own. Where none can be started that is said, and none is refused. numpy
    needs no trial, for this process runs on it as it is.
    """
    names = [name for name in names if name != "numpy" and is_installed(ENGINES[name].package)]
    if is_apart() or not names:
        return {}
    file, machine, weights = memory_file(), machine_here(), folder.manifest.precision.weights
    known = [trial for trial in _read(file).trials if (trial.machine, trial.weights) == (machine, weights)]
    found = [
        _known(known, folder.hash, name) or _try_once(folder.path.resolve(), folder.hash, name, file, machine)
        for name in names
    ]
    return {proven.engine: proven.reason for proven in found if proven.deadly}


def _known(known: Sequence[_Tried], digest: str, name: str) -> Proven | None:
    """What came of an engine on a folder, or on others if it lived through all of them; None where it must be tried."""
    found = [trial for trial in known if trial.proven.engine == name]
    own = next((trial.proven for trial in found if trial.folder == digest), None)
    if own or any(trial.proven.deadly for trial in found):
        return own
    return next((trial.proven for trial in found if trial.proven.runtime), None)


@lru_cache(maxsize=KEPT)  # as _choose_once, and for what may pass
def _try_once(path: Path, digest: str, name: str, file: Path, machine: str) -> Proven:
    folder = open_folder(path)
    found = _prove(folder, name, timed=False)
    if not found.passing:
        remember(folder, tried=[found])
    elif not found.deadly:
        _say(f"engine {name} was not tried in a process of its own here ({found.reason}): it is opened as it is")
    return found


def remember(folder: Folder, choice: Choice | None = None, tried: Sequence[Proven] = ()) -> None:
    """Keep a choice for this folder on this machine, and what came of engines that were ``tried`` without the others,
    in the place of what was known of them; where that fails it is only said.

    The file is replaced as a whole: of two processes at once the last one wins, and neither sees half a file.
    """
    file, machine, digest, weights = memory_file(), machine_here(), folder.hash, folder.manifest.precision.weights
    memory = _read(file)
    choices, alone = list(memory.choices), list(memory.tried)
    if choice is not None:
        choices = [entry for entry in choices if (entry.machine, entry.folder) != (machine, digest)]
        choices.append(_Remembered(machine, digest, weights, choice, time.time()))
    new = {proven.engine for proven in (*tried, *(choice.proven if choice else ()))}
    alone = [e for e in alone if (e.machine, e.folder) != (machine, digest) or e.proven.engine not in new]
    alone += [_Tried(machine, digest, weights, proven) for proven in tried if not proven.passing]
    _write(file, _Memory(tuple(choices[-KEPT:]), tuple(alone[-KEPT:])))


def _write(file: Path, memory: _Memory) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, msgspec.json.format(msgspec.json.encode(memory), indent=1))
    except OSError as error:
        _say(f"what was learnt of engines cannot be kept in {file} ({error.strerror}): it is learnt anew each time")


def _read(file: Path) -> _Memory:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Memory)
    except (FileNotFoundError, NotADirectoryError):
        return _Memory()
    except OSError as error:
        _say(f"{file} cannot be read ({error.strerror}): engines are chosen anew")
    except msgspec.MsgspecError as error:
        _say(f"{file} is damaged ({error}): engines are chosen anew")
    return _Memory()


def memory_file() -> Path:
    """Where choices and trials are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home: nothing can be kept, which is said when it is tried
        cache = Path(os.devnull)
    return cache / "edgeseq" / "engines.json"


@lru_cache(maxsize=32)  # once in a process
def _say(text: str) -> None:
    print(f"edgeseq: {text}", file=sys.stderr)
