"""Sensor Logger's messages, as phones and watches send them, and what is made of them."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.manifest import Channel, Input, Normalization
from edgeseq.signal.framer import Frame, Framer, Gap
from edgeseq.signal.inbox import Inbox
from edgeseq.signal.readings import ACCELERATION, GRAVITY, GYROSCOPE, MOTION, SECOND, G, Reading
from edgeseq.signal.senders.message import MAX_BYTES, MAX_READINGS
from edgeseq.signal.senders.sensor_logger import SensorLogger

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


def readings_of(decode: SensorLogger, body: bytes) -> list[tuple[Reading, ...]]:
    return [found.readings for found in decode(body)]


def test_wrist_motion_of_an_apple_watch_is_three_sensors_with_androids_signs():
    (found,) = SensorLogger()(message(WRIST))
    assert (found.sender, found.session, found.number) == ("watch, wrist motion", "one", 7)
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
    ((motion, gravity, _),) = readings_of(SensorLogger(), message(standard))
    assert (motion.unit, gravity.unit) == ("m/s²", "m/s²")
    assert motion.values[0] == pytest.approx(-0.5 * G)
    assert gravity.values[2] == pytest.approx(0.8 * G)


def test_a_phone_of_android_gives_gravity_apart():
    (found,) = readings_of(
        SensorLogger(),
        message(entry("accelerometer", 1, 2, 3), entry("gravity", 0, 0, 9.81), entry("gyroscope", 1, 0, 0)),
    )
    assert [(reading.sensor, reading.unit) for reading in found] == [
        (MOTION, "m/s²"),
        (GRAVITY, "m/s²"),
        (GYROSCOPE, "rad/s"),
    ]


@pytest.mark.parametrize(("z", "unit", "said"), [(-1.0, "g", 1.0), (9.8, "m/s²", 9.8)])
def test_the_unit_of_the_raw_accelerometer_is_seen_at_the_first_message_and_kept(z, unit, said):
    decode = SensorLogger()
    assert readings_of(decode, message(entry("accelerometerUncalibrated", 0, 0, z)))[0][0] == Reading(
        ACCELERATION, NOW, (-0.0 if unit == "g" else 0, -0.0 if unit == "g" else 0, said), unit
    )
    later = readings_of(decode, message(entry("accelerometerUncalibrated", 0, 0, 5.0), number=8))[0][0]
    assert later.unit == unit  # a blow of 5 g, or a fall


def test_motion_waits_for_gravity_which_says_its_unit():
    decode = SensorLogger()
    assert readings_of(decode, message(entry("accelerometer", 1, 2, 3))) == [()]
    decode(message(entry("gravity", 0, 0, 9.8)))
    assert readings_of(decode, message(entry("accelerometer", 1, 2, 3)))[0][0].unit == "m/s²"


def test_sensors_that_no_model_reads_are_left_out_and_gaps_in_values_are_no_numbers():
    pulse = {"name": "heart rate", "time": NOW, "values": {"bpm": 60}}
    ((found,),) = readings_of(SensorLogger(), message(pulse, entry("gyroscope", None, "unknown", 0.5)))
    assert math.isnan(found.values[0])
    assert math.isnan(found.values[1])
    assert found.values[2] == 0.5


def test_times_may_be_text():
    assert readings_of(SensorLogger(), message(entry("gyroscope", 0, 0, 0, time=str(NOW))))[0][0].time == NOW


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


def test_a_phone_and_its_watch_are_two_streams_with_units_of_their_own():
    decode = SensorLogger()
    phone = entry("totalAcceleration", 0, 0, 9.8)
    own, wrist = decode(message(WRIST, phone))
    assert (own.sender, wrist.sender) == ("watch", "watch, wrist motion")
    assert [reading.unit for reading in own.readings] == ["m/s²"]
    assert {reading.unit for reading in wrist.readings} == {"g", "rad/s"}
    assert own.number == wrist.number


def test_of_two_names_for_one_sensor_the_better_is_taken_and_kept():
    decode = SensorLogger()
    ((first,),) = readings_of(decode, message(entry("gyroscopeUncalibrated", 9, 9, 9), entry("gyroscope", 1, 1, 1)))
    assert first.values == (1, 1, 1)
    assert readings_of(decode, message(entry("gyroscopeUncalibrated", 9, 9, 9), number=8)) == [()]
    ((other,),) = readings_of(decode, message(entry("gyroscopeUncalibrated", 9, 9, 9), session="two"))
    assert other.values == (9, 9, 9)


@pytest.mark.parametrize("values", ['{"lowPowerMode": true}', '{"serviceUUIDs": ["a", "b"]}', "[[[]]]", "null"])
def test_values_of_other_sensors_may_be_anything(values):
    battery = '{"name": "battery", "time": "soon", "values": ' + values + "}"
    body = '{"payload": [' + battery + ", " + json.dumps(entry("gyroscope", 1, 2, 3)) + "]}"
    ((found,),) = readings_of(SensorLogger(), body.encode())
    assert found.values == (1, 2, 3)


@pytest.mark.parametrize("z", [-G, G])
def test_each_acceleration_of_an_iphone_has_a_unit_of_its_own_and_one_in_g_turns_all(z):
    flat = [entry("accelerometerUncalibrated", 0, 0, -1), entry("accelerometer", 0, 0, 0), entry("gravity", 0, 0, z)]
    ((raw, motion, gravity),) = readings_of(SensorLogger(), message(*flat))
    assert (raw.unit, motion.unit, gravity.unit) == ("g", "m/s²", "m/s²")
    assert raw.values[2] == 1
    assert gravity.values[2] == -z


def test_a_session_is_known_as_long_as_it_speaks_whatever_others_come():
    decode = SensorLogger()
    decode(message(entry("totalAcceleration", 0, 0, 9.8), session="long"))
    for number in range(100):
        decode(message(entry("totalAcceleration", 0, 0, 9.8), session=str(number)))
        ((found,),) = readings_of(decode, message(entry("totalAcceleration", 0, 0, 0.1), session="long"))
        assert found.unit == "m/s²"
    assert readings_of(decode, message(entry("totalAcceleration", 0, 0, 0.1), session="0")) == [()]  # long forgotten


# -- what a push does to a stream ------------------------------------------------------------------------------------

WATCH = Input(
    tuple(Channel(name, "g" if name[0] == "a" else "rad/s") for name in ("ax", "ay", "az", "wx", "wy", "wz")),
    50.0,
    Normalization((0.0,) * 6, (1.0,) * 6),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[dict[str, Any]], int, random.Random]:
    """A watch's readings, with holes; how many go into a message; what disturbs them."""
    random_ = random.Random(draw(st.integers(0, 10**6)))
    number, entries, time = draw(st.integers(3, 60)), [], NOW
    for _ in range(number):
        values = {key: random_.uniform(-1, 1) for key in WRIST["values"]}
        values |= {"gravityX": 0.0, "gravityY": 0.6, "gravityZ": -0.8}
        entries.append({"name": "wrist motion", "time": time, "values": values})
        time += round(random_.uniform(0.6, 1.6) * SECOND / 50) + (random_.random() < 0.04) * random_.randrange(SECOND)
    return entries, draw(st.integers(1, 20)), random_


