"""What training refuses of segments, and what it keeps in range: norms, other recordings, decays and thresholds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgeseq.data import Dataset, Recording, deal, default_split, write_npz
from edgeseq.errors import InputError, Unsupported
from edgeseq.models.registry import build
from edgeseq.training.checks import check_norms
from edgeseq.training.loop import fit
from edgeseq.training.retime_stage import retime
from edgeseq.training.settings import Augmentation, Settings
from edgeseq.training.stage import train

RATE = 20.0
STILL = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, scale=0.0, noise=0.0)


def waves(least, most, count=60, seed=0, unit="V"):
    """Slow and fast waves as segments, of nobody knows whom."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        frames, label = int(rng.integers(least, most + 1)), k % 2
        x = np.sin(np.arange(frames)[:, None] * (0.3, 1.5)[label] + rng.uniform(0, 6, (1, 2))).astype(np.float32)
        made.append(Recording(x, np.full(frames, label, np.int16), "", f"w{k}"))
    return deal(Dataset("waves", tuple(made), ("a", "b"), (unit,) * 2, RATE, ("slow", "fast"), task="segment"))


BATCH_NORMS = {
    "s4d": {"model.norm": "batch", "model.hidden": 4, "model.layers": 1, "model.state": 4},
    "lmuformer": {"model.dim": 8, "model.channels": 2, "model.order": 3},
    "spiking_lmuformer": {"model.dim": 8, "model.channels": 2, "model.order": 3},
}
ONE = {"rounds": 1, "steps": 2, "batch": 8}
EVEN = {"augmentation.tempo": 1.0}


@pytest.mark.parametrize("preset", BATCH_NORMS)
def test_batch_norms_are_not_trained_on_segments_of_different_lengths(tmp_path, preset):
    write_npz(waves(20, 40), tmp_path / "waves.npz")
    said = rf"this {preset} has batch norms.*those of waves have 20 to 40 frames: cut them to one length"
    with pytest.raises(Unsupported, match=said) as refused:
        train(
            str(tmp_path / "waves.npz"), tmp_path / "m", preset=preset, changes={**BATCH_NORMS[preset], **ONE, **EVEN}
        )
    assert ("--set model.norm=layer" in str(refused.value)) == (preset == "s4d")
    assert not (tmp_path / "m").exists()


def test_batch_norms_are_trained_on_segments_of_one_length_that_stays(tmp_path):
    write_npz(waves(30, 30), tmp_path / "waves.npz")
    call, changes = (str(tmp_path / "waves.npz"), tmp_path / "m"), {**BATCH_NORMS["s4d"], **ONE}
    with pytest.raises(Unsupported, match=r"tempo 1\.4 makes 30 frames 21 to 41: set augmentation\.tempo to 1"):
        train(*call, preset="s4d", changes={**changes, "augmentation.tempo": 1.4})
    folder = train(*call, preset="s4d", changes={**changes, **EVEN})
    assert folder.manifest.task == "segment"


def test_norms_without_statistics_are_trained_on_segments_of_any_length():
    model, data = build("s4d", 2, 2, {"norm": "batch", "hidden": 4, "layers": 1}), waves(20, 40)
    with pytest.raises(Unsupported, match="batch norms"):
        check_norms(model, "s4d", data, Settings())
    check_norms(model, "s4d", dataclasses.replace(data, task="frame"), Settings())  # crops are of one length
    check_norms(model, "s4d", waves(30, 30, unit="spike"), Settings())  # spikes are not played faster
    model.fold()
    check_norms(model, "s4d", data, Settings())
    check_norms(build("s4d", 2, 2, {"norm": "layer"}), "s4d", data, Settings())


def test_other_recordings_of_nobody_knows_whom_are_refused_at_another_rate(tmp_path):
    write_npz(waves(20, 40), tmp_path / "waves.npz")
    write_npz(waves(20, 40, seed=1), tmp_path / "other.npz")
    changes = {**BATCH_NORMS["s4d"], **ONE, "model.norm": "layer"}
    folder = train(str(tmp_path / "waves.npz"), tmp_path / "m", preset="s4d", changes=changes)
    with pytest.raises(InputError, match="which of these it has seen cannot be told"):
        retime(folder.path, tmp_path / "no", rate=10.0, data=str(tmp_path / "other.npz"))
    assert retime(folder.path, tmp_path / "slow", rate=10.0).manifest.input.rate == 10


SPIKING = {
    "l2mu": {"memories": 3, "order": 3, "hidden": 6, "neuron": "synaptic", "readout": "sum", "encoder": "single"},
    "spiking_lmuformer": {"dim": 8, "channels": 2, "order": 3, "learn": True, "readout": "average"},
}


@pytest.mark.parametrize("family", SPIKING)
def test_decays_and_thresholds_stay_in_range_however_large_a_step_is(family, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeseq.training.loop.DYNAMICS_RATE", 5.0)
    torch.manual_seed(0)
    model = build(family, 2, 2, SPIKING[family])
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    how = Settings(rounds=1, steps=4, batch=8, learning_rate=5.0, augmentation=STILL)
    fit(model, default_split(waves(30, 30, unit="spike")), how, 0, tmp_path / "c", "a")
    rates = {name: value.item() for name, value in model.named_parameters() if name in model.dynamics()}
    assert any(abs(value - start[name].item()) > 0.1 for name, value in rates.items())
    for name, value in rates.items():
        if name.endswith("threshold"):
            assert value >= 0.01 - 1e-6, name
        else:
            assert 0 <= value <= 1, name
