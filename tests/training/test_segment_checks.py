"""Segments of any length: what norms take their statistics of, and what training refuses and keeps in range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, deal, default_split, write_npz
from edgeseq.errors import InputError
from edgeseq.models.registry import build
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch
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


S4D = {"norm": "batch", "prenorm": True, "hidden": 8, "layers": 1, "state": 4}
LMUFORMER = {"dim": 8, "channels": 2, "order": 3}
NORMED = {
    "s4d": ("s4d", S4D),
    "s4d-postnorm": ("s4d", {**S4D, "prenorm": False}),
    "lmuformer": ("lmuformer", LMUFORMER),
    "lmuformer-causal": ("lmuformer", {**LMUFORMER, "causal": True}),
    "spiking_lmuformer": ("spiking_lmuformer", LMUFORMER),
    "spiking_lmuformer-causal": ("spiking_lmuformer", {**LMUFORMER, "causal": True}),
}
PRESETS = [name for name in NORMED if name != "s4d-postnorm"]
ONE = {"rounds": 1, "steps": 2, "batch": 8}


@pytest.mark.parametrize("preset", PRESETS)
def test_batch_norms_are_trained_on_segments_of_any_length_at_any_tempo(tmp_path, preset):
    write_npz(waves(10, 60), tmp_path / "waves.npz")
    small = {f"model.{name}": value for name, value in NORMED[preset][1].items() if name not in ("causal", "norm")}
    changes = {**small, **ONE, "augmentation.tempo": 1.4}
    folder = train(str(tmp_path / "waves.npz"), tmp_path / "m", preset=preset, changes=changes)
    assert folder.manifest.task == "segment"
    assert 0 <= folder.manifest.metrics["test_accuracy"] <= 1


@pytest.mark.parametrize("preset", ["s4d", "lmuformer-causal", "lmuformer"])
def test_segments_of_very_different_lengths_are_learned_with_batch_norms(tmp_path, preset):
    family, arguments = NORMED[preset]
    torch.manual_seed(0)
    model = build(family, 2, 2, {**arguments, "readout": "mean"})
    how = Settings(rounds=2, steps=60, batch=16, learning_rate=0.02, augmentation=STILL)
    history = fit(model, default_split(waves(10, 60, 120)), how, 0, tmp_path / "c", "a")
    assert history[-1].accuracy > 0.9


def trained_on(name, batch):
    """A new model's answers to a batch in training, its gradients and the running statistics after it."""
    torch.manual_seed(0)
    family, arguments = NORMED[name]
    model = build(family, 2, 2, arguments).double().train()
    answers, _ = respond(model, batch, None)
    answers.square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"answers": answers, **found, **{k: v for k, v in model.named_buffers() if "running" in k}}


@pytest.mark.parametrize("name", NORMED)
@settings(max_examples=12)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=5), more=st.integers(1, 20), seed=st.integers(0, 9))
def test_what_is_learned_does_not_hang_on_how_far_a_batch_is_filled_up(name, lengths, more, seed):
    x = torch.randn(len(lengths), max(lengths), 2, generator=torch.Generator().manual_seed(seed)).double()
    ends = torch.tensor(lengths)
    x = x * (torch.arange(x.shape[1]) < ends[:, None])[..., None]
    rest = torch.zeros(len(lengths), 1, dtype=torch.long)
    further = torch.nn.functional.pad(x, (0, 0, 0, more))
    further[torch.arange(further.shape[1]) >= ends[:, None]] = 7.0  # whatever is there
    some, others = (trained_on(name, Batch(each, rest, ends[:, None] - 1, None, ends)) for each in (x, further))
    assert any("running" in key for key in some)
    for key, value in some.items():
        torch.testing.assert_close(others[key], value, msg=lambda said, key=key: f"{key}: {said}")


@pytest.mark.parametrize("name", NORMED)
def test_statistics_are_of_the_frames_of_all_segments_alike(name):
    """Those of the first norm: what it reads hangs on no other, so that it may be seen segment by segment."""
    torch.manual_seed(0)
    family, arguments = NORMED[name]
    model = build(family, 2, 2, arguments).train()
    seen = []
    first = {"s4d": "layers.0.norm", "lmuformer": "tokenizer.stages.0.norm"}.get(family, "tokenizer.0.population.norm")
    norm = model.get_submodule(first)
    alone = [torch.randn(1, frames, 2) for frames in (5, 30, 12)]
    with torch.no_grad():
        lengths = torch.tensor([each.shape[1] for each in alone])
        x = torch.nn.utils.rnn.pad_sequence([each[0] for each in alone], batch_first=True)
        respond(model, Batch(x, lengths[:, None], lengths[:, None], None, lengths), None)
        together = norm.running_mean / 0.1  # of its first batch: from 0, with torch's momentum
        norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
        for each in alone:
            count = torch.tensor([each.shape[1]])
            respond(model, Batch(each, count[:, None], count[:, None], None, count), None)
    frames = [x.flatten(0, 1) if live is None else x[live[..., 0] > 0] for x, live in seen]
    assert [len(each) for each in frames] == lengths.tolist()
    torch.testing.assert_close(together, torch.cat(frames).mean(0))


def test_other_recordings_of_nobody_knows_whom_are_refused_at_another_rate(tmp_path):
    write_npz(waves(20, 40), tmp_path / "waves.npz")
    write_npz(waves(20, 40, seed=1), tmp_path / "other.npz")
    changes = {**{f"model.{name}": value for name, value in S4D.items()}, **ONE, "model.norm": "layer"}
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
