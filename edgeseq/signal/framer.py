"""From a sensor's readings, as they come, to frames at a model's rate: in order, without gaps, a little later.

What comes may be batched, out of order, doubled, late, at a rate that wanders, with holes and with a clock that jumps.
What goes out depends on the readings and their order alone, never on when they came: the same capture gives the same
frames, bit for bit. Frame k lies k / rate behind the first one; readings at just those times are the frames.

A frame waits for readings up to one frame's time behind it, for the next reading of each sensor, and for ``reorder``
beyond that: readings that come so much out of order are put in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import InputError
from edgeseq.manifest import Input
from edgeseq.signal.elsewhere import Elsewhere
from edgeseq.signal.layout import Layout, check_frame
from edgeseq.signal.readings import FRAME, SECOND, Reading, are_possible, limit, quantity
from edgeseq.signal.track import CROWD, Around, Track

LOOKED = 1.0  # seconds of a stream after which a sensor that has said nothing is missing
QUIET = 10.0  # seconds by which a sensor is behind the others, after which it has fallen silent
KEPT = 30.0  # seconds of readings that wait for a sensor that says nothing
LONG = 1.75  # times the usual between two readings, beyond which a frame between them is marked


class Frame(NamedTuple):
    """A frame at ``time`` ns of the sender's clock: ``values`` (C,) float32. ``bridged``: readings are missing here."""

    time: int
    values: NDArray[np.float32]
    bridged: bool


class Gap(NamedTuple):
    """A hole behind which nothing goes on: the next frame begins a recording. ``why``, in words."""

    time: int
    seconds: float
    why: str


class Counts(msgspec.Struct):
    """What became of readings and frames. ``late``: they came behind a frame that they belonged before."""

    readings: int = 0
    doubled: int = 0
    late: int = 0
    impossible: int = 0
    frames: int = 0
    bridged: int = 0
    gaps: int = 0


