"""ONNX Runtime with every buffer bound once: a step copies C values in and runs.

Two bindings take turns, one reading the state that the other wrote. One buffer bound as both state and next_state is
right only by luck of the node order (wrong in 205 of 300 frames for an S4D, measured).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines.base import (
    BROKEN_RUNTIME,
    NOT_A_FRAME,
    Engine,
    Facts,
    Floats,
    MissingRuntime,
    as_frame,
    as_state,
    check_tensors,
    frame_buffer,
    initial_state,
    input_width,
    thread_count,
)
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import MODEL_FILES, NEXT_STATE, STATE, Folder, X, Y
from edgeseq.manifest import Manifest

INSTALL = "pip install 'edgeseq[onnx]'"
_FATAL = 4  # nothing below it is printed; errors come as exceptions


def open_onnxruntime(folder: Folder) -> Engine:
    """ONNX Runtime on the CPU: :func:`~.base.thread_count` threads, no spinning, no telemetry.

    Raises:
        MissingRuntime, InputError, GateFailed: not installed, not an ONNX file, not the manifest's model.
        Unsupported: an ONNX file that this onnxruntime cannot run.
    """
    file = folder.file(MODEL_FILES["onnx"])
    try:
        import onnxruntime
    except BROKEN_RUNTIME as error:
        raise MissingRuntime("onnxruntime", "onnxruntime", INSTALL, error) from error
    onnxruntime.disable_telemetry_events()
    threads = thread_count()
    session = _load(onnxruntime, file, threads)
    check_tensors(file, folder.manifest, _tensors(session))
    version = str(onnxruntime.__version__)
    facts: Facts = {"runtime": "onnxruntime", "version": version, "device": "CPU", "threads": threads}
    return _bind(folder.manifest, session, facts)


def session_options(onnxruntime: Any, threads: int = 1) -> Any:
    """Threads that sleep when idle, for spinning costs power; one by default."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _load(onnxruntime: Any, file: Path, threads: int) -> Any:
    try:
        return onnxruntime.InferenceSession(
            str(file), sess_options=session_options(onnxruntime, threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exceptions share no public base
        kind = InputError if type(error).__name__ == "InvalidProtobuf" else Unsupported
        raise kind(f"{file} cannot be run by onnxruntime {onnxruntime.__version__}: {error}") from error


def _tensors(session: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    types = {"tensor(float)": "float32"}
    return {
        tensor.name: (types.get(tensor.type, tensor.type), tuple(tensor.shape))
        for tensor in (*session.get_inputs(), *session.get_outputs())
    }


def _bind(manifest: Manifest, session: Any, facts: Facts) -> Engine:
    size = manifest.state_size
    answer = np.zeros((1, len(manifest.labels)), np.float32)
    logits: Floats = answer[0]
    states: tuple[Floats, Floats] = np.zeros((1, size), np.float32), np.zeros((1, size), np.float32)
    width = input_width(manifest)
    frame, values = frame_buffer(width)

    def binding(before: Floats, after: Floats) -> Any:
        bound = session.io_binding()
        for name, array in ((X, frame), (STATE, before)):
            bound.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in ((Y, answer), (NEXT_STATE, after)):
            bound.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return bound

    forth, back = binding(states[0], states[1]), binding(states[1], states[0])
    run, now, then = session.run_with_iobinding, forth, back

    def step(x_t: Any) -> Floats:
        nonlocal now, then
        try:
            values[:] = x_t
        except NOT_A_FRAME:
            values[:] = as_frame(x_t, width)
        run(now)
        now, then = then, now
        return logits

    # A binding knows addresses only: whoever keeps nothing but the step must keep what lies there.
    vars(step)["buffers"] = states, frame, answer

    def current() -> Floats:
        return states[0] if now is forth else states[1]

    def get_state() -> Floats:
        packed: Floats = current().reshape(size).copy()
        return packed

    def set_state(packed: Any) -> None:
        current()[:] = as_state(packed, size)

    set_state(initial_state(manifest))
    return Engine("onnxruntime", step, get_state, set_state, facts)
