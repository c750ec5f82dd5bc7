"""The rule for early answers: applied to whole segments, calibrated, and chosen without optimism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.early import (
    Answers,
    Segments,
    by_confidence,
    by_frame,
    calibrate,
    calibration_error,
    confidences,
    frame_counts,
    judge,
    pick,
    probabilities,
    provable_loss,
    read_off,
)
from edgeseq.errors import InputError
from edgeseq.manifest import Early

RATE = 50.0
CONFIDENCES = [1.0, 0.99, 0.9, 0.7, 0.5, 0.3]


def of_scores(labels: list[int], *rows: list[float], look_ahead: int = 0) -> Segments:
    """Segments of two labels: by frame, how much more the logit of label 1 is than that of label 0."""
    logits = [np.stack([np.zeros(len(row)), row], 1).astype(np.float32) for row in rows]
    return Segments(logits, np.array(labels), RATE, look_ahead)


def made(
    count: int, *, seed: int = 0, frames: int = 60, labels: int = 4, temperature: float = 1.0, growth: float = 0.0
) -> Segments:
    """Evidence that adds up, made less sure (or surer) than it should be by a temperature over time."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, count)
    logits = []
    for label in truth:
        steps = rng.normal(0, 0.4, (frames, labels))
        steps[:, label] += 0.4**2
        seconds = np.arange(1, frames + 1)[:, None] / RATE
        logits.append((steps.cumsum(0) * temperature * seconds**growth).astype(np.float32))  # softmax is exact at 1, 0
    return Segments(logits, truth, RATE)


@st.composite
def segments(draw: st.DrawFn) -> Segments:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, labels = draw(st.integers(1, 6)), draw(st.integers(2, 4))
    lengths = rng.integers(1, 30, count)
    logits = [rng.normal(0, 2, (n, labels)).astype(np.float32) for n in lengths]
    return Segments(logits, rng.integers(0, labels, count), RATE, draw(st.integers(0, 6)))


