"""How exactly each runtime computes int8 linear layers: outputs that differ from numpy's, and by how many steps.

    python benchmarks/integer_exactness.py [--engine litert ...] [--outputs 300000] [--out FILE]

Random chains of 0 to 3 quantized linear layers (0: quantize and dequantize alone), half of them with the range of a
ReLU, of one row or of sixteen at once, which kernels compute by different code. Each is written as a file, run on
random frames, and compared with the program in numpy. A step is one unit of the int8 result.

Engines are those that work here, or those named. Their rows replace the rows of the same engines in the result file
and leave the others: tflite-runtime, which needs numpy 1, is run in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgeseq.devices.engines.base import BROKEN_RUNTIME
from edgeseq.devices.engines.litert import quiet
from edgeseq.devices.engines.ort import session_options
from edgeseq.devices.facts import read_facts
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.program import Builder, Program, Value, interpret

RESULT = Path(__file__).with_name("results") / "integer_exactness.json"
LAYERS, ROWS = (0, 1, 2, 3), (1, 16)
FRAMES = 50  # of each chain, fewer where a frame has many rows
MEMORY = np.zeros((1, 1), np.float32)  # a file carries a state; this one does nothing
Run = Callable[[np.ndarray], np.ndarray]


def chain(seed: int, layers: int, rows: int) -> tuple[Program, float]:
    """A program with random scales, weights and sizes, and the scale of its answer."""
    rng = np.random.default_rng([seed, layers, rows])
    widths = rng.integers(8, 129, layers + 1)
    shape = (1, int(widths[0])) if rows == 1 else (1, rows, int(widths[0]))
    builder = Builder(Value("x", shape), [Value("memory", MEMORY.shape)])
    scale, zero = float(np.float32(rng.uniform(0.01, 0.05))), int(rng.integers(-60, 60))
    q = builder.add("quantize", "x", scale=scale, zero=zero)
    for number, (count, out) in enumerate(pairwise(widths)):
        weight_scale = np.exp(rng.uniform(-7, -4, out)).astype(np.float32)
        stored = {
            "w": rng.integers(-127, 128, (out, count)).astype(np.int8),
            "b": rng.integers(-3000, 3000, out).astype(np.int32),
            "s": weight_scale,
        }
        spread = 74 * np.sqrt(count) * rng.uniform(0.5, 2)  # of a sum, in units of its weights' scale
        y_scale = float(np.float32(scale * weight_scale.mean() * spread))
        y_zero = -128 if seed % 2 else int(rng.integers(-40, 40))
        names = [builder.constant(f"{key}{number}", array) for key, array in stored.items()]
        q = builder.add("qlinear", q, *names, x_scale=scale, x_zero=zero, y_scale=y_scale, y_zero=y_zero)
        scale, zero = y_scale, y_zero
    y = builder.add("dequantize", q, scale=scale, zero=zero)
    flat = builder.add("reshape", y, shape=[1, builder.values[y].size])
    return builder.finish(flat, {"memory": "memory"}), scale


def open_tflite(module: str, program: Program, folder: Path, builtin: bool = False) -> Run:
    runtime = import_module(f"{module}.interpreter")
    write_tflite(program, folder / "model.tflite")
    options: dict[str, Any] = {"num_threads": 1}
    if builtin:
        options["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with quiet():
        interpreter = runtime.Interpreter(str(folder / "model.tflite"), **options)
        interpreter.allocate_tensors()

    def run(x: np.ndarray) -> np.ndarray:
        answer: np.ndarray = interpreter.get_signature_runner("step")(x=x, state=MEMORY)["y"]
        return answer

    return run


def open_onnx(program: Program, folder: Path) -> Run:
    import onnxruntime

    write_onnx(program, folder / "model.onnx")
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(["y"], {"x": x, "state": MEMORY})[0]


ENGINES: dict[str, tuple[str, Callable[[Program, Path], Run]]] = {
    "litert": ("ai-edge-litert", lambda p, folder: open_tflite("ai_edge_litert", p, folder)),
    "litert-builtin": ("ai-edge-litert", lambda p, folder: open_tflite("ai_edge_litert", p, folder, builtin=True)),
    "onnxruntime": ("onnxruntime", open_onnx),
    "tflite-runtime": ("tflite-runtime", lambda p, folder: open_tflite("tflite_runtime", p, folder)),
}


def works(engine: str) -> bool:
    """Whether the runtime constructs here: importing proves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            ENGINES[engine][1](chain(0, 1, 1)[0], Path(folder))
        except BROKEN_RUNTIME:
            return False
    return True


def steps_apart(engine: str, layers: int, rows: int, outputs: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Differences of answers in steps, and whether the floats are equal too, until there are ``outputs`` values."""
    done = seed = 0
    frames = -(-FRAMES // rows)
    while done < outputs:
        program, scale = chain(seed, layers, rows)
        reference = interpret(program)
        with tempfile.TemporaryDirectory() as folder:
            run = ENGINES[engine][1](program, Path(folder))
            for x in np.random.default_rng(seed).normal(0, 1.5, (frames, *program.x.shape)).astype(np.float32):
                expected, found = reference(x, {"memory": MEMORY})[0], run(x)
                yield np.abs(np.rint((found - expected) / np.float32(scale))), bool((found == expected).all())
                done += expected.size
        seed += 1


def measure(engine: str, layers: int, rows: int, outputs: int) -> dict[str, Any]:
    total = differing = largest = 0
    equal = True
    for steps, same in steps_apart(engine, layers, rows, outputs):
        total += steps.size
        differing += int((steps > 0).sum())
        largest = max(largest, int(steps.max()))
        equal &= same
    return {
        "layers": layers,
        "rows": rows,
        "outputs": total,
        "differing": differing,
        "largest_steps": largest,
        "equal_bit_for_bit": equal,
    }


def document(engine: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """An engine's rows with what they were measured on."""
    facts = read_facts()
    package = ENGINES[engine][0]
    return {
        "machine": f"{facts.model or facts.machine}, {facts.cores} cores, {platform.system()} {facts.machine}",
        "versions": {"python": facts.python, "numpy": np.__version__, package: metadata.version(package)},
        "rows": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=list(ENGINES))
    parser.add_argument("--outputs", type=int, default=300_000, help="values compared for each row of the table")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    print(f"{'engine':16} {'layers':>6} {'rows':>5} {'outputs':>9} {'differ':>7} {'%':>7} {'steps':>6}  bits")
    for engine in options.engine or [name for name in ENGINES if works(name)]:
        rows = [measure(engine, layers, each, options.outputs) for layers in LAYERS for each in ROWS]
        for row in rows:
            share = 100 * row["differing"] / row["outputs"]
            bits = "equal" if row["equal_bit_for_bit"] else "differ"
            print(f"{engine:16} {row['layers']:6} {row['rows']:5} {row['outputs']:9}", end=" ")
            print(f"{row['differing']:7} {share:7.3f} {row['largest_steps']:6}  {bits}")
        found[engine] = document(engine, rows)
    ordered = {name: found[name] for name in ENGINES if name in found}
    options.out.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
