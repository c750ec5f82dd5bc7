"""Espruino watches: lines that the radio cuts anywhere, links that are lost, and times of a watch that sends none."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import SECOND, Reading
from edgeseq.signal.senders.espruino import LATE, PERIOD, Espruino

NOW = 1_698_501_145_034_000_000
MILLISECOND = 1_000_000
CLEAR = LATE + 0.3  # seconds that no late radio and no samples between two parts can make up
CASES = settings(max_examples=60, deadline=None)
MANY = pytest.mark.parametrize("examples", [pytest.param(10_000, marks=pytest.mark.slow)])


def line(number: int) -> bytes:
    return b"A,%d,-3,98\r\n" % number


def numbers(readings: list[Reading]) -> list[int]:
    return [round(100 * reading.values[0]) for reading in readings]


class Radio:
    """A watch that samples at its own pace, and a radio that delivers its bytes in parts."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.decode = Espruino()
        self.period = PERIOD * self.random.uniform(0.9995, 1.0005)  # by its own quartz
        self.now, self.count, self.steps_back = float(NOW), 0, 0
        self.delivered = NOW
        self.sent: list[tuple[int, float]] = []  # the samples of which all came: their number, and when they were taken
        self.found: list[Reading] = []
        self.behind: dict[int, str] = {}  # what came before a sample: a hole, or a clock that was set back

    def sample(self, count: int) -> None:
        """So many samples, in parts of up to 60 bytes."""
        text, taken = b"", []
        for _ in range(count):
            self.now += self.period
            taken += [self.now] * len(line(self.count))
            text += line(self.count)
            self.sent.append((self.count, self.now))
            self.count += 1
        begin = 0
        while begin < len(text):
            end = min(begin + self.random.randint(1, 60), len(text))
            late = self.random.uniform(0, 40) * MILLISECOND
            self.deliver(text[begin:end], round(taken[end - 1] + late))
            begin = end

    def deliver(self, part: bytes, at: int) -> None:
        self.delivered = max(self.delivered, at)
        self.found += self.decode(part, self.delivered - self.steps_back).readings

    def hole(self, seconds: float) -> None:
        self.now += seconds * SECOND
        self.behind[self.count] = "hole"

    def set_back(self, seconds: float) -> None:
        """Our clock is set back."""
        self.steps_back += round(seconds * SECOND)
        self.behind.setdefault(self.count, "set back")

    def lose(self, seconds: float) -> None:
        """The link is lost within one line and is made anew within another."""
        for begin, end in ((0, self.random.randrange(1, len(line(self.count)))), (self.random.randrange(2, 8), None)):
            self.now += self.period
            self.deliver(line(self.count)[begin:end], round(self.now + 40 * MILLISECOND))
            if begin == 0:
                self.deliver(b"", round(self.now + 41 * MILLISECOND))
                self.now += seconds * SECOND
            self.count += 1
        self.behind[self.count] = "hole"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("sample"), st.floats(1, 40)),
        st.tuples(st.sampled_from(["hole", "lose"]), st.floats(CLEAR, 100)),
        st.tuples(st.just("set_back"), st.floats(0.2, 10_000)),
    ),
    max_size=12,
)


def check_radio(seed: int, taken: list[tuple[str, float]]) -> None:
    """Each sample that came whole comes out once, in order, in the watch's steps, and near the time it was taken."""
    radio = Radio(seed)
    for step, amount in [("sample", 5), *taken, ("sample", 20)]:
        if step == "sample":
            radio.sample(int(amount))
        else:
            getattr(radio, step)(amount)
            radio.sample(3)
    assert numbers(radio.found) == [number for number, _ in radio.sent]
    if any(step == "set_back" and amount < CLEAR for step, amount in taken):  # so little may as well be a late radio
        assert all(b.time - a.time >= PERIOD // 2 for a, b in itertools.pairwise(radio.found))
        return
    lasting = [time for _, time in radio.sent]
    for (number, _), (a, b), (was, then) in zip(
        radio.sent[1:], itertools.pairwise(radio.found), itertools.pairwise(lasting), strict=True
    ):
        steps, passed = b.time - a.time, then - was
        if radio.behind.get(number) == "hole":
            assert steps >= PERIOD or radio.steps_back
        else:
            assert steps >= PERIOD - LATE * SECOND / 50 or (radio.steps_back and steps >= PERIOD // 2)
            assert steps <= PERIOD + LATE * SECOND / 50
            assert passed < 1.01 * PERIOD
    if not radio.steps_back:
        for reading, time in zip(radio.found, lasting, strict=True):
            assert abs(reading.time - time) < 0.15 * SECOND  # a part may end within the next line, 40 ms late


@given(st.integers(0, 10**6), steps)
@CASES
def test_each_sample_comes_once_in_order_in_the_watchs_steps(seed, taken):
    check_radio(seed, taken)


@MANY
def test_each_sample_comes_once_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(st.integers(0, 10**6), steps)(check_radio))()


def check_begin(cut: int, count: int) -> None:
    """A decoder that is begun at any byte leaves out the line that it is begun in, and no other."""
    text = b"".join(line(number) for number in range(1, count + 1))
    cut %= len(text)
    whole = text[:cut].count(b"\n") + (1 if cut == 0 or text[cut - 1 : cut] == b"\n" else 2)
    assert numbers(list(Espruino()(text[cut:], NOW).readings)) == list(range(whole, count + 1))


@given(st.integers(0, 10**4), st.integers(1, 200))
@CASES
def test_a_line_that_began_before_the_decoder_is_left_out(cut, count):
    check_begin(cut, count)


@MANY
def test_a_line_that_began_before_the_decoder_is_left_out_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(st.integers(0, 10**4), st.integers(1, 200))(check_begin))()


