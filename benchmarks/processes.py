"""What the benchmarks share that train for hours: runs side by side within a budget, and where they were run."""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from edgeseq.errors import EdgeseqError


class Named(Protocol):
    """A run that can be told from others."""

    @property
    def key(self) -> tuple[Any, ...]: ...


Task = TypeVar("Task", bound=Named)
Row = TypeVar("Row")


@dataclass(frozen=True)
class Missing(Generic[Task]):
    """A run that there is nothing of, and ``why``; or else it ``failed``, or there was no time to begin it."""

    task: Task
    why: str
    failed: bool

    def __str__(self) -> str:
        return f"missing: {' '.join(map(str, self.task.key))} ({self.why})"


def each_done(
    run: Callable[[Task], Row],
    tasks: Sequence[Task],
    *,
    jobs: int,
    budget: float,
    expected: Callable[[Task], float] = lambda task: 0.0,
) -> Iterator[Row | Missing[Task]]:
    """What ``run`` makes of each task, as it comes, ``jobs`` at a time, the first ones first; or why it makes nothing.

    A task is begun if the seconds ``expected`` of it end within the ``budget``, in seconds; what runs then ends. Each
    has a process of its own, so that one that dies takes no other with it. An error that is not edgeseq's is a mistake
    in the code: its traceback is printed.
    """
    deadline, waiting = time.monotonic() + budget, list(tasks)
    running: dict[Future[Row], tuple[Task, Executor]] = {}
    try:
        while True:
            while len(running) < jobs and (task := next_task(waiting, expected, deadline - time.monotonic())):
                waiting.remove(task)
                pool = one_process()
                running[pool.submit(run, task)] = (task, pool)
            if not running:
                break
            finished = next(as_completed(running))
            task, pool = running.pop(finished)
            pool.shutdown()
            ended = outcome(finished, task)
            yield ended
    finally:
        for _, pool in running.values():
            pool.shutdown(cancel_futures=True)
    for task in waiting:
        yield Missing(task, f"out of time: it may take {expected(task):.0f} s", failed=False)


def one_process() -> Executor:
    """A process of its own, begun anew: one that is forked from threads may wait for a lock for ever."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def outcome(finished: Future[Row], task: Task) -> Row | Missing[Task]:
    """The row of a run that has ended, or why there is none."""
    try:
        return finished.result()
    except BrokenExecutor:
        return Missing(task, "its process died; if memory ran out, run fewer at once: --jobs 1", failed=True)
    except EdgeseqError as error:
        return Missing(task, str(error), failed=True)
    except Exception as error:
        traceback.print_exception(error)
        return Missing(task, f"{type(error).__name__}: {error}", failed=True)


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


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


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