class Framer:
    """One stream of one sender, framed for one model's input."""

    def __init__(self, source: Input, *, max_gap: float, reorder: float = 0.0) -> None:
        """``max_gap`` and ``reorder`` in seconds: the longest hole that is bridged, and how late a reading may come.

        Raises:
            InputError: one of them is negative or not finite; a model that takes several samples in a step.
        """
        for name, value in (("max_gap", max_gap), ("reorder", reorder)):
            if not 0 <= value < 3600:
                raise InputError(f"{name} is {value:g} s: a time from 0 to 3600 s is needed")
        if source.samples_per_step != 1:
            raise InputError("streams are framed for models of one sample a step, this one takes several")
        self.counts = Counts()
        self._layout, self._rate = Layout(source.channels, source.signs), source.rate
        self._limits = [limit(channel.unit) for channel in source.channels]
        self._period = int(SECOND / source.rate)
        self._gap, self._reorder = round(max_gap * SECOND), round(reorder * SECOND)
        self._begin()

    @property
    def delay(self) -> float:
        """Seconds by which a frame waits for readings behind it, beside the time to the next one."""
        return (self._period + self._reorder) / SECOND

    @property
    def missing(self) -> str:
        """What keeps this stream from being framed, in words: a sensor that it lacks; "" while nothing does."""
        if self._sources:
            silent = [] if self._anchor is not None else self._silent()
            return f"{' and '.join(silent)}, whose times are far behind the others'" if silent else ""
        seen = [track.times for track in self._tracks.values() if track.times]
        if not seen or max(map(_last, seen)) - min(map(_first, seen)) < LOOKED * SECOND:
            return self._lacked
        return self._layout.missing(self._tracks)

    @property
    def rates(self) -> dict[str, float]:
        """Readings a second of each sensor, Hz, by the usual time between two of the last ones."""
        return {name: SECOND / track.usual for name, track in self._tracks.items() if track.usual}

    def push(self, readings: Iterable[Reading], *, late: bool = False) -> list[Frame | Gap]:
        """Take readings, in any order, and give what frames there are by now.

        ``late``: the sender says that newer ones have come already, so that no clock has gone back.

        Raises:
            InputError: a reading of another width or unit than its sensor has; none of them is taken.
        """
        came = sorted(readings, key=_time)
        rows = [self._row(reading) for reading in came]
        self.counts.readings += len(came)
        self._elsewhere.turn()
        for reading, row in zip(came, rows, strict=True):
            if row is None:
                self.counts.impossible += 1
            else:
                self._take(reading, row, late)
        self._count_strays()
        made = list(self._frames())
        if self._elsewhere.is_where_the_clock_is(self._sources or self._tracks):
            made += self._follow()
        return made

    def flush(self) -> list[Frame | Gap]:
        """What frames there are up to the last reading of every sensor, for nothing comes any more."""
        made: list[Frame | Gap] = []
        if self._elsewhere.is_where_the_clock_is(self._sources or self._tracks, ended=True):
            made += self._follow()
        self._elsewhere.leave()
        self._count_strays()
        made += self._frames(ended=True)
        lacked = self.missing
        self._begin()
        self._lacked = lacked
        return made

    def _begin(self) -> None:
        self._tracks: dict[str, Track] = {}
        self._sources: tuple[str, ...] = ()
        self._anchor: int | None = None
        self._made = 0  # frames since the anchor
        self._done: int | None = None  # the time of the last one
        self._elsewhere = Elsewhere(self._reorder)
        self._lacked = ""  # what kept a stream that has ended from being framed

    def _row(self, reading: Reading) -> tuple[float, ...] | None:
        """A reading's values as the model has them; None where they cannot be true.

        Raises:
            InputError: it is of another kind than it should be, which is no slip of a sensor.
        """
        if reading.sensor == FRAME:
            check_frame(reading.values, self._layout.channels)
            return self._layout.read(reading) if are_possible(reading.values, self._limits) else None
        if len(reading.values) != 3 or quantity(reading.unit) is None:
            raise InputError(
                f"{reading.sensor} gave {len(reading.values)} values in {reading.unit!r}: three are needed, in g, "
                "m/s², rad/s or deg/s"
            )
        row = self._layout.read(reading)
        return row if are_possible(reading.values, repeat(limit(reading.unit))) else None

    def _take(self, reading: Reading, row: tuple[float, ...], late: bool) -> None:
        track, place = self._tracks.get(reading.sensor), 0
        if track is not None and track.newest and self._layout.reads(reading.sensor):
            place = self._elsewhere.place(reading.time, track.newest)
        if place < 0 and late:
            self.counts.late += 1
        elif place:
            self._elsewhere.add(reading, row, place)
        else:
            self._elsewhere.leave(reading.sensor)
            self._place(reading, row)

    def _place(self, reading: Reading, row: tuple[float, ...]) -> None:
        track = self._tracks.setdefault(reading.sensor, Track())
        if self._done is not None and reading.time <= self._done:
            self.counts.late += 1
            track.newest = max(track.newest, reading.time)
        elif len(track.times) >= CROWD:
            self.counts.impossible += 1
        elif not track.add(reading.time, row):
            self.counts.doubled += 1

    def _count_strays(self) -> None:
        strays = self._elsewhere
        self.counts.late += strays.behind
        self.counts.impossible += strays.ahead
        strays.behind = strays.ahead = 0

    def _follow(self) -> list[Frame | Gap]:
        """Go where the sender's clock is: what there was is ended, and the readings from there begin anew."""
        held, newest = self._elsewhere.held(), self._newest()
        made = list(self._frames(ended=True))
        self._begin()
        self.counts.gaps += 1
        seconds = (held[0][0].time - newest) / SECOND
        why = (
            f"nothing came for {seconds:.2f} s" if seconds > 0 else f"the sender's clock went back by {-seconds:.1f} s"
        )
        made.append(Gap(newest, abs(seconds), why))
        for reading, row in held:
            self._place(reading, row)
        return [*made, *self._frames()]

    def _newest(self) -> int:
        return max((track.newest for track in self._tracks.values()), default=0)

    def _silent(self) -> list[str]:
        """The sensors of frames that have said nothing while others that the model could read have gone on."""
        newest = {name: track.newest for name, track in self._tracks.items() if self._layout.reads(name)}
        behind = max(newest.values(), default=0) - round(QUIET * SECOND) - self._reorder
        return [name for name in self._sources if newest[name] < behind]

    def _frames(self, *, ended: bool = False) -> Iterator[Frame | Gap]:
        if silent := self._silent():
            yield from self._without(silent)
        if not self._sources:
            self._sources = self._layout.sources(self._tracks) or ()
        tracks = [self._tracks[name] for name in self._sources]
        while tracks and all(track.times for track in tracks):
            begun = max(track.times[0] for track in tracks)
            time = begun if self._anchor is None else self._anchor + round(self._made * SECOND / self._rate)
            if begun > time:  # the others had to be forgotten while one said nothing
                yield self._hole(Around(time, begun))
                continue
            around = [track.around(time) for track in tracks]
            sides = [side for side in around if side is not None]
            if len(sides) < len(tracks) or not (ended or self._is_settled(time, tracks, sides)):
                break
            widest = max(sides, key=lambda side: side.apart)
            if widest.apart > max(self._gap, self._period):
                yield self._hole(widest)
                continue
            yield self._frame(time, tracks, sides)
        self._forget()

    def _is_settled(self, time: int, tracks: list[Track], sides: list[Around]) -> bool:
        """Whether no reading that may still come would change the frame at a time."""
        return all(
            max(time + self._period, side.right) <= track.times[-1] - self._reorder
            for track, side in zip(tracks, sides, strict=True)
        )

    def _frame(self, time: int, tracks: list[Track], sides: list[Around]) -> Frame:
        if self._anchor is None:  # not before: a reading may come that is older than the first one
            self._anchor, self._made = time, 0
        for track, side in zip(tracks, sides, strict=True):
            track.settle(side.right)
        values = {
            name: track.value(time, side, self._period)
            for name, track, side in zip(self._sources, tracks, sides, strict=True)
        }
        row = np.array(self._layout.row(values), np.float32)
        bridged = any(
            side.apart > LONG * max(track.usual, self._period) for track, side in zip(tracks, sides, strict=True)
        )
        self._made += 1
        self._done = time
        self.counts.frames += 1
        self.counts.bridged += bridged
        return Frame(time, row, bridged)

    def _hole(self, hole: Around) -> Gap:
        """Begin anew behind a hole."""
        for track in self._tracks.values():
            track.forget(hole.right)
        self._anchor, self._done = None, hole.right - 1
        self.counts.gaps += 1
        seconds = hole.apart / SECOND
        return Gap(hole.left, seconds, f"nothing came for {seconds:.2f} s")

    def _without(self, silent: Sequence[str]) -> Iterator[Gap]:
        """Begin anew without sensors that have fallen silent; where the model needs them, nothing comes of it.

        Before the first frame it is no hole, and they are given up only for others that say the same.
        """
        others = [name for name in self._tracks if name not in silent]
        if self._anchor is None and self._layout.sources(others) is None:
            return
        for name in silent:
            del self._tracks[name]
        self._sources = ()
        if self._anchor is None:
            return
        last, self._anchor = self._done or 0, None
        for track in self._tracks.values():
            track.forget(last + 1)
        self.counts.gaps += 1
        yield Gap(last, QUIET, f"{' and '.join(silent)} fell silent {QUIET:.0f} s ago")

    def _forget(self) -> None:
        """Drop what no frame reads any more, and what has waited too long for a sensor that says nothing."""
        oldest = self._newest() - round(KEPT * SECOND) - self._gap - self._reorder
        for track in self._tracks.values():
            read = None if self._done is None else track.around(self._done)
            if read is not None and self._done is not None:
                track.forget(min(read.left, self._done - self._period))
            track.forget(oldest)


def _time(reading: Reading) -> int:
    return reading.time


def _first(times: list[int]) -> int:
    return times[0]


def _last(times: list[int]) -> int:
    return times[-1]
