"""What arrives, before anything is made of it: what is decoded live, and what a capture keeps.

A capture is a file of JSON lines, one an arrival, as it came and when. Read back through the same decoders it gives the
same readings, and so the same answers, bit for bit.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgeseq.errors import InputError, unknown
from edgeseq.manifest import Input
from edgeseq.signal.senders.espruino import Espruino
from edgeseq.signal.senders.frames import Lines
from edgeseq.signal.senders.message import Message
from edgeseq.signal.senders.phyphox import Phyphox
from edgeseq.signal.senders.sensor_logger import SensorLogger
from edgeseq.signal.senders.sensor_server import SensorServer

Decode = Callable[[bytes, int], tuple[Message, ...]]
LONGER, OBJECT = 2, 1000  # times a body and bytes beside it that its line may be as text
MAX_LINE = 4 << 20  # of a capture: the longest message, written out


class Arrival(msgspec.Struct, frozen=True):
    """A message as it came: at ``time`` ns of our clock, in a ``format``, through a ``channel`` (a watch's address)."""

    time: int
    format: str
    body: bytes
    channel: str = ""


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    time: int
    format: str
    text: str | None = None
    base64: str | None = None
    channel: str = ""


FORMATS = ("lines", "sensor-logger", "sensor-server", "phyphox", "espruino")


def decoder(format_: str, source: Input, channel: str = "") -> Decode:
    """What decodes one channel's messages, one after the other; ``source`` is what frames are made for. A message of an
    app may be of several streams.

    ``sensor-server:TYPE`` names Android's type of the sensor.

    Raises:
        InputError: an unknown format.
    """
    name, _, detail = format_.partition(":")
    if name == "lines":
        lines = Lines([each.name for each in source.channels], source.step_rate, channel)
        return lambda body, time: (lines(body),)
    if name == "espruino":
        watch = Espruino(sender=channel)
        return lambda body, time: (watch(body, time),)
    if name == "phyphox":
        phone = Phyphox(sender=channel)
        return lambda body, time: (phone(body),)
    if name == "sensor-server":
        sensor = SensorServer(detail, channel)
        return lambda body, time: (sensor(body),)
    if name == "sensor-logger":
        logger = SensorLogger()
        return lambda body, time: logger(body)
    raise unknown("format", name, FORMATS)


class Decoders:
    """A decoder for each channel and format that something arrives by."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._decoders: dict[tuple[str, str], Decode] = {}

    def __call__(self, arrival: Arrival) -> tuple[Message, ...]:
        """The messages of an arrival, most often one.

        Raises:
            InputError: it is none of its format.
        """
        key = (arrival.format, arrival.channel)
        if key not in self._decoders:
            self._decoders[key] = decoder(arrival.format, self._source, arrival.channel)
        return self._decoders[key](arrival.body, arrival.time)


def write_arrival(file: BinaryIO, arrival: Arrival) -> None:
    """Add an arrival to a capture."""
    try:
        text = arrival.body.decode()
        line = msgspec.json.encode(_Line(arrival.time, arrival.format, text=text, channel=arrival.channel))
    except UnicodeDecodeError:
        line = b""
    if not line or len(line) > LONGER * len(arrival.body) + OBJECT:  # control characters take six each
        coded = base64.b64encode(arrival.body).decode()
        line = msgspec.json.encode(_Line(arrival.time, arrival.format, base64=coded, channel=arrival.channel))
    file.write(line + b"\n")


def read_capture(path: str | Path) -> Iterator[Arrival]:
    """The arrivals of a capture, in their order. A last line that was cut, as by a loss of power, is left out.

    Raises:
        InputError: the file cannot be read, or a line of it is no arrival.
    """
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                if line.strip():
                    try:
                        yield _arrival(line)
                    except (msgspec.MsgspecError, binascii.Error) as error:
                        if not line.endswith(b"\n") and len(line) < MAX_LINE:
                            return
                        raise InputError(f"{path}, line {number} is no arrival of a capture: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _arrival(line: bytes) -> Arrival:
    found = msgspec.json.decode(line, type=_Line)
    body = base64.b64decode(found.base64, validate=True) if found.base64 is not None else (found.text or "").encode()
    return Arrival(found.time, found.format, body, found.channel)
