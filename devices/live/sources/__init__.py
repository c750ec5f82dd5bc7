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
goes out of reach, and says so. Anything else that goes wrong leaves it as an exception.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from edgeseq.signal.arrivals import Arrival

Put = Callable[[Arrival], object]
Say = Callable[[str], object]
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds before another attempt
LOOK_SECONDS = 0.2


class Source(Protocol):
    """Something that arrivals come from."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over arrivals until ``stop`` is set or there are no more.

        Raises:
            Exception: whatever is no lost connection, also of a thread of its own or what a library calls.
        """


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


def all_at_once(jobs: Sequence[Callable[[threading.Event], object]], stop: threading.Event) -> None:
    """Run each job in a thread of its own until ``stop`` is set; each is given an event that then is set.

    The first that fails ends the others, and its exception is raised here.
    """
    over, failed = threading.Event(), list[BaseException]()

    def run(job: Callable[[threading.Event], object]) -> None:
        try:
            job(over)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    while not stop.is_set() and not failed and any(thread.is_alive() for thread in threads):
        stop.wait(LOOK_SECONDS)
    over.set()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def at(host: str, port: int) -> str:
    """A host and its port, as they stand in an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
