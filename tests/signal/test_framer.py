"""Frames of a sensor's readings, whatever order, batches, doubles and holes they come with."""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.manifest import Channel, Input, Normalization
from edgeseq.signal.framer import Frame, Framer, Gap
from edgeseq.signal.readings import ACCELERATION, FRAME, GRAVITY, GYROSCOPE, MOTION, SECOND, G, Reading

WATCH = tuple(Channel(name, "g" if name[0] == "a" else "rad/s") for name in ("ax", "ay", "az", "wx", "wy", "wz"))
CASES = settings(max_examples=60, deadline=None)
MANY = pytest.mark.parametrize("examples", [pytest.param(10_000, marks=pytest.mark.slow)])
START = 1_700_000_000 * SECOND


def source(rate: float = 50.0, channels: Sequence[Channel] = WATCH) -> Input:
    return Input(tuple(channels), rate, Normalization((0.0,) * len(channels), (1.0,) * len(channels)))


def framer(rate: float = 50.0, channels: Sequence[Channel] = WATCH, *, max_gap: float = 0.5, reorder: float = 0.0):
    return Framer(source(rate, channels), max_gap=max_gap, reorder=reorder)


def at(number: int, rate: float = 50.0) -> int:
    return START + round(number * SECOND / rate)


def motion(times: Sequence[int], seed: int = 0) -> list[Reading]:
    """Both sensors at these times, smooth and small."""
    phase = random.Random(seed).random()
    made = []
    for time in times:
        t = (time - START) / SECOND + phase
        made.append(Reading(ACCELERATION, time, (math.sin(t), math.cos(2 * t), 1.0), "g"))
        made.append(Reading(GYROSCOPE, time, (math.sin(3 * t), t % 1, -math.cos(t)), "rad/s"))
    return made


def fed(target: Framer, batches: Sequence[Sequence[Reading]]) -> list[Frame | Gap]:
    return [made for batch in batches for made in target.push(batch)] + target.flush()


def same(found: Sequence[Frame | Gap], wanted: Sequence[Frame | Gap]) -> bool:
    def key(made: Frame | Gap) -> tuple[object, ...]:
        return (made.time, made.values.tobytes(), made.bridged) if isinstance(made, Frame) else tuple(made)

    return list(map(key, found)) == list(map(key, wanted))


@given(
    rate=st.sampled_from([12.5, 20.0, 30.0, 50.0, 52.0, 60.0, 100 / 3, 200.0]),
    frames=st.integers(1, 80),
    batch=st.integers(1, 9),
    sensors=st.booleans(),
)
@CASES
def test_readings_at_the_times_of_frames_are_the_frames_bit_for_bit(rate, frames, batch, sensors):
    x = np.random.default_rng(frames).normal(size=(frames, 6)).astype(np.float32)
    readings = []
    for number, row in enumerate(x.tolist()):
        if sensors:
            readings.append(Reading(ACCELERATION, at(number, rate), tuple(row[:3]), "g"))
            readings.append(Reading(GYROSCOPE, at(number, rate), tuple(row[3:]), "rad/s"))
        else:
            readings.append(Reading(FRAME, at(number, rate), tuple(row), ""))
    made = fed(framer(rate), [readings[i : i + batch] for i in range(0, len(readings), batch)])
    np.testing.assert_array_equal(np.stack([frame.values for frame in made]), x)
    assert [frame.time for frame in made] == [at(number, rate) for number in range(frames)]
    assert not any(frame.bridged for frame in made)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], float, random.Random]:
    """The times of a sensor that wanders, with holes; what a reading may be late by; what disturbs it."""
    rate = draw(st.floats(10, 220))
    random_ = random.Random(draw(st.integers(0, 10**6)))
    times, now = [], START
    for _ in range(draw(st.integers(2, 120))):
        times.append(now)
        now += round(SECOND / rate * random_.uniform(0.5, 1.8)) + 1
        if random_.random() < 0.03:
            now += round(random_.uniform(0, 1.5) * SECOND)
    return times, draw(st.sampled_from([0.0, 0.05, 0.3])), random_


