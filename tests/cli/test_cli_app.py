"""The command line as a whole: help, errors, exit codes, and what goes to which stream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeseq import __version__
from edgeseq.cli import app as application
from edgeseq.errors import MissingDependency
from edgeseq.models import registry

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "safetensors")
VERBS = (
    *(
        "train",
        "distill",
        "retime",
        "prune",
        "quantize",
        "compress",
        "tune",
        "export",
        "verify",
        "stream",
        "bench",
        "report",
        "inspect",
    ),
    *("models", "datasets", "doctor", "demo"),
)
NO_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine where torch is not installed."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_TORCH, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from edgeseq.cli.app import run; "
        f"codes = [run(['--help']), *(run([verb, '--help']) for verb in {VERBS})]; "
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules]); sys.exit(max(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_names_the_verbs_in_the_order_of_use(edgeseq):
    text = edgeseq("--help").out
    places = [text.index(f"│ {verb} ") for verb in VERBS]
    assert places == sorted(places)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example_and_json(verb):
    done = CliRunner().invoke(application.app, [verb, "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0
    assert f"Example: edgeseq {verb}" in done.output
    assert "--json" in done.output


def test_no_arguments_shows_the_help(process):
    done = process()
    assert done.code == 0
    assert "Usage: edgeseq" in done.out


def test_version(edgeseq):
    assert edgeseq("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown verb 'trian'. Did you mean 'train'?"),
        (["train", "spar_watch", "--sed", "1"], "Did you mean '--seed'?"),
        (["train", "spar_watch", "--out", "x", "--model", "gruu"], "Did you mean 'gru'?"),
        (["train", "spar_wach", "--out", "x"], "Did you mean 'spar_watch'?"),
        (["demo", "haar"], "Did you mean 'har'?"),
        (["train"], "missing argument"),
        (["train", "spar_watch"], "missing option '--out'"),
        (["train", "spar_watch", "--out", "x", "--seed", "one"], "invalid value for '--seed'"),
        (["inspect", "nowhere"], "nowhere is not a folder"),
        (["demo", "har", "--seed", "-1"], "0 or more"),
        (["demo", "har", "--speed", "-1"], "0 or more"),
        (["export", "x", "--out", "y", "--frames", "0"], "at least 2000"),
    ],
)
def test_wrong_usage_exits_2_with_one_line(edgeseq, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = edgeseq(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["trian"], ["train", "spar_watch", "--sed", "1"], ["inspect", "nowhere"]])
def test_an_error_is_one_document_in_json_mode(edgeseq, arguments):
    done = edgeseq(*arguments, "--json")
    error = done.document["error"]
    assert sorted(error) == ["exit_code", "message", "type"]
    assert error["exit_code"] == done.code == 2
    assert error["message"] in done.err


@pytest.mark.parametrize(
    "arguments", [["train", "spar_watch", "--out", "x"], ["export", "x", "--out", "y"], ["demo", "har"]]
)
def test_without_torch_exits_3_with_the_line_that_installs_it(process, tmp_path, without_torch, arguments):
    done = process(*arguments, "--json", cwd=tmp_path, env=without_torch)
    assert done.code == 3
    assert done.document["error"]["type"] == MissingDependency.__name__
    assert "pip install 'edgeseq[train]'" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "x").exists()


def test_without_torch_the_device_part_is_verified_and_said(process, exported, without_torch):
    done = process("verify", exported, "--json", env=without_torch)
    assert done.code == 0, done.err
    assert done.document["part"] == "device"
    assert "torch is not installed" in done.err


@pytest.mark.parametrize("verb", ["stream", "inspect", "models", "datasets", "doctor"])
def test_without_torch_the_other_verbs_work(process, exported, without_torch, verb):
    arguments = {"stream": [exported, "--speed", 0], "inspect": [exported]}.get(verb, [])
    done = process(verb, *arguments, env=without_torch)
    assert done.code == 0, done.err
    assert done.out


def test_a_bug_shows_its_traceback_and_exits_1(monkeypatch, capsys):
    def broken() -> None:
        raise ZeroDivisionError("the bug")

    monkeypatch.setattr(registry, "presets", broken)
    assert application.run(["models", "--json"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert '"exit_code":1' in captured.out


def test_output_that_nobody_reads_is_no_error():
    command = f"{sys.executable} -m edgeseq datasets | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_no_colour_codes_where_there_is_no_terminal(process, exported):
    done = process("inspect", exported)
    assert "\x1b" not in done.out + done.err
