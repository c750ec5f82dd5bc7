"""What a choice of engine, or what came of trying one, holds for: where any of it is another, it is found out anew."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

from edgeseq import __version__
from edgeseq.devices.board.emulation import emulator, said_by_user
from edgeseq.devices.board.sources import ROOT, ask
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.engines.base import thread_count

_PROCESSOR = ("model name", "CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features", "flags")


def machine_here() -> str:
    """The processor, whether it is emulated, the kernel's name for it, threads, the C library, Python, the versions of
    edgeseq and of the runtimes.

    Raises:
        InputError: EDGESEQ_THREADS or EDGESEQ_EMULATED is not what it may be.
    """
    kernel = os.uname().machine if hasattr(os, "uname") else sys.platform
    python = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))} of {8 * struct.calcsize('P')} bits"
    packages = dict.fromkeys(kind.package for kind in ENGINES.values())
    place = f"{kernel} processor {_processor()}{_emulated(kernel)}", f"threads {thread_count()}"
    return ", ".join([*place, _library(), python, f"edgeseq-{__version__}", *(_version(name) for name in packages)])


def _emulated(kernel: str) -> str:
    said = said_by_user()
    return " emulated" if said or (said is None and emulator(ROOT, ask, kernel)) else ""


def _library() -> str:
    """The C library, which decides whether a runtime loads: its version, where it says one."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "unknown libc"
    except (AttributeError, ValueError, OSError):  # not a Unix, or another library than the GNU project's
        return "another libc"


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
