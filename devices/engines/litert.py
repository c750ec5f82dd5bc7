"""LiteRT, and its predecessor tflite-runtime: the same interpreter interface in two packages.

Tensors are set and got by their indices, the fastest public way in (3.9 us a step on one x86 machine; signature runner
8.1, CompiledModel 9.6). The indices are found by signature name, never by position.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
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
from edgeseq.devices.engines.integers import check_scales, check_unquantized, count_matmuls
from edgeseq.errors import GateFailed, InputError, Unsupported
from edgeseq.folder import MODEL_FILES, NEXT_STATE, SIGNATURE, STATE, Folder, X, Y

INSTALL_LITERT = "pip install ai-edge-litert"
INSTALL_TFLITE = "pip install 'edgeseq[legacy-tflite]'"
_HOLDS_STDERR = threading.Lock()


def open_litert(folder: Folder) -> Engine:
    """LiteRT with XNNPACK, on :func:`~.base.thread_count` threads: the default engine.

    Raises:
        MissingRuntime, InputError, GateFailed: not installed, not a TFLite file, not the manifest's model.
        Unsupported: a TFLite file that this version cannot run, for example for an operator that is newer than it.
    """
    return _open(folder, "litert", "ai_edge_litert", INSTALL_LITERT)


def open_litert_builtin(folder: Folder) -> Engine:
    """LiteRT with its builtin kernels, without XNNPACK; raises what :func:`open_litert` raises."""
    return _open(folder, "litert-builtin", "ai_edge_litert", INSTALL_LITERT, builtin=True)


def open_tflite_runtime(folder: Folder) -> Engine:
    """tflite-runtime, for 32-bit ARM, where there is no LiteRT; raises what :func:`open_litert` raises.

    Raises:
        Unsupported: the file needs a kernel that tflite-runtime computes wrongly.
    """
    return _open(folder, "tflite-runtime", "tflite_runtime", INSTALL_TFLITE)


def _open(folder: Folder, name: str, module: str, install: str, *, builtin: bool = False) -> Engine:
    file = folder.file(MODEL_FILES["tflite"])
    threads = thread_count()
    interpreter = _construct(file, name, module, install, threads, builtin=builtin)
    indices = _indices(file, folder, interpreter)
    if name == "tflite-runtime":
        refuse_hybrid(file, interpreter)
    package = module.replace("_", "-")
    facts: Facts = {"runtime": package, "version": _version(package), "device": "CPU", "threads": threads}
    if hasattr(interpreter, "_get_ops_details"):  # not public: a runtime may come without it
        partitions, outside = partition_counts(interpreter)
        integer, float_ = count_matmuls(interpreter)
        facts.update(xnnpack_partitions=partitions, ops_outside_xnnpack=outside)
        facts.update(integer_matmuls=integer, float_matmuls=float_)
        check_scales(file, interpreter)
    return _bind(folder, name, interpreter, indices, facts)


def _construct(file: Path, name: str, module: str, install: str, threads: int, *, builtin: bool) -> Any:
    package = module.replace("_", "-")
    try:
        runtime = import_module(f"{module}.interpreter")
    except BROKEN_RUNTIME as error:
        raise MissingRuntime(name, package, install, error) from error
    options: dict[str, Any] = {"model_path": str(file), "num_threads": threads}
    if builtin:
        options["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        # tflite-runtime imports under numpy 2 and breaks here, so nothing but this proves that it works.
        with quiet():
            interpreter = runtime.Interpreter(**options)
            interpreter.allocate_tensors()
    except BROKEN_RUNTIME as error:
        raise MissingRuntime(name, package, install, error) from error
    except (ValueError, RuntimeError) as error:
        kind = Unsupported if _is_tflite(file) else InputError
        raise kind(f"{file} cannot be run by {package} {_version(package)}: {error}") from error
    return interpreter


def _is_tflite(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(8)[4:] == b"TFL3"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the runtime's remarks off the terminal; warnings and errors pass.

    It writes them to the process's standard error from C, on the first construction, and has no setting against it.
    Standard error belongs to the whole process, so only one thread at a time may hold it back: two would each keep the
    other's file for the terminal. Where there is none, or no room for what it would say, nothing is held back.
    """
    with _HOLDS_STDERR, ExitStack() as opened:
        try:
            terminal = os.dup(2)  # before the file, which would become standard error itself where there is none
            opened.callback(os.close, terminal)
            held = opened.enter_context(tempfile.TemporaryFile())
        except OSError:
            yield
            return
        try:
            os.dup2(held.fileno(), 2)
            yield
        finally:
            os.dup2(terminal, 2)
            with suppress(OSError):  # a terminal that is gone must not stop a model
                held.seek(0)
                for line in held:
                    if not line.startswith(b"INFO:"):
                        os.write(terminal, line)


