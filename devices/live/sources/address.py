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
EXAMPLES = {
    "replay": "replay:spar_watch, or replay:FILE of a capture",
    "mqtt": "mqtt://192.168.1.5/sensor-logger",
    "ws": "ws://192.168.1.5:8080, as SensorServer shows it",
    "phyphox": "phyphox://192.168.1.5:8080, as phyphox shows it",
    "ble": "ble:Bangle.js a1b2, or its address",
}
SCHEMES = (*EXAMPLES, "stdin", HTTP)


def opened(address: str, folder: Folder, *, speed: float = 1.0) -> Source:
    """The source at an address, for a model; ``speed`` is of replays.

    Raises:
        InputError: an address that is none, a recording or a capture that is not there.
        MissingDependency: the package that it needs is not installed.
    """
    scheme, _, rest = address.partition(":")
    makers: dict[str, Callable[[], Source]] = {
        "replay": lambda: _replay(address, rest, folder, speed),
        "stdin": _stdin,
        "mqtt": lambda: _mqtt(address),
        "ws": lambda: _websocket(address, folder),
        "phyphox": lambda: _phyphox(address, folder),
        "ble": lambda: _ble(address, rest),
    }
    if scheme == HTTP and rest:
        raise InputError(
            f"{address} names a machine: http alone takes what is pushed to this one; a phone is {EXAMPLES['ws']}"
        )
    if scheme not in makers:
        raise unknown("source", scheme, SCHEMES)
    return makers[scheme]()


def all_opened(addresses: Iterable[str], folder: Folder, *, speed: float = 1.0) -> list[Source]:
    """The sources at some addresses, each once.

    Raises:
        InputError: two are the same, whose readings would all come twice to one stream; and what :func:`opened` raises.
        MissingDependency: see :func:`opened`.
    """
    found: dict[str, Source] = {}
    for address in addresses:
        source = opened(address, folder, speed=speed)
        key = os.path.realpath(source.name) if Path(source.name).is_file() else source.name
        if key in found:
            raise InputError(f"{address} is {source.name}, which is given already: give each source once")
        found[key] = source
    return list(found.values())


def _replay(address: str, what: str, folder: Folder, speed: float) -> Source:
    from edgeseq.devices.live.sources.replay import Replay, frames_as_arrivals
    from edgeseq.events import streams
    from edgeseq.lineage import trained_on
    from edgeseq.signal.arrivals import read_capture

    if not what:
        raise _wrong(address, "names no recording")
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


def _mqtt(address: str) -> Source:
    from edgeseq.devices.live.sources.mqtt import PORT, TOPIC, Mqtt

    url, host, port = _split(address)
    login = (unquote(url.username or ""), unquote(url.password or ""))
    return Mqtt(host, PORT if port is None else port, unquote(url.path.strip("/")) or TOPIC, *login)


def _websocket(address: str, folder: Folder) -> Source:
    from edgeseq.devices.live.sources.websocket import Websockets

    _, host, port = _split(address)
    if port is None:
        raise _wrong(address, "has no port")
    return Websockets(host, port, _sensors(folder))


def _phyphox(address: str, folder: Folder) -> Source:
    from edgeseq.devices.live.sources.phyphox import PORT, Phyphox

    _, host, port = _split(address)
    return Phyphox(host, PORT if port is None else port, _sensors(folder))


def _ble(address: str, watch: str) -> Source:
    from edgeseq.devices.live.sources.ble import Ble

    if not watch.strip():
        raise _wrong(address, "names no watch")
    return Ble(watch.strip())


def _split(address: str) -> tuple[SplitResult, str, int | None]:
    """An address, its host, and its port if it has one."""
    try:
        url = urlsplit(address, allow_fragments=False)  # # is part of a topic
        host, port = url.hostname, url.port
    except ValueError as error:
        raise _wrong(address, f"is no address of a source ({error})") from None
    if not host:
        raise _wrong(address, "names no host")
    if port == 0:
        raise _wrong(address, "has port 0, which nothing listens to")
    return url, host, port


def _wrong(address: str, why: str) -> InputError:
    return InputError(f"{address} {why}; an address of that kind: {EXAMPLES[address.partition(':')[0]]}")


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
