"""What apps and watches send, as they send it, and what is made of it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.signal.readings import ACCELERATION, GYROSCOPE, Reading
from edgeseq.signal.senders.espruino import Espruino
from edgeseq.signal.senders.phyphox import Phyphox
from edgeseq.signal.senders.sensor_logger import SensorLogger
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
