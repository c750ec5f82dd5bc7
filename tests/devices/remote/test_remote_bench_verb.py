"""``edgeseq bench --device`` where no board is needed: what is refused, and boards that do not answer."""

from __future__ import annotations

import json

import pytest

from edgeseq.devices.remote.inventory import Device, add_device

from ...command_line import call as edgeseq
from .conftest import free_port

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
