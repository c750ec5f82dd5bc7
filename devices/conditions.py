"""Under what conditions a measurement runs: on which processors, at which priority, with how many threads."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from edgeseq.devices.engines.base import THREADS, thread_count
from edgeseq.errors import InputError

PROCESSORS = 1024  # as many as the kernel's own set of processors holds
_TASKS = Path("/proc/self/task")
_FIFO = re.compile(r"fifo:(\d+)")


class Conditions(msgspec.Struct, frozen=True):
    """What was asked of the system; None is as it was found.

    ``pin``: the processors that the process may use. ``priority``: a nice value ("-5"), or "fifo:50" for the real-time
    scheduler SCHED_FIFO. ``threads``: how many an engine may use; its facts say how many it does. ``warm_up_calls``:
    steps of each engine that are not among its samples.
    """

    pin: tuple[int, ...] | None = None
    priority: str | None = None
    threads: int = 1
    warm_up_calls: int = 0


AS_FOUND = Conditions()


def parse_conditions(pin: str | None = None, priority: str | None = None, threads: int | None = None) -> Conditions:
    """The options ``--pin 2,3`` (or ``0-3``), ``--priority -5`` (or ``fifo:50``) and ``--threads 2``.

    Threads that are not given are those of the environment (:func:`~.engines.base.thread_count`).

    Raises:
        InputError: one that is none of these.
    """
    if threads is None:
        threads = thread_count()
    if not 1 <= threads <= PROCESSORS:
        raise InputError(f"--threads is {threads}: 1 to {PROCESSORS} is needed")
    if priority is not None:
        priority = priority.strip().lower()
        _parse_priority(priority)
    return Conditions(None if pin is None else _parse_pin(pin), priority, threads)


def _parse_pin(text: str) -> tuple[int, ...]:
    wrong = InputError(f"--pin is {text!r}: processors by their numbers are needed, as in 3 or 2,3 or 0-3")
    found: set[int] = set()
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part, re.ASCII)
        if bounds is None:
            raise wrong
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if not first <= last < PROCESSORS:
            raise wrong
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _parse_priority(text: str) -> tuple[bool, int]:
    """Whether it is SCHED_FIFO, and the number."""
    fifo = _FIFO.fullmatch(text)
    if fifo and 1 <= int(fifo[1]) <= 99:
        return True, int(fifo[1])
    if re.fullmatch(r"[+-]?\d{1,2}", text, re.ASCII) and -20 <= int(text) <= 19:
        return False, int(text)
    raise InputError(f"--priority is {text!r}: a nice value from -20 (first) to 19, or fifo:1 to fifo:99, is needed")


@contextmanager
def held(conditions: Conditions) -> Iterator[None]:
    """Run under these conditions, all threads of this process and the processes that it starts, and go back after.

    Enter it before an engine is opened: it takes the number of threads when it opens, and they what holds then.

    Raises:
        InputError: the system refuses; the message says what is needed.
    """
    with ExitStack() as undo:
        _allow_threads(conditions.threads, undo)
        if conditions.pin is not None:
            _pin(conditions.pin, undo)
        if conditions.priority is not None:
            fifo, number = _parse_priority(conditions.priority)
            (_schedule if fifo else _be_nice)(number, undo)
        yield


def _allow_threads(threads: int, undo: ExitStack) -> None:
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads)
    if before is None:
        undo.callback(os.environ.pop, THREADS, None)
    else:
        undo.callback(os.environ.__setitem__, THREADS, before)


def _pin(pin: tuple[int, ...], undo: ExitStack) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise InputError(f"--pin {_listed(pin)}: this system cannot pin a process; leave it out, or measure on Linux")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, pin)
        got = os.sched_getaffinity(0)
        undo.callback(_each_thread, lambda thread: os.sched_setaffinity(thread, before))
    except OSError as error:
        raise InputError(f"--pin {_listed(pin)}: {error.strerror}; {_processors(before)}") from None
    if got != set(pin):  # the kernel leaves out those that do not exist, without a word
        raise InputError(f"--pin {_listed(pin)}: only {_listed(sorted(got))} can be had; {_processors(before)}")
    _each_thread(lambda thread: os.sched_setaffinity(thread, pin))


def _listed(processors: tuple[int, ...] | list[int]) -> str:
    return ",".join(map(str, processors))


def _processors(allowed: set[int]) -> str:
    return f"this machine has {os.cpu_count()}, and this process may use {_listed(sorted(allowed))}"


def _be_nice(number: int, undo: ExitStack) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)

    def give(value: int) -> Callable[[int], None]:
        return lambda thread: os.setpriority(os.PRIO_PROCESS, thread, value)

    def back() -> None:
        with suppress(PermissionError):  # who may only step back stays there: the kernel has no way forward for him
            _each_thread(give(before))

    try:
        _each_thread(give(number))
    except PermissionError as error:
        raise InputError(
            f"--priority {number}: {error.strerror}; below {before} root is needed, or the capability CAP_SYS_NICE, or "
            f"a line '@group - nice {number}' in /etc/security/limits.conf"
        ) from None
    undo.callback(back)


def _schedule(number: int, undo: ExitStack) -> None:
    if not hasattr(os, "sched_setscheduler"):
        raise InputError(f"--priority fifo:{number}: this system has no SCHED_FIFO; leave it out, or measure on Linux")
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        _each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(number)))
    except PermissionError as error:
        raise InputError(
            f"--priority fifo:{number}: {error.strerror}; root is needed, or the capability CAP_SYS_NICE, or a line "
            f"'@group - rtprio {number}' in /etc/security/limits.conf"
        ) from None
    undo.callback(_each_thread, lambda thread: os.sched_setscheduler(thread, policy, parameter))


def _each_thread(change: Callable[[int], None]) -> None:
    """Change what each thread of this process has for its own: those that exist inherit nothing from the first."""
    threads = [int(entry.name) for entry in _TASKS.iterdir()] if _TASKS.exists() else [0]
    for thread in threads:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            change(thread)
