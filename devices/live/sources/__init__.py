"""Where streams come from, each by its address: what is written behind ``--source``.

    replay:spar_watch          a recording of a data set, of a subject that the model has never seen
    replay:FILE                a capture that --record wrote
    stdin                      lines of JSON or comma-separated values
    http                       what Sensor Logger pushes to this machine
    mqtt://HOST[:PORT]/TOPIC   the same messages from a broker
    ws://PHONE:PORT            SensorServer, on Android
    phyphox://PHONE[:PORT]     phyphox, asked ten times a second
    ble:NAME                   a Bangle.js, or another Espruino watch

A source runs in a thread of its own until it is told to stop or has nothing more; it comes back by itself where a phone
goes out of reach, and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from edgeseq.signal.arrivals import Arrival

Put = Callable[[Arrival], object]
Say = Callable[[str], object]
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds before another attempt


class Source(Protocol):
    """Something that arrivals come from."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over arrivals until ``stop`` is set or there are no more."""


def again_and_again(
    attempt: Callable[[], object], what: str, lost: tuple[type[Exception], ...], stop: threading.Event, say: Say
) -> None:
    """Make an attempt, which ends when what it was connected to is ``lost``, until ``stop`` is set.

    One that failed soon is waited for longer each time; one that had run for a while starts again at once.
    """
    wait = FIRST_WAIT
    while not stop.is_set():
        begin = time.monotonic()
        try:
            attempt()
            why = "it ended the connection"
        except lost as error:
            why = str(error) or type(error).__name__
        if stop.is_set():
            return
        wait = FIRST_WAIT if time.monotonic() - begin > LONGEST_WAIT else min(2 * wait, LONGEST_WAIT)
        say(f"{what}: {why}; trying again in {wait:.0f} s")
        stop.wait(wait)