def test_samples_that_the_radio_delivers_together_lie_in_the_watchs_own_steps():
    watch = Espruino()
    times = []
    for number in range(0, 400, 4):  # four at a time, up to 40 ms late
        part = b"A,0,0,100\n" * 4
        times += [
            r.time for r in watch(part, NOW + (number + 3) * PERIOD + (number * 7919) % 40 * MILLISECOND).readings
        ]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert all(abs(step - PERIOD) < 0.02 * PERIOD for step in steps)
    assert watch(b"A,0,0,100\n", times[-1] + 5 * SECOND).readings[0].time == times[-1] + 5 * SECOND


def test_times_go_on_in_steps_when_our_clock_is_set_back_and_follow_it_behind_a_later_hole():
    watch = Espruino()
    before = [watch(line(n), NOW + n * PERIOD).readings[0].time for n in range(10)]
    hour = 3600 * SECOND
    after = [watch(line(n), NOW + n * PERIOD - hour).readings[0].time for n in range(10, 30)]
    assert {b - a for a, b in itertools.pairwise(before + after)} == {PERIOD}
    assert watch(line(30), NOW + 30 * PERIOD - hour + 7 * SECOND).readings[0].time == after[-1] + PERIOD + 7 * SECOND


def test_what_a_radio_that_was_held_up_delivers_at_once_keeps_its_order_and_catches_up():
    watch = Espruino()
    times = [watch(line(n), NOW + n * PERIOD).readings[0].time for n in range(10)]
    held = NOW + 35 * PERIOD
    times += [watch(line(n), held + n).readings[0].time for n in range(10, 36)]
    times += [watch(line(n), NOW + n * PERIOD).readings[0].time for n in range(36, 400)]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert all(step >= PERIOD // 2 for step in steps)
    assert abs(times[-1] - (NOW + 399 * PERIOD)) < PERIOD


def test_a_number_that_a_lost_link_has_cut_is_no_sample():
    watch = Espruino()
    assert watch(b"A,1,2,9", NOW).readings == ()
    assert watch(b"", NOW).readings == ()
    assert watch(b"\r\nA,1,2,98\r\n", NOW + PERIOD).readings[0].values == (0.01, 0.02, 0.98)


def test_a_prompt_is_no_part_of_a_line():
    assert numbers(list(Espruino()(b"\r\n>\r\n>" + line(7), NOW).readings)) == [7]


@pytest.mark.parametrize("line", [b"A,1,2\n", b"B,1,2,3\n", b"A,1,2,3,4\n", b"\xff\xfe\n", b"A,999999,0,0\n"])
def test_a_line_that_is_no_sample_is_refused(line):
    with pytest.raises(InputError, match="the watch sent"):
        Espruino()(line, NOW)


def test_only_the_first_line_may_lack_its_beginning():
    watch = Espruino()
    watch(b"3,98\n", NOW)
    with pytest.raises(InputError, match="3,98"):
        watch(b"3,98\n", NOW)


def test_a_line_without_end_is_given_up():
    watch = Espruino()
    with pytest.raises(InputError, match="without the end"):
        watch(b"A" * 300, NOW)
    assert len(watch(b"A,0,0,100\n", NOW).readings) == 1
