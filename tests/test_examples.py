"""Every example runs as its own docstring says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(script, *arguments, cwd):
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "data"
    return folder, run("your_own_data/train.py", folder, cwd=folder.parent)


def test_your_own_data_goes_from_csv_to_an_answer(own_data):
    folder, printed = own_data
    assert "links proven" in printed
    assert "Answer(label=" in printed
    assert (folder / "gru-export" / "model.tflite").is_file()


def test_a_watch_recording_streams(tmp_path):
    from edgeseq.export.stage import export
    from edgeseq.training.stage import train

    tiny = {"rounds": 1, "steps": 2, "batch": 4, "crop": 2.0, "model.hidden": 8}
    train("spar_watch", tmp_path / "gru", changes=tiny)
    export(tmp_path / "gru", tmp_path / "gru-export", formats=["tflite"])
    printed = run("har_watch/stream.py", tmp_path / "gru-export", cwd=tmp_path)
    assert "% of the frames" in printed
    assert "litert" in printed


def test_every_example_is_run_here():
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert scripts == {"har_watch/stream.py", "your_own_data/train.py"}
