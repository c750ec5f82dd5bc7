"""``edgeseq stream --source``: a stream as it comes, on the terminal or on a page."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseq.cli.output import Document, Show, need
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import Folder, open_folder, pretrained

if TYPE_CHECKING:
    from edgeseq.devices.live.hub import Hub, OnEvent
    from edgeseq.devices.live.sources import Source
    from edgeseq.devices.live.wearer import Event

PORT = 8420
POLL = 0.2  # seconds between two looks whether it is over, or a stream lacks something
REORDER = 0.2  # seconds: what networks do to messages; a replay needs none of it


class Page:
    """Where the page is served, and who may look at it."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        """Take the address, and make a token where others may reach it.

        Raises:
            InputError: it cannot be had.
            MissingDependency: what serves the page is not installed.
        """
        need("the page", "live", "starlette", "uvicorn", "websockets")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.create_server((host, port), family=family)
            # What is accepted inherits it: without, an answer's second packet waits 40 ms for the acknowledgement.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise InputError(f"{host} port {port} cannot be served: {error.strerror}; choose --port") from None
        self.port = self.socket.getsockname()[1]
        self.is_open = not _is_loopback(host)
        self.token = token or (secrets.token_urlsafe(12) if self.is_open else None)
        own = socket.gethostname().lower()
        self.hosts = frozenset({"localhost", host.lower(), own, f"{own}.local"} if self.is_open else {"localhost"})
        shown = host if host not in ("0.0.0.0", "::") else own if "." in own else f"{own}.local"
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"

    def serve(self, hub: Hub, recordings: Path, *, until: Callable[[], bool]) -> None:
        """Serve ``until`` it is over, or until interrupted."""
        import uvicorn

        from edgeseq.devices.live.server import application

        app = application(hub, recordings=recordings, hosts=self.hosts, token=self.token)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            ws_max_size=1 << 16,
            limit_concurrency=100,
            timeout_graceful_shutdown=1,
        )
        server, ended = uvicorn.Server(config), threading.Event()

        def watch() -> None:
            while not ended.wait(POLL):
                server.should_exit |= until()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[self.socket])
        ended.set()
        watcher.join()


@dataclass(frozen=True)
class Asked:
    """What is asked of a live stream. ``speed``: of replays; ``reorder``: seconds, None for what suits the sources."""

    addresses: Sequence[str]
    speed: float = 1.0
    engine: str | None = None
    reorder: float | None = None
    record: Path | None = None
    page: Page | None = None

    @property
    def waits(self) -> float:
        """How late a reading may come: what a data set replays is in order; a network is not, nor a capture of one."""
        if self.reorder is not None:
            return self.reorder
        replayed = [address.removeprefix("replay:") for address in self.addresses if address.startswith("replay:")]
        in_order = len(replayed) == len(self.addresses) and not any(Path(what).is_file() for what in replayed)
        return 0.0 if in_order else REORDER


def live(show: Show, folders: Sequence[Path], asked: Asked) -> Document:
    """Answer what comes from sources until they end, or until interrupted; the last of it is in the document."""
    from edgeseq.devices.live.hub import Hub
    from edgeseq.devices.live.sources.address import HTTP, all_opened, names

    models = _named([open_folder(folder) for folder in folders])
    first = next(iter(models.values()))
    sources = all_opened([address for address in asked.addresses if address != HTTP], first, speed=asked.speed)
    if HTTP in asked.addresses and asked.page is None:
        raise InputError("the source http is served with the page: pass --page")
    tell = _teller(show) if asked.page is None else lambda *_: None
    hub = Hub(models, reorder=asked.waits, engine=asked.engine, on_event=tell)
    try:
        hub.record(asked.record)
        show.text(f"{names(sources) or 'what is pushed here'} through {', '.join(models)}")
        _run(show, hub, sources, asked)
        hub.end()
        return _summed(show, hub, models)
    finally:
        hub.close()


def _run(show: Show, hub: Hub, sources: Sequence[Source], asked: Asked) -> None:
    """Let the sources run, and the page be looked at, until all is said or somebody interrupts."""
    stop = threading.Event()
    failed: list[EdgeseqError] = []
    broke: list[BaseException] = []

    def run(source: Source) -> None:
        from edgeseq.signal.arrivals import Arrival

        def put(arrival: Arrival) -> None:
            hub.put(arrival, wait=True)  # one that is no message is counted and shown, and ends no stream

        try:
            source.run(put, stop, show.note)
        except EdgeseqError as error:
            failed.append(error)
            show.note(f"{source.name}: {error}")
        except BaseException as error:  # a mistake of ours ends all, and is seen
            broke.append(error)

    threads = [threading.Thread(target=run, args=(source,), name=source.name, daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    try:
        if asked.page is not None:
            _invite(show, asked.page)
            recordings = Path() if asked.record is None else asked.record.parent
            asked.page.serve(hub, recordings, until=lambda: bool(broke) or hub.has_failed)
        else:
            told: set[str] = set()
            while any(thread.is_alive() for thread in threads) and not broke and not hub.has_failed:
                time.sleep(POLL)
                _say_what_lacks(show, hub, told)
    except KeyboardInterrupt:
        show.note("stopped")
    finally:
        stop.set()
        for thread in threads:
            thread.join(2.0)
    if broke:
        raise broke[0]
    if failed and len(failed) == len(sources):
        raise failed[0]


def _say_what_lacks(show: Show, hub: Hub, told: set[str]) -> None:
    """Say of each stream, once, what keeps it from being answered: no event does."""
    for name, missing in hub.missing.items():
        if missing and name not in told:
            told.add(name)
            show.line(f"{name}: no answer is possible, the stream lacks {missing}", "yellow")


def _invite(show: Show, page: Page) -> None:
    asked = f"?token={page.token}" if page.token else ""
    show.line(f"look at {page.url}{asked}", "bold")
    if page.is_open:
        show.text(f"Sensor Logger pushes to {page.url}sensor-logger{asked}")
    show.note("Ctrl-C ends it")


def _teller(show: Show) -> OnEvent:
    """What says each new answer, and each gap."""
    from edgeseq.devices.live.wearer import Answered

    begun: dict[str, int] = {}

    def tell(name: str, event: Event) -> None:
        seconds = (event.time - begun.setdefault(name, event.time)) / 1e9
        if not isinstance(event, Answered):
            show.line(f"{seconds:9.2f} s  {name}: {event.why}; the state starts anew", "yellow")
        elif event.answer.changed:
            answer = event.answer
            show.line(f"{seconds:9.2f} s  {name}: {answer.label:<10} {100 * answer.probability:3.0f} %")

    return tell


def _summed(show: Show, hub: Hub, models: Mapping[str, Folder]) -> Document:
    """The last of every stream.

    Raises:
        InputError: nothing at all could be answered of what came.
    """
    seen, said = hub.look({}), list[str]()
    for name, stream in seen["streams"].items():
        stream.pop("frames")
        counts, step = stream["counts"], stream["step_us"] or {"p50": 0.0, "p99": 0.0}
        left_out = counts["late"] + counts["doubled"] + counts["impossible"]
        rows = [
            (name, f"{counts['frames']:,} frames, {counts['bridged']:,} bridged, {counts['gaps']} gaps"),
            ("readings", f"{counts['readings']:,}, {left_out:,} left out; frames wait {1000 * stream['delay']:.0f} ms"),
            ("a frame", f"{step['p50']:.0f} us (p50), {step['p99']:.0f} us (p99)"),
        ]
        show.line()
        show.facts(rows)
        if stream["missing"]:
            said.append(_lacking(name, stream, models[stream["model"]]))
    if seen["refused"]:
        said.append(f"{seen['refused']} messages were refused, the last because {seen['why']}")
    if said and not any(stream["counts"]["frames"] for stream in seen["streams"].values()):
        raise InputError("; ".join(said))
    for each in said:
        show.warn(each)
    return {"streams": seen["streams"], "refused": seen["refused"]}


def _lacking(name: str, stream: Mapping[str, Any], folder: Folder) -> str:
    """What a stream lacks, and what to do."""
    missing, model = stream["missing"], stream["model"]
    return (
        f"{name} lacks {missing}, which {model} was trained with: switch it on where it comes from, or use a model "
        f"that was trained without it{_without(missing, folder)}"
    )


def _without(missing: str, folder: Folder) -> str:
    """Which of the models that come with edgeseq answer what ``folder`` does without what is ``missing``, in words."""
    from edgeseq.signal.layout import Layout

    found = []
    for name in pretrained():
        with suppress(InputError):  # hidden by a folder of that name
            other = open_folder(name).manifest
            sensors = Layout(other.input.channels).sensors
            if sensors and other.labels == folder.manifest.labels and not any(each in missing for each in sensors):
                found.append(name)
    return f": {' or '.join(found)}" if found else ""


def _named(folders: Sequence[Folder]) -> dict[str, Folder]:
    """Folders by their names, which are made different where they are not."""
    found: dict[str, Folder] = {}
    for folder in folders:
        name = folder.manifest.name
        found[name if name not in found else str(folder.path)] = folder
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
