"""Four watches at once on a live page: how long answers take, with and without people who look.

    python benchmarks/live_watches.py --out benchmarks/results/live_watches.json

``edgeseq stream har_watch --source http --page`` in a process of its own, to which ``--watches`` clients push a
recording of spar_watch at its own 50 Hz, as Sensor Logger would: every reading in a message of its own, or ten in one.
Beside them nobody looks, or three pages do, of which one reads nothing of what it is sent. The four cases take turns,
``--rounds`` of ``--seconds`` each, and the server is a fresh one in each.

``answer`` is the server's own time from the arrival of a message to its last answer, ``step`` the model's step and
decision in it (p50 and p99 of the last 1,000, us), ``post`` what a client waits for the server's answer over a kept
connection (ms). ``cpu`` is the share of one core that the server takes. ``frames`` is how many were answered, of how
many there were to answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from processes import count
from side_by_side import write_result
from websockets.sync.client import connect

from edgeseq.data import load

PERIOD = 20_000_000  # ns
CASES = [(batch, lookers) for batch in (1, 10) for lookers in (0, 3)]
STARTED = 30.0  # seconds in which the server must say where it is
KEYS = ("accelerationX", "accelerationY", "accelerationZ", "rotationRateX", "rotationRateY", "rotationRateZ")


@contextmanager
def served(model: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of live streams and its port."""
    command = [sys.executable, "-m", "edgeseq", "stream", model, "--source", "http", "--page", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen(
            command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        watchdog = threading.Timer(STARTED, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                    watchdog.cancel()
                    yield process, int(found[1])
                    break
            else:
                raise SystemExit("the server did not start")
        finally:
            watchdog.cancel()
            process.kill()


def messages(rows: Sequence[Sequence[float]], watch: int, batch: int) -> Iterator[tuple[int, bytes]]:
    """Messages of Sensor Logger, without end, and the number of the reading after which each is due."""
    number, sent = 0, time.time_ns()
    while True:
        payload = []
        for each in range(number, number + batch):
            ax, ay, az, *turning = rows[each % len(rows)]
            values = dict(zip(KEYS, (ax, ay, az + 1.0, *turning), strict=True))
            values |= {"gravityX": 0.0, "gravityY": 0.0, "gravityZ": -1.0}
            payload.append({"name": "wrist motion", "time": sent + each * PERIOD, "values": values})
        body = {"messageId": number // batch, "sessionId": "s", "deviceId": f"watch {watch}", "payload": payload}
        number += batch
        yield number, json.dumps(body).encode()


def push(port: int, watch: int, batch: int, rows: Sequence[Sequence[float]], seconds: float) -> list[float]:
    """Push at the recording's rate; what each message waited for its answer, in ms."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    waited, begin = [], time.monotonic_ns() + watch * PERIOD // 4
    for due, body in messages(rows, watch, batch):
        if due * PERIOD > seconds * 1e9:
            connection.close()
            return waited
        time.sleep(max(0, begin + due * PERIOD - time.monotonic_ns()) / 1e9)
        sent = time.monotonic_ns()
        connection.request("POST", "/sensor-logger", body)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"watch {watch} was answered {answer.status}")
        waited.append((time.monotonic_ns() - sent) / 1e6)
    raise AssertionError


def looking(port: int, stop: threading.Event) -> None:
    """A page that draws ten times a second."""
    with connect(f"ws://127.0.0.1:{port}/look", max_size=None) as page:
        while not stop.is_set():
            seen = json.loads(page.recv())
            page.send(json.dumps({"since": {name: stream["number"] for name, stream in seen["streams"].items()}}))


def deaf(port: int, stop: threading.Event) -> None:
    """A page that asks and reads nothing of what it is sent."""
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(
            f"GET /look HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        asked = b'{"since": {}}'
        while not stop.wait(0.1):
            raw.send(bytes([0x81, 0x80 | len(asked)]) + b"\0\0\0\0" + asked)  # masked by zeros, as itself


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def last_look(port: int) -> dict[str, Any]:
    with connect(f"ws://127.0.0.1:{port}/look", max_size=None) as page:
        found: dict[str, Any] = json.loads(page.recv())
        return found


def one(model: str, case: tuple[int, int], watches: int, seconds: float) -> dict[str, float]:
    """One case once, with a fresh server."""
    batch, lookers = case
    recordings = load("spar_watch").recordings[:watches]
    stop, waited = threading.Event(), list[float]()
    errors: list[BaseException] = []

    def guarded(call: Any, *arguments: Any) -> None:
        try:
            waited.extend(call(*arguments) or ())
        except BaseException as error:
            errors.append(error)

    with served(model) as (process, port), ExitStack() as ending:
        pages = [looking] * (lookers - 1) + [deaf] * bool(lookers)
        looks = [threading.Thread(target=guarded, args=(page, port, stop)) for page in pages]
        feeds = [
            threading.Thread(target=guarded, args=(push, port, i, batch, recording.x.tolist(), seconds))
            for i, recording in enumerate(recordings)
        ]
        before, begin = cpu_seconds(process.pid), time.monotonic()
        for thread in (*looks, *feeds):
            thread.start()
        ending.callback(stop.set)
        for thread in feeds:
            thread.join()
        cpu = (cpu_seconds(process.pid) - before) / (time.monotonic() - begin)
        seen = last_look(port)
        stop.set()
        for thread in looks:
            thread.join(5)
    if errors:
        raise errors[0]
    streams = list(seen["streams"].values())
    return {
        "streams": len(streams),
        "frames": sum(stream["counts"]["frames"] for stream in streams),
        "wanted": watches * (int(seconds * 1e9) // PERIOD // batch * batch),
        "gaps": sum(stream["counts"]["gaps"] for stream in streams),
        "left_out": sum(
            sum(stream["counts"][name] for name in ("late", "impossible", "doubled")) for stream in streams
        ),
        "refused": seen["refused"],
        **{
            f"{said}_{name}_us": max(stream[key][name] for stream in streams)
            for said, key in (("answer", "total_us"), ("step", "step_us"))
            for name in ("p50", "p99")
        },
        "post_p50_ms": float(np.percentile(waited, 50)),
        "post_p99_ms": float(np.percentile(waited, 99)),
        "cpu": cpu,
    }


def measure(model: str, watches: int, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[tuple[int, int], list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            found[case].append(one(model, case, watches, seconds))
            print(case, found[case][-1], file=sys.stderr, flush=True)
    rows = [
        {
            "readings_a_message": batch,
            "lookers": lookers,
            **{name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]},
        }
        for (batch, lookers), runs in found.items()
    ]
    return {"model": model, "watches": watches, "seconds": seconds, "rounds": rounds, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="har_watch", help="an exported folder (default: har_watch)")
    parser.add_argument("--watches", type=count, default=4)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case in each round")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--out", type=Path, help="write the result to this JSON file")
    options = parser.parse_args()
    write_result(options.out, **measure(options.model, options.watches, options.seconds, options.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
