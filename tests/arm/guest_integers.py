"""Runs int8 files of one step without a state, engine by engine: ``python guest_integers.py FOLDER``.

FOLDER holds ``NAME.onnx``, ``NAME.tflite`` and ``NAME.npy`` (frames); it gets ``NAME.ENGINE.npy`` for each engine here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines.base import BROKEN_RUNTIME
from edgeseq.devices.engines.litert import quiet
from edgeseq.devices.engines.ort import session_options

MEMORY = np.zeros((1, 1), np.float32)  # a file carries a state; this one does nothing
Run = Callable[[Any], Any]


def open_tflite(module: str, file: Path, *, builtin: bool = False) -> Run:
    """Through XNNPACK where the runtime has it on, or with the builtin kernels alone."""
    runtime = import_module(f"{module}.interpreter")
    kernels = {"experimental_op_resolver_type": runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    with quiet():
        interpreter = runtime.Interpreter(str(file), num_threads=1, **(kernels if builtin else {}))
        interpreter.allocate_tensors()
    return lambda x: interpreter.get_signature_runner("step")(x=x, state=MEMORY)["y"]


def open_onnx(file: Path) -> Run:
    """ONNX Runtime on one thread."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(str(file), session_options(onnxruntime), providers=["CPUExecutionProvider"])
    return lambda x: session.run(["y"], {"x": x, "state": MEMORY})[0]


ENGINES: dict[str, Callable[[Path], Run]] = {
    "litert": lambda stem: open_tflite("ai_edge_litert", stem.with_suffix(".tflite")),
    "litert-builtin": lambda stem: open_tflite("ai_edge_litert", stem.with_suffix(".tflite"), builtin=True),
    "tflite-runtime": lambda stem: open_tflite("tflite_runtime", stem.with_suffix(".tflite")),
    "onnxruntime": lambda stem: open_onnx(stem.with_suffix(".onnx")),
}


def main(folder: Path) -> None:
    """Every file in every engine that works here."""
    for frames in sorted(folder.glob("*.npy")):
        x = np.load(frames)
        for name, open_stem in ENGINES.items():
            try:
                run = open_stem(frames.with_suffix(""))
            except BROKEN_RUNTIME:
                continue
            np.save(folder / f"{frames.stem}.{name}", np.stack([run(frame) for frame in x]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
