"""The whole way to a board and back: an ARM machine gets edgeseq over SSH, from wheels, and measures; then without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseq.devices.remote.inventory import FILE_VARIABLE, Device, add_device
from edgeseq.devices.remote.ssh import CONFIG_VARIABLE

from ..command_line import call

pytestmark = pytest.mark.arm
SHORT = ("--engine", "litert", "--seconds", "0.05", "--paced-seconds", "0.1")


def edgeseq(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    done = call(*arguments)
    return done.code, done.out, done.err


@pytest.fixture
def emulated(arm, machine, tmp_path, monkeypatch):
    """The machine in an inventory, with the wheels for it."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(machine.config))
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "devices.toml"))
    add_device("emulated", Device("ssh://board", wheelhouse=str(arm / "wheels-3.11")))
    return machine


def test_an_emulated_board_and_this_machine_come_into_one_report(emulated, tmp_path):
    out = tmp_path / "bench.json"
    both = ("--device", "emulated", "--device", "local", "--out", out)
    code, said, steps = edgeseq("bench", "har_watch", *SHORT, *both)
    assert code == 0, steps
    assert "emulated: installing numpy, msgspec, safetensors, ai-edge-litert, onnxruntime" in steps
    assert "emulated-functional" in said
    board, host = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert (board["device"], board["facts"]["machine"], board["provenance"]) == (
        "emulated",
        "aarch64",
        "emulated-functional",
    )
    assert board["engines"][0]["tight"]["p50"] is None
    assert host["engines"][0]["tight"]["p50"] > 0
    code, _, errors = edgeseq("report", "har_watch", "--bench", out, "--no-baseline", "--out", tmp_path / "page")
    assert code == 0, errors
    page = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    assert "emulated" in page
    code, _, steps = edgeseq("bench", "har_watch", *SHORT, *both, "--json")
    assert code == 0, steps
    assert "installing" not in steps
    assert "sending" not in steps


def test_a_cable_that_is_out_is_told_and_the_other_device_measured(emulated, tmp_path):
    out = tmp_path / "bench.json"
    with emulated.cut():
        both = ("--device", "emulated", "--device", "local", "--out", out)
        code, said, errors = edgeseq("bench", "har_watch", *SHORT, *both)
    emulated.wait()
    assert code == 6, errors
    assert "1 of 2 devices failed: emulated" in errors
    assert "FAILED: emulated" in said
    assert [each["device"] for each in json.loads(Path(out).read_text(encoding="utf-8"))["reports"]] == ["local"]


def test_what_was_put_there_can_be_removed(emulated):
    code, _, errors = edgeseq("devices", "remove", "emulated", "--clean")
    assert code == 0, errors
    assert emulated.say("ls -A /root/.local/share") == ""
