"""Readings whose times are far from where their sensor is: late or stray ones, or those of a clock that was set.

One of them says nothing. Where nothing but such readings comes for a second, from all sensors and in more than one
message, the sender's clock is there now.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeseq.signal.readings import SECOND, Reading

BEHIND, AHEAD = 2.0, 60.0  # seconds from a sensor's newest reading, beyond ``reorder``, that are elsewhere
LASTS = 1.0  # seconds of readings elsewhere alone, after which the clock is there
LONGEST = 10.0  # and of those of some sensors, where the others say nothing
CROWD = 20_000  # readings elsewhere that are kept
Held = tuple[Reading, tuple[float, ...]]


class Elsewhere:
    """What is held back of a stream, by sensor, until it is clear what it is."""

    def __init__(self, reorder: int) -> None:
        """``reorder``: nanoseconds by which readings may be out of order."""
        self._behind, self._ahead = round(BEHIND * SECOND) + reorder, round(AHEAD * SECOND)
        self._held: dict[str, list[tuple[Held, int]]] = {}
        self._turns: set[int] = set()  # those in which something was held back
        self._turn = 0

    def turn(self) -> None:
        """Another message has come."""
        self._turn += 1

    def place(self, time: int, newest: int) -> int:
        """Where a reading is, seen from its sensor's newest: -1 far behind, 1 far ahead, 0 where it belongs."""
        return -1 if time < newest - self._behind else int(time > newest + self._ahead)

    def add(self, reading: Reading, row: tuple[float, ...], place: int) -> tuple[int, int]:
        """Hold a reading back; how many behind and ahead are given up for it."""
        held = self._held.setdefault(reading.sensor, [])
        held.append(((reading, row), place))
        self._turns.add(self._turn)
        if len(held) <= CROWD:
            return 0, 0
        _, oldest = held.pop(0)
        return int(oldest < 0), int(oldest > 0)

    def leave(self, sensor: str) -> tuple[int, int]:
        """A sensor goes on where it was: how many readings behind and ahead were no more than strays."""
        places = [place for _, place in self._held.pop(sensor, ())]
        if not self._held:
            self._turns.clear()
        return sum(place < 0 for place in places), sum(place > 0 for place in places)

    def held(self) -> list[Held]:
        """All that is held back, by its times."""
        return sorted((held for each in self._held.values() for held, _ in each), key=lambda held: held[0].time)

    def is_where_the_clock_is(self, sensors: Collection[str], *, ended: bool = False) -> bool:
        """Whether the sender's clock is there now, which had these ``sensors``; ``ended``: nothing else will come."""
        if not self._held or (len(self._turns) < 2 and not ended):
            return False
        times = [reading.time for each in self._held.values() for (reading, _), _ in each]
        lasts = max(times) - min(times)
        return lasts >= LASTS * SECOND and (set(sensors) <= set(self._held) or lasts >= LONGEST * SECOND)
