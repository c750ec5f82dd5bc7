"""Reports built by hand: a float model, what may have been made from it, and who taught it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from edgeseq.devices.bench import Latency
from edgeseq.devices.facts import Facts
from edgeseq.devices.report.document import Distribution, EngineRow, Model, Report, distribution
from edgeseq.manifest import Channel, Decision, Input, Link, Normalization, Precision, Stage
from edgeseq.metrics import Scores

LABELS = ("walk", "run")
BOARD = Facts(
    machine="aarch64",
    model="Raspberry Pi 5 Model B Rev 1.0",
    device_tree=True,
    cores=4,
    governor="performance",
    clock_mhz=2400.0,
    temperature_c=51.25,
    throttled=None,
    os="Debian",
    kernel="6.6",
    python="3.11.2",
    versions={"ai-edge-litert": "2.1.0", "numpy": "2.0.0"},
)
INT8 = Precision("int8", "int8", "float32")
VERSIONS = {"edgeseq": "0.1.0", "torch": "2.10"}


def hash_of(letter: str) -> str:
    return letter * 64


def times(p50: float) -> Distribution:
    """A distribution around ``p50`` microseconds."""
    samples = [round(1000 * p50 * factor) for factor in (0.9, 1.0, 1.0, 1.0, 2.0)]
    return distribution(Latency(p50, 1.5 * p50, 2 * p50, 2 * p50), samples)


def scores(right: int, of: int = 1000) -> Scores:
    """Of ``of`` frames, half of them of each label, ``right`` are right."""
    half, wrong = of // 2, of - right
    return Scores(right / of, right / of, of, ((half, 0), (wrong, half - wrong)))


def engine_row(
    name: str = "litert", *, tight: float = 3.0, paced: float = 12.0, right: int | None = 820, **changes: Any
) -> EngineRow:
    fields: dict[str, Any] = {
        "engine": name,
        "facts": {"runtime": name, "xnnpack_partitions": 1},
        "file": "model.tflite",
        "file_bytes": 70_000,
        "load_ms": 20.0,
        "first_call_ms": 0.05,
        "peak_rss_bytes": 50_000_000,
        "tight": times(tight),
        "paced": times(paced),
        "response": times(10 * paced),
        "paced_frames": 500,
        "deadline_misses": 0,
        "cpu_share": 0.01,
        "scores": None if right is None else scores(right),
    }
    return EngineRow(**{**fields, **changes})


def build_model(name: str = "gru-export", letter: str = "a", *, made: tuple[Stage, ...] = (), **changes: Any) -> Model:
    """A model whose folder's hash is of the letter, exported from the folder whose hash is of its capital."""
    trained = Stage("train", {"model": "gru", "settings": {"rounds": 3}}, VERSIONS, 0, "people", hash_of("d"))
    exported = Stage("export", {"formats": "tflite,onnx"}, VERSIONS, parent=hash_of(letter.upper()))
    fields: dict[str, Any] = {
        "name": name,
        "folder_hash": hash_of(letter),
        "family": "rnn",
        "arguments": {"hidden": 8},
        "labels": LABELS,
        "input": Input((Channel("ax", "g"),), 50.0, Normalization((0.0,), (1.0,))),
        "decision": Decision(smoothing=1.0),
        "precision": Precision(),
        "split": {"train": ("p1", "p2"), "validation": ("p3",), "test": ("p4", "p5")},
        "metrics": {"test_accuracy": 0.82, "test_macro_f1": 0.8, "test_majority_share": 0.5},
        "lineage": (*(made or (trained,)), exported),
        "proof": (Link("litert free-running", 2400, 1e-7, 1e-4, True, 1.0, 1e-9, "largest in the logits"),),
        "file_bytes": {"tflite": 70_000},
        "rate": 50.0,
        "provenance": "measured-on-device",
        "parameters": 1234,
        "constant_bytes": 4936,
        "state_bytes": 32,
        "macs": 999,
        "elementwise": 55,
        "timer_ns": 40,
        "energy": "none",
        "facts": BOARD,
        "facts_at_end": BOARD,
        "engines": (engine_row(),),
        "people": 2,
    }
    return Model(**{**fields, **changes})


def without_times(model: Model) -> Model:
    """The model as an emulated board reports it."""
    nothing = Distribution(Latency(None, None, None, None))
    untimed = dict.fromkeys(("load_ms", "first_call_ms", "deadline_misses", "cpu_share"))
    rows = (replace(row, tight=nothing, paced=nothing, response=nothing, **untimed) for row in model.engines)
    return replace(model, engines=tuple(rows), provenance="emulated-functional", timer_ns=None)


@pytest.fixture
def make_model() -> Callable[..., Model]:
    return build_model


@pytest.fixture
def make_row() -> Callable[..., EngineRow]:
    return engine_row


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """``make_report(*models, **fields)``."""
    return lambda *models, **fields: Report(**{"edgeseq": "0.1.0", "scored_on": "Test", "models": models, **fields})


@pytest.fixture
def emulated() -> Callable[[Model], Model]:
    return without_times


@pytest.fixture
def quantized(make_model: Callable[..., Model]) -> Callable[..., Model]:
    """``quantized(of, **changes)``: an int8 model whose lineage names the folder that ``of`` was exported from."""

    def make(of: Model, **changes: Any) -> Model:
        stage = Stage("quantize", {"method": "qat"}, VERSIONS, 0, None, hash_of("d"), of.lineage[-1].parent)
        made = (*of.lineage[:-1], stage)
        return build_model(**{"name": "gru-int8", "letter": "b", "made": made, "precision": INT8, **changes})

    return make


@pytest.fixture
def distilled(make_model: Callable[..., Model]) -> Callable[..., Model]:
    """``distilled(*teachers, **changes)``: a model whose lineage names the folders that they were exported from."""

    def make(*teachers: Model, **changes: Any) -> Model:
        named = [{"name": teacher.name, "hash": teacher.lineage[-1].parent} for teacher in teachers]
        arguments = {"model": "lmu", "distillation": {"temperature": 2.0}, "teachers": named}
        made = (Stage("distill", arguments, VERSIONS, 0, "people", hash_of("d")),)
        return build_model(**{"name": "student", "letter": "c", "made": made, **changes})

    return make
