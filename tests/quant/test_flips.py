"""Spikes that are others after quantization are counted, population by population."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeseq.data import Recording
from edgeseq.manifest import Precision
from edgeseq.models.registry import build
from edgeseq.quant.calibrate import calibrate, quantize_model
from edgeseq.quant.flips import Flips, populations, spike_flips

L2MU = ("l2mu", {"memories": 3, "order": 4, "theta": 9.5, "hidden": 8})
SPIKING = ("spiking_lmuformer", {"dim": 8, "stages": 1, "order": 4, "theta": 20.0, "ratio": 2})


def recordings():
    rng = np.random.default_rng(1)
    return [
        Recording(rng.normal(0, 3, (frames, 6)).astype(np.float32), np.zeros(frames, np.int16), str(frames), "")
        for frames in (60, 90)
    ]


@pytest.fixture(params=[L2MU, SPIKING], ids=lambda each: each[0])
def model(request):
    torch.manual_seed(4)
    family, arguments = request.param
    made = build(family, 6, 4, arguments).eval()
    made.fold()
    return made


def test_a_model_beside_itself_flips_nothing(model):
    found = spike_flips(model, copy.deepcopy(model), recordings(), 50)
    assert set(found) == {"all", *populations(model)}
    assert all(flips.flipped == 0 for flips in found.values())
    assert found["all"].counted == sum(found[name].counted for name in populations(model))
    assert found["all"].counted == 50 * 2 * sum(neurons.size for neurons in populations(model).values())
    assert found["all"].fired > 0


@pytest.mark.parametrize(("frames", "counted"), [(1000, 60 + 90), (70, 60 + 70), (50, 50 + 50)])
def test_each_recording_is_counted_over_its_own_frames(model, frames, counted):
    first = next(iter(populations(model)))
    found = spike_flips(model, copy.deepcopy(model), recordings(), frames)
    assert found[first].counted == counted * populations(model)[first].size


def test_recordings_together_flip_what_each_flips_alone(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for neurons in populations(other).values():
            neurons.threshold.mul_(1.1)
    found = spike_flips(model, other, recordings(), 1000)
    alone = [spike_flips(model, other, [recording], 1000) for recording in recordings()]
    assert found["all"].flipped > 0
    for name, flips in found.items():
        assert flips.counted == sum(each[name].counted for each in alone)
        assert flips.fired == sum(each[name].fired for each in alone)
        assert flips.flipped == sum(each[name].flipped for each in alone)


def test_a_spike_too_many_and_one_too_few_are_both_flips():
    flips = Flips()
    flips.add(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    flips.add(torch.tensor([0.0]), torch.tensor([1.0]))
    assert flips == Flips(counted=5, fired=2, flipped=3)


def test_of_no_recordings_nothing_is_counted(model):
    assert spike_flips(model, copy.deepcopy(model), [], 50) == {}
    assert spike_flips(model, copy.deepcopy(model), recordings(), 0) == {}


def test_a_threshold_that_is_never_reached_flips_every_spike_of_its_population(model):
    silent, name = copy.deepcopy(model), list(populations(model))[-1]
    with torch.no_grad():
        populations(silent)[name].threshold.fill_(1e9)
    with torch.no_grad():
        populations(model)[name].threshold.fill_(1e-3)
    found = spike_flips(model, silent, recordings(), 50)
    assert found[name].flipped == found[name].fired > 0


def test_int8_flips_some_spikes_and_the_models_are_left_as_they_were(model):
    plain = copy.deepcopy(model)
    quantized = quantize_model(model, Precision("int8", "int8"), calibrate(model, recordings())).eval()
    equations = [neurons.equation for neurons in populations(quantized).values()]
    found = spike_flips(plain, quantized, recordings(), 50)
    assert 0 < found["all"].flipped < 0.3 * found["all"].counted
    assert [neurons.equation for neurons in populations(quantized).values()] == equations


def test_a_model_that_does_not_spike_has_nothing_to_flip():
    gru = build("rnn", 6, 4, {"hidden": 5}).eval()
    assert spike_flips(gru, gru, recordings(), 10) == {}
