"""A watch over Bluetooth, at the interface of the library that speaks it; the watch behind it keeps its listeners."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from edgeseq.devices.live.sources import ble
from edgeseq.devices.live.sources.address import opened
from edgeseq.signal.arrivals import read_capture, write_arrival
from edgeseq.signal.senders.espruino import Espruino

NOTIFY, WRITE = (f"6e40000{number}-b5a3-f393-e0a9-e50e24dcca9e" for number in (3, 2))
LINES = (  # all that a watch is ever told
    "if(global.edgeseq)Bangle.removeListener('accel',edgeseq);",
    "edgeseq=function(a){Bluetooth.println('A,'+[a.x,a.y,a.z].map(v=>Math.round(v*100)).join(','))};",
    "Bangle.on('accel',edgeseq);",
    "if(global.edgeseqSaves===undefined)edgeseqSaves=Bangle.getOptions().powerSave;",
    "Bangle.setPollInterval(80);",
    "if(global.edgeseq)Bangle.removeListener('accel',edgeseq);delete global.edgeseq;",
    "if(global.edgeseqSaves!==undefined)Bangle.setOptions({powerSave:edgeseqSaves});delete global.edgeseqSaves;",
)


class Watch:
    """What the lines that are written do to a Bangle.js: what they have made stays there when a link is lost."""

    def __init__(self) -> None:
        self.listeners: list[int] = []
        self.mine: int | None = None
        self.saves: bool | None = None
        self.power_save, self.interval, self.made = True, 800, 0

    def obey(self, line: str) -> None:
        assert line in LINES
        if "removeListener" in line and self.mine in self.listeners:
            self.listeners.remove(self.mine)
        if line.startswith("edgeseq=function"):
            self.made += 1
            self.mine = self.made
        elif "Bangle.on" in line:
            self.listeners.append(self.mine)
        elif "getOptions" in line and self.saves is None:
            self.saves = self.power_save
        elif "setPollInterval" in line:
            self.power_save, self.interval = False, 80
        elif "setOptions" in line and self.saves is not None:
            self.power_save, self.saves = self.saves, None


class Radio:
    """bleak's own interface. Each link gives some parts, in a task of its own as bleak does, and then may be lost."""

    def __init__(self, *links: list[bytes | None]) -> None:
        self.watch, self.found, self.links = Watch(), 0, list(links)
        self.error = type("BleakError", (Exception,), {})
        radio = self

        class Scanner:
            @staticmethod
            async def find_device_by_filter(is_it: Callable[[Any, Any], bool], timeout: float) -> Any:
                radio.found += 1
                device = types.SimpleNamespace(name="Bangle.js a1b2", address="C0:FF:EE:00:00:01")
                return device if is_it(device, None) and radio.found > 1 else None

        class Client:
            is_connected = True

            def __init__(self, device: Any) -> None:
                assert device.name == "Bangle.js a1b2"
                self.written = b""

            async def __aenter__(self) -> Client:
                return self

            async def __aexit__(self, *ended: object) -> None:
                self.is_connected = False

            async def start_notify(self, characteristic: str, came: Callable[[Any, bytearray], None]) -> None:
                assert characteristic == NOTIFY
                self.came = came

            async def write_gatt_char(self, characteristic: str, part: bytes) -> None:
                assert characteristic == WRITE
                assert len(part) <= 20
                if not self.is_connected:
                    raise radio.error("not connected")
                *lines, self.written = (self.written + part).split(b"\n")
                for line in lines:
                    radio.watch.obey(line.decode().lstrip("\x03\x10"))
                if any(b"setPollInterval" in line for line in lines):
                    self.task = asyncio.create_task(self.give(radio.links.pop(0) if radio.links else []))

            async def give(self, parts: list[bytes | None]) -> None:
                for part in parts:
                    await asyncio.sleep(0.01)
                    if part is None:
                        self.is_connected = False
                    else:
                        assert len(radio.watch.listeners) == 1
                        self.came(None, bytearray(part))

        self.modules = {"bleak": types.ModuleType("bleak"), "bleak.exc": types.ModuleType("bleak.exc")}
        self.modules["bleak"].__dict__.update(BleakScanner=Scanner, BleakClient=Client)
        self.modules["bleak.exc"].__dict__.update(BleakError=self.error)


@pytest.fixture
def radio(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Radio]:
    def begin(*links: list[bytes | None]) -> Radio:
        made = Radio(*links)
        for name, module in made.modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return made

    return begin


def test_a_watch_is_found_told_to_send_heard_and_put_back(run, models, radio):
    made = radio([b"A,1,2", b",3\nA,4,5,6\n"])
    watch = run(opened("ble:bangle.js A1B2", models["har_watch"]))
    watch.wait(lambda: len(watch.arrivals) == 3)
    assert made.watch.listeners
    assert (made.watch.interval, made.watch.power_save) == (80, False)
    watch.end()
    assert "not in reach" in watch.said[0]
    assert [arrival.body for arrival in watch.arrivals] == [b"", b"A,1,2", b",3\nA,4,5,6\n"]
    assert {(arrival.format, arrival.channel) for arrival in watch.arrivals} == {("espruino", "bangle.js A1B2")}
    assert (made.watch.listeners, made.watch.power_save) == ([], True)


def test_behind_a_lost_link_the_watch_writes_once_and_no_line_is_made_of_two_halves(run, models, radio, tmp_path):
    made = radio([b"A,1,2,3\nA,4,5,6", None], [b"7\nA,7,8,9\n", None], [b"A,10,11,12\n"])
    watch = run(opened("ble:bangle.js a1b2", models["har_watch"]))
    watch.wait(lambda: len(watch.arrivals) == 6)
    watch.end()
    with (tmp_path / "capture.jsonl").open("wb") as file:
        for arrival in watch.arrivals:
            write_arrival(file, arrival)
    captured = list(read_capture(tmp_path / "capture.jsonl"))
    assert captured == watch.arrivals
    decode = Espruino()
    found = [reading.values for arrival in captured for reading in decode(arrival.body, arrival.time).readings]
    assert found == [(0.01, 0.02, 0.03), (0.07, 0.08, 0.09), (0.1, 0.11, 0.12)]
    assert made.watch.made == 3
    assert (made.watch.listeners, made.watch.power_save) == ([], True)


def test_a_watch_that_falls_silent_is_told_once_more(run, models, radio, monkeypatch):
    monkeypatch.setattr(ble, "SILENT_SECONDS", 0.3)
    made = radio([b"A,1,2,3\n"], [b"A,4,5,6\n"])
    watch = run(opened("ble:bangle.js a1b2", models["har_watch"]))
    watch.wait(lambda: b"A,4,5,6\n" in [arrival.body for arrival in watch.arrivals])
    assert any("sent nothing" in said for said in watch.said)
    assert made.watch.made >= 2


def test_a_mistake_where_a_part_is_handed_over_leaves_the_source_and_the_watch_as_it_was(run, models, radio):
    made = radio([b"A,1,2,3\n"])
    watch = opened("ble:bangle.js a1b2", models["har_watch"])
    running = run(watch, ValueError("a mistake"))
    assert isinstance(running.fail(), ValueError)
    assert (made.watch.listeners, made.watch.power_save) == ([], True)


def test_what_bleak_itself_does_by_mistake_leaves_the_source(run, models, radio):
    made = radio()

    async def mistaken(*arguments: object) -> None:
        raise ValueError("a mistake")

    made.modules["bleak"].BleakClient.start_notify = mistaken
    running = run(opened("ble:bangle.js a1b2", models["har_watch"]))
    assert isinstance(running.fail(), ValueError)
