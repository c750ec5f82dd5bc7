"""Training: the same seed gives the same weights, also when it was interrupted; the best round is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeseq.data import Dataset, Recording, split_by_subject, write_npz
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import open_folder
from edgeseq.metrics import score
from edgeseq.models.registry import build
from edgeseq.models.store import load_model
from edgeseq.training.evaluate import evaluate, logits, smooth
from edgeseq.training.loop import class_weights, fit
from edgeseq.training.settings import Settings, with_changes
from edgeseq.training.stage import train

TINY = Settings(rounds=3, steps=4, batch=8, crop=1.0, settle=0.1)


def waves(subjects=4, seconds=6.0, takes=1, rate=25.0):
    """Slow and fast waves by several subjects, each take with phases of its own: easy, and not trivial."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate)) / rate
    recordings = []
    for subject in range(1, subjects + 1):
        for label, frequency in [*enumerate((0.7, 3.0))] * takes:
            wave = np.sin(2 * np.pi * frequency * t[:, None] + rng.uniform(0, 6, 2))
            x = (wave + 0.1 * rng.normal(size=wave.shape)).astype(np.float32)
            recordings.append(Recording(x, np.full(len(t), label, np.int16), str(subject), f"{subject}-{label}"))
    return Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), rate, ("slow", "fast"))


@pytest.fixture
def split():
    return split_by_subject(waves(), test=["3"], validation=["4"])


def gru():
    torch.manual_seed(0)
    return build("rnn", 2, 2, {"hidden": 8})


class Stop(Exception):
    pass


def trained(split, checkpoint, stop_after=None, settings=TINY, seed=0, identity="a"):
    model = gru()

    def report(ended, steps):
        if ended is not None and ended.number == stop_after:
            raise Stop

    try:
        fit(model, split, settings, seed, checkpoint, identity, report=report)
    except Stop:
        return None
    checkpoint.unlink()
    return model.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_one_seed_gives_one_result_and_another_seed_another(split, tmp_path):
    first, again = (trained(split, tmp_path / "c") for _ in range(2))
    other = trained(split, tmp_path / "c", seed=1)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("round_", [0, 1])
def test_an_interrupted_run_ends_in_the_same_weights(split, tmp_path, round_):
    whole = trained(split, tmp_path / "whole")
    assert trained(split, tmp_path / "cut", stop_after=round_) is None
    assert (tmp_path / "cut").is_file()
    assert same(whole, trained(split, tmp_path / "cut"))
    assert not (tmp_path / "cut").exists()


def test_a_run_of_other_settings_is_not_taken_up(split, tmp_path):
    assert trained(split, tmp_path / "c", stop_after=0, identity="a", seed=5) is None
    assert same(trained(split, tmp_path / "c", identity="b"), trained(split, tmp_path / "d"))


def test_the_model_keeps_the_round_that_was_best_on_validation(split, tmp_path):
    model = gru()
    history = fit(model, split, TINY, 0, tmp_path / "c", "a")
    assert evaluate(model, split.validation).macro_f1 == pytest.approx(max(r.macro_f1 for r in history))


def test_normalization_comes_from_the_training_subjects_alone(split, tmp_path):
    model = gru()
    fit(model, split, TINY, 0, tmp_path / "c", "a")
    seen = np.concatenate([r.x for r in split.train.recordings])
    assert np.allclose(model.input_mean, seen.mean(0), atol=1e-5)
    assert np.allclose(1 / model.input_scale, seen.std(0), rtol=1e-4)


def test_it_learns_what_can_be_learned(tmp_path):
    write_npz(waves(subjects=5, takes=8), tmp_path / "waves.npz")
    settings = {"rounds": 4, "steps": 30, "batch": 16, "crop": 2.0, "settle": 0.4}
    settings |= {"model.hidden": 12, "model.dropout": 0.0, "model.timescale": 10.0}
    folder = train(str(tmp_path / "waves.npz"), tmp_path / "m", changes=settings, test=["1"], validation=["2"])
    assert folder.manifest.metrics["test_accuracy"] > 0.95
    assert folder.manifest.split == {
        "train": ("3", "4", "5"),
        "validation": ("2",),
        "test": ("1",),
    }
    assert folder.manifest.lineage[-1].data_fingerprint
    reopened = load_model(open_folder(tmp_path / "m"))
    assert not reopened.training


SHORT = {"rounds": 1, "steps": 3, "batch": 4, "crop": 1.0, "settle": 0.1}


