"""int8 layers on ARM processors, with and without instructions for dot products: the integers that numpy says here."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.program import Builder, Value, interpret

from .test_arm_parity import PROCESSORS

pytestmark = pytest.mark.arm
HERE = Path(__file__).parent
MEMORY = np.zeros((1, 1), np.float32)
SEEDS, FRAMES = 6, 8
EXACT, OWN = ("litert", "onnxruntime"), ("litert-builtin", "tflite-runtime")
TIE = 2.0**-9  # the multiplier of a sum: one that is an odd multiple of 256 falls on a tie


def chains():
    """By name, a program of int8 layers alone, the scale of its answer, and its layers."""
    chain = runpy.run_path(str(HERE.parents[1] / "benchmarks" / "integer_exactness.py"))["chain"]
    for layers in (0, 1, 2, 3):
        for rows in (1, 16):
            for seed in range(SEEDS):
                yield f"random-{layers}-{rows}-{seed}", (*chain(seed, layers, rows), layers)
    for seed in range(SEEDS):
        for bound in (12, 127):
            yield f"tied-{bound}-{seed}", tied(seed, bound)


def tied(seed, bound):
    """Two layers whose scales are powers of two, so that sums fall on exact ties; ``bound`` 127: of largest values.

    Kernels without dot products add two products of int8 in 16 bits, which holds because no weight is -128.
    """
    rng = np.random.default_rng([seed, bound])
    widths = rng.integers(8, 129, 3)
    builder = Builder(Value("x", (1, int(widths[0]))), [Value("memory", (1, 1))])
    q = builder.add("quantize", "x", scale=2.0**-5, zero=0)
    for number, (count, out) in enumerate(pairwise(widths)):
        weights = rng.integers(-bound, bound + 1, (out, count))
        if bound == 127:
            weights = np.where(rng.random((out, count)) < 0.5, -127, 127)
        names = [
            builder.constant(f"w{number}", weights.astype(np.int8)),
            builder.constant(f"b{number}", np.zeros(out, np.int32)),
            builder.constant(f"s{number}", np.full(out, TIE, np.float32)),
        ]
        q = builder.add("qlinear", q, *names, x_scale=2.0**-5, x_zero=0, y_scale=2.0**-5, y_zero=0)
    return builder.finish(builder.add("dequantize", q, scale=2.0**-5, zero=0), {"memory": "memory"}), 2.0**-5, 2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of all chains, their frames, and by name what numpy says here with scale and layers."""
    folder, expected = tmp_path_factory.mktemp("chains"), {}
    for name, (program, scale, layers) in chains():
        write_onnx(program, folder / f"{name}.onnx")
        write_tflite(program, folder / f"{name}.tflite")
        count = FRAMES if program.x.size < 200 else 1
        x = np.random.default_rng(layers).normal(0, 1.5, (count, *program.x.shape)).astype(np.float32)
        if "127" in name:
            x = np.where(x < 0, np.float32(-9), np.float32(9))  # beyond the range, so -128 and 127
        np.save(folder / f"{name}.npy", x)
        step = interpret(program)
        expected[name] = np.stack([step(frame, {"memory": MEMORY})[0] for frame in x]), scale, layers
    return folder, expected


@pytest.fixture(scope="module", params=[*PROCESSORS, "cortex-a7"])
def apart(request, written, board_python):
    """By engine, of every chain the values that differ from numpy's, in steps, and the number of layers."""
    folder, expected = written
    board_python(request.param).say(HERE / "guest_integers.py", folder)
    found = {}
    for name, (y, scale, layers) in expected.items():
        for answers in folder.glob(f"{name}.*.npy"):
            steps = np.abs(np.rint((np.load(answers) - y) / np.float32(scale)))
            found.setdefault(answers.name.split(".")[1], []).append((steps, layers))
            answers.unlink()
    return found


def test_the_runtimes_that_are_called_exact_are(apart):
    exact = [engine for engine in EXACT if engine in apart]
    assert exact or "tflite-runtime" in apart
    for engine in exact:
        assert sum(int((steps > 0).sum()) for steps, _ in apart[engine]) == 0, engine


def test_the_others_are_a_step_apart_in_a_layer_and_rarely(apart):
    own = [engine for engine in OWN if engine in apart]
    assert own
    for engine in own:
        values = sum(steps.size for steps, _ in apart[engine])
        assert sum(int((steps > 0).sum()) for steps, _ in apart[engine]) < 0.02 * values, engine
        assert max(steps.max() for steps, layers in apart[engine] if layers == 1) <= 1, engine
        assert max(steps.max() for steps, layers in apart[engine] if layers == 0) == 0, engine
