"""Training on segments: whole recordings in, one answer each, scored by it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, deal, default_split, write_npz
from edgeseq.data.split import RULE
from edgeseq.errors import InputError, Unsupported
from edgeseq.models.registry import build
from edgeseq.models.store import load_model
from edgeseq.quant.distill_stage import distill
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.answers import respond
from edgeseq.training.augment import Sampler, shifted
from edgeseq.training.baseline import forest_baseline
from edgeseq.training.batches import Segments
from edgeseq.training.denormals import flushed_denormals
from edgeseq.training.early import tune
from edgeseq.training.evaluate import evaluate, segment_logits
from edgeseq.training.loop import CrossEntropy, class_weights, fit
from edgeseq.training.settings import Augmentation, Settings
from edgeseq.training.stage import train

RATE = 20.0
STILL = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, scale=0.0, noise=0.0)


def spikes(count=60, least=20, most=40, seed=0):
    """Segments of different lengths, in whose first half one channel, the label's, spikes more often."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        frames, label = int(rng.integers(least, most + 1)), k % 2
        often = np.full((frames, 2), 0.2)
        often[: frames // 2, label] = 0.8
        x = (rng.random(often.shape) < often).astype(np.float32)
        made.append(Recording(x, np.full(frames, label, np.int16), "", f"r{k}"))
    return deal(Dataset("spikes", tuple(made), ("a", "b"), ("spike",) * 2, RATE, ("one", "two"), task="segment"))


@given(
    lengths=st.lists(st.integers(3, 30), min_size=1, max_size=40),
    steps=st.integers(1, 40),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_all_segments_are_drawn_equally_often_and_whole(lengths, steps, batch, seed):
    made = tuple(
        Recording(np.full((n, 1), k, np.float32), np.full(n, k % 3, np.int16), "a", f"{k}")
        for k, n in enumerate(lengths)
    )
    data = Dataset("d", made, ("a",), ("V",), RATE, ("x", "y", "z"), task="segment")
    source = Segments(data, Settings(steps=steps, batch=batch, augmentation=STILL))
    times = np.zeros(len(lengths), int)
    drawn = list(source.round(np.random.default_rng(seed)))
    assert len(drawn) == steps
    for found in drawn:
        assert found.x.shape == (batch, int(found.lengths.max()), 1)
        for x, y, n in zip(found.x, found.y, found.lengths, strict=True):
            k = int(x[0])
            times[k] += 1
            assert (int(n), int(y)) == (lengths[k], k % 3)
            assert torch.all(x[:n] == k)
            assert torch.all(x[n:] == 0)
    assert times.max() - times.min() <= 1


def test_segments_of_similar_length_share_a_batch():
    source = Segments(spikes(200, 10, 200), Settings(steps=16, batch=8, augmentation=STILL))
    longest = [found.lengths.float() for found in source.round(np.random.default_rng(0))]
    assert np.mean([float(n.max() - n.min()) for n in longest]) < 40


def test_unlabelled_segments_are_not_learned_from():
    data = spikes(20)
    unlabelled = [dataclasses.replace(r, y=np.full_like(r.y, -1)) for r in data.recordings[:7]]
    data = dataclasses.replace(data, recordings=(*unlabelled, *data.recordings[7:]))
    source = Segments(data, Settings(steps=4, batch=8))
    assert len(source.lengths) == 13
    assert all(bool((found.y >= 0).all()) for found in source.round(np.random.default_rng(0)))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_answer_is_that_after_each_ones_own_last_frame(cell):
    torch.manual_seed(0)
    model = build("rnn", 2, 2, {"cell": cell, "hidden": 5}).eval()
    data = spikes(20)
    source = Segments(data, Settings(steps=1, batch=6))
    (batch,) = source.round(np.random.default_rng(0))
    answers, _ = respond(model, batch, None)
    assert answers.shape == (6, 1, 2)
    for x, n, y in zip(batch.x, batch.lengths, answers, strict=True):
        torch.testing.assert_close(model.run_steps(x[None, :n])[0][0, -1], y[0])
    loss = CrossEntropy(None, 0.0)(answers, batch)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(answers[:, 0], batch.y[:, 0]))


def test_a_segment_is_scored_once_by_its_last_answer():
    torch.manual_seed(0)
    model, data = build("rnn", 2, 2, {"hidden": 5}), spikes(30)
    scores = evaluate(model, data)
    assert scores.frames == 30
    hits = [
        int(y.argmax()) == r.y[0] for r, y in zip(data.recordings, segment_logits(model, data.recordings), strict=True)
    ]
    assert scores.accuracy == pytest.approx(np.mean(hits))


def test_rare_segments_weigh_more_whatever_their_length():
    data = spikes(40)
    few = tuple(r for k, r in enumerate(data.recordings) if r.y[0] == 0 or k < 10)  # 20 and 5
    assert class_weights(dataclasses.replace(data, recordings=few)).tolist() == pytest.approx([25 / 40, 25 / 10])


def sampler(units=("spike", "spike"), **changes):
    recording = Recording(spikes(1).recordings[0].x, np.zeros(1, np.int16), "a", "a")
    return Sampler([recording], units, RATE, Augmentation(**changes)), recording.x


def test_spikes_are_read_and_kept_as_they_are():
    made, x = sampler(mirror=0.5)
    assert [statistic.tolist() for statistic in made.statistics()] == [[0.0, 0.0], [1.0, 1.0]]
    np.testing.assert_array_equal(made.whole(np.random.default_rng(0), 0), x)


def test_a_channel_beside_spikes_is_normalized():
    made, x = sampler(units=("spike", "V"))
    mean, std = made.statistics()
    assert (mean[0], std[0]) == (0, 1)
    assert (mean[1], std[1]) == pytest.approx((x[:, 1].mean(), x[:, 1].std()))


def test_some_spikes_are_lost_and_none_are_made():
    made, x = sampler(drop=0.3)
    kept = np.stack([made.whole(np.random.default_rng(seed), 0) for seed in range(200)])
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert np.all(kept <= x)
    assert kept.sum() / (200 * x.sum()) == pytest.approx(0.7, abs=0.03)


@given(st.integers(0, 10_000))
def test_a_segment_begins_earlier_or_later(seed):
    made, x = sampler(shift=0.25)
    found = made.whole(np.random.default_rng(seed), 0)
    assert any(np.array_equal(found, shifted(x, by, np.array([True, True]))) for by in range(-5, 6))


def test_what_moves_in_comes_from_nothing_for_spikes_and_from_the_end_for_others():
    x = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    silent = np.array([True, False])
    assert shifted(x, 2, silent).tolist() == [[0, 2], [0, 2], [1, 2], [3, 4]]
    assert shifted(x, -1, silent).tolist() == [[3, 4], [5, 6], [7, 8], [0, 8]]


def test_other_segments_are_played_at_other_tempi_from_end_to_end():
    ramp = Recording(np.linspace(0, 1, 101, dtype=np.float32)[:, None], np.zeros(101, np.int16), "a", "a")
    plain = Sampler([ramp], ("V",), RATE, Augmentation(tempo=2.0, scale=0.0, noise=0.0))
    lengths = [len(plain.whole(np.random.default_rng(seed), 0)) for seed in range(30)]
    assert 51 <= min(lengths) < 80 < 130 < max(lengths) <= 201
    x = plain.whole(np.random.default_rng(1), 0)
    assert (x[0, 0], x[-1, 0]) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.03))


