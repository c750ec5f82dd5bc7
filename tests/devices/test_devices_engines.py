from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseq.devices.engines import ENGINES, available, open_engine
from edgeseq.devices.engines.litert import _calls, quiet, refuse_hybrid
from edgeseq.errors import GateFailed, InputError, MissingDependency, Unsupported
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.program import Program

EXAMPLES = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EXAMPLES
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 60), size=st.sampled_from([0.01, 1.0, 30.0]))
def test_every_engine_answers_as_the_program(
    folder: Path, engine_name: str, seed: int, length: int, size: float
) -> None:
    program, engine = open_engine(folder, "numpy"), open_engine(folder, engine_name)
    x = (size * np.random.default_rng(seed).normal(size=(length, 3))).astype(np.float32)
    for frame in x:
        expected, found = program.step(frame), engine.step(frame)
        assert found.shape == (4,)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))
        state = program.get_state()
        np.testing.assert_allclose(engine.get_state(), state, rtol=2e-5, atol=1e-5 * max(1.0, np.abs(state).max()))


def test_an_engine_starts_at_the_initial_state(folder: Path, engine_name: str) -> None:
    state = open_engine(folder, engine_name).get_state()
    assert np.array_equal(state, np.full(state.shape, 0.25, np.float32))


def test_setting_the_state_takes_and_gives_copies(folder: Path, engine_name: str) -> None:
    engine = open_engine(folder, engine_name)
    given_state = np.arange(engine.get_state().size, dtype=np.float32)
    kept = given_state.copy()
    engine.set_state(given_state)
    given_state[:] = -1
    engine.get_state()[:] = -1
    engine.step(np.zeros(3, np.float32))
    engine.set_state(kept)
    assert np.array_equal(engine.get_state(), kept)


def test_whoever_keeps_only_the_step_keeps_all_that_it_needs(folder: Path, engine_name: str) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    engine = open_engine(folder, engine_name)
    expected = np.stack([engine.step(frame).copy() for frame in x])
    size = engine.get_state().size
    step = open_engine(folder, engine_name).step
    gc.collect()
    others = [np.full((1, size), 1e3, np.float32) for _ in range(200)]  # take the place of what was let go
    assert np.array_equal(np.stack([step(frame).copy() for frame in x]), expected)
    assert all((other == 1e3).all() for other in others)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_the_state_can_be_set_after_any_number_of_steps(folder: Path, engine_name: str, steps: int) -> None:
    engine, other = open_engine(folder, engine_name), open_engine(folder, engine_name)
    frame = np.float32([1, 2, 3])
    state = np.linspace(-1, 1, engine.get_state().size, dtype=np.float32)
    for _ in range(steps):
        engine.step(-frame)
    engine.set_state(state)
    other.set_state(state)
    for _ in range(3):
        assert np.array_equal(engine.step(frame), other.step(frame))


@pytest.mark.parametrize(
    "frame",
    [
        np.float32(1),
        1.0,
        None,
        "abc",
        {},
        [1.0, 2.0],
        [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        np.ones(1, np.float32),
        np.ones(2, np.float32),
        np.ones(4, np.float32),
        np.ones((1, 1), np.float32),
        np.ones((3, 1), np.float32),
        np.ones((1, 1, 3), np.float32),
        np.ones(3, np.complex64),
        np.array(["1", "2", "3"]),
        np.array([1, 2, None]),
    ],
    ids=lambda frame: repr(frame)[:40],
)
def test_what_is_not_a_frame_is_refused_and_leaves_the_state_alone(folder: Path, engine_name: str, frame: Any) -> None:
    engine = open_engine(folder, engine_name)
    engine.step(np.float32([1, 2, 3]))
    before = engine.get_state()
    with pytest.raises(InputError, match="frame"):
        engine.step(frame)
    assert np.array_equal(engine.get_state(), before)


@pytest.mark.parametrize(
    "form",
    [
        list,
        lambda x: x[None],
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">f4"),
        lambda x: np.stack([x, x], 1)[:, 0],
        lambda x: np.broadcast_to(x, (1, 3)),
    ],
    ids=["list", "row", "float64", "int64", "big-endian", "strided", "read-only"],
)
def test_a_frame_may_come_in_any_form(folder: Path, engine_name: str, form: Callable[[Any], Any]) -> None:
    engine, other = open_engine(folder, engine_name), open_engine(folder, engine_name)
    frame = np.float32([1, -2, 3])
    assert np.array_equal(engine.step(frame), other.step(form(frame)))


