"""All streams of a process: what arrives goes in from any thread, one thread answers, and anybody may look.

The thread that answers waits for nobody: who looks takes what there is by then, and what is older than
:data:`KEPT` seconds is gone.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from edgeseq.devices.live.wearer import Answered, Event, Wearer, check_alike
from edgeseq.errors import EdgeseqError, InputError, unknown
from edgeseq.folder import Folder
from edgeseq.manifest import how_it_follows
from edgeseq.signal.arrivals import Arrival, Decoders, write_arrival
from edgeseq.signal.framer import Gap
from edgeseq.signal.senders.message import Message

KEPT = 20.0  # seconds of frames that somebody may look at
TIMED = 1000  # answers that quantiles are of
CHANGES, GAPS = 200, 20  # the last ones, that are shown
POLL = 0.2  # seconds between two looks whether the thread that answers is alive
WAITING = 1000  # messages that may wait to be answered
WEARERS = 16
NAME = 40  # characters of a stream's name that are shown

OnEvent = Callable[[str, Event], object]


class View:
    """What can be seen of one stream."""

    def __init__(self, wearer: Wearer, rate: float) -> None:
        self.wearer = wearer
        self._frames: deque[tuple[int, list[float]]] = deque(maxlen=round(KEPT * rate))
        self._changes: deque[dict[str, Any]] = deque(maxlen=CHANGES)
        self._gaps: deque[dict[str, Any]] = deque(maxlen=GAPS)
        self._steps: deque[int] = deque(maxlen=TIMED)
        self._totals: deque[int] = deque(maxlen=TIMED)
        self._number = itertools.count(1)
        self._first: int | None = None
        self._last: dict[str, Any] = {}
        self.settle()

    def add(self, event: Event, total_ns: int) -> None:
        """Take an event, ``total_ns`` after the message that it comes of had arrived."""
        if self._first is None:
            self._first = event.time
        at = round((event.time - self._first) / 1e9, 3)
        if isinstance(event, Gap):
            self._gaps.append({"time": at, "seconds": round(event.seconds, 2), "why": event.why})
            return
        self._show(event, at)
        self._totals.append(total_ns)

    def _show(self, event: Answered, at: float) -> None:
        answer = event.answer
        self._last = {"label": answer.label, "probability": answer.probability, "time": at}
        if answer.changed:
            self._changes.append({"number": next(self._number), **self._last})
        if event.frame is None:
            return
        self._steps.append(event.step_ns)
        row = [at, *event.frame.values.tolist(), *event.probabilities.tolist(), float(event.frame.bridged)]
        self._frames.append((next(self._number), row))

    def settle(self) -> None:
        """Take how things stand behind a message: who looks has no business with what is at work."""
        wearer, framer = self.wearer, self.wearer.framer
        manifest = wearer.session.manifest
        self._standing = {
            "model": wearer.model,
            "engine": wearer.session.engine,
            "labels": wearer.session.labels,
            "rates": {name: round(rate, 1) for name, rate in framer.rates.items()},
            "counts": {**msgspec.to_builtins(framer.counts), "messages_doubled": wearer.inbox.doubled},
            "delay": framer.delay,
            "rule": manifest.decision.shown(),
            "follows": how_it_follows(manifest.metrics),
            "missing": framer.missing,
        }

    def look(self, since: int) -> tuple[dict[str, Any], tuple[list[int], list[int]]]:
        """What is new since a number that an earlier look gave, and how things stand; the times taken, in ns."""
        seen = {
            **self._standing,
            "number": self._frames[-1][0] if self._frames else 0,
            "frames": [row for number, row in self._frames if number > since],
            "answer": self._last,
            "changes": list(self._changes),
            "gaps": list(self._gaps),
        }
        return seen, (list(self._steps), list(self._totals))


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
        self._decoders = Decoders(self._source)
        self._views: dict[str, View] = {}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._lock, self._decoding = threading.Lock(), threading.Lock()
        self._capture: tuple[Path, BinaryIO] | None = None
        self._failed: BaseException | None = None
        self.refused, self.why = 0, ""
        self._thread = threading.Thread(target=self._answer, name="answers", daemon=True)
        self._thread.start()

    def put(self, arrival: Arrival, *, wait: bool = False) -> bool:
        """Take what has arrived; False where too much waits already, and it is lost. ``wait`` until there is room.

        Raises:
            InputError: it is no message of its format, which is counted.
        """
        arrived = time.perf_counter_ns()
        try:
            with self._decoding:
                message = self._decoders(arrival)
        except InputError as error:
            self._refuse(error)
            raise
        name = (message.sender or arrival.channel or arrival.format)[:NAME]
        return self._enqueue(lambda: self._hear(name, arrival, message, arrived), wait=wait)

    def choose(self, name: str, model: str) -> None:
        """Let another model answer a stream.

        Raises:
            InputError: there is no such stream or model; and what opening the model raises.
        """
        self._ask(lambda: self._choose(name, model))

    def record(self, file: Path | None) -> None:
        """Keep what arrives from now on in a file, or stop it.

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
            recording = self._capture[0].name if self._capture else None
        times = {name: (_quantiles(steps), _quantiles(totals)) for name, (_, (steps, totals)) in looks.items()}
        return {
            "streams": {
                name: {**seen, "step_us": times[name][0], "total_us": times[name][1]}
                for name, (seen, _) in looks.items()
            },
            "models": list(self._models),
            "channels": [{"name": channel.name, "unit": channel.unit} for channel in self._source.channels],
            "rate": self._source.rate,
            "recording": recording,
            "refused": self.refused,
            "why": self.why,
        }

    def close(self) -> None:
        """Answer what waits, and end; what is recorded is whole then."""
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(None, timeout=POLL)
                self._thread.join()
        self._record(None)

    def _enqueue(self, job: Callable[[], None], *, wait: bool) -> bool:
        while True:
            if self._failed is not None:
                raise RuntimeError("the thread that answers has died") from self._failed
            try:
                self._queue.put(job, timeout=POLL if wait else 0.0)
            except queue.Full:
                if wait:
                    continue  # it is answered, or the thread has died
                self._refuse(InputError(f"{WAITING} messages wait to be answered: this machine is too slow for them"))
                return False
            return True

    def _ask(self, job: Callable[[], None]) -> None:
        """Let the thread that answers do something between two messages."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                job()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._enqueue(run, wait=True)
        while not done.done():
            wait_for([done], POLL)
            if self._failed is not None and not done.done():
                raise RuntimeError("the thread that answers has died") from self._failed
        done.result()

    def _answer(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job()
            except EdgeseqError as error:
                self._refuse(error)
            except BaseException as error:  # a mistake of ours: whoever gives or asks next is told
                self._failed = error
                raise

    def _hear(self, name: str, arrival: Arrival, message: Message, arrived: int) -> None:
        self._keep(arrival)
        view = self._view(name)
        self._tell(name, view, view.wearer.hear(message), arrived)

    def _choose(self, name: str, model: str) -> None:
        view = self._view(name, known=True)
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

    def _view(self, name: str, *, known: bool = False) -> View:
        if name not in self._views:
            if known:
                raise unknown("stream", name, self._views)
            if len(self._views) == WEARERS:
                raise InputError(f"{name} is one more stream than the {WEARERS} that are answered at once")
            wearer = Wearer(self._models, reorder=self._reorder, engine=self._engine)
            with self._lock:
                self._views[name] = View(wearer, self._source.rate)
        return self._views[name]

    def _keep(self, arrival: Arrival) -> None:
        """Record what arrived; where that fails it is said, once, and the stream goes on without."""
        if self._capture is None:
            return
        path, file = self._capture
        try:
            write_arrival(file, arrival)
            file.flush()
        except OSError as error:
            self._record(None)
            self._refuse(InputError(f"{path} cannot be written any more: {error.strerror}"))

    def _record(self, file: Path | None) -> None:
        try:
            begun = None if file is None else (file, file.open("xb"))
        except FileExistsError:
            raise InputError(f"{file} is there already: name another file") from None
        except OSError as error:
            raise InputError(f"{file} cannot be written: {error.strerror}") from None
        with self._lock:
            ended, self._capture = self._capture, begun
        if ended is not None:
            with suppress(OSError):  # what could not be written was said when it could not
                ended[1].close()

    def _refuse(self, error: EdgeseqError) -> None:
        with self._lock:
            self.refused, self.why = self.refused + 1, str(error)


def _quantiles(taken: Sequence[int]) -> dict[str, float] | None:
    """The median and the 99th percentile in microseconds."""
    if not taken:
        return None
    p50, p99 = np.percentile(taken, (50, 99)) / 1e3
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
