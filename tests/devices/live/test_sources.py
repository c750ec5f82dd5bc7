"""Sources that need no other machine, and what all of them have in common."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import numpy as np
import pytest

from edgeseq.devices.live.sources import again_and_again, all_at_once
from edgeseq.devices.live.sources.replay import LONGEST, Replay, frames_as_arrivals
from edgeseq.devices.live.sources.standard_input import StandardInput
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.readings import SECOND

WAIT = 20.0


class Clock:
    """Stands in for the time and for an event that is waited for: a wait takes as long as it says, and no longer."""

    def __init__(self, late: float = 0.0) -> None:
        self.now, self._late = 0.0, late
        self.waits: list[float] = []

    def monotonic_ns(self) -> int:
        return round(self.now * SECOND)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds + self._late

    def is_set(self) -> bool:
        return False


def test_a_replay_keeps_the_times_between_arrivals_at_its_speed(run):
    arrivals = [Arrival(10**18 + 20_000_000 * number, "lines", b"") for number in range(51)]
    begin = time.monotonic()
    replay = run(Replay("one", arrivals, 5.0))
    replay.thread.join(WAIT)
    assert 0.19 < time.monotonic() - begin < 5
    assert replay.arrivals == arrivals


def test_a_replay_that_waits_for_nothing_is_over_at_once_and_one_that_waits_can_be_stopped(run):
    hours = [Arrival(3600 * 10**9 * number, "lines", b"") for number in range(10)]
    fast = run(Replay("one", hours, 0.0))
    fast.thread.join(WAIT)
    assert len(fast.arrivals) == 10
    slow = run(Replay("one", hours, 0.01))
    slow.wait(lambda: slow.arrivals)
    slow.end()
    assert len(slow.arrivals) == 1


def test_a_replay_of_frames_does_not_drift_whoever_is_late(monkeypatch):
    clock, given = Clock(late=0.004), []
    monkeypatch.setattr("edgeseq.devices.live.sources.replay.time", clock)
    frames = list(frames_as_arrivals(np.zeros((5000, 2)), 50.0, "watch"))
    Replay("one", frames).run(lambda arrival: given.append(clock.now), clock, print)
    assert [arrival.time for arrival in frames[-2:]] == [4998 * 20_000_000, 4999 * 20_000_000]
    assert all(0 <= at - number / 50 < 0.0041 for number, at in enumerate(given))


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_an_idle_hour_and_a_clock_that_was_set_are_not_waited_for_and_the_rest_keeps_its_pace(monkeypatch, speed):
    clock, given = Clock(), []
    monkeypatch.setattr("edgeseq.devices.live.sources.replay.time", clock)
    jumps = {100: 3600 * SECOND, 200: -7200 * SECOND, 300: 86_400 * SECOND}
    times = np.cumsum([jumps.get(number, SECOND // 50) for number in range(400)]) + 10**18
    arrivals = [Arrival(int(at), "lines", b"") for at in times]
    Replay("one", arrivals, speed).run(lambda arrival: given.append(clock.now), clock, print)
    assert min(clock.waits) >= 0
    assert max(clock.waits) == pytest.approx(LONGEST / speed)
    assert given[-1] == pytest.approx((396 / 50 + 2 * LONGEST) / speed)


def test_standard_input_gives_line_by_line(run):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read, os.fdopen(theirs, "wb", buffering=0) as written:
        source = run(StandardInput(read))
        written.write(b"1,2,3\n4,5")
        source.wait(lambda: len(source.arrivals) == 1)
        written.write(b",6\n7")
        source.wait(lambda: len(source.arrivals) == 2)
        written.close()
        source.thread.join(WAIT)
    assert [arrival.body for arrival in source.arrivals] == [b"1,2,3", b"4,5,6", b"7"]


def test_standard_input_that_says_nothing_can_be_stopped(run):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read, os.fdopen(theirs, "wb"):
        run(StandardInput(read)).end()


@pytest.mark.parametrize("kind", ["replay", "stdin"])
def test_a_mistake_where_something_is_handed_over_leaves_the_source(run, kind):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read, os.fdopen(theirs, "wb", buffering=0) as written:
        written.write(b"1\n2\n")
        source = StandardInput(read) if kind == "stdin" else Replay("one", [Arrival(0, "lines", b"1")] * 2)
        running = run(source, ValueError("a mistake"))
        assert isinstance(running.fail(), ValueError)
    assert len(running.arrivals) == 1


def test_attempts_wait_longer_each_time_and_end_when_told(run):
    stop, said = threading.Event(), []

    def attempt() -> None:
        if len(said) == 3:
            stop.set()
        raise OSError("no route")

    again_and_again(attempt, "a phone", (OSError,), stop, lambda text: (said.append(text), stop.wait(0))[0])
    assert said[0] == "a phone: no route; trying again in 1 s"
    assert len(said) == 3


def test_attempts_end_with_what_is_no_lost_connection():
    with pytest.raises(ValueError, match="a mistake"):
        again_and_again(lambda: int("a mistake"), "a phone", (OSError,), threading.Event(), print)


def test_a_thread_that_fails_ends_the_others_and_its_exception_is_raised():
    ended = Counter[str]()

    def waits(over: threading.Event) -> None:
        assert over.wait(WAIT)
        ended["waits"] += 1

    def fails(over: threading.Event) -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        all_at_once([waits, fails, waits], threading.Event())
    assert ended["waits"] == 2


def test_threads_end_when_told_or_by_themselves():
    stop = threading.Event()
    all_at_once([lambda over: None] * 3, stop)
    threading.Timer(0.05, stop.set).start()
    all_at_once([lambda over: over.wait(WAIT)] * 3, stop)
    assert stop.is_set()
