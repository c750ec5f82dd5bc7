"""What Session.step costs above the runtime's own public interface, written by hand.

    python benchmarks/step_overhead.py runs/lmu-export runs/gru-export [--json] [--rounds 400]

Both run in one process, several instances of each, in chunks of calls whose order is shuffled each round; medians over
the chunks. The hand-written call does what any user of the runtime must do to stream: put x and the state in, run, take
y and the next state out.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines import ENGINES, available
from edgeseq.devices.engines.base import initial_state
from edgeseq.devices.engines.ort import session_options
from edgeseq.devices.session import Session
from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder, open_folder

CHUNK = 50
INSTANCES = 4  # of each side: where one lies in memory moves its time by 5 %, which is half of what is measured
Step = Callable[[Any], Any]


def raw_litert(folder: Folder, *, builtin: bool = False) -> Step:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else OpResolverType.AUTO
    interpreter = Interpreter(str(folder.file("model.tflite")), num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("step")
    inputs = {name: detail["index"] for name, detail in runner.get_input_details().items()}
    outputs = {name: detail["index"] for name, detail in runner.get_output_details().items()}
    del runner
    x, before, y, after = inputs["x"], inputs["state"], outputs["y"], outputs["next_state"]
    state = initial_state(folder.manifest)[None]

    def step(frame: Any) -> Any:
        nonlocal state
        interpreter.set_tensor(x, frame)
        interpreter.set_tensor(before, state)
        interpreter.invoke()
        logits = interpreter.get_tensor(y)
        state = interpreter.get_tensor(after)
        return logits

    return step


def raw_litert_builtin(folder: Folder) -> Step:
    return raw_litert(folder, builtin=True)


def raw_onnxruntime(folder: Folder) -> Step:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder.file("model.onnx")), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )
    shapes = {tensor.name: tensor.shape for tensor in (*session.get_inputs(), *session.get_outputs())}
    x, y = np.zeros(shapes["x"], np.float32), np.zeros(shapes["y"], np.float32)
    one, two = initial_state(folder.manifest)[None].copy(), np.zeros(shapes["state"], np.float32)

    def bind(before: Any, after: Any) -> Any:
        binding = session.io_binding()
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_input("x", value(x))
        binding.bind_ortvalue_input("state", value(before))
        binding.bind_ortvalue_output("y", value(y))
        binding.bind_ortvalue_output("next_state", value(after))
        return binding

    now, then = bind(one, two), bind(two, one)

    def step(frame: Any) -> Any:
        nonlocal now, then
        x[:] = frame
        session.run_with_iobinding(now)
        now, then = then, now
        return y

    return step


def raw_numpy(folder: Folder) -> Step:
    from edgeseq.program import Program, interpret

    program = Program.read(folder.path)
    compute = interpret(program)
    initial = {entry.name: entry.initial for entry in folder.manifest.states}
    states: Any = {s.name: np.full(s.before.shape, initial[s.name], np.float32) for s in program.states}

    def step(frame: Any) -> Any:
        nonlocal states
        y, states = compute(frame, states)
        return y

    return step


RAW: dict[str, Callable[[Folder], Step]] = {
    "litert": raw_litert,
    "litert-builtin": raw_litert_builtin,
    "onnxruntime": raw_onnxruntime,
    "numpy": raw_numpy,
}


def chunk_us(step: Step, frames: list[Any]) -> float:
    """Microseconds per call over one chunk, so that the timer's own cost does not count."""
    start = time.perf_counter_ns()
    for frame in frames:
        step(frame)
    return (time.perf_counter_ns() - start) / 1e3 / len(frames)


def compare(folder: Folder, engine: str, rounds: int) -> dict[str, Any]:
    """One row: medians over ``rounds`` chunks of each side, on the folder's own frames."""
    with np.load(folder.file("golden.npz")) as golden:
        rows = np.ascontiguousarray(golden["x"])
    flat = [row.copy() for row in rows]  # (C,), what Session.step takes
    wide = [row[None].copy() for row in rows]  # (1, C), what the files take
    sides: list[tuple[str, Step, list[Any]]] = []
    for _ in range(INSTANCES):
        session, raw = Session(folder, engine), RAW[engine](folder)
        agree(session, raw, flat, wide)
        sides += [("session", session.step, flat), ("raw", raw, wide)]
    times: dict[str, list[float]] = {"session": [], "raw": []}
    at = 0
    for turn in range(rounds + rounds // 10):
        random.shuffle(sides)
        at = (at + CHUNK) % (len(rows) - CHUNK)
        for name, step, frames in sides:
            taken = chunk_us(step, frames[at : at + CHUNK])
            if turn >= rounds // 10:  # the first tenth warms up
                times[name].append(taken)
    session_us, raw_us = (float(np.median(times[name])) for name in ("session", "raw"))
    return {
        "folder": str(folder.path),
        "family": folder.manifest.family,
        "engine": engine,
        "ratio": session_us / raw_us,
        "session_us": session_us,
        "raw_us": raw_us,
        "samples": rounds * INSTANCES * CHUNK,
    }


def agree(session: Session, raw: Step, flat: list[Any], wide: list[Any]) -> None:
    """Both sides must do the same work: equal answers over the first frames, with carried state."""
    for one, other in zip(flat[:100], wide[:100], strict=True):
        if not np.array_equal(session.step(one), np.ravel(raw(other))):
            raise SystemExit(f"{session!r}: the hand-written call gives another answer, so the times mean nothing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=200, help=f"chunks of {CHUNK} calls by each instance")
    parser.add_argument("--engine", action="append", choices=sorted(RAW))
    options = parser.parse_args()
    if not options.folders:
        parser.error("name one or more exported model folders, such as runs/lmu-export (edgeseq train, then export)")
    gc.disable()
    rows = []
    try:
        for path in options.folders:
            folder = open_folder(path)
            engines = options.engine or [name for name in available(folder) if name in RAW]
            rows += [compare(folder, engine, options.rounds) for engine in engines if engine in ENGINES]
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps({"rows": rows}, indent=1))
        return 0
    print(f"{'folder':32} {'engine':16} {'ratio':>6} {'session us':>11} {'raw us':>8}")
    for row in rows:
        print(f"{row['folder'][-32:]:32} {row['engine']:16} {row['ratio']:6.3f}", end=" ")
        print(f"{row['session_us']:11.2f} {row['raw_us']:8.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
