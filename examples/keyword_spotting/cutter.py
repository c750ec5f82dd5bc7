"""Words of an endless sound, cut out while it comes: what stands out of the noise around it."""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

QUIET = -60.0  # dB of full scale: no noise is taken for less
DEAD = -90.0  # dB: less is no room's noise, but a recorder that gives none: what 16 bits cannot say
MEMORY = 2.0  # seconds that the noise is known from; longer than LONGEST, or a word could be its own noise
RISE, FALL = 10.0, 6.0  # dB over the noise: louder begins a word, and louder than FALL goes on with it
ONSET = 0.048  # seconds that it must be loud to begin: a click is not
HANG = 0.24  # seconds of quiet that end a word: the stop inside "eight" is shorter
BEFORE, AFTER = 0.064, 0.032  # seconds of quiet that belong to a word: the f of "four" is hardly louder than noise
LONGEST = 1.6  # seconds of one word
MARGIN = 3.0  # dB: the quietest hop of a recording without a pause is still part of its word


def level(hop: Floats) -> float:
    """The power of a hop (H,) about its mean, in dB of full scale; not finite where a sample is not."""
    if not np.isfinite(hop).all():
        return float("nan")
    return float(10 * np.log10(max(float(np.var(hop, dtype=np.float64)), 1e-12)))


def noise_before(sound: Floats, size: int, rate: float) -> float:
    """What to take for the noise ahead of a recording (N,) in hops of ``size``, in dB: MARGIN below its least level.

    Of the hops of its first MEMORY that are not DEAD. A recording may start with a word, so its first hops alone do not
    say.
    """
    noise = Noise([], round(MEMORY * rate))
    for hop in sound[: len(sound) // size * size].reshape(-1, size):
        noise.hear(level(hop))
        if len(noise.levels) == noise.levels.maxlen:
            break
    return min(noise.levels, default=QUIET) - MARGIN


class Noise:
    """The levels of the last hops that say how loud the noise is; those that are DEAD, or lie beside such, do not."""

    def __init__(self, levels: list[float], memory: int) -> None:
        """``memory``: hops."""
        self.levels, self._dead = deque(levels, memory), False

    def hear(self, loudness: float) -> None:
        before, self._dead = self._dead, loudness < DEAD
        if self._dead and not before and self.levels:
            self.levels.pop()  # of a hop that may have been dead in part
        elif not self._dead and not before:
            self.levels.append(loudness)

    @property
    def least(self) -> float:
        return max(QUIET, min(self.levels, default=QUIET))


class Part(NamedTuple):
    """What is known of a word with one more hop.

    ``hops``: those (H,) that are now known to be the word's next ones, none of them twice. ``begins``: with the first
    of them. ``ends``: with the last of them. ``broken``: why it is not one word, where it ends for that; else "".
    """

    hops: tuple[Floats, ...] = ()
    begins: bool = False
    ends: bool = False
    broken: str = ""


class WordCutter:
    """Finds words in a stream of hops.

        noise = max(QUIET, the least level of the last hops in MEMORY)        what a pause between two words sounds like

    A word begins once the level has been over noise + RISE for ONSET, and takes BEFORE with it, which it keeps back so
    far. It ends when the level has not been over noise + FALL for HANG, and all but AFTER of that is not given to it: a
    pause inside a word is given to it when the word goes on. What lasts for LONGEST is not a word: it ends at once, and
    nothing begins before a hop is quiet again, or has become the noise.

    The loud hops of a word are not of the noise, and neither are hops that are DEAD: behind a drop-out, or in a
    recording whose pauses were erased, the noise is what it was. A hop with a sample that is not
    finite is sound that was lost.

    At the start nothing has been heard: a recording says what ``noise`` came ahead of it, since it may start with a
    word. A microphone is listened to for ``settle`` seconds first, in which no word begins; as long as it is DEAD this
    is put off, for MEMORY at most.
    """

    def __init__(self, rate: float, *, noise: float = QUIET, settle: float = 0.0) -> None:
        """``rate``: hops per second. ``noise``: in dB of full scale, not used with ``settle``."""
        self._onset, self._hang, self._before, self._after, self._longest, memory = (
            max(1, round(seconds * rate)) for seconds in (ONSET, HANG, BEFORE, AFTER, LONGEST, MEMORY)
        )
        self._settle, self._patience = round(settle * rate), memory
        self._noise = Noise([] if self._settle else [noise] * memory, memory)
        self._idle()

    def __call__(self, hop: Floats) -> Part:
        """What the next hop (H,) says. It is kept for a while: give each in an array of its own."""
        loudness = level(hop)
        if not np.isfinite(loudness):
            return self.lost()
        if self._settle:
            self._noise.hear(loudness)
            self._past.append(hop)
            self._patience -= 1
            if len(self._noise.levels) == self._settle or not self._patience:
                self._settle = 0
            return Part()
        over = loudness - self._noise.least
        loud = over > (FALL if self._length else RISE) and not self._blocked
        if loud:
            self._loudnesses.append(loudness)  # noise only if this turns out to be no word
        else:
            self._noise.hear(loudness)
        self._blocked = self._blocked and over > FALL
        return self._inside(hop, loud) if self._length else self._outside(hop, loud)

    def end(self) -> Part:
        """The sound ends, and so does a word that has begun."""
        part = Part(tuple(self._pause[: self._after]), ends=True) if self._length else Part()
        self._idle(blocked=True)
        return part

    def lost(self) -> Part:
        """A part of the sound was lost: a word that has begun is none.

        The noise is remembered, and what goes on behind the loss is no word: its beginning may have been lost.
        """
        part = self.end()
        return part._replace(broken="not all of it came") if part.ends else part

    def _idle(self, past: tuple[Floats, ...] = (), blocked: bool = False) -> None:
        self._past = deque(past, self._before + self._onset)  # what the next word may take with it
        self._pause: list[Floats] = []  # quiet hops behind the loud ones of a word: it may go on
        self._length = 0  # hops of the word, 0 outside of one
        self._loudnesses: list[float] = []  # of the loud hops of the word; outside of one, of those in a row
        self._blocked = blocked

    def _outside(self, hop: Floats, loud: bool) -> Part:
        self._past.append(hop)
        if not loud:
            self._loudnesses.clear()
        if len(self._loudnesses) < self._onset:
            return Part()
        self._length = len(self._past)
        return Part(tuple(self._past), begins=True)

    def _inside(self, hop: Floats, loud: bool) -> Part:
        self._pause.append(hop)
        self._length += 1
        if loud:
            hops, self._pause = tuple(self._pause), []
            if self._length < self._longest:
                return Part(hops)
            self._noise.levels.extend(self._loudnesses)
            self._idle(blocked=True)
            return Part(hops, ends=True, broken=f"longer than {LONGEST:g} s")
        if len(self._pause) < self._hang:
            return Part()
        own, rest = tuple(self._pause[: self._after]), tuple(self._pause[self._after :])
        self._idle(rest)
        return Part(own, ends=True)
