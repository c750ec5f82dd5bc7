"""``edgeseq bench --device``; the boards are this machine behind a real link."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeseq.devices.remote.inventory import Device, add_device
from edgeseq.devices.remote.remote_bench import Asked, bench_board
from edgeseq.devices.remote.ssh import connect
from edgeseq.errors import DeviceUnreachable, InputError
from edgeseq.folder import open_folder

from ....command_line import call as edgeseq
from ..conftest import free_port, is_running, wait_until
from .conftest import DATA, MODEL, nothing_runs

pytestmark = pytest.mark.slow
SHORT = ("--engine", "litert", "--seconds", "0.02", "--paced-seconds", "0.1")
ASKED = Asked(engines=("litert",), seconds=0.02, paced_seconds=0.1)


@pytest.fixture
def kitchen(furnished, wheelhouse, inventory):
    """A board in the inventory, under that name."""
    device = Device(furnished.target.url, sys.executable, str(wheelhouse))
    add_device("kitchen", device)
    return device


def test_a_board_and_this_machine_come_into_one_report(kitchen, furnished, tmp_path):
    out = tmp_path / "bench.json"
    done = edgeseq("bench", MODEL, *SHORT, "--device", "kitchen", "--device", "local", "--out", out, "--json")
    assert done.code == 0, done.err
    document = done.document
    assert list(document["devices"]) == ["kitchen", "local"]
    assert [(row["device"], row["engine"]) for row in document["rows"]] == [("kitchen", "litert"), ("local", "litert")]
    assert document["rows"][0]["paced_us"]["p50"] > 0
    reports = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert [report["device"] for report in reports] == ["kitchen", "local"]
    assert len(reports[0]["engines"][0]["paced"]["call_ns"]) == document["rows"][0]["paced_frames"]
    assert nothing_runs(furnished)
    page = tmp_path / "page"
    made = edgeseq("report", MODEL, "--bench", out, "--no-baseline", "--out", page)
    assert made.code == 0, made.err
    assert "kitchen" in (page / "report.md").read_text(encoding="utf-8")


def test_folders_are_measured_in_turns_and_checked_once(kitchen):
    command = ("bench", MODEL, "har_watch", *SHORT, "--device", "kitchen", "--json")
    done = edgeseq(*command)
    assert done.code == 0, done.err
    assert [row["name"] for row in done.document["rows"]] == [MODEL, "har_watch"]
    assert f"kitchen: measuring {MODEL}, har_watch\n" in done.err
    again = edgeseq(*command)
    assert again.code == 0, again.err
    assert "checking" not in again.err
    for name in (MODEL, "har_watch"):
        assert f"kitchen: {name} passed its check there before\n" in again.err


def test_conditions_go_to_the_board(kitchen):
    conditions = ("--threads", "2", "--priority", "7", "--pin", "0", "--rate", "100")
    done = edgeseq("bench", MODEL, *SHORT, *conditions, "--device", "kitchen", "--json")
    assert done.code == 0, done.err
    found = done.document["devices"]["kitchen"]["conditions"]
    assert (found["threads"], found["priority"], found["pin"]) == (2, "7", [0])
    assert done.document["rows"][0]["rate"] == 100
    refused = edgeseq("bench", MODEL, *SHORT, "--pin", "1000", "--device", "kitchen")
    assert refused.code == 2
    assert f"kitchen: measuring {MODEL}: --pin 1000" in refused.err


def test_a_budget_is_judged_by_the_reports_that_came(kitchen, tmp_path):
    out = tmp_path / "bench.json"
    done = edgeseq("bench", MODEL, *SHORT, "--device", "kitchen", "--max-rss", "1MB", "--out", out, "--json")
    assert done.code == 7
    assert done.document["error"]["type"] == "BudgetMissed"
    assert done.document["rows"][0]["device"] == "kitchen"
    assert out.exists()


def test_one_that_fails_does_not_lose_the_others(kitchen, furnished, tmp_path):
    out = tmp_path / "bench.json"
    nobody = f"ssh://127.0.0.1:{free_port()}"
    command = ("bench", MODEL, *SHORT, "--device", nobody, "--device", "kitchen", "--out", out)
    done = edgeseq(*command)
    assert done.code == 6
    assert "connection refused" in done.out
    assert f"1 of 2 devices failed: {nobody}" in done.err
    assert "FAILED" in done.out
    assert [report["device"] for report in json.loads(out.read_text(encoding="utf-8"))["reports"]] == ["kitchen"]
    document = edgeseq(*command, "--json").document
    assert document["error"]["exit_code"] == 6
    assert document["devices"][nobody]["error"]["type"] == "DeviceUnreachable"
    assert document["rows"][0]["device"] == "kitchen"


def test_a_hostile_folder_runs_nothing(furnished, wheelhouse, tmp_path):
    hostile = tmp_path / "$(touch HIT); '`touch HIT` -rf"
    shutil.copytree(open_folder(MODEL).path, hostile)
    (hostile / "; touch HIT").write_text("not in the manifest")
    device = Device(furnished.target.url, sys.executable, str(wheelhouse))
    with connect(furnished.target, name="kitchen") as link:
        found = bench_board(link, device, [open_folder(hostile)], ASKED, lambda step: None)
    assert len(found.reports) == 1
    assert not list(furnished.home.rglob("*HIT*"))


def test_a_folder_that_was_damaged_on_the_board_is_sent_again(furnished, wheelhouse, model):
    device = Device(furnished.target.url, sys.executable, str(wheelhouse))
    with connect(furnished.target, name="kitchen") as link:
        bench_board(link, device, [model], ASKED, lambda step: None)
        (sent,) = (furnished.home / DATA / "folders").glob("*/model.tflite")
        sent.write_bytes(b"")
        with pytest.raises(InputError, match=r"kitchen: .*was changed after it was written.*sends it again"):
            bench_board(link, device, [model], ASKED, lambda step: None)
        bench_board(link, device, [model], ASKED, lambda step: None)
    assert sent.stat().st_size


def test_a_link_that_breaks_is_told_and_nothing_runs_on(own_server, furnish, wheelhouse, model):
    furnish(own_server)
    device = Device(own_server.target.url, sys.executable, str(wheelhouse))
    steps: list[str] = []

    def step(text: str) -> None:
        steps.append(text)
        if text.startswith("measuring"):
            threading.Thread(target=lambda: wait_until(lambda: measuring(own_server)) and own_server.kill()).start()

    asked = Asked(engines=("litert",), seconds=0.1, paced_seconds=60.0)
    with (
        connect(own_server.target, name="kitchen") as link,
        pytest.raises(DeviceUnreachable, match="kitchen: the link was lost"),
    ):
        bench_board(link, device, [model], asked, step)
    assert steps[-1].startswith("measuring")
    assert nothing_runs(own_server)


def measuring(server) -> bool:
    return any(
        b"\0bench\0" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.commands() if is_running(pid)
    )


def test_an_interruption_ends_what_runs_on_the_board(kitchen, furnished, tmp_path):
    command = [sys.executable, "-m", "edgeseq", "bench", MODEL, "--engine", "litert", "--paced-seconds", "60"]
    process = subprocess.Popen(
        [*command, "--device", "kitchen", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert wait_until(lambda: measuring(furnished), 60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert nothing_runs(furnished)
    assert "Traceback" not in err
    assert len(out.splitlines()) <= 1


def test_a_long_run_goes_on_after_the_link_was_lost(kitchen, furnished, wheelhouse, model, tmp_path):
    out = tmp_path / "long.json"
    asked = Asked(engines=("litert",), seconds=0.02, duration="3s")
    envs = furnished.home / DATA / "envs"
    with connect(furnished.target, name="kitchen") as link:
        work = (DeviceUnreachable, bench_board, link, kitchen, [model], asked, lambda step: None)
        thread = threading.Thread(target=pytest.raises, args=work)
        thread.start()
        assert wait_until(lambda: any(part.stat().st_size for part in envs.glob("*/runs/*/*.part")), 60)
        link.close()
        thread.join(30)
    assert nothing_runs(furnished)
    assert list(envs.glob("*/runs/*/*.part"))
    arguments = ("--engine", "litert", "--seconds", "0.02", "--duration", "3s", "--out", out)
    done = edgeseq("bench", MODEL, *arguments, "--device", "kitchen")
    assert done.code == 0, done.err
    (report,) = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert report["resumed"] == 1
    assert report["device"] == "kitchen"
    assert list(envs.glob("*/runs/*")) == []


def test_steps_go_to_standard_error(kitchen):
    done = edgeseq("bench", MODEL, *SHORT, "--device", "kitchen")
    assert done.code == 0, done.err
    for step in ("connecting to", "asking what it is", f"sending {MODEL}", f"checking {MODEL}", f"measuring {MODEL}"):
        assert f"kitchen: {step}" in done.err
        assert f"kitchen: {step}" not in done.out
    assert "kitchen does without onnxruntime" in done.out


def test_removing_a_board_can_clean_it(kitchen, furnished):
    assert (furnished.home / DATA).exists()
    done = edgeseq("devices", "remove", "kitchen", "--clean")
    assert done.code == 0, done.err
    assert not (furnished.home / DATA).exists()
    assert edgeseq("devices", "list", "--json").document["devices"] == {}
