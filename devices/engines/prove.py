"""Whether an engine works here, on a folder: found out in a process of its own, which it may take down with it.

A runtime that was built for another processor dies of the first instruction that this one lacks. Like this it is a
diagnosis, and not the end of whoever asked.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgeseq.devices.engines import ENGINES, open_engine
from edgeseq.devices.engines.base import Engine, Floats, MissingRuntime, input_width
from edgeseq.errors import EdgeseqError, GateFailed, InputError, MissingDependency, unknown
from edgeseq.folder import GOLDEN_NAME, Folder, open_folder
from edgeseq.program.graph import JSON_NAME

if TYPE_CHECKING:
    from edgeseq.devices.facts import Facts

FRAMES = 20  # golden frames that an engine must answer rightly: enough to use it, and no proof, which verify gives
CALLS, CHUNK = 300, 50  # timed steps of an engine, and how many before the next one has its turn
TIMEOUT = 60.0  # seconds; the slowest boards take ten to load a runtime from their card
EQUAL = 0.5  # the least share of equal answers where what is rounded may come out the other way and stay so for a while
# What the dynamic linker says without memory. That no room is left in the static TLS block is so every time, and that
# a mapping is not permitted, as where the package lies on a file system without programs, until somebody mends it.
_NO_MEMORY = re.compile(
    r"Cannot allocate memory(?! in static TLS)|Out of memory|failed to map segment(?!.*(?:not permitted|denied))"
)
_UNTIMED, _TIMED = "untimed", "timed"


class Proven(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of trying an engine on a folder.

    ``reason``: why it does not work; ``runtime``: which one does, and its version. ``p50_us``: the median step in
    microseconds, where it was timed. ``deadly``: opening it ends a process, or never ends. ``fault``: the exit code of
    an error that is the folder's and not the engine's. ``passing``: another time it may work, for the process ended
    before it could say anything, and not by a crash: time was up, or the system ended it; or its runtime was not loaded
    for want of memory.
    """

    engine: str
    works: bool
    reason: str = ""
    p50_us: float | None = None
    runtime: str = ""
    deadly: bool = False
    fault: int | None = None
    passing: bool = False


def prove(
    folder: Folder, engine: str, timeout: float = TIMEOUT, *, timed: bool = True, facts: Facts | None = None
) -> Proven:
    """Open an engine, hold its first answers to the golden ones and time it, all in a process of its own.

    ``facts`` are those of this machine, which a diagnosis may name; they are read if it does and none are given.

    Raises:
        InputError: no such engine.
        OSError: no process can be started here.
    """
    kind = ENGINES.get(engine)
    if kind is None:
        raise unknown("engine", engine, ENGINES)
    if not is_installed(kind.package):
        missing = MissingRuntime(engine, kind.package, kind.install, ModuleNotFoundError())
        return Proven(engine, False, str(missing))
    return _apart(folder, [engine], timeout, timed, facts)[0]


def time_in_turns(folder: Folder, engines: Sequence[str], timeout: float = TIMEOUT) -> dict[str, float]:
    """Median microseconds of a step of each engine, all in one process by turns: the same clock for every one.

    Empty where they do not get along in one process.

    Raises:
        OSError: no process can be started here.
    """
    return {p.engine: p.p50_us for p in _apart(folder, engines, timeout, True, None) if p.p50_us is not None}


def is_installed(package: str) -> bool:
    """Whether a runtime is there, without loading it: that alone may be deadly."""
    try:
        return find_spec(package.replace("-", "_")) is not None
    except (ImportError, ValueError):  # ValueError: it was put there by hand, without saying where from
        return package.replace("-", "_") in sys.modules


def _apart(
    folder: Folder, engines: Sequence[str], timeout: float, timed: bool, facts: Facts | None
) -> tuple[Proven, ...]:
    from edgeseq.devices.engines.apart import run_apart
    from edgeseq.devices.engines.diagnosis import why_it_died

    ended = run_apart(__name__, str(folder.path.resolve()), _TIMED if timed else _UNTIMED, *engines, timeout=timeout)
    found = ended.answer(tuple[Proven, ...])
    if found is not None:
        return found
    deadly = ended.crashed or ended.code is None or ended.code < 0
    reason = why_it_died(ENGINES[engines[0]].package, ended, facts)
    return tuple(Proven(engine, False, reason, deadly=deadly, passing=not ended.crashed) for engine in engines)