def check_disorder(stream: tuple[list[int], float, random.Random]) -> None:
    """Disorder within the window, doubles and batches change nothing."""
    times, reorder, random_ = stream
    ordered = motion(times)
    wanted = fed(framer(reorder=reorder), [ordered])
    shuffled = sorted(ordered, key=lambda reading: reading.time + random_.uniform(0, 0.99) * reorder * SECOND)
    doubled = [copy for reading in shuffled for copy in [reading] * random_.choice((1, 1, 1, 2))]
    cuts = sorted(random_.choices(range(len(doubled) + 1), k=random_.randrange(8)))
    batches = [doubled[a:b] for a, b in zip([0, *cuts], [*cuts, len(doubled)], strict=True)]
    disturbed = framer(reorder=reorder)
    assert same(fed(disturbed, batches), wanted)
    counts = disturbed.counts
    assert counts.late + counts.doubled == len(doubled) - len(ordered)
    assert counts.frames == sum(isinstance(made, Frame) for made in wanted)
    assert counts.gaps == sum(isinstance(made, Gap) for made in wanted)


@given(streams())
@CASES
def test_disorder_doubles_and_batches_change_nothing(stream):
    check_disorder(stream)


@MANY
def test_disorder_doubles_and_batches_change_nothing_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(streams())(check_disorder))()


def check_holes(stream: tuple[list[int], float, random.Random]) -> None:
    """Every hole beyond the limit is said once, at its beginning, and frames go on behind it in their own steps."""
    times, reorder, _ = stream
    made = fed(framer(reorder=reorder, max_gap=0.5), [motion(times)])
    holes = [a for a, b in itertools.pairwise(times) if b - a > 0.5 * SECOND]
    assert [gap.time for gap in made if isinstance(gap, Gap)] == holes
    begins, number = times[0], 0
    for each in made:
        if isinstance(each, Gap):
            begins, number = next(time for time in times if time > each.time), 0
        else:
            assert each.time == begins + round(number * SECOND / 50)
            assert np.isfinite(each.values).all()
            number += 1


@given(streams())
@CASES
def test_a_hole_beyond_the_limit_is_said_once_and_frames_begin_anew_behind_it(stream):
    check_holes(stream)


@MANY
def test_holes_are_said_once_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(streams())(check_holes))()


def test_a_shorter_hole_is_bridged_by_a_line_and_marked():
    x = [Reading(FRAME, at(number), (float(number),) * 6, "") for number in range(20) if not 8 <= number <= 12]
    target = framer()
    made = fed(target, [x])
    assert [frame.values[0] for frame in made] == pytest.approx(range(20))
    assert [frame.bridged for frame in made] == [8 <= number <= 12 for number in range(20)]
    assert (target.counts.bridged, target.counts.gaps) == (5, 0)


@pytest.mark.parametrize("rate", [12.5, 40.0, 62.0, 77.0, 100.0, 125.0, 209.0])
def test_a_slow_movement_is_the_same_at_any_rate_of_the_sensor(rate):
    times = [at(number, rate) for number in range(round(4 * rate))]
    made = fed(framer(), [motion(times)])
    wanted = motion([frame.time for frame in made])
    found = np.array([frame.values for frame in made])
    right = np.array([wanted[2 * i].values + wanted[2 * i + 1].values for i in range(len(made))])
    inside = slice(3, -3)
    columns = [0, 1, 2, 3, 5]  # without the saw tooth
    assert np.abs(found - right)[inside][:, columns].max() < 0.012
    assert not any(frame.bridged for frame in made)


def test_what_frames_cannot_carry_is_taken_out_of_a_faster_sensor():
    times = [at(number, 200) for number in range(800)]
    shaken = [Reading(FRAME, t, (math.sin(2 * math.pi * 48 * (t - START) / SECOND),) * 6, "") for t in times]
    made = fed(framer(), [shaken])
    assert max(abs(frame.values[0]) for frame in made[3:-3]) < 0.1  # as 2 Hz, if it were there


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 65.0, -1e30])
def test_what_cannot_be_is_counted_and_left_out(value):
    readings = motion([at(number) for number in range(20)])
    readings[10] = readings[10]._replace(values=(0.0, value, 0.0))
    target = framer()
    made = fed(target, [readings])
    assert target.counts.impossible == 1
    assert len(made) == 20
    assert np.abs([frame.values for frame in made]).max() < 2


