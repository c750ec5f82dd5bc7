"""Weights of few bits while a model trains: what it computes with, what trains, and what is left in the end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from edgeseq.errors import InputError
from edgeseq.models.contract import parameter_count, set_mask
from edgeseq.models.registry import build
from edgeseq.packed import Bucketed
from edgeseq.quant import low_bit
from edgeseq.quant.low_bit import Even, bits_of, mean_bits, settle, train_points, train_weights, trained
from edgeseq.quant.quantizer import quantized

BUCKET = 16
FAMILIES = {
    "rnn": {"hidden": 6},
    "lmu": {"channels": [3], "orders": [4], "thetas": [10.0], "hidden": [5]},
    "lmu_cell": {"hidden": 5, "order": 4, "theta": 10.0},
    "s4d": {"hidden": 5, "layers": 1, "state": 4},
    "sparse_rnn": {"nodes": 8, "neighbours": 2, "block": 1},
}


@pytest.fixture(params=FAMILIES)
def model(request):
    """A small model of the family, in eval mode."""
    torch.manual_seed(0)
    return build(request.param, 3, 4, FAMILIES[request.param]).eval()


@pytest.fixture
def gru():
    torch.manual_seed(0)
    return build("rnn", 3, 4, {"hidden": 6}).eval()


@pytest.fixture
def x():
    return torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1))


def rounded_by_hand(model, bits):
    """A plain copy with rounded weights."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, count in bits.items():
            tensor, mask = made.get_parameter(name), made.masks().get(name.removesuffix(".weight"))
            there = torch.ones_like(tensor, dtype=torch.bool) if mask is None else mask
            tensor[there] = quantized(tensor[there], count, BUCKET)
    return made


def gradients(model, x):
    y, _ = model(x)
    y.square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def original(name):
    owner, _, leaf = name.rpartition(".")
    return f"{owner}.parametrizations.{leaf}.original"


def values_per_bucket(tensor, bucket, present=None):
    flat = (tensor.flatten() if present is None else tensor[present]).detach()
    return max(len(part.unique()) for part in flat.split(bucket))


# -- quantized distillation -----------------------------------------------------------------------------------------


def test_a_model_computes_with_rounded_weights_and_their_gradients_go_to_the_wide_ones(model, x):
    bits = bits_of(model, 3)
    by_hand = rounded_by_hand(model, bits)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    train_weights(model, bits, BUCKET)
    torch.testing.assert_close(model(x)[0], by_hand(x)[0], rtol=1e-5, atol=1e-6)
    found, expected = gradients(model, x), gradients(by_hand, x)
    for name, gradient in expected.items():
        mask = by_hand.masks().get(name.removesuffix(".weight"))
        if name in bits and mask is not None:
            gradient = gradient * mask
        torch.testing.assert_close(found[original(name) if name in bits else name], gradient, rtol=1e-4, atol=1e-6)
    for name in bits:
        assert torch.equal(model.get_parameter(original(name)), before[name])


def test_what_is_left_are_plain_weights_that_few_bits_say_exactly(model, x):
    names, bits, count = trained(model), bits_of(model, 3), parameter_count(model)
    keys, masks = set(model.state_dict()), dict(model.masks())
    by_hand = rounded_by_hand(model, bits)
    train_weights(model, bits, BUCKET)
    assert not model.masks()
    coded = settle(model, names)
    assert not any(map(parametrize.is_parametrized, model.modules()))
    assert coded.keys() == bits.keys()
    for name, each in coded.items():
        weight = model.get_parameter(name)
        assert np.array_equal(each.decoded(), weight.detach().numpy())
        assert torch.equal(weight, by_hand.get_parameter(name))
        present = None if each.present is None else torch.from_numpy(each.present)
        assert values_per_bucket(weight, BUCKET, present) <= 2 ** bits[name]
        assert each.levels.max() < 2 ** bits[name]
    assert set(model.state_dict()) == keys
    assert model.masks().keys() == masks.keys()
    assert all(torch.equal(mask, masks[name]) for name, mask in model.masks().items())
    assert (sorted(trained(model)), parameter_count(model)) == (sorted(names), count)
    torch.testing.assert_close(model(x)[0], by_hand(x)[0], rtol=1e-5, atol=1e-6)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_maps_get_the_bits_asked_for_others_eight_and_time_constants_none():
    model = build("s4d", 3, 4, FAMILIES["s4d"])
    bits = bits_of(model, 4)
    assert {bits[f"{name}.weight"] for name in model.projections()} == {4}
    assert bits["layers.0.ssm.C"] == bits["layers.0.ssm.D"] == bits["readout.bias"] == 8
    assert not set(model.dynamics()) & bits.keys()
    assert set(trained(model)) - bits.keys() == set(model.dynamics())
    assert "input_mean" not in bits


def test_a_tensor_that_nothing_would_be_saved_of_stays_as_it_is():
    model = build("rnn", 3, 4, {"hidden": 1})
    assert "layers.0.from_hidden.weight" not in bits_of(model, 4)


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_outside_of_what_is_known_are_refused(gru, bits):
    with pytest.raises(InputError, match=f"bits {bits}: 2 to 8 are needed"):
        bits_of(gru, bits)


