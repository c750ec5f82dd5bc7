"""Engines tried in a process of their own, where runtimes die, hang and answer wrongly for real."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeseq.devices.engines import ENGINES
from edgeseq.devices.engines.apart import Ended
from edgeseq.devices.engines.diagnosis import too_old_for, why_it_died
from edgeseq.devices.engines.prove import Proven, is_installed, prove, time_in_turns
from edgeseq.devices.facts import read_facts
from edgeseq.devices.fresh import measure_fresh
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import Folder, new_folder, open_folder, seal
from edgeseq.program import Program

KILLED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
NEEDS = "/lib/aarch64-linux-gnu/libm.so.6: version `GLIBC_2.99' not found (required by wrapper.so)"


def changed(source: str | Path, tmp_path: Path, change: Callable[[Path], object]) -> Folder:
    """A copy of a folder in which something is another, and sealed."""
    opened, out = open_folder(source), tmp_path / "changed"
    with new_folder(out) as staging:
        for name in opened.manifest.files:
            shutil.copyfile(opened.path / name, staging / name)
        change(staging)
        seal(staging, opened.manifest)
    return open_folder(out)


def golden_off_by(amount: float, staging: Path) -> None:
    with np.load(staging / "golden.npz") as stored:
        held = dict(stored)
    np.savez(staging / "golden.npz", **{**held, "y": held["y"] + amount})


@pytest.fixture
def fake_litert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``fake_litert(source)``: new processes load this for the interpreter of LiteRT."""

    def write(source: str) -> None:
        package = tmp_path / "fake" / "ai_edge_litert"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("__version__ = '0.1'\n", encoding="utf-8")
        (package / "interpreter.py").write_text(source, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return write


def test_an_engine_that_answers_as_the_golden_frames_do_works(folder: Path, engine_name: str) -> None:
    found = prove(open_folder(folder), engine_name)
    assert found.works, found.reason
    assert (found.reason, found.deadly, found.fault) == ("", False, None)
    assert found.runtime.startswith(f"{ENGINES[engine_name].package} ")
    assert found.p50_us is not None
    assert found.p50_us > 0


@pytest.mark.parametrize("name", ["har_watch", "har_watch_fp32"])
@pytest.mark.parametrize("engine", ["litert", "litert-builtin", "onnxruntime", "numpy"])
def test_the_shipped_models_are_answered_rightly_in_int8_and_float32(name: str, engine: str) -> None:
    found = prove(open_folder(name), engine, timed=False)
    assert (found.works, found.reason, found.p50_us) == (True, "", None)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (
            "SIGILL",
            r"an illegal instruction: this build, ai-edge-litert \d.*, needs instructions that this processor",
        ),
        (
            "SIGSEGV",
            r"crashed here \(SIGSEGV\); take another version, pip install 'ai-edge-litert<\d",
        ),
        ("SIGABRT", r"crashed here \(SIGABRT\)"),
        ("SIGBUS", r"crashed here \(SIGBUS\)"),
        ("SIGKILL", r"was killed \(SIGKILL\), as a system without memory does"),
    ],
)
def test_what_kills_a_process_is_named_and_this_one_lives(
    folders: dict[str, Path], fake_litert: Callable[[str], None], signal: str, reason: str
) -> None:
    fake_litert(KILLED.format(signal))
    found = prove(open_folder(folders["leaky"]), "litert")
    assert (found.works, found.deadly, found.fault) == (False, True, None)
    assert found.passing == (signal in ("SIGABRT", "SIGKILL"))  # as a process ends that gets no memory
    assert re.search(reason, found.reason), found.reason


def test_an_abort_says_what_the_runtime_said_of_it(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert("import os\nos.write(2, b'first\\nterminate called: no such kernel\\n')\nos.abort()\n")
    assert "(SIGABRT): terminate called: no such kernel;" in prove(open_folder(folders["leaky"]), "litert").reason


def test_an_illegal_instruction_names_the_processor_and_what_it_has() -> None:
    facts = msgspec.structs.replace(read_facts(), core="Cortex-A72", features=("asimd",))
    said = why_it_died("onnxruntime", Ended(-4, "", ""), facts)
    assert "that this processor (Cortex-A72: asimd) lacks; take another version, pip install 'onnxruntime<" in said


def test_a_runtime_that_hangs_is_stopped(folders: dict[str, Path], fake_litert: Callable[[str], None]) -> None:
    fake_litert("import time\ntime.sleep(600)\n")
    found = prove(open_folder(folders["leaky"]), "litert", timeout=1.0)
    assert (found.works, found.deadly, found.passing) == (False, True, True)
    assert "did not answer in time" in found.reason


def test_a_runtime_that_was_built_for_a_newer_system_says_which(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert(f"raise ImportError({NEEDS!r})\n")
    found = prove(open_folder(folders["leaky"]), "litert")
    assert (found.works, found.deadly, found.fault, found.passing) == (False, False, None, False)
    assert "needs glibc 2.99, and this system has glibc 2." in found.reason
    assert "take" not in found.reason
    assert "another version, pip install 'ai-edge-litert<" in found.reason


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ("libomp.so: cannot open shared object file: Cannot allocate memory", True),
        ("wrapper.so: failed to map segment from shared object", True),
        ("wrapper.so: failed to map segment from shared object: Cannot allocate memory", True),
        ("Error loading shared library wrapper.so: Out of memory", True),
        ("wrapper.so: failed to map segment from shared object: Operation not permitted", False),
        ("libgomp.so.1: cannot allocate memory in static TLS block", False),
        ("libGL.so.1: cannot open shared object file: No such file or directory", False),
    ],
)
def test_a_runtime_that_was_not_loaded_for_want_of_memory_may_work_another_time(
    folders: dict[str, Path], fake_litert: Callable[[str], None], said: str, passing: bool
) -> None:
    fake_litert(f"raise ImportError({said!r})\n")
    found = prove(open_folder(folders["leaky"]), "litert")
    assert (found.works, found.deadly, found.fault, found.passing) == (False, False, None, passing)
    assert said in found.reason


