"""A model that looks ahead, as a file and in a session: what it says of a recording depends on that recording alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import edgeseq
from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.devices.check import check_folder, require
from edgeseq.devices.engines.base import input_width
from edgeseq.devices.golden import read_golden
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.export.stage import export
from edgeseq.models.registry import build

ARGUMENTS = {"dim": 8, "stages": 2, "order": 6, "theta": 20.0, "ratio": 2}
AHEAD, CHANNELS = 3, 4
ENGINES = ("numpy", "litert", "onnxruntime")


def recordings(count, frames):
    rng = np.random.default_rng(5)
    return [
        Recording(rng.normal(1, 2, (frames, CHANNELS)).astype(np.float32), np.full(frames, k % 2, np.int16), str(k), "")
        for k in range(count)
    ]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    made = build("lmuformer", CHANNELS, 2, ARGUMENTS).eval()
    made.set_normalization([1.0] * CHANNELS, [2.0] * CHANNELS)
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    where = tmp_path_factory.mktemp("ahead")
    channels = ("a", "b", "c", "d")
    data = Dataset("made", tuple(recordings(4, 800)), channels, ("",) * CHANNELS, 50.0, ("x", "y"))
    write_npz(data, where / "made.npz")
    split = {"train": ["0", "1"], "validation": ["2"], "test": ["3"]}
    edgeseq.save_model(model, where / "m", arguments=ARGUMENTS, data=str(where / "made.npz"), split=split)
    return export(where / "m", where / "x")


def answers(model, x):
    """What the model says of the frames of one recording, (T, K), by its own forward."""
    rest = np.zeros((AHEAD, CHANNELS), np.float32)
    live = torch.ones(1, len(x) + AHEAD, 1)
    live[:, len(x) :] = 0
    with torch.no_grad():
        y, _ = model(torch.from_numpy(np.concatenate([x, rest]))[None], None, live)
    return y[0, AHEAD:].numpy()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_says_of_every_frame_what_the_model_does_flush_included(model, folder, engine):
    session = Session(folder, engine)
    for recording in recordings(3, 40):  # one after the other: nothing of one is in the next
        session.reset()
        found = np.concatenate([session.run(recording.x), session.flush()])[AHEAD:]
        np.testing.assert_allclose(found, answers(model, recording.x), atol=2e-5)


def test_a_recording_shorter_than_the_look_ahead_is_answered_too(model, folder):
    session = Session(folder, "numpy")
    short = recordings(1, 2)[0].x
    found = np.concatenate([session.run(short), session.flush()])[AHEAD:]
    np.testing.assert_allclose(found, answers(model, short), atol=2e-5)


def test_after_a_flush_the_session_takes_frames_again(folder):
    session = Session(folder, "numpy")
    x = recordings(1, 30)[0].x
    before = session.run(x)
    session.flush()
    session.reset()
    np.testing.assert_array_equal(session.run(x), before)


def test_a_frame_has_the_channels_and_nothing_else(folder):
    session = Session(folder, "numpy")
    session.step([0.5] * CHANNELS)
    with pytest.raises(InputError, match=r"\(4,\) or \(1, 4\) is needed"):
        session.step(np.zeros(input_width(folder.manifest), np.float32))


def test_the_golden_calls_end_with_the_flush_and_every_engine_is_checked_on_it(folder):
    golden = read_golden(folder)
    assert golden.x.shape[1] == CHANNELS + 1
    assert (golden.x[-AHEAD:] == 0).all()
    assert (golden.x[:-AHEAD, -1] == 1).all()
    assert golden.frames.shape == (len(golden.x) - AHEAD, CHANNELS)
    require(check_folder(folder))


def test_a_causal_model_has_nothing_left_to_say(tmp_path):
    torch.manual_seed(0)
    made = build("lmuformer", CHANNELS, 2, {**ARGUMENTS, "causal": True}).eval()
    data = Dataset("made", tuple(recordings(3, 800)), ("a", "b", "c", "d"), ("",) * CHANNELS, 50.0, ("x", "y"))
    write_npz(data, tmp_path / "made.npz")
    arguments = {**ARGUMENTS, "causal": True}
    edgeseq.save_model(made, tmp_path / "m", arguments=arguments, data=str(tmp_path / "made.npz"))
    exported = export(tmp_path / "m", tmp_path / "x", formats=["tflite"])
    assert input_width(exported.manifest) == CHANNELS
    assert Session(exported, "numpy").flush().shape == (0, 2)
