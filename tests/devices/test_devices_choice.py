"""The engine of a folder: chosen by measuring, once on a machine, and remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.engines import available, choice, open_all, open_engine
from edgeseq.devices.engines.choice import Choice, choose, machine_here, measure, memory_file, remember
from edgeseq.devices.engines.prove import Proven
from edgeseq.devices.session import Session
from edgeseq.errors import GateFailed, InputError, MissingDependency
from edgeseq.folder import Folder, open_folder
from edgeseq.program import Program

DEADLY = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
Fakes = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the file in it that choices are kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return memory_file()


@pytest.fixture
def leaky(folders: dict[str, Path]) -> Folder:
    return open_folder(folders["leaky"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines are tried no more but taken at their word; the folders that were measured, so often."""
    measured: list[str] = []

    def fast(folder: Folder) -> Choice:
        measured.append(folder.path.name)
        return Choice("numpy", (Proven("numpy", True, p50_us=1.0, runtime="numpy 1"),), True)

    monkeypatch.setattr(choice, "measure", fast)
    return measured


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    """``fakes(litert=source, onnxruntime=source)``: the environment of a process that loads these runtimes instead."""

    def write(litert: str = "", onnxruntime: str = "") -> dict[str, str]:
        packages = {"ai_edge_litert/__init__": "", "ai_edge_litert/interpreter": litert}
        packages |= {"onnxruntime/__init__": onnxruntime} if onnxruntime else {}
        for name, source in packages.items():
            file = tmp_path / "fake" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        return {**os.environ, "PYTHONPATH": str(tmp_path / "fake")}

    return write


