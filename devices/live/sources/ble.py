"""A Bangle.js, or another Espruino watch, over Bluetooth's Nordic UART service."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeseq.devices.live.sources import Put, Say, again_and_again
from edgeseq.errors import InputError, MissingDependency
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.senders.espruino import NOTIFY, PERIOD, WRITE

if TYPE_CHECKING:
    from bleak import BleakClient

FIND_SECONDS, STOP_SECONDS, POLL_SECONDS = 10.0, 3.0, 0.01
SILENT_SECONDS = 5.0  # without a sample: another app was started on the watch, which ends ours
# What the watch is told: write a line at every sample. A control-C first ends what it may be doing, a control-P keeps
# it from repeating what it is told. A listener that was left by a lost link would write a second time. A watch that
# lay still for a minute looks at its sensor every 800 ms only: setPollInterval has it do so at the sensor's own rate
# and puts powerSave off, which is put back at the end.
START = (
    "\x03"
    "\x10if(global.edgeseq)Bangle.removeListener('accel',edgeseq);\n"
    "\x10edgeseq=function(a){Bluetooth.println('A,'+[a.x,a.y,a.z].map(v=>Math.round(v*100)).join(','))};\n"
    "\x10Bangle.on('accel',edgeseq);\n"
    "\x10if(global.edgeseqSaves===undefined)edgeseqSaves=Bangle.getOptions().powerSave;\n"
    f"\x10Bangle.setPollInterval({PERIOD // 1_000_000});\n"
).encode()
STOP = (
    b"\x10if(global.edgeseq)Bangle.removeListener('accel',edgeseq);delete global.edgeseq;\n"
    b"\x10if(global.edgeseqSaves!==undefined)Bangle.setOptions({powerSave:edgeseqSaves});delete global.edgeseqSaves;\n"
)
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
            asyncio.run(self._connect(put, stop, say))

        again_and_again(attempt, self.name, (BleakError, OSError, asyncio.TimeoutError, InputError), stop, say)

    async def _connect(self, put: Put, stop: threading.Event, say: Say) -> None:
        from bleak import BleakClient, BleakScanner
        from bleak.exc import BleakError

        def is_it(device: object, advertised: object) -> bool:
            known = (getattr(device, "name", None), getattr(device, "address", None))
            return self._watch.lower() in [text.lower() for text in known if text]

        device = await BleakScanner.find_device_by_filter(is_it, timeout=FIND_SECONDS)
        if device is None:
            raise InputError("it is not in reach, or connected to something else")
        async with BleakClient(device) as client:
            try:
                await self._listen(client, put, stop, say)
            finally:
                with suppress(BleakError, OSError, asyncio.TimeoutError):  # the link may end with it
                    if client.is_connected:
                        await asyncio.wait_for(_write(client, STOP), STOP_SECONDS)

    async def _listen(self, client: BleakClient, put: Put, stop: threading.Event, say: Say) -> None:
        """Until the link is lost. What comes is handed over from here: bleak would but log an exception."""
        parts = asyncio.Queue[tuple[int, bytes]]()

        def came(characteristic: object, part: bytearray) -> None:
            parts.put_nowait((time.time_ns(), bytes(part)))

        put(Arrival(time.time_ns(), "espruino", b"", self._watch))  # a line that a lost link has cut has no end
        await client.start_notify(NOTIFY, came)
        await _write(client, START)
        say(f"{self.name}: connected")
        heard = time.monotonic()
        while not stop.is_set() and (client.is_connected or not parts.empty()):
            if parts.empty():  # and no wait_for(parts.get()), which loses what comes just as the time is over
                if time.monotonic() - heard > SILENT_SECONDS:
                    raise InputError(f"it has sent nothing for {SILENT_SECONDS:.0f} s")
                await asyncio.sleep(POLL_SECONDS)
                continue
            arrived, part = parts.get_nowait()
            heard = time.monotonic()
            if part:
                put(Arrival(arrived, "espruino", part, self._watch))


async def _write(client: BleakClient, text: bytes) -> None:
    for at in range(0, len(text), PART):
        await client.write_gatt_char(WRITE, text[at : at + PART])
