"""One sensor's readings in the order of their times, and its value at any moment between two of them.

The value at a moment t is, of the readings x_i at t_i, with T the time of a frame:

    Σ w_i x_i / Σ w_i,   w_i = max(0, 1 - |t_i - t| / T)

a triangle: of a faster sensor it takes out what frames cannot carry; a reading at t alone, those beside it being T away
or farther, is returned as it is. Where the readings around t are more than T apart it is the line between them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from statistics import median
from typing import NamedTuple

CROWD = 20_000  # readings of a sensor that may wait: more than any gives in half a minute
RECENT = 32  # times between readings that the usual one is the median of


class Around(NamedTuple):
    """The readings on both sides of a moment, by their times in ns; both are one that lies on it."""

    left: int
    right: int

    @property
    def apart(self) -> int:
        """Nanoseconds between the two."""
        return self.right - self.left


class Track:
    """Readings of one sensor. Times are in nanoseconds; values of a reading are as many as of the first.

    Attributes:
        times: of the readings that are kept.
        newest: the latest time that was ever added; 0 before that.
    """

    def __init__(self) -> None:
        self.times: list[int] = []
        self.newest = 0
        self._values: dict[int, tuple[float, ...]] = {}
        self._between: deque[int] = deque(maxlen=RECENT)
        self._settled: int | None = None

    @property
    def usual(self) -> float:
        """The usual time between the readings that are settled, in ns; 0 where that is not known yet."""
        return float(median(self._between)) if self._between else 0.0

    def settle(self, until: int) -> None:
        """Nothing will come any more between the readings up to ``until``, a reading's time."""
        for time in self.times[bisect_right(self.times, self._settled or 0) : bisect_right(self.times, until)]:
            if self._settled is not None:
                self._between.append(time - self._settled)
            self._settled = time

    def add(self, time: int, values: tuple[float, ...]) -> bool:
        """Put a reading in its place; False where there is one of that time, which stays."""
        if time in self._values:
            return False
        insort(self.times, time)
        self._values[time] = values
        self.newest = max(self.newest, time)
        return True

    def around(self, time: int) -> Around | None:
        """The readings around a moment; None where there is none on one side."""
        at = bisect_left(self.times, time)
        if at == len(self.times):
            return None
        if self.times[at] == time:
            return Around(time, time)
        return Around(self.times[at - 1], self.times[at]) if at else None

    def value(self, time: int, around: Around, period: int) -> tuple[float, ...]:
        """The value at a moment between two readings, for frames that last ``period`` ns."""
        if around.apart > period:
            chosen, width = [around.left, around.right], around.apart
        else:
            low, high = bisect_right(self.times, time - period), bisect_left(self.times, time + period)
            chosen, width = self.times[low:high], period
        weights = [1 - abs(at - time) / width for at in chosen]
        if len(chosen) == 1:
            return self._values[chosen[0]]
        total = sum(weights)
        rows = [self._values[at] for at in chosen]
        return tuple(sum(map(float.__mul__, weights, column)) / total for column in zip(*rows, strict=True))

    def forget(self, before: int) -> None:
        """Drop readings before a time."""
        at = bisect_left(self.times, before)
        for time in self.times[:at]:
            del self._values[time]
        del self.times[:at]
