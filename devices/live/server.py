"""The page, and what apps push to: starlette, on loopback unless told otherwise.

    GET  /                     the page, and its two files
    POST /sensor-logger        a message of Sensor Logger
    WS   /look                 {"since": {stream: number}} in, how the streams stand out, a few times a second
    POST /model                {"stream": ..., "model": ...}
    POST /record               {"on": true} or {"on": false}

Where there is a token, as there is on any address but loopback, all but the page's own files need it, in the query
(``?token=``) or as ``Authorization: Bearer``. What changes something, and the websocket, is refused to pages of other
origins; and so is any request whose Host is neither ours nor an address, so that no name that somebody else points here
can be used to ask.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgeseq.devices.live.hub import Hub, TooBusy
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.signal.arrivals import Arrival
from edgeseq.signal.senders.message import MAX_BYTES

EVERY = 0.1  # seconds between two looks of a page
LOOKERS = 16  # pages at a time
BODY_SECONDS = 10.0  # in which what is sent must have come
UNREADABLE, LATER = 1003, 1013  # why a websocket is closed, as RFC 6455 and its registry have it
LOCAL = frozenset({"localhost"})
Handler = Callable[[Request], Awaitable[Response]]
Asked = TypeVar("Asked")
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'"
)


class _Since(msgspec.Struct):
    since: dict[str, int] = {}


class _Model(msgspec.Struct):
    stream: str
    model: str


class _Record(msgspec.Struct):
    on: bool


class Guard:
    """Lets in who may ask; see the module."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(HTTPConnection(scope))
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)

    def _refused(self, asked: HTTPConnection) -> tuple[int, str] | None:
        """Why a request is not let in, and the status that says so."""
        host = asked.headers.get("host", "")
        if _name_of(host) not in self._hosts and not _is_address(_name_of(host)):
            return 421, f"this is not {host[:100]}"
        changes = asked.scope["type"] == "websocket" or asked.scope.get("method") not in ("GET", "HEAD")
        origin = asked.headers.get("origin")
        if changes and origin is not None and origin.partition("://")[2] != host:
            return 403, "another page's requests are refused"
        if self._token is not None and asked.url.path not in PAGE:
            given = asked.query_params.get("token") or asked.headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self._token.encode()):
                return 401, "the token is needed: ?token=..., or the header Authorization: Bearer ..."
        return None


def _name_of(host: str) -> str:
    """The host without its port."""
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host


def _is_address(name: str) -> bool:
    """Whether it is an IP address, which no name that somebody else points here is."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def application(hub: Hub, *, recordings: Path, hosts: frozenset[str] = LOCAL, token: str | None = None) -> Starlette:
    """The server of a hub's streams. ``recordings``: the folder that captures are written to, by names of their own."""

    async def page(request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        content = (files("edgeseq.devices.live") / "page" / name).read_bytes()
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return Response(content, media_type=kind, headers=headers)

    async def sensor_logger(request: Request) -> Response:
        arrival = Arrival(time.time_ns(), "sensor-logger", await _body(request))
        try:
            await asyncio.wrap_future(hub.put(arrival))
        except TooBusy as error:
            return JSONResponse({"error": str(error)}, 503)
        return JSONResponse({"ok": True})

    async def model(request: Request) -> Response:
        asked = _decoded(await _body(request), _Model)
        await asyncio.to_thread(hub.choose, asked.stream, asked.model)
        return JSONResponse({"ok": True})

    async def record(request: Request) -> Response:
        asked = _decoded(await _body(request), _Record)
        name = f"{datetime.now(timezone.utc):%Y-%m-%dT%H-%M-%S.%fZ}.jsonl"
        file = recordings / name if asked.on else None
        await asyncio.to_thread(hub.record, file)
        return JSONResponse({"recording": name if asked.on else None})

    lookers: set[WebSocket] = set()

    async def look(socket: WebSocket) -> None:
        await socket.accept()
        if len(lookers) == LOOKERS:
            await _close(socket, LATER, f"{LOOKERS} pages look already: close one of them")
            return
        lookers.add(socket)
        since: dict[str, int] = {}
        try:
            while True:  # the page says how far it has come: one that is slow is asked less often
                await socket.send_text(msgspec.json.encode(hub.look(since)).decode())
                since = (await _asked(socket)).since
                await asyncio.sleep(EVERY)
        except WebSocketDisconnect:
            return
        except InputError as error:
            await _close(socket, UNREADABLE, str(error)[:100])
        finally:
            lookers.discard(socket)

    return Starlette(
        routes=[
            *(Route(path, page) for path in PAGE),
            Route("/sensor-logger", _answering(sensor_logger), methods=["POST"]),
            Route("/model", _answering(model), methods=["POST"]),
            Route("/record", _answering(record), methods=["POST"]),
            WebSocketRoute("/look", look),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
    )


def _answering(handle: Handler) -> Handler:
    """Bad input is answered with what is wrong with it."""

    async def handled(request: Request) -> Response:
        try:
            return await handle(request)
        except asyncio.TimeoutError:
            said = f"it did not come whole within {BODY_SECONDS:.0f} s"
            return JSONResponse({"error": said}, 408, headers={"Connection": "close"})
        except _TooLong as error:
            return JSONResponse({"error": str(error)}, 413, headers={"Connection": "close"})
        except EdgeseqError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it

    return handled


class _TooLong(InputError):
    """A body that is not read to its end."""


async def _body(request: Request) -> bytes:
    """What was sent, read no further than a message may be long.

    Raises:
        InputError: it is longer.
        TimeoutError: it does not come.
    """

    async def read() -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > MAX_BYTES:
                raise _TooLong(f"more than {MAX_BYTES:,} bytes came: send smaller batches")
            parts.append(part)
        return b"".join(parts)

    return await asyncio.wait_for(read(), BODY_SECONDS)


async def _close(socket: WebSocket, code: int, why: str) -> None:
    with suppress(WebSocketDisconnect):  # it has gone by itself
        await socket.close(code, why)


async def _asked(socket: WebSocket) -> _Since:
    """What a page asks for next.

    Raises:
        InputError: something else came.
        WebSocketDisconnect: it has gone.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return _decoded((message.get("text") or "").encode(), _Since)


def _decoded(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"that is not what is asked for here: {error}") from None
