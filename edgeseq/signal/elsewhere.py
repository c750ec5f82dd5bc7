"""Readings whose times are far from where their sensor is: late or stray ones, or those of a clock that was set.

One of them says nothing. Where nothing but such readings comes for a second, one after the other, from all sensors and
in more than one message, the sender's clock is there now.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeseq.signal.readings import SECOND, Reading
from edgeseq.signal.track import CROWD

BEHIND, AHEAD = 2.0, 60.0  # seconds from a sensor's newest reading, beyond ``reorder``, that are elsewhere
LASTS = 1.0  # seconds of readings elsewhere alone, after which the clock is there
LONGEST = 10.0  # and of those of some sensors, where the others say nothing
Held = tuple[Reading, tuple[float, ...]]


class _Run:
    """Readings of a sensor that are elsewhere, and near each other; ``place`` as :meth:`Elsewhere.place` has it."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.held: list[Held] = []
        self.oldest = self.newest = 0
        self.alone = True  # no other sensor has gone on where it was since the first of them

    def add(self, reading: Reading, row: tuple[float, ...]) -> None:
        self.oldest = min(self.oldest, reading.time) if self.held else reading.time
        self.newest = max(self.newest, reading.time) if self.held else reading.time
        self.held.append((reading, row))


class Elsewhere:
    """What is held back of a stream, by sensor, until it is clear what it is.

    Attributes:
        behind, ahead: how many readings were no more than strays.
    """

    def __init__(self, reorder: int) -> None:
        """``reorder``: nanoseconds by which readings may be out of order."""
        self._behind, self._ahead = round(BEHIND * SECOND) + reorder, round(AHEAD * SECOND)
        self._runs: dict[str, _Run] = {}
        self._turns: set[int] = set()  # those in which something was held back
        self._turn = 0
        self.behind = self.ahead = 0

    def turn(self) -> None:
        """Another message has come."""
        self._turn += 1

    def place(self, time: int, newest: int) -> int:
        """Where a reading is, seen from its sensor's newest: -1 far behind, 1 far ahead, 0 where it belongs."""
        return -1 if time < newest - self._behind else int(time > newest + self._ahead)

    def add(self, reading: Reading, row: tuple[float, ...], place: int) -> None:
        """Hold a reading back; those of its sensor that are not near it were strays."""
        run = self._runs.get(reading.sensor)
        if run is None or self.place(reading.time, run.newest) or len(run.held) >= CROWD:
            self.leave(reading.sensor)
            run = self._runs[reading.sensor] = _Run(place)
        run.add(reading, row)
        self._turns.add(self._turn)

    def leave(self, *sensors: str) -> None:
        """Sensors, or all of them, go on where they were: what is held back of them were strays."""
        for sensor in sensors or list(self._runs):
            run = self._runs.pop(sensor, None)
            if run is not None and run.place < 0:
                self.behind += len(run.held)
            elif run is not None:
                self.ahead += len(run.held)
        for run in self._runs.values():
            run.alone = False
        if not self._runs:
            self._turns.clear()

    def held(self) -> list[Held]:
        """All that is held back, by its times."""
        return sorted((held for run in self._runs.values() for held in run.held), key=lambda held: held[0].time)

    def is_where_the_clock_is(self, sensors: Collection[str], *, ended: bool = False) -> bool:
        """Whether the sender's clock is there now, which had these ``sensors``; ``ended``: nothing else will come."""
        if not self._runs or (len(self._turns) < 2 and not ended):
            return False
        lasts = max(run.newest - run.oldest for run in self._runs.values())
        if set(sensors) <= set(self._runs):
            return lasts >= LASTS * SECOND
        return all(run.alone for run in self._runs.values()) and lasts >= LONGEST * SECOND
