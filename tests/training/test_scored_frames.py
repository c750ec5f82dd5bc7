"""What a model is compared with counts the frames that the model is scored on, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, load, split_by_subject, write_npz
from edgeseq.devices.report.words import majority
from edgeseq.models.store import load_model
from edgeseq.training.evaluate import evaluate
from edgeseq.training.stage import train

RATE = 20.0


def test_the_majority_is_of_the_frames_behind_the_unscored_start(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([0, 1, 0], np.int16), [100, 40, 60])  # of 200 frames 160 are of the first label
    recordings = tuple(Recording(rng.normal(size=(200, 2)).astype(np.float32), y, s, s) for s in ("1", "2", "3"))
    data = tmp_path / "starts.npz"
    write_npz(Dataset("starts", recordings, ("u", "v"), ("", ""), RATE, ("a", "b")), data)
    changes = {"rounds": 1, "steps": 1, "crop": 4, "model.hidden": 4}
    folder = train(str(data), tmp_path / "gru", changes=changes, test=["3"], validation=["2"])
    dataset = load(str(data))
    first = round(dataset.unscored * RATE)
    assert 0 < first <= 100
    found = folder.manifest.metrics["test_majority_share"]
    assert found == pytest.approx((160 - first) / (200 - first), abs=1e-6)
    scores = evaluate(load_model(folder), split_by_subject(dataset, test=["3"], validation=["2"]).test)
    assert found == pytest.approx(majority(scores)[0], abs=1e-6)  # as the report counts it
