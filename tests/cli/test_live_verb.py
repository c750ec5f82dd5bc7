"""``edgeseq stream --source``: a stream on the terminal, what is kept of it, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from edgeseq.data import load

STREAM = [sys.executable, "-m", "edgeseq", "stream"]


def stream(*arguments: str | Path, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([*STREAM, *map(str, arguments)], input=stdin, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def line(number: int, values: list[float]) -> bytes:
    return json.dumps({"time": 20_000_000 * number, "values": values}).encode() + b"\n"


LINES = b"".join(line(number, [0.1, -0.9, 0.2, 0.0, number % 7 / 10, 0.0]) for number in range(200))


def test_lines_are_answered_and_a_capture_of_them_gives_the_same(tmp_path):
    file = tmp_path / "capture.jsonl"
    lines = LINES.splitlines(keepends=True)
    disordered = b"".join(lines[number + 4 - 2 * (number % 5)] for number in range(len(lines)))  # five by five
    first = json.loads(stream("har_watch", "--source", "stdin", "--record", file, "--json", stdin=disordered).stdout)
    second = json.loads(stream("har_watch", "--source", f"replay:{file}", "--speed", "0", "--json").stdout)
    assert first["streams"]["stdin"]["counts"]["frames"] == 200
    for document in (first, second):
        for name in ("step_us", "total_us", "delay"):
            document["streams"]["stdin"].pop(name)
    assert first == second
    assert first["streams"]["stdin"]["counts"]["late"] == 0


def test_the_terminal_shows_answers_gaps_and_what_it_came_to():
    later = b"".join(line(1000 + number, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]) for number in range(50))
    said = stream("har_watch", "--source", "stdin", stdin=LINES + later + b"nonsense\n")
    text = said.stdout.decode()
    assert "standard input through har_watch" in text
    assert "stdin: nothing came for 16.02 s; the state starts anew" in text
    assert "250 frames, 0 bridged, 1 gaps" in text
    assert "1 messages were refused, the last because this is not a line of a frame" in " ".join(
        said.stderr.decode().split()
    )


def without_gyroscope(number: int, time: int = 0) -> str:
    """A line of a capture: three seconds of a watch that says what its accelerometer does, and nothing else."""
    values, begin = {"x": 0, "y": 0, "z": -1}, 10**18 + number * 3 * 10**9
    payload = [
        {"name": "accelerometerUncalibrated", "time": begin + i * 20_000_000, "values": values} for i in range(150)
    ]
    message = json.dumps({"messageId": number, "sessionId": "s", "deviceId": "w", "payload": payload})
    return json.dumps({"time": time, "format": "sensor-logger", "text": message}) + "\n"


def test_a_stream_without_gyroscope_is_refused_with_what_to_do(tmp_path):
    file = tmp_path / "capture.jsonl"
    file.write_text(without_gyroscope(1))
    said = stream("har_watch", "--source", f"replay:{file}", code=2).stderr.decode()
    assert "lacks the gyroscope, which har_watch was trained with" in said
    assert "or use a model that was trained without it: har_watch_acc" in said


def test_a_stream_without_gyroscope_is_answered_by_a_model_that_was_trained_without_it(tmp_path):
    file = tmp_path / "capture.jsonl"
    file.write_text(without_gyroscope(1))
    document = json.loads(stream("har_watch_acc", "--source", f"replay:{file}", "--json").stdout)
    (found,) = document["streams"].values()
    assert (found["counts"]["frames"], found["missing"]) == (150, "")


def test_the_accelerations_of_a_recording_are_answered_line_by_line():
    lines = [
        line(number, recording) for number, recording in enumerate(load("spar_watch_acc").recordings[0].x.tolist())
    ]
    said = stream("har_watch_acc", "--source", "stdin", "--json", stdin=b"".join(lines[:500]))
    (found,) = json.loads(said.stdout)["streams"].values()
    assert found["counts"]["frames"] == 500
    refused = stream("har_watch", "--source", "stdin", stdin=b"".join(lines[:5]), code=2).stderr.decode()
    assert "5 messages were refused" in refused
    assert "a frame of 3 values came: 6 are needed (ax, ay, az, wx, wy, wz)" in " ".join(refused.split())


def test_what_a_stream_lacks_is_told_once_while_it_still_comes(tmp_path):
    file = tmp_path / "capture.jsonl"
    file.write_text("".join(without_gyroscope(number, time=2 * 10**9 * number) for number in range(3)))  # 4 s of it
    said = stream("har_watch", "--source", f"replay:{file}", code=2).stdout.decode()
    assert said.count("w: no answer is possible, the stream lacks the gyroscope") == 1


def test_who_leaves_while_it_is_told_ends_it_without_a_traceback():
    lines = b"".join(line(number, [0.1, -0.9, 0.2 * (number // 200 % 9), 0.0, 0.0, 0.0]) for number in range(3000))
    process = subprocess.Popen(
        [*STREAM, "har_watch", "--source", "stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with suppress(BrokenPipeError):
        process.stdin.write(lines)
        process.stdin.close()
    said = process.stderr.read()
    assert process.wait(60) != 0
    assert b"Traceback" not in said
    assert b"bug" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["har_watch", "--source", "relpay:x"], "replay"),
        (["har_watch", "--source", "http"], "pass --page"),
        (["har_watch", "--source", "stdin", "--subject", "3"], "leave --input, --data, --subject out"),
        (["har_watch", "har_watch_fp32"], "2 folders are for live streams"),
        (["har_watch", "--record", "x"], "are for live streams"),
        (["digits", "--source", "stdin"], "answers segments"),
        (["har_watch", "digits", "--source", "stdin"], "digits answers segments"),
        (["har_watch", "--source", "stdin", "--record", "no/such/folder/x"], "cannot be written"),
        (["har_watch", "--page", "--host", "203.0.113.1"], "cannot be served"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments, said):
    text = stream(*arguments, code=2).stderr.decode()
    assert said in text
    assert len(text.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = stream("har_watch", "--page", "--port", port, code=2).stderr.decode()
    assert f"port {port} cannot be served" in said


def test_other_addresses_than_loopback_get_a_token_and_an_interrupt_ends_it_in_order():
    command = [*STREAM, "har_watch", "--page", "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    shown = next(text for text in process.stdout if text.startswith("look at ")).split()[-1]
    url, _, token = shown.partition("?token=")
    port = int(url.rstrip("/").rpartition(":")[2])
    assert len(token) >= 16
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/sensor-logger", data=b"{}", method="POST")
    with pytest.raises(OSError, match="401"):
        urllib.request.urlopen(request, timeout=5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
