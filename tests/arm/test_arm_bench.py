"""The whole way to a board and back: an ARM machine gets edgeseq over SSH, from wheels, and measures. What comes in
between is told, and the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from edgeseq.devices.remote import probe, ssh
from edgeseq.devices.remote.inventory import FILE_VARIABLE, Device, add_device
from edgeseq.devices.remote.ssh import CONFIG_VARIABLE

from ..command_line import Done, call

pytestmark = pytest.mark.arm
SHORT = ("--engine", "litert", "--seconds", "0.05", "--paced-seconds", "0.1")
DATA = "/root/.local/share/edgeseq"
LEFT_OUT = ("onnxruntime", "pydantic_core", "pydantic", "pygments", "rich", "typer")
INSTALLING = "installing numpy, msgspec, safetensors, ai-edge-litert: once, for minutes on a small board"
MB = 10**6
SECONDS, MINUTE = 40, 2  # of a long run, and between two lines of its record: a minute would be long to wait for
RECORDED = f"""cat {DATA}/envs/*/runs/*/report.json.part 2>/dev/null | grep -c '"part"'"""
TIMES = 4  # columns of the report's table of devices


@pytest.fixture(scope="module")
def wheelhouse(arm, tmp_path_factory):
    """Wheels for the machine: those that one runtime needs. Emulated, another takes half a minute more."""
    made = tmp_path_factory.mktemp("wheelhouse")
    for wheel in (arm / "wheels-3.11").glob("*.whl"):
        if wheel.name.split("-")[0] not in LEFT_OUT:
            (made / wheel.name).symlink_to(wheel)
    return made


@pytest.fixture
def emulated(machine, wheelhouse, tmp_path, monkeypatch):
    """The machine in an inventory, with the wheels for it. It is lost when it is silent for a short while."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(machine.config))
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "devices.toml"))
    monkeypatch.setattr(ssh, "ALIVE_SECONDS", 3)
    add_device("emulated", Device("ssh://board", wheelhouse=str(wheelhouse)))
    return machine


