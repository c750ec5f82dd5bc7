"""A Bangle.js, or another Espruino watch, over Bluetooth's Nordic UART service."""

from __future__ import annotations

import asyncio
import threading
import time

from edgeseq.devices.live.sources import Put, Say, again_and_again
from edgeseq.errors import InputError, MissingDependency
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.senders.espruino import NOTIFY, WRITE

FIND_SECONDS, LOOK_SECONDS = 10.0, 0.2
# What the watch is told: write a line at every sample. A control-C first ends what it may be doing.
START = (
    b"\x03\x10Bangle.on('accel',edgeseq=function(a){Bluetooth.println("
    b"'A,'+[a.x,a.y,a.z].map(v=>Math.round(v*100)).join(','))});\n"
)
STOP = b"\x10Bangle.removeListener('accel',edgeseq);\n"
PART = 20  # bytes of a write: what the smallest connection takes


class Ble:
    """A watch by its name, as Bangle.js a1b2, or its address."""

    def __init__(self, watch: str) -> None:
        """Raises MissingDependency where bleak is not installed."""
        try:
            import bleak  # noqa: F401
        except ImportError:
            raise MissingDependency("bleak", "ble", "a stream over Bluetooth") from None
        self.name = f"{watch} over Bluetooth"
        self._watch = watch

    def run(self, put: Put, stop: threading.Event, say: Say) -> None:
        """Hand over what the watch writes until told to stop."""
        from bleak.exc import BleakError

        def attempt() -> None:
            asyncio.run(self._listen(put, stop, say))

        again_and_again(attempt, self.name, (BleakError, OSError, asyncio.TimeoutError, InputError), stop, say)

    async def _listen(self, put: Put, stop: threading.Event, say: Say) -> None:
        from bleak import BleakClient, BleakScanner

        def is_it(device: object, advertised: object) -> bool:
            known = (getattr(device, "name", None), getattr(device, "address", None))
            return self._watch.lower() in [text.lower() for text in known if text]

        device = await BleakScanner.find_device_by_filter(is_it, timeout=FIND_SECONDS)
        if device is None:
            raise InputError("it is not in reach, or connected to something else")
        async with BleakClient(device) as client:

            def came(characteristic: object, part: bytearray) -> None:
                put(Arrival(time.time_ns(), "espruino", bytes(part), self._watch))

            await client.start_notify(NOTIFY, came)
            await _write(client, START)
            say(f"{self.name}: connected")
            while client.is_connected and not stop.is_set():
                await asyncio.sleep(LOOK_SECONDS)
            if client.is_connected:
                await _write(client, STOP)


async def _write(client: object, text: bytes) -> None:
    for at in range(0, len(text), PART):
        await client.write_gatt_char(WRITE, text[at : at + PART])  # type: ignore[attr-defined]
