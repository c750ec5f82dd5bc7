"""phyphox on a phone: begun, and then asked ten times a second for what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

from edgeseq.devices.live.sources import Put, Say, again_and_again, at
from edgeseq.errors import InputError
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.readings import ACCELERATION, GYROSCOPE
from edgeseq.signal.senders.message import MAX_BYTES
from edgeseq.signal.senders.phyphox import Questions

PORT = 8080
EVERY, ANSWER_SECONDS = 0.1, 3.0


class Phyphox:
    """The experiment that is open on a phone, with remote access allowed."""

    def __init__(self, host: str, port: int = PORT, sensors: Sequence[str] = (ACCELERATION, GYROSCOPE)) -> None:
        self._place = at(host, port)
        self.name = f"phyphox on {self._place}"
        self._host, self._port, self._sensors = host, port, tuple(sensors)

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what is measured until told to stop. Nothing is asked for twice, also behind a lost connection."""
        questions = Questions(self._sensors)

        def attempt() -> None:
            self._get("/control?cmd=start")
            say(f"{self.name}: asked to measure")
            questions.begin()
            why = ""
            while not stop.wait(EVERY):
                body = self._get(f"/get?{questions.next()}")
                is_news, left_out = questions.take(body)
                if is_news:  # whoever gets the arrival reads it once more
                    put(Arrival(time.time_ns(), "phyphox", body, self._place))
                for said in (left_out, questions.why if questions.why != why else ""):
                    if said:
                        say(f"{self.name}: {said}")
                why = questions.why

        again_and_again(attempt, self.name, (OSError, HTTPException, InputError), stop, say)

    def _get(self, path: str) -> bytes:
        """An answer, over a connection of its own: the phone does not keep one for long."""
        connection = HTTPConnection(self._host, self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES + 1)
        finally:
            connection.close()
        if answer.status != 200:
            raise InputError(f"it answers {answer.status}")
        return body