def python(code: str, *arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def times(monkeypatch: pytest.MonkeyPatch, **microseconds: float) -> None:
    monkeypatch.setattr(choice, "time_in_turns", lambda *_: microseconds)


def test_all_engines_are_tried_and_a_working_one_is_chosen(leaky: Folder) -> None:
    chosen = choose(leaky)
    assert [found.engine for found in chosen.proven] == ["litert", "onnxruntime", "tflite-runtime", "numpy"]
    working = {found.engine: found.p50_us for found in chosen.proven if found.works}
    assert list(working) == ["litert", "onnxruntime", "numpy"]
    assert chosen.measured
    assert chosen.engine == min(working, key=lambda name: working[name] or 0)
    assert open_engine(leaky).name == chosen.engine


def test_the_fastest_is_chosen_and_the_others_stand_behind_it(leaky: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, litert=7.0, onnxruntime=5.0, numpy=6.0)
    chosen = measure(leaky)
    assert (chosen.engine, chosen.order) == ("onnxruntime", ("onnxruntime", "numpy", "litert"))
    assert {found.engine: found.p50_us for found in chosen.proven if found.works}["numpy"] == 6.0


def test_engines_that_cannot_be_timed_together_keep_the_times_of_their_own(
    leaky: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch)
    assert all(found.p50_us for found in measure(leaky).proven if found.works)


def test_a_choice_is_measured_once(leaky: Folder, counted: list[str], cache: Path) -> None:
    assert [choose(leaky).engine, choose(leaky.path).engine, Session(leaky.path).engine] == ["numpy"] * 3
    assert counted == ["leaky"]
    kept = json.loads(cache.read_text())
    assert [(entry["machine"], entry["folder"]) for entry in kept["choices"]] == [(machine_here(), leaky.hash)]


def test_a_choice_is_remembered_by_another_process(leaky: Folder) -> None:
    remember(leaky, Choice("numpy", (Proven("numpy", True),), True))
    code = "import sys\nfrom edgeseq.devices.session import Session\nprint(Session(sys.argv[1]).engine)\n"
    assert python(code, leaky.path, env=dict(os.environ)).stdout == "numpy\n"


def test_another_folder_or_machine_is_measured_anew(
    folders: dict[str, Path], counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("leaky", "gated", "leaky"):
        choose(folders[name])
    assert counted == ["leaky", "gated"]
    monkeypatch.setattr(choice, "machine_here", lambda: "another board, or another version of a runtime")
    choose(folders["leaky"])
    assert counted == ["leaky", "gated", "leaky"]


def test_a_machine_is_told_by_its_processor_python_and_runtimes() -> None:
    processor, threads, python_, *packages = machine_here().split(", ")
    assert threads == "threads 1"
    assert processor.startswith(f"{os.uname().machine} processor ")
    assert python_ == f"cpython {'.'.join(map(str, sys.version_info[:3]))}"
    assert packages[2:] == ["no tflite-runtime", f"numpy-{np.__version__}"]
    assert packages[0].startswith("ai_edge_litert-2.")
    assert packages[1].startswith("onnxruntime-1.")


def test_a_runtime_without_a_version_is_told_by_its_age(fakes: Fakes) -> None:
    code = "from edgeseq.devices.engines.choice import machine_here\nprint(machine_here())\n"
    said = python(code, env=fakes()).stdout
    assert ", ai-edge-litert of " in said


@given(content=st.binary(max_size=200))
def test_a_damaged_file_is_no_error_whatever_is_in_it(content: bytes) -> None:
    memory_file().parent.mkdir(parents=True, exist_ok=True)
    memory_file().write_bytes(content)
    assert choice._read(memory_file()) == choice._Memory()


def test_a_damaged_file_is_said_and_replaced(
    leaky: Folder, counted: list[str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text('{"choices": [{"machine": 7')
    choose(leaky)
    choose(leaky)
    assert capsys.readouterr().err.count(f"edgeseq: {cache} is damaged (") == 1
    assert len(json.loads(cache.read_text())["choices"]) == len(counted) == 1


def test_a_cache_that_cannot_be_written_is_said_once_and_the_choice_holds_for_this_process(
    leaky: Folder, counted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    assert [choose(leaky).engine for _ in range(3)] == ["numpy"] * 3
    assert counted == ["leaky"]
    assert capsys.readouterr().err.count("the choice of engine cannot be kept in ") == 1


def test_a_user_without_a_home_can_choose(
    leaky: Folder, counted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert choose(leaky).engine == "numpy"
    assert "cannot be kept in" in capsys.readouterr().err


def test_only_the_last_choices_are_kept(folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "KEPT", 2)
    for machine in "abc":
        monkeypatch.setattr(choice, "machine_here", lambda machine=machine: machine)
        remember(open_folder(folders["leaky"]), Choice("numpy", (), False))
    assert [entry["machine"] for entry in json.loads(cache.read_text())["choices"]] == ["b", "c"]


def test_processes_that_choose_at_once_leave_a_whole_file(leaky: Folder, cache: Path) -> None:
    code = (
        "import sys\nfrom edgeseq.devices.engines import choice\nfrom edgeseq.folder import open_folder\n"
        "folder, own = open_folder(sys.argv[1]), sys.argv[2]\n"
        "for i in range(100):\n"
        "    choice.machine_here = lambda: f'{own} {i % 5}'\n"
        "    choice.remember(folder, choice.Choice('numpy', (), False))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(leaky.path), str(n)]) for n in range(3)]
    looks = 0
    while any(process.poll() is None for process in running):
        if cache.exists():
            assert msgspec.json.decode(cache.read_bytes(), type=choice._Memory).choices
            looks += 1
    assert [process.wait() for process in running] == [0, 0, 0]
    assert looks
    assert [file.name for file in cache.parent.iterdir()] == ["engines.json"]


def test_the_environment_forces_an_engine(leaky: Folder, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEQ_ENGINE", "onnxruntime")
    assert (open_engine(leaky).name, Session(leaky).engine) == ("onnxruntime", "onnxruntime")
    assert open_engine(leaky, "numpy").name == "numpy"
    assert counted == []
    monkeypatch.setenv("EDGESEQ_ENGINE", "onnx")
    with pytest.raises(InputError, match="Did you mean 'onnxruntime'"):
        open_engine(leaky)
    monkeypatch.setenv("EDGESEQ_ENGINE", "tflite-runtime")
    with pytest.raises(MissingDependency, match="is not installed"):
        open_engine(leaky)


def test_an_emulated_board_is_not_timed_and_takes_the_first_that_works(
    leaky: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEQ_EMULATED", "1")
    chosen = choose(leaky)
    assert (chosen.engine, chosen.measured) == ("litert", False)
    assert [found.p50_us for found in chosen.proven] == [None] * 4
    assert chosen.order == ("litert", "onnxruntime", "numpy")


def test_a_chosen_engine_that_this_process_cannot_open_gives_way_to_the_next(
    leaky: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven = tuple(Proven(name, True) for name in ("litert", "onnxruntime", "numpy"))
    monkeypatch.setattr(choice, "choose", lambda _: Choice("litert", proven, True))
    assert open_engine(leaky).name == "litert"
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert open_engine(leaky).name == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert open_engine(leaky).name == "numpy"


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


def test_where_every_runtime_is_deadly_numpy_answers(leaky: Folder, fakes: Fakes) -> None:
    code = (
        "import sys\nfrom edgeseq.devices.engines import available, open_all\n"
        "from edgeseq.devices.session import Session\n"
        "print(Session(sys.argv[1]).engine, available(sys.argv[1]), sorted(open_all(sys.argv[1])[1]))\n"
    )
    done = python(code, leaky.path, env=fakes(litert=DEADLY, onnxruntime="import os\nos.abort()\n"))
    assert done.stdout == "numpy ('numpy',) ['litert', 'onnxruntime', 'tflite-runtime']\n", done.stderr


def test_all_engines_are_opened_here_only_after_they_were_tried_on_this_machine(
    folders: dict[str, Path], counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("litert", "onnxruntime", "numpy")
    alive = Choice("litert", tuple(Proven(name, True, runtime=f"{name} 1") for name in names), True)
    dead = Choice("litert", (Proven("litert", False, "it kills", deadly=True), *alive.proven[1:]), True)
    monkeypatch.setattr(choice, "measure", lambda folder: counted.append(folder.path.name) or alive)
    assert available(folders["leaky"]) == names
    assert available(folders["gated"]) == names  # tried on a folder of this precision: that will do
    assert counted == ["leaky"]
    remember(open_folder(folders["leaky"]), dead)
    assert available(folders["gated"]) == names  # what died elsewhere is tried on this folder
    assert counted == ["leaky", "gated"]
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
    assert "no engine can be tried in a process of its own here" in capsys.readouterr().err
    assert not cache.exists()


def test_a_folder_that_is_wrong_is_said_and_nothing_is_chosen(
    programs: dict[str, Callable[..., Program]],
    make_folder: Callable[..., Path],
    cache: Path,
) -> None:
    small, wide = programs["leaky"](labels=4), programs["leaky"](labels=5)
    with pytest.raises(GateFailed, match=r"tensor 'y' is float32\[1, 5\]"):
        choose(make_folder(small, onnx=wide))
    assert not cache.exists()


def test_a_folder_that_no_engine_answers_rightly_is_refused_with_every_reason(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    folder = make_folder(programs["gated"](seed=0), golden=programs["gated"](seed=1))
    with pytest.raises(GateFailed, match=r"no engine answers as the trained model did: (.*it answers wrongly){3}"):
        Session(folder)
