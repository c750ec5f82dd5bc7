"""SensorServer on an Android phone: a websocket for each sensor that the model reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

from edgeseq.devices.live.sources import LOOK_SECONDS, Put, Say, again_and_again, all_at_once, at
from edgeseq.errors import MissingDependency
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.readings import ACCELERATION, GYROSCOPE
from edgeseq.signal.senders.message import MAX_BYTES
from edgeseq.signal.senders.sensor_server import TYPES

OPEN_SECONDS = 5.0


class Websockets:
    """The sensors of one phone."""

    def __init__(self, host: str, port: int, sensors: Sequence[str] = (ACCELERATION, GYROSCOPE)) -> None:
        """Raises MissingDependency where websockets is not installed."""
        try:
            import websockets.sync.client  # noqa: F401
        except ImportError:
            raise MissingDependency("websockets", "live", "a stream of SensorServer") from None
        self._place = at(host, port)
        self.name = f"SensorServer on {self._place}"
        self._types = [kind for kind, (sensor, _) in TYPES.items() if sensor in sensors]

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what the phone sends until told to stop."""
        all_at_once([partial(self._listen, kind, put, say) for kind in self._types], stop)

    def _listen(self, kind: str, put: Put, say: Say, stop: threading.Event) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        address = f"ws://{self._place}/sensor/connect?type={kind}"

        def attempt() -> None:
            with connect(address, open_timeout=OPEN_SECONDS, max_size=MAX_BYTES, proxy=None) as socket:
                say(f"{self.name}: {kind} is connected")
                while not stop.is_set():
                    try:
                        body = socket.recv(timeout=LOOK_SECONDS)
                    except TimeoutError:
                        continue
                    content = body.encode() if isinstance(body, str) else body
                    put(Arrival(time.time_ns(), f"sensor-server:{kind}", content, self._place))

        again_and_again(attempt, f"{self.name}, {kind}", (OSError, WebSocketException), stop, say)
