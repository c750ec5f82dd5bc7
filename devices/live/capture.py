"""What came in, kept: the last seconds of it always, and all of it in a file where that is asked for.

A recording that begins in the middle of a stream begins with those last seconds, which whoever answers hears again just
then: what is read back gives the same answers from there on, bit for bit.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgeseq.errors import InputError
from edgeseq.signal.arrivals import Arrival, write_arrival
from edgeseq.signal.readings import SECOND

RECENT = 20.0  # seconds of arrivals that are kept
RECENT_BYTES = 16 << 20
HEADS = 8  # lines before the first reading of a kind
OBJECT = 200  # bytes that an arrival takes beside its body, about


class Capture:
    """Everything that arrives goes through here, in the order in which it is answered."""

    def __init__(self) -> None:
        self._recent: deque[Arrival] = deque()
        self._bytes = 0
        self._heads: dict[tuple[str, str], list[Arrival]] = {}
        self._begun: set[tuple[str, str]] = set()
        self._file: tuple[Path, BinaryIO] | None = None

    @property
    def name(self) -> str | None:
        """The file that is recorded to."""
        return self._file[0].name if self._file else None

    def keep(self, arrival: Arrival) -> None:
        """Take what arrived.

        Raises:
            InputError: it cannot be recorded any more, which ends the recording.
        """
        self._recent.append(arrival)
        self._bytes += _size(arrival)
        while self._recent and (
            self._bytes > RECENT_BYTES
            or abs(arrival.time - self._recent[0].time) > RECENT * SECOND  # or our own clock was set
        ):
            self._bytes -= _size(self._recent.popleft())
        if self._file is None:
            return
        path, file = self._file
        try:
            write_arrival(file, arrival)
            file.flush()
        except OSError as error:
            self.end()
            raise InputError(f"{path} cannot be written any more: {error.strerror}") from None

    def has_readings(self, arrival: Arrival, readings: bool) -> None:
        """Say whether an arrival had readings: what comes before the first of its kind is a header, and is kept."""
        key = (arrival.format, arrival.channel)
        if readings:
            self._begun.add(key)
        elif key not in self._begun and arrival.body.strip():
            heads = self._heads.setdefault(key, [])
            heads += [arrival] if len(heads) < HEADS else []

    def begin(self, path: Path) -> list[Arrival]:
        """Record to a file from now on; what it begins with, and what is to be heard again therefore.

        Raises:
            InputError: the file is there already, or cannot be written.
        """
        try:
            file = path.open("xb")
        except FileExistsError:
            raise InputError(f"{path} is there already: name another file") from None
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        self.end()
        first = [*self._lost_heads(), *self._recent]
        self._file = (path, file)
        try:
            for arrival in first:
                write_arrival(file, arrival)
            file.flush()
        except OSError as error:
            self.end()
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        return first

    def _lost_heads(self) -> list[Arrival]:
        """The headers that have come longer ago, as if they had come with what is kept."""
        lost = [head for heads in self._heads.values() for head in heads if head not in self._recent]
        return [msgspec.structs.replace(head, time=self._recent[0].time) for head in lost if self._recent]

    def end(self) -> None:
        """End the recording, if there is one."""
        ended, self._file = self._file, None
        if ended is not None:
            with suppress(OSError):  # what could not be written was said when it could not
                ended[1].close()


def _size(arrival: Arrival) -> int:
    return len(arrival.body) + OBJECT
