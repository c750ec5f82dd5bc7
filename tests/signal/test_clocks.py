"""Clocks that are set, sensors that fall silent or are late, and readings from elsewhere."""

from __future__ import annotations

import math

import pytest

from edgeseq.manifest import Channel
from edgeseq.signal.framer import Frame, Gap
from edgeseq.signal.readings import ACCELERATION, FRAME, GRAVITY, GYROSCOPE, MOTION, SECOND, Reading

from .test_framer import START, WATCH, at, fed, framer, motion, same


def test_a_clock_that_goes_back_begins_anew():
    before, after = [at(number) for number in range(100)], [at(number) - 3600 * SECOND for number in range(200)]
    target = framer()
    made = fed(target, [[reading] for reading in motion(before) + motion(after)])
    (gap,) = [each for each in made if isinstance(each, Gap)]
    assert gap.why == "the sender's clock went back by 3602.0 s"
    assert len(made) == 301


def test_a_clock_that_is_set_ahead_is_a_hole():
    times = [at(number) for number in range(100)] + [at(number) + 3600 * SECOND for number in range(100)]
    target = framer()
    made = fed(target, [[reading] for reading in motion(times)])
    (gap,) = [each for each in made if isinstance(each, Gap)]
    assert gap.why == "nothing came for 3598.02 s"
    assert len(made) == 201


def test_sensors_whose_batches_come_far_apart_are_put_together():
    readings = motion([at(number) for number in range(2000)])
    batches = []
    for begin in range(0, 2000, 250):  # five seconds of one, then five of the other
        part = readings[2 * begin : 2 * (begin + 250)]
        batches += [[r for r in part if r.sensor == sensor] for sensor in (GYROSCOPE, ACCELERATION)]
    assert same(fed(framer(), batches), fed(framer(), [[reading] for reading in readings]))


def test_a_late_message_of_a_second_turns_no_clock_back():
    readings = motion([at(number) for number in range(600)])
    target = framer()
    made = target.push(readings[:1000])
    made += target.push(readings[:160])  # 1.6 s, eight seconds late
    made += target.push(readings[1000:]) + target.flush()
    assert len(made) == 600
    assert all(isinstance(each, Frame) for each in made)
    assert target.counts.late == 160


def test_readings_that_the_sender_calls_late_turn_no_clock_back():
    target = framer()
    target.push(motion([at(number) for number in range(500)]))
    assert target.push(motion([at(number) for number in range(100)]), late=True) == []
    assert target.counts.late == 200
    assert all(isinstance(each, Frame) for each in target.push(motion([at(number) for number in range(500, 600)])))


def test_strays_at_the_end_are_counted():
    target = framer()
    target.push(motion([at(number) for number in range(200)]))
    target.push([Reading(GYROSCOPE, at(10**9), (0.0, 0.0, 0.0), "rad/s")])
    target.push([Reading(GYROSCOPE, at(-500), (0.0, 0.0, 0.0), "rad/s")])
    target.flush()
    assert (target.counts.impossible, target.counts.late) == (1, 1)


@pytest.mark.parametrize("sensor", [ACCELERATION, GYROSCOPE])
def test_a_reading_from_the_future_costs_nothing(sensor):
    stray = Reading(sensor, at(10**9), (0.0, 0.0, 0.0), "g" if sensor == ACCELERATION else "rad/s")
    ordered = [[reading] for reading in motion([at(number) for number in range(400)])]
    target = framer()
    assert same(fed(target, [*ordered[:200], [stray], *ordered[200:]]), fed(framer(), ordered))
    assert target.counts.impossible == 1


def test_a_sensor_that_falls_silent_is_said_and_named_and_the_stream_goes_on_when_it_speaks_again():
    target = framer()
    target.push(motion([at(number) for number in range(100)]))
    sizes, gaps = [], []
    for minute in range(1, 6):
        times = [at(number) for number in range(3000 * (minute - 1) + 100, 3000 * minute + 100)]
        for begin in range(0, 3000, 50):
            gaps += target.push([r for r in motion(times[begin : begin + 50]) if r.sensor == ACCELERATION])
            sizes.append(sum(len(track.times) for track in target._tracks.values()))
    (gap,) = gaps
    assert gap.why == "gyroscope fell silent 10 s ago"
    assert target.missing == "the gyroscope"
    assert max(sizes) <= 50 * 32
    made = target.push(motion([at(number) for number in range(15_100, 15_200)]))
    assert [type(each) for each in made[-90:]] == [Frame] * 90
    assert target.missing == ""


def test_a_stream_goes_on_with_what_another_sensor_says_in_place_of_one_that_fell_silent():
    target = framer(channels=WATCH[:3])
    both = motion([at(number) for number in range(100)])
    target.push([reading for reading in both if reading.sensor == ACCELERATION])
    made = []
    for number in range(100, 1000):
        apart = [Reading(MOTION, at(number), (0.0, 0.0, 0.0), "g"), Reading(GRAVITY, at(number), (0.0, 0.0, 1.0), "g")]
        made += target.push(apart)
    assert [each.values.tolist() for each in made[-50:]] == [[0, 0, 1]] * 50


def test_what_the_model_does_not_read_turns_no_clock():
    """A gyroscope that is late throughout, and one that pauses, beside a model of accelerations."""
    times = [at(number) for number in range(6000)]
    wanted = fed(framer(channels=WATCH[:3]), [motion(times)])
    for disturbed in (
        [r._replace(time=r.time - SECOND // 2) if r.sensor == GYROSCOPE else r for r in motion(times)],
        [r for r in motion(times) if r.sensor == ACCELERATION or not at(1000) < r.time < at(5000)],
    ):
        assert same(fed(framer(channels=WATCH[:3]), [[reading] for reading in disturbed]), wanted)


def test_a_part_of_the_acceleration_that_is_always_late_turns_no_clock():
    apart = [Reading(sensor, at(n - 25), (0.0, 0.0, 0.5), "g") for n in range(6000) for sensor in (MOTION, GRAVITY)]
    both = sorted([*motion([at(number) for number in range(6000)]), *apart], key=lambda r: r.time)
    made = fed(framer(), [[reading] for reading in both])
    assert len(made) >= 5975
    assert all(isinstance(each, Frame) for each in made)


def test_one_reading_of_another_sensor_at_first_does_not_hold_a_stream_up():
    apart = [
        Reading(sensor, at(number), (0.0, 0.0, 0.5), unit)
        for number in range(2000)
        for sensor, unit in ((MOTION, "g"), (GRAVITY, "g"), (GYROSCOPE, "rad/s"))
    ]
    target = framer()
    made = fed(target, [[Reading(ACCELERATION, START, (0.0, 0.0, 1.0), "g")], *([reading] for reading in apart)])
    assert len(made) > 1400
    assert {type(each) for each in made} == {Frame}


def test_what_a_float_has_no_room_for_never_comes_through():
    target = framer(channels=[Channel("ecg", "mV")])
    values = (0.5, 1e39, -1e300, math.inf, 0.5)
    made = fed(target, [[Reading(FRAME, at(number), (value,), "")] for number, value in enumerate(values)])
    assert target.counts.impossible == 3
    assert [frame.values.tolist() for frame in made] == [[0.5]] * 5


def test_sensors_of_two_clocks_are_named():
    target = framer()
    ahead = [
        reading._replace(time=reading.time + (3600 * SECOND if reading.sensor == GYROSCOPE else 0))
        for reading in motion([at(number) for number in range(200)])
    ]
    made = [each for reading in ahead for each in target.push([reading])]
    assert made == []
    assert target.missing == "acceleration, whose times are far behind the others'"
