"""A room of this package at work in a process of its own, which may die of it and leaves ours alive."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

Answer = TypeVar("Answer")
_APART = "EDGESEQ_APART"  # of the environment of a process that may die
_CRASHES = ("SIGILL", "SIGTRAP", "SIGFPE", "SIGBUS", "SIGSEGV")

# With -c as with -m, Python looks for modules in the current directory first, and that may be a model folder: data of
# somebody else, with a numpy.py in it. What edgeseq was loaded from here comes last, for one that is not installed.
_START = """import sys
sys.path[:] = [entry for entry in sys.path if entry] + [sys.argv.pop()]
from importlib import import_module
import_module(sys.argv.pop(1)).main(*sys.argv[1:])"""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, below 0 for a signal and None where it was stopped because time was up."""

    code: int | None
    output: str
    errors: str

    @property
    def crashed(self) -> bool:
        """Whether it ended by its own doing, and would again. An abort may be that, or a want of memory."""
        import signal

        if self.code is None or self.code >= 0:
            return self.code is not None and self.code > 255  # what Windows calls a signal
        return -self.code in [getattr(signal, name, None) for name in _CRASHES]

    @property
    def last_line(self) -> str:
        """The last line that it wrote, on standard error if it wrote there."""
        return (self.errors.strip() or self.output.strip() or "nothing").splitlines()[-1]

    def answer(self, kind: type[Answer]) -> Answer | None:
        """What ``main`` printed as its last line, in JSON; None where it failed, or printed something else."""
        if self.code != 0:
            return None
        try:
            return msgspec.json.decode(self.output.splitlines()[-1], type=kind)
        except (IndexError, msgspec.MsgspecError):
            return None


def run_apart(module: str, *arguments: str, timeout: float | None = None) -> Ended:
    """Call ``main(*arguments)`` of a module in a new process, for ``timeout`` seconds at the most.

    Raises:
        OSError: no process can be started.
    """
    import subprocess  # here: who only asks whether this process is one needs none

    root = Path(__file__).absolute().parents[3]  # not resolved: this room is a link in the package
    command = [sys.executable, "-c", _START, module, *arguments, str(root)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            env={**os.environ, _APART: "1"},
        )
    except subprocess.TimeoutExpired:
        return Ended(None, "", "")
    return Ended(done.returncode, done.stdout, done.stderr)


def is_apart() -> bool:
    """Whether :func:`run_apart` started this process, which may die of an engine: it opens any as it is."""
    return _APART in os.environ


def leave_no_core() -> None:
    """Let this process die without a core file, which could fill a small board's disk."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
