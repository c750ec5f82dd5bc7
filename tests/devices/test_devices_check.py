from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeseq.devices.check import MIN_FRAMES, check_folder, require, unchecked_files
from edgeseq.devices.compare import FORCED_TOLERANCE, FREE_TOLERANCE, agreement_of, slope
from edgeseq.devices.engines import open_engine
from edgeseq.errors import GateFailed, InputError, MissingDependency, Unsupported
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Link
from edgeseq.program import Builder, Program, Value

ENGINES = ["litert", "litert-builtin", "onnxruntime", "numpy"]
Make = Callable[..., Path]
Programs = dict[str, Callable[..., Program]]


def nudged(program: Program, by: float) -> Program:
    """The same program with one weight a little off."""
    name = next(iter(program.constants))
    array = program.constants[name].copy()
    array.flat[0] += by
    return dataclasses.replace(program, constants={**program.constants, name: array})


def still_program(channels: int = 3) -> Program:
    """A model with a state that is handed on unchanged, and one that moves."""
    builder = Builder(Value("x", (1, channels)), [Value("moving", (1, channels)), Value("still", (1, 2))])
    half = builder.constant("half", np.float32([0.5]))
    moving = builder.add("add", "x", builder.add("mul", "moving", half))
    kept = builder.add("mul", "still", builder.constant("one", np.float32([1.0])))
    read = builder.add("concat", moving, "still", axis=1)
    rng = np.random.default_rng(0)
    weights = builder.constant("v", rng.normal(size=(4, channels + 2)).astype(np.float32))
    return builder.finish(builder.add("linear", read, weights), {"moving": moving, "still": kept})


def failing(folder: Path, **options: object) -> list[str]:
    return [link.name for link in check_folder(folder, **options) if not link.passed]


def test_a_right_folder_passes_every_link(folder: Path) -> None:
    links = check_folder(folder, ENGINES)
    require(links)
    assert [link.name for link in links] == [
        "program ~ golden",
        *(f"{engine} {what}" for engine in ENGINES for what in ("teacher-forced", "free-running", "state moves")),
    ]
    for link in links:
        assert link.frames == 2000
        assert link.passed
        if link.name.endswith("free-running"):
            assert link.agreement == 1.0
            assert link.slope is not None
            assert abs(link.slope) < 1e-6
    assert {link.tolerance for link in links} == {FREE_TOLERANCE, FORCED_TOLERANCE, 0.0}


def test_by_default_every_runtime_that_works_here_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_folder(folder)
    links = check_folder(opened)
    assert {link.name.split()[0] for link in links} == {"program", "litert", "onnxruntime"}
    assert unchecked_files(opened, links) == ()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    links = check_folder(opened)
    assert unchecked_files(opened, links) == ("model.onnx",)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependency) as raised:
        check_folder(opened)
    assert raised.value.exit_code == 3
    assert "checking model.tflite and model.onnx" in str(raised.value)
    assert "pip install ai-edge-litert" in str(raised.value)
    assert "pip install 'edgeseq[onnx]'" in str(raised.value)
    links = check_folder(opened, ["numpy"])  # asked for, so it is what they get, and what was not checked is said
    assert unchecked_files(opened, links) == ("model.tflite", "model.onnx")


@pytest.mark.parametrize(
    ("file", "engine"), [("tflite", "litert"), ("tflite", "litert-builtin"), ("onnx", "onnxruntime")]
)
@pytest.mark.parametrize("name", ["leaky", "gated"])
def test_a_file_with_a_perturbed_weight_fails(
    programs: Programs, make_folder: Make, name: str, file: str, engine: str
) -> None:
    program = programs[name]()
    folder = make_folder(program, **{file: nudged(program, 1e-3)})
    links = check_folder(folder, ENGINES)
    wrong = {link.name for link in links if not link.passed}
    assert f"{engine} teacher-forced" in wrong
    assert all(link.split()[0] in ("litert", "litert-builtin", "onnxruntime") for link in wrong)
    with pytest.raises(GateFailed, match=r"does not hold over 2000 frames: error .* allowed 1e-05") as raised:
        require(links)
    assert raised.value.exit_code == 5


def test_a_program_that_is_not_the_trained_model_fails_on_the_golden_answers(
    programs: Programs, make_folder: Make
) -> None:
    program = programs["leaky"]()
    assert failing(make_folder(program, golden=nudged(program, 0.01)))[0] == "program ~ golden"


def test_a_decay_a_little_off_shows_in_the_free_running_links(programs: Programs, make_folder: Make) -> None:
    folder = make_folder(programs["leaky"](), onnx=programs["leaky"](decay=0.9001))
    assert failing(folder) == ["onnxruntime teacher-forced", "onnxruntime free-running"]


def test_a_state_that_never_moves_fails_by_name(make_folder: Make) -> None:
    folder = make_folder(still_program())
    links = check_folder(folder, ["litert", "onnxruntime"])
    assert [link.name for link in links if not link.passed] == ["litert state moves", "onnxruntime state moves"]
    with pytest.raises(GateFailed, match="never changed: still"):
        require(links)


