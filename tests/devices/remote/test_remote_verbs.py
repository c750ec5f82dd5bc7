"""``edgeseq devices``: boards are written down, listed, asked and forgotten."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from edgeseq.cli import app as application
from edgeseq.devices.remote.diagnosis import ACCEPT_FLAG

from ...command_line import Done, call


def devices(*arguments: object) -> Done:
    return call("devices", *arguments)


def test_a_board_is_added_listed_and_removed(inventory, tmp_path):
    (tmp_path / "wheels").mkdir()
    added = devices(
        "add", "kitchen", "ssh://pi@kitchen:2222", "--python", "python3.12", "--wheelhouse", tmp_path / "wheels"
    )
    assert added.code == 0, added.err
    assert "next: " in added.out
    assert added.out.splitlines()[-1].endswith("devices probe kitchen")
    listed = devices("list", "--json").document
    assert listed["devices"] == {
        "kitchen": {
            "url": "ssh://pi@kitchen:2222",
            "python": "python3.12",
            "wheelhouse": str(tmp_path / "wheels"),
            "accept_new_host_key": False,
        }
    }
    assert "ssh://pi@kitchen:2222" in devices("list").out
    assert devices("remove", "kitchen", "--json").document["comments_kept"]
    assert devices("list", "--json").document["devices"] == {}
    assert inventory.read_text() == ""


def test_removing_says_when_comments_go(inventory):
    inventory.write_text('# mine\nkitchen = { url = "ssh://a" }\n')
    done = devices("remove", "kitchen")
    assert done.code == 0
    assert "comments are gone" in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "kitchen", "pi@kitchen"], "is not the address of a board"),
        (["add", "a/b", "ssh://kitchen"], "is no name"),
        (["add", "kitchen", "ssh://kitchen", "--wheelhouse", "nowhere"], "nowhere is not a folder"),
        (["probe"], "there are no devices yet"),
        (["probe", "kitchen"], "no device is called 'kitchen'"),
        (["probe", "local"], "is this machine"),
        (["remove", "kitchen"], "unknown device 'kitchen'"),
        (["lst"], "unknown verb of devices 'lst'. Did you mean 'list'?"),
        (["probe", "--accept"], "Did you mean '--accept-new-host-key'?"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(inventory, arguments, said):
    done = devices(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not inventory.exists()


def test_a_board_is_asked_by_its_name(server):
    devices("add", "kitchen", server.target.url, "--python", sys.executable)
    done = devices("probe", "kitchen", "--json")
    found = done.document["devices"]["kitchen"]
    assert found["board"]["system"] == "Linux"
    assert found["board"]["home"] == str(server.home)
    assert found["runs_edgeseq"] == (done.code == 0)
    shown = devices("probe", server.target.url)
    assert str(server.home) in shown.out


def test_one_board_that_does_not_answer_keeps_no_other_from_being_asked(server):
    devices("add", "gone", "ssh://127.0.0.1:1")
    devices("add", "kitchen", server.target.url, "--python", sys.executable)
    done = devices("probe", "--json")
    found = done.document
    assert done.code == found["error"]["exit_code"] == 6
    assert list(found["devices"]) == ["gone", "kitchen"]
    assert "connection refused" in found["devices"]["gone"]["why_not"]
    assert found["devices"]["kitchen"]["board"]["system"] == "Linux"
    assert "gone: nothing answers" in done.err


def test_an_unknown_host_key_exits_6_until_it_is_accepted(server):
    server.known_hosts.write_text("")
    done = devices("probe", server.target.url)
    assert done.code == 6
    assert ACCEPT_FLAG in done.err
    asked = devices("probe", server.target.url, ACCEPT_FLAG, "--python", sys.executable)
    assert "is not known yet" not in asked.err
    assert str(server.home) in asked.out


def test_a_board_that_cannot_run_edgeseq_is_shown_and_exits_6(poor_server):
    done = devices("probe", poor_server.target.url)
    assert done.code == 6
    assert "It cannot run edgeseq" in done.out
    assert "error: " in done.err


@pytest.mark.parametrize("verb", ["add", "list", "probe", "remove"])
def test_help_has_an_example_and_json(verb):
    done = CliRunner().invoke(application.app, ["devices", verb, "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0
    assert f"Example: edgeseq devices {verb}" in done.output
    assert "--json" in done.output


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_verb_the_verbs_are_shown(arguments):
    done = devices(*arguments)
    assert done.code == 0
    assert all(f"│ {verb} " in done.out for verb in ("add", "list", "probe", "remove"))
