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

import edgeseq
from edgeseq.devices.engines import available, choice, open_all, open_engine
from edgeseq.devices.engines.choice import Choice, choose, machine_here, measure, memory_file, remember
from edgeseq.devices.engines.prove import Proven
from edgeseq.devices.session import Session
from edgeseq.errors import GateFailed, InputError, MissingDependency
from edgeseq.folder import Folder, open_folder
from edgeseq.program import Program

KILLED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
DEADLY = KILLED.format("SIGILL")
STARVED = KILLED.format("SIGKILL")
OPEN = "import sys\nfrom edgeseq.devices.engines import open_engine\nprint(open_engine(*sys.argv[1:]).name)\n"
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
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which engines were tried in a process of their own, each with its folder; all of them work."""
    done: list[str] = []

    def fast(folder: Folder, name: str, **_: object) -> Proven:
        done.append(f"{folder.path.name} {name}")
        return Proven(name, True, runtime=f"{name} 1")

    monkeypatch.setattr(choice, "prove", fast)
    return done


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


def test_a_machine_is_told_by_its_processor_library_python_and_runtimes() -> None:
    processor, threads, library, python_, own, *packages = machine_here().split(", ")
    assert threads == "threads 1"
    assert processor.startswith(f"{os.uname().machine} processor ")
    assert library == os.confstr("CS_GNU_LIBC_VERSION")
    assert python_ == f"cpython {'.'.join(map(str, sys.version_info[:3]))} of 64 bits"
    assert own == f"edgeseq-{edgeseq.__version__}"
    assert packages[2:] == ["no tflite-runtime", f"numpy-{np.__version__}"]
    assert packages[0].startswith("ai_edge_litert-2.")
    assert packages[1].startswith("onnxruntime-1.")


def test_what_was_chosen_where_times_mean_nothing_is_not_taken_where_they_do(
    leaky: Folder, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEQ_EMULATED", "1")
    choose(leaky)
    for said in ("0", ""):  # neither is emulated: one machine
        monkeypatch.setenv("EDGESEQ_EMULATED", said)
        choose(leaky)
    assert counted == ["leaky"] * 2


def test_another_edgeseq_chooses_anew(leaky: Folder, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    choose(leaky)
    monkeypatch.setattr("edgeseq.devices.engines.machine.__version__", "9.9")
    choose(leaky)
    assert counted == ["leaky"] * 2


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
    assert capsys.readouterr().err.count("what was learnt of engines cannot be kept in ") == 1


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


@pytest.mark.parametrize("passing", [False, True])
def test_what_may_pass_does_not_hold_after_a_day_nor_after_a_clock_was_put_back(
    leaky: Folder, counted: list[str], monkeypatch: pytest.MonkeyPatch, passing: bool
) -> None:
    then = 1e9
    monkeypatch.setattr(choice.time, "time", lambda: then)
    remember(leaky, Choice("numpy", (Proven("litert", False, "killed", deadly=True, passing=passing),), True))
    for seconds, measured in ((0, False), (86399, False), (86401, passing), (-1, passing)):
        monkeypatch.setattr(choice.time, "time", lambda now=then + seconds: now)
        monkeypatch.setattr(choice, "_write", lambda *_: None)  # what is chosen now does not take its place
        choice._choose_once.cache_clear()
        counted.clear()
        choose(leaky)
        assert bool(counted) == measured


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
