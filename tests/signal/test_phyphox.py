"""phyphox: what a phone answers, asked as the source asks it; experiments are cleared and answers lost."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, GYROSCOPE, SECOND, Reading
from edgeseq.signal.senders.message import MAX_READINGS
from edgeseq.signal.senders.phyphox import EMPTY, Phyphox, Questions, TooLong

from ..phone import Phone

SENSORS = (ACCELERATION, GYROSCOPE)
FULL = "acc_time=full&accX=full&accY=full&accZ=full"
CASES = settings(max_examples=60, deadline=None)
MANY = pytest.mark.parametrize("examples", [pytest.param(10_000, marks=pytest.mark.slow)])


def answer(session: str = "a", mode: str = "partial", **columns: list[float | None]) -> bytes:
    buffers = {name: {"size": 0, "updateMode": mode, "buffer": column} for name, column in columns.items()}
    return json.dumps({"buffer": buffers, "status": {"session": session, "measuring": True}}).encode()


def some(*times: float, session: str = "a", mode: str = "partial") -> bytes:
    axis: list[float | None] = [1.0] * len(times)
    return answer(session, mode, acc_time=list(times), accX=axis, accY=axis, accZ=axis)


def times(readings: tuple[Reading, ...]) -> list[float]:
    return [reading.time / SECOND for reading in readings]


class Talk:
    """A phone that is asked, and a decoder elsewhere that reads what is handed on, as a capture's does."""

    def __init__(self, phone: Phone) -> None:
        self.phone, self.questions = phone, Questions(SENSORS)
        self.decode = Phyphox(SENSORS)
        self.handed: list[bytes] = []
        self.found: list[Reading] = []

    def ask(self, copies: int = 1) -> None:
        body = self.phone.get(self.questions.next())
        is_news, _ = self.questions.take(body)
        for _ in range(copies if is_news else 0):
            self.handed.append(body)
            self.found += self.decode(body).readings

    def lose(self) -> None:
        """An answer is lost, and the connection with it."""
        self.phone.get(self.questions.next())
        self.questions.begin()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("measure"), st.integers(1, 30)),
        st.tuples(
            st.sampled_from(["ask", "ask", "ask", "twice", "lose", "reconnect", "clear", "open", "other"]), st.just(1)
        ),
    ),
    max_size=40,
)


def check_talk(seed: int, taken: list[tuple[str, int]]) -> None:
    """Whatever happens, each reading of an experiment that was noticed comes once, in its order, with its time."""
    phone = Phone(seed)
    talk, is_hidden = Talk(phone), {0: False}
    measured: dict[int, list[float]] = {}
    for step, count in [*taken, ("measure", 3), *[("ask", 1)] * (EMPTY + 3)]:
        if step == "measure":
            phone.measure(count)
        elif step in ("ask", "twice", "reconnect"):
            if step == "reconnect":
                talk.questions.begin()
            is_hidden[phone.run] |= talk.questions.next().endswith("=")  # the last time is all that is told then
            talk.ask(2 if step == "twice" else 1)
        elif step in ("lose", "other"):  # somebody else has got the answer that says it was cleared
            is_hidden[phone.run] = True
            talk.lose() if step == "lose" else phone.get(FULL)
        else:
            phone.begin() if step == "clear" else phone.open()
            is_hidden[phone.run] = False
        measured[phone.run] = list(phone.buffers["acc_time"])
    for sensor in SENSORS:
        found = [reading for reading in talk.found if reading.sensor == sensor]
        came = [(int(reading.values[0]), int(reading.values[1])) for reading in found]
        assert came == sorted(set(came))
        for reading, (run, number) in zip(found, came, strict=True):
            assert reading.time == round(measured[run][number] * SECOND)
        numbers = {run: [number for _, number in group] for run, group in itertools.groupby(came, lambda each: each[0])}
        for run, there in numbers.items():
            assert there == list(range(there[0], there[-1] + 1))
            assert there[0] == 0 or is_hidden[run]
        assert numbers[phone.run][-1] == len(measured[phone.run]) - 1
    check_begun_later(talk)


def check_begun_later(talk: Talk) -> None:
    """A decoder that is begun in the middle gives what the other has given of the same answers, nothing twice."""
    half = len(talk.handed) // 2
    first, later = Phyphox(SENSORS), Phyphox(SENSORS)
    for body in talk.handed[:half]:
        first(body)
    whole = Counter(reading for body in talk.handed[half:] for reading in first(body).readings)
    found = Counter(reading for body in talk.handed[half:] for reading in later(body).readings)
    assert not whole - found
    assert set(found.values()) <= {1}


@given(st.integers(0, 10**6), steps)
@CASES
def test_what_was_measured_comes_once_in_order_with_its_time(seed, taken):
    check_talk(seed, taken)


@MANY
def test_what_was_measured_comes_once_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(st.integers(0, 10**6), steps)(check_talk))()


def test_a_phone_is_asked_for_what_is_new_and_gives_nothing_twice():
    questions, phone = Questions((ACCELERATION,)), Phyphox((ACCELERATION,))
    assert questions.next() == "acc_time="
    assert questions.take(answer(mode="single", acc_time=[0.02])) == (False, "")
    assert questions.next() == FULL
    first = some(0.01, 0.02, mode="full")
    assert questions.take(first) == (True, "")
    assert times(phone(first).readings) == [0.01, 0.02]
    assert questions.next().startswith("acc_time=0.02%7Cacc_time&accX=0.02%7Cacc_time")
    again = answer(acc_time=[0.02, 0.03], accX=[2, 3], accY=[0, None], accZ=[9.8, 9.8])
    (new,) = phone(again).readings
    assert new.time == 30_000_000
    assert math.isnan(new.values[1])
    assert phone(again).readings == ()


