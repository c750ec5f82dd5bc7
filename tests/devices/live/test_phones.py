"""phyphox and SensorServer, against servers that answer as the apps do."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgeseq.devices.live.sources.address import opened
from edgeseq.devices.live.sources.phyphox import Phyphox
from edgeseq.signal.readings import ACCELERATION, SECOND
from edgeseq.signal.senders.message import MAX_READINGS
from edgeseq.signal.senders.phyphox import Phyphox as Decoder

from ...phone import Phone


class Handler(http.server.BaseHTTPRequestHandler):
    """phyphox's server: it measures some more at each question, and fails where it is told to."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        server: Any = self.server
        server.asked.append(self.path)
        body, phone = b'{"result": true}', server.phone
        with server.lock:
            fails = server.fails.pop(0) if path == "/get" and server.fails else False
            if path == "/get":
                phone.measure(3 if phone.measuring else 0)
                body = phone.get(query)
        self.send_response(500 if fails else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def phone() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.fails, server.phone, server.lock = [], [], Phone(0), threading.Lock()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.address = f"phyphox://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def accelerations(arrivals: list[Any]) -> list[tuple[float, float]]:
    """The runs and numbers of the samples, as a decoder reads them of what was handed over."""
    decode = Decoder()
    readings = [reading for arrival in arrivals for reading in decode(arrival.body).readings]
    return [reading.values[:2] for reading in readings if reading.sensor == ACCELERATION]


def test_phyphox_is_begun_and_asked_for_what_is_new_also_behind_an_error(run, models, phone):
    phone.fails = [False] * 6 + [True]
    source = opened(phone.address, models["har_watch"])
    assert isinstance(source, Phyphox)
    running = run(source)
    running.wait(lambda: len(phone.asked) > 20)
    running.end()
    assert phone.asked[:2] == ["/control?cmd=start", "/get?acc_time=&gyr_time="]
    assert any("500" in said for said in running.said)
    assert {(arrival.format, arrival.channel) for arrival in running.arrivals} == {
        ("phyphox", f"127.0.0.1:{phone.server_port}")
    }
    found = accelerations(running.arrivals)
    assert found == [(0.0, float(number)) for number in range(len(found))]
    bodies = [json.loads(arrival.body)["buffer"]["acc_time"]["buffer"] for arrival in running.arrivals]
    sent = [each for each in itertools.chain(*bodies) if each is not None]
    assert len(sent) == len(set(sent))  # nothing was asked for twice


def test_an_experiment_that_is_cleared_goes_on_from_its_beginning(run, models, phone):
    phone.phone.measure(1000)
    running = run(opened(phone.address, models["har_watch"]))
    running.wait(lambda: len(phone.asked) > 8)
    with phone.lock:
        phone.phone.begin()
        phone.phone.full = False  # somebody else was told so
    running.wait(lambda: (1.0, 5.0) in accelerations(running.arrivals))
    running.end()
    found = accelerations(running.arrivals)
    first, then = (list(group) for _, group in itertools.groupby(found, lambda each: each[0]))
    assert [number for _, number in first] == list(range(len(first)))
    assert [number for _, number in then] == list(range(len(then)))


def test_more_than_is_read_of_an_answer_is_left_out_and_said(run, models, phone):
    phone.phone.measure(2 * MAX_READINGS)  # before anybody has listened
    running = run(opened(phone.address, models["har_watch"]))
    running.wait(lambda: len(running.arrivals) > 3)
    with phone.lock:
        phone.phone.measure(2 * MAX_READINGS)  # while nobody could
    phone.fails = [True]
    before = len(running.arrivals)
    running.wait(lambda: len(running.arrivals) > before + 3)
    running.end()
    assert sum("left out" in said for said in running.said) == 2
    numbers = [number for _, number in accelerations(running.arrivals)]
    assert numbers[0] >= 2 * MAX_READINGS
    holes = [b - a for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert len(holes) == 1
    assert holes[0] > 2 * MAX_READINGS


def test_a_phone_that_is_not_measuring_and_one_without_a_gyroscope_say_so_once(run, models, phone):
    phone.phone.measuring = False
    phone.phone.lacking = {"gyr_time", "gyrX", "gyrY", "gyrZ"}
    running = run(opened(phone.address, models["har_watch"]))
    running.wait(lambda: any("has no gyroscope" in said for said in running.said))
    phone.phone.lacking = set()
    running.wait(lambda: any("not measuring" in said for said in running.said))
    asked = len(phone.asked)
    running.wait(lambda: len(phone.asked) > asked + 5)
    phone.phone.measuring = True
    running.wait(lambda: running.arrivals)
    running.end()
    assert sum("not measuring" in said for said in running.said) == 1


def test_a_mistake_where_an_answer_is_handed_over_leaves_the_source(run, models, phone):
    running = run(opened(phone.address, models["har_watch"]), ValueError("a mistake"))
    assert isinstance(running.fail(), ValueError)


@pytest.fixture
def server_phone() -> Iterator[Any]:
    """SensorServer; it ends the first connection of each sensor."""
    server_of = pytest.importorskip("websockets.sync.server")
    paths: list[str] = []

    def talk(socket: Any) -> None:
        path = socket.request.path
        paths.append(path)
        for number in range(5):
            socket.send(json.dumps({"accuracy": 3, "timestamp": number * SECOND // 50, "values": [1, 2, 3]}))
        if paths.count(path) > 1:
            time.sleep(0.5)

    with server_of.serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.paths, server.place = paths, "{}:{}".format(*server.socket.getsockname())
        yield server
        server.shutdown()
        thread.join()


def test_sensor_server_is_connected_to_for_each_sensor_and_again_when_it_is_gone(run, models, server_phone):
    phone = run(opened(f"ws://{server_phone.place}", models["har_watch"]))
    phone.wait(lambda: len(phone.arrivals) >= 20)
    phone.end()
    assert set(server_phone.paths) == {
        "/sensor/connect?type=android.sensor.accelerometer",
        "/sensor/connect?type=android.sensor.gyroscope",
    }
    assert {arrival.format.partition(":")[2] for arrival in phone.arrivals} == {
        path.partition("=")[2] for path in server_phone.paths
    }
    assert {arrival.channel for arrival in phone.arrivals} == {server_phone.place}
    assert any("trying again" in said for said in phone.said)


def test_a_mistake_in_the_thread_of_one_sensor_ends_the_others_and_leaves_the_source(run, models, server_phone):
    phone = run(opened(f"ws://{server_phone.place}", models["har_watch"]), ValueError("a mistake"))
    assert isinstance(phone.fail(), ValueError)