def framed(bodies: list[bytes]) -> list[Frame | Gap]:
    decode, inbox, framer = SensorLogger(), Inbox(), Framer(WATCH, max_gap=0.5, reorder=3600 - 1)
    made: list[Frame | Gap] = []
    for body in bodies:
        for found in decode(body):
            new, late = inbox.take(found)
            made += framer.push(found.readings, late=late) if new else []
    return made + framer.flush()


def check_push(stream: tuple[list[dict[str, Any]], int, random.Random]) -> None:
    """Batches, disorder within and across them, doubles of readings and of messages change nothing."""
    entries, batch, random_ = stream
    wanted = framed([message(each, number=number) for number, each in enumerate(entries)])
    doubled = [copy for each in entries for copy in [each] * random_.choice((1, 1, 2))]
    batches = [doubled[at : at + batch] for at in range(0, len(doubled), batch)]
    for each in batches:
        random_.shuffle(each)
    bodies = [message(*each, number=number) for number, each in enumerate(batches)]
    pushed = [copy for body in bodies for copy in [body] * random_.choice((1, 1, 2))]
    random_.shuffle(pushed)
    found = framed(pushed)
    assert [type(each) for each in found] == [type(each) for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.time == other.time
        if isinstance(one, Frame) and isinstance(other, Frame):
            assert one.values.tobytes() == other.values.tobytes()


@given(streams())
@settings(max_examples=30, deadline=None)
def test_batches_disorder_and_doubles_of_a_push_change_nothing(stream):
    check_push(stream)


@pytest.mark.slow
def test_batches_disorder_and_doubles_of_a_push_change_nothing_in_many_cases():
    settings(max_examples=10_000, deadline=None)(given(streams())(check_push))()
