"""What apps and watches send, as they send it, and what is made of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, SECOND, Reading
from edgeseq.signal.senders.espruino import PERIOD, Espruino
from edgeseq.signal.senders.phyphox import Phyphox
from edgeseq.signal.senders.sensor_server import SensorServer

NOW = 1_698_501_145_034_000_000


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda found: json.dumps({"payload": found}).encode()
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_message_or_an_input_error(body):
    for decode in (SensorServer("android.sensor.gyroscope"), Phyphox()):
        with contextlib.suppress(InputError):
            decode(body)


def test_sensor_server_gives_one_sensor_a_socket():
    body = '{"accuracy": 2, "timestamp": 3925657519043709, "values": [0.31892395, -0.97802734, 10.049896]}'
    assert SensorServer("android.sensor.accelerometer")(body).readings == (
        Reading(ACCELERATION, 3925657519043709, (0.31892395, -0.97802734, 10.049896), "m/s²"),
    )
    with pytest.raises(InputError, match="accelerometer"):
        SensorServer("android.sensor.acelerometer")


def answer(session: str = "a", **columns: list[float | None]) -> bytes:
    buffers = {name: {"size": 0, "updateMode": "partial", "buffer": column} for name, column in columns.items()}
    return json.dumps({"buffer": buffers, "status": {"session": session, "measuring": True}}).encode()


def test_phyphox_is_asked_for_what_is_new_and_gives_nothing_twice():
    phone = Phyphox(sensors=(ACCELERATION,))
    assert phone.query() == "acc_time=full&accX=full&accY=full&accZ=full"
    first = answer(acc_time=[0.01, 0.02], accX=[1, 2], accY=[0, 0], accZ=[9.8, 9.8])
    assert [reading.time for reading in phone(first).readings] == [10_000_000, 20_000_000]
    assert phone.query().startswith("acc_time=0.02%7Cacc_time&accX=0.02%7Cacc_time")
    again = answer(acc_time=[0.02, 0.03], accX=[2, 3], accY=[0, None], accZ=[9.8, 9.8])
    (new,) = phone(again).readings
    assert new.time == 30_000_000
    assert math.isnan(new.values[1])
    assert phone(again).readings == ()
    assert len(phone(answer("b", acc_time=[0.01], accX=[1], accY=[0], accZ=[9.8])).readings) == 1


def test_lines_of_a_watch_may_be_cut_anywhere():
    text = b"".join(b"A,%d,-3,98\r\n" % number for number in range(40))
    for cut in (1, 7, 20, 200):
        watch = Espruino()
        found = [r for i in range(0, len(text), cut) for r in watch(text[i : i + cut], NOW + PERIOD * i // 11).readings]
        assert [reading.values for reading in found] == [(number / 100, -0.03, 0.98) for number in range(40)]
        times = [reading.time for reading in found]
        assert times == sorted(times)


def test_samples_that_the_radio_delivers_together_lie_in_the_watchs_own_steps():
    watch = Espruino()
    times = []
    for number in range(0, 400, 4):  # four at a time, up to 40 ms late
        part = b"A,0,0,100\n" * 4
        times += [r.time for r in watch(part, NOW + (number + 3) * PERIOD + (number * 7919) % 40 * 1_000_000).readings]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert all(abs(step - PERIOD) < 0.02 * PERIOD for step in steps)
    assert watch(b"A,0,0,100\n", times[-1] + 5 * SECOND).readings[0].time == times[-1] + 5 * SECOND


@pytest.mark.parametrize("line", [b"A,1,2\n", b"B,1,2,3\n", b"A,1,2,3,4\n", b"\xff\xfe\n", b"A,999999,0,0\n"])
def test_a_line_that_is_no_sample_is_refused(line):
    with pytest.raises(InputError, match="the watch sent"):
        Espruino()(line, NOW)


def test_a_line_without_end_is_given_up():
    watch = Espruino()
    with pytest.raises(InputError, match="without the end"):
        watch(b"A" * 300, NOW)
    assert len(watch(b"A,0,0,100\n", NOW).readings) == 1
