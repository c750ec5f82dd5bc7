"""A recording of somebody whom the shipped models have never seen, and what they say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeseq.data import Recording, load
from edgeseq.devices.engines import as_folder
from edgeseq.devices.live.hub import Hub
from edgeseq.devices.live.sources.replay import frames_as_arrivals
from edgeseq.devices.session import Session
from edgeseq.folder import Folder
from edgeseq.signal.arrivals import Arrival

SECONDS = 40


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
