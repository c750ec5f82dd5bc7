"""A recording of somebody whom the shipped models have never seen, and what they say of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseq.data import Recording, load
from edgeseq.devices.engines import as_folder
from edgeseq.devices.live.hub import Hub
from edgeseq.devices.live.sources import Source
from edgeseq.devices.live.sources.replay import frames_as_arrivals
from edgeseq.devices.session import Session
from edgeseq.folder import Folder
from edgeseq.signal.arrivals import Arrival

SECONDS = 40
WAIT = 20.0  # seconds after which a source hangs


@pytest.fixture(scope="session")
def models() -> dict[str, Folder]:
    """int8 first, then float32."""
    return {name: as_folder(name) for name in ("har_watch", "har_watch_fp32")}


@pytest.fixture(scope="session")
def recording(models: dict[str, Folder]) -> Recording:
    """Five exercises of a test subject, one after another."""
    subject = models["har_watch"].manifest.split["test"][0]
    parts = load("spar_watch").only([subject]).recordings[::3]
    count = 50 * SECONDS // len(parts)
    x, y = (np.concatenate([getattr(part, name)[200 : 200 + count] for part in parts]) for name in ("x", "y"))
    return Recording(x, y, subject, "five exercises")


@pytest.fixture
def arrivals(recording: Recording) -> list[Arrival]:
    return list(frames_as_arrivals(recording.x, 50.0, "watch"))


@pytest.fixture(scope="session")
def answers(models: dict[str, Folder], recording: Recording) -> dict[str, list[tuple[str, float]]]:
    """What each model answers to each frame of the recording, by one session over all of it."""
    found = {}
    for name, folder in models.items():
        session = Session(folder, "numpy")
        logits = session.run(recording.x)
        decided = [session.decide(row) for row in logits]
        found[name] = [(answer.label, answer.probability) for answer in decided]
    assert len({label for label, _ in found["har_watch"]}) > 2
    return found


@pytest.fixture
def hub(models: dict[str, Folder]) -> Iterator[Hub]:
    made = Hub(models, engine="numpy")
    yield made
    made.close()


def as_rows(x: np.ndarray) -> list[tuple[float, ...]]:
    return [tuple(map(float, row)) for row in x]


def capture_in(folder: Path) -> Path:
    (found,) = folder.glob("*.jsonl")
    return found


class Running:
    """A source in a thread, and what it hands over."""

    def __init__(self, source: Source, wrong: BaseException | None = None) -> None:
        self.arrivals: list[Arrival] = []
        self.said: list[str] = []
        self.stop = threading.Event()
        self.failed: BaseException | None = None
        self._source, self._wrong = source, wrong
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._source.run(self._put, self.stop, self.said.append)
        except BaseException as error:
            self.failed = error

    def _put(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        if self._wrong is not None and arrival.body:
            raise self._wrong

    def wait(self, until: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT
        while not until():
            assert time.monotonic() < deadline, (self.said, len(self.arrivals), self.failed)
            time.sleep(0.01)

    def fail(self) -> BaseException | None:
        """What the source fails with, by itself."""
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        found, self.failed = self.failed, None
        return found

    def end(self) -> None:
        self.stop.set()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        assert self.failed is None


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(source: Source, wrong: BaseException | None = None) -> Running:
        """``wrong``: what is raised where an arrival is handed over, as a mistake of ours would be."""
        running.append(Running(source, wrong))
        return running[-1]

    yield begin
    for each in running:
        each.end()
