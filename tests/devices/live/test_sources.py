"""Sources, each against what it talks to: real files, servers, websockets, an MQTT broker, and a radio that is none."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeseq.devices.live.sources import Source, again_and_again
from edgeseq.devices.live.sources.address import opened
from edgeseq.devices.live.sources.phyphox import Phyphox
from edgeseq.devices.live.sources.replay import Replay
from edgeseq.devices.live.sources.standard_input import StandardInput
from edgeseq.errors import InputError, MissingDependency
from edgeseq.signal.arrivals import Arrival, write_arrival

SECONDS = 20.0


class Running:
    """A source in a thread, and what it hands over."""

    def __init__(self, source: Source) -> None:
        self.arrivals: list[Arrival] = []
        self.said: list[str] = []
        self.stop = threading.Event()
        arguments = (self.arrivals.append, self.stop, self.said.append)
        self.thread = threading.Thread(target=source.run, args=arguments, daemon=True)
        self.thread.start()

    def wait(self, until: Callable[[], Any]) -> None:
        deadline = time.monotonic() + SECONDS
        while not until():
            assert time.monotonic() < deadline, (self.said, len(self.arrivals))
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def run() -> Iterator[Callable[[Source], Running]]:
    running: list[Running] = []

    def begin(source: Source) -> Running:
        running.append(Running(source))
        return running[-1]

    yield begin
    for each in running:
        each.end()


def test_a_replay_keeps_the_times_between_arrivals_at_its_speed(run):
    arrivals = [Arrival(10**18 + 20_000_000 * number, "lines", b"") for number in range(51)]
    begin = time.monotonic()
    replay = run(Replay("one", arrivals, 5.0))
    replay.thread.join(SECONDS)
    assert 0.19 < time.monotonic() - begin < 5
    assert replay.arrivals == arrivals


def test_a_replay_that_waits_for_nothing_is_over_at_once_and_one_that_waits_can_be_stopped(run):
    hours = [Arrival(3600 * 10**9 * number, "lines", b"") for number in range(10)]
    fast = run(Replay("one", hours, 0.0))
    fast.thread.join(SECONDS)
    assert len(fast.arrivals) == 10
    slow = run(Replay("one", hours))
    slow.wait(lambda: slow.arrivals)
    slow.end()
    assert len(slow.arrivals) == 1


def test_standard_input_gives_line_by_line(run):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read, os.fdopen(theirs, "wb", buffering=0) as written:
        source = run(StandardInput(read))
        written.write(b"1,2,3\n4,5")
        source.wait(lambda: len(source.arrivals) == 1)
        written.write(b",6\n7")
        source.wait(lambda: len(source.arrivals) == 2)
        written.close()
        source.thread.join(SECONDS)
    assert [arrival.body for arrival in source.arrivals] == [b"1,2,3", b"4,5,6", b"7"]


def test_standard_input_that_says_nothing_can_be_stopped(run):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read, os.fdopen(theirs, "wb"):
        run(StandardInput(read)).end()


class Phone(http.server.BaseHTTPRequestHandler):
    """phyphox as it answers: what came after a time, by a query that names the buffer it is of."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        server: Any = self.server
        server.asked.append(self.path)
        body = b'{"result": true}'
        if path == "/get":
            asked = dict(part.partition("=")[::2] for part in query.split("&"))
            buffers = {}
            for name, threshold in asked.items():
                clock = "acc_time" if name.startswith("acc") else "gyr_time"
                after = -1.0 if threshold == "full" else float(threshold.partition("%7C")[0])
                assert threshold == "full" or threshold.endswith(f"%7C{clock}")
                times = [number / 100 for number in range(server.made) if number / 100 > after]
                buffers[name] = {"buffer": times if name == clock else [1.0] * len(times)}
            body = json.dumps({"buffer": buffers, "status": {"session": "s", "measuring": True}}).encode()
        server.made += 5
        self.send_response(200 if server.made < 40 or server.made > 50 else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_phyphox_is_begun_and_asked_for_what_is_new_also_after_an_error(run, models):
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Phone)
    server.asked, server.made = [], 10
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    source = opened(f"phyphox://127.0.0.1:{server.server_port}", models["har_watch"])
    assert isinstance(source, Phyphox)
    phone = run(source)
    phone.wait(lambda: server.made > 80)
    phone.end()
    server.shutdown()
    thread.join()
    server.server_close()
    assert server.asked[0] == "/control?cmd=start"
    assert any("500" in said for said in phone.said)
    assert {arrival.format for arrival in phone.arrivals} == {"phyphox"}
    times = [t for arrival in phone.arrivals for t in json.loads(arrival.body)["buffer"]["acc_time"]["buffer"]]
    assert set(times) == {number / 100 for number in range(round(100 * max(times)) + 1)}