def _indices(file: Path, folder: Folder, interpreter: Any) -> dict[str, int]:
    """The tensor indices of x, state, y and next_state, by signature name, checked against the manifest."""
    signatures = interpreter.get_signature_list()
    if SIGNATURE not in signatures:
        raise GateFailed(f"{file} has no signature {SIGNATURE!r} (it has {sorted(signatures)}): export the model anew")
    # A runner that stays alive makes invoke refuse ("internal data"): its details are read and it is dropped.
    runner = interpreter.get_signature_runner(SIGNATURE)
    details = {**runner.get_input_details(), **runner.get_output_details()}
    del runner
    tensors = {key: (np.dtype(d["dtype"]).name, tuple(int(n) for n in d["shape"])) for key, d in details.items()}
    check_tensors(file, folder.manifest, tensors)
    check_unquantized(file, details)
    return {key: int(detail["index"]) for key, detail in details.items()}


def _bind(folder: Folder, name: str, interpreter: Any, indices: dict[str, int], facts: Facts) -> Engine:
    width, size = input_width(folder.manifest), folder.manifest.state_size
    frame, values = frame_buffer(width)
    x, before, y, after = (indices[key] for key in (X, STATE, Y, NEXT_STATE))
    # Local names: the step below is the whole path of a frame, and every attribute looked up there is paid each time.
    set_tensor, get_tensor, invoke = _calls(interpreter, y)
    state: Any = as_state(initial_state(folder.manifest), size)

    def step(x_t: Any) -> Floats:
        nonlocal state
        try:
            values[:] = x_t  # set_tensor(x, x_t[None]) would save 2 %, and read big-endian numbers as they lie
        except NOT_A_FRAME:
            values[:] = as_frame(x_t, width)
        set_tensor(x, frame)
        set_tensor(before, state)
        invoke()
        logits = get_tensor(y)
        state = get_tensor(after)
        flat: Floats = logits.ravel()  # a view; 10 ns less than [0]
        return flat

    vars(step)["interpreter"] = interpreter  # the wrapper's functions keep the wrapper alone, not what it may use

    def get_state() -> Floats:
        copy: Floats = state.reshape(size).copy()
        return copy

    def set_state(packed: Any) -> None:
        nonlocal state
        state = as_state(packed, size)

    return Engine(name, step, get_state, set_state, facts)


def _calls(
    interpreter: Any, output: int
) -> tuple[Callable[[int, Floats], None], Callable[[int], Any], Callable[[], Any]]:
    """Set a tensor, get a copy of one, invoke: those of the wrapper below the interpreter, else the public ones.

    The public three are Python functions that hand their arguments on (the C code checks type and shape, and copies),
    and ``invoke`` first counts the references to views of tensors, which nobody can hold here: the interpreter never
    leaves this module. Going around them saves a tenth of a small model's step. The wrapper is not public, so it is
    used only where it has all three and gets ``output`` as the public call does.
    """
    public = interpreter.set_tensor, interpreter.get_tensor, interpreter.invoke
    try:
        wrapper = interpreter._interpreter
        calls = wrapper.SetTensor, wrapper.GetTensor, wrapper.Invoke
        one, other = calls[1](output), public[1](output)
    except (AttributeError, TypeError):  # another name, or another number of arguments
        return public
    return calls if one.dtype == other.dtype and one.shape == other.shape and one.base is None else public


def partition_counts(interpreter: Any) -> tuple[int, int]:
    """How many partitions XNNPACK took, and how many operators are left outside of them.

    Nothing else tells of an operator that XNNPACK declined. Delegated operators stay in the list of nodes beside the
    DELEGATE that replaced them, so the operators that run are those found by walking back from the outputs.
    """
    nodes = interpreter._get_ops_details()
    delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
    maker = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    maker.update({int(tensor): node for node in delegates for tensor in node["outputs"]})
    wanted = [int(detail["index"]) for detail in interpreter.get_output_details()]
    running: dict[int, str] = {}
    while wanted:
        node = maker.get(wanted.pop())
        if node is None or node["index"] in running:
            continue
        running[node["index"]] = node["op_name"]
        wanted.extend(int(tensor) for tensor in node["inputs"])
    outside = sum(kind != "DELEGATE" for kind in running.values())
    return len(delegates), outside


def refuse_hybrid(file: Path, interpreter: Any) -> None:
    """Refuse float operators with int8 weights of more than one scale.

    tflite-runtime 2.14 computes them wrongly without a word: relative error 0.4 to 0.95, LiteRT's is 0.003 to 0.013.

    Raises:
        Unsupported: the file holds one.
    """
    tensors = {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}
    for node in interpreter._get_ops_details():
        if node["op_name"] not in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        inputs, weights = (tensors[int(index)] for index in node["inputs"][:2])
        scales = weights["quantization_parameters"]["scales"]
        if inputs["dtype"] == np.float32 and weights["dtype"] == np.int8 and len(scales) > 1:
            raise Unsupported(
                f"{file}: {weights['name']!r} has int8 weights with {len(scales)} scales under float activations, "
                "which tflite-runtime computes wrongly: use litert, or export with int8 activations or in float32"
            )


def _version(package: str) -> str:
    """A runtime's version, by itself where it says so: importlib.metadata takes 10 ms and 1.5 MB."""
    said = getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
    if said is not None:
        return str(said)
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # built by hand, as on some boards
        return "unknown"
