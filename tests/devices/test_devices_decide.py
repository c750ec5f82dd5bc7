from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.decisions import answers
from edgeseq.devices.decide import UNKNOWN, Answer, Decider, SegmentDecider
from edgeseq.early import Segments, by_confidence
from edgeseq.errors import InputError
from edgeseq.manifest import Decision, Early

LABELS = ("sit", "walk", "run")
RATE = 50.0

logit = st.floats(-20, 20, width=32)
streams = st.lists(st.tuples(logit, logit, logit), min_size=1, max_size=80)
rules = st.builds(
    Decision,
    smoothing=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
    enter=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    dwell=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    unknown=st.sampled_from([0.0, 0.2, 0.4, 0.6]),
    leave=st.sampled_from([1.0, 0.6, 0.4, 0.3, 0.1]),
)


def sure(index: int, p: float = 0.98) -> np.ndarray:
    """Logits with probability p for one label and the rest shared."""
    rest = (1 - p) / 2
    return np.float32([math.log(p if k == index else rest) for k in range(3)])


def play(rule: Decision, logits: list, look_ahead: int = 0) -> list[Answer]:
    decide = Decider(rule, LABELS, RATE, look_ahead)
    return [decide(np.float32(row)) for row in logits]


@given(streams)
def test_without_a_rule_the_answer_is_the_likeliest_label(rows: list) -> None:
    for row, answer in zip(rows, play(Decision(), rows), strict=True):
        e = np.exp(np.float64(np.float32(row)) - max(np.float32(row)))
        assert answer.label == LABELS[int(e.argmax())]
        assert answer.probability == pytest.approx(max(e / e.sum()))


@given(rules, streams)
def test_changed_marks_exactly_the_changes(rule: Decision, rows: list) -> None:
    answers = play(rule, rows)
    assert answers[0].changed
    for before, after in pairwise(answers):
        assert after.changed == (after.label != before.label)


@given(rules, streams)
def test_a_label_is_entered_only_above_enter_and_after_the_dwell(rule: Decision, rows: list) -> None:
    frames, last = round(rule.dwell * RATE), None
    previous = UNKNOWN
    for t, answer in enumerate(play(rule, rows)):
        if answer.label != previous:
            if answer.label != UNKNOWN:
                assert answer.probability > max(rule.enter, rule.unknown)
                assert last is None or t - last >= frames
            last = t
        previous = answer.label


@given(rules, streams)
def test_another_label_is_entered_only_where_the_present_one_does_not_exceed_leave(rule: Decision, rows: list) -> None:
    previous = UNKNOWN
    for average, answer in zip(averages(rule, rows), play(rule, rows), strict=True):
        if UNKNOWN not in (previous, answer.label) and answer.label != previous:
            assert average[LABELS.index(previous)] <= rule.leave + 1e-9
        previous = answer.label


@given(rules, streams)
def test_an_answer_whose_average_always_exceeds_leave_is_left_for_unknown_alone(rule: Decision, rows: list) -> None:
    shown = [answer.label for answer in play(msgspec.structs.replace(rule, leave=-1.0), rows)]
    assert all(UNKNOWN in pair or pair[0] == pair[1] for pair in pairwise(shown))


@given(st.lists(rules, min_size=1, max_size=6), streams, st.integers(0, 3))
def test_whole_streams_are_answered_as_frames_one_by_one_are(many: list, rows: list, look_ahead: int) -> None:
    found = answers(np.float32(rows), many, RATE, look_ahead)
    for rule, said in zip(many, found.tolist(), strict=True):
        flushed = [np.zeros(3, np.float32)] * look_ahead + [np.float32(row) for row in rows]
        played = [answer.label for answer in play(rule, flushed, look_ahead)]
        assert [UNKNOWN if index < 0 else LABELS[index] for index in said] == played


def test_rules_are_answered_alike_with_ties_and_many_labels() -> None:
    rng = np.random.default_rng(0)
    labels = tuple("abcdefghijkl")
    logits = rng.integers(-2, 3, (400, len(labels))).astype(np.float32)  # ties in most frames
    many = [
        Decision(smoothing, enter, dwell, unknown, leave)
        for smoothing in (0.0, 0.05, 0.3)
        for enter in (0.0, 0.2)
        for dwell in (0.0, 0.1)
        for unknown in (0.0, 0.15)
        for leave in (1.0, 0.12)
    ]
    found = answers(logits, many, RATE)
    for rule, said in zip(many, found.tolist(), strict=True):
        decide = Decider(rule, labels, RATE)
        assert [(-1 if (label := decide(row).label) == UNKNOWN else labels.index(label)) for row in logits] == said
    assert len({tuple(said) for said in found.tolist()}) > 40  # of 48: the settings matter


