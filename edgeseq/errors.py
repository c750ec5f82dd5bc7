"""Every error a user can meet, with the exit code the command line gives it.

A message names the thing, the value it had, and what would be accepted. Anything that is not an
:class:`EdgeseqError` is a bug of ours: exit code 1 and a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeseqError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code = 1


class InputError(EdgeseqError):
    """Wrong usage or bad input: a missing file, an unknown name, a damaged folder, data that cannot be used."""

    exit_code = 2


class MissingDependency(EdgeseqError):
    """An optional package is not installed; the message is the line that installs it."""

    exit_code = 3

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'edgeseq[{extra}]'")


class Unsupported(EdgeseqError):
    """A combination that edgeseq does not support; the message says which it does."""

    exit_code = 4


class GateFailed(EdgeseqError):
    """A parity or accuracy gate failed: what would run is not what was trained."""

    exit_code = 5


class DeviceUnreachable(EdgeseqError):
    """A device did not answer."""

    exit_code = 6


class BudgetMissed(EdgeseqError):
    """A stated latency or memory budget was not met."""

    exit_code = 7


def unknown(kind: str, value: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name: says the closest match, and all that exist."""
    names = sorted(known)
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InputError(f"unknown {kind} {value!r}.{hint} Known: {', '.join(names)}.")
