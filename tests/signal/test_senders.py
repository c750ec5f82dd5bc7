"""What apps and watches send, as they send it, and what is made of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, GRAVITY, GYROSCOPE, MOTION, SECOND, G, Reading
from edgeseq.signal.senders.espruino import PERIOD, Espruino
from edgeseq.signal.senders.message import MAX_BYTES, MAX_READINGS
from edgeseq.signal.senders.phyphox import Phyphox
from edgeseq.signal.senders.sensor_logger import SensorLogger
from edgeseq.signal.senders.sensor_server import SensorServer

NOW = 1_698_501_145_034_000_000
WRIST = {
    "name": "wrist motion",
    "time": NOW,
    "values": {
        "rotationRateX": 0.1,
        "rotationRateY": 0.2,
        "rotationRateZ": 0.3,
        "gravityX": 0.0,
        "gravityY": 0.6,
        "gravityZ": -0.8,
        "accelerationX": 0.5,
        "accelerationY": 0.0,
        "accelerationZ": 0.0,
        "quaternionW": 1.0,
        "quaternionX": 0.0,
        "quaternionY": 0.0,
        "quaternionZ": 0.0,
    },
}


def message(*payload: dict[str, Any], number: int = 7, session: str = "one") -> bytes:
    return json.dumps(
        {"messageId": number, "sessionId": session, "deviceId": "watch", "payload": list(payload)}
    ).encode()


def entry(name: str, x: Any, y: Any, z: Any, time: Any = NOW) -> dict[str, Any]:
    return {"name": name, "time": time, "accuracy": 3, "values": {"x": x, "y": y, "z": z}}


def test_wrist_motion_of_an_apple_watch_is_three_sensors_with_androids_signs():
    found = SensorLogger()(message(WRIST))
    assert (found.sender, found.session, found.number) == ("watch", "one", 7)
    assert found.readings == (
        Reading(MOTION, NOW, (-0.5, 0.0, 0.0), "g"),
        Reading(GRAVITY, NOW, (0.0, -0.6, 0.8), "g"),
        Reading(GYROSCOPE, NOW, (0.1, 0.2, 0.3), "rad/s"),
    )


def test_standardised_units_are_seen_and_keep_their_signs():
    standard = json.loads(json.dumps(WRIST))
    for name in standard["values"]:
        if name.startswith(("gravity", "acceleration")):
            standard["values"][name] *= -G
    motion, gravity, _ = SensorLogger()(message(standard)).readings
    assert (motion.unit, gravity.unit) == ("m/s²", "m/s²")
    assert motion.values[0] == pytest.approx(-0.5 * G)
    assert gravity.values[2] == pytest.approx(0.8 * G)


def test_a_phone_of_android_gives_gravity_apart():
    found = SensorLogger()(
        message(entry("accelerometer", 1, 2, 3), entry("gravity", 0, 0, 9.81), entry("gyroscope", 1, 0, 0))
    )
    assert [(reading.sensor, reading.unit) for reading in found.readings] == [
        (MOTION, "m/s²"),
        (GRAVITY, "m/s²"),
        (GYROSCOPE, "rad/s"),
    ]


@pytest.mark.parametrize(("z", "unit", "said"), [(-1.0, "g", 1.0), (9.8, "m/s²", 9.8)])
def test_the_unit_of_the_raw_accelerometer_is_seen_at_the_first_message_and_kept(z, unit, said):
    decode = SensorLogger()
    assert decode(message(entry("accelerometerUncalibrated", 0, 0, z))).readings[0] == Reading(
        ACCELERATION, NOW, (-0.0 if unit == "g" else 0, -0.0 if unit == "g" else 0, said), unit
    )
    later = decode(message(entry("accelerometerUncalibrated", 0, 0, 5.0), number=8)).readings[0]
    assert later.unit == unit  # a blow of 5 g, or a fall


def test_motion_waits_for_gravity_which_says_its_unit():
    decode = SensorLogger()
    assert decode(message(entry("accelerometer", 1, 2, 3))).readings == ()
    decode(message(entry("gravity", 0, 0, 9.8)))
    assert decode(message(entry("accelerometer", 1, 2, 3))).readings[0].unit == "m/s²"


def test_sensors_that_no_model_reads_are_left_out_and_gaps_in_values_are_no_numbers():
    pulse = {"name": "heart rate", "time": NOW, "values": {"bpm": 60}}
    (found,) = SensorLogger()(message(pulse, entry("gyroscope", None, "unknown", 0.5))).readings
    assert math.isnan(found.values[0])
    assert math.isnan(found.values[1])
    assert found.values[2] == 0.5


def test_times_may_be_text():
    assert SensorLogger()(message(entry("gyroscope", 0, 0, 0, time=str(NOW)))).readings[0].time == NOW


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a message of Sensor Logger"),
        (b"[]", "not a message of Sensor Logger"),
        (b'{"payload": 3}', "payload"),
        (b"[" * 100_000, "not a message of Sensor Logger"),
        (b'{"payload": ' + b'[{"name":' * 5000, "not a message of Sensor Logger"),
        (b'{"payload": [], "more": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not a message of Sensor Logger"),
        (b" " * (MAX_BYTES + 1), "1,048,577 bytes"),
        (message(entry("gyroscope", 0, 0, 0, time="soon")), "'soon' is no number"),
        (message(entry("gyroscope", 0, 0, 0, time=-5)), "no number of nanoseconds"),
        (message(entry("gyroscope", 0, 0, 0, time=1 << 70)), "."),
    ],
)
def test_what_is_no_message_is_refused_in_a_line(body, said):
    with pytest.raises(InputError, match=said) as caught:
        SensorLogger()(body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_message_of_too_many_readings_is_refused():
    body = b'{"payload": [' + b",".join([b'{"name": "a", "time": 1}'] * (MAX_READINGS + 1)) + b"]}"
    with pytest.raises(InputError, match="20,001 readings"):
        SensorLogger()(body)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda found: json.dumps({"payload": found}).encode()
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_message_or_an_input_error(body):
    for decode in (SensorLogger(), SensorServer("android.sensor.gyroscope"), Phyphox()):
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