def test_events_from_before_the_experiment_and_cells_that_are_none_are_left_out():
    assert times(Phyphox()(some(-0.01, 0.0, 0.01)).readings) == [0.0, 0.01]
    assert Phyphox()(answer(acc_time=[None], accX=[None], accY=[None], accZ=[None])).readings == ()


def test_a_decoder_notices_a_cleared_experiment_by_the_answer_itself():
    phone = Phyphox((ACCELERATION,))
    phone(some(11.5, 12.0, mode="full"))
    assert times(phone(some(11.5, 12.0, 12.5, mode="full")).readings) == [12.5]  # asked for all of it once more
    assert times(phone(some(0.25, 0.5, mode="full")).readings) == [0.25, 0.5]
    phone(some(20.0))
    assert times(phone(some(0.25, 21.5, mode="full")).readings) == [0.25, 21.5]  # longer by now than the last one was
    assert times(phone(some(1.0, mode="single")).readings) == []
    assert times(phone(some(0.25, 1.0, mode="full")).readings) == [0.25, 1.0]
    assert times(phone(some(0.25, 1.0, session="b")).readings) == [0.25, 1.0]


def test_an_answer_that_is_too_long_is_left_out_and_what_comes_behind_it_is_read():
    phone, questions, decode = Phone(1), Questions(SENSORS), Phyphox(SENSORS)
    phone.measure(10)
    for _ in range(2):
        decode(body := phone.get(questions.next()))
        questions.take(body)
    phone.measure(MAX_READINGS + 1)
    with pytest.raises(TooLong):
        decode(phone.get(questions.next()))
    assert questions.take(phone.get(questions.next())) == (False, "")
    assert questions.next() == "acc_time=&gyr_time="
    _, said = questions.take(phone.get(questions.next()))
    assert f"from 0 s to {phone.time:.0f} s is left out" in said
    phone.measure(2)
    body = phone.get(questions.next())
    assert questions.take(body) == (True, "")
    assert [reading.values[1] for reading in decode(body).readings] == [20_011.0, 20_012.0] * 2


def test_a_cleared_experiment_that_is_too_long_is_read_from_its_newest_time_on():
    phone = Phone(2)
    talk = Talk(phone)
    phone.measure(10)
    talk.ask()
    talk.ask()
    phone.begin()
    phone.measure(MAX_READINGS + 1)
    talk.lose()
    talk.lose()
    for _ in range(4):
        talk.ask()
    before = len(talk.found)
    phone.measure(1)
    talk.ask()
    assert [reading.values[1] for reading in talk.found[before:]] == [20_001.0] * 2


def test_what_keeps_a_phone_from_giving_readings_is_said_in_words():
    phone = Phyphox()
    phone(some(0.5))
    assert "has no gyroscope (gyr_time, gyrX, gyrY, gyrZ)" in phone.why
    phone(answer())
    assert "has no acceleration (acc_time)" in phone.why
    phone = Phyphox((ACCELERATION,))
    phone(some(0.5))
    assert phone.why == ""
    phone(some(0.6).replace(b"true", b"false"))
    assert "not measuring" in phone.why


def test_what_is_refused_changes_nothing():
    phone = Phyphox((ACCELERATION,))
    for body in (some(0.5, 1e300), b"{}", some(*range(MAX_READINGS + 1)), b" " * (1 << 21)):
        with pytest.raises(InputError):
            phone(body)
    assert times(phone(some(0.5)).readings) == [0.5]


def test_an_experiment_that_was_cleared_for_somebody_else_is_noticed_by_its_last_time():
    phone = Phone(3)
    talk = Talk(phone)
    phone.measure(1000)
    talk.ask()
    talk.ask()
    phone.begin()
    phone.get(FULL)
    phone.measure(5)
    before = len(talk.found)
    for _ in range(EMPTY + 2):
        talk.ask()
    assert [reading.values[:2] for reading in talk.found[before:]] == [(1.0, float(n)) for n in range(5)] * 2


def test_another_experiment_is_asked_for_from_its_beginning():
    phone = Phone(4)
    talk = Talk(phone)
    phone.measure(2)
    talk.ask()
    talk.ask()
    phone.open()
    phone.measure(20)
    before = len(talk.found)
    talk.ask()
    talk.ask()
    assert [reading.values[:2] for reading in talk.found[before:]] == [(1.0, float(n)) for n in range(20)] * 2


def test_what_says_that_an_experiment_was_cleared_is_handed_on():
    questions, decode = Questions((ACCELERATION,)), Phyphox((ACCELERATION,))
    found = []
    for body in (
        some(1.0, mode="single"),
        some(0.5, 1.0, mode="full"),
        *[some()] * EMPTY,
        some(0.5, mode="single"),
        some(0.5, 1.0, 1.5, mode="full"),  # by chance at a time that was seen before
    ):
        if questions.take(body)[0]:
            found += times(decode(body).readings)
    assert found == [0.5, 1.0, 0.5, 1.0, 1.5]
