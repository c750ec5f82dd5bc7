"""A source by its address, as it is written behind ``--source``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from edgeseq.devices.live.sources import Source
from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder
from edgeseq.signal.layout import Layout

HTTP = "http"  # which the server is, and no thread
SCHEMES = ("replay", "stdin", HTTP, "mqtt", "ws", "phyphox", "ble")


def opened(address: str, folder: Folder, *, speed: float = 1.0) -> Source:
    """The source at an address, for a model; ``speed`` is of replays.

    Raises:
        InputError: an address that is none, a recording or a capture that is not there.
        MissingDependency: the package that it needs is not installed.
    """
    scheme, _, rest = address.partition(":")
    makers: dict[str, Callable[[], Source]] = {
        "replay": lambda: _replay(rest, folder, speed),
        "stdin": _stdin,
        "mqtt": lambda: _mqtt(urlsplit(address)),
        "ws": lambda: _websocket(urlsplit(address), folder),
        "phyphox": lambda: _phyphox(urlsplit(address), folder),
        "ble": lambda: _ble(rest),
    }
    if scheme not in makers:
        raise unknown("source", scheme, SCHEMES)
    try:
        return makers[scheme]()
    except ValueError as error:  # urlsplit's: a port that is none
        raise InputError(f"{address} is no address of a source: {error}") from None


def _replay(what: str, folder: Folder, speed: float) -> Source:
    from edgeseq.devices.live.sources.replay import Replay, frames_as_arrivals
    from edgeseq.events import streams
    from edgeseq.lineage import trained_on
    from edgeseq.signal.arrivals import read_capture

    if not what:
        raise InputError("replay: says nothing of what: replay:spar_watch, or replay:FILE of a capture")
    if Path(what).is_file():
        return Replay(what, read_capture(what), speed)
    if what.endswith(".jsonl") or (os.sep in what and not what.partition("/")[0].isidentifier()):
        raise InputError(f"{what} cannot be read: there is no such file")
    name, _, subject = what.partition("/")
    dataset = trained_on(folder, name)
    test = [known for known in dataset.subjects if known in folder.manifest.split.get("test", ())]
    chosen = subject or (test or list(dataset.subjects))[0]
    (recording, *_) = streams(dataset.only([chosen])).recordings
    said = f"subject {chosen} of {dataset.name}"
    return Replay(said, frames_as_arrivals(recording.x, dataset.rate, said), speed)


def _stdin() -> Source:
    from edgeseq.devices.live.sources.standard_input import StandardInput

    return StandardInput(sys.stdin.buffer)


def _mqtt(url: SplitResult) -> Source:
    from edgeseq.devices.live.sources.mqtt import PORT, TOPIC, Mqtt

    login = (unquote(url.username or ""), unquote(url.password or ""))
    return Mqtt(_host(url), url.port or PORT, unquote(url.path.strip("/")) or TOPIC, *login)


def _websocket(url: SplitResult, folder: Folder) -> Source:
    from edgeseq.devices.live.sources.websocket import Websockets

    if url.port is None:
        raise InputError(f"{url.geturl()} has no port: SensorServer shows it, as ws://192.168.1.5:8080")
    return Websockets(_host(url), url.port, _sensors(folder))


def _phyphox(url: SplitResult, folder: Folder) -> Source:
    from edgeseq.devices.live.sources.phyphox import PORT, Phyphox

    return Phyphox(_host(url), url.port or PORT, _sensors(folder))


def _ble(watch: str) -> Source:
    from edgeseq.devices.live.sources.ble import Ble

    if not watch:
        raise InputError("ble: names no watch: ble:Bangle.js a1b2, or its address")
    return Ble(watch)


def _host(url: SplitResult) -> str:
    if not url.hostname:
        raise InputError(f"{url.geturl()} names no host, as {url.scheme}://192.168.1.5 does")
    return url.hostname


def _sensors(folder: Folder) -> tuple[str, ...]:
    """What the model reads of a phone.

    Raises:
        InputError: nothing that a phone has.
    """
    source = folder.manifest.input
    found = Layout(source.channels).sensors
    if not found:
        names = ", ".join(f"{channel.name} ({channel.unit})" for channel in source.channels)
        raise InputError(f"{folder.path} reads {names}: no sensor of a phone gives that")
    return found


def names(sources: Iterable[Source]) -> str:
    """Sources for people."""
    return ", ".join(source.name for source in sources)
