"""One engine alone in a fresh process: what loading it, its first call and its memory cost.

In a process that has already imported the runtimes and loaded other engines, none of the three can be seen.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from edgeseq.devices.engines import ENGINES
from edgeseq.devices.engines.base import frame_width
from edgeseq.devices.session import Session
from edgeseq.errors import EdgeseqError

CALLS = 100
TIMEOUT = 600.0  # seconds: an engine that hangs must not hang the bench


class Fresh(msgspec.Struct, frozen=True):
    """Milliseconds to open a Session (with the import of its runtime) and for the first step; peak resident bytes.

    The milliseconds are None in a report from an emulated board.
    """

    load_ms: float | None
    first_call_ms: float | None
    peak_rss_bytes: int | None


def measure_fresh(folder: Path, engine: str) -> Fresh:
    """Open and step the folder's model in a process of its own.

    Raises:
        EdgeseqError: the process failed, with what killed it or the last line that it wrote.
    """
    from edgeseq.devices.engines.apart import run_apart  # here: the process that is measured needs neither
    from edgeseq.devices.engines.diagnosis import why_it_died

    ended = run_apart(__name__, str(folder.resolve()), engine, timeout=TIMEOUT)
    found = ended.answer(Fresh)
    if found is not None:
        return found
    package = ENGINES[engine].package if engine in ENGINES else engine
    raise EdgeseqError(f"engine {engine} failed in a process of its own: {why_it_died(package, ended)}")


def peak_rss_bytes() -> int | None:
    """The largest resident size of this process so far; None where the system does not say.

    The kernel's VmHWM comes first: getrusage's value in a new process starts with that of the process that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage) if sys.platform == "darwin" else 1024 * int(usage)


def main(folder: str, engine: str) -> None:
    """Measure this process, which nothing else may have used, and print the result as JSON."""
    start = time.perf_counter_ns()
    session = Session(folder, engine)
    loaded = time.perf_counter_ns()
    frame = np.zeros(frame_width(session.manifest), np.float32)
    before = time.perf_counter_ns()
    session.step(frame)
    called = time.perf_counter_ns()
    for _ in range(CALLS):
        session.step(frame)
    fresh = Fresh((loaded - start) / 1e6, (called - before) / 1e6, peak_rss_bytes())
    print(msgspec.json.encode(fresh).decode())
