"""Engines that may take a process down with them: tried in one of their own first, and what came of it remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseq.devices.engines import available, choice, open_all, open_engine
from edgeseq.devices.engines.choice import Choice, memory_file, remember
from edgeseq.devices.engines.prove import Proven
from edgeseq.errors import MissingDependency
from edgeseq.folder import Folder, open_folder

from .conftest import Fakes, python

KILLED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
DEADLY = KILLED.format("SIGILL")
STARVED = KILLED.format("SIGKILL")
OPEN = "import sys\nfrom edgeseq.devices.engines import open_engine\nprint(open_engine(*sys.argv[1:]).name)\n"


def test_where_a_runtime_is_deadly_the_others_answer(leaky: Folder, fakes: Fakes) -> None:
    environment = fakes(litert=DEADLY)
    done = subprocess.run(
        [sys.executable, "-m", "edgeseq.devices", "stream", str(leaky.path), "--speed", "0", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] in ("onnxruntime", "numpy")
    (entry,) = json.loads(memory_file().read_text())["choices"]
    litert = entry["choice"]["proven"][0]
    assert litert["deadly"]
    assert "an illegal instruction" in litert["reason"]


def test_an_engine_that_the_system_ended_is_missed_for_a_day_and_then_tried_anew(
    leaky: Folder, fakes: Fakes, cache: Path
) -> None:
    ending = "import os, signal\nos.kill(os.getpid(), getattr(signal, os.environ['ENDING']))\n"
    environment = fakes(litert=ending, onnxruntime="raise ImportError")
    for hours, ending, known in ((0, "SIGKILL", "SIGKILL"), (23, "SIGILL", "SIGKILL"), (2, "SIGILL", "an illegal")):
        if hours:
            kept = json.loads(cache.read_text())
            kept["choices"][0]["at"] -= 3600 * hours
            cache.write_text(json.dumps(kept))
        done = python(OPEN, leaky.path, env={**environment, "ENDING": ending})
        assert done.stdout == "numpy\n", done.stderr
        (entry,) = json.loads(cache.read_text())["choices"]
        assert known in entry["choice"]["proven"][0]["reason"]


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_a_named_engine_that_is_deadly_is_an_error_and_not_the_end_of_the_process(
    leaky: Folder, fakes: Fakes, cache: Path, named: str
) -> None:
    environment = fakes(litert=DEADLY) | ({"EDGESEQ_ENGINE": "litert"} if named == "environment" else {})
    arguments = ["--engine", "litert"] if named == "argument" else []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "edgeseq.devices", "stream", str(leaky.path), "--speed", "0", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 3, done.stderr
        assert "with engine litert needs a runtime that works here; an illegal instruction: this build, " in done.stderr
    kept = json.loads(cache.read_text())
    assert kept["choices"] == []
    assert [(entry["proven"]["engine"], entry["proven"]["deadly"]) for entry in kept["tried"]] == [("litert", True)]


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_whoever_names_an_engine_is_kept_from_a_deadly_one(leaky: Folder, fakes: Fakes, verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeseq.devices", verb, str(leaky.path), "--engine", "litert", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=fakes(litert=DEADLY),
    )
    assert done.returncode == 3, done.stderr
    assert "an illegal instruction" in json.loads(done.stdout)["error"]["message"]


def test_a_named_engine_is_tried_once_on_a_machine_and_a_precision(
    folders: dict[str, Path], counted: list[str], tried: list[str]
) -> None:
    for name in ("leaky", "gated", "leaky"):
        for engine in ("litert", "litert-builtin", "numpy"):
            assert open_engine(folders[name], engine).name == engine
    assert open_engine("har_watch", "litert").name == "litert"  # int8: other kernels
    assert tried == ["leaky litert", "leaky litert-builtin", "har_watch litert"]
    assert counted == []  # nor were all of them measured for it


def test_a_trial_is_remembered_by_another_process(leaky: Folder, fakes: Fakes) -> None:
    environment = fakes(litert="raise ImportError('no kernels')\n")
    assert python(OPEN, leaky.path, "litert", env=environment).returncode == 1
    kept = json.loads(memory_file().read_text())["tried"]
    assert ["no kernels" in entry["proven"]["reason"] for entry in kept] == [True]
    counting = "from edgeseq.devices.engines import choice\nchoice.prove = None\n" + OPEN
    assert "no kernels" in python(counting, leaky.path, "litert", env=environment).stderr


def test_a_named_engine_that_the_system_ended_is_tried_anew_by_the_next_process(leaky: Folder, fakes: Fakes) -> None:
    done = python(OPEN, leaky.path, "litert", env=fakes(litert=STARVED))
    assert "was killed (SIGKILL), as a system without memory does" in done.stderr
    assert not memory_file().exists()
    assert python(OPEN, leaky.path, "litert", env=dict(os.environ)).stdout == "litert\n"


def test_a_choice_that_is_made_anew_takes_the_place_of_a_trial(leaky: Folder) -> None:
    remember(leaky, tried=[Proven("litert", False, "it kills", deadly=True)])
    with pytest.raises(MissingDependency, match="with engine litert needs a runtime that works here; it kills"):
        open_engine(leaky, "litert")
    remember(leaky, Choice("litert", (Proven("litert", True, runtime="litert 1"),), True))
    assert open_engine(leaky, "litert").name == "litert"


def test_where_every_runtime_is_deadly_numpy_answers(leaky: Folder, fakes: Fakes) -> None:
    code = (
        "import sys\nfrom edgeseq.devices.engines import available, open_all\n"
        "from edgeseq.devices.session import Session\n"
        "print(Session(sys.argv[1]).engine, available(sys.argv[1]), sorted(open_all(sys.argv[1])[1]))\n"
    )
    done = python(code, leaky.path, env=fakes(litert=DEADLY, onnxruntime="import os\nos.abort()\n"))
    assert done.stdout == "numpy ('numpy',) ['litert', 'onnxruntime', 'tflite-runtime']\n", done.stderr


def test_all_engines_are_opened_here_only_after_they_were_tried_on_this_machine(
    folders: dict[str, Path], tried: list[str]
) -> None:
    names = ("litert", "onnxruntime", "numpy")
    assert available(folders["leaky"]) == names
    assert available(folders["gated"]) == names  # tried on a folder of this precision: that will do
    assert tried == ["leaky litert", "leaky onnxruntime"]
    remember(open_folder(folders["leaky"]), tried=[Proven("litert", False, "it kills", deadly=True)])
    assert available(folders["gated"]) == names  # what died elsewhere is tried on this folder
    assert tried[2:] == ["gated litert"]
    found, refused = open_all(folders["leaky"])
    assert [engine.name for engine in found] == ["onnxruntime", "numpy"]
    assert refused["litert"] == "it kills"


@pytest.mark.parametrize("executable", ["/no/such/python", "true"])
def test_where_no_process_can_be_started_the_first_engine_that_opens_is_taken(
    leaky: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path, executable: str
) -> None:
    monkeypatch.setattr("sys.executable", shutil.which(executable) or executable)
    assert open_engine(leaky).name == "litert"
    assert available(leaky) == ("litert", "onnxruntime", "numpy")
    assert open_engine(leaky, "onnxruntime").name == "onnxruntime"
    said = capsys.readouterr().err
    assert "no engine can be tried in a process of its own here" in said
    assert "engine onnxruntime was not tried in a process of its own here" in said
    (entry,) = json.loads(cache.read_text())["choices"]
    assert all(found["passing"] for found in entry["choice"]["proven"] if "is not installed" not in found["reason"])


def test_where_processes_hang_no_engine_is_opened_that_crashed_in_one(
    leaky: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(folder: Folder, name: str, **_: object) -> Proven:
        return Proven(
            name, False, "it crashed" if name == "litert" else "time was up", "", deadly=True, passing=name != "litert"
        )

    monkeypatch.setattr(choice, "prove", busy)
    assert open_engine(leaky).name == "onnxruntime"
    assert "(time was up): the first that opens is taken" in capsys.readouterr().err
