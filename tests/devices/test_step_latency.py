"""The benchmark of a step: turns are fair, ratios pair what ran together, what computes otherwise is not timed."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgeseq.errors import GateFailed
from edgeseq.folder import open_folder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def step_latency():
    pytest.importorskip("torch")
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module("step_latency")
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(scope="module")
def parts(step_latency):
    return sys.modules["step_contestants"]


@pytest.fixture
def fake(parts):
    """``fake(name, log, ns)``: a contestant that writes down its turns, each call of which took ``ns``."""

    def make(name, log, ns):
        def tight(first, count):
            log.append(("tight", name, first, count))
            return [ns] * count

        def paced(first, count, rate):
            log.append(("paced", name, first, count))
            return [10 * ns] * count

        return parts.Contestant(name, "fp32", "none", np.zeros((2, 3), np.float32), tight, paced)

    return make


def test_every_round_has_each_contestant_once_in_changing_order_on_the_same_frames(step_latency, fake):
    log = []
    found = [fake(name, log, 1000) for name in ("litert", "numpy", "torch-eager")]
    settings = step_latency.Settings(rounds=20, turns=3, seconds=0.2, rate=50.0)
    tight, paced = step_latency.measure(found, settings)
    rounds = [log[i : i + 3] for i in range(0, len(log), 3)]
    assert len(rounds) == 2 + 20 + 3
    for turns in rounds:
        assert Counter(name for _, name, _, _ in turns) == Counter(("litert", "numpy", "torch-eager"))
        assert len({(how, first, count) for how, _, first, count in turns}) == 1
    assert len({tuple(name for _, name, _, _ in turns) for turns in rounds}) > 1
    assert [len(own) for own in tight] == [20] * 3
    assert [[len(taken) for taken in own] for own in paced] == [[10] * 3] * 3


def test_a_ratio_is_that_of_the_rounds_and_not_of_a_machine_that_changes_its_pace(step_latency):
    paces = (1, 1, 8, 8, 1)
    own, base = ([[factor * pace] * 5 for pace in paces] for factor in (30, 10))
    assert step_latency.ratio(own, base) == 3.0
    assert step_latency.quantiles([[1000] * 98, [9000] * 2]) == (1.0, 9.0)


def test_an_engine_gives_the_answers_of_the_step_program_or_is_refused(step_latency, parts):
    folder = open_folder("har_watch_fp32")
    frames = list(step_latency.read_golden(folder).frames)
    litert, reference = (parts.engine(folder, name, frames) for name in ("litert", "numpy"))
    parts.check(litert, reference)
    assert len(litert.tight(5, 7)) == len(litert.paced(5, 7, 5000.0)) == 7
    wrong = parts.local("torch-eager", "fp32", "none", lambda frame: np.ones(7, np.float32), frames)
    with pytest.raises(GateFailed, match=r"torch-eager \(fp32\) is off the step program by .*its times mean nothing"):
        parts.check(wrong, reference)


def test_the_models_own_step_in_torch_is_the_same_model(step_latency, parts):
    folder = open_folder("har_watch_fp32")
    frames = list(step_latency.read_golden(folder).frames)
    torch_steps = sys.modules["step_torch"]
    from edgeseq.models.store import load_model

    model = load_model(folder)
    import torch

    step = torch_steps.torch_step(model.step, model.initial_state(1))
    eager = parts.local("torch-eager", "fp32", "torch", step, frames, around=torch.inference_mode)
    parts.check(eager, parts.engine(folder, "numpy", frames))


def test_rows_survive_their_file_and_stand_in_a_table(step_latency, tmp_path):
    numbers = dict.fromkeys(("tight_p50", "tight_p99", "tight_ratio", "paced_p50", "paced_p99", "paced_ratio"), 1.5)
    row = step_latency.Row(
        **{"model": "gru", "precision": "fp32", "contestant": "executorch", "runtime": "x", "recipe": "r"},
        **{**numbers, "tight_samples": 1, "paced_samples": 1, "parameters": 9, "machine": "m", "provenance": "host"},
    )
    rows = [row, replace(row, model="lmu", contestant="litert")]
    step_latency.write(tmp_path / "rows.json", rows)
    assert step_latency.read(tmp_path / "rows.json") == rows
    assert step_latency.read(tmp_path / "none.json") == []
    shown = step_latency.tables(rows)
    assert "| ExecuTorch, XNNPACK | fp32 | 1.5 | 1.5 | 1.50 | 2 | 2 | 1.50 |" in shown
    assert shown.count("× LiteRT | paced") == 2
