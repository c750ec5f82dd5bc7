"""Sensor Logger's messages from an MQTT broker."""

from __future__ import annotations

import threading
import time
from typing import Any

from edgeseq.devices.live.sources import Put, Say
from edgeseq.errors import MissingDependency
from edgeseq.signal.arrivals import Arrival

TOPIC, PORT = "sensor-logger", 1883


class Mqtt:
    """A subscription to one topic. The client comes back by itself after a lost connection."""

    def __init__(self, host: str, port: int = PORT, topic: str = TOPIC, user: str = "", password: str = "") -> None:
        """Raises MissingDependency where paho-mqtt is not installed."""
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError:
            raise MissingDependency("paho-mqtt", "live", "a stream over MQTT") from None
        self.name = f"{topic} on {host}:{port}"
        self._host, self._port, self._topic, self._user, self._password = host, port, topic, user, password

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what is published until told to stop."""
        from paho.mqtt.client import Client, MQTTMessage
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2)
        if self._user:
            client.username_pw_set(self._user, self._password)

        def connected(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                say(f"{self.name}: the broker refuses: {reason}")
                return
            client.subscribe(self._topic)
            say(f"{self.name}: listening")

        def lost(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if not stop.is_set():
                say(f"{self.name}: the connection was lost ({reason}); trying again")

        def came(client: Client, userdata: Any, message: MQTTMessage) -> None:
            put(Arrival(time.time_ns(), "sensor-logger", bytes(message.payload)))

        client.on_connect, client.on_disconnect, client.on_message = connected, lost, came
        client.reconnect_delay_set(1, 15)
        client.connect_async(self._host, self._port)
        client.loop_start()
        stop.wait()
        client.disconnect()
        client.loop_stop()
