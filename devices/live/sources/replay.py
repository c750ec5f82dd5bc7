"""A recording or a capture once more, in its own time, faster, or as fast as it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgeseq.devices.live.sources import Put, Say
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.readings import SECOND
from edgeseq.signal.senders.frames import line_of

LONGEST = 3.0  # seconds between two arrivals, of their time: an idle hour, or a clock that was set, is not waited for


class Replay:
    """Arrivals in their order, ``speed`` times as fast as they came; 0 waits for nothing."""

    def __init__(self, name: str, arrivals: Iterable[Arrival], speed: float = 1.0) -> None:
        self.name = name
        self._arrivals, self._speed = arrivals, speed

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what there is, each when it is due: by how long all before have taken, so that nothing adds up."""
        begin, played, last = time.monotonic_ns(), 0, None
        for arrival in self._arrivals:
            played += 0 if last is None else min(max(arrival.time - last, 0), int(LONGEST * SECOND))
            last = arrival.time
            if self._speed:
                due = begin + played / self._speed
                stop.wait(max(0.0, (due - time.monotonic_ns()) / SECOND))
            if stop.is_set():
                return
            put(arrival)


def frames_as_arrivals(frames: Iterable[Sequence[Any]], rate: float, channel: str) -> Iterator[Arrival]:
    """Frames (C,) of a recording at ``rate`` Hz, as a program that sends them one by one would."""
    for number, frame in enumerate(frames):
        at = round(number * SECOND / rate)
        yield Arrival(at, "lines", line_of(at, [float(value) for value in frame]), channel)