@pytest.mark.parametrize("unit", ["g", "m/s²"])
def test_gravity_that_comes_apart_is_added(unit):
    scale = 1.0 if unit == "g" else G
    readings = []
    for number in range(20):
        readings.append(Reading(GYROSCOPE, at(number), (90.0, 0.0, 0.0), "deg/s"))
        readings.append(Reading(MOTION, at(number), (0.5 * scale, 0.0, 0.0), unit))
        readings.append(Reading(GRAVITY, at(number), (0.0, 0.0, -scale), unit))
    made = fed(framer(), [readings])
    np.testing.assert_allclose([frame.values for frame in made], [[0.5, 0, -1, np.pi / 2, 0, 0]] * 20, rtol=1e-6)


def test_a_stream_without_gyroscope_says_what_it_lacks_and_an_accelerometer_model_takes_it():
    readings = [reading for reading in motion([at(number) for number in range(60)]) if reading.sensor == ACCELERATION]
    without = framer()
    assert without.push(readings[:40]) == []
    assert without.missing == ""  # it may come yet
    assert without.push(readings[40:]) == []
    assert without.missing == "the gyroscope"
    assert len(fed(framer(channels=WATCH[:3]), [readings])) == 60


def test_acceleration_without_gravity_is_not_enough():
    target = framer()
    target.push(
        [
            Reading(sensor, at(n), (0.0, 0.0, 0.0), unit)
            for n in range(60)
            for sensor, unit in ((MOTION, "g"), (GYROSCOPE, "rad/s"))
        ]
    )
    assert target.missing == "gravity (the acceleration comes without it)"


def test_a_flood_of_one_sensor_takes_bounded_memory():
    target = framer()
    for begin in range(0, 100_000, 10_000):
        times = range(START + begin, START + begin + 10_000)
        target.push([Reading(ACCELERATION, time, (0.0, 0.0, 1.0), "g") for time in times])
    assert sum(len(track.times) for track in target._tracks.values()) <= 20_000
    assert target.counts.impossible == 80_000


def test_a_long_stream_takes_no_more_memory():
    target = framer()
    for second in range(600):
        target.push(motion([at(number, 100) for number in range(100 * second, 100 * (second + 1))]))
        assert sum(len(track.times) + len(track._values) for track in target._tracks.values()) < 100
    assert sys.getsizeof(target._tracks) < 1000


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        (Reading(ACCELERATION, START, (0.0, 1.0), "g"), "2 values"),
        (Reading(ACCELERATION, START, (0.0, 1.0, 2.0), "bar"), "'bar'"),
        (Reading(FRAME, START, (0.0,) * 5, ""), "5 values came: 6 are needed"),
        (Reading(GYROSCOPE, START, (0.0, 1.0, 2.0), "g"), "unit 'g' cannot be made 'rad/s'"),
    ],
)
def test_a_reading_of_another_kind_is_refused(reading, said):
    target = framer()
    target.push([Reading(ACCELERATION, START, (0.0, 0.0, 1.0), "g")])
    with pytest.raises(InputError, match=said):
        target.push([Reading(ACCELERATION, START + 9, (0.0, 0.0, 1.0), "g"), reading])
    assert target.counts.readings == 1


def test_a_sensor_may_change_its_unit():
    readings = motion([at(number) for number in range(100)])
    changed = [
        reading._replace(unit="m/s²", values=tuple(G * value for value in reading.values))
        if reading.sensor == ACCELERATION and reading.time >= at(50)
        else reading
        for reading in readings
    ]
    wanted, found = fed(framer(), [readings]), fed(framer(), [changed])
    np.testing.assert_allclose([frame.values for frame in found], [frame.values for frame in wanted], rtol=1e-6)


def test_the_delay_that_frames_are_given_is_said():
    assert framer(reorder=0.25).delay == pytest.approx(0.27)


def test_the_rates_of_the_sensors_are_said():
    target = framer()
    target.push(motion([at(number, 77) for number in range(100)]))
    assert target.rates == pytest.approx({ACCELERATION: 77, GYROSCOPE: 77}, rel=1e-6)
