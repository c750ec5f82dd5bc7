"""Lines from standard input, as a program writes them."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import BinaryIO

from edgeseq.devices.live.sources import LOOK_SECONDS, Put, Say
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.senders.message import MAX_BYTES


class StandardInput:
    """Lines of JSON or comma-separated values, until there are no more."""

    name = "standard input"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over each line as it comes. One that has no end is cut where a message ends at the latest."""
        rest, descriptor = b"", self._file.fileno()
        while not stop.is_set():
            if not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
                continue  # a thread that waits for a line would not end with the others
            part = os.read(descriptor, 1 << 16)
            *lines, rest = (rest + part).split(b"\n")
            for line in [*lines, *([rest] if rest and (not part or len(rest) > MAX_BYTES) else [])]:
                put(Arrival(time.time_ns(), "lines", line, "stdin"))
            if not part:
                return
            rest = rest if len(rest) <= MAX_BYTES else b""