def test_a_file_that_does_not_carry_its_state_fails(programs: Programs, make_folder: Make) -> None:
    builder = Builder(Value("x", (1, 3)), [Value("memory", (1, 8))])  # as leaky_program, without the memory before
    program = programs["leaky"]()
    memory = builder.add("linear", "x", builder.constant("w", program.constants["w"]))
    v, b = builder.constant("v", program.constants["v"]), builder.constant("b", program.constants["b"])
    forgetful = builder.finish(builder.add("linear", memory, v, b), {"memory": memory})
    folder = make_folder(program, tflite=forgetful)
    assert failing(folder) == ["litert teacher-forced", "litert free-running"]


def test_files_of_another_model_of_the_same_shape_fail(programs: Programs, make_folder: Make) -> None:
    mine, other = programs["gated"](seed=0), programs["gated"](seed=1)
    assert failing(make_folder(mine, tflite=other, onnx=other)) == [
        f"{engine} {what}" for engine in ("litert", "onnxruntime") for what in ("teacher-forced", "free-running")
    ]


def rewrite_golden(source: Path, out: Path, **changes: np.ndarray) -> Path:
    with new_folder(out) as staging:
        for file in source.iterdir():
            shutil.copyfile(file, staging / file.name)
        with np.load(source / "golden.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
        arrays.update(changes)
        np.savez(staging / "golden.npz", **{name: array for name, array in arrays.items() if array is not None})
        seal(staging, open_folder(source).manifest)
    return out


def test_a_wrong_final_state_fails(folder: Path, tmp_path: Path) -> None:
    state = np.load(folder / "golden.npz")["state"]
    state[-1] += 0.01
    changed = rewrite_golden(folder, tmp_path / "changed", state=state)
    assert failing(changed, engines=["numpy"]) == ["program ~ golden", "numpy free-running"]
    assert failing(changed, engines=["numpy"], frames=100) == []  # the golden state is that after the last frame


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.zeros((0, 3), np.float32)),
        ("x", np.full((2000, 3), np.nan, np.float32)),
        ("x", np.float32(1)),
        ("y", np.zeros((1999, 4), np.float32)),
        ("y", None),
        ("state", np.zeros((1, 8), np.float32)),
    ],
    ids=["empty", "NaN", "a number", "short", "missing", "another shape"],
)
def test_damaged_golden_vectors_are_refused(
    folders: dict[str, Path], tmp_path: Path, name: str, value: np.ndarray | None
) -> None:
    changed = rewrite_golden(folders["leaky"], tmp_path / "changed", **{name: value})
    with pytest.raises(InputError, match=r"golden\.npz"):
        check_folder(changed)


def test_a_model_that_answers_nan_fails_and_the_report_stays_json(programs: Programs, make_folder: Make) -> None:
    program = programs["leaky"]()
    links = check_folder(make_folder(program, onnx=nudged(program, float("nan"))), ["onnxruntime"])
    assert [link.name for link in links if not link.passed] == [
        "onnxruntime teacher-forced",
        "onnxruntime free-running",
    ]
    assert msgspec.json.decode(msgspec.json.encode(links), type=tuple[Link, ...]) == links


def test_unknown_and_unfit_engines_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown engine 'lite'"):
        check_folder(folder, ["lite"])
    with pytest.raises(InputError, match="0 frames"):
        check_folder(folder, frames=0)
    bare = rewrite_golden(folder, tmp_path / "bare")
    with new_folder(tmp_path / "barer") as staging:
        for file in bare.iterdir():
            if file.name != "model.onnx":
                shutil.copyfile(file, staging / file.name)
        seal(staging, open_folder(bare).manifest)
    with pytest.raises(Unsupported, match=r"holds no model\.onnx"):
        check_folder(tmp_path / "barer", ["onnxruntime"])


def test_agreement_excuses_only_ties_within_the_tolerance() -> None:
    reference = np.float32([[1, 0, 0], [1, 0.99999, 0], [1, 0.9, 0]])
    found = np.float32([[1, 0, 0], [0.99999, 1, 0], [0.9, 1, 0]])
    assert agreement_of(reference, found, 1e-4) == (pytest.approx(1 / 3), 1, 1)


def test_the_slope_is_per_thousand_frames() -> None:
    assert slope(np.arange(500) * 1e-6 + 3) == pytest.approx(1e-3)
    assert slope(np.array([1.0])) == 0


def test_few_golden_frames_are_no_proof(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "golden.npz") as stored:
        x, y = stored["x"], stored["y"]
    engine = open_engine(folder, "numpy")
    for frame in x[:1999]:
        engine.step(frame)
    few = rewrite_golden(folder, tmp_path / "few", x=x[:1999], y=y[:1999], state=engine.get_state())
    assert MIN_FRAMES == 2000
    for frames in (None, 2000, 5000):
        with pytest.raises(InputError, match="has 1999 golden frames, 2000 are needed"):
            check_folder(few, ["numpy"], frames)
    for frames in (1999, 1500):
        assert {link.frames for link in check_folder(few, ["numpy"], frames)} == {frames}
    assert {link.frames for link in check_folder(folder, ["numpy"], 5000)} == {2000}


def test_a_check_constructs_each_runtime_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert.interpreter as runtime

    made: list[object] = []
    construct = runtime.Interpreter

    def counted(**options: object) -> object:
        made.append(options)
        return construct(**options)

    monkeypatch.setattr(runtime, "Interpreter", counted)
    check_folder(folder, frames=20)
    assert len(made) == 1