def test_a_state_of_another_size_is_refused(folder: Path, engine_name: str) -> None:
    engine = open_engine(folder, engine_name)
    with pytest.raises(InputError, match="state has shape"):
        engine.set_state(np.zeros(1, np.float32))


def test_facts_name_runtime_version_and_threads(folder: Path, engine_name: str) -> None:
    facts = open_engine(folder, engine_name).facts
    assert facts["threads"] == 1
    assert facts["runtime"] in ("ai-edge-litert", "onnxruntime", "numpy")
    assert str(facts["version"])[0].isdigit()


def test_xnnpack_takes_the_whole_graph_and_the_builtin_engine_none_of_it(folder: Path) -> None:
    whole, builtin = open_engine(folder, "litert").facts, open_engine(folder, "litert-builtin").facts
    assert (whole["xnnpack_partitions"], whole["ops_outside_xnnpack"]) == (1, 0)
    assert builtin["xnnpack_partitions"] == 0
    assert int(builtin["ops_outside_xnnpack"]) > 0


def test_operators_that_xnnpack_leaves_are_counted(
    programs: dict[str, Callable[..., Program]], make_folder: Callable[..., Path]
) -> None:
    from edgeseq.program import Builder, Value

    builder = Builder(Value("x", (1, 3)), [Value("m", (1, 3))])
    above = builder.add("greater", "x", "m")
    kept = builder.add("where", above, "x", builder.add("mul", "m", builder.constant("half", np.float32([0.5]))))
    y = builder.add("linear", kept, builder.constant("v", np.eye(3, dtype=np.float32)))
    facts = open_engine(make_folder(builder.finish(y, {"m": kept})), "litert").facts
    assert int(facts["ops_outside_xnnpack"]) == 2  # GREATER and SELECT_V2 (research: toolchain §9)