def test_sensor_server_is_connected_to_for_each_sensor_and_again_when_it_is_gone(run, models):
    server_of = pytest.importorskip("websockets.sync.server")
    paths: list[str] = []

    def talk(socket: Any) -> None:
        path = socket.request.path
        paths.append(path)
        for number in range(5):
            socket.send(json.dumps({"accuracy": 3, "timestamp": number, "values": [1, 2, 3]}))
        if paths.count(path) > 1:
            time.sleep(0.5)

    with server_of.serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        phone = run(opened(f"ws://127.0.0.1:{port}", models["har_watch"]))
        phone.wait(lambda: len(phone.arrivals) >= 20)
        phone.end()
        server.shutdown()
        thread.join()
    assert set(paths) == {
        "/sensor/connect?type=android.sensor.accelerometer",
        "/sensor/connect?type=android.sensor.gyroscope",
    }
    assert {arrival.format.partition(":")[2] for arrival in phone.arrivals} == {
        path.partition("=")[2] for path in paths
    }
    assert any("trying again" in said for said in phone.said)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """A real mosquitto; its port."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no mosquitto here: make live installs it")
    pytest.importorskip("paho.mqtt")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", settings], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_messages_of_a_real_broker_come_with_their_topic(run, models, broker):
    from paho.mqtt import publish

    source = run(opened(f"mqtt://127.0.0.1:{broker}/home/watch", models["har_watch"]))
    source.wait(lambda: any("listening" in said for said in source.said))
    for number in range(20):
        publish.single("home/watch", f'{{"messageId": {number}}}', port=broker, hostname="127.0.0.1")
        publish.single("elsewhere", "x", port=broker, hostname="127.0.0.1")
    source.wait(lambda: len(source.arrivals) == 20)
    assert {arrival.format for arrival in source.arrivals} == {"sensor-logger"}
    assert source.arrivals[7].body == b'{"messageId": 7}'


class Radio:
    """bleak's own interface, and a watch behind it that goes out of reach once."""

    def __init__(self) -> None:
        self.written = b""
        self.found = 0
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

            async def __aenter__(self) -> Client:
                return self

            async def __aexit__(self, *ended: object) -> None:
                self.is_connected = False

            async def start_notify(self, characteristic: str, came: Callable[[Any, bytearray], None]) -> None:
                assert characteristic == "6e400003-b5a3-f393-e0a9-e50e24dcca9e"
                self.came = came

            async def write_gatt_char(self, characteristic: str, part: bytes) -> None:
                assert characteristic == "6e400002-b5a3-f393-e0a9-e50e24dcca9e"
                assert len(part) <= 20
                radio.written += part
                if part.endswith(b";\n"):
                    for cut in (b"A,1,2", b",3\nA,4,5,6\n"):
                        self.came(None, bytearray(cut))

        self.modules = {
            "bleak": types.ModuleType("bleak"),
            "bleak.exc": types.ModuleType("bleak.exc"),
        }
        self.modules["bleak"].__dict__.update(BleakScanner=Scanner, BleakClient=Client)
        self.modules["bleak.exc"].__dict__.update(BleakError=type("BleakError", (Exception,), {}))


def test_a_watch_is_found_told_to_send_and_heard(run, models, monkeypatch):
    radio = Radio()
    for name, module in radio.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    watch = run(opened("ble:bangle.js A1B2", models["har_watch"]))
    watch.wait(lambda: len(watch.arrivals) >= 2)
    watch.end()
    assert b"".join(arrival.body for arrival in watch.arrivals[:2]) == b"A,1,2,3\nA,4,5,6\n"
    assert "not in reach" in watch.said[0]
    assert b"Bangle.on('accel'" in radio.written
    assert b"removeListener" in radio.written


def test_attempts_wait_longer_each_time_and_end_when_told(run):
    stop, said = threading.Event(), []

    def attempt() -> None:
        if len(said) == 3:
            stop.set()
        raise OSError("no route")

    again_and_again(attempt, "a phone", (OSError,), stop, lambda text: (said.append(text), stop.wait(0))[0])
    assert said[0] == "a phone: no route; trying again in 1 s"
    assert len(said) == 3


def test_a_capture_and_a_recording_are_replayed_by_their_names(models, tmp_path):
    file = tmp_path / "capture.jsonl"
    with file.open("wb") as capture:
        write_arrival(capture, Arrival(5, "lines", b"1,2,3,4,5,6"))
    folder = models["har_watch"]
    assert opened(f"replay:{file}", folder).name == str(file)
    test = folder.manifest.split["test"]
    assert opened("replay:spar_watch", folder).name == f"subject {test[0]} of spar_watch"
    assert opened(f"replay:spar_watch/{test[1]}", folder).name == f"subject {test[1]} of spar_watch"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("relpay:spar_watch", "replay"),
        ("replay:", "says nothing of what"),
        ("replay:none.jsonl", "no such file"),
        ("replay:spar_wacht", "spar_watch"),
        ("replay:spar_watch/77", "77"),
        ("ws://phone", "no port"),
        ("ws://:80", "names no host"),
        ("ws://phone:many", "no address of a source"),
        ("ble:", "names no watch"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_is_wrong(models, address, said):
    pytest.importorskip("websockets")
    with pytest.raises(InputError, match=said):
        opened(address, models["har_watch"])


@pytest.mark.parametrize(("address", "package"), [("mqtt://host/topic", "paho"), ("ble:watch", "bleak")])
def test_a_package_that_is_missing_is_named_with_how_to_install_it(models, monkeypatch, address, package):
    for name in ("bleak", "paho.mqtt.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"{package}.*pip install 'edgeseq\["):
        opened(address, models["har_watch"])
