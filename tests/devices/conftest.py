"""Small model folders with every file that export writes, made from programs built by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.folder import new_folder, seal
from edgeseq.manifest import Channel, Decision, Input, Manifest, Normalization, state_table
from edgeseq.program import Builder, Program, Value, interpret

FRAMES = 2000
INITIAL = 0.25


def matrix(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.normal(0, 1 / np.sqrt(columns), (rows, columns)).astype(np.float32)


def leaky_program(seed: int = 0, channels: int = 3, labels: int = 4, decay: float = 0.9) -> Program:
    """m' = decay m + W x; y = V m' + b."""
    rng = np.random.default_rng(seed)
    builder = Builder(Value("x", (1, channels)), [Value("memory", (1, 8))])
    inflow = builder.add("linear", "x", builder.constant("w", matrix(rng, 8, channels)))
    kept = builder.add("mul", "memory", builder.constant("decay", np.float32([decay])))
    memory = builder.add("add", kept, inflow)
    bias = builder.constant("b", matrix(rng, 1, labels)[0])
    y = builder.add("linear", memory, builder.constant("v", matrix(rng, labels, 8)), bias)
    return builder.finish(y, {"memory": memory})


def gated_program(seed: int = 0, channels: int = 3, labels: int = 4) -> Program:
    """A gated layer, h' = h + z (c - h), that reads x and a memory (1, 2, 3) of three mixed channels at two speeds."""
    rng = np.random.default_rng(seed)
    builder = Builder(Value("x", (1, channels)), [Value("slow.m", (1, 2, 3)), Value("cell.h", (1, 5))])
    three = builder.add("linear", "x", builder.constant("mix", matrix(rng, 3, channels)))
    row = builder.add("reshape", three, shape=[1, 1, 3])
    speed = builder.constant("speed", np.float32([[[0.05], [0.5]]]))
    memory = builder.add("add", "slow.m", builder.add("mul", speed, builder.add("sub", row, "slow.m")))
    both = builder.add("concat", "x", builder.add("reshape", memory, shape=[1, 6]), "cell.h", axis=1)
    gate = builder.add("sigmoid", builder.add("linear", both, builder.constant("wz", matrix(rng, 5, channels + 11))))
    new = builder.add("tanh", builder.add("linear", both, builder.constant("wc", matrix(rng, 5, channels + 11))))
    hidden = builder.add("add", "cell.h", builder.add("mul", gate, builder.add("sub", new, "cell.h")))
    y = builder.add("linear", hidden, builder.constant("v", 3 * matrix(rng, labels, 5)))
    return builder.finish(y, {"slow.m": memory, "cell.h": hidden})


def late_program(look_ahead: int, labels: int = 4) -> Program:
    """y is the frame (one value a label) of ``look_ahead`` calls ago; behind its values comes whether there is one."""
    builder = Builder(Value("x", (1, labels + 1)), [Value("past", (1, look_ahead * labels))])
    frame = builder.add("slice", "x", axis=1, start=0, stop=labels)
    both = builder.add("concat", "past", frame, axis=1)
    oldest = builder.add("slice", both, axis=1, start=0, stop=labels)
    y = builder.add("linear", oldest, builder.constant("v", 10 * np.eye(labels, dtype=np.float32)))
    past = builder.add("slice", both, axis=1, start=labels, stop=(look_ahead + 1) * labels)
    return builder.finish(y, {"past": past})


PROGRAMS = {"leaky": leaky_program, "gated": gated_program}


def frames(count: int, channels: int = 3, seed: int = 1) -> np.ndarray:
    """A smooth walk, as a sensor gives, with a little noise."""
    rng = np.random.default_rng(seed)
    walk = np.zeros((count, channels))
    for t in range(1, count):
        walk[t] = 0.97 * walk[t - 1] + 0.3 * rng.normal(size=channels)
    return (walk + 0.05 * rng.normal(size=walk.shape)).astype(np.float32)


def stream_program(program: Program, x: np.ndarray, initial: float = INITIAL) -> tuple[np.ndarray, np.ndarray]:
    """Answers (T, K) and the packed final state (S,), in float64 where the trained model would be float32."""
    step = interpret(program)
    states = {s.name: np.full(s.before.shape, initial, np.float32) for s in program.states}
    answers = []
    for row in x:
        y, states = step(row[None], states)
        answers.append(y[0])
    return np.stack(answers), np.concatenate([value.ravel() for value in states.values()])


def manifest_of(program: Program, name: str = "model", **changes: object) -> Manifest:
    channels, labels = program.x.shape[1], program.values[program.y].shape[1]
    fields = {
        "name": name,
        "family": "test",
        "arguments": {},
        "task": "frame",
        "labels": tuple(f"label{k}" for k in range(labels)),
        "input": Input(
            tuple(Channel(f"c{c}", "m/s²") for c in range(channels)),
            50.0,
            Normalization((0.0,) * channels, (1.0,) * channels),
        ),
        "states": state_table((s.name, s.before.shape, INITIAL) for s in program.states),
        "decision": Decision(smoothing=0.1, enter=0.3, dwell=0.1),
    }
    return Manifest(**{**fields, **changes})


def write_folder(
    out: Path,
    program: Program,
    *,
    tflite: Program | None = None,
    onnx: Program | None = None,
    golden: Program | None = None,
    **changes: object,
) -> Path:
    """A sealed folder; ``tflite``, ``onnx`` and ``golden`` come from another program where one is given."""
    with new_folder(out) as staging:
        program.write(staging)
        write_tflite(tflite or program, staging / "model.tflite")
        write_onnx(onnx or program, staging / "model.onnx")
        x = frames(FRAMES, program.x.shape[1])
        y, state = stream_program(golden or program, x)
        np.savez(staging / "golden.npz", x=x, y=y, state=state)
        seal(staging, manifest_of(program, out.name, **changes))
    return out


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One right folder for each program."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_folder(root / name, make()) for name, make in PROGRAMS.items()}


@pytest.fixture(params=sorted(PROGRAMS))
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """Each right folder in turn."""
    return folders[request.param]


@pytest.fixture(params=["litert", "litert-builtin", "onnxruntime", "numpy"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return request.param


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder under the test's own directory: ``make_folder(program, **what differs)``."""

    def make(program: Program, name: str = "model", **options: object) -> Path:
        return write_folder(tmp_path / name, program, **options)

    return make


@pytest.fixture
def looking_ahead(make_folder: Callable[..., Path]) -> Callable[..., Path]:
    """A folder of a model that says of each frame where it is largest, some calls later: ``looking_ahead(calls)``."""

    def make(look_ahead: int, **options: object) -> Path:
        source = Input(
            tuple(Channel(f"c{c}", "") for c in range(4)),
            50.0,
            Normalization((0.0,) * 4, (1.0,) * 4),
            look_ahead=look_ahead,
        )
        fields = {"decision": Decision(), **options}
        return make_folder(late_program(look_ahead), f"late{look_ahead}", input=source, **fields)

    return make


@pytest.fixture
def programs() -> dict[str, Callable[..., Program]]:
    """The program builders, by name."""
    return dict(PROGRAMS)
