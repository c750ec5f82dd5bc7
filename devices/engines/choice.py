"""Which engine runs a folder on this machine: the fastest of those that work here, measured once and remembered.

Choices are kept in ``edgeseq/engines.json`` in the user's cache. Each holds for one processor, number of threads,
Python, set of runtimes and folder; where one of these is another, it is made anew. EDGESEQ_ENGINE names an engine to
take instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import msgspec

from edgeseq.devices.engines import ENGINES, as_folder, candidates, open_engine
from edgeseq.devices.engines.base import Engine, NoRuntime, thread_count
from edgeseq.devices.engines.prove import Proven, is_installed, prove, time_in_turns
from edgeseq.errors import GateFailed, InputError, MissingDependency, Unsupported
from edgeseq.folder import Folder, open_folder

FORCED = "EDGESEQ_ENGINE"
KEPT = 200  # choices; the oldest goes first: a search makes folders by the hundred
_PROCESSOR = ("model name", "CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features", "flags")
_FAULTS: dict[int, type[InputError | GateFailed]] = {kind.exit_code: kind for kind in (InputError, GateFailed)}


class Choice(msgspec.Struct, frozen=True):
    """The engine of a folder, and what came of trying each; ``measured``: by their times, else by the table's order.

    ``proven`` is empty where no engine can be tried in a process of its own.
    """

    engine: str
    proven: tuple[Proven, ...]
    measured: bool

    @property
    def order(self) -> tuple[str, ...]:
        """The chosen engine, then the others that work, the fastest first."""
        others = [p for p in self.proven if p.works and p.engine != self.engine]
        return (self.engine, *(p.engine for p in sorted(others, key=_speed)))


class _Remembered(msgspec.Struct, frozen=True):
    """A choice, and what it holds for. ``weights``: their precision, which decides which kernels were tried."""

    machine: str
    folder: str
    weights: str
    choice: Choice


class _Memory(msgspec.Struct, frozen=True):
    choices: tuple[_Remembered, ...] = ()


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
            return open_engine(folder, name)
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
        if (entry.machine, entry.folder) == (machine, folder.hash):
            return entry.choice
    return _choose_once(folder.path.resolve(), folder.hash, file, machine)


@lru_cache(maxsize=KEPT)  # for where the file cannot be written: once a process is often enough
def _choose_once(path: Path, digest: str, file: Path, machine: str) -> Choice:
    folder = open_folder(path)
    choice = measure(folder)
    if choice.proven:
        remember(folder, choice)
    return choice


def measure(folder: Folder) -> Choice:
    """Try all automatic engines that the folder has files for, each alone, and :func:`pick` one.

    Where no process can be started the first that opens in this one is taken.

    Raises:
        InputError, GateFailed, MissingDependency: as :func:`choose` does.
    """
    from edgeseq.devices.facts import EMULATED, read_facts  # here: what is remembered needs none of it

    names = candidates(folder)
    if not names:
        raise InputError(f"{folder.path} holds no model that an engine runs: run {folder.how_to_export}")
    facts = read_facts()
    timed = facts.provenance != EMULATED
    try:
        proven = [prove(folder, name, timed=timed, facts=facts) for name in names]
        if not _answered(proven):
            return _first_that_opens(folder, names, proven[-1].reason)
        return pick(folder, proven, timed=timed)
    except OSError as error:
        return _first_that_opens(folder, names, str(error))


def _answered(proven: Sequence[Proven]) -> bool:
    """Whether any process did; numpy's always does, unless it is the process that does not work and not numpy."""
    return any(found.runtime or found.fault is not None for found in proven) or proven[-1].engine != "numpy"


