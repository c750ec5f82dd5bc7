"""What the process on a device takes: resident memory, and the time from its start to the first answer.

    python benchmarks/device_process.py --out benchmarks/results/device_process.json

``python -m edgeseq.devices stream FOLDER --input -`` in fresh processes, their files in the page cache. The clock
starts before a process is made and stops when the line of its first answer comes; the first frame waits on its standard
input. Then it gets frames at 50 Hz, and after ``--seconds`` the kernel says what is resident. ``litert`` names the
engine; ``chosen`` leaves the choice to what is remembered of this machine (in a cache of its own, filled by a process
before).

``stages`` are those of one such process, in its own order, each with the milliseconds since the one before and what is
resident after it: medians over as many fresh processes, taken in turns with the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from processes import count
from side_by_side import write_result

from edgeseq.devices.golden import read_golden
from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder, open_folder

RATE = 50.0
TARGETS = {"first_answer_ms": 300.0, "rss_mb": 48.0}
MEMORY = {"VmRSS": "rss_mb", "VmHWM": "peak_rss_mb", "RssAnon": "anonymous_mb", "RssFile": "files_mb"}
STREAMS: dict[str, tuple[str, ...]] = {"litert": ("--engine", "litert"), "chosen": ()}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}

STAGES = """
import sys, time
marks = []
def mark(stage):
    at = time.monotonic_ns()
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    marks.append((stage, at, rss))
folder = sys.argv[1]
mark("Python")
import numpy
mark("import numpy")
import msgspec
mark("import msgspec")
import edgeseq.devices.__main__
mark("import edgeseq.devices")
import ai_edge_litert.interpreter
mark("import ai_edge_litert")
from edgeseq.devices.session import Session
session = Session(folder, "litert")
mark("open the session")
frame = numpy.zeros(session.manifest.input.width, numpy.float32)
answer = session.decide(session.step(frame))
mark("first step and decision")
import json
print(json.dumps(marks))
"""


def memory(pid: int) -> dict[str, float]:
    """What is resident of a process, in MB of a million bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines) if key in MEMORY}
    return {MEMORY[key]: 1.024e-3 * kib for key, kib in found.items()}


def streamed(folder: Folder, options: tuple[str, ...], cache: Path, seconds: float) -> dict[str, float]:
    """One fresh process: milliseconds to its first answer, and its memory after so many seconds at 50 Hz.

    Raises:
        EdgeseqError: it ended without an answer.
    """
    frames = read_golden(folder).frames
    lines = [",".join(f"{value:.9g}" for value in frame) + "\n" for frame in frames[: round(seconds * RATE) + 1]]
    command = [sys.executable, "-m", "edgeseq.devices", "stream", str(folder.path.resolve()), "--input", "-", *options]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    begin = time.monotonic_ns()
    with subprocess.Popen(command, cwd=cache, env=environment(cache), **pipes) as process:
        try:
            process.stdin.write(lines[0])
            if not process.stdout.readline():
                raise EdgeseqError(f"{' '.join(command)} ended without an answer (code {process.wait()})")
            first = (time.monotonic_ns() - begin) / 1e6
            start = time.monotonic()
            for number, line in enumerate(lines[1:], 1):
                time.sleep(max(0.0, start + number / RATE - time.monotonic()))
                process.stdin.write(line)
            time.sleep(1 / RATE)
            return {"first_answer_ms": first, **memory(process.pid)}
        finally:
            process.kill()


def staged(folder: Folder, cache: Path) -> list[tuple[str, float, float]]:
    """Of one fresh process the stages, milliseconds of each, and MB resident after it."""
    begin = time.monotonic_ns()
    command = [sys.executable, "-c", STAGES, str(folder.path.resolve())]
    done = subprocess.run(command, cwd=cache, env=environment(cache), capture_output=True, text=True, check=True)
    marks = json.loads(done.stdout)
    befores = [begin, *(at for _, at, _ in marks)]
    return [(stage, (at - b) / 1e6, 1.024e-3 * kib) for (stage, at, kib), b in zip(marks, befores, strict=False)]


def environment(cache: Path) -> Mapping[str, str]:
    """Ours without what would choose an engine, and with a cache of its own: not where processes run, for a folder
    ``edgeseq`` there would pass for the package.
    """
    kept = {name: value for name, value in os.environ.items() if name != "EDGESEQ_ENGINE"}
    return {**kept, **ENVIRONMENT, "XDG_CACHE_HOME": str(cache / "cache")}


def measure(folder: Folder, processes: int, seconds: float) -> dict[str, Any]:
    streams: dict[str, list[dict[str, float]]] = {name: [] for name in STREAMS}
    stages = []
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place)
        for options in STREAMS.values():  # not counted: page cache, and the choice
            streamed(folder, options, cache, 0.1)
        staged(folder, cache)
        for _ in range(processes):
            for name, options in STREAMS.items():
                streams[name].append(streamed(folder, options, cache, seconds))
            stages.append(staged(folder, cache))
    return {
        "folder": folder.manifest.name,
        "processes": processes,
        "targets": TARGETS,
        "streams": [summed(name, taken) for name, taken in streams.items()],
        "stages": [
            {
                "stage": runs[0][0],
                "ms": round(statistics.median(ms for _, ms, _ in runs), 1),
                "rss_mb": round(statistics.median(mb for _, _, mb in runs), 1),
            }
            for runs in zip(*stages, strict=True)
        ],
    }


def summed(name: str, taken: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the quarters around that of the time."""
    medians = {key: round(statistics.median(each[key] for each in taken), 1) for key in taken[0]}
    quarters = np.percentile([each["first_answer_ms"] for each in taken], (25, 75))
    return {"engine": name, **medians, "first_answer_quarters_ms": [round(float(value), 1) for value in quarters]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="har_watch", help="an exported folder (default: har_watch)")
    parser.add_argument("--processes", type=count, default=15, help="fresh processes of each kind")
    parser.add_argument("--seconds", type=float, default=5.0, help="of streaming before the memory is read")
    parser.add_argument("--out", type=Path, help="write the result to this JSON file")
    options = parser.parse_args()
    try:
        write_result(options.out, **measure(open_folder(options.folder), options.processes, options.seconds))
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
