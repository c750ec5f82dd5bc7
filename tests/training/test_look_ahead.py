"""Training and scoring models that answer some frames later: each answer belongs to the frame that it is about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, split_by_subject, write_npz
from edgeseq.errors import InputError
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch
from edgeseq.training.evaluate import evaluate, logits, segment_logits
from edgeseq.training.loop import CrossEntropy, fit
from edgeseq.training.settings import Augmentation, Settings
from edgeseq.training.stage import train

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=5)
FIXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture makes a model, and no more
RATE = 20.0


def recordings(lengths, seed=0, label=0):
    rng = np.random.default_rng(seed)
    return [
        Recording(rng.normal(size=(n, 2)).astype(np.float32), np.full(n, label, np.int16), "1", str(k))
        for k, n in enumerate(lengths)
    ]


def alone(model, recording):
    """The answers to one recording by the loop of step, flushed."""
    x = torch.from_numpy(recording.x)[None]
    with torch.no_grad():
        y, state = model.run_steps(x)
        rest, _ = model.flush(state)
    return torch.cat([y, rest], 1)[0, model.look_ahead :].numpy()


@FIXED
@given(lengths=LENGTHS, look_ahead=st.integers(1, 4))
def test_each_frame_of_each_recording_has_its_answer(window, lengths, look_ahead):
    model, made = window(look_ahead).eval(), recordings(lengths)
    for recording, y in zip(made, logits(model, made, batch=3), strict=True):
        assert y.shape == (len(recording.x), 2)
        np.testing.assert_allclose(y, alone(model, recording), atol=1e-5)


@FIXED
@given(lengths=LENGTHS, look_ahead=st.integers(0, 4))
def test_a_segment_is_answered_after_its_own_last_frame(window, lengths, look_ahead):
    model, made = window(look_ahead).eval(), recordings(lengths)
    for recording, y in zip(made, segment_logits(model, made, batch=3), strict=True):
        np.testing.assert_allclose(y, alone(model, recording)[-1], atol=1e-5)


@FIXED
@given(look_ahead=st.integers(1, 4), frames=st.integers(6, 12))
def test_answers_are_scored_by_the_labels_of_their_frames(window, look_ahead, frames):
    model = window(look_ahead)
    x, y = torch.randn(3, frames, 2), torch.randint(0, 2, (3, frames))
    batch = Batch(x, y, torch.arange(frames).repeat(3, 1), None)
    answers, _ = respond(model, batch, None)
    assert answers.shape == (3, frames - look_ahead, 2)
    whole, _ = model.run_steps(x)
    expected = torch.nn.functional.cross_entropy(
        whole[:, look_ahead:].flatten(0, 1), y[:, : frames - look_ahead].flatten()
    )
    torch.testing.assert_close(CrossEntropy(None, 0.0)(answers, batch), expected)


def echoes(subjects=4, seconds=12.0):
    """The label of a frame is the sign of the frame two frames later: only a model that looks ahead can know it."""
    rng = np.random.default_rng(0)
    made = []
    for subject in range(1, subjects + 1):
        x = rng.normal(size=(int(seconds * RATE), 1)).astype(np.float32)
        ahead = np.concatenate([x[2:, 0], [-1, -1]])
        made.append(Recording(x, (ahead > 0).astype(np.int16), str(subject), str(subject)))
    return Dataset("echoes", tuple(made), ("a",), ("V",), RATE, ("down", "up"))


STILL = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, scale=0.0, noise=0.0)
PLAIN = Settings(2, 60, batch=16, crop=2.0, settle=0.0, stitch=0.0, learning_rate=0.03, augmentation=STILL)


@pytest.mark.parametrize(("look_ahead", "right"), [(2, True), (1, False)])
def test_what_lies_ahead_is_learned_where_the_model_looks_there(window, tmp_path, look_ahead, right):
    split = split_by_subject(echoes(), test=["1"], validation=["2"])
    model = window(look_ahead, inputs=1)
    fit(model, split, PLAIN, 0, tmp_path / "c", "a")
    assert (evaluate(model, split.test).accuracy > 0.97) == right


TINY = {"rounds": 1, "steps": 2, "batch": 4, "settle": 0.1, "model.dim": 8, "model.channels": 2, "model.order": 3}
FOUR = {"model.stages": 4}  # which wait for five frames


def test_a_folder_of_a_model_that_looks_ahead_is_trained_and_says_so(tmp_path):
    write_npz(echoes(), tmp_path / "echoes.npz")
    call = {"preset": "lmuformer", "test": ["1"], "validation": ["2"]}
    folder = train(str(tmp_path / "echoes.npz"), tmp_path / "m", changes={**TINY, **FOUR, "crop": 2.0}, **call)
    assert folder.manifest.input.look_ahead == 5
    assert 0 <= folder.manifest.metrics["test_accuracy"] <= 1
    with pytest.raises(InputError, match=r"answers 5 frames later.*nothing is learned from 0\.35 s or less"):
        train(str(tmp_path / "echoes.npz"), tmp_path / "n", changes={**TINY, **FOUR, "crop": 0.3}, **call)