def test_crops_of_spikes_are_spikes():
    made, _ = sampler()
    crop = made.draw(np.random.default_rng(3), 15, 2, 0.5)
    assert set(np.unique(crop.x)) <= {0.0, 1.0}
    assert len(crop.x) == 15


SHORT = {"rounds": 3, "steps": 20, "batch": 16, "learning_rate": 0.02}
MODEL = {"model.hidden": 8, "model.dropout": 0.0, "model.timescale": 20.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("segments")
    write_npz(spikes(120), home / "spikes.npz")
    return train(str(home / "spikes.npz"), home / "m", changes={**SHORT, **MODEL})


def test_it_learns_segments_and_says_what_it_learned_them_from(trained):
    manifest = trained.manifest
    assert manifest.task == "segment"
    assert manifest.metrics["test_accuracy"] > 0.85
    assert not [name for name in manifest.metrics if "smoothed" in name]
    assert (manifest.input.normalization.mean, manifest.input.normalization.std) == ((0.0, 0.0), (1.0, 1.0))
    assert manifest.decision.smoothing == 0
    assert manifest.split["rule"] == (RULE,)
    assert RULE in (trained.path / "README.md").read_text(encoding="utf-8")
    split = default_split(spikes(120))
    assert {part: list(manifest.split[part]) for part in split.subjects()} == split.subjects()
    assert evaluate(load_model(trained), split.test).accuracy == pytest.approx(manifest.metrics["test_accuracy"], 1e-4)


class Stop(Exception):
    pass


def test_an_interrupted_run_on_segments_ends_in_the_same_weights(tmp_path):
    split = default_split(spikes(80))
    how = Settings(rounds=2, steps=3, batch=8, augmentation=Augmentation(shift=0.2, drop=0.1))

    def run(file, report=lambda ended, steps: None):
        torch.manual_seed(0)
        model = build("rnn", 2, 2, {"hidden": 5})
        fit(model, split, how, 0, file, "a", report=report)
        return model.state_dict()

    def stop(ended, steps):
        if ended is not None:
            raise Stop

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "cut", stop)
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_goes_on_and_keeps_the_groups_apart(trained):
    source = str(trained.path.with_name("spikes.npz"))
    second = train(source, trained.path.with_name("on"), start=trained.path, changes={"rounds": 1, "steps": 2})
    assert second.manifest.split == trained.manifest.split
    with pytest.raises(InputError, match="has seen that one"):
        train(source, trained.path.with_name("no"), start=trained.path, fold=1, changes={"rounds": 1, "steps": 2})


