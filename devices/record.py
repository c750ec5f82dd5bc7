"""The file in which a long run keeps what it has: a line of JSON a minute, which survives an interruption.

A process appends a line that says what it measures, then one for each minute. The next process goes on behind the last
whole line: after a power cut the one that was being written may be torn.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import msgspec

from edgeseq.devices.bench.counts import Counts
from edgeseq.devices.board.moments import Moment
from edgeseq.devices.conditions import Conditions
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.facts import Facts
from edgeseq.errors import InputError


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="edgeseq", tag="long run"):
    """What a process measures; ``rate`` in steps per second."""

    folder_hash: str
    name: str
    engine: str
    rate: float
    conditions: Conditions
    facts: Facts

    def unlike(self, other: Started) -> str | None:
        """What another process measured otherwise, so that the two make no one run: its name, this value and that."""
        one, two = self._identity(), other._identity()
        return next((f"{name} is {one[name]}, not {two[name]}" for name in one if one[name] != two[name]), None)

    def _identity(self) -> dict[str, str]:
        condition = self.conditions
        pin = "as it was found" if condition.pin is None else ",".join(map(str, condition.pin))
        return {
            "the model": f"{self.name} {self.folder_hash[:12]}",
            "the engine": self.engine,
            "the rate": f"{self.rate:g} Hz",
            "--pin": pin,
            "--priority": condition.priority or "as it was found",
            "--threads": f"{condition.threads}",
            "the machine": f"{self.facts.model or self.facts.machine} ({self.facts.provenance})",
            "Python": self.facts.python,
            **{package: self.facts.versions.get(package, "of no known version") for package in self._packages()},
        }

    def _packages(self) -> tuple[str, ...]:
        """What an upgrade may replace between two processes."""
        kind = ENGINES.get(self.engine)  # None in the record of an edgeseq that has other engines
        return kind.package if kind else self.engine, "numpy", "edgeseq"


class Part(msgspec.Struct, frozen=True, kw_only=True, tag_field="edgeseq", tag="part"):
    """A minute, or what there was of it: steps, and their durations counted. An emulated board has no times."""

    frames: int
    call: Counts = Counts()
    response: Counts = Counts()
    jitter: Counts = Counts()
    deadline_misses: int | None = None
    wall_ns: int = 0
    cpu_ns: int = 0
    rss_bytes: int | None = None
    moment: Moment | None = None


@dataclass
class Process:
    """What one process recorded."""

    started: Started
    parts: list[Part] = field(default_factory=list)


class Record:
    """A record that is open, and no other process's. Its parts stay on the disk: the memory of a run must not grow.

    ``first`` is what the first process said, ``earlier`` how many there were before this one, ``frames`` the steps so
    far.
    """

    def __init__(self, path: Path, file: FileIO) -> None:
        """Read what there is, and drop a last line that is torn.

        Raises:
            InputError: it is not a record, or damaged.
        """
        self.path, self._file = path, file
        processes, self._kept = self._read()
        self.first = processes[0].started if processes else None
        self.earlier = len(processes)
        self.frames = sum(part.frames for process in processes for part in process.parts)
        file.truncate(self._kept)
        file.seek(self._kept)

    def check(self, started: Started) -> None:
        """Refuse a process that would measure something else than those before it.

        Raises:
            InputError: naming what it is.
        """
        different = self.first and started.unlike(self.first)
        if different:
            raise InputError(
                f"{self.path} holds the first part of another run: {different}; remove it, or name another --out"
            )

    def start(self, started: Started) -> None:
        """Go on as a new process.

        Raises:
            InputError: the record cannot be written.
        """
        self._write(started)
        self.first = self.first or started

    def add(self, part: Part) -> None:
        """Append a part, and have it on the disk when this returns; an interruption waits for that.

        Raises:
            InputError: it cannot be written; what was there before is kept.
        """
        with _uninterrupted():
            self._write(part)
            self.frames += part.frames

    def processes(self) -> list[Process]:
        """All that was recorded, read anew.

        Raises:
            InputError: it was damaged meanwhile.
        """
        return self._read()[0]

    def _write(self, line: Started | Part) -> None:
        left = memoryview(msgspec.json.encode(line) + b"\n")
        size = len(left)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # a torn line is dropped when the record is read, too
                self._file.truncate(self._kept)
            raise InputError(
                f"{self.path} cannot be written: {error.strerror}; what is in it is kept ({self.frames:,} steps): make "
                "room and give the same command again"
            ) from None
        self._kept += size

    def _read(self) -> tuple[list[Process], int]:
        """The lines, and how many bytes are whole ones."""
        self._file.seek(0)
        *lines, torn = self._file.readall().split(b"\n")
        processes: list[Process] = []
        kept = 0
        for number, line in enumerate(lines, 1):
            try:
                found = msgspec.json.decode(line, type=Started | Part)
                if isinstance(found, Started):
                    processes.append(Process(found))
                else:
                    processes[-1].parts.append(found)
            except (msgspec.MsgspecError, IndexError, UnicodeDecodeError):
                if number == len(lines) and processes and not torn.strip(b"\0"):
                    break  # what a power cut left of it may end in a line's end
                raise InputError(
                    f"{self.path}, line {number} is not what a long run writes: remove the file, or name another --out"
                ) from None
            kept += len(line) + 1
        if not kept and not _torn_start(torn):
            raise InputError(f"{self.path} is not what a long run writes: remove it, or name another --out")
        return processes, kept


def _torn_start(content: bytes) -> bool:
    """Whether this may be what a power cut left of a first line."""
    begin = b'{"edgeseq":"long run"'
    left = content.rstrip(b"\0")
    return begin.startswith(left[: len(begin)])


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes behind the block: what is on the disk and what is said of it stay the same."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def open_record(path: Path) -> Iterator[Record]:
    """The record at a path, made where there is none.

    Raises:
        InputError: it cannot be opened, is another process's, is not a record, or is damaged.
    """
    import fcntl  # here: the rest of the room runs where there is none

    try:
        file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path} is being written by another process: wait for it, or name another --out"
            ) from None
        try:
            yield Record(path, file)
        finally:
            with suppress(OSError):
                if not path.stat().st_size:  # nothing came of it
                    path.unlink()
