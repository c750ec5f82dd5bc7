"""Training on another device than the CPU.

Where there is no GPU, torch's device "meta" stands for one: its tensors have shapes and no values, and an operation
that meets one of them beside a tensor of the CPU fails, as it would on a GPU. What reads a value (batch norms of
segments that are filled up, thresholds of neurons, a random wiring) cannot be asked there, and is left to the test on a
GPU.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
import torch

from edgeseq.data import Dataset, Recording, default_split
from edgeseq.errors import InputError, Unsupported
from edgeseq.models.quantized import QuantizedLinear
from edgeseq.models.registry import build, presets
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch, Carry, batches_of
from edgeseq.training.device import resolved
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import CrossEntropy, fit
from edgeseq.training.settings import Settings

FRONT = {"rate": 8000.0, "hop": 128, "window": 256}
SHORT = Settings(rounds=2, steps=4, batch=8, crop=3.0)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def tensors(found):
    """All tensors in a batch."""
    own = [value for value in vars(found).values() if isinstance(value, torch.Tensor)]
    return own + (tensors(found.carry) if getattr(found, "carry", None) else [])


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([0, 1, 0, 1], np.int16), 100)
    recordings = tuple(
        Recording(rng.normal(2 * y[:, None], 1.0, (len(y), 2)).astype(np.float32), y, str(subject), str(subject))
        for subject in range(5)
    )
    return default_split(Dataset("walks", recordings, ("ax", "ay"), ("V", "V"), 20.0, ("rest", "walk")))


def arguments(preset, **more):
    return (preset.family, FRONT["hop"] if more else 6, 7, {**preset.arguments, **more})


@pytest.mark.parametrize("front", [{}, {"front": FRONT}], ids=["frames", "sound"])
@pytest.mark.parametrize("name", ["lmu", "lmu_cell", "s4d", "lmuformer-causal", "gru", "lstm", "tanh"])
def test_all_that_a_step_of_training_touches_is_on_the_models_device(name, front):
    made = arguments(presets()[name], **front)
    model = build(*made).to("meta")
    carry = Carry(torch.arange(3), torch.tensor([True, False, True]))
    batch = Batch(torch.zeros(3, 40, made[1]), torch.zeros(3, 40).long(), torch.zeros(3, 40), carry).to("meta")
    _, state = respond(model, batch, None)
    answers, state = respond(model, batch, batch.carry.starts(model, state))
    CrossEntropy(torch.ones(7, device="meta"), 0.1)(answers, batch).backward()
    found = [answers, *state.values(), *(p.grad for p in model.parameters() if p.requires_grad)]
    assert {tensor.device.type for tensor in found} == {"meta"}


def test_a_tensor_that_was_left_behind_is_noticed():
    model = build(*arguments(presets()["gru"])).to("meta")
    with pytest.raises(RuntimeError, match="device"):
        model(torch.zeros(3, 40, 6))


def test_the_lengths_of_a_batch_stay_where_python_reads_them(split):
    segments = tuple(
        Recording(r.x[: 50 + k], np.full(50 + k, k % 2, np.int16), r.subject, r.name)
        for k, r in enumerate(split.train.recordings)
    )
    dataset = dataclasses.replace(split.train, recordings=segments, task="segment")
    batch = next(iter(batches_of(dataset, SHORT).round(np.random.default_rng(0)))).to("meta")
    others = [tensor for tensor in tensors(batch) if tensor is not batch.lengths]
    assert batch.lengths.device.type == "cpu"
    assert {tensor.device.type for tensor in others} == {"meta"}


def test_crops_go_to_the_device_with_all_they_carry(split):
    _, second, *_ = batches_of(split.train, SHORT).round(np.random.default_rng(0))
    moved = tensors(second.to("meta"))
    assert len(moved) == 5  # x, y, age, order, taken
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_a_device_that_is_not_there_is_refused_and_auto_takes_what_is(monkeypatch):
    assert resolved("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolved("auto") == "cpu"
    with pytest.raises(InputError, match="sees no GPU here"):
        resolved("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolved("auto") == resolved("cuda") == "cuda"
    with pytest.raises(InputError, match="cuda"):
        resolved("cud")


def test_distillation_and_int8_models_are_refused_on_a_gpu(split, tmp_path):
    model, on_gpu = build("rnn", 2, 2, {"hidden": 4}), Settings(rounds=1, steps=1, device="cuda")
    with pytest.raises(Unsupported, match="device cuda: distillation is trained on the CPU alone"):
        fit(model, split, on_gpu, 0, tmp_path / "run", "x", objective=CrossEntropy(None, 0.0))
    model.small = QuantizedLinear(torch.nn.Linear(2, 2))
    with pytest.raises(Unsupported, match="device cuda: an int8 model is trained on the CPU alone"):
        fit(model, split, on_gpu, 0, tmp_path / "run", "x")


@gpu
@pytest.mark.parametrize("name", [name for name in presets() if not name.endswith("published")])
def test_a_model_trained_on_a_gpu_learns_as_on_the_cpu_and_comes_back(name, split, tmp_path):
    preset, losses = presets()[name], {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = build(preset.family, 2, 2, {**preset.arguments, "dropout": 0.0})
        settings = msgspec.structs.replace(SHORT, device=device)
        losses[device] = fit(model, split, settings, 0, tmp_path / device, "x")[-1].loss
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
        assert evaluate(model, split.validation).frames > 0
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.02)
