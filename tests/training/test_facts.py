"""What a family says of a model beside its sizes is written by training and carried along by every stage."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.export.stage import export
from edgeseq.folder import open_folder
from edgeseq.models.contract import parameter_count
from edgeseq.models.store import load_model
from edgeseq.quant.distill_stage import distill
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.stage import train

FRAMES = 700
TINY = {"rounds": 1, "steps": 1, "batch": 2, "crop": 2.0, "model.nodes": 4, "model.block": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng, recordings = np.random.default_rng(0), []
    for who in "123":
        x = np.cumsum(rng.normal(size=(FRAMES, 2)), 0).astype(np.float32) / 10
        recordings.append(Recording(x, (np.arange(FRAMES) // 50 % 2).astype(np.int16), who, who))
    path = tmp_path_factory.mktemp("data") / "walks.npz"
    write_npz(Dataset("walks", tuple(recordings), ("a", "b"), ("V", "V"), 50.0, ("x", "y")), path)
    return str(path)


@pytest.fixture(scope="module")
def wired(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("runs") / "wired", preset="sparse_rnn", changes=TINY)


def test_training_writes_facts_and_parameters(wired):
    model = load_model(wired)
    assert wired.manifest.facts == pytest.approx(dict(model.facts()))
    assert wired.manifest.facts["nodes"] == 4
    assert wired.manifest.parameters == parameter_count(model)


def test_every_stage_carries_them_along(wired, tmp_path):
    small = quantize(wired.path, tmp_path / "int8", method="ptq")
    student = {name: value for name, value in TINY.items() if not name.startswith("model.")}
    stages = [
        small,
        export(small.path, tmp_path / "files", formats=["tflite"], frames=2000),
        distill([wired.path], tmp_path / "distilled", start=wired.path, changes=student),
    ]
    for folder in stages:
        manifest = open_folder(folder.path).manifest
        assert manifest.facts == wired.manifest.facts
        assert manifest.parameters == wired.manifest.parameters


def test_a_student_has_facts_of_its_own(wired, tmp_path):
    made = distill([wired.path], tmp_path / "s", preset="sparse_rnn", changes={**TINY, "model.nodes": 6})
    assert made.manifest.facts["nodes"] == 6
    assert made.manifest.parameters > wired.manifest.parameters