def test_other_errors_of_the_linker_are_not_taken_for_an_old_system() -> None:
    assert too_old_for("version `GLIBCXX_3.4.32' not found") == (
        "needs libstdc++ with GLIBCXX 3.4.32, and this system has an older one"
    )
    assert too_old_for("libGL.so.1: cannot open shared object file: No such file or directory") is None


def test_a_runtime_that_is_broken_in_python_is_a_reason_and_not_deadly(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert("raise AttributeError('_ARRAY_API not found')\n")
    found = prove(open_folder(folders["leaky"]), "litert")
    assert (found.works, found.deadly) == (False, False)
    assert "_ARRAY_API not found" in found.reason


def test_a_runtime_that_leaves_without_a_word_does_not_work(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert("import os\nos._exit(0)\n")
    found = prove(open_folder(folders["leaky"]), "litert")
    assert (found.works, found.reason) == (False, "it ended badly (exit code 0): nothing")


@pytest.mark.parametrize(("file", "engine"), [("tflite", "litert"), ("onnx", "onnxruntime"), ("golden", "numpy")])
def test_wrong_answers_are_seen(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path], file: str, engine: str
) -> None:
    folder = make_folder(programs["gated"](seed=0), **{file: programs["gated"](seed=1)})
    found = prove(open_folder(folder), engine)
    assert (found.works, found.deadly, found.fault, found.passing) == (False, False, None, False)
    assert "it answers wrongly: frame 0 of golden.npz is off by" in found.reason
    assert found.p50_us is None


def test_int8_that_is_off_by_less_than_a_step_but_always_is_wrong(tmp_path: Path) -> None:
    folder = changed("har_watch", tmp_path, lambda staging: golden_off_by(0.01, staging))
    found = prove(folder, "litert", timed=False)
    assert not found.works
    assert "100% of the first 20 frames" in found.reason
    assert prove(folder, "litert-builtin", timed=False).works  # which rounds in its own way, by as much


def test_answers_that_are_no_numbers_are_wrong(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    program = programs["leaky"]()
    nowhere = dataclasses.replace(program, constants={n: np.full_like(a, np.nan) for n, a in program.constants.items()})
    assert "it answers wrongly" in prove(open_folder(make_folder(program, tflite=nowhere)), "litert").reason


def test_without_golden_frames_an_engine_works_if_it_steps(folders: dict[str, Path], tmp_path: Path) -> None:
    found = prove(changed(folders["leaky"], tmp_path, lambda staging: (staging / "golden.npz").unlink()), "litert")
    assert found.works
    assert found.p50_us is not None


def test_an_engine_that_is_not_installed_is_told_without_a_process(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert not is_installed("tflite-runtime")
    found = prove(open_folder(folders["leaky"]), "tflite-runtime")
    assert (found.works, found.deadly) == (False, False)
    assert "is not installed: pip install 'edgeseq[legacy-tflite]'" in found.reason
    with pytest.raises(OSError, match="no/such/python"):
        prove(open_folder(folders["leaky"]), "numpy")


def test_an_unknown_engine_is_met_with_the_closest_name(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="Did you mean 'litert'"):
        prove(open_folder(folders["leaky"]), "litrt")


def test_a_damaged_file_is_the_folders_fault(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = changed(folders["leaky"], tmp_path, lambda staging: (staging / "model.onnx").write_bytes(b"no model" * 9))
    found = prove(broken, "onnxruntime")
    assert (found.works, found.fault) == (False, 2)
    assert "model.onnx cannot be run by" in found.reason


def test_modules_in_a_model_folder_are_not_loaded(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folders["leaky"], tmp_path / "hostile")
    for name in ("numpy", "ai_edge_litert", "msgspec"):
        (tmp_path / "hostile" / f"{name}.py").write_text(f"open('ran-{name}', 'w').close()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "hostile")
    assert prove(open_folder(Path()), "litert").works
    assert list((tmp_path / "hostile").glob("ran-*")) == []


def test_engines_are_timed_in_one_process_together(folder: Path) -> None:
    times = time_in_turns(open_folder(folder), ["litert", "onnxruntime", "numpy"])
    assert list(times) == ["litert", "onnxruntime", "numpy"]
    assert all(time > 0 for time in times.values())


def test_engines_that_kill_each_other_leave_no_times(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert(KILLED.format("SIGSEGV"))
    assert time_in_turns(open_folder(folders["leaky"]), ["numpy", "litert"]) == {}


def test_a_measurement_in_a_process_that_dies_names_what_killed_it(
    folders: dict[str, Path], fake_litert: Callable[[str], None]
) -> None:
    fake_litert(KILLED.format("SIGILL"))
    with pytest.raises(EdgeseqError, match="engine litert failed in a process of its own: an illegal instruction"):
        measure_fresh(folders["leaky"], "litert")


def test_what_was_proven_survives_json() -> None:
    found = Proven("litert", False, "why", 1.5, "ai-edge-litert 2", True, 5, True)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Proven) == found
