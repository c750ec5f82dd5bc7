"""What ``edgeseq doctor`` says of the engines: which work, why the others do not, and which is chosen."""

from __future__ import annotations

import json

import msgspec
import pytest

from edgeseq.devices.engines.choice import memory_file
from edgeseq.devices.facts import read_facts
from edgeseq.folder import open_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_doctor_times_the_engines_of_a_folder_and_keeps_its_choice(edgeseq):
    done = edgeseq("doctor", "har_watch", "--json")
    assert done.code == 0, done.err
    engines = done.document["engines"]
    assert all((engine["p50_us"] is not None) == engine["works"] for engine in engines.values())
    assert engines[done.document["engine"]]["works"]
    assert done.document["why"] == "the fastest here"
    assert f"{done.document['engine']} runs har_watch: the fastest here." in " ".join(done.err.split())
    (kept,) = json.loads(memory_file().read_text())["choices"]
    assert kept["folder"] == open_folder("har_watch").hash
    assert kept["choice"]["engine"] == done.document["engine"]


def test_doctor_measures_anew_what_was_chosen_before(edgeseq):
    from edgeseq.devices.engines.choice import Choice, choose, remember

    folder = open_folder("har_watch")
    remember(folder, Choice("tflite-runtime", (), False))
    assert choose(folder).engine == "tflite-runtime"
    assert edgeseq("doctor", "har_watch", "--json").code == 0
    assert choose(folder).engine != "tflite-runtime"


def test_doctor_of_no_folder_tries_a_small_model_and_keeps_nothing(edgeseq):
    done = edgeseq("doctor", "--json")
    assert {name for name, engine in done.document["engines"].items() if engine["works"]} == {
        "litert",
        "litert-builtin",
        "onnxruntime",
        "numpy",
    }
    assert "edgeseq doctor FOLDER says" in done.document["why"]
    assert not memory_file().exists()


def test_doctor_survives_a_runtime_that_does_not(process, tmp_path):
    for name, source in {
        "__init__": "",
        "interpreter": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n",
    }.items():
        file = tmp_path / "fake" / "ai_edge_litert" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    done = process("doctor", "har_watch", "--json", env={"PYTHONPATH": str(tmp_path / "fake")})
    assert done.code == 0, done.err
    litert = done.document["engines"]["litert"]
    assert not litert["works"]
    assert litert["which"].startswith("an illegal instruction: this build, ai-edge-litert")
    assert done.document["engine"] in ("onnxruntime", "numpy")


def test_doctor_says_which_engine_the_environment_forces(edgeseq, monkeypatch):
    monkeypatch.setenv("EDGESEQ_ENGINE", "numpy")
    document = edgeseq("doctor", "har_watch", "--json").document
    assert (document["engine"], document["why"]) == ("numpy", "EDGESEQ_ENGINE says so")


def test_doctor_of_an_emulated_board_shows_no_times(edgeseq, monkeypatch):
    monkeypatch.setenv("EDGESEQ_EMULATED", "1")
    document = edgeseq("doctor", "har_watch", "--json").document
    assert {engine["p50_us"] for engine in document["engines"].values()} == {None}
    assert (document["engine"], document["why"][:20]) == ("litert", "the first that works")


def test_doctor_says_that_a_gpu_is_not_used(edgeseq, monkeypatch):
    jetson = msgspec.structs.replace(read_facts(), gpu="Ampere (ga10b)")
    monkeypatch.setattr("edgeseq.devices.facts.read_facts", lambda: jetson)
    assert "Ampere (ga10b), not used: edgeseq runs on the CPU" in " ".join(edgeseq("doctor", "har_watch").out.split())


def test_doctor_without_processes_says_so(edgeseq, monkeypatch):
    monkeypatch.setattr("sys.executable", "/no/such/python")
    done = edgeseq("doctor", "har_watch")
    assert done.code == 4
    assert "none can be started here" in done.err
