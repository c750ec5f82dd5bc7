"""Scores of changes, against the definitions written out slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording
from edgeseq.decisions import NO_ANSWER
from edgeseq.errors import InputError
from edgeseq.events import Tally, Truth, score_events, scores, stitched, streams, truths

RATE = 4.0  # frames per second: a second is four frames
A, B, C, NONE = 0, 1, 2, -1


def frames(*runs: tuple[int, int]) -> np.ndarray:
    """Labels, given as (label, how many frames)."""
    return np.concatenate([np.full(count, label, np.int16) for label, count in runs])


def tally(true: np.ndarray, answers: np.ndarray, rate: float = RATE) -> Tally:
    return Truth.of(true, rate).tally(answers)


runs = st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 9)), min_size=1, max_size=10)


@st.composite
def answered_streams(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    true = frames(*draw(runs))
    answers = np.resize(frames(*draw(runs)), len(true))
    return true, np.where(draw(st.booleans()), np.roll(np.maximum(true, 0), draw(st.integers(0, 6))), answers)


def slow_events(true: list[int]) -> list[tuple[int, int, int]]:
    """(first frame, the frame behind the last, label) of each event, read off frame by frame."""
    found: list[list[int]] = []
    for t, label in enumerate(true):
        if label >= 0:
            if found and found[-1][2] == label:
                found[-1][1] = t + 1
            else:
                found.append([t, t + 1, label])
    return [(first, behind, label) for first, behind, label in found[1:]]


def slow_delays(true: list[int], answers: list[int], rate: float) -> list[float | None]:
    delays: list[float | None] = []
    events = slow_events(true)
    for first, behind, label in events:
        again = min((other for other, _, name in events if name == label and other > first), default=math.inf)
        delays.append(None)
        for t in range(first, len(true)):
            if t / rate <= behind / rate + 1 and t < again and answers[t] == label:
                delays[-1] = (t - first) / rate
                break
    return delays


def slow_false_switches(true: list[int], answers: list[int], rate: float) -> int:
    counted: list[int] = []
    for t, label in enumerate(answers):
        new = label >= 0 and (t == 0 or answers[t - 1] != label)
        if not new or true[t] < 0:
            continue
        right = any(true[s] == label and t <= s + 1 + rate for s in range(t + 1))
        if not right and not (counted and t - counted[-1] <= rate):
            counted.append(t)
    return len(counted)


@given(answered_streams(), st.sampled_from([2.0, 3.5, 4.0, 9.0]))
def test_the_tally_is_what_the_definitions_say(stream: tuple[np.ndarray, np.ndarray], rate: float) -> None:
    true, answers = stream
    found = tally(true, answers, rate)
    delays = slow_delays(true.tolist(), answers.tolist(), rate)
    assert found.events == len(delays)
    assert list(found.delays) == pytest.approx([delay for delay in delays if delay is not None])
    assert found.false_switches == slow_false_switches(true.tolist(), answers.tolist(), rate)
    assert found.seconds == pytest.approx(sum(label >= 0 for label in true) / rate)
    right = sum(label >= 0 and label == answer for label, answer in zip(true, answers, strict=True))
    assert found.right_seconds == pytest.approx(right / rate)
    unknown = sum(label >= 0 and answer < 0 for label, answer in zip(true, answers, strict=True))
    assert found.unknown_seconds == pytest.approx(unknown / rate)


@given(answered_streams())
def test_the_true_labels_as_answers_have_no_delay_no_miss_and_no_false_switch(
    stream: tuple[np.ndarray, np.ndarray],
) -> None:
    found = tally(stream[0], stream[0])
    assert found.delays == (0.0,) * found.events
    assert found.false_switches == 0


@given(answered_streams(), st.integers(0, 5))
def test_answers_that_come_later_are_never_faster(stream: tuple[np.ndarray, np.ndarray], late: int) -> None:
    true, _ = stream
    said = np.concatenate([np.full(late, NO_ANSWER), true])[: len(true)]
    found = tally(true, said)
    assert all(delay <= late / RATE for delay in found.delays)
    whole = [first + late < len(true) and behind - first > late for first, behind, _ in slow_events(true.tolist())]
    assert found.delays.count(late / RATE) >= sum(whole)


def test_a_change_is_answered_within_it_or_a_second_behind_its_end() -> None:
    true = frames((A, 8), (B, 4), (C, 12))
    for late, heard in ((3, True), (8, True), (9, False)):  # B ends 4 frames after its onset; a second is 4 more
        answers = frames((A, 8 + late), (B, 1), (C, 15 - late))
        found = tally(true, answers)
        assert found.events == 2
        assert (late / RATE in found.delays) == heard
        assert found.false_switches == (0 if heard else 1)  # and past the second the switch to B is a false one


def test_an_answer_that_was_right_before_the_change_has_no_delay_but_came_by_a_false_switch() -> None:
    found = tally(frames((A, 12), (B, 8)), frames((A, 6), (B, 14)))
    assert found.delays == (0.0,)
    assert found.false_switches == 1


def test_flicker_within_a_second_is_one_false_switch_and_returning_is_none() -> None:
    true = frames((A, 40))
    assert tally(true, frames((A, 4), (B, 1), (A, 1), (C, 1), (A, 33))).false_switches == 1
    assert tally(true, frames((A, 4), (B, 3), (A, 1), (C, 1), (A, 31))).false_switches == 1  # 4 frames: one second
    assert tally(true, frames((A, 4), (B, 4), (A, 1), (C, 1), (A, 30))).false_switches == 2


def test_unknown_is_no_switch_and_misses_what_it_covers() -> None:
    found = tally(frames((A, 8), (B, 8)), frames((A, 8), (NO_ANSWER, 8)))
    assert (found.events, found.delays, found.false_switches, found.unknown_seconds) == (1, (), 0, 2.0)


def test_unlabelled_time_is_not_judged_and_no_change_by_itself() -> None:
    found = tally(frames((A, 8), (NONE, 8), (A, 8)), frames((A, 10), (C, 4), (A, 10)))
    assert (found.events, found.false_switches, found.seconds) == (0, 0, 4.0)
    found = tally(frames((A, 8), (NONE, 8), (B, 8)), frames((A, 12), (B, 12)))
    assert (found.events, found.delays, found.false_switches) == (1, (0.0,), 0)


def test_a_stream_starts_without_an_event_but_a_wrong_first_answer_is_a_false_switch() -> None:
    assert tally(frames((A, 8)), frames((A, 8))) == Tally(seconds=2.0, right_seconds=2.0)
    assert tally(frames((A, 8)), frames((B, 8))).false_switches == 1
    assert tally(frames((NONE, 2), (A, 8)), frames((B, 2), (A, 8))).false_switches == 0


def test_a_label_that_is_never_true_is_false_wherever_it_is_answered() -> None:
    assert tally(frames((A, 20)), frames((A, 10), (7, 10))).false_switches == 1
    assert tally(frames((NONE, 20)), frames((A, 10), (7, 10))) == Tally()


def test_the_scores_of_recordings_are_those_of_all_their_changes() -> None:
    late, missed = (frames((A, 8), (B, 8)), frames((A, 10), (B, 6))), (frames((A, 8), (B, 8)), frames((A, 4), (C, 12)))
    found = score_events([late, missed], RATE)
    assert (found.delay_median, found.delay_p90, found.missed, found.events) == (0.5, 0.5, 0.5, 2)
    assert found.hours == pytest.approx(8 / 3600)
    assert found.false_switches_per_hour == pytest.approx(1 / (8 / 3600))
    assert (found.accuracy, found.unknown) == (18 / 32, 0.0)
    assert found.f1 == pytest.approx(2 / (2 + 1 + 1))  # one answered, one missed, one false switch


def test_the_delays_at_the_ninetieth_percentile_and_the_time_to_a_share_of_all_events() -> None:
    found = Tally(delays=(1.0, 2.0, 3.0), events=4)
    assert scores(found).delay_median == 2.0
    assert scores(found).delay_p90 == pytest.approx(2.8)
    assert [found.time_to(share) for share in (0.0, 0.25, 0.5, 0.75, 0.9)] == [0.0, 1.0, 2.0, 3.0, math.inf]


def test_nothing_to_score_has_no_delay_and_no_share() -> None:
    found = score_events([], RATE)
    assert (found.delay_median, found.delay_p90, found.missed, found.f1) == (None, None, None, 0.0)
    assert (found.false_switches_per_hour, found.unknown, found.hours) == (0.0, 0.0, 0.0)


def test_fewer_answers_than_frames_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3,\): one for each of 4 frames"):
        tally(frames((A, 4)), frames((A, 3)))


def test_what_is_said_behind_the_end_answers_the_last_event_and_is_nothing_else() -> None:
    true, late = frames((A, 8), (B, 2)), frames((A, 11), (B, 1))  # a look-ahead of two frames
    assert tally(true, late[:10]).delays == ()
    assert tally(true, late) == Tally((0.75,), 1, 0, 2.5, 2.0, 0.0)
    assert tally(true, frames((A, 14), (B, 1))).delays == (1.5,)  # a second behind the end
    assert tally(true, frames((A, 15), (B, 1))).delays == ()
    assert tally(true, frames((A, 10), (C, 4))).false_switches == 0  # nobody knows what is true there


@given(answered_streams(), st.integers(0, 3))
def test_pieces_from_a_change_to_the_next_add_up_to_the_tally(stream: tuple[np.ndarray, np.ndarray], late: int) -> None:
    true, answers = stream
    said = np.concatenate([np.full(late, NO_ANSWER), answers])
    truth, found = Truth.of(true, RATE), tally(true, said)
    pieces = truth.pieces(said)
    assert pieces.sum(0).tolist() == [found.events, len(found.delays), found.false_switches]
    assert pieces[:, 0].tolist() == [0] + [1] * found.events


def test_a_piece_holds_the_false_switches_from_its_change_on() -> None:
    true = frames((A, 8), (B, 8), (A, 8))
    said = frames((C, 4), (A, 4), (B, 3), (C, 1), (B, 12))
    assert Truth.of(true, RATE).pieces(said).tolist() == [[0, 0, 1], [1, 1, 1], [1, 0, 0]]


def dataset(*recordings: tuple[str, np.ndarray]) -> Dataset:
    """Recordings whose frames count up through all of them, with their labels."""
    made, at = [], 0
    for i, (subject, y) in enumerate(recordings):
        x = np.arange(at, at + len(y), dtype=np.float32)[:, None]
        made.append(Recording(x, y.astype(np.int16), subject, f"r{i}"))
        at += len(y)
    return Dataset("toy", tuple(made), ("v",), ("",), RATE, ("a", "b", "c"), unscored=0.5)


def test_recordings_with_one_label_each_are_stitched_subject_by_subject_in_an_order_of_the_seed() -> None:
    parts = [(subject, frames((label, 3 + label))) for label in (A, B, C) for subject in ("s1", "s2")]
    given_ = dataset(*parts)
    orders = set()
    for seed in range(20):
        made = streams(given_, seed)
        assert [recording.subject for recording in made.recordings] == ["s1", "s2"]
        for recording in made.recordings:
            theirs = [r for r in given_.recordings if r.subject == recording.subject]
            label = {float(v): int(k) for r in theirs for v, k in zip(r.x[:, 0], r.y, strict=True)}
            assert sorted(recording.x[:, 0].tolist()) == sorted(label)  # every frame once, with its own label
            assert recording.y.tolist() == [label[v] for v in recording.x[:, 0].tolist()]
            assert np.count_nonzero(np.diff(recording.x[:, 0]) != 1) <= 2  # whole recordings
        orders.add(tuple(made.recordings[0].y.tolist()))
        assert made.fingerprint() == stitched(given_, seed).fingerprint()
    assert len(orders) == 6
    assert made.origin_fingerprint == given_.fingerprint()


def test_several_orders_are_several_streams_of_each_subject() -> None:
    given_ = dataset(*((subject, frames((label, 4))) for label in (A, B, C) for subject in ("s1", "s2")))
    made = stitched(given_, 3, orders=4)
    assert [recording.subject for recording in made.recordings] == ["s1"] * 4 + ["s2"] * 4
    assert len({tuple(recording.y.tolist()) for recording in made.recordings}) > 2


def test_recordings_with_changes_of_their_own_stay_as_they_are() -> None:
    given_ = dataset(("s1", frames((A, 4), (B, 4))), ("s1", frames((A, 8))))
    assert streams(given_) is given_


def test_the_unscored_start_of_a_stream_counts_as_unlabelled() -> None:
    (truth,) = truths(dataset(("s1", frames((A, 2), (B, 4)))))
    found = truth.tally(frames((C, 2), (B, 4)))
    assert (found.events, found.false_switches, found.seconds) == (0, 0, 1.0)
