"""All streams of a process: what arrives goes in from any thread, one thread answers, and anybody may look.

The thread that answers waits for nobody: who looks takes what there is by then, and what is older than
:data:`~.view.KEPT` seconds is gone. What arrives is recorded, decoded and answered in the order in which it came.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgeseq.devices.live.capture import Capture
from edgeseq.devices.live.view import View, quantiles
from edgeseq.devices.live.wearer import Event, Wearer, check_alike
from edgeseq.errors import EdgeseqError, InputError, unknown
from edgeseq.folder import Folder
from edgeseq.signal.arrivals import Arrival, Decoders
from edgeseq.signal.readings import SECOND
from edgeseq.signal.senders.message import MAX_BYTES, Message

POLL = 0.2  # seconds between two looks whether the thread that answers is alive
WAITING, WAITING_BYTES = 1000, 32 << 20  # of messages that may wait to be answered
WEARERS = 16
SILENT = 60.0  # seconds without a message after which another stream may have a stream's place
NAME = 200  # characters of a stream's name

OnEvent = Callable[[str, Event], object]


class TooBusy(InputError):
    """Too much waits to be answered already: what came is lost."""


class _Work(NamedTuple):
    """Something for the thread that answers, and what becomes of it; ``size`` in bytes."""

    job: Callable[[], None]
    done: Future[None]
    size: int


class Hub:
    """The streams, by the names of their senders. Close it when it is done with."""

    def __init__(
        self,
        models: Mapping[str, Folder],
        *,
        reorder: float = 0.0,
        engine: str | None = None,
        on_event: OnEvent = lambda name, event: None,
    ) -> None:
        """``on_event`` is called by the thread that answers, which waits for it.

        Raises:
            InputError: the models do not read the same.
        """
        check_alike(models)
        Wearer(models, reorder=reorder, engine=engine)  # what cannot be opened is said now
        self._models, self._reorder, self._engine, self._on_event = dict(models), reorder, engine, on_event
        self._source = next(iter(models.values())).manifest.input
        self._decoders, self._capture = Decoders(self._source), Capture()
        self._views: dict[str, View] = {}
        self._queue: queue.Queue[_Work | None] = queue.Queue(WAITING)
        self._lock, self._waiting = threading.Lock(), 0
        self._failed: BaseException | None = None
        self.refused, self.why = 0, ""
        self._thread = threading.Thread(target=self._answer, name="answers", daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the thread that answers has died of a mistake of ours."""
        return self._failed is not None

    @property
    def missing(self) -> dict[str, str]:
        """What each stream lacks to be answered, in words; "" where it is nothing."""
        with self._lock:
            return {name: view.missing for name, view in self._views.items()}

    def put(self, arrival: Arrival, *, wait: bool = False) -> Future[None]:
        """Take what has arrived; ``wait`` until there is room for it.

        What is returned is done when it has been answered. It raises InputError where it is no message of its format
        or not of its stream's sensors, which is counted.

        Raises:
            TooBusy: there is no room, which is counted.
            RuntimeError: the thread that answers has died.
        """
        arrived = time.perf_counter_ns()
        try:
            return self._enqueue(lambda: self._hear(arrival, arrived), size=len(arrival.body), wait=wait)
        except TooBusy as error:
            self._refuse(error)
            raise

    def choose(self, name: str, model: str) -> None:
        """Let another model answer a stream.

        Raises:
            InputError: there is no such stream or model; and what opening the model raises.
        """
        self._ask(lambda: self._choose(name, model))

    def record(self, file: Path | None) -> None:
        """Keep what arrives from now on in a file, and the last seconds before; or stop it.

        Those seconds are heard again by all streams, as if they had begun with them: so do those of the file.

        Raises:
            InputError: the file is there already, or cannot be written.
        """
        self._ask(lambda: self._record(file))

    def end(self) -> None:
        """Answer what is left of every stream, behind all that has arrived."""
        self._ask(self._end)

    def look(self, since: Mapping[str, int]) -> dict[str, Any]:
        """How all streams stand, with their frames from those numbers on."""
        with self._lock:
            looks = {name: view.look(since.get(name, 0)) for name, view in self._views.items()}
            recording, refused, why = self._capture.name, self.refused, self.why
        return {
            "streams": {
                name: {
                    **seen,
                    "frames": [each.row() for each in frames],
                    "step_us": quantiles(steps),
                    "total_us": quantiles(totals),
                }
                for name, (seen, frames, (steps, totals)) in looks.items()
            },
            "models": list(self._models),
            "channels": [{"name": channel.name, "unit": channel.unit} for channel in self._source.channels],
            "rate": self._source.rate,
            "recording": recording,
            "refused": refused,
            "why": why,
        }

    def close(self) -> None:
        """Answer what waits, and end; what is recorded is whole then."""
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(None, timeout=POLL)
                self._thread.join()
        self._capture.end()

    def _enqueue(self, job: Callable[[], None], *, size: int = 0, wait: bool) -> Future[None]:
        work = _Work(job, Future(), size)
        work.done.set_running_or_notify_cancel()  # who waits for it may leave, and it is answered all the same
        while True:
            if self._has_ended:
                raise self._why_ended() from self._failed
            if self._put(work, POLL if wait else 0.0):
                break
            if not wait:
                raise TooBusy(f"{self._queue.qsize()} messages wait to be answered: this machine is too slow for them")
        if self._has_ended:
            self._give_up()  # it ended between the two
        return work.done

    @property
    def _has_ended(self) -> bool:
        return self._failed is not None or not self._thread.is_alive()

    def _why_ended(self) -> BaseException:
        if isinstance(self._failed, BrokenPipeError | SystemExit):  # who was told the events has gone
            return self._failed
        return RuntimeError("the thread that answers has died or was closed")

    def _put(self, work: _Work, timeout: float) -> bool:
        if self._waiting and self._waiting + work.size > WAITING_BYTES:
            time.sleep(min(timeout, 0.01))
            return False
        with self._lock:
            self._waiting += work.size
        try:
            self._queue.put(work, timeout=timeout) if timeout else self._queue.put_nowait(work)
        except queue.Full:
            with self._lock:
                self._waiting -= work.size
            return False
        return True

    def _ask(self, job: Callable[[], None]) -> None:
        """Let the thread that answers do something between two messages."""
        self._enqueue(job, wait=True).result()

    def _answer(self) -> None:
        while (work := self._queue.get()) is not None:
            with self._lock:
                self._waiting -= work.size
            try:
                work.job()
            except EdgeseqError as error:
                work.done.set_exception(error)
            except BaseException as error:  # a mistake of ours: whoever gives or asks next is told
                self._failed = error
                work.done.set_exception(error)
                self._give_up()
                raise
            else:
                work.done.set_result(None)

    def _give_up(self) -> None:
        """Tell all who wait that nothing answers any more."""
        with suppress(queue.Empty):
            while True:
                work = self._queue.get_nowait()
                if work is not None:
                    work.done.set_exception(self._why_ended())

    def _hear(self, arrival: Arrival, arrived: int) -> None:
        refused: list[EdgeseqError] = []
        try:
            if len(arrival.body) > MAX_BYTES:
                raise InputError(f"{len(arrival.body):,} bytes came: {MAX_BYTES:,} are read at most")
            self._keep(arrival)
            for name, message in self._decoded(arrival):
                try:
                    view = self._view(name, arrival.time)
                    self._tell(name, view, view.wearer.hear(message), arrived)
                except EdgeseqError as error:  # another stream's readings in it are answered
                    refused.append(error)
        except EdgeseqError as error:
            refused.append(error)
        for each in refused:
            self._refuse(each)
        if refused:
            raise refused[0]

    def _keep(self, arrival: Arrival) -> None:
        """Record what arrived; where that fails it is said, once, and the stream goes on without."""
        try:
            self._capture.keep(arrival)
        except InputError as error:
            self._refuse(error)

    def _decoded(self, arrival: Arrival) -> list[tuple[str, Message]]:
        """The messages of an arrival that say something, and of which streams they are.

        Raises:
            InputError: it is none of its format, or its sender's name is too long.
        """
        messages = [message for message in self._decoders(arrival) if message.readings]
        self._capture.has_readings(arrival, bool(messages))
        named = [(message.sender or arrival.channel or arrival.format, message) for message in messages]
        for name, _ in named:
            if len(name) > NAME:
                raise InputError(f"a sender's name of {len(name):,} characters came: {NAME} are read at most")
        return named

    def _choose(self, name: str, model: str) -> None:
        if name not in self._views:
            raise unknown("stream", name, self._views)
        view = self._views[name]
        view.wearer.choose(model)
        with self._lock:
            view.settle()

    def _end(self) -> None:
        for name, view in list(self._views.items()):
            self._tell(name, view, view.wearer.end(), time.perf_counter_ns())

    def _tell(self, name: str, view: View, events: Iterable[Event], arrived: int) -> None:
        for event in events:
            with self._lock:
                view.add(event, time.perf_counter_ns() - arrived)
            self._on_event(name, event)
        with self._lock:
            view.settle()

    def _view(self, name: str, now: int) -> View:
        """The stream of a name, which has a message at ``now`` ns of our clock."""
        if name not in self._views:
            with self._lock:
                self._make_room(name, now)
            wearer = Wearer(self._models, reorder=self._reorder, engine=self._engine)
            with self._lock:
                self._views[name] = View(wearer, self._source.rate)
        self._views[name].heard = now
        return self._views[name]

    def _make_room(self, name: str, now: int) -> None:
        """Let the stream go that has been silent for longest, if there are too many.

        Raises:
            InputError: none has been silent for long.
        """
        if len(self._views) < WEARERS:
            return
        longest = min(self._views, key=lambda known: self._views[known].heard)
        if abs(now - self._views[longest].heard) < SILENT * SECOND:  # or our own clock was set
            raise InputError(f"{name} is one more stream than the {WEARERS} that are answered at once")
        del self._views[longest]

    def _record(self, file: Path | None) -> None:
        if file is None:
            self._capture.end()
        else:
            self._hear_again(self._capture.begin(file))

    def _hear_again(self, arrivals: Iterable[Arrival]) -> None:
        """Let every stream begin with what came last; what comes of that was told already, and nothing is counted."""
        self._decoders = Decoders(self._source)
        for view in self._views.values():
            view.wearer.begin()
        for arrival in arrivals:
            with suppress(EdgeseqError):  # it was counted when it came
                for name, message in self._decoded(arrival):
                    self._hear_quietly(name, message)
        for view in self._views.values():
            view.wearer.go_on()
            with self._lock:
                view.settle()

    def _hear_quietly(self, name: str, message: Message) -> None:
        with suppress(EdgeseqError):
            list(self._views[name].wearer.hear(message) if name in self._views else ())

    def _refuse(self, error: EdgeseqError) -> None:
        with self._lock:
            self.refused, self.why = self.refused + 1, str(error)
