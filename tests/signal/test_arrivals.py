"""What arrives, as lines or as an app's messages: kept in a capture, and read back to the same readings."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.manifest import Channel, Input, Normalization
from edgeseq.signal.arrivals import Arrival, Decoders, read_capture, write_arrival
from edgeseq.signal.readings import FRAME, Reading
from edgeseq.signal.senders.frames import Lines, line_of
from edgeseq.signal.senders.message import MAX_BYTES

WATCH = Input((Channel("ax", "g"), Channel("ay", "g"), Channel("az", "g")), 50.0, Normalization((0.0,) * 3, (1.0,) * 3))
NAMES = ("ax", "ay", "az")


def frames(*lines: str) -> list[Reading]:
    decode = Lines(NAMES, 50.0)
    return [reading for line in lines for reading in decode(line).readings]


def test_a_line_of_json_is_a_frame_in_order_or_by_name():
    assert frames('{"time": 40000000, "values": [1, 2.5, null]}')[0][:2] == (FRAME, 40_000_000)
    assert frames('{"az": 3, "ax": 1, "ay": 2, "time": 5, "heart": 60}') == [Reading(FRAME, 5, (1.0, 2.0, 3.0), "")]
    assert math.isnan(frames('{"values": [1, 2.5, null]}')[0].values[2])


@pytest.mark.parametrize(
    ("header", "cell", "time"),
    [
        ("time", "1698501145034000001", 1698501145034000001),
        ("time_ms", "1698501145034.5", 1698501145034500000),
        ("time_s", "12.02", 12_020_000_000),
    ],
)
def test_a_header_names_the_columns_and_the_unit_of_time(header, cell, time):
    assert frames(f"{header},az,ay,ax,label", f"{cell},3,2,1,0", "") == [Reading(FRAME, time, (1.0, 2.0, 3.0), "")]


def test_without_times_frames_follow_at_the_models_rate():
    assert [reading.time for reading in frames("1,2,3", "4,5,6", "7,,9")] == [0, 20_000_000, 40_000_000]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1,2"], "2 values came: 3 are needed"),
        (["1,2,3", "1,b,3"], "'b' is no number"),
        (["time,ax,ay", "1,2,3"], "az missing"),
        (["ax,ay,az", "1,2"], "2 values, 3 are needed"),
        (['{"values": [1, 2]}'], "2 values came"),
        (['{"values": 3}'], "a list is needed"),
        (['{"ax": 1, "ay": [2], "az": 3}'], "one number a channel"),
        (['{"ax": 1, "ay": 2}'], "az missing"),
        (["{"], "not a line of a frame"),
        (["[1, 2, 3]"], "not a line of a frame"),
        (['{"time": -1, "values": [1, 2, 3]}'], "its time -1 is no number"),
        (['{"time": 1' + "0" * 400 + ', "values": [1, 2, 3]}'], "is no number of nanoseconds"),
        (["time_s,ax,ay,az", "nan,1,2,3"], "its time nan is no number"),
    ],
)
def test_a_line_that_is_no_frame_is_refused_with_what_is_wrong(lines, said):
    with pytest.raises(InputError, match=said):
        frames(*lines)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_a_frame_written_as_a_line_is_read_back_bit_for_bit(values):
    (found,) = frames(line_of(7, values).decode())
    assert np.array(found.values).tobytes() == np.array(values, float).tobytes()


ARRIVALS = st.builds(
    Arrival,
    time=st.integers(0, 2**62),
    format=st.sampled_from(["lines", "sensor-logger", "espruino"]),
    body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    channel=st.text(max_size=5),
)


@given(arrivals=st.lists(ARRIVALS, max_size=8), cut=st.integers(0, 40))
@settings(deadline=None)
def test_a_capture_gives_back_what_arrived_and_loses_at_most_a_line_that_was_cut(tmp_path_factory, arrivals, cut):
    buffer = io.BytesIO()
    for arrival in arrivals:
        write_arrival(buffer, arrival)
    file = tmp_path_factory.getbasetemp() / "capture.jsonl"
    file.write_bytes(buffer.getvalue())
    assert list(read_capture(file)) == arrivals
    content = buffer.getvalue()
    last = content[:-1].rfind(b"\n") + 1
    file.write_bytes(content[: max(last, len(content) - 1 - cut)])  # somewhere in the last line
    assert list(read_capture(file))[: len(arrivals) - 1] == arrivals[:-1]


def test_a_damaged_line_and_a_file_that_is_not_there_are_said(tmp_path):
    file = tmp_path / "capture.jsonl"
    file.write_text('{"time": 1, "format": "lines", "text": "1,2,3"}\n{"time": 2}\n')
    with pytest.raises(InputError, match="line 2 is no arrival"):
        list(read_capture(file))
    file.write_text('{"time": 1, "format": "espruino", "base64": "?"}\n')
    with pytest.raises(InputError, match="line 1 is no arrival"):
        list(read_capture(file))
    with pytest.raises(InputError, match="No such file"):
        list(read_capture(tmp_path / "none"))


@pytest.mark.parametrize("body", [b"\0" * MAX_BYTES, b'"' * MAX_BYTES, b"\xff" * MAX_BYTES, "é".encode() * 1000])
def test_whatever_comes_is_read_back_and_what_is_behind_it_too(tmp_path, body):
    file = tmp_path / "capture.jsonl"
    written = [Arrival(1, "lines", body), Arrival(2, "lines", b"1,2,3")]
    with file.open("wb") as capture:
        for arrival in written:
            write_arrival(capture, arrival)
    assert list(read_capture(file)) == written


def test_each_channel_has_a_decoder_of_its_own():
    decoders = Decoders(WATCH)
    decoders(Arrival(0, "lines", b"az,ay,ax", "a"))
    ((first,),) = [found.readings for found in decoders(Arrival(0, "lines", b"1,2,3", "a"))]
    ((second,),) = [found.readings for found in decoders(Arrival(0, "lines", b"1,2,3", "b"))]
    assert (first.values, second.values) == ((3.0, 2.0, 1.0), (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        (
            "sensor-logger",
            '{"payload": [{"name": "gyroscope", "time": 5, "values": {"x": 1, "y": 2, "z": 3}}]}',
        ),
        ("sensor-server:android.sensor.gyroscope", '{"timestamp": 5, "values": [1, 2, 3]}'),
        (
            "phyphox",
            '{"buffer": {"gyr_time": {"buffer": [5e-9]}, "gyrX": {"buffer": [1]}, "gyrY": {"buffer": [2]}, '
            '"gyrZ": {"buffer": [3]}}}',
        ),
        ("espruino", "A,100,200,300\n"),
        ("lines", "1,2,3"),
    ],
)
def test_each_format_is_known_by_its_name(format_, body):
    ((reading,),) = [found.readings for found in Decoders(WATCH)(Arrival(5, format_, body.encode()))]
    assert reading.values == (1.0, 2.0, 3.0)


def test_an_unknown_format_is_refused_with_the_closest():
    with pytest.raises(InputError, match="sensor-logger"):
        Decoders(WATCH)(Arrival(0, "sensor-loger", b""))
