"""``edgeseq tune`` on a folder of a model that looks ahead: on whom the rule is chosen, and what its delays hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseq.data import Dataset, Recording, load, write_npz
from edgeseq.data.dataset import DEALT
from edgeseq.decisions import NO_ANSWER
from edgeseq.devices.decide import UNKNOWN, Decider
from edgeseq.errors import InputError
from edgeseq.events import scores, truths
from edgeseq.manifest import Decision
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_model
from edgeseq.training import tune_events
from edgeseq.training.tune_events import tune

RATE = 20.0
LABELS = ("a", "b")
PRESENT = Decision(smoothing=0.1)


def walks(seed: int, names: tuple[str, ...] = ("s1", "s2", "s3")) -> Dataset:
    """Of each subject a recording of its own length, whose label changes every two seconds and is the sign of u."""
    rng = np.random.default_rng(seed)
    recordings = []
    for number, subject in enumerate(names):
        y = np.repeat(np.arange(10 + number) % 2, 40)
        x = (2.0 * y - 1)[:, None] * [1, 0.5] + 0.2 * rng.normal(size=(len(y), 2))
        recordings.append(Recording(x.astype(np.float32), y.astype(np.int16), subject, f"r{number}"))
    return Dataset("walks", tuple(recordings), ("u", "v"), ("", ""), RATE, LABELS)


def folder_of(data, out, names: tuple[str, ...] = ("s1", "s2", "s3")):
    """An untrained model that looks two frames ahead, with a read-out that tells the two labels apart."""
    torch.manual_seed(1)
    arguments = {"dim": 8, "stages": 1, "order": 4, "theta": 8.0}
    model = build("lmuformer", 2, 2, arguments).eval()
    parts = dict(zip(("train", "validation", "test"), ([name] for name in names), strict=True))
    with torch.no_grad():
        x = torch.tensor([[[-1.0, -0.5]] * 60, [[1.0, 0.5]] * 60])
        y, _ = model(x)
        gap = y[1, -1] - y[0, -1]
        turn = torch.stack([-gap, gap]) / gap.square().sum()
        model.readout.bias.copy_(turn @ (model.readout.bias - (y[0, -1] + y[1, -1]) / 2) * 8)
        model.readout.weight.copy_(turn @ model.readout.weight * 8)
    return save_model(model, out, arguments=arguments, data=str(data), split=parts, decision=PRESENT)


@pytest.fixture
def folder(tmp_path):
    write_npz(walks(0), tmp_path / "walks.npz")
    return folder_of(tmp_path / "walks.npz", tmp_path / "ahead")


def said_step_by_step(folder, x: np.ndarray) -> np.ndarray:
    """The answers (T + 2,) as a runner gives them: a call a frame, and two without one."""
    model = load_model(folder)
    decide = Decider(PRESENT, LABELS, RATE, 2)
    state, found = model.initial_state(1), []
    with torch.no_grad():
        for t, row in enumerate([*x, *np.zeros((2, 2), np.float32)]):
            y, state = model.step(torch.from_numpy(row)[None], state, torch.tensor([[float(t < len(x))]]))
            label = decide(y[0].numpy()).label
            found.append(NO_ANSWER if label == UNKNOWN else LABELS.index(label))
    return np.array(found)


def test_the_rule_is_chosen_on_the_validation_subjects_and_judged_on_the_test_subjects(folder, monkeypatch):
    given = {}

    def choose(validation, test, *rest, **options):
        given.update(s2=validation, s3=test)
        return chosen(validation, test, *rest, **options)

    chosen = tune_events.choose
    monkeypatch.setattr(tune_events, "choose", choose)
    monkeypatch.setattr(tune_events, "grid", lambda: [Decision(), Decision(dwell=0.5)])
    made, tuned = tune(folder.path, folder.path.with_name("tuned"))
    dataset = load(str(folder.path.with_name("walks.npz")))
    for subject, part, rule in (("s2", "validation", tuned.before.validation), ("s3", "test", tuned.before.test)):
        (recording,) = dataset.only([subject]).recordings
        (truth,) = truths(dataset.only([subject]))
        (heard,) = given[subject].truths
        assert heard.y.tolist() == truth.y.tolist()  # each subject's recording has a length of its own
        expected = scores(truth.tally(said_step_by_step(folder, recording.x)))
        assert expected.delay_median >= 2 / RATE  # that is what a look-ahead of two frames costs
        assert expected.missed < 0.5
        assert rule == expected
        assert made.manifest.metrics[f"{part}_delay_median_before"] == pytest.approx(expected.delay_median)
        assert made.manifest.metrics[f"{part}_event_f1_before"] == pytest.approx(expected.f1, abs=1e-6)
    assert (tuned.chosen_on.people, tuned.chosen_on.changes, tuned.chosen_on.orders) == (1, 9, 0)
    assert (tuned.judged_on.people, tuned.judged_on.changes) == (1, 10)


def test_other_recordings_of_nobody_known_are_refused(tmp_path):
    names = tuple(f"{DEALT}{k}" for k in (1, 2, 3))
    for seed in (0, 1):
        write_npz(walks(seed, names), tmp_path / f"walks{seed}.npz")
    folder = folder_of(tmp_path / "walks0.npz", tmp_path / "ahead", names)
    with pytest.raises(InputError, match="nobody knows who was recorded in"):
        tune(folder.path, tmp_path / "tuned", data=str(tmp_path / "walks1.npz"))
    assert not (tmp_path / "tuned").exists()


def test_a_share_without_a_delay_is_refused(folder):
    with pytest.raises(InputError, match=r"a share of 95 % of the changes says nothing .* pass --max-delay too"):
        tune(folder.path, folder.path.with_name("tuned"), share=0.95)
