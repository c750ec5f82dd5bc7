from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseq.devices.__main__ import main
from edgeseq.devices.decide import Answer
from edgeseq.devices.session import Session
from edgeseq.devices.stream import Segment, SegmentAnswer, checked_frame, read_csv, stream, stream_segments
from edgeseq.early import Segments, by_confidence
from edgeseq.errors import InputError, Unsupported
from edgeseq.manifest import Decision, Early
from edgeseq.program import Program


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

    monkeypatch.setattr("edgeseq.devices.stream.KEPT", 2)
    monkeypatch.setattr(np, "percentile", counted)
    assert main(["stream", str(folder), "--speed", "0", "--engine", "numpy", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert seen == [2]
    assert document["summary"]["frames"] == 2000
    assert len(document["changes"]) == 2 < document["summary"]["changes"]


@pytest.fixture
def of_segments(make_folder: Callable[..., Path], programs: dict[str, Callable[..., Program]]) -> Path:
    """A model of segments with a rule for early answers."""
    rule = Early(confidence=0.6, earliest=0.06, hold=0.04, temperature=0.7, growth=0.2)
    return make_folder(programs["leaky"](), task="segment", decision=Decision(early=rule))


def cut(folder: Path, count: int) -> list[np.ndarray]:
    """Recordings of 1, 2, ... frames up to ``count``."""
    x, ends = golden_x(folder, count * (count + 1) // 2), np.arange(1, count + 1).cumsum()
    return np.split(x, ends[:-1])


def test_each_segment_is_answered_from_the_start_as_the_rule_says(of_segments: Path, engine_name: str) -> None:
    session, other = Session(of_segments, engine_name), Session(of_segments, engine_name)
    recordings, seen = cut(of_segments, 25), list[SegmentAnswer]()
    targets = [k % 5 - 1 for k in range(25)]  # of 4 labels, and of some nobody knows it
    given = [Segment(iter(x), target) for x, target in zip(recordings, targets, strict=True)]
    summary = stream_segments(session, given, speed=0, on_answer=seen.append)
    logits = []
    for x in recordings:
        other.reset()
        logits.append(other.run(x))
    rule = other.manifest.decision.early
    assert rule is not None
    expected = by_confidence(Segments(logits, np.array(targets), 50.0), rule, [1.0, rule.confidence])
    assert [other.labels.index(answer.label) for answer in seen] == expected.labels[:, 1].tolist()
    assert [answer.used for answer in seen] == expected.used[:, 1].tolist()
    assert [(answer.number, answer.frames, answer.target) for answer in seen] == [
        (k, len(x), target) for k, (x, target) in enumerate(zip(recordings, targets, strict=True))
    ]
    early = [answer for answer in seen if answer.used < answer.frames]
    assert 3 < len(early) < 25
    shares = expected.used[:, 1] / np.arange(1, 26)
    assert (summary.segments, summary.frames, summary.steps) == (25, 325, expected.used[:, 1].sum())
    assert (summary.share, summary.share_p90) == pytest.approx((shares.mean(), np.percentile(shares, 90)))
    right = [answer.label == f"label{answer.target}" for answer in seen if answer.target >= 0]
    assert summary.accuracy == pytest.approx(np.mean(right))


def test_frames_of_a_model_of_segments_are_one_segment_that_ends_with_them(of_segments: Path) -> None:
    session, seen, answers = Session(of_segments, "numpy"), list[SegmentAnswer](), list[Answer]()
    recordings = cut(of_segments, 25)
    stream_segments(session, map(Segment, recordings), speed=0, on_answer=seen.append)
    for x, expected in zip(recordings, seen, strict=True):
        answers.clear()
        session.reset()
        stream(session, x, speed=0, on_answer=lambda _, answer: answers.append(answer))
        assert [answer.final for answer in answers] in ([True], [False, True])
        assert (answers[-1].label, answers[-1].probability) == (expected.label, expected.probability)


def test_pacing_of_segments_lets_the_frames_behind_an_answer_pass(of_segments: Path) -> None:
    recordings = cut(of_segments, 8)
    summary = stream_segments(Session(of_segments, "numpy"), map(Segment, recordings), rate=200.0, speed=2.0)
    assert summary.steps < summary.frames
    assert summary.seconds >= (36 - 8) / 400  # when the last segment starts; later is the machine's affair


def test_a_segment_without_a_frame_is_refused(of_segments: Path) -> None:
    with pytest.raises(InputError, match="the segment has no frame"):
        stream_segments(
            Session(of_segments, "numpy"), [Segment(golden_x(of_segments, count)) for count in (2, 0)], speed=0
        )


def test_no_segments_have_an_empty_summary(of_segments: Path) -> None:
    summary = stream_segments(Session(of_segments, "numpy"), [], speed=0)
    assert (summary.segments, summary.share, summary.accuracy) == (0, None, None)


def test_a_model_of_frames_has_no_segments_to_answer(folder: Path) -> None:
    with pytest.raises(Unsupported, match="answers at every frame"):
        stream_segments(Session(folder, "numpy"), [Segment(golden_x(folder, 5))], speed=0)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_model_that_looks_ahead_answers_every_frame_when_the_source_ends(
    looking_ahead: Callable[..., Path], engine_name: str, count: int
) -> None:
    session, seen = Session(looking_ahead(2), engine_name), list[tuple[float, str]]()
    targets = [k % 4 for k in range(count)]
    frames = np.eye(4, dtype=np.float32)[targets]
    summary = stream(session, frames, speed=0, targets=targets, on_answer=lambda s, answer: seen.append((s, answer[0])))
    assert (summary.frames, summary.accuracy, summary.answer_accuracy) == (count, 1.0, 1.0)
    answers = [((k + 2) / 50, f"label{target}") for k, target in enumerate(targets)]
    assert seen == [(0.0, "unknown"), *answers]
    assert summary.changes == len(seen)
    wrong = [targets[0], *((target + 1) % 4 for target in targets[1:])]
    session.reset()
    assert stream(session, frames, speed=0, targets=wrong).accuracy == pytest.approx(1 / count)


def test_a_stream_of_nothing_is_not_flushed(looking_ahead: Callable[..., Path]) -> None:
    summary = stream(Session(looking_ahead(2), "numpy"), [], speed=0, targets=[])
    assert (summary.frames, summary.changes, summary.accuracy) == (0, 0, None)


def test_each_stream_of_a_model_of_segments_is_a_segment_of_its_own(of_segments: Path) -> None:
    session, answers = Session(of_segments, "numpy"), list[tuple[float, Answer]]()
    recordings = cut(of_segments, 12)[-3:]
    alone = []
    for x in recordings:
        stream(Session(of_segments, "numpy"), x, speed=0, on_answer=lambda *given: alone.append(given))
        stream(session, x, speed=0, on_answer=lambda *given: answers.append(given))
    assert answers == alone
    assert sum(answer.final for _, answer in answers) == 3
