"""Every example runs as its own docstring says."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EDGESEQ = ["-m", "edgeseq"]


def run(script, *arguments, cwd):
    return finished([str(EXAMPLES / script), *map(str, arguments)], cwd).stdout


def finished(arguments, cwd, code=0, **environment):
    """A Python process that ends with ``code``."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert done.returncode == code, done.stderr
    return done


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


@pytest.mark.parametrize("model", ["har_watch", "har_watch_acc"])
def test_a_watch_is_answered_live_as_a_library(model, tmp_path):
    printed = run("har_watch/live.py", model, cwd=tmp_path).splitlines()
    assert re.fullmatch(rf"subject 1 of spar_watch(_acc)?, 582 s, through {model}", printed[0])
    assert re.fullmatch(r"29,099 frames in \w+; a step \d+ us \(p50\), \d+ us \(p99\)", printed[-1])
    shown = [re.fullmatch(r" *(\d+\.\d\d) s  (\w+) +\d+ %  +\d+ us", line) for line in printed[1:-1]]
    assert len(shown) > 10
    assert all(shown)
    times, labels = zip(*(line.groups() for line in shown), strict=True)
    assert sorted(map(float, times)) == list(map(float, times))
    assert all(one != other for one, other in itertools.pairwise(labels))


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """The folder in which the example's own training has written ``fastgrnn``."""
    root = tmp_path_factory.mktemp("own_model")
    printed = run("your_own_model/train.py", "fastgrnn", cwd=root)
    assert "of the frames of a person never seen" in printed
    return root


@pytest.fixture(scope="module")
def exported_model(own_model):
    code = {"PYTHONPATH": str(EXAMPLES / "your_own_model")}
    finished([*EDGESEQ, "export", "fastgrnn", "--out", "files", "--trust"], own_model, **code)
    return own_model / "files"


def test_your_own_model_is_imported_with_trust_only(own_model, exported_model):
    code = {"PYTHONPATH": str(EXAMPLES / "your_own_model")}
    for verb in (["export", "fastgrnn", "--out", "again"], ["verify", "files"], ["quantize", "fastgrnn", "--out", "q"]):
        refused = finished([*EDGESEQ, *verb], own_model, 2, **code)
        assert "'my_model:Mine' is code from outside edgeseq: pass --trust" in refused.stderr
    lost = finished([*EDGESEQ, "verify", "files", "--trust"], own_model, 2)
    assert "No module named 'my_model'. The folder of its module must be on PYTHONPATH" in lost.stderr


def test_your_own_model_is_proven(own_model, exported_model):
    code = {"PYTHONPATH": str(EXAMPLES / "your_own_model")}
    verified = finished([*EDGESEQ, "verify", "files", "--trust", "--json"], own_model, **code)
    document = json.loads(verified.stdout)
    assert document["part"] == "chain"
    assert document["passed"]
    assert {link["name"].split()[0] for link in document["links"]} >= {"training", "step", "litert", "onnxruntime"}


@pytest.mark.parametrize("verb", ["stream --speed 0", "bench --seconds 0.1 --paced-seconds 0.2", "verify", "inspect"])
def test_your_own_model_runs_where_neither_torch_nor_its_code_is(exported_model, tmp_path, verb):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n", encoding="utf-8")
    name, *options = verb.split()
    finished([*EDGESEQ, name, str(exported_model), *options], tmp_path, PYTHONPATH=str(tmp_path))


def test_every_example_is_run_here():
    scripts = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    own = {"your_own_data/train.py", "your_own_model/my_model.py", "your_own_model/train.py"}
    fast = {f"keyword_spotting/{name}.py" for name in ("cutter", "sound", "spot")}  # in files of their own
    assert scripts == {"har_watch/stream.py", "har_watch/live.py", *own, *fast}
