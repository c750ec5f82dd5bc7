"""Sensor Logger's messages by MQTT, from a real mosquitto."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgeseq.devices.live.sources.address import opened
from edgeseq.errors import InputError

WAIT = 20.0


class Broker:
    """A mosquitto that can be ended and begun again."""

    def __init__(self, folder: Path, *settings: str) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("there is no mosquitto here: make live installs it")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        file = folder / "mosquitto.conf"
        file.write_text("\n".join([f"listener {self.port} 127.0.0.1", *settings, ""]))
        self._begun = [program, "-c", str(file)]
        self.begin()

    def begin(self) -> None:
        self._process = subprocess.Popen(self._begun, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def publish(self, topic: str, text: str) -> None:
        from paho.mqtt import publish

        publish.single(topic, text, port=self.port, hostname="127.0.0.1")


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    pytest.importorskip("paho.mqtt")
    begun: list[Broker] = []

    def broker(*settings: str) -> Broker:
        begun.append(Broker(tmp_path, *(settings or ("allow_anonymous true",))))
        return begun[-1]

    yield broker
    for each in begun:
        each.end()


def listening(source: object) -> int:
    return sum("listening" in said for said in source.said)  # type: ignore[attr-defined]


def test_messages_of_a_real_broker_come_by_their_topic_also_when_it_was_gone(run, models, begin):
    broker = begin()
    source = run(opened(f"mqtt://127.0.0.1:{broker.port}/home/watch", models["har_watch"]))
    source.wait(lambda: listening(source) == 1)
    for number in range(20):
        broker.publish("home/watch", f'{{"messageId": {number}}}')
        broker.publish("elsewhere", "x")
    source.wait(lambda: len(source.arrivals) == 20)
    assert {arrival.format for arrival in source.arrivals} == {"sensor-logger"}
    assert [arrival.body for arrival in source.arrivals] == [b'{"messageId": %d}' % number for number in range(20)]
    broker.end()
    source.wait(lambda: any("trying again" in said for said in source.said))
    broker.begin()
    source.wait(lambda: listening(source) == 2)
    broker.publish("home/watch", "more")
    source.wait(lambda: source.arrivals[-1].body == b"more")


def test_a_topic_with_wildcards_is_listened_to(run, models, begin):
    broker = begin()
    source = run(opened(f"mqtt://127.0.0.1:{broker.port}/home/#", models["har_watch"]))
    source.wait(lambda: listening(source) == 1)
    broker.publish("home/watch", "one")
    broker.publish("home/phone/7", "two")
    source.wait(lambda: len(source.arrivals) == 2)


def test_a_broker_that_refuses_is_asked_again_and_that_is_said(run, models, begin):
    broker = begin("allow_anonymous false")
    source = run(opened(f"mqtt://127.0.0.1:{broker.port}/home", models["har_watch"]))
    source.wait(lambda: any("the broker refuses: Not authorized; trying again" in said for said in source.said))


def test_a_subscription_that_is_refused_is_said_and_asked_for_again(run, models):
    """mosquitto lets everybody subscribe and then sends nothing; other brokers refuse as this one does."""

    def answer(asked: bytes) -> bytes:
        connect, subscribe, ping = 1, 8, 12
        answers = {connect: b"\x20\x02\x00\x00", subscribe: b"\x90\x03" + asked[2:4] + b"\x80", ping: b"\xd0\x00"}
        return answers.get(asked[0] >> 4, b"")

    def serve() -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    while asked := connection.recv(4096):
                        connection.sendall(answer(asked))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        source = run(opened(f"mqtt://127.0.0.1:{listener.getsockname()[1]}/home", models["har_watch"]))
        source.wait(lambda: sum("the broker lets nobody listen there" in said for said in source.said) == 2)
        assert listening(source) == 0


def test_a_topic_that_is_none_ends_the_source_with_its_name(run, models, begin):
    source = run(opened(f"mqtt://127.0.0.1:{begin().port}/home/%23/more", models["har_watch"]))
    failed = source.fail()
    assert isinstance(failed, InputError)
    assert "'home/#/more' is no topic" in str(failed)


def test_a_mistake_where_a_message_is_handed_over_leaves_the_source(run, models, begin):
    broker = begin()
    source = run(opened(f"mqtt://127.0.0.1:{broker.port}/home", models["har_watch"]), ValueError("a mistake"))
    source.wait(lambda: listening(source) == 1)
    broker.publish("home", "one")
    assert isinstance(source.fail(), ValueError)