def test_the_present_answer_stays_while_it_exceeds_leave() -> None:
    rule = Decision(leave=0.3)
    rows = [sure(0), np.log(np.float32([0.35, 0.6, 0.05])), np.log(np.float32([0.25, 0.7, 0.05])), sure(1)]
    assert [a.label for a in play(rule, rows)] == ["sit", "sit", "walk", "walk"]
    assert [a.label for a in play(Decision(), rows)] == ["sit", "walk", "walk", "walk"]


def averages(rule: Decision, rows: list) -> list[np.ndarray]:
    """The smoothed probabilities, by the formula's sum: weight w of now, (1 - w) of before."""
    keep = math.exp(-1 / (RATE * rule.smoothing)) if rule.smoothing else 0.0
    found: list[np.ndarray] = []
    for row in rows:
        e = np.exp(np.float64(np.float32(row)) - np.max(np.float32(row)))
        now = e / e.sum()
        found.append(keep * found[-1] + (1 - keep) * now if found else now)
    return found


@given(rules, streams)
def test_unknown_is_answered_where_no_label_is_above_it_and_else_only_while_none_may_be_entered(
    rule: Decision, rows: list
) -> None:
    frames, since, previous = round(rule.dwell * RATE), 10**6, UNKNOWN
    for average, answer in zip(averages(rule, rows), play(rule, rows), strict=True):
        since += 1
        highest = average.max()
        if highest < rule.unknown - 1e-9:
            assert answer.label == UNKNOWN
        elif answer.label == UNKNOWN and highest > rule.unknown + 1e-9:
            assert highest <= rule.enter + 1e-9 or since < frames
        if answer.label != previous:
            previous, since = answer.label, 0


def test_unknown_comes_at_once_and_goes_after_the_dwell() -> None:
    rule = Decision(unknown=0.5, dwell=0.1)
    vague = np.zeros(3, np.float32)
    labels = [a.label for a in play(rule, [sure(0), vague, *[sure(1)] * 6])]
    assert labels == ["sit", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, "walk", "walk"]


def test_smoothing_follows_its_time_constant() -> None:
    rule = Decision(smoothing=0.2)
    answers = play(rule, [sure(0, 0.9), *[sure(1, 0.9)] * 10])
    walk = 0.9 + (0.05 - 0.9) * math.exp(-1)  # 10 frames at 50 Hz are one time constant
    assert answers[-1].label == "walk"
    assert answers[-1].probability == pytest.approx(walk, abs=1e-6)


def test_an_answer_is_held_for_the_dwell_time() -> None:
    labels = [a.label for a in play(Decision(dwell=0.1), [sure(0), *[sure(1)] * 6])]
    assert labels == ["sit"] * 5 + ["walk"] * 2


def test_dwell_is_counted_in_whole_frames_whatever_the_floats_say() -> None:
    decide = Decider(Decision(dwell=0.1), LABELS, 30.0)  # 0.1 * 30 is 3.0000000000000004 in some orders
    assert [decide(row).label for row in [sure(0), *[sure(1)] * 3]] == ["sit", "sit", "sit", "walk"]


def test_below_enter_the_old_answer_stays() -> None:
    rule = Decision(enter=0.6)
    labels = [a.label for a in play(rule, [sure(0), sure(1, 0.55), sure(1, 0.65)])]
    assert labels == ["sit", "sit", "walk"]


def test_before_any_label_is_entered_the_answer_is_unknown() -> None:
    assert [a.label for a in play(Decision(enter=0.6), [sure(1, 0.5), sure(1, 0.7)])] == [UNKNOWN, "walk"]


def test_answers_before_the_look_ahead_mean_nothing() -> None:
    rows = [sure(2), sure(2), sure(0)]
    answers = play(Decision(smoothing=10.0), rows, look_ahead=2)
    assert [a.label for a in answers] == [UNKNOWN, UNKNOWN, "sit"]
    assert answers[-1].probability == pytest.approx(0.98)


