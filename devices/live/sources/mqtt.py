"""Sensor Logger's messages from an MQTT broker."""

from __future__ import annotations

import threading
import time
from typing import Any

from edgeseq.devices.live.sources import LOOK_SECONDS, Put, Say, again_and_again, at
from edgeseq.errors import InputError, MissingDependency
from edgeseq.signal.arrivals import Arrival

TOPIC, PORT = "sensor-logger", 1883


class Mqtt:
    """A subscription to one topic."""

    def __init__(self, host: str, port: int = PORT, topic: str = TOPIC, user: str = "", password: str = "") -> None:
        """Raises MissingDependency where paho-mqtt is not installed."""
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError:
            raise MissingDependency("paho-mqtt", "live", "a stream over MQTT") from None
        self.name = f"{topic} on {at(host, port)}"
        self._host, self._port, self._topic, self._user, self._password = host, port, topic, user, password

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what is published until told to stop.

        Raises:
            InputError: no broker lets a topic of that name be listened to.
        """
        again_and_again(lambda: self._listen(put, stop, say), self.name, (OSError,), stop, say)

    def _listen(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Until the connection is lost. paho has no thread of its own here, in which an exception would end unseen."""
        from paho.mqtt.client import Client, MQTTMessage, error_string
        from paho.mqtt.enums import CallbackAPIVersion

        def connected(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                raise ConnectionRefusedError(f"the broker refuses: {reason}")
            try:
                client.subscribe(self._topic)
            except ValueError as error:
                raise InputError(f"{self._topic!r} is no topic to listen to: {error}") from None

        def subscribed(client: Client, userdata: Any, number: int, reasons: Any, properties: Any) -> None:
            if any(reason.is_failure for reason in reasons):
                raise ConnectionRefusedError(f"the broker lets nobody listen there: {reasons[0]}")
            say(f"{self.name}: listening")

        def came(client: Client, userdata: Any, message: MQTTMessage) -> None:
            put(Arrival(time.time_ns(), "sensor-logger", bytes(message.payload)))

        client = Client(CallbackAPIVersion.VERSION2)
        if self._user:
            client.username_pw_set(self._user, self._password)
        client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, came
        client.connect(self._host, self._port)
        try:
            while not stop.is_set():
                if found := client.loop(LOOK_SECONDS):
                    raise ConnectionError(error_string(found))
        finally:
            client.disconnect()