def test_weights_that_were_pruned_are_in_no_bucket_and_stay_zero(gru, x):
    name, mask = "layers.0.from_hidden", torch.rand(18, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    set_mask(gru.get_submodule(name), mask)
    names, bits = trained(gru), bits_of(gru, 2)
    train_weights(gru, bits, BUCKET)
    gradient = gradients(gru, x)[original(f"{name}.weight")]
    assert not gradient[~mask].any()
    assert gradient[mask].any()
    assert not gru.get_submodule(name).weight[~mask].any()
    coded = settle(gru, names)[f"{name}.weight"]
    assert coded.levels.size == mask.sum() < mask.numel()
    assert np.array_equal(coded.present, mask.numpy())
    weight = gru.get_submodule(name).weight
    assert not weight[~mask].any()
    assert values_per_bucket(weight, BUCKET, mask) <= 4
    assert torch.equal(gru.masks()[name], mask)


def test_of_a_map_with_nothing_left_there_is_nothing_to_say(gru):
    name = "layers.0.from_hidden"
    set_mask(gru.get_submodule(name), torch.zeros(18, 6, dtype=torch.bool))
    bits = bits_of(gru, 2)
    assert f"{name}.weight" not in bits
    train_weights(gru, bits, BUCKET)
    assert name in gru.masks()


def test_a_call_rounds_each_tensor_once_and_the_next_one_again(x, monkeypatch):
    model = build("lmu_cell", 3, 4, FAMILIES["lmu_cell"])
    bits, calls, plain = bits_of(model, 4), [], Even.rounded
    train_weights(model, bits, BUCKET)
    monkeypatch.setattr(Even, "rounded", lambda self, weight: calls.append(self) or plain(self, weight))
    model(x)
    assert len(calls) == len(set(map(id, calls))) == len(bits)
    first, _ = model(x)
    with torch.no_grad():
        model.get_parameter(original("readout.weight")).mul_(2)
    assert len(calls) == 2 * len(bits)
    assert not torch.equal(model(x)[0], first)


def test_a_call_that_fails_leaves_nothing_kept(gru, x):
    train_weights(gru, bits_of(gru, 4), BUCKET)
    with pytest.raises(RuntimeError):
        gru(x[..., :2])
    assert not parametrize._cache_enabled
    assert not parametrize._cache


def test_a_copy_follows_the_wide_weights_and_rounds_its_own(gru, x):
    train_weights(gru, bits_of(gru, 4), BUCKET)
    average = copy.deepcopy(gru)
    with torch.no_grad():
        for kept, weight in zip(average.parameters(), gru.parameters(), strict=True):
            weight.add_(torch.randn_like(weight))
            kept.lerp_(weight, 0.5)
    assert not torch.equal(average(x)[0], gru(x)[0])
    assert values_per_bucket(average.readout.weight, BUCKET) <= 16
    other = copy.deepcopy(average)
    other.load_state_dict(gru.state_dict())
    assert torch.equal(other(x)[0], gru(x)[0])


# -- differentiable quantization ------------------------------------------------------------------------------------


def test_only_the_points_train_and_each_gets_alpha_times_its_weights_gradients(model, x):
    bits = bits_of(model, 3)
    points = {f"{name}.weight": 5 for name in model.projections() if f"{name}.weight" in bits}
    names = trained(model)
    train_points(model, bits, points, BUCKET)
    assert set(trained(model)) == {original(name).removesuffix("original") + "0.points" for name in points}
    found = gradients(model, x)
    coded = settle(model, names)
    expected = gradients(model, x)
    for name in points:
        each = coded[name]
        upstream = expected[name] if each.present is None else expected[name][torch.from_numpy(each.present)]
        alpha = np.repeat(each.alpha, BUCKET)[: each.levels.size]
        by_point = np.bincount(each.levels, alpha * upstream.flatten().numpy(), minlength=5)
        gradient = found[original(name).removesuffix("original") + "0.points"]
        np.testing.assert_allclose(gradient, by_point, rtol=1e-3, atol=1e-5 * max(1, np.abs(by_point).max()))


def test_learned_points_are_written_in_order_and_say_the_weights_exactly(model):
    names, bits = trained(model), bits_of(model, 3)
    points = {name: 5 for name, count in bits.items() if count == 3}
    train_points(model, bits, points, BUCKET)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.rand(5, generator=torch.Generator().manual_seed(3)))  # in no order
    coded = settle(model, names)
    for name, each in coded.items():
        assert np.array_equal(each.decoded(), model.get_parameter(name).detach().numpy())
        if name in points:
            assert each.bits == 3
            assert (np.diff(each.points) >= 0).all()
            present = None if each.present is None else torch.from_numpy(each.present)
            assert values_per_bucket(model.get_parameter(name), BUCKET, present) <= 5
        else:
            assert each.points is None
    assert sorted(trained(model)) == sorted(names)


def test_the_bits_of_levels_are_those_of_a_huffman_code_for_each_tensor():
    def levels(*numbers):
        flat, one = np.array(numbers, np.uint8), np.ones(1, np.float32)
        return Bucketed((len(flat),), flat, 2, 0, one, one)

    assert mean_bits([levels(0, 0, 1, 2), levels(0, 1, 2, 3)]) == pytest.approx((6 + 8) / 8)
    assert mean_bits([]) == 0


def test_the_least_that_is_rounded_is_worth_it():
    """α and β are two float32 numbers for what 32 bits each said before."""
    n = low_bit.LEAST_NUMBERS
    assert 8 * n + 2 * 32 < 32 * n
    assert not 8 * (n - 2) + 2 * 32 < 32 * (n - 2)
