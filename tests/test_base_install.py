"""On a board: the wheel in an environment with the base dependencies and nothing else, on the oldest Python at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, write_npz

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def board_python():
    """Python 3.10, which a Jetson has, where there is one; else the one that runs the tests."""
    found = shutil.which("python3.10")
    if found and subprocess.run([found, "-c", "import venv"], check=False, capture_output=True).returncode == 0:
        return found
    return sys.executable


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from edgeseq.export.stage import export
    from edgeseq.training.stage import train

    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    recordings = [
        Recording(rng.normal(size=(1100, 3)).astype(np.float32), np.full(1100, label, np.int16), subject, subject)
        for subject in ("1", "2", "3")
        for label in (0, 1)
    ]
    data = Dataset("noise", tuple(recordings), ("a", "b", "c"), ("V",) * 3, 25.0, ("x", "y"))
    write_npz(data, folder / "noise.npz")
    settings = {"rounds": 1, "steps": 2, "batch": 4, "crop": 1.0, "settle": 0.0, "model.hidden": 8}
    source = str(folder / "noise.npz")
    train(source, folder / "gru", changes=settings, test=["1"], validation=["2"])
    return export(folder / "gru", folder / "gru-export").path


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """An environment with edgeseq's wheel, built from a clean copy of the tree, and its base dependencies."""
    folder = tmp_path_factory.mktemp("board")
    tree = folder / "tree"
    apart = (".venv*", ".arm", ".git", "*.egg-info", "build", "dist", "demo", "runs", ".*_cache")
    skipped = shutil.ignore_patterns(*apart)
    shutil.copytree(ROOT, tree, ignore=skipped, symlinks=True)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, tree)
    run(board_python(), "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("edgeseq-*.whl")
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    return python


def clean_environment(tmp_path):
    return {**{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}, "HOME": str(tmp_path)}


def test_no_training_package_comes_along(board):
    installed = {entry["name"].lower() for entry in json.loads(run(board, "-m", "pip", "list", "--format", "json"))}
    assert {"edgeseq", "numpy", "msgspec", "ai-edge-litert"} <= installed
    assert not {"torch", "onnx", "snntorch", "brevitas", "scikit-learn"} & installed


def test_the_device_entry_point_checks_streams_and_measures(board, exported, tmp_path):
    environment = {"cwd": tmp_path, "env": clean_environment(tmp_path)}
    checked = json.loads(run(board, "-m", "edgeseq.devices", "verify", exported, "--json", **environment))
    assert "litert" in json.dumps(checked)
    run(board, "-m", "edgeseq.devices", "stream", exported, "--speed", "0", **environment)
    command = ["bench", exported, "--seconds", "0.2", "--paced-seconds", "0.2", "--json"]
    assert json.loads(run(board, "-m", "edgeseq.devices", *command, **environment))


def test_the_verbs_that_need_no_torch_work_and_the_others_say_what_to_install(board, exported, tmp_path):
    environment = {"cwd": tmp_path, "env": clean_environment(tmp_path)}
    assert "gru-export" in run(board, "-m", "edgeseq", "inspect", exported, **environment)
    run(board, "-m", "edgeseq", "verify", exported, **environment)
    run(board, "-m", "edgeseq", "doctor", **environment)
    refused = subprocess.run(
        [str(board), "-m", "edgeseq", "train", "spar_watch", "--out", "m"],
        capture_output=True,
        text=True,
        check=False,
        **environment,
    )
    assert refused.returncode == 3
    assert "pip install" in refused.stderr
    assert "edgeseq[train]" in refused.stderr


def test_two_calls_of_python_give_an_answer(board, exported, tmp_path):
    program = (
        "import edgeseq, sys\n"
        f"session = edgeseq.Session({str(exported)!r})\n"
        "print(session.decide(session.step([0.1, 0.2, 0.3])).label)\n"
        "assert 'torch' not in sys.modules\n"
    )
    assert run(board, "-c", program, cwd=tmp_path, env=clean_environment(tmp_path)).strip() in ("x", "y", "unknown")


def test_the_pretrained_model_came_along(board, tmp_path):
    environment = {"cwd": tmp_path, "env": clean_environment(tmp_path)}
    said = run(board, "-m", "edgeseq", "stream", "har_watch", "--speed", "0", **environment)
    assert "of the labelled frames" in said
    run(board, "-m", "edgeseq.devices", "verify", "har_watch", "--frames", "300", **environment)