def main(path: str, timed: str, *engines: str) -> None:
    """Try engines in this process, which nothing else may have used, and print what came of each as JSON."""
    from edgeseq.devices.engines.apart import leave_no_core

    leave_no_core()
    folder = open_folder(path)
    opened: list[Engine] = []
    found = [_tried(folder, engine, opened) for engine in engines]
    taken = _times(folder, opened) if timed == _TIMED else {}
    found = [msgspec.structs.replace(proven, p50_us=taken.get(proven.engine)) for proven in found]
    print(msgspec.json.encode(found).decode())


def _tried(folder: Folder, name: str, opened: list[Engine]) -> Proven:
    """What came of one engine, which joins those that are ``opened`` if it works."""
    try:
        engine = open_engine(folder, name)
        wrong = _wrong(folder, engine)
    except EdgeseqError as error:
        fault = error.exit_code if isinstance(error, (InputError, GateFailed)) else None
        passing = isinstance(error, MissingDependency) and _NO_MEMORY.search(str(error)) is not None
        return Proven(name, False, str(error), fault=fault, passing=passing)
    if not wrong:
        opened.append(engine)
    return Proven(name, not wrong, wrong, runtime=f"{engine.facts['runtime']} {engine.facts['version']}")


def _wrong(folder: Folder, engine: Engine) -> str:
    """What is wrong with an engine's answers to the first golden frames; empty where nothing is.

    Free-running from the initial state: float answers within the tolerance; of a model that rounds or spikes within one
    step of each layer, and half of them equal, for errors heal but not within so few frames.
    """
    if not {GOLDEN_NAME, JSON_NAME} <= folder.manifest.files.keys():  # nothing to hold it to but that it steps
        engine.step(np.zeros(input_width(folder.manifest), np.float32))
        return ""
    from edgeseq.devices.compare import FREE_TOLERANCE, RUNAWAY, jumps, rounds, steps_of
    from edgeseq.devices.golden import read_golden
    from edgeseq.program import Program

    golden, program = read_golden(folder), Program.read(folder.path)
    x, expected = golden.x[:FRAMES], golden.y[:FRAMES]
    found = np.stack([np.array(engine.step(frame)) for frame in x])
    scale = max(1.0, float(np.abs(golden.y).max()))
    errors = np.abs(np.subtract(found, expected, dtype=np.float64)).max(-1)
    equal = bound = FREE_TOLERANCE * scale
    if jumps(program):
        bound = max(equal, min(steps_of(program), RUNAWAY * scale))
    wrong = ~(errors <= bound)  # what is not a number is wrong too
    if wrong.any():
        at = int(wrong.argmax())
        return f"it answers wrongly: frame {at} of golden.npz is off by {errors[at]:.1e}, where {bound:.0e} is allowed"
    share = float((errors <= equal).mean())
    own = rounds(program) and not ENGINES[engine.name].exact
    if share < EQUAL and not own:
        return f"it answers wrongly: {1 - share:.0%} of the first {len(x)} frames of golden.npz are not equal"
    return ""


def _times(folder: Folder, engines: Sequence[Engine]) -> dict[str, float]:
    """Median microseconds of a step of each engine, in turns."""
    frames, clock = _frames(folder), time.perf_counter_ns
    taken: dict[str, list[int]] = {engine.name: [] for engine in engines}
    for engine in engines:
        for frame in frames:  # what a runtime puts off until its first calls
            engine.step(frame)
    for _ in range(CALLS // CHUNK):
        for engine in engines:
            step, own = engine.step, taken[engine.name]
            for frame in frames:
                start = clock()
                step(frame)
                own.append(clock() - start)
    return {name: float(np.median(times)) / 1e3 for name, times in taken.items()}


def _frames(folder: Folder) -> list[Floats]:
    """CHUNK frames as an engine takes them: golden ones where there are some."""
    if GOLDEN_NAME not in folder.manifest.files:
        return [np.zeros(input_width(folder.manifest), np.float32)] * CHUNK
    from edgeseq.devices.golden import read_golden

    x = read_golden(folder).x
    return [x[i % len(x)] for i in range(CHUNK)]
