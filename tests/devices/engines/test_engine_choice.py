"""The engine of a folder: chosen by measuring, once on a machine, and remembered."""

from __future__ import annotations

import json
import os
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
from edgeseq.devices.engines import choice, open_engine
from edgeseq.devices.engines.choice import Choice, choose, machine_here, measure, memory_file, remember
from edgeseq.devices.engines.prove import Proven
from edgeseq.devices.session import Session
from edgeseq.errors import GateFailed, InputError, MissingDependency
from edgeseq.folder import Folder, open_folder
from edgeseq.program import Program

from .conftest import Fakes, python


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
