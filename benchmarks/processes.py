"""What the benchmarks share that train for hours: runs side by side within a budget, and where they were run."""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgeseq.errors import EdgeseqError


class Named(Protocol):
    """A run that can be told from others."""

    @property
    def key(self) -> tuple[Any, ...]: ...


Task = TypeVar("Task", bound=Named)
Row = TypeVar("Row")


def each_done(
    run: Callable[[Task], Row],
    tasks: Sequence[Task],
    *,
    jobs: int,
    budget: float,
    expected: Callable[[Task], float] = lambda task: 0.0,
) -> Iterator[Row]:
    """What ``run`` makes of each task, as it comes, ``jobs`` at a time, the first ones first.

    A task is begun if the seconds ``expected`` of it end within the ``budget``, in seconds. Those that are not, and
    those that end in an error of edgeseq's, are named on standard error as missing.
    """
    deadline, waiting = time.monotonic() + budget, list(tasks)
    running: dict[Future[Row], Task] = {}
    with ProcessPoolExecutor(jobs) as pool:
        while True:
            while len(running) < jobs and (task := next_task(waiting, expected, deadline - time.monotonic())):
                waiting.remove(task)
                running[pool.submit(run, task)] = task
            if not running:
                break
            finished = next(as_completed(running))
            task = running.pop(finished)
            try:
                row = finished.result()
            except EdgeseqError as error:
                print("missing:", *task.key, f"({error})", file=sys.stderr, flush=True)
                continue
            yield row
    for task in waiting:
        print("missing (out of time):", *task.key, file=sys.stderr, flush=True)


def next_task(waiting: Sequence[Task], expected: Callable[[Task], float], left: float) -> Task | None:
    """The first task that is expected to end in the seconds that are left."""
    return next((task for task in waiting if expected(task) < left), None)


def seconds(text: str) -> float:
    """A time such as 90m, 2h or 30s; without a unit, hours."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        found = float(text.rstrip("smh")) * (unit or 3600)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2h, 90m or 30s")
    return found


def machine(*, gpu: bool = False) -> str:
    """The processor, its cores and the system, in words; and the ``gpu`` that something was trained on."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    there = ""
    if gpu:  # a folder that was kept may come from another machine
        import torch

        there = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", a GPU that is not here"
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}{there}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
