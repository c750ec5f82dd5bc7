"""What apps and watches send, as they send it, and what is made of it."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, GRAVITY, GYROSCOPE, MOTION, G, Reading
from edgeseq.signal.senders.espruino import Espruino
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
    watch = Espruino()
    for decode in (SensorLogger(), SensorServer("android.sensor.gyroscope"), Phyphox(), lambda part: watch(part, NOW)):
        with contextlib.suppress(InputError):
            decode(body)


def test_sensor_server_gives_one_sensor_a_socket():
    body = '{"accuracy": 2, "timestamp": 3925657519043709, "values": [0.31892395, -0.97802734, 10.049896]}'
    assert SensorServer("android.sensor.accelerometer")(body).readings == (
        Reading(ACCELERATION, 3925657519043709, (0.31892395, -0.97802734, 10.049896), "m/s²"),
    )
    with pytest.raises(InputError, match="accelerometer"):
        SensorServer("android.sensor.acelerometer")


@st.composite
def events(draw: st.DrawFn) -> list[tuple[int, list[float]]]:
    """What a sensor says, in the order in which the app sends it: doubled, and out of turn, as it comes."""
    values = st.lists(st.floats(-100, 100), min_size=3, max_size=6)  # an uncalibrated sensor gives six
    return draw(st.lists(st.tuples(st.integers(0, (1 << 63) - 1), values), max_size=30))


def check_events(sent: list[tuple[int, list[float]]]) -> None:
    decode = SensorServer("android.sensor.gyroscope", "phone:80")
    for time, values in sent:
        found = decode(json.dumps({"accuracy": 3, "timestamp": time, "values": values}))
        assert found.sender == "phone:80"
        assert found.readings == (Reading(GYROSCOPE, time, tuple(values[:3]), "rad/s"),)


@given(events())
@settings(max_examples=60, deadline=None)
def test_each_event_of_sensor_server_is_a_reading_with_its_time(sent):
    check_events(sent)


@pytest.mark.parametrize("examples", [pytest.param(10_000, marks=pytest.mark.slow)])
def test_each_event_of_sensor_server_is_a_reading_in_many_cases(examples):
    settings(max_examples=examples, deadline=None)(given(events())(check_events))()
