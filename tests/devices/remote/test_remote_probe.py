"""What a board says of itself, and what keeps edgeseq from running there."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.remote.probe import Board, Python, probe, read_board, why_not
from edgeseq.devices.remote.ssh import connect
from edgeseq.errors import DeviceUnreachable

from .conftest import put_tool

NOW = 1_800_000_000.0
PI = """clock=1800000003
system=Linux
machine=aarch64
kernel=6.6.31+rpt-rpi-v8
bits=64
os=Debian GNU/Linux 12 (bookworm)
model=Raspberry Pi 4 Model B Rev 1.5
parts=0x41 0xd08 0x41 0xd08 0x41 0xd08 0x41 0xd08
zone=100000 PMIC-Die
zone=-256000 cv0-thermal
zone=48312 cpu-thermal
zone=
cores=4
memory=MemTotal:        3881920 kB
libc=glibc 2.36
home=/home/pi
disk=/dev/mmcblk0p2  29000000 4000000 24000000      15% /
unwritable=
tool=rsync
tool=tar
python=3.11.2 64 1 1 python3
python=3.11.2 64 1 1 python3.11""".splitlines()


def board(**changes: str | None) -> Board:
    """The Raspberry Pi with other lines; None takes a line away."""
    named = [(line.partition("=")[0], line) for line in PI]
    kept = [line for name, line in named if name not in changes]
    return read_board([*kept, *(f"{name}={value}" for name, value in changes.items() if value is not None)], NOW)


def test_a_raspberry_pi_is_read_and_can_run_edgeseq():
    found = board()
    assert found == Board(
        system="Linux",
        machine="aarch64",
        kernel="6.6.31+rpt-rpi-v8",
        bits=64,
        os="Debian GNU/Linux 12 (bookworm)",
        model="Raspberry Pi 4 Model B Rev 1.5",
        cores=4,
        core="Cortex-A72",
        temperature_c=48.312,
        memory_bytes=3881920 * 1024,
        libc="glibc 2.36",
        home="/home/pi",
        disk_free_bytes=24000000 * 1024,
        unwritable=None,
        clock_ahead_seconds=3.0,
        pythons=(Python("python3", "3.11.2", 64, True, True), Python("python3.11", "3.11.2", 64, True, True)),
        tools=("rsync", "tar"),
    )
    assert why_not(found) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": "Darwin"}, "it runs Darwin"),
        ({"system": None}, "an unknown system"),
        ({"machine": "armv7l", "bits": "32"}, r"32-bit one \(armv7l\).*64-bit system"),
        ({"bits": "32"}, r"32-bit one \(aarch64\)"),  # Raspberry Pi OS: a 64-bit kernel under 32-bit programs
        ({"bits": None, "python": "3.11.2 32 1 1 python3"}, "32-bit one"),
        ({"machine": "riscv64"}, "its processor is riscv64.*aarch64"),
        ({"libc": "musl libc (aarch64)"}, "musl.*glibc"),
        ({"home": None}, "no home"),
        ({"unwritable": "mkdir: cannot create directory: Read-only file system"}, "nothing can be written.*Read-only"),
        ({"disk": "/dev/root 100 90 350000 9% /"}, "358 MB are free in /home/pi, 400 MB are needed"),
        ({"clock": "1700000000"}, "1157 days behind.*timedatectl"),
        ({"clock": "1800200000"}, "2 days ahead"),
        ({"python": None}, r"no Python 3\.10 or newer \(none was found\).*apt install python3"),
        ({"python": "3.7.3 64 1 1 python3"}, r"no Python 3\.10 or newer \(python3 is 3\.7\.3\)"),
        ({"python": "3.11.2 64 0 1 python3"}, "makes no environments: sudo apt install python3-venv"),
        ({"python": "3.11.2 32 1 1 python3"}, "its Python is a 32-bit one"),
        ({"python": "Traceback most recent call last"}, "none was found"),
    ],
)
def test_what_keeps_edgeseq_from_running_is_said_with_what_mends_it(changes, said):
    why = why_not(board(**changes))
    assert why is not None
    assert re.search(said, why), why


@pytest.mark.parametrize(
    "changes",
    [
        {"model": None, "os": None, "cores": None, "memory": None, "kernel": None},
        {"disk": "a file system  29000000 4000000 24000000 15% /a mount"},
        {"disk": None},
        {"clock": None},
        {"clock": "date: not found"},
        {"libc": None},
        {"python": "3.13.0 64 1 0 /opt/my python/bin/python"},
    ],
)
def test_what_a_board_does_not_say_keeps_nothing_from_running(changes):
    assert why_not(board(**changes)) is None


def test_the_python_that_is_named_comes_first_and_one_that_cannot_be_used_is_passed_over():
    pythons = ["python=3.9.1 64 1 1 mine", "python=3.12.1 64 0 1 python3", "python=3.10.2 64 1 1 python3.10"]
    found = read_board([line for line in PI if not line.startswith("python")] + pythons, NOW)
    assert found.python
    assert found.python.command == "python3.10"


@given(st.lists(st.tuples(st.sampled_from([line.partition("=")[0] for line in PI]), st.text())))
def test_no_answer_of_a_board_breaks_the_reader(lines):
    found = read_board([f"{name}={value}" for name, value in lines], NOW)
    assert isinstance(why_not(found), str | None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Board) == found


def test_this_machine_over_ssh_is_what_it_is(link, server):
    found = probe(link, sys.executable)
    assert (found.system, found.machine, found.kernel) == (platform.system(), platform.machine(), platform.release())
    assert found.home == str(server.home)
    assert found.unwritable is None
    assert found.memory_bytes
    assert found.bits == 64
    assert found.cores
    assert found.processor == probe(link).processor
    assert re.fullmatch(r"\d+ \d+", found.processor or "")
    free = shutil.disk_usage(server.home).free
    assert found.disk_free_bytes == pytest.approx(free, rel=0.2)
    assert found.clock_ahead_seconds is not None
    assert abs(found.clock_ahead_seconds) < 60
    assert found.pythons[0].command == sys.executable
    assert found.pythons[0].version == platform.python_version()
    assert "tar" in found.tools
    assert not list(server.home.iterdir())


def test_a_python_of_a_hostile_name_is_not_run_by_a_shell(link, server):
    found = probe(link, "$(touch HIT); touch HIT")
    assert found.pythons == probe(link).pythons
    assert not list(server.home.rglob("HIT"))


def test_a_board_with_little_on_it_is_read_all_the_same(poor_server):
    with connect(poor_server.target) as link:
        found = probe(link)
    assert found.system == platform.system()
    assert found.pythons == ()
    assert found.tools == ("tar",)
    assert "Python" in (why_not(found) or "")


def test_a_clock_that_is_wrong_is_seen(poor_server):
    put_tool(poor_server.tools, "date", f"echo {int(time.time()) - 10 * 86400}")
    with connect(poor_server.target) as link:
        ahead = probe(link).clock_ahead_seconds
    assert ahead == pytest.approx(-10 * 86400, abs=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="a home that cannot be written is one on a file system of its own")
def test_a_home_that_cannot_be_written_is_seen(poor_server):
    poor_server.home.rmdir()
    poor_server.home.write_text("no folder")
    with connect(poor_server.target) as link:
        why = why_not(probe(link))
    assert why
    assert "nothing can be written to" in why


def test_a_shell_that_runs_no_scripts_is_said(poor_server):
    with connect(poor_server.target, name="kitchen") as link:
        put_tool(poor_server.tools, "sh", "exit 0")
        with pytest.raises(DeviceUnreachable, match="kitchen"):
            probe(link)
