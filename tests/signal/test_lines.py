"""Lines of frames, in JSON and comma-separated, however they are batched, disordered, doubled or cut off."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.manifest import Channel, Input, Normalization
from edgeseq.signal.framer import Frame, Framer, Gap
from edgeseq.signal.readings import SECOND, Reading
from edgeseq.signal.senders.frames import Lines

NAMES = ("ax", "ay", "az")
WATCH = Input(tuple(Channel(name, "g") for name in NAMES), 50.0, Normalization((0.0,) * 3, (1.0,) * 3))
START = 1_700_000_000 * SECOND
Row = tuple[int, tuple[float, ...]]


def as_json(rows: Sequence[Row], random_: random.Random) -> list[str]:
    """By name in any order, or in the model's order."""
    lines = []
    for time, values in rows:
        named = dict(random_.sample(list(zip(NAMES, values, strict=True)), 3))
        lines.append(json.dumps({"time": time, **(named if random_.random() < 0.5 else {"values": list(values)})}))
    return lines


def as_table(rows: Sequence[Row], random_: random.Random) -> list[str]:
    """With a header, whose columns are in any order, and a time in nanoseconds, milliseconds or seconds."""
    clock, digits = random_.choice((("time", 0), ("time_ms", 6), ("time_s", 9)))
    columns = random_.sample([clock, *NAMES, "note"], 5)
    lines = [",".join(columns)]
    for time, values in rows:
        told = str(time) if not digits else f"{time // 10**digits}.{time % 10**digits:0{digits}d}"
        cells = {clock: told, **{name: repr(value) for name, value in zip(NAMES, values, strict=True)}, "note": "7"}
        lines.append(",".join(cells[column] for column in columns))
    return lines


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Row], random.Random]:
    """Rows with holes, and what disturbs them."""
    random_ = random.Random(draw(st.integers(0, 10**6)))
    rows, time = [], START
    for _ in range(draw(st.integers(2, 60))):
        rows.append((time, tuple(random_.uniform(-2, 2) for _ in NAMES)))
        time += round(random_.uniform(0.6, 1.6) * SECOND / 50) + (random_.random() < 0.04) * random_.randrange(SECOND)
    return rows, random_


def framed(messages: Sequence[Sequence[Reading]]) -> list[Frame | Gap]:
    framer = Framer(WATCH, max_gap=0.5, reorder=100)
    return [made for readings in messages for made in framer.push(readings)] + framer.flush()


def check_lines(stream: tuple[list[Row], random.Random]) -> None:
    """What is disturbed is read back number for number, and framed as if nothing had been."""
    rows, random_ = stream
    disturbed = [copy for row in rows for copy in [row] * random_.choice((1, 1, 2))]
    random_.shuffle(disturbed)
    lines = random_.choice((as_json, as_table))(disturbed, random_)
    decode = Lines(NAMES, 50.0)
    messages = [decode(line + random_.choice(("", "\n", "\r\n"))).readings for line in lines]
    assert [(reading.time, reading.values) for readings in messages for reading in readings] == disturbed
    found, wanted = framed(messages), framed([[Reading("frame", time, values, "")] for time, values in rows])
    assert [(each.time, type(each)) for each in found] == [(each.time, type(each)) for each in wanted]
    values = [[each.values.tobytes() for each in made if isinstance(each, Frame)] for made in (found, wanted)]
    assert values[0] == values[1]


@given(streams())
@settings(max_examples=40, deadline=None)
def test_disorder_and_doubles_of_lines_change_nothing(stream):
    check_lines(stream)


@pytest.mark.slow
def test_disorder_and_doubles_of_lines_change_nothing_in_many_cases():
    settings(max_examples=10_000, deadline=None)(given(streams())(check_lines))()


@pytest.mark.parametrize("clock", ["time", "time_ms", "time_s"])
@pytest.mark.parametrize("told", ["1e999999", "1e9999999", "1e99999999999999999999", "-1", "nan", "9" * 400])
def test_a_time_that_no_clock_shows_is_refused(clock, told):
    decode = Lines(NAMES, 50.0)
    decode(f"{clock},ax,ay,az")
    with pytest.raises(InputError, match="no number of nanoseconds"):
        decode(f"{told},1,2,3")
    assert decode("5,1,2,3").readings[0].values == (1, 2, 3)


def test_a_number_without_end_is_refused():
    with pytest.raises(InputError, match="a number is larger than any"):
        Lines(NAMES, 50.0)('{"time": 1, "ax": ' + "9" * 400 + ', "ay": 0, "az": 0}')


def test_a_mark_of_the_byte_order_is_no_part_of_the_header():
    decode = Lines(NAMES, 50.0)
    decode("\ufefftime,ax,ay,az".encode())
    assert decode("7,1,2,3").readings[0].time == 7


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_whatever_line_comes_is_a_frame_or_an_input_error(body):
    for begun in ([], [b"time_s,ax,ay,az"]):
        decode = Lines(NAMES, 50.0)
        for line in (*begun, body):
            with contextlib.suppress(InputError):
                decode(line)