@contextmanager
def meanwhile(*arguments: object) -> Iterator[Future[Done]]:
    """A command that runs while the block does."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, *arguments)


@contextmanager
def full(machine, room):
    """A disk with so many bytes of room, until the block is left."""
    machine.say(f"set -- $(stat -f -c '%f %S' /root); fallocate -l $(($1 * $2 - {room})) /root/filler")
    try:
        yield
    finally:
        machine.say("rm /root/filler")


def steps(done: Done) -> list[str]:
    """What the command said it did on the board."""
    return [line for line in done.err.splitlines() if line.startswith("emulated: ")]


def nothing_runs(machine) -> None:
    """Wait until all that was started over a link has ended there."""
    machine.wait()
    machine.until("! pgrep 'python|rsync'")


def environments(machine) -> list[str]:
    """The environments there, and what is half made of one."""
    return machine.say(f"ls -A {DATA}/envs").split()


def test_the_same_command_goes_on_where_a_full_disk_and_a_cable_ended_it(emulated, wheelhouse, small, monkeypatch):
    """Of the room on the disk its file system keeps 16 MB for itself."""
    command = ("bench", small.path, *SHORT, "--device", "emulated")
    needed = probe.NEEDED_BYTES
    for room, least, step in (
        (300 * MB, needed, "asking what it is"),
        (30 * MB, 0, f"sending edgeseq and the wheels in {wheelhouse}"),
        (70 * MB, 0, INSTALLING),
    ):
        monkeypatch.setattr(probe, "NEEDED_BYTES", least)
        with full(emulated, room):
            done = call(*command)
        assert done.code == 6, done.err
        assert steps(done)[-2:] == [f"emulated: {step}", "emulated: failed"]
        assert "make room" in done.err
        assert emulated.say(f"mkdir -p {DATA}; find {DATA} -type f") == ""
    with meanwhile(*command) as first:
        emulated.until(f"find {DATA}/envs -type f -size +0 | grep -q .")
        with emulated.cut():
            done = first.result(120)
    assert done.code == 6, done.err
    assert "emulated: the link was lost" in done.err
    assert "installing" not in done.err
    nothing_runs(emulated)
    assert all(each.startswith(".") for each in environments(emulated))
    done = call(*command)
    assert done.code == 0, done.err
    assert f"emulated: {INSTALLING}" in steps(done)
    (environment,) = environments(emulated)
    assert not environment.startswith(".")


def test_an_emulated_board_and_this_machine_come_into_one_report(emulated, small, tmp_path):
    out = tmp_path / "bench.json"
    both = ("--device", "emulated", "--device", "local", "--out", out)
    done = call("bench", small.path, *SHORT, *both)
    assert done.code == 0, done.err
    assert "emulated-functional" in done.out
    board, host = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert (board["device"], board["facts"]["machine"]) == ("emulated", "aarch64")
    assert board["provenance"] == "emulated-functional"
    assert board["engines"][0]["tight"]["p50"] is None
    assert host["engines"][0]["tight"]["p50"] > 0
    done = call("report", small.path, "--bench", out, "--no-baseline", "--out", tmp_path / "page")
    assert done.code == 0, done.err
    page = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    table = page.split("### Devices")[1].strip().split("\n\n")[1].splitlines()
    emulated_row, host_row = ([cell.strip() for cell in row.strip("|").split("|")] for row in table[2:])
    assert emulated_row[0] == "emulated (emulated-functional)"
    assert emulated_row[-TIMES:] == ["–"] * TIMES
    assert host_row[0].endswith("(host)")
    assert all(float(cell.strip("*").replace(",", "")) > 0 for cell in host_row[-TIMES:])


def test_a_cable_that_is_out_is_told_and_the_other_device_measured(emulated, small, tmp_path):
    out = tmp_path / "bench.json"
    with emulated.cut():
        done = call("bench", small.path, *SHORT, "--device", "emulated", "--device", "local", "--out", out)
    emulated.wait()
    assert done.code == 6, done.err
    assert "1 of 2 devices failed: emulated" in done.err
    assert "FAILED: emulated" in done.out
    assert [each["device"] for each in json.loads(out.read_text(encoding="utf-8"))["reports"]] == ["local"]


def test_a_long_run_goes_on_after_the_cable_and_after_the_power_were_out(emulated, small, tmp_path):
    out = tmp_path / "bench.json"
    if not emulated.say(f"ls {DATA}/envs || true"):
        assert call("bench", small.path, *SHORT, "--device", "emulated").code == 0
    module = f"{DATA}/envs/*/lib/python3.*/site-packages/edgeseq/devices/endless.py"
    emulated.say(f"sed -i 's/^MINUTE = 60.0$/MINUTE = {MINUTE}.0/' {module}; grep -q '^MINUTE = {MINUTE}.0$' {module}")
    arguments = ("--engine", "litert", "--seconds", "0.05", "--duration", f"{SECONDS}s")
    command = ("bench", small.path, *arguments, "--device", "emulated", "--out", out)
    with meanwhile(*command) as first:
        emulated.until(recorded(2))
        with emulated.cut():
            done = first.result(120)
    assert done.code == 6, done.err
    assert "emulated: the link was lost" in done.err
    nothing_runs(emulated)
    boot, before = emulated.boot_id(), int(emulated.say(f"{RECORDED}; true"))
    with meanwhile(*command) as second:
        emulated.until(recorded(before + 1))
        emulated.cut_power()
        done = second.result(120)
    assert done.code == 6, done.err
    emulated.wait()
    assert emulated.boot_id() != boot
    done = call(*command)
    assert done.code == 0, done.err
    assert "installing" not in done.err
    assert "sending" not in done.err
    (report,) = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert report["resumed"] == 2
    frames = [minute["frames"] for minute in report["long_run"]["minutes"]]
    assert len(frames) > before
    assert sum(frames) == report["engines"][0]["paced"]["frames"] == round(SECONDS * report["rate"])


def recorded(minutes: int) -> str:
    """A condition there: that the long run has recorded so many."""
    return f"[ $({RECORDED}) -ge {minutes} ]"


def test_what_was_put_there_can_be_removed(emulated):
    done = call("devices", "remove", "emulated", "--clean")
    assert done.code == 0, done.err
    assert emulated.say("ls -A /root/.local/share") == ""
