"""What killed a process that tried an engine, in words: each with what can be done about it."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseq.devices.engines.apart import Ended
    from edgeseq.devices.facts import Facts

_NEEDS = re.compile(r"version `(GLIBC|GLIBCXX|CXXABI)_([\d.]+)' not found")
_WHOSE = {"GLIBC": "glibc", "GLIBCXX": "libstdc++ with GLIBCXX", "CXXABI": "libstdc++ with CXXABI"}


def why_it_died(package: str, ended: Ended, facts: Facts | None = None) -> str:
    """What ended a process that tried a runtime; ``facts`` are those of this machine, read if they are needed."""
    build, other = installed(package), another(package)
    if ended.code is None:
        return f"{build} did not answer in time: try again when the machine is idle, or take {other}"
    if ended.code >= 0:
        return f"it ended badly (exit code {ended.code}): {ended.last_line}"
    number = -ended.code
    if number == getattr(signal, "SIGILL", None):
        return (
            f"an illegal instruction: this build, {build}, needs instructions that this processor "
            f"({_processor(facts)}) lacks; take {other}"
        )
    if number == getattr(signal, "SIGKILL", None):
        return f"{build} was killed (SIGKILL), as a system without memory does: free some{_memory(facts)}"
    said = f": {ended.last_line}" if ended.errors.strip() else ""
    return f"{build} crashed here ({_name(number)}){said}; take {other}"


def too_old_for(said: str) -> str | None:
    """What an error of the dynamic linker says that this system lacks ("glibc 2.38, ..."); None of any other error."""
    found = _NEEDS.search(said)
    if found is None:
        return None
    library, version = found.groups()
    try:
        here = os.confstr("CS_GNU_LIBC_VERSION") if library == "GLIBC" else None
    except (AttributeError, ValueError):  # another system's C library
        here = None
    return f"needs {_WHOSE[library]} {version}, and this system has {here or 'an older one'}"


def installed(package: str) -> str:
    """A package and the version of it that is installed here."""
    version = _version(package)
    return f"{package} {version}" if version else package


def another(package: str) -> str:
    """How to install another version of a package."""
    version = _version(package)
    wanted = f"'{package}<{version}'" if version else package
    return f"another version, pip install {wanted}"


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # built by hand, as on some boards
        return None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _processor(facts: Facts | None) -> str:
    facts = facts or _facts()
    named = facts.core or facts.model or facts.machine
    return f"{named}: {' '.join(facts.features)}" if facts.features else named


def _memory(facts: Facts | None) -> str:
    facts = facts or _facts()
    return f" of the {facts.memory_bytes / 1e6:.0f} MB" if facts.memory_bytes else ""


def _facts() -> Facts:
    from edgeseq.devices.facts import read_facts

    return read_facts()
