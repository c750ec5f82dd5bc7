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


class Replay:
    """Arrivals in their order, ``speed`` times as fast as they came; 0 waits for nothing."""

    def __init__(self, name: str, arrivals: Iterable[Arrival], speed: float = 1.0) -> None:
        self.name = name
        self._arrivals, self._speed = arrivals, speed

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what there is, each when it is due."""
        begin, first = time.monotonic_ns(), None
        for arrival in self._arrivals:
            first = arrival.time if first is None else first
            if self._speed:
                due = begin + (arrival.time - first) / self._speed
                stop.wait(max(0.0, (due - time.monotonic_ns()) / SECOND))
            if stop.is_set():
                return
            put(arrival)


def frames_as_arrivals(frames: Iterable[Sequence[Any]], rate: float, channel: str) -> Iterator[Arrival]:
    """Frames (C,) of a recording at ``rate`` Hz, as a program that sends them one by one would."""
    for number, frame in enumerate(frames):
        at = round(number * SECOND / rate)
        yield Arrival(at, "lines", line_of(at, [float(value) for value in frame]), channel)
