"""The server of the page, asked over loopback by real clients."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import edgeseq.devices.live.server as server_module
from edgeseq.devices.live.hub import TooBusy
from edgeseq.devices.live.server import LOOKERS, application
from edgeseq.devices.live.sources.replay import frames_as_arrivals
from edgeseq.signal.senders.message import MAX_BYTES

from .conftest import capture_in

PUSHED = "watch, wrist motion"  # the stream of what Sensor Logger pushes here


class Served(NamedTuple):
    """A server on a port of loopback."""

    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, content, named)
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        return answer.status, said

    def look(self, query: str = "", *, max_queue: int = 16, **headers: str) -> ClientConnection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"ws://127.0.0.1:{self.port}/look{query}"
        return connect(url, additional_headers=named, proxy=None, max_queue=max_queue)


Serve = Callable[..., Served]
WAIT = 20.0  # seconds that nothing here may hang for


@pytest.fixture
def serve(hub, tmp_path: Path) -> Iterator[Serve]:
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def begin(**options: Any) -> Served:
        listening = socket.create_server(("127.0.0.1", 0))
        app = application(hub, recordings=tmp_path, **options)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + WAIT
        while not server.started:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)
        return Served(listening.getsockname()[1])

    yield begin
    for server, thread in running:
        server.should_exit = True
        thread.join()


def message(number: int = 0, z: float = -1.0) -> dict[str, Any]:
    wrist = {"accelerationX": 0, "accelerationY": 0, "accelerationZ": 0, "gravityX": 0, "gravityY": 0, "gravityZ": z}
    wrist |= {"rotationRateX": 0, "rotationRateY": 0, "rotationRateZ": 0}
    payload = [
        {"name": "wrist motion", "time": 10**18 + (50 * number + i) * 20_000_000, "values": wrist} for i in range(50)
    ]
    return {"messageId": number, "sessionId": "s", "deviceId": "watch", "payload": payload}


def test_the_page_and_its_files_are_served_and_load_nothing_from_elsewhere(serve):
    served = serve()
    for path, part in (("/", "<title>edgeseq live"), ("/page.css", "prefers-color-scheme"), ("/page.js", "WebSocket")):
        status, text = served.ask("GET", path)
        assert (status, part in text) == (200, True)
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    assert served.ask("GET", "/page.html")[0] == 404
    assert served.ask("GET", "/../server.py")[0] == 404


def test_what_sensor_logger_pushes_is_answered_and_seen(serve, hub):
    served = serve()
    for number in range(3):
        assert served.ask("POST", "/sensor-logger", message(number)) == (200, '{"ok":true}')
    with served.look() as page:
        stream = json.loads(page.recv())["streams"][PUSHED]
        deadline = time.monotonic() + 10
        while stream["counts"]["frames"] < 140 and time.monotonic() < deadline:
            page.send(json.dumps({"since": {PUSHED: stream["number"]}}))
            stream = json.loads(page.recv())["streams"][PUSHED]
    assert stream["counts"]["frames"] >= 140
    assert stream["answer"]["label"]
    assert stream["step_us"]["p99"] >= stream["step_us"]["p50"] > 0
    assert stream["total_us"]["p50"] > stream["step_us"]["p50"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"payload": 3}', b"\xff", b"[" * 50_000, b'{"payload": [' + b"[" * 50_000]
)
def test_a_malformed_message_is_answered_400_and_counted(serve, hub, body):
    status, said = serve().ask("POST", "/sensor-logger", body)
    assert status == 400
    assert "not a message of Sensor Logger" in json.loads(said)["error"]
    assert hub.look({})["refused"] == 1


def test_a_message_that_would_have_to_wait_too_long_is_answered_503(serve, hub, monkeypatch):
    def busy(*_, **__):
        raise TooBusy("1,000 messages wait")

    served = serve()
    monkeypatch.setattr(hub, "put", busy)
    assert served.ask("POST", "/sensor-logger", message()) == (503, '{"error":"1,000 messages wait"}')


def test_a_body_is_read_no_further_than_a_message_may_be_long(serve):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:
        raw.sendall(b"POST /sensor-logger HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000000000\r\n\r\n")
        with suppress(OSError):  # it hangs up before the end
            for _ in range(4 * MAX_BYTES // 65536):
                raw.sendall(b" " * 65536)
        try:
            said = raw.recv(4096)
        except ConnectionResetError:  # what was still under way when it hung up may overtake its answer
            said = b""
    assert not said or said.startswith(b"HTTP/1.1 413 ")
    status, text = served.ask("POST", "/sensor-logger", b" " * (MAX_BYTES + 1))
    assert (status, "send smaller batches" in text) == (413, True)
    assert served.ask("POST", "/sensor-logger", message())[0] == 200


def test_a_model_is_chosen_and_a_recording_made_from_the_page(serve, hub, tmp_path):
    served = serve()
    assert served.ask("POST", "/record", {"on": True})[0] == 200
    served.ask("POST", "/sensor-logger", message())
    hub.end()
    assert served.ask("POST", "/model", {"stream": PUSHED, "model": "har_watch_fp32"})[0] == 200
    assert hub.look({})["streams"][PUSHED]["model"] == "har_watch_fp32"
    status, said = served.ask("POST", "/model", {"stream": PUSHED, "model": "../../etc/passwd"})
    assert status == 400
    assert "har_watch" in said
    assert served.ask("POST", "/model", {"stream": PUSHED})[0] == 400
    assert served.ask("POST", "/record", {"on": False}) == (200, '{"recording":null}')
    assert capture_in(tmp_path).stat().st_size > 1000


def test_a_recording_is_named_by_the_server_and_lies_in_its_folder(serve, tmp_path):
    served = serve()
    for body in ({"on": True, "name": "../../x"}, {"on": True, "file": "/tmp/x"}):
        status, said = served.ask("POST", "/record", body)
        assert status == 200
        assert (tmp_path / json.loads(said)["recording"]).is_file()


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1", "null", "http://127.0.0.1:1"])
def test_other_pages_cannot_drive_it(serve, origin):
    served = serve()
    for path in ("/sensor-logger", "/model", "/record"):
        assert served.ask("POST", path, {}, Origin=origin)[0] == 403
    with pytest.raises(InvalidStatus):
        served.look(Origin=origin)


def test_its_own_page_can(serve):
    served = serve()
    own = f"http://127.0.0.1:{served.port}"
    assert served.ask("POST", "/record", {"on": False}, Origin=own)[0] == 200
    with served.look(Origin=own) as page:
        page.recv(timeout=WAIT)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example"])
def test_a_name_that_somebody_else_points_here_is_refused(serve, host):
    served = serve()
    assert served.ask("GET", "/", Host=host)[0] == 421
    with pytest.raises(InvalidStatus):
        connect(f"ws://{host}/look", sock=socket.create_connection(("127.0.0.1", served.port)), proxy=None)


@pytest.mark.parametrize("host", ["localhost", "localhost:8420", "127.0.0.1", "[::1]:8420", "192.168.1.5:8420"])
def test_its_own_names_and_addresses_are_not(serve, host):
    assert serve().ask("GET", "/", Host=host)[0] == 200


def test_a_token_is_needed_where_there_is_one(serve):
    served = serve(token="secret")
    assert served.ask("GET", "/")[0] == 200  # says nothing of the streams
    for path in ("/sensor-logger", "/model", "/record"):
        for wrong in ("", "?token=", "?token=secre", "?token=s%C3%A9cret"):
            assert served.ask("POST", path + wrong, {})[0] == 401
    assert served.ask("POST", "/sensor-logger?token=secret", message())[0] == 200
    assert served.ask("POST", "/sensor-logger", message(1), Authorization="Bearer secret")[0] == 200
    with pytest.raises(InvalidStatus):
        served.look()
    with served.look("?token=secret") as page:
        page.recv(timeout=WAIT)


def closed(page: ClientConnection) -> tuple[int, str]:
    """The code and the reason that the server closes a websocket with, and that it says nothing else before."""
    with pytest.raises(ConnectionClosed) as caught:
        page.recv(timeout=WAIT)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.mark.parametrize("said", ["", "{", "[]", '{"since": 3}', '{"since": {"watch": "x"}}', "[" * 50_000])
def test_a_page_that_says_nonsense_is_let_go_with_a_reason_and_the_others_stay(serve, said, capfd):
    served = serve()
    with served.look() as page, served.look() as other:
        page.recv()
        page.send(said)
        code, why = closed(page)
        assert (code, "not what is asked for here" in why) == (1003, True)

        other.recv()
        other.send("{}")
        other.recv(timeout=WAIT)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("said", [b"", b"{}", b"\xff\x00"])
def test_a_page_that_says_bytes_is_let_go_with_a_reason(serve, said, capfd):
    with serve().look() as page:
        page.recv()
        page.send(said)
        code, why = closed(page)
        assert (code, "not what is asked for here" in why) == (1003, True)
    assert capfd.readouterr().err == ""


def test_one_page_too_many_is_refused_with_a_reason_until_another_goes(serve):
    served = serve()
    with ExitStack() as stack:
        pages = [stack.enter_context(served.look()) for _ in range(LOOKERS)]
        for page in pages:
            page.recv(timeout=WAIT)
        with served.look() as page:
            assert closed(page) == (1013, f"{LOOKERS} pages look already: close one of them")
        pages[0].close()
        deadline = time.monotonic() + WAIT
        while True:  # the server hears of it a moment later
            with served.look() as page, suppress(ConnectionClosed):
                page.recv(timeout=WAIT)
                break
            assert time.monotonic() < deadline


def test_a_body_that_trickles_is_given_up(serve, monkeypatch, capfd):
    monkeypatch.setattr(server_module, "BODY_SECONDS", 0.5)
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=WAIT) as raw:
        raw.sendall(b"POST /sensor-logger HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        raw.settimeout(0.05)
        said, deadline = b"", time.monotonic() + WAIT
        while not said:
            assert time.monotonic() < deadline, "it waits for ever"
            raw.sendall(b" ")
            with suppress(TimeoutError):
                said = raw.recv(4096)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.lower()
    assert served.ask("POST", "/sensor-logger", message())[0] == 200
    assert capfd.readouterr().err == ""


def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing_in_the_log(serve, hub, capfd):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=WAIT) as raw:
        raw.sendall(b"POST /sensor-logger HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.2)
    assert served.ask("POST", "/sensor-logger", message())[0] == 200
    hub.end()
    assert list(hub.look({})["streams"]) == [PUSHED]
    assert capfd.readouterr().err == ""


def test_pages_that_read_and_one_that_does_not_delay_no_answer(serve, hub, recording):
    """Four watches at 50 Hz for three seconds. The bound is for a page that is waited for, not for a busy machine."""
    served, names, done = serve(), ("left", "right", "ankle", "hip"), threading.Event()
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        return threading.Thread(target=run)

    def look() -> None:
        seen, since = dict.fromkeys(names, 0), dict[str, int]()
        with served.look() as page:
            while not done.is_set():
                streams = json.loads(page.recv(timeout=WAIT))["streams"]
                for name, stream in streams.items():
                    seen[name] += len(stream["frames"])
                since = {name: stream["number"] for name, stream in streams.items()}
                page.send(json.dumps({"since": since}))
        assert min(seen.values()) > 50

    def sleep() -> None:
        """Ask for all there is, again and again, and read nothing of it."""
        with served.look(max_queue=1) as page:
            while not done.wait(0.02):
                page.send("{}")
            page.socket.close()

    def feed(name: str) -> None:
        begin, given = time.monotonic(), []
        for arrival in frames_as_arrivals(recording.x[:150], 50.0, name):
            time.sleep(max(0.0, begin + arrival.time / 1e9 - time.monotonic()))
            given.append(hub.put(arrival))
        for answered in given:
            answered.result(WAIT)

    watches = [guarded(partial(feed, name)) for name in names]
    pages = [guarded(work) for work in (look, look, look, sleep)]
    for thread in (*watches, *pages):
        thread.start()
    for thread in watches:
        thread.join(WAIT)
    streams = hub.look({})["streams"]
    done.set()
    for thread in pages:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in (*watches, *pages))
    assert failed == []
    assert set(streams) == set(names)
    for stream in streams.values():
        assert stream["counts"]["frames"] > 140
        assert stream["total_us"]["p99"] < 250_000


def test_a_page_that_reads_nothing_delays_no_answer(serve, hub, arrivals):
    with serve().look():  # gets the first look, and never asks again
        for arrival in arrivals[:500]:
            hub.put(arrival, wait=True)
        hub.end()
        assert hub.look({})["streams"]["watch"]["counts"]["frames"] == 500
