"""The choice of a rule for changes: what it may look at, what it promises on the validation part, what it refuses."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording
from edgeseq.decisions import answers
from edgeseq.devices.decide import UNKNOWN, Decider
from edgeseq.errors import BudgetMissed, InputError
from edgeseq.events import Truth, score_events
from edgeseq.manifest import Decision
from edgeseq.training.heard import Evidence, Heard, event_scores, hear
from edgeseq.training.tune_events import DWELL, SMOOTHING, choose, grid

RATE = 20.0
LABELS = ("a", "b", "c")
SOME = Evidence(2, 0.1, 16, 0)
GRID = "edgeseq.training.tune_events.grid"


def unsteady(seed: int, *, noise: float, look_ahead: int = 0, streams: int = 2) -> Heard:
    """Streams of changes every few seconds, and logits that mostly follow them, with bursts of another label."""
    rng = np.random.default_rng(seed)
    said, true = [], []
    for _ in range(streams):
        lengths = rng.integers(30, 90, 8)
        labels = np.repeat(np.cumsum(rng.integers(1, 3, 8)) % 3, lengths)
        logits = 2.0 * np.eye(3)[labels] + noise * rng.normal(size=(len(labels), 3))
        for start in rng.integers(0, len(labels) - 8, 6):
            logits[start : start + 4] += noise * 3 * np.eye(3)[rng.integers(3)]
        said.append(logits.astype(np.float32))
        true.append(Truth.of(labels, RATE))
    return Heard(said, true, RATE, look_ahead, SOME)


def test_scores_are_those_of_the_decider_frame_by_frame() -> None:
    heard = unsteady(0, noise=1.0, look_ahead=3)
    rule = Decision(smoothing=0.25, enter=0.5, dwell=0.25, unknown=0.4, leave=0.2)
    pairs = []
    for logits, truth in zip(heard.logits, heard.truths, strict=True):
        decide = Decider(rule, LABELS, RATE, heard.look_ahead)
        flushed = [np.zeros(3, np.float32)] * 3 + list(logits)
        shown = [decide(row).label for row in flushed]
        pairs.append((truth.y, np.array([-1 if label == UNKNOWN else LABELS.index(label) for label in shown])))
    assert event_scores(heard, rule) == score_events(pairs, RATE)


def test_a_look_ahead_is_a_part_of_the_delay() -> None:
    heard = unsteady(1, noise=0.0)
    late = Heard(heard.logits, heard.truths, RATE, 5, SOME)
    assert event_scores(heard, Decision()).delay_median == 0.0
    assert event_scores(late, Decision()).delay_median == pytest.approx(5 / RATE)


@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_choice_is_never_worse_than_the_present_rule_where_it_was_made(seed: int, noise: float) -> None:
    validation, test = unsteady(seed, noise=noise, streams=1), unsteady(seed + 1, noise=noise, streams=1)
    with pytest.MonkeyPatch.context() as patch:  # a few rules do here
        patch.setattr(GRID, lambda: grid()[::40])
        found = choose(validation, test, Decision(smoothing=1.0))
    assert found.after.validation.f1 >= found.before.validation.f1
    assert found.after.validation.accuracy >= found.before.validation.accuracy
    assert found.before.decision == Decision(smoothing=1.0)
    assert found.after.validation == event_scores(validation, found.after.decision)
    assert found.after.test == event_scores(test, found.after.decision)


@pytest.fixture(scope="module")
def parts() -> tuple[Heard, Heard]:
    return unsteady(2, noise=1.2), unsteady(3, noise=1.2)


def test_with_a_greatest_delay_no_rule_that_keeps_it_has_fewer_false_switches(parts: tuple[Heard, Heard]) -> None:
    validation, test = parts
    found = choose(validation, test, Decision(smoothing=1.0), max_delay=0.2, share=0.8)
    tallies = validation.tallies(grid())
    kept = [tally.false_switches for tally in tallies if tally.time_to(0.8) <= 0.2]
    (chosen,) = validation.tallies([found.after.decision])
    assert chosen.time_to(0.8) <= 0.2
    assert chosen.false_switches == min(kept)
    assert min(tally.false_switches for tally in tallies) < min(kept)  # the bound costs something
    assert found.after.times[0] == chosen.time_to(0.8)


def test_the_trade_is_of_rules_that_no_other_one_beats(parts: tuple[Heard, Heard]) -> None:
    validation, test = parts
    trade = choose(validation, test, Decision()).trade
    points = list(zip(trade.delays, trade.false_switches_per_hour, strict=True))
    hours = sum(len(truth.y) for truth in validation.truths) / RATE / 3600
    for tally in validation.tallies(grid()):
        late, false = tally.time_to(0.9), tally.false_switches / hours
        assert any(delay <= late and calm <= false + 1e-9 for delay, calm in points) or late == np.inf
    assert points == sorted(points)
    assert list(trade.false_switches_per_hour) == sorted(trade.false_switches_per_hour, reverse=True)


def test_the_test_part_has_no_say(parts: tuple[Heard, Heard]) -> None:
    validation, test = parts
    one, other = (choose(validation, part, Decision(smoothing=0.5)) for part in (test, unsteady(9, noise=0.1)))
    assert one.after.decision == other.after.decision
    assert one.after.validation == other.after.validation
    assert one.after.test != other.after.test


def test_a_rule_that_cannot_be_better_stays() -> None:
    right = unsteady(4, noise=0.0)
    assert choose(right, right, Decision()).after.decision == Decision()


def test_what_no_rule_can_do_is_refused_with_what_can_be_done() -> None:
    y = np.repeat([0, 1], 100)
    late = Heard([8 * np.eye(3, dtype=np.float32)[y]], [Truth.of(y, RATE)], RATE, 40, SOME)
    with pytest.raises(
        BudgetMissed,
        match=r"no rule answers 90 % of the .* within 1 s: the fastest needs 2.00 s. Try --max-delay 2, or",
    ):
        choose(late, late, Decision(), max_delay=1.0)
    deaf = Heard([np.zeros((200, 3), np.float32)], late.truths, RATE, 0, SOME)
    with pytest.raises(BudgetMissed, match=r"no rule answers 50 % .* at all: ask for a smaller --share"):
        choose(deaf, deaf, Decision(), max_delay=1.0, share=0.5)


def changing(
    weak: int, events: int = 20, *, unsure: float = 0.0, false: int = 0, share: float = 0.7, frames: int = 30
) -> Heard:
    """A stream of so many changes, each surely answered at once.

    But the first ``weak`` of them by a probability of ``share``, for the first ``unsure`` seconds (0: to their end);
    and the last ``false`` of them are interrupted, for a frame, by another label.
    """
    y = np.repeat(np.arange(events + 1) % 3, frames)
    p = np.full((len(y), 3), 0.01)
    p[np.arange(len(y)), y] = 0.98
    for event in range(1, weak + 1):
        lasting = round(unsure * RATE) if unsure else frames
        for t in range(event * frames, event * frames + lasting):
            p[t] = (1 - share) / 2
            p[t, y[t]] = share
    for event in range(events - false, events):
        t = event * frames + 25
        p[t] = np.eye(3)[(y[t] + 1) % 3] * 0.97 + 0.01
    return Heard([np.log(p).astype(np.float32)], [Truth.of(y, RATE)], RATE, 0, SOME)


def test_of_equal_rules_the_one_with_the_least_median_delay_is_chosen(monkeypatch) -> None:
    heard, slow, fast = changing(0), Decision(smoothing=0.5), Decision(smoothing=0.25)
    monkeypatch.setattr(GRID, lambda: [slow, fast])
    deaf = Decision(enter=0.99)
    found = choose(heard, heard, deaf)
    assert event_scores(heard, slow).f1 == event_scores(heard, fast).f1 == 1.0
    assert found.after.decision == fast
    assert choose(heard, heard, deaf, max_delay=2.0).after.decision == fast


def test_of_rules_with_one_median_the_one_with_the_least_90th_percentile_is_chosen(monkeypatch) -> None:
    heard, slow, fast = changing(4, unsure=0.25), Decision(enter=0.9), Decision(enter=0.5)
    monkeypatch.setattr(GRID, lambda: [slow, fast])
    found = choose(heard, heard, Decision(enter=0.99))
    one, other = event_scores(heard, slow), event_scores(heard, fast)
    assert (one.f1, one.delay_median) == (other.f1, other.delay_median) == (1.0, 0.0)
    assert one.delay_p90 > other.delay_p90
    assert found.after.decision == fast


@pytest.mark.parametrize(("weak", "kept"), [(1, True), (3, True), (12, False)])
def test_the_present_rule_stays_unless_another_is_better_by_more_than_chance(
    monkeypatch, weak: int, kept: bool
) -> None:
    heard, present, other = changing(weak), Decision(enter=0.9), Decision(enter=0.5)
    monkeypatch.setattr(GRID, lambda: [other])
    found = choose(heard, heard, present)
    assert event_scores(heard, present).f1 < event_scores(heard, other).f1
    assert (found.kept, found.after.decision) == (kept, present if kept else other)


@pytest.mark.parametrize(("false", "kept"), [(1, True), (12, False)])
def test_with_a_greatest_delay_it_stays_where_its_false_switches_may_be_chance(monkeypatch, false, kept) -> None:
    heard, present, other = changing(0, false=false), Decision(), Decision(smoothing=0.25)
    monkeypatch.setattr(GRID, lambda: [other])
    found = choose(heard, heard, present, max_delay=1.0)
    assert event_scores(heard, other).false_switches_per_hour == 0
    assert (found.kept, found.after.decision) == (kept, present if kept else other)


def test_a_present_rule_that_is_too_slow_does_not_stay(monkeypatch) -> None:
    heard, slow, fast = changing(0), Decision(dwell=1.0, smoothing=1.0), Decision(smoothing=0.1)
    monkeypatch.setattr(GRID, lambda: [fast])
    found = choose(heard, heard, slow, max_delay=0.3)
    assert (found.kept, found.after.decision) == (False, fast)


def test_an_answer_whose_probability_is_exactly_leave_is_left() -> None:
    rows = np.array([[-40, 40], [0, 0], [0, 0]], np.float32)  # the second label, then both by 0.5 exactly
    for leave, said in ((0.5, [1, 0, 0]), (0.499, [1, 1, 1])):
        rule = Decision(leave=leave)
        decide = Decider(rule, LABELS[:2], RATE)
        assert answers(rows, [rule], RATE)[0].tolist() == said
        assert [LABELS.index(decide(row).label) for row in rows] == said


@pytest.mark.parametrize(("changes", "few"), [(99, True), (100, False)])
def test_fewer_than_a_hundred_changes_are_few(changes: int, few: bool) -> None:
    assert Evidence(3, 1.0, changes, 0).few == few


def test_without_a_change_nothing_is_chosen() -> None:
    still = Heard([np.zeros((40, 3), np.float32)], [Truth.of(np.zeros(40, np.int64), RATE)], RATE, 0, SOME)
    with pytest.raises(InputError, match="no label changes in what the validation subjects did"):
        choose(still, still, Decision())


def test_rules_that_are_not_in_the_grid_say_what_another_one_says() -> None:
    rules = grid()
    assert len(set(map(msgspec.json.encode, rules))) == len(rules)
    heard = unsteady(5, noise=1.5, streams=1).logits[0]
    for smoothing in SMOOTHING[:3]:
        for dwell in DWELL[:2]:
            for enter, leave in ((0.7, 0.35), (0.8, 0.2), (0.9, 0.1)):
                left_out = Decision(smoothing, enter, dwell, 0.0, leave)
                kept = Decision(smoothing, enter, dwell)
                assert left_out not in rules
                assert kept in rules
                one, other = answers(heard, [left_out, kept], RATE)
                np.testing.assert_array_equal(one, other)


def dataset(changing: bool, task: str = "frame") -> Dataset:
    rng = np.random.default_rng(6)
    recordings = []
    for subject in ("s1", "s2"):
        for label in range(3):
            y = np.full(40, label, np.int16)
            if changing:
                y[20:] = (label + 1) % 3
            recordings.append(Recording(rng.normal(size=(40, 2)).astype(np.float32), y, subject, f"{subject}{label}"))
    return Dataset("toy", tuple(recordings), ("u", "v"), ("", ""), RATE, LABELS, task=task, unscored=0.0)


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_a_model_runs_through_the_seams_of_stitched_recordings(window, look_ahead: int) -> None:
    model, data = window(look_ahead, outputs=3), dataset(changing=False)
    heard = hear(model, data, seed=4, orders=2)
    assert heard.evidence == Evidence(2, pytest.approx(6 * 40 / RATE / 3600), 6, 2)  # each recording once
    assert [len(truth.y) for truth in heard.truths] == [120] * 4
    frames = {tuple(row): i for i, row in enumerate(np.concatenate([r.x for r in data.recordings]).tolist())}
    for y, truth, subject in zip(heard.logits, heard.truths, ("s1", "s1", "s2", "s2"), strict=True):
        parts = {int(r.y[0]): r.x for r in data.recordings if r.subject == subject}
        x = np.concatenate([parts[int(label)] for label in truth.y[::40]])
        assert {tuple(row) for row in x.tolist()} <= set(frames)
        state, said = model.initial_state(1), []
        with torch.no_grad():
            for row in [*x, *np.zeros((look_ahead, 2), np.float32)]:
                live = torch.tensor([[float(len(said) < len(x))]])
                answer, state = model.step(torch.from_numpy(row)[None], state, live)
                said.append(answer[0].numpy())
        np.testing.assert_allclose(y, said[look_ahead:], atol=1e-5)


def test_recordings_with_changes_are_heard_as_they_are(window) -> None:
    heard = hear(window(0, outputs=3), dataset(changing=True), orders=3)
    assert heard.evidence == Evidence(2, pytest.approx(6 * 40 / RATE / 3600), 6, 0)
    assert [len(y) for y in heard.logits] == [40] * 6


def test_segments_are_refused(window) -> None:
    with pytest.raises(InputError, match="toy has segments to answer"):
        hear(window(0, outputs=3), dataset(changing=False, task="segment"))
