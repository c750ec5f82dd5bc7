"""``edgeseq bench --device`` where no board is needed: what is refused, what is kept, and boards that do not answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable

import msgspec
import pytest

from edgeseq.devices.bench import bench_side_by_side
from edgeseq.devices.remote import boards
from edgeseq.devices.remote.inventory import Device, add_device
from edgeseq.devices.remote.remote_bench import Benched
from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import open_folder

from ...command_line import call as edgeseq
from .conftest import free_port, wait_until

MODEL = "har_watch_fp32"
SHORT = ("--engine", "numpy", "--seconds", "0.02", "--paced-seconds", "0.1")


@pytest.fixture
def kitchen(inventory):
    """A board in the inventory that is not there."""
    device = Device(f"ssh://127.0.0.1:{free_port()}")
    add_device("kitchen", device)
    return device


def test_a_device_that_fails_alone_fails_with_its_own_words(tmp_path):
    port = free_port()
    done = edgeseq("bench", MODEL, *SHORT, "--device", f"ssh://127.0.0.1:{port}", "--out", tmp_path / "bench.json")
    assert done.code == 6
    assert f"nothing answers on port {port}" in done.err
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "kitchn"], "Did you mean 'kitchen'?"),
        (["--device", "kitchen", "--device", "URL"], "are the same device"),
        (["--device", "-oProxyCommand=x"], "is no name"),
        (["--device", "kitchen", "--engine", "litertt"], "Did you mean 'litert'?"),
        (["--device", "kitchen", "--duration", "1h"], "--duration needs --out FILE"),
        (["--device", "kitchen", "--device", "local", "--duration", "1h", "--out", "x"], "a command of its own"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_a_board_is_asked(kitchen, arguments, said):
    given = [kitchen.url if each == "URL" else each for each in arguments]
    done = edgeseq("bench", MODEL, *(["--engine", "litert"] if "--engine" not in given else []), *given)
    assert done.code == 2
    assert said in done.err
    assert "connecting" not in done.err


def test_a_board_that_fails_does_not_lose_what_this_machine_measured(kitchen, tmp_path):
    out = tmp_path / "bench.json"
    command = ("bench", MODEL, *SHORT, "--device", "kitchen", "--device", "local", "--out", out)
    done = edgeseq(*command, "--json")
    assert done.code == 6
    assert done.document["error"]["message"] == "1 of 2 devices failed: kitchen"
    assert done.document["devices"]["kitchen"]["error"]["type"] == "DeviceUnreachable"
    assert [row["device"] for row in done.document["rows"]] == ["local"]
    assert [report["device"] for report in json.loads(out.read_text(encoding="utf-8"))["reports"]] == ["local"]


def test_a_failed_device_comes_ahead_of_a_missed_budget_which_is_said(kitchen):
    done = edgeseq("bench", MODEL, *SHORT, "--device", "kitchen", "--device", "local", "--max-rss", "1MB")
    assert done.code == 6
    assert "over the budget" in " ".join(done.err.split())


def test_this_machine_alone_is_called_local_when_it_is_named(tmp_path):
    named = edgeseq("bench", MODEL, *SHORT, "--device", "local", "--json")
    assert [row["device"] for row in named.document["rows"]] == ["local"]
    assert [row["device"] for row in edgeseq("bench", MODEL, *SHORT, "--json").document["rows"]] == [""]


def test_a_board_that_cannot_be_cleaned_is_not_forgotten(inventory):
    add_device("shed", Device(f"ssh://127.0.0.1:{free_port()}"))
    assert edgeseq("devices", "remove", "shed", "--clean").code == 6
    assert "shed" in edgeseq("devices", "list", "--json").document["devices"]


@pytest.fixture(scope="module")
def report():
    """What a board would measure."""
    folder = open_folder(MODEL)
    (measured,) = bench_side_by_side([folder], ["numpy"], seconds=0.02, paced_seconds=0.06)
    return measured


@pytest.fixture
def board(inventory, monkeypatch, report) -> Callable[..., None]:
    """Makes boards that do what a test says, without a link: ``board(name, what it does)``; it measures, if nothing."""
    does: dict[str, Callable[[], Benched]] = {}

    class Link:
        def __init__(self, name: str) -> None:
            self.name = name
            self.closed = threading.Event()
            self.close = self.closed.set

    @contextlib.contextmanager
    def connect(target, accept_new, *, name):
        yield Link(name)

    def bench_board(link, device, folders, asked, say, keep) -> Benched:
        say("measuring")
        link.keep = keep
        return does[link.name](link)

    def measure(link) -> Benched:
        return Benched([(open_folder(MODEL), msgspec.structs.replace(report, device=link.name))], ["a note"])

    def add(name: str, what: Callable[[Link], Benched] = measure) -> None:
        does[name] = what
        add_device(name, Device(f"ssh://{name}"))

    monkeypatch.setattr(boards, "connect", connect)
    monkeypatch.setattr(boards, "bench_board", bench_board)
    return add


def kept(out) -> list[str]:
    return [report["device"] for report in json.loads(out.read_text(encoding="utf-8"))["reports"]]


def bench_boards(*names, out):
    return edgeseq("bench", MODEL, *(word for name in names for word in ("--device", name)), "--out", out)


def test_a_bug_that_one_board_meets_does_not_lose_the_others(board, tmp_path):
    def fail(link):
        raise ZeroDivisionError("of a board")

    board("shed", fail)
    board("kitchen")
    done = bench_boards("shed", "kitchen", out=tmp_path / "bench.json")
    assert done.code == 1
    assert "ZeroDivisionError: of a board" in done.err
    assert "in fail" in done.err  # the traceback of where it came from
    assert kept(tmp_path / "bench.json") == ["kitchen"]
    assert "a note" in done.out
    assert "shed" in done.out
    assert "not measured" in done.out


def test_an_interruption_keeps_what_is_through_and_closes_the_other_links(board, tmp_path):
    links = []

    def wait(link):
        links.append(link)
        assert wait_until(lambda: "kitchen: done" in sys.stderr.getvalue())
        os.kill(os.getpid(), signal.SIGINT)
        assert link.closed.wait(30)
        raise GateFailed("shed: the link was closed")

    board("kitchen")
    board("shed", wait)
    done = bench_boards("kitchen", "shed", out=tmp_path / "bench.json")
    assert done.code == 130
    assert links[0].closed.is_set()
    assert kept(tmp_path / "bench.json") == ["kitchen"]
    assert "a note" in done.out
    assert "FAILED" not in done.out
    assert "Traceback" not in done.err


def test_an_interruption_of_this_machine_keeps_what_boards_have_measured(board, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeseq.cli.bench_devices.bench_folders", interrupted)
    board("kitchen")
    assert bench_boards("kitchen", "local", out=tmp_path / "bench.json").code == 130
    assert kept(tmp_path / "bench.json") == ["kitchen"]


def test_a_report_that_leaves_its_board_is_written_before_the_others_are_through(board, tmp_path, report):
    out = tmp_path / "bench.json"

    def leave(link):
        link.keep([msgspec.structs.replace(report, device=link.name)])
        assert kept(out) == ["kitchen"]
        raise GateFailed("kitchen: the link was lost after that")

    board("kitchen", leave)
    board("shed")
    assert bench_boards("shed", "kitchen", out=out).code == 5
    assert kept(out) == ["shed", "kitchen"]


def test_what_cannot_be_written_is_shown_all_the_same(board, tmp_path, monkeypatch):
    def full(out, document):
        raise InputError(f"{out} cannot be written: No space left on device")

    monkeypatch.setattr("edgeseq.cli.bench_devices.write_report", full)
    board("kitchen")
    done = bench_boards("kitchen", out=tmp_path / "bench.json")
    assert done.code == 2
    assert done.err.count("No space left on device") == 1
    assert "Fastest at the sensor's rate" in done.out


def test_an_interruption_is_told_as_one_also_where_nothing_can_be_written(board, tmp_path, monkeypatch):
    def full(out, document):
        raise InputError(f"{out} cannot be written: No space left on device")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeseq.cli.bench_devices.write_report", full)
    monkeypatch.setattr("edgeseq.cli.bench_devices.bench_folders", interrupted)
    board("kitchen")
    done = bench_boards("kitchen", "local", out=tmp_path / "bench.json")
    assert done.code == 130
    assert "No space left on device" in " ".join(done.err.split())
    assert "a note" in done.out


@pytest.mark.parametrize("name", ["nowhere/bench.json", "folder"])
def test_a_file_that_could_not_be_written_is_refused_before_a_board_is_asked(board, tmp_path, name):
    (tmp_path / "folder").mkdir()
    board("kitchen", lambda link: pytest.fail("it was asked"))
    done = bench_boards("kitchen", out=tmp_path / name)
    assert done.code == 2
    assert "cannot be written" in done.err
    assert "connecting" not in done.err


def test_an_interruption_before_anything_is_through_leaves_no_file(board, tmp_path):
    def interrupt(link):
        os.kill(os.getpid(), signal.SIGINT)
        assert link.closed.wait(30)
        return Benched([], [])

    board("shed", interrupt)
    assert bench_boards("shed", out=tmp_path / "bench.json").code == 130
    assert not (tmp_path / "bench.json").exists()


def test_a_folder_that_fails_on_a_board_does_not_lose_its_others(board, tmp_path, report):
    failure = GateFailed("kitchen: checking wrong: it does not hold")
    board(
        "kitchen",
        lambda link: Benched([(open_folder(MODEL), msgspec.structs.replace(report, device="kitchen"))], [], failure),
    )
    done = bench_boards("kitchen", out=tmp_path / "bench.json")
    assert done.code == 5
    assert "kitchen: checking wrong" in done.err
    assert "FAILED: kitchen: checking wrong" in done.out
    assert "Fastest at the sensor's rate" in done.out
    assert kept(tmp_path / "bench.json") == ["kitchen"]


@pytest.mark.parametrize(
    "option", [["--python", "python3.12"], ["--wheelhouse", "wheels"], ["--accept-new-host-key"]], ids=lambda o: o[0]
)
@pytest.mark.parametrize("device", [[], ["--device", "local"]], ids=["unnamed", "local"])
def test_what_only_a_board_can_be_asked_for_is_refused_without_one(option, device):
    done = edgeseq("bench", MODEL, *SHORT, *option, *device)
    assert done.code == 2
    assert f"{option[0]} is for boards, and none is named: --device" in done.err
