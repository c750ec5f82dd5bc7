"""What a link of the proof makes of differences: what fails, what a tie excuses, what an engine of its own may do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.compare import (
    ANSWERS_TOLERANCE,
    FORCED_TOLERANCE,
    FREE_TOLERANCE,
    MOST_TIES,
    OWN_ROUNDING,
    TIE,
    Comparison,
    Ties,
    free_link,
    parts_of,
    rounds,
    steps_of,
)
from edgeseq.manifest import Link
from edgeseq.program import Builder, Node, Program, Value, interpret

PARTS = parts_of(2, [("h", 3)])
STEPS = 0.5
NOTHING = np.zeros(5)


def compared(frames, reference=NOTHING, parts=PARTS):
    """A comparison of frames given as (difference, near)."""
    found = Comparison(parts)
    for difference, near in frames:
        found.add(reference, reference + difference, near)
    return found


def off(by, at=3):
    """A difference of one value: 0 and 1 are logits, 2 to 4 the state."""
    difference = np.zeros(5)
    difference[at] = by
    return difference


EQUAL = (NOTHING, False)


def test_a_frames_vector_is_the_logits_and_then_each_state():
    assert parts_of(4, [("a", 3), ("b.c", 2)]) == [
        ("the logits", slice(0, 4)),
        ("state a", slice(4, 7)),
        ("state b.c", slice(7, 9)),
    ]


def test_tolerances_come_from_the_number_formats_and_stay_what_they_are():
    assert (FORCED_TOLERANCE, FREE_TOLERANCE) == (1e-5, 1e-4)
    assert (ANSWERS_TOLERANCE, TIE, MOST_TIES) == (0.005, 1e-6, 0.02)


# -- the teacher-forced link ----------------------------------------------------------------------------------------


def test_an_error_is_relative_to_the_largest_value_of_its_own_part_and_at_least_1():
    reference = np.array([100.0, 0.0, 0.1, 0.0, 0.0])
    link = compared([(off(5e-4, 0), False)], reference).link("x", 0.0)
    assert (link.error, link.note, link.passed) == (pytest.approx(5e-6), "largest in the logits", True)
    link = compared([(off(5e-4, 0) + off(5e-4, 4), False)], reference).link("x", 0.0)
    assert (link.error, link.note, link.passed) == (pytest.approx(5e-4), "largest in state h", False)
    assert link.tolerance == FORCED_TOLERANCE == 1e-5


def test_equal_frames_are_said_to_be_equal():
    link = compared([EQUAL] * 7).link("litert teacher-forced", STEPS)
    assert link == Link("litert teacher-forced", 7, 0.0, FORCED_TOLERANCE, True, note="equal")


def test_a_difference_at_a_tie_is_excused_and_counted_and_elsewhere_it_is_not():
    at_tie = compared([EQUAL] * 99 + [(off(0.4), True)]).link("x", STEPS)
    assert at_tie.passed
    assert at_tie.error == 0
    assert at_tie.note == "equal; 1 frame rounded the other way at a tie (by 4.0e-01)"
    elsewhere = compared([EQUAL] * 99 + [(off(0.4), False)]).link("x", STEPS)
    assert not elsewhere.passed
    assert elsewhere.error == pytest.approx(0.4)


def test_a_frame_near_a_tie_that_is_not_rounded_the_other_way_is_a_frame_like_any_other():
    link = compared([(off(5e-6), True)] * 50).link("x", STEPS)
    assert link.error == pytest.approx(5e-6)
    assert "tie" not in link.note


def test_ties_excuse_no_more_than_one_step_in_each_layer_whatever_size_the_logits_have():
    reference = np.array([40.0, 0, 0, 0, 0])
    for by, at, passed in [(0.49, 3, True), (0.51, 3, False), (0.49, 0, True), (0.51, 0, False)]:
        assert compared([EQUAL] * 99 + [(off(by, at), True)], reference).link("x", STEPS).passed is passed


def test_ties_are_rare():
    allowed = int(MOST_TIES * 200)
    for count, passed in [(allowed, True), (allowed + 1, False)]:
        link = compared([(off(0.4), True)] * count + [EQUAL] * (200 - count)).link("x", STEPS)
        assert link.passed is passed
        assert f"{count} frames rounded the other way at a tie" in link.note


def test_flips_as_fine_as_floats_are_counted_but_may_be_many_and_do_not_use_up_the_rare_ones():
    """A step of an int16 state is 3e-5 of its range, and many values meet a tie within what float sums are apart."""
    fine = [(off(3e-5), True)] * 60
    link = compared(fine + [EQUAL] * 40).link("x", STEPS)
    assert link.passed
    assert link.note.endswith("60 frames rounded the other way at a tie (by 3.0e-05)")
    assert compared([*fine, *[EQUAL] * 39, (off(0.4), True)]).link("x", STEPS).passed
    assert not compared([*fine, *[EQUAL] * 37, *[(off(0.4), True)] * 3]).link("x", STEPS).passed


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("by", [np.nan, np.inf])
def test_what_is_not_a_number_fails_and_can_be_written(near, exact, by):
    for difference in (off(by), off(by) + off(0.1, 0)):
        link = compared([EQUAL] * 99 + [(difference, near)]).link("x", STEPS, exact=exact)
        assert not link.passed
        assert link.error <= sys.float_info.max


@pytest.mark.parametrize("near", [False, True])
def test_an_engine_that_rounds_in_its_own_way_may_be_off_by_the_steps_of_the_layers_and_says_so(near):
    reference = np.array([8.0, 0, 0, 0, 0])  # the steps are absolute: large logits make no state stricter
    for by, at, passed in [(0.45, 3, True), (0.55, 3, False), (0.45, 1, True), (0.55, 1, False)]:
        link = compared([(off(by, at), near)] * 100, reference).link("x", STEPS, exact=False)
        assert link.passed is passed
        assert link.passed == (link.error <= link.tolerance)
        where = "state h" if at == 3 else "the logits"
        assert link.note == f"largest in {where}; {OWN_ROUNDING}"


def test_an_engine_of_its_own_that_was_equal_is_not_said_to_differ():
    assert compared([EQUAL]).link("x", STEPS, exact=False).note == "equal"


def test_in_float_every_engine_is_held_to_the_same():
    for exact in (False, True):
        link = compared([(off(2e-5), False)]).link("x", 0.0, exact=exact)
        assert (link.passed, link.tolerance) == (False, FORCED_TOLERANCE)


@given(
    frames=st.lists(
        st.tuples(st.sampled_from([0.0, 4e-6, 3e-5, 2e-3, 0.3, 0.7]), st.integers(0, 4), st.booleans()),
        min_size=1,
        max_size=120,
    ),
    exact=st.booleans(),
)
def test_a_link_holds_when_each_of_its_rules_does(frames, exact):
    link = compared([(off(by, at), near) for by, at, near in frames]).link("x", STEPS, exact=exact)
    wrong = [by for by, _, near in frames if by > FORCED_TOLERANCE and not near]
    coarse = [by for by, _, near in frames if by > FREE_TOLERANCE and near]
    if exact:
        rare = len(coarse) <= MOST_TIES * len(frames)
        assert link.passed == (not wrong and rare and max(coarse, default=0) <= STEPS)
    else:
        assert link.passed == (max(by for by, _, _ in frames) <= STEPS)


# -- what is near a tie ---------------------------------------------------------------------------------------------


def quantize_node(scale):
    return Node("quantize", ("x",), Value("q", (1, 3), "int8"), {"scale": scale, "zero": 5})


ROUND = Node("round", ("x",), Value("r", (1, 3)))


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ([0.1, 0.2, 0.3], False),
        ([0.1, 1.5, 0.3], True),
        ([0.1, -2.5, 0.3], True),
        ([0.5 + 0.5 * TIE, 0.0, 0.0], True),
        ([0.5 + 5 * TIE, 0.0, 0.0], False),
        ([100.5 + 50 * TIE, 0.0, 0.0], True),  # relative: float32 knows larger numbers less finely
        ([100.5 + 500 * TIE, 0.0, 0.0], False),
        ([np.nan, 0.1, 0.1], False),
    ],
)
def test_a_tie_is_a_value_half_way_between_two_of_the_grid(values, near):
    for node, scale in ((ROUND, 1.0), (quantize_node(0.25), 0.25)):
        ties = Ties()
        ties.watch(node, [np.array([values], np.float64) * scale])
        assert ties.near is near


def test_a_tie_is_remembered_until_the_next_frame_and_only_roundings_of_floats_count():
    ties = Ties()
    half, none = np.float32([[0.5]]), np.float32([[0.1]])
    for operator in ("tanh", "dequantize", "qlinear", "mul"):
        ties.watch(Node(operator, ("x",), Value("y", (1, 1))), [half])
        assert not ties.near
    ties.watch(ROUND, [half])
    ties.watch(ROUND, [none])
    assert ties.near
    ties.clear()
    assert not ties.near
    ties.watch(ROUND, [none])
    assert not ties.near


# -- what a rounding comes to ---------------------------------------------------------------------------------------


def integer_program(*, rounded=True, integer=True) -> Program:
    """Two int8 layers with scales 0.25 and 0.125, and a state on grids of 0.5 and 0.0625."""
    b = Builder(Value("x", (1, 2)), [Value("m", (1, 2))])
    if integer:
        q = b.add("quantize", "x", scale=0.25, zero=0)
        for name, scales in (("first", (0.25, 0.25)), ("second", (0.25, 0.125))):
            held = {"w": np.eye(2, dtype=np.int8), "b": np.zeros(2, np.int32), "s": np.ones(2, np.float32)}
            names = [b.constant(f"{name}.{key}", array) for key, array in held.items()]
            q = b.add("qlinear", q, *names, x_scale=scales[0], x_zero=0, y_scale=scales[1], y_zero=0)
        y = b.add("dequantize", q, scale=0.125, zero=0)
    else:
        y = b.add("linear", "x", b.constant("w", np.eye(2, dtype=np.float32)))
    after = b.add("add", "m", y)
    if rounded:
        after = b.add("round", b.add("mul", after, b.constant("inverse", np.float32([2, 16]))))
        after = b.add("mul", after, b.constant("grid", np.float32([0.5, 0.0625])))
    return b.finish(b.add("add", y, after), {"m": after})


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 3 * 0.5),  # two int8 layers and a state, by the coarsest grid
        ({"rounded": False}, 2 * 0.125),
        ({"integer": False}, 1 * 0.5),
        ({"integer": False, "rounded": False}, 0.0),
    ],
)
def test_the_steps_of_a_program_are_its_coarsest_scale_once_a_layer(options, steps):
    program = integer_program(**options)
    assert steps_of(program) == steps
    assert rounds(program) is (steps > 0)


def test_a_running_program_tells_its_ties():
    ties, program = Ties(), integer_program()
    step = interpret(program, ties.watch)
    seen = []
    for x in (0.3, 0.375, 0.36, -0.125):  # of a scale of 0.25: half way is 0.375 and -0.125; the state's grid is coarse
        ties.clear()
        step(np.float32([[x, 0.0]]), {"m": np.float32([[0.1, 0.01]])})
        seen.append(ties.near)
    assert seen == [False, True, False, True]


# -- the free-running link ------------------------------------------------------------------------------------------


def free(found, reference, *, rounded, tolerance=1e-4):
    comparison = Comparison(parts_of(reference.shape[1], [("h", 1)]))
    for one, other in zip(reference, found, strict=True):
        comparison.add(np.append(one, 0.0), np.append(other, 0.0))
    return free_link("x", comparison, reference, found, tolerance=tolerance, rounded=rounded)


def answers(count=1000):
    return np.tile(np.float32([1, 0, -1]), (count, 1))


def other_answers(count, wrong):
    found = answers(count)
    found[:wrong] = [0, 1, -1]
    return found


def test_in_float_the_error_counts_and_every_answer():
    reference = answers()
    assert free(reference + np.float32(5e-5), reference, rounded=False).passed
    link = free(reference + np.float32(2e-4), reference, rounded=False)
    assert (link.passed, link.gate, link.tolerance) == (False, "values", 1e-4)
    assert link.agreement == 1.0
    link = free(other_answers(1000, 1), reference, rounded=False, tolerance=2.0)
    assert link.passed  # they are ties within such a tolerance
    close = reference * np.float32(1e-3)
    link = free(other_answers(1000, 1) * np.float32(1e-3), close, rounded=False, tolerance=5e-4)
    assert not link.passed
    assert "another answer in 1 frames" in link.note


def test_where_a_model_rounds_the_share_of_other_answers_counts():
    reference = answers()
    for wrong, passed in [(0, True), (5, True), (6, False)]:
        link = free(other_answers(1000, wrong), reference, rounded=True)
        assert link.passed is passed
        assert (link.error, link.tolerance, link.gate) == (wrong / 1000, ANSWERS_TOLERANCE, "answers")
        assert link.agreement == 1 - wrong / 1000
    assert link.note == "values within 1.0e+00, largest in the logits"
    assert free(reference, reference, rounded=True).note == "equal"


def test_where_a_model_rounds_values_may_be_off_but_not_lost():
    reference = answers()
    assert free(reference + np.float32(0.3), reference, rounded=True).passed
    lost = answers()
    lost[-1, 0] = np.nan
    for rounded in (False, True):
        link = free(lost, reference, rounded=rounded)
        assert not link.passed
        assert np.isfinite(link.error)


def test_two_likely_labels_that_change_places_are_ties():
    reference = np.tile(np.float32([1, 0.99999, 0]), (100, 1))
    found = np.tile(np.float32([0.99999, 1, 0]), (100, 1))
    for rounded in (False, True):
        link = free(found, reference, rounded=rounded)
        assert link.passed
        assert link.agreement == 0.0
        assert "100 frames differ where the two likeliest labels are closer than the tolerance" in link.note


def test_where_a_value_fell_on_the_other_side_a_tie_is_another_answer():
    reference = np.tile(np.float32([1, 0.99999, 0]), (100, 1))
    found = np.tile(np.float32([0.99999, 1, 0]), (100, 1))
    found[0, 2] = 0.01
    link = free(found, reference, rounded=True)
    assert (link.passed, link.error) == (False, 1.0)


def test_where_a_model_rounds_values_that_run_away_fail_whatever_the_answers():
    reference = answers()
    assert not free(reference * np.float32(100), reference, rounded=True).passed
