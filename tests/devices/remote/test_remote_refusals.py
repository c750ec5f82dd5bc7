"""What keeps a board from being used is said in plain words, with what mends it; pip's own words here are its own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgeseq.devices.remote.deploy import deploy
from edgeseq.devices.remote.probe import Board, Python
from edgeseq.devices.remote.refusals import explain
from edgeseq.devices.remote.ssh import connect
from edgeseq.errors import DeviceUnreachable
from edgeseq.folder import open_folder

from .conftest import put_tool

PYTHON = Python("python3", "3.11.2", 64, venv=True, pip=True)
BOARD = Board(
    system="Linux",
    machine="aarch64",
    kernel="6.1",
    bits=64,
    os="Debian",
    model="Raspberry Pi 4",
    cores=4,
    memory_bytes=2**30,
    libc="glibc 2.36",
    home="/home/pi",
    disk_free_bytes=10**10,
    unwritable=None,
    clock_ahead_seconds=-7200.0,
    pythons=(PYTHON,),
    tools=("tar",),
)
OPTIONAL = ("ai-edge-litert>=2.0",)
NO_NAME = (
    "WARNING: Retrying (Retry(total=1, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a "
    "new connection: [Errno -3] Temporary failure in name resolution')': /simple/numpy/\n"
    "ERROR: Could not find a version that satisfies the requirement numpy>=1.24 (from versions: none)\n"
    "ERROR: No matching distribution found for numpy>=1.24"
)
NOT_YET = (
    "Could not fetch URL https://pypi.org/simple/numpy/: There was a problem confirming the ssl certificate: "
    "(Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
    "certificate is not yet valid (_ssl.c:992)')))\nERROR: No matching distribution found for numpy>=1.24"
)
NO_ENSUREPIP = (
    "The virtual environment was not created successfully because ensurepip is not available.  On Debian/Ubuntu "
    "systems, you need to install the python3-venv package using the following command."
)


@pytest.mark.parametrize(
    ("said", "wheelhouse", "expected"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", None, "make room"),
        ("[Errno 30] Read-only file system: '/home/pi/x'", None, "mount it for writing"),
        (NO_ENSUREPIP, None, "sudo apt install python3-venv"),
        (NOT_YET, None, "its clock is wrong (2.0 hours behind ours)"),
        (NO_NAME, None, "--wheelhouse wheels"),
        (
            "ERROR: No matching distribution found for numpy>=1.24",
            None,
            "the package index has no wheel of numpy>=1.24",
        ),
        ("ERROR: No matching distribution found for numpy>=1.24", "w", "--platform manylinux_2_28_aarch64"),
        ("something new\nthat nobody knows", None, "installing failed there: something new\nthat nobody knows"),
    ],
)
def test_what_pip_said_is_explained(said, wheelhouse, expected):
    why = explain(said, BOARD, PYTHON, OPTIONAL, Path(wheelhouse) if wheelhouse else None)
    assert expected in why


def test_a_clock_that_nobody_could_read_is_not_quoted():
    board = msgspec.structs.replace(BOARD, clock_ahead_seconds=None)
    assert "its clock is wrong, so" in explain(NOT_YET, board, PYTHON, OPTIONAL, None)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ({}, "it has no Python 3.10 or newer"),
        ({"uname": '[ "$1" = -m ] && echo armv7l || echo Linux'}, "its system is a 32-bit one (armv7l)"),
        ({"uname": '[ "$1" = -m ] && echo riscv64 || echo Linux'}, "its processor is riscv64"),
    ],
)
def test_a_board_that_cannot_run_edgeseq_gets_nothing(poor_server, tools, expected):
    for name, script in tools.items():
        put_tool(poor_server.tools, name, script)
    with (
        connect(poor_server.target, name="shed") as link,
        pytest.raises(DeviceUnreachable, match="shed cannot run edgeseq") as refused,
    ):
        deploy(link, [open_folder("har_watch")])
    assert expected in str(refused.value)
    assert not list(poor_server.home.iterdir())


def test_a_wrong_clock_matters_to_a_board_that_fetches_by_itself(poor_server, tmp_path):
    """A board without a network has no clock that is right, and needs none."""
    put_tool(poor_server.tools, "date", "echo 1000000000")
    (tmp_path / "numpy-1-py3-none-any.whl").touch()
    with connect(poor_server.target, name="shed") as link:
        with pytest.raises(DeviceUnreachable, match=r"shed cannot run edgeseq: its clock is \d+ days behind"):
            deploy(link, [open_folder("har_watch")])
        with pytest.raises(DeviceUnreachable, match="it has no Python"):
            deploy(link, [open_folder("har_watch")], wheelhouse=tmp_path)