def pick(folder: Folder, proven: Sequence[Proven], *, timed: bool) -> Choice:
    """The fastest of the engines that work, ``timed`` in turns; the first of them where times mean nothing.

    Raises:
        InputError, GateFailed: what an engine found wrong with the folder; or each one answers wrongly.
        MissingDependency: none works.
        OSError: no process can be started here.
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
    times = time_in_turns(folder, working) if timed and len(working) > 1 else {}
    proven = [msgspec.structs.replace(found, p50_us=times.get(found.engine, found.p50_us)) for found in proven]
    fastest = min((found for found in proven if found.works), key=_speed)
    return Choice(fastest.engine, tuple(proven), timed)


def _speed(proven: Proven) -> float:
    return float("inf") if proven.p50_us is None else proven.p50_us


def _first_that_opens(folder: Folder, names: Sequence[str], why: str) -> Choice:
    _say(f"no engine can be tried in a process of its own here ({why}): the first that opens is taken")
    refused = []
    for name in names:
        try:
            open_engine(folder, name)
        except (MissingDependency, Unsupported) as error:
            refused.append(str(error))
        else:
            return Choice(name, (), False)
    raise NoRuntime(f"running {folder.path}", refused)


def deadly(folder: Folder) -> dict[str, str]:
    """The automatic engines that must not be opened in this process, and why.

    An engine that came through alive on this machine, on a folder of this precision, is taken to be safe; where one is
    not known to, all are tried on this folder.

    Raises:
        InputError, GateFailed, MissingDependency: as :func:`choose` does.
    """
    machine, weights = machine_here(), folder.manifest.precision.weights
    known = [e for e in _read(memory_file()).choices if (e.machine, e.weights) == (machine, weights)]
    tried = [proven for entry in known for proven in entry.choice.proven]
    alive = {proven.engine for proven in tried if proven.runtime} - {p.engine for p in tried if p.deadly}
    if all(name in alive or not is_installed(ENGINES[name].package) for name in candidates(folder)):
        return {}
    return {proven.engine: proven.reason for proven in choose(folder).proven if proven.deadly}


def remember(folder: Folder, choice: Choice) -> None:
    """Keep a choice for this folder on this machine, in the place of an older one; where that fails it is only said.

    The file is replaced as a whole: of two processes at once the last one wins, and neither sees half a file.
    """
    file, machine, digest = memory_file(), machine_here(), folder.hash
    others = [entry for entry in _read(file).choices if (entry.machine, entry.folder) != (machine, digest)]
    mine = _Remembered(machine, digest, folder.manifest.precision.weights, choice)
    memory = _Memory((*others, mine)[-KEPT:])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as content:
                content.write(msgspec.json.format(msgspec.json.encode(memory), indent=1))
            Path(written).replace(file)
        except OSError:
            with suppress(OSError):
                Path(written).unlink()
            raise
    except OSError as error:
        _say(f"the choice of engine cannot be kept in {file} ({error.strerror}): it is made anew each time")


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
    """Where choices are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home: nothing can be kept, which is said when it is tried
        cache = Path(os.devnull)
    return cache / "edgeseq" / "engines.json"


def machine_here() -> str:
    """What a choice holds for: the processor, the kernel's name for it, threads, Python, the runtimes' versions."""
    kernel = os.uname().machine if hasattr(os, "uname") else sys.platform
    python = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}"
    packages = dict.fromkeys(kind.package for kind in ENGINES.values())
    place = f"{kernel} processor {_processor()}", f"threads {thread_count()}"
    return ", ".join([*place, python, *(_version(name) for name in packages)])


def _processor() -> str:
    """A checksum of what /proc/cpuinfo says of the kinds of cores there are, and not of the moment."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # another system: the kernel's name for it must do
        return "unknown"
    said = sorted({line for line in lines if line.partition(":")[0].strip() in _PROCESSOR})
    return f"{zlib.crc32(chr(10).join(said).encode()):08x}"


def _version(package: str) -> str:
    """A package and its version, by the name of the folder that says so: importlib.metadata takes 10 ms to load."""
    module = package.replace("-", "_")
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # ValueError: put there by hand, without saying where from
        spec = None
    if spec is None or spec.origin is None:
        return f"no {package}"
    file = Path(spec.origin)
    named = sorted(entry.name.rpartition(".")[0] for entry in file.parent.parent.glob(f"{module}-*-info"))
    return named[0] if named else f"{package} of {file.stat().st_mtime_ns}"


@lru_cache(maxsize=32)  # once in a process
def _say(text: str) -> None:
    print(f"edgeseq: {text}", file=sys.stderr)
