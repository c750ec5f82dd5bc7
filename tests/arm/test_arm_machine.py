"""A whole ARM machine over SSH: it says what it is, and edgeseq works on it."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path

import pytest

from edgeseq.devices.remote.ssh import CONFIG_VARIABLE

from ..command_line import call
from .conftest import ROOT

pytestmark = pytest.mark.arm
LEFT_OUT = ("__pycache__", "pretrained")
UNPACK = "mkdir -p /root/tree && tar -xzf - -C /root/tree"
ON_BOARD = "cd /root/tree && PYTHONPATH=/opt/edge:/root/tree OMP_NUM_THREADS=1 python3 -m edgeseq.devices"


def sources() -> bytes:
    """edgeseq as it lies here, with what its links lead to, and one folder to run."""
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w:gz", dereference=True) as archive:
        archive.add(ROOT / "edgeseq", "edgeseq", filter=wanted)
        archive.add(ROOT / "edgeseq/pretrained/har_watch", "folder")
    return kept.getvalue()


def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Not the data sets, which are large: a Raspberry Pi 3's network is emulated slowly."""
    return None if Path(entry.name).name in LEFT_OUT or entry.name.endswith(".npz") else entry


@pytest.fixture(scope="module")
def board(machine):
    """The emulated board with edgeseq on it."""
    machine.say(UNPACK, input=sources())
    return machine


@pytest.fixture
def probed(monkeypatch):
    """``probed(machine)``: exit code of ``edgeseq devices probe``, and what it says of the machine."""

    def probe(machine):
        monkeypatch.setenv(CONFIG_VARIABLE, str(machine.config))
        done = call("devices", "probe", "ssh://board", "--json")
        (found,) = done.document["devices"].values()
        assert found["python"] == "python3"
        assert {"rsync", "tar"} <= set(found["board"]["tools"])
        return done.code, found

    return probe


def test_the_probe_says_what_the_machine_is(machine, probed):
    code, found = probed(machine)
    assert (code, found["runs_edgeseq"]) == (0, True)
    board = found["board"]
    assert (board["model"], board["machine"], board["bits"], board["cores"]) == ("linux,dummy-virt", "aarch64", 64, 2)
    assert 0.9e9 < board["memory_bytes"] < 2**30
    assert (board["system"], board["libc"], board["home"]) == ("Linux", "glibc 2.36", "/root")
    assert abs(board["clock_ahead_seconds"]) < 60


def test_the_machine_says_what_it_is(board):
    facts = json.loads(board.say(f"{ON_BOARD} facts --json"))
    assert (facts["machine"], facts["model"], facts["cores"]) == ("aarch64", "linux,dummy-virt", 2)
    assert facts["core"] == "Cortex-A72"
    assert facts["provenance"] == "emulated-functional"
    assert {"numpy", "onnxruntime", "ai-edge-litert"} <= facts["versions"].keys()


def test_a_folder_checks_itself_there(board):
    said = json.loads(board.say(f"{ON_BOARD} verify folder --frames 30 --json"))
    assert said["passed"]
    assert {"litert", "onnxruntime"} <= {link["name"].split()[0] for link in said["links"]}


def test_a_raspberry_pi_3_says_what_it_is(raspberry, probed):
    code, found = probed(raspberry)
    assert code == 6
    assert "days behind" in found["why_not"]  # it has no clock that runs on without power
    raspberry.say(f"date -s @{time.time():.0f}")
    code, found = probed(raspberry)
    assert (code, found["runs_edgeseq"]) == (0, True)
    board = found["board"]
    assert (board["machine"], board["cores"], board["core"]) == ("aarch64", 4, "Cortex-A53")
    assert board["temperature_c"] == 25.178
    assert board["model"].startswith("Raspberry Pi 3 Model B")
    assert 0.8e9 < board["memory_bytes"] < 2**30
    raspberry.say(UNPACK, input=sources())
    facts = json.loads(raspberry.say(f"{ON_BOARD} facts --json"))
    assert (facts["machine"], facts["cores"], facts["core"]) == ("aarch64", 4, "Cortex-A53")
    assert facts["model"].startswith("Raspberry Pi 3 Model B")
    assert facts["temperature_c"] == pytest.approx(25.178)
    assert facts["provenance"] == "emulated-functional"
