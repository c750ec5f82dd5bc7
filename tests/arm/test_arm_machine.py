"""A whole ARM machine over SSH: it says what it is, edgeseq works on it, and it can lose its link and start anew."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

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


def test_the_machine_says_what_it_is(board):
    facts = json.loads(board.say(f"{ON_BOARD} facts --json"))
    assert (facts["machine"], facts["model"], facts["cores"]) == ("aarch64", "linux,dummy-virt", 2)
    assert facts["core"] == "Cortex-A72"
    assert facts["provenance"] == "emulated-functional"
    assert {"numpy", "onnxruntime", "ai-edge-litert"} <= facts["versions"].keys()


def test_a_folder_checks_itself_there(board):
    said = json.loads(board.say(f"{ON_BOARD} verify folder --frames 50 --json"))
    assert said["passed"]
    assert {"litert", "onnxruntime"} <= {link["name"].split()[0] for link in said["links"]}


def test_no_times_are_shown_of_it(board):
    said = board.say(f"{ON_BOARD} bench folder --engine litert --seconds 0.1 --paced-seconds 0.1")
    assert "emulated-functional" in said
    assert "no times" in said


def test_nothing_comes_through_while_the_cable_is_out(machine):
    with machine.cut():
        assert machine.run("true", timeout=120).returncode == 255
    machine.wait()


def test_it_starts_anew_with_what_is_on_its_disk(machine):
    before = machine.boot_id()
    machine.say("echo kept > /root/note; echo lost > /tmp/note")
    machine.reboot()
    assert machine.boot_id() != before
    assert machine.say("cat /root/note; ls /tmp") == "kept\n"


def test_a_raspberry_pi_3_says_what_it_is(raspberry):
    raspberry.say(UNPACK, input=sources())
    facts = json.loads(raspberry.say(f"{ON_BOARD} facts --json"))
    assert (facts["machine"], facts["cores"], facts["core"]) == ("aarch64", 4, "Cortex-A53")
    assert facts["model"].startswith("Raspberry Pi 3 Model B")
    assert facts["temperature_c"] == pytest.approx(25.178)
    assert facts["provenance"] == "emulated-functional"
