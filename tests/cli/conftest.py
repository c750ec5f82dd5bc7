"""A small data set of five people, and a model trained and exported from it through the command line, once for all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeseq.devices import check
from edgeseq.export import stage

from ..command_line import Done, call

RATE = 50
SUBJECTS = 5
FRAMES = 1100  # of each of a subject's two recordings: the proof wants 2,000 of a test subject
FEW_FRAMES = 250
TINY = ("rounds=2", "steps=3", "batch=4", "crop=2", "model.hidden=8")


Edgeseq = Callable[..., Done]


def run(*arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
    """A command in a process of its own: where the working directory, what is installed or the streams matter."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeseq", *map(str, arguments)]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    return {**plain, "OMP_NUM_THREADS": "1", **(more or {})}


def settings(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]


def write_people(folder: Path) -> Path:
    """One CSV a subject: slow waves or fast ones along an axis, in a column each of their own making."""
    folder.mkdir()
    for subject in range(1, SUBJECTS + 1):
        rng = np.random.default_rng(subject)
        lines = ["timestamp,ax,ay,label,subject,recording"]
        for recording, (label, hertz) in enumerate((("slow", 0.5), ("fast", 3.0))):
            t = np.arange(FRAMES) / RATE
            ax = np.sin(2 * np.pi * hertz * t) + rng.normal(0, 0.05, FRAMES)
            ay = 1 + rng.normal(0, 0.05, FRAMES)
            start = recording * 100.0
            rows = zip(t, ax, ay, strict=True)
            lines += [f"{start + s:.2f},{a:.5f},{b:.5f},{label},p{subject},{recording}" for s, a, b in rows]
        (folder / f"p{subject}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def few_frames_do() -> Iterator[None]:
    """For tests of what does not need the 2,000 frames of a proof."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", FEW_FRAMES)
        patch.setattr(stage, "MIN_FRAMES", FEW_FRAMES)
        yield


@pytest.fixture(scope="session")
def edgeseq() -> Edgeseq:
    return call


@pytest.fixture(scope="session")
def process() -> Edgeseq:
    return run


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people")


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "gru"
    done = call("train", people, "--out", out, *settings(*TINY))
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    out = trained.with_name("gru-export")
    done = call("export", trained, "--out", out, "--frames", 2000)
    assert done.code == 0, done.err
    return out


@pytest.fixture
def in_background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command without waiting for it; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
