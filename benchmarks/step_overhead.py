"""What Session.step costs above the runtime called by hand.

    python benchmarks/step_overhead.py runs/lmu-export runs/gru-export [--json] [--rounds 400] [--out FILE]

Each row names its baseline: ``raw`` is "public" for the runtime's public interface, and for LiteRT there is a second
row, "wrapper", for the same calls of the private wrapper that Session.step makes where it can. A ratio below 1 against
"public" is what going around it gains; the ratio against "wrapper" is what our own Python costs.

All run in one process, several instances of each, in chunks of calls whose order is shuffled each round; medians over
the chunks. The hand-written call does what any user of the runtime must do to stream: put x and the state in, run, take
y and the next state out.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines import available
from edgeseq.devices.engines.base import initial_state
from edgeseq.devices.engines.ort import session_options
from edgeseq.devices.facts import read_facts
from edgeseq.devices.session import Session
from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder, open_folder

CHUNK = 50
INSTANCES = 4  # of each side: where one lies in memory moves its time by 5 %, which is half of what is measured
Step = Callable[[Any], Any]


def raw_litert(folder: Folder, *, builtin: bool = False, wrapper: bool = False) -> Step:
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

    inner = interpreter._interpreter
    set_tensor, get_tensor, invoke = inner.SetTensor, inner.GetTensor, inner.Invoke

    def wrapper_step(frame: Any) -> Any:
        nonlocal state
        set_tensor(x, frame)
        set_tensor(before, state)
        invoke()
        logits = get_tensor(y)
        state = get_tensor(after)
        return logits

    return wrapper_step if wrapper else step


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


RAW: dict[str, dict[str, Callable[[Folder], Step]]] = {
    "litert": {"public": raw_litert, "wrapper": partial(raw_litert, wrapper=True)},
    "litert-builtin": {
        "public": partial(raw_litert, builtin=True),
        "wrapper": partial(raw_litert, builtin=True, wrapper=True),
    },
    "onnxruntime": {"public": raw_onnxruntime},
    "numpy": {"public": raw_numpy},
}


def chunk_us(step: Step, frames: list[Any]) -> float:
    """Microseconds per call over one chunk, so that the timer's own cost does not count."""
    start = time.perf_counter_ns()
    for frame in frames:
        step(frame)
    return (time.perf_counter_ns() - start) / 1e3 / len(frames)


def compare(folder: Folder, engine: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each baseline: medians over ``rounds`` chunks of each side, on the folder's own frames."""
    with np.load(folder.file("golden.npz")) as golden:
        rows = np.ascontiguousarray(golden["x"])
    flat = [row.copy() for row in rows]  # (C,), what Session.step takes
    wide = [row[None].copy() for row in rows]  # (1, C), what the files take
    sides: list[tuple[str, Step, list[Any]]] = []
    for _ in range(INSTANCES):
        session = Session(folder, engine)
        sides.append(("session", session.step, flat))
        for name, baseline in RAW[engine].items():
            raw = baseline(folder)
            session.reset()
            agree(session, raw, flat, wide)
            sides.append((name, raw, wide))
    times: dict[str, list[float]] = {"session": [], **{name: [] for name in RAW[engine]}}
    at = 0
    for turn in range(rounds + rounds // 10):
        random.shuffle(sides)
        at = (at + CHUNK) % (len(rows) - CHUNK)
        for name, step, frames in sides:
            taken = chunk_us(step, frames[at : at + CHUNK])
            if turn >= rounds // 10:  # the first tenth warms up
                times[name].append(taken)
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    return [
        {
            "folder": folder.path.name,
            "family": folder.manifest.family,
            "engine": engine,
            "raw": name,
            "ratio": medians["session"] / medians[name],
            "session_us": medians["session"],
            "raw_us": medians[name],
            "samples": rounds * INSTANCES * CHUNK,
        }
        for name in RAW[engine]
    ]


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows with what they were measured on."""
    facts = read_facts()
    machine = f"{facts.model or facts.machine}, {facts.cores} cores, {platform.system()} {facts.machine}"
    return {
        "machine": machine,
        "provenance": facts.provenance,
        "versions": {"python": facts.python, **facts.versions},
        "rows": rows,
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
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
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
            rows += [row for engine in engines for row in compare(folder, engine, options.rounds)]
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    document = json.dumps(result(rows), indent=1)
    if options.out is not None:
        options.out.write_text(document + "\n", encoding="utf-8")
    if options.json:
        print(document)
        return 0
    print(f"{'folder':32} {'engine':16} {'raw':8} {'ratio':>6} {'session us':>11} {'raw us':>8}")
    for row in rows:
        print(f"{row['folder'][-32:]:32} {row['engine']:16} {row['raw']:8} {row['ratio']:6.3f}", end=" ")
        print(f"{row['session_us']:11.2f} {row['raw_us']:8.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