@given(rules, streams)
def test_reset_forgets_everything(rule: Decision, rows: list) -> None:
    decide = Decider(rule, LABELS, RATE)
    first = [decide(np.float32(row)) for row in rows]
    decide.reset()
    assert [decide(np.float32(row)) for row in rows] == first


@pytest.mark.parametrize("shape", [(2,), (1, 3), (), (4,)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="logits have shape"):
        Decider(Decision(), LABELS, RATE)(np.zeros(shape, np.float32))


def test_large_logits_do_not_overflow() -> None:
    (answer,) = play(Decision(), [[1e30, -1e30, 0.0]])
    assert answer == Answer("sit", 1.0, True)


RULES = st.builds(
    Early,
    confidence=st.sampled_from([0.3, 0.5, 0.7, 0.9, 0.99, 1.0]),
    earliest=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
    hold=st.sampled_from([0.0, 0.02, 0.06, 0.2]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    growth=st.sampled_from([-0.5, 0.0, 1.0]),
)


def hear(decide: SegmentDecider, rows: list, look_ahead: int) -> list[Answer]:
    """The answers as a session gives them: after each frame, and at the end, where a flush says the rest."""
    logits, late = np.float32(rows), min(look_ahead, len(rows))
    nothing = np.full((late, 3), 50, np.float32)
    answers = [decide(row) for row in (*nothing, *logits[: len(rows) - late])]
    return [*answers, decide.conclude(logits[-1] if look_ahead else None)]


@given(st.lists(streams, min_size=1, max_size=3), RULES, st.integers(0, 5))
def test_a_segment_is_answered_as_the_rule_does_for_whole_segments_frame_for_frame(
    recordings: list, rule: Early, look_ahead: int
) -> None:
    logits = [np.float32(rows) for rows in recordings]
    whole = Segments(logits, np.zeros(len(logits), np.int64), RATE, look_ahead)
    expected = by_confidence(whole, rule, [1.0, rule.confidence])
    decide = SegmentDecider(rule, LABELS, RATE, look_ahead)
    for k, p in enumerate(whole.probabilities(rule)):
        decide.reset()
        *before, last = hear(decide, recordings[k], look_ahead)
        used = next((t + 1 for t, answer in enumerate(before) if answer.final), len(before))
        assert (LABELS.index(last.label), used) == (expected.labels[k, 1], expected.used[k, 1])
        for t, answer in enumerate(before):
            if answer.final:
                assert (answer.label, answer.probability) == (last.label, last.probability)
            else:
                assert (answer.label, answer.changed) == (UNKNOWN, t == 0)
                assert answer.probability == (p[t - look_ahead].max() if t >= look_ahead else 0.0)
        if not any(answer.final for answer in before):
            assert last.probability == p[-1].max()


@given(streams, RULES)
def test_a_segments_answer_is_new_once_and_a_reset_forgets_it(rows: list, rule: Early) -> None:
    decide = SegmentDecider(rule, LABELS, RATE)
    first = hear(decide, rows, 0)
    assert sum(answer.changed and answer.final for answer in first) == 1
    assert decide.conclude() == first[-1]._replace(changed=False)
    decide.reset()
    assert hear(decide, rows, 0) == first


def test_without_a_rule_a_segment_is_answered_at_its_end() -> None:
    decide = SegmentDecider(None, LABELS, RATE)
    assert [decide(sure(0, 0.999)) for _ in range(3)][-1].label == UNKNOWN
    answer = decide.conclude()
    assert (answer.label, answer.final) == ("sit", True)
    assert answer.probability == pytest.approx(0.999)


def test_the_last_logits_are_kept_where_the_engine_overwrites_them() -> None:
    decide, buffer = SegmentDecider(None, LABELS, RATE), sure(1)
    decide(buffer)
    buffer[:] = sure(2)
    assert decide.conclude().label == "walk"


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_a_segment_without_a_frame_has_no_answer(look_ahead: int) -> None:
    with pytest.raises(InputError, match="no frame"):
        SegmentDecider(None, LABELS, RATE, look_ahead).conclude(sure(0) if look_ahead else None)


def test_logits_of_another_shape_are_refused_for_a_segment_too() -> None:
    with pytest.raises(InputError, match="logits have shape"):
        SegmentDecider(None, LABELS, RATE)(np.zeros(4, np.float32))
