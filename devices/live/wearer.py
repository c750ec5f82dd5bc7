"""One watch's stream: from each message to the answers that it makes, by one of several models.

Nothing in here reads a clock but to say how long something took: the same messages give the same answers, bit for bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.decide import Answer
from edgeseq.devices.session import Session
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder
from edgeseq.manifest import Manifest
from edgeseq.signal.framer import Frame, Framer, Gap
from edgeseq.signal.inbox import Inbox
from edgeseq.signal.senders.message import Message

WARM = 20.0  # seconds of frames that a model hears at once when it takes over


class Answered(NamedTuple):
    """The answer after the frame of ``time`` ns of the sender's clock, and what it was made of.

    ``logits`` (K,) are of the frame alone, before the decision rule. ``step_ns``: step and decision. ``frame``
    is None behind the last one, where a model that looks ahead says what is left.
    """

    time: int
    frame: Frame | None
    logits: NDArray[np.float32]
    answer: Answer
    step_ns: int


Event = Answered | Gap


class Wearer:
    """A stream and the model that answers it, which may be changed on the way.

    Attributes:
        framer: what makes frames of readings, with its counts.
        inbox: what sees messages that came twice.
        model: the name of the model that answers.
    """

    def __init__(self, models: Mapping[str, Folder], *, reorder: float = 0.0, engine: str | None = None) -> None:
        """``models`` by name, which :func:`check_alike` has let pass, the first of which answers at first; ``reorder``:
        see :class:`Framer`.
        """
        self._models, self._engine, self._reorder = dict(models), engine, reorder
        self._sessions: dict[str, Session] = {}
        self._listen()
        self.choose(next(iter(models)))

    @property
    def session(self) -> Session:
        """The session of the model that answers."""
        return self._sessions[self.model]

    def _listen(self) -> None:
        source = next(iter(self._models.values())).manifest
        self.framer = Framer(source.input, max_gap=source.max_gap, reorder=self._reorder)
        self.inbox = Inbox()
        self._heard: deque[Frame] = deque(maxlen=round(WARM * source.input.rate))

    def begin(self) -> None:
        """Forget all that was heard, to hear some of it again; nothing of that is counted before :meth:`go_on`."""
        self._before = (self.framer.counts, self.inbox.doubled)
        self._listen()
        self.session.reset()

    def go_on(self) -> None:
        """What comes now is new."""
        self.framer.counts, self.inbox.doubled = self._before

    def choose(self, model: str) -> None:
        """Let another model answer from the next frame on, as if it had heard the last seconds.

        Raises:
            InputError: no such model; and what :class:`Session` raises.
        """
        if model not in self._models:
            raise unknown("model", model, self._models)
        if model not in self._sessions:
            self._sessions[model] = Session(self._models[model], self._engine)
        self.model = model
        session = self.session
        session.reset()
        for frame in self._heard:
            session.decide(session.step(frame.values))

    def hear(self, message: Message) -> Iterator[Event]:
        """What comes of a message.

        Raises:
            InputError: its readings are not those of this stream's sensors; they are lost.
        """
        new, late = self.inbox.take(message)
        for made in self.framer.push(message.readings, late=late) if new else []:
            yield from self._answer(made)

    def end(self) -> Iterator[Event]:
        """What comes of the last readings, when nothing arrives any more."""
        for each in self.framer.flush():
            yield from self._answer(each)
        yield from self._rest()

    def _answer(self, made: Frame | Gap) -> Iterator[Event]:
        if isinstance(made, Gap):
            yield from self._rest()
            yield made
            return
        self._heard.append(made)
        session, clock = self.session, time.perf_counter_ns
        begin = clock()
        logits = session.step(made.values)
        answer = session.decide(logits)
        spent = clock() - begin
        yield Answered(made.time, made, logits.copy(), answer, spent)

    def _rest(self) -> Iterator[Event]:
        """What a model that looks ahead has still to say of the last frames; then it starts anew."""
        session = self.session
        if self._heard:
            for logits in session.flush():
                yield Answered(self._heard[-1].time, None, logits, session.decide(logits), 0)
        self._heard.clear()
        session.reset()


def check_alike(models: Mapping[str, Folder]) -> None:
    """Refuse models that one stream cannot feed.

    Raises:
        InputError: naming what they differ in.
    """
    first, *others = [(name, folder.manifest) for name, folder in models.items()]
    for name, manifest in (first, *others):
        if manifest.task != "frame":
            raise InputError(f"{name} answers segments: a live stream has no end, and needs a model of frames")
        for what, own, wanted in zip(_READ, _read(manifest), _read(first[1]), strict=True):
            if own != wanted:
                raise InputError(f"{name} reads other {what} than {first[0]} ({own}, not {wanted}): stream them apart")


_READ = ("channels", "rate", "signs of accelerations", "longest gap", "labels")


def _read(manifest: Manifest) -> tuple[str, ...]:
    source = manifest.input
    channels = ", ".join(f"{channel.name} ({channel.unit})" for channel in source.channels)
    labels = ", ".join(manifest.labels)
    return channels, f"{source.rate:g} Hz", source.signs or "unknown", f"{manifest.max_gap:g} s", labels