@pytest.fixture
def first(tmp_path):
    """A model that has seen 3 and 4, was chosen on 2 and tested on 1."""
    write_npz(waves(), tmp_path / "waves.npz")
    settings = {**SHORT, "model.hidden": 6}
    return train(str(tmp_path / "waves.npz"), tmp_path / "a", changes=settings, test=["1"], validation=["2"])


def go_on(first, name="b", **options):
    source = str(first.path.with_name("waves.npz"))
    return train(source, first.path.with_name(name), start=first.path, **{"changes": SHORT, **options})


def test_training_goes_on_from_a_folder_with_its_split(first):
    second = go_on(first)
    assert [stage.verb for stage in second.manifest.lineage] == ["train", "train"]
    assert second.manifest.lineage[-1].parent == first.hash
    assert second.manifest.arguments == first.manifest.arguments
    assert second.manifest.split == first.manifest.split
    assert not same(load_model(first).state_dict(), load_model(second).state_dict())


@pytest.mark.parametrize(("test", "validation", "named"), [("3", "1", "'3'"), ("2", "1", "'2'"), ("1", "4", "'4'")])
def test_nobody_whom_the_model_has_seen_is_tested_or_chosen_on(first, test, validation, named):
    with pytest.raises(InputError, match=f"subject {named}.*has seen"):
        go_on(first, test=[test], validation=[validation])


def test_what_was_seen_two_stages_ago_is_remembered(first):
    second = go_on(first)
    assert second.manifest.split["train"] == ("3", "4")
    with pytest.raises(InputError, match="has seen"):
        go_on(second, name="c", test=["4"], validation=["1"])


def test_the_model_to_start_from_keeps_its_arguments(first):
    with pytest.raises(InputError, match=r"model\.hidden cannot be set"):
        go_on(first, changes={**SHORT, "model.hidden": 9})


def test_recordings_that_end_before_they_are_scored_are_refused(tmp_path):
    write_npz(waves(seconds=1.8), tmp_path / "short.npz")
    with pytest.raises(InputError, match=r"validation subjects last 1\.8 s at most, and the first 2 s"):
        train(str(tmp_path / "short.npz"), tmp_path / "m", changes=SHORT, test=["1"], validation=["2"])
    changes = {**SHORT, "crop": 4.0, "settle": 3.0}
    with pytest.raises(InputError, match=r"training subjects last 1\.8 s at most, and the first 3 s"):
        train(str(tmp_path / "short.npz"), tmp_path / "m", changes=changes, test=["1"], validation=["2"])


def test_nothing_is_lost_when_training_is_cut_off_while_it_scores(tmp_path, monkeypatch):
    write_npz(waves(), tmp_path / "waves.npz")
    call = {"changes": {**SHORT, "model.hidden": 6}, "test": ["1"], "validation": ["2"]}
    whole = train(str(tmp_path / "waves.npz"), tmp_path / "whole", **call)

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgeseq.training.stage.part_metrics", cut)
        with pytest.raises(KeyboardInterrupt):
            train(str(tmp_path / "waves.npz"), tmp_path / "m", **call)
    steps = []
    again = train(str(tmp_path / "waves.npz"), tmp_path / "m", **call, report=lambda _, done: steps.append(done))
    assert steps == []
    assert again.manifest.files == whole.manifest.files
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m", "waves.npz", "whole"]


@pytest.mark.parametrize(("settled", "chosen"), [(0.0, 0), (0.2, 0), (0.5, 1), (0.6, 2), (1.0, 3)])
def test_rounds_that_end_before_the_model_has_settled_are_not_chosen_from(
    split, tmp_path, monkeypatch, settled, chosen
):
    seen = []

    def worse_each_time(model, dataset):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return score([(np.zeros(10, np.int16), (np.arange(10) < len(seen)).astype(np.int64))], 2)

    monkeypatch.setattr("edgeseq.training.loop.evaluate", worse_each_time)
    model = gru()
    history = fit(model, split, with_changes(TINY, {"rounds": 4}), 0, tmp_path / "c", "a", settled=settled)
    assert [each.macro_f1 for each in history] == sorted((each.macro_f1 for each in history), reverse=True)
    assert all(torch.equal(tensor, seen[chosen][name]) for name, tensor in model.state_dict().items())


def test_a_damaged_unfinished_run_is_named(split, tmp_path):
    (tmp_path / "c").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"unfinished run in .*c cannot be read.*remove"):
        fit(gru(), split, TINY, 0, tmp_path / "c", "a")


def test_training_that_diverges_stops(split, tmp_path):
    settings = with_changes(TINY, {"learning_rate": 1e30, "clip": 1e30})
    with pytest.raises(InputError, match="learning_rate"):
        fit(gru(), split, settings, 0, tmp_path / "c", "a")