def test_engines_that_this_process_cannot_load_are_not_available(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available(folder) == ("litert", "onnxruntime", "numpy")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert available(folder) == ("onnxruntime", "numpy")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert available(folder) == ("numpy",)
    assert open_engine(folder).name == "numpy"


@pytest.mark.parametrize(
    ("engine", "module"),
    [
        ("litert", "ai_edge_litert.interpreter"),
        ("onnxruntime", "onnxruntime"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
    ],
)
def test_a_named_engine_that_is_missing_says_how_to_install_it(
    folder: Path, engine: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency) as raised:
        open_engine(folder, engine)
    assert ENGINES[engine].install in str(raised.value)
    assert raised.value.exit_code == 3


def test_a_runtime_that_imports_and_does_not_construct_counts_as_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**options: Any) -> None:  # what tflite-runtime 2.14 does under numpy 2
        raise AttributeError("_ARRAY_API not found")

    monkeypatch.setitem(sys.modules, "tflite_runtime", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", SimpleNamespace(Interpreter=broken))
    assert "tflite-runtime" not in available(folder)
    with pytest.raises(MissingDependency, match="_ARRAY_API"):
        open_engine(folder, "tflite-runtime")


def test_tflite_runtime_runs_by_the_same_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert.interpreter as same

    monkeypatch.setitem(sys.modules, "tflite_runtime", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", same)
    engine = open_engine(folder, "tflite-runtime")
    assert engine.facts["runtime"] == "tflite-runtime"
    assert np.array_equal(engine.step(np.ones(3)), open_engine(folder, "litert").step(np.ones(3)))


@pytest.mark.parametrize(("scales", "refused"), [(1, False), (5, True)])
def test_tflite_runtime_refuses_int8_weights_of_many_scales_under_floats(scales: int, refused: bool) -> None:
    def tensor(index: int, dtype: type, count: int) -> dict[str, Any]:
        return {
            "index": index,
            "name": f"t{index}",
            "dtype": dtype,
            "quantization_parameters": {"scales": np.ones(count, np.float32)},
        }

    interpreter = SimpleNamespace(
        get_tensor_details=lambda: [tensor(0, np.float32, 0), tensor(1, np.int8, scales)],
        _get_ops_details=lambda: [{"op_name": "FULLY_CONNECTED", "inputs": np.array([0, 1, -1])}],
    )
    if refused:
        with pytest.raises(Unsupported, match="5 scales"):
            refuse_hybrid(Path("model.tflite"), interpreter)
    else:
        refuse_hybrid(Path("model.tflite"), interpreter)


def test_an_unknown_engine_is_met_with_the_closest_name(folder: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'onnxruntime'"):
        open_engine(folder, "onnx-runtime")


def reseal(source: Path, out: Path, change: Callable[[Path], object], **fields: Any) -> Path:
    """A copy of a folder, changed and sealed again."""
    import shutil

    import msgspec

    with new_folder(out) as staging:
        for file in source.iterdir():
            shutil.copyfile(file, staging / file.name)
        change(staging)
        seal(staging, msgspec.structs.replace(open_folder(source).manifest, **fields))
    return out


def test_an_engine_whose_file_is_absent_is_refused_with_those_that_can(folder: Path, tmp_path: Path) -> None:
    bare = reseal(folder, tmp_path / "bare", lambda staging: (staging / "model.onnx").unlink())
    with pytest.raises(Unsupported, match=r"holds no model.onnx.*litert, litert-builtin, tflite-runtime, numpy"):
        open_engine(bare, "onnxruntime")
    assert available(bare) == ("litert", "numpy")


def test_a_folder_that_was_not_exported_says_to_export(folder: Path, tmp_path: Path) -> None:
    def strip(staging: Path) -> None:
        for name in ("model.onnx", "model.tflite", "step.json"):
            (staging / name).unlink()

    with pytest.raises(InputError, match="run edgeseq export"):
        open_engine(reseal(folder, tmp_path / "bare", strip))


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_a_file_that_is_no_model_is_refused_by_name(folder: Path, tmp_path: Path, name: str) -> None:
    broken = reseal(folder, tmp_path / "broken", lambda staging: (staging / name).write_bytes(b"nothing like it" * 9))
    with pytest.raises(InputError, match=f"{name} cannot be run by"):
        open_engine(broken, {"model.onnx": "onnxruntime", "model.tflite": "litert"}[name])


def test_a_file_of_another_shape_fails_the_gate_with_the_tensors_name(
    folders: dict[str, Path], tmp_path: Path, engine_name: str
) -> None:
    import shutil

    def swap(staging: Path) -> None:
        for name in ("model.onnx", "model.tflite", "step.json", "step.safetensors"):
            shutil.copyfile(folders["gated"] / name, staging / name)

    swapped = reseal(folders["leaky"], tmp_path / "swapped", swap)
    with pytest.raises(GateFailed, match="state") as raised:
        open_engine(swapped, engine_name)
    assert raised.value.exit_code == 5
    with pytest.raises(GateFailed):  # choosing by itself must not pass over it to the next engine
        open_engine(swapped)


def test_a_runtime_too_old_for_a_file_leaves_it_to_the_next_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ai_edge_litert.interpreter as litert
    import onnxruntime

    def too_old(*_: Any, **__: Any) -> None:
        raise ValueError("Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'")

    monkeypatch.setattr(litert, "Interpreter", too_old)
    assert available(folder) == ("onnxruntime", "numpy")
    assert open_engine(folder).name == "onnxruntime"
    with pytest.raises(Unsupported, match=r"model\.tflite cannot be run by ai-edge-litert \d.*version '12'"):
        open_engine(folder, "litert")
    monkeypatch.setattr(onnxruntime, "InferenceSession", too_old)
    assert available(folder) == ("numpy",)
    with pytest.raises(Unsupported, match=r"model\.onnx cannot be run by onnxruntime \d"):
        open_engine(folder, "onnxruntime")


def test_litert_answers_are_copies_that_the_next_step_leaves_alone(folder: Path) -> None:
    engine = open_engine(folder, "litert")
    first = engine.step(np.float32([1, 2, 3]))
    kept, state = first.copy(), engine.get_state()
    held = state.copy()
    engine.step(np.float32([-3, 0, 9]))
    assert np.array_equal(first, kept)
    assert np.array_equal(state, held)
    assert not np.array_equal(engine.get_state(), held)


def interpreter_of(folder: Path) -> tuple[Any, int]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter, int(interpreter.get_output_details()[0]["index"])


def test_the_wrapper_below_the_interpreter_is_called_where_it_is_as_expected(folder: Path) -> None:
    interpreter, output = interpreter_of(folder)
    assert [call.__name__ for call in _calls(interpreter, output)] == ["SetTensor", "GetTensor", "Invoke"]
    set_tensor, get_tensor, _ = _calls(interpreter, output)
    x = next(int(d["index"]) for d in interpreter.get_input_details() if tuple(d["shape"]) == (1, 3))
    for wrong in (np.zeros((1, 3)), np.zeros((1, 4), np.float32), np.zeros(3, np.float32)):
        with pytest.raises(ValueError, match="Cannot set tensor"):  # as the public call: C++ checks
            set_tensor(x, wrong)
    assert get_tensor(output).base is None


@pytest.mark.parametrize(
    "wrapper",
    [
        {},
        {"SetTensor": print, "Invoke": print},
        {"SetTensor": print, "GetTensor": lambda index, subgraph: np.zeros((1, 4), np.float32), "Invoke": print},
        {"SetTensor": print, "GetTensor": lambda index: np.zeros((1, 4)), "Invoke": print},
        {"SetTensor": print, "GetTensor": lambda index: np.zeros((2, 4), np.float32)[:1], "Invoke": print},
    ],
    ids=["none", "one missing", "other arguments", "another dtype", "a view"],
)
def test_a_wrapper_of_another_form_is_left_for_the_public_calls(wrapper: dict[str, Any]) -> None:
    public = SimpleNamespace(
        set_tensor=lambda index, value: None, get_tensor=lambda index: np.zeros((1, 4), np.float32), invoke=lambda: None
    )
    expected = public.set_tensor, public.get_tensor, public.invoke
    assert _calls(public, 0) == expected
    public._interpreter = SimpleNamespace(**wrapper)
    assert _calls(public, 0) == expected


def test_standard_error_comes_back_when_two_threads_hold_it(capfd: pytest.CaptureFixture[str]) -> None:
    terminal, inside, leave = os.dup(2), threading.Event(), threading.Event()

    def second() -> None:
        with quiet():
            inside.set()
            leave.wait(5)

    try:
        thread = threading.Thread(target=second)
        with quiet():
            thread.start()
            assert not inside.wait(0.2)  # it has to wait, or it would keep this one's file for the terminal
            os.write(2, b"INFO: a remark\nWARNING: a warning\n")
        leave.set()
        thread.join(5)
        assert os.path.sameopenfile(2, terminal)
        os.write(2, b"heard\n")
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
    assert capfd.readouterr().err == "WARNING: a warning\nheard\n"


def test_engines_opened_by_eight_threads_leave_standard_error_alone(folder: Path) -> None:
    terminal = os.dup(2)
    try:
        threads = [threading.Thread(target=open_engine, args=(folder, "litert")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert os.path.sameopenfile(2, terminal)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@pytest.mark.parametrize("broken", ["os.dup", "tempfile.TemporaryFile"])
def test_a_model_opens_where_standard_error_cannot_be_held_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(broken, fails)
    assert open_engine(folder, "litert").name == "litert"


def test_a_step_keeps_its_interpreter_alive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ai_edge_litert.interpreter as runtime

    construct, made = runtime.Interpreter, []

    def seen(**options: Any) -> Any:
        interpreter = construct(**options)
        made.append(weakref.ref(interpreter))
        return interpreter

    monkeypatch.setattr(runtime, "Interpreter", seen)
    step = open_engine(folder, "litert").step
    gc.collect()
    assert made[0]() is not None
    del step
    gc.collect()
    assert made[0]() is None
