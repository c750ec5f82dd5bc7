"""Lines from standard input, as a program writes them."""

from __future__ import annotations

import threading
import time
from typing import BinaryIO

from edgeseq.devices.live.sources import Put, Say
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.senders.message import MAX_BYTES


class StandardInput:
    """Lines of JSON or comma-separated values, until there are no more."""

    name = "standard input"

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over each line as it comes. One that has no end is cut where a message ends at the latest."""
        while not stop.is_set() and (line := self._file.readline(MAX_BYTES)):
            put(Arrival(time.time_ns(), "lines", line, "stdin"))