def test_rare_classes_weigh_more():
    recordings = [
        Recording(np.zeros((90, 1), np.float32), np.zeros(90, np.int16), "1", "a"),
        Recording(np.zeros((10, 1), np.float32), np.ones(10, np.int16), "1", "b"),
        Recording(np.zeros((50, 1), np.float32), np.full(50, -1, np.int16), "1", "c"),
    ]
    weights = class_weights(Dataset("d", tuple(recordings), ("a",), ("",), 10.0, ("x", "y", "never")))
    assert weights.tolist() == pytest.approx([100 / 180, 5.0, 0.0])


def test_recordings_of_different_length_are_answered_as_if_alone():
    model = gru().eval()
    rng = np.random.default_rng(0)
    recordings = [
        Recording(rng.normal(size=(n, 2)).astype(np.float32), np.zeros(n, np.int16), "1", str(n))
        for n in (9, 30, 4, 17)
    ]
    together = logits(model, recordings, batch=3)
    for recording, found in zip(recordings, together, strict=True):
        alone = logits(model, [recording])[0]
        assert found.shape == (len(recording.x), 2)
        assert np.allclose(found, alone, atol=1e-6)


def test_a_channel_that_never_changes_is_left_as_it_is(tmp_path):
    """Its standard deviation is 0, and a division by it would leave no number in the model."""
    dead = [
        replace(each, x=np.column_stack([each.x[:, 0], np.zeros(len(each.x), np.float32)]))
        for each in waves().recordings
    ]
    write_npz(Dataset("waves", tuple(dead), ("a", "b"), ("V", "V"), 25.0, ("slow", "fast")), tmp_path / "waves.npz")
    changes = {"rounds": 1, "steps": 2, "batch": 4, "crop": 1.0, "settle": 0.1, "model.hidden": 4}
    folder = train(str(tmp_path / "waves.npz"), tmp_path / "m", changes=changes, test=["1"], validation=["2"])
    first, second = folder.manifest.input.normalization.std
    assert (np.isfinite(first), second) == (True, 1.0)
    assert all(torch.isfinite(tensor).all() for tensor in load_model(folder).state_dict().values())
    assert np.isfinite(logits(load_model(folder), dead[:1])[0]).all()


def test_a_model_is_not_written_over_the_one_it_starts_from(tmp_path):
    write_npz(waves(), tmp_path / "waves.npz")
    source, changes = str(tmp_path / "waves.npz"), {"rounds": 1, "steps": 1, "batch": 2, "crop": 1.0, "settle": 0.1}
    first = train(source, tmp_path / "m", changes={**changes, "model.hidden": 4}, test=["1"], validation=["2"])
    with pytest.raises(InputError, match="m is what the model is made from: name another folder"):
        train(source, first.path, start=first.path, changes=changes, overwrite=True)
    assert open_folder(first.path).hash == first.hash


def test_smoothing_is_an_exponential_average_of_probabilities():
    y = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 0.0]], np.float32)
    keep = np.exp(-1 / 5)
    assert smooth(y.copy(), 5)[:, 0] == pytest.approx([0.5, 1 - 0.5 * keep, 1 - 0.5 * keep**2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1}, "Did you mean 'learning_rate'"),
        ({"augmentation.tempi": 1}, r"Did you mean 'augmentation\.tempo'"),
        ({"steps": "many"}, "training settings"),
        ({"rounds": 2.5}, "training settings"),
        ({"rounds": 0}, "training settings"),
        ({"crop": 0.0}, "training settings"),
        ({"augmentation.tempo": 0.5}, "training settings"),
        ({"augmentation.mirror": 1.5}, "training settings"),
        ({"crop": 2.0, "settle": 5.0}, "nothing to score"),
    ],
)
def test_settings_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        with_changes(Settings(), changes)


def test_settings_are_changed_by_name():
    changed = with_changes(Settings(), {"steps": 7, "augmentation.tempo": 1.1})
    assert (changed.steps, changed.augmentation.tempo, changed.batch) == (7, 1.1, Settings().batch)


def test_a_model_that_averages_over_all_it_has_seen_is_refused_for_endless_streams(tmp_path):
    write_npz(waves(), tmp_path / "waves.npz")
    changes = {**SHORT, "model.readout": "mean", "model.hidden": 4, "model.state": 4, "model.layers": 1}
    with pytest.raises(Unsupported, match="answers at the end of bounded segments"):
        train(str(tmp_path / "waves.npz"), tmp_path / "m", preset="s4d", changes=changes, test=["1"], validation=["2"])
    assert not (tmp_path / "m").exists()
