"""What several rooms need: a step program written to a file and run for one step in an engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.pack import layout
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.program import Program

# The same examples in every run, and no verdict on speed: the machines that run the tests are shared.
settings.register_profile("edgeseq", deadline=None, derandomize=True)
settings.load_profile("edgeseq")

FILE_ENGINES = ("onnxruntime", "litert", "litert-builtin")
States = Mapping[str, np.ndarray]
PackedStep = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
RunFile = Callable[[Program, str, np.ndarray, States], tuple[np.ndarray, dict[str, np.ndarray]]]


def _onnx_step(file: Path) -> PackedStep:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def step(x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, following = session.run(["y", "next_state"], {"x": x, "state": state})
        return y, following

    return step


def litert_interpreter(file: Path, *, builtin: bool = False) -> Any:
    """An interpreter on one thread: with XNNPACK, or with the builtin kernels alone."""
    from ai_edge_litert import interpreter as runtime

    kernels = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else runtime.OpResolverType.AUTO
    interpreter = runtime.Interpreter(str(file), num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    return interpreter


def _litert_step(file: Path, *, builtin: bool) -> PackedStep:
    interpreter = litert_interpreter(file, builtin=builtin)

    def step(x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = interpreter.get_signature_runner("step")(x=x, state=state)
        return found["y"], found["next_state"]

    return step


def open_file(program: Program, engine: str, folder: Path) -> PackedStep:
    """Write ``program`` into ``folder`` and open the file: a step on the packed state (1, S)."""
    if engine == "onnxruntime":
        write_onnx(program, folder / "model.onnx")
        return _onnx_step(folder / "model.onnx")
    write_tflite(program, folder / "model.tflite")
    return _litert_step(folder / "model.tflite", builtin=engine == "litert-builtin")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of this machine's engines is learnt anew, and not in the user's cache; and whoever measures
    holds a lock in a temporary folder of this process, for another one runs tests too. Its path is short: sockets lie
    there.
    """
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="edgeseq-") as temporary:
        Path(temporary).chmod(0o711)  # servers that run as another user, as PostgreSQL does, have their folders in it
        fonts = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(fonts))  # a list that takes seconds to make
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TMPDIR", temporary)
        patch.setattr(tempfile, "tempdir", temporary)
        patch.delenv("EDGESEQ_ENGINE", raising=False)
        yield


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    """``run_file(program, engine, x, states)``: one step of the file written from ``program``, states by name."""
    folder = tmp_path_factory.mktemp("written")

    def run(program: Program, engine: str, x: np.ndarray, states: States) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        packed = np.concatenate([states[state.name].ravel() for state in program.states])[None]
        y, following = open_file(program, engine, folder)(x, packed)
        named = {e.name: following[0, e.offset : e.offset + e.size].reshape(e.shape) for e in layout(program)}
        return y, named

    return run


@pytest.fixture(scope="session")
def open_written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Program, str], PackedStep]:
    """``open_written(program, engine)``: a step on the packed state of the file written from ``program``."""
    return lambda program, engine: open_file(program, engine, tmp_path_factory.mktemp(engine))


@pytest.fixture(scope="session", params=FILE_ENGINES)
def file_engine(request: pytest.FixtureRequest) -> str:
    """Each way to run a written file."""
    return request.param