rules = st.builds(
    Early,
    confidence=st.sampled_from(CONFIDENCES),
    earliest=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
    hold=st.sampled_from([0.0, 0.02, 0.06, 0.4]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    growth=st.sampled_from([-0.5, 0.0, 1.0]),
)


@given(segments(), rules)
def test_a_lower_confidence_never_takes_more_frames_and_none_takes_more_than_there_are(heard, rule):
    answers = by_confidence(heard, rule, CONFIDENCES)
    assert (answers.used[:, 0] == heard.lengths).all()
    assert (np.diff(answers.used, axis=1) <= 0).all()
    assert (answers.used >= np.minimum(1 + heard.look_ahead, heard.lengths)[:, None]).all()
    at_end = [y[-1].argmax() for y in heard.logits]
    assert answers.labels[:, 0].tolist() == at_end


@given(segments(), rules)
def test_an_early_answer_is_the_label_of_its_frame_above_the_confidence(heard, rule):
    answers = by_confidence(heard, rule, [1.0, rule.confidence])
    for y, label, used in zip(heard.logits, answers.labels[:, 1], answers.used[:, 1], strict=True):
        if used < len(y):
            frame = used - heard.look_ahead
            p = probabilities(y[frame - 1], frame, rule, RATE)
            assert p[label] == p.max() > rule.confidence
            assert frame >= rule.earliest * RATE


def test_the_rule_waits_for_the_earliest_frame_and_for_the_label_to_hold():
    heard = of_scores([1], [5, 5, -5, 5, 5, 5, 5, 5])
    for rule, used in (
        (Early(), 1),
        (Early(earliest=0.04), 2),
        (Early(hold=0.04), 2),
        (Early(hold=0.06), 6),
        (Early(hold=0.06, earliest=0.14), 7),
        (Early(hold=0.16), 8),
    ):
        answers = by_confidence(heard, rule, [1.0, 0.9])
        assert (answers.used[0, 1], answers.labels[0, 1]) == (used, 1)


def test_what_is_said_of_a_frame_is_there_look_ahead_frames_later_and_at_the_end_all_is():
    row = [0, 0, 5, 5, -5]
    for late, used, label in ((0, 3, 1), (1, 4, 1), (2, 5, 1), (3, 5, 0), (9, 5, 0)):
        heard = of_scores([1], row, look_ahead=late)
        for answers in (by_confidence(heard, Early(), [0.9]), by_frame(heard, [3])):
            assert (answers.used[0, 0], answers.labels[0, 0]) == (used, label)


def test_a_shorter_segment_is_answered_at_its_own_end():
    heard = of_scores([1, 1], [-1, 1], [1, 1, 1, -1])
    answers = by_frame(heard, frame_counts(heard))
    assert answers.settings.tolist() == [4, 3, 2, 1]
    assert answers.used.tolist() == [[2, 2, 2, 1], [4, 3, 2, 1]]
    assert answers.labels.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert [outcome.share for outcome in judge(heard, answers)] == [1.0, 0.875, 0.75, 0.375]
    assert [outcome.accuracy for outcome in judge(heard, answers)] == [0.5, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(("temperature", "growth"), [(1.0, 0.0), (3.0, 0.0), (0.2, 0.0), (2.0, 0.7), (1.0, -0.5)])
def test_calibration_finds_the_temperature_that_evidence_was_multiplied_with(temperature, growth):
    heard, new = (made(1500, seed=s, temperature=temperature, growth=growth) for s in (0, 1))
    found = Early(1.0, 0.0, 0.0, *calibrate(heard))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.growth == pytest.approx(growth, abs=0.1)
    assert calibration_error(new, found) < 0.03


def test_a_growth_that_does_not_pay_for_itself_is_left_out():
    heard = [made(60, seed=seed) for seed in range(20)]  # whose evidence has none
    growths = [calibrate(each)[1] for each in heard]
    assert np.mean([growth == 0 for growth in growths]) >= 0.7  # Akaike's rule takes one in six for chance
    assert calibrate(made(60, seed=1, growth=1.0))[1] != 0


def test_calibration_lowers_the_error_of_an_overconfident_model():
    heard, new = (made(100, seed=s, temperature=8.0) for s in (0, 1))
    found = Early(1.0, 0.0, 0.0, *calibrate(heard))
    assert calibration_error(new, found) < 0.4 * calibration_error(new, Early())


def test_the_unit_of_logits_does_not_matter():
    heard = made(200)
    scaled = Segments([1000 * y + 77 for y in heard.logits], heard.labels, RATE)
    (temperature, growth), (other, same) = calibrate(heard), calibrate(scaled)
    assert (other / temperature, same) == (pytest.approx(1000, rel=1e-3), pytest.approx(growth, abs=1e-3))


def test_segments_that_are_all_right_make_no_model_infinitely_sure():
    heard = of_scores([1, 0, 1, 0], *([s * 3.0] * 20 for s in (1, -1, 1, -1)))
    rule = Early(1.0, 0.0, 0.0, *calibrate(heard))
    assert heard.probabilities(rule)[0].max() == pytest.approx(5 / 6, abs=1e-3)  # Platt's target: (4 + 1) / (4 + 2)


def test_logits_that_say_nothing_are_calibrated_to_a_guess():
    rule = Early(1.0, 0.0, 0.0, *calibrate(of_scores([1, 0], [0.0] * 5, [0.0] * 5)))
    assert np.isfinite([rule.temperature, rule.growth]).all()
    assert probabilities([[0.0, 0.0]], [3], rule, RATE).tolist() == [[0.5, 0.5]]


def test_the_calibration_error_is_how_far_probability_and_accuracy_are_apart():
    logit = float(np.log(9))  # probability 0.9
    heard = of_scores([1, 1, 1, 0], *([logit] * 5 for _ in range(4)))
    assert calibration_error(heard, Early()) == pytest.approx(0.15)
    assert calibration_error(of_scores([1], [logit]), Early()) == pytest.approx(0.1)


def answered(worse: list[int], better: list[int], count: int) -> tuple[Segments, Answers]:
    """Rules that make so many answers worse and better, on ``count`` segments of which 60 % are right at the end."""
    heard = of_scores([1] * count, *([0.0] * 2 for _ in range(count)))
    right = np.arange(count) < 0.6 * count
    columns = [right]
    for lost, won in zip(worse, better, strict=True):
        column = right.copy()
        column[:lost] = False
        column[count - won :] = True
        columns.append(column)
    labels = np.stack(columns, 1).astype(np.int64)
    return heard, Answers(np.arange(len(columns), dtype=float), labels, np.ones_like(labels))


@pytest.mark.parametrize(
    ("worse", "better", "count", "level", "chosen"),
    [
        ([0, 0, 1], [0, 0, 0], 100, 0.95, 2),  # too few to show it: none may be lost
        ([0, 1, 0], [0, 0, 0], 100, 0.95, 1),  # and what comes behind a rule that failed is not tried
        ([0, 1], [0, 3], 100, 0.95, 2),  # as good as none lost
        ([0, 20, 30, 40], [0, 0, 0, 0], 10_000, 0.95, 3),  # 0.3 % lost is shown to be less than 0.5 %; 0.4 % is not
        ([0, 40, 50, 51], [0, 0, 0, 0], 10_000, 0.5, 3),  # as counted
        ([1], [0], 10, 0.95, 0),
    ],
)
def test_a_rule_is_chosen_as_far_as_the_segments_show_that_it_loses_no_more_than_was_allowed(
    worse, better, count, level, chosen
):
    assert pick(*answered(worse, better, count), drop=0.005, level=level) == chosen


def test_the_loss_that_can_be_shown_shrinks_with_the_segments():
    found = [provable_loss(count, 0.95) for count in (50, 200, 1000, 10_000)]
    assert all(more > less for more, less in itertools.pairwise(found))
    assert found[0] > 0.04
    assert found[-1] < 0.0005
    assert provable_loss(100, 0.5) == 0.0


def test_what_was_chosen_loses_more_than_allowed_in_no_more_than_the_share_that_the_level_leaves():
    drop, level, runs = 0.02, 0.9, 150
    population = made(20_000, seed=9, frames=20)
    tried = by_confidence(population, Early(), confidences(4))
    accuracy = (tried.labels == population.labels[:, None]).mean(0)
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(runs):
        rows = rng.integers(0, len(population.labels), 2000)
        some = Segments([population.logits[i] for i in rows], population.labels[rows], RATE)
        index = pick(some, Answers(tried.settings, tried.labels[rows], tried.used[rows]), drop=drop, level=level)
        lost.append(accuracy[0] - accuracy[index])
    assert np.mean(np.array(lost) > drop) < 1 - level + 0.05
    assert np.mean(lost) > 0.25 * drop  # and it is not merely afraid


def test_a_frame_read_off_the_curve_is_the_first_within_the_loss():
    heard = of_scores([1] * 10, *([-1.0] * (k // 2) + [1.0] * (8 - k // 2) for k in range(10)))
    answers = by_frame(heard, frame_counts(heard))
    for drop, frame in ((0.0, 5), (0.2, 4), (0.19, 5), (0.8, 1)):
        assert answers.settings[read_off(heard, answers, drop)] == frame


def test_confidences_go_from_never_down_to_a_guess():
    tried = confidences(7)
    assert tried[0] == 1
    assert (np.diff(tried) < 0).all()
    assert tried[-1] == pytest.approx(1 / 7, abs=1e-5)


def test_without_a_labelled_segment_nothing_is_chosen():
    with pytest.raises(InputError, match="no labelled segment"):
        Segments([], np.array([], np.int64), RATE)