def test_other_recordings_of_nobody_knows_whom_are_refused(trained):
    other = trained.path.with_name("other.npz")
    write_npz(spikes(100, seed=1), other)
    with pytest.raises(InputError, match="which of these it has seen cannot be told"):
        train(str(other), trained.path.with_name("no"), start=trained.path, changes={"rounds": 1, "steps": 2})
    with pytest.raises(InputError, match="which of these it has seen cannot be told"):
        distill([trained.path], trained.path.with_name("no"), source=str(other), preset="gru", changes=SHORT)


def test_a_student_learns_what_the_teacher_says_of_segments(trained):
    changes = {**SHORT, **MODEL, "rounds": 4, "distillation.hard": 0.0, "distillation.soft": 1.0}
    folder = distill([trained.path], trained.path.with_name("student"), preset="gru", changes=changes)
    assert folder.manifest.metrics["test_accuracy"] > 0.75
    assert folder.manifest.metrics["teacher_test_accuracy"] == trained.manifest.metrics["test_accuracy"]


def test_hidden_layers_of_segments_are_not_compared(trained):
    changes = {**SHORT, "distillation.hidden": 1.0, "model.hidden": 8}
    with pytest.raises(InputError, match="spikes has segments: set hidden to 0"):
        distill([trained.path], trained.path.with_name("no"), preset="gru", changes=changes)


def test_a_model_of_segments_is_quantized_and_tuned(trained):
    pytest.importorskip("brevitas")
    folder = quantize(trained.path, trained.path.with_name("q"), changes={"rounds": 1, "steps": 3, "batch": 8})
    assert folder.manifest.task == "segment"
    assert folder.manifest.metrics["test_accuracy"] > 0.8


def test_a_model_of_frames_does_not_learn_segments_from_a_folder(trained, tmp_path):
    frames = dataclasses.replace(spikes(120), task="frame")
    write_npz(frames, tmp_path / "frames.npz")
    with pytest.raises(InputError, match="frames has task frame, but the model to start from has segment"):
        train(str(tmp_path / "frames.npz"), tmp_path / "m", start=trained.path)


@pytest.mark.parametrize("name", ["crop", "carry", "stitch", "settle"])
def test_settings_of_crops_are_refused_for_segments(trained, name):
    source = str(trained.path.with_name("spikes.npz"))
    with pytest.raises(InputError, match=f"{name} cannot be set: spikes has segments"):
        train(source, trained.path.with_name("no"), changes={name: 0.5})


def test_a_shift_is_refused_for_frames(tmp_path):
    with pytest.raises(InputError, match=r"augmentation\.shift cannot be set: spar_watch has frames"):
        train("spar_watch", tmp_path / "no", changes={"augmentation.shift": 0.5})


def test_a_model_that_answers_frames_only_is_refused_for_segments(trained, monkeypatch):
    from edgeseq.models.rnn import Rnn

    monkeypatch.setattr(Rnn, "tasks", ("frame",))
    source = str(trained.path.with_name("spikes.npz"))
    with pytest.raises(Unsupported, match="answers at every frame, and spikes wants an answer for a segment"):
        train(source, trained.path.with_name("no"), changes=SHORT)


def test_a_rule_for_early_answers_does_not_outlive_the_weights_that_it_was_fitted_to(trained):
    tuned, _ = tune(trained.path, trained.path.with_name("early"))
    assert tuned.manifest.decision.early is not None
    source = str(trained.path.with_name("spikes.npz"))
    after = train(source, trained.path.with_name("after"), start=tuned.path, changes={"rounds": 1, "steps": 2})
    assert after.manifest.decision.early is None
    assert after.manifest.decision.smoothing == tuned.manifest.decision.smoothing


def test_a_rule_for_early_answers_does_not_outlive_quantization(trained, tmp_path):
    pytest.importorskip("brevitas")
    tuned, _ = tune(trained.path, tmp_path / "early")
    assert quantize(tuned.path, tmp_path / "small", method="ptq").manifest.decision.early is None


def test_a_forest_answers_each_segment_once():
    pytest.importorskip("sklearn")
    split = default_split(spikes(120))
    plain, smoothed = forest_baseline(split)
    assert plain == smoothed
    assert plain.frames == len(split.test.recordings)
    assert plain.accuracy > 0.9


def test_denormals_are_flushed_inside_and_as_before_behind():
    smallest = torch.full((8,), 2.0**-126)
    assert bool((smallest * 0.5 > 0).all())
    with flushed_denormals():
        assert bool((smallest * 0.5 == 0).all())
        with flushed_denormals():
            pass
        assert bool((smallest * 0.5 == 0).all())
    assert bool((smallest * 0.5 > 0).all())
