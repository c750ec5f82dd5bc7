from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseq.devices.__main__ import main
from edgeseq.devices.session import Session
from edgeseq.devices.stream import checked_frame, read_csv, stream
from edgeseq.errors import InputError


def golden_x(folder: Path, count: int) -> np.ndarray:
    with np.load(folder / "golden.npz") as stored:
        return stored["x"][:count]


def test_answers_are_given_as_they_change_with_their_time(folder: Path, engine_name: str) -> None:
    x = golden_x(folder, 400)
    seen: list[tuple[float, str]] = []
    session, other = Session(folder, engine_name), Session(folder, engine_name)
    summary = stream(session, x, speed=0, on_answer=lambda seconds, answer: seen.append((seconds, answer.label)))
    answers = [other.decide(other.step(frame)) for frame in x]
    assert seen == [(t / 50.0, answer.label) for t, answer in enumerate(answers) if answer.changed]
    assert len(seen) > 3
    assert (summary.frames, summary.changes, summary.missed_deadlines) == (400, len(seen), 0)
    assert 0 < summary.latency_p50_us <= summary.latency_p99_us
    assert summary.accuracy is None


def test_pacing_takes_the_time_it_says(folder: Path) -> None:
    summary = stream(Session(folder, "numpy"), golden_x(folder, 20), rate=100.0, speed=2.0)
    assert summary.seconds >= 19 / 200  # the last frame is due then; later is the machine's affair


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_frame_that_is_not_finite_is_refused_before_the_step(folder: Path, engine_name: str, value: float) -> None:
    x = golden_x(folder, 10).copy()
    x[7, 1] = value
    session, other = Session(folder, engine_name), Session(folder, engine_name)
    with pytest.raises(InputError, match=r"frame 7: channel c1 is"):
        stream(session, x, speed=0)
    other.run(x[:7])
    assert all(np.array_equal(session.state[name], other.state[name]) for name in session.state)


@pytest.mark.parametrize("frame", [[1.0, 2.0], [1.0], 1.0, [[1.0, 2.0, 3.0]], ["a", "b", "c"], None])
def test_a_frame_of_another_width_is_refused_with_its_number(folder: Path, frame: Any) -> None:
    session = Session(folder, "numpy")
    with pytest.raises(InputError, match="frame 1 "):
        stream(session, [[1.0, 2.0, 3.0], frame], speed=0)
    with pytest.raises(InputError, match="frame 5 "):
        checked_frame(frame, 5, session.manifest)


def test_accuracy_leaves_out_ignored_labels(folder: Path) -> None:
    x = golden_x(folder, 300)
    best = Session(folder, "numpy").run(x).argmax(-1)
    targets = best.copy()
    targets[:100] = -1
    targets[100:150] = (best[100:150] + 1) % 4
    summary = stream(Session(folder, "numpy"), x, speed=0, targets=targets)
    assert summary.accuracy == pytest.approx(150 / 200)
    assert summary.answer_accuracy is not None
    assert 0 < summary.answer_accuracy < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"speed": -1.0}, "speed"),
        ({"targets": [0, 1]}, "2 targets were given for 5 frames"),
    ],
)
def test_wrong_arguments_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream(Session(folder, "numpy"), golden_x(folder, 5), **{"speed": 0.0, **options})


def test_an_empty_stream_has_an_empty_summary(folder: Path) -> None:
    summary = stream(Session(folder, "numpy"), [], speed=0)
    assert (summary.frames, summary.changes, summary.latency_p50_us) == (0, 0, 0.0)


def parse(folder: Path, text: str) -> Iterator[np.ndarray]:
    return read_csv(io.StringIO(text), Session(folder, "numpy").manifest, "here.csv")


@pytest.mark.parametrize(
    "text",
    ["1,2,3\n4,5,6\n", "c0,c1,c2\n1,2,3\n\n4,5,6", "time, c2 ,c0,c1\n0,3,1,2\n1,6,4,5\n"],
    ids=["no header", "header", "columns in another order, and more of them"],
)
def test_csv_columns_are_found_by_name_or_taken_in_order(folder: Path, text: str) -> None:
    assert np.array_equal(list(parse(folder, text)), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ax,ay,az\n1,2,3\n", r"here.csv has the columns \['ax', 'ay', 'az'\]: c0, c1, c2 missing"),
        ("c0,c1\n1,2\n", "c2 missing"),
        ("1,2,3\n1,2\n", "here.csv, frame 1: 2 values, 3 are needed"),
        ("c0,c1,c2\n1,2,x\n", "here.csv, frame 0: could not convert"),
    ],
)
def test_csv_that_does_not_fit_is_refused_with_its_place(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(parse(folder, text))


def test_csv_lines_are_answered_as_they_come(folder: Path) -> None:
    class Sensor(io.StringIO):
        """A source that would block: reading past the third line before it is there fails the test."""

        def __next__(self) -> str:
            line = super().readline()
            if not line:
                raise AssertionError("read ahead of what was sent")
            return line

    frames = read_csv(Sensor("1,2,3\n4,5,6\n"), Session(folder, "numpy").manifest, "sensor")
    assert list(next(frames)) == [1, 2, 3]
    assert list(next(frames)) == [4, 5, 6]


def test_binary_input_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "binary.csv"
    file.write_bytes(b"\xff\xfe\x00")
    with file.open(encoding="utf-8") as source, pytest.raises(InputError, match="not comma-separated text"):
        list(read_csv(source, Session(folder, "numpy").manifest, "binary.csv"))


def test_an_endless_stream_keeps_a_bounded_number_of_latencies_and_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    percentile = np.percentile

    def counted(values: Any, *arguments: Any) -> Any:
        seen.append(len(values))
        return percentile(values, *arguments)

    monkeypatch.setattr("edgeseq.devices.stream.KEPT", 7)
    monkeypatch.setattr("edgeseq.devices.__main__.KEPT", 2)
    monkeypatch.setattr(np, "percentile", counted)
    assert main(["stream", str(folder), "--speed", "0", "--engine", "numpy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert seen == [7]
    assert document["summary"]["frames"] == 2000
    assert len(document["changes"]) == 2 < document["summary"]["changes"]
