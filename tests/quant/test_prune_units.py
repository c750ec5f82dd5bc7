"""Which units and modes go: by what matters least for each parameter, until the share is reached."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording
from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import StreamingModel, parameter_count, set_mask, weight_of
from edgeseq.models.registry import build
from edgeseq.quant.narrow import narrowed
from edgeseq.quant.prune import modes_to_keep, units_to_keep
from edgeseq.quant.saliency import mode_energy, modes_of, saliency, squared_gradients
from edgeseq.training.batches import batches_of
from edgeseq.training.loop import class_weights
from edgeseq.training.settings import Settings

LMU = {"channels": [3, 2], "orders": [4, 3], "thetas": [9.5, 20.0], "hidden": [7, 6], "products": 3}
CASES = {
    "gru": ("rnn", {"hidden": 9}),
    "lstm": ("rnn", {"hidden": 6, "layers": 2, "cell": "lstm"}),
    "lmu": ("lmu", LMU),
    "sparse_rnn": ("sparse_rnn", {"nodes": 5, "neighbours": 2, "block": 4}),
    "sparse_rnn-units": ("sparse_rnn", {"graph": "barabasi_albert", "nodes": 12, "block": 2}),
    "s4d": ("s4d", {"hidden": 6, "layers": 2, "state": 8, "norm": "batch"}),
    "lmuformer": ("lmuformer", {"dim": 8, "stages": 1, "order": 3, "theta": 9.5, "ratio": 2}),
    "l2mu": ("l2mu", {"memories": 4, "order": 3, "theta": 5.0, "hidden": 6}),
}


def make(name, seed=0):
    torch.manual_seed(seed)
    family, arguments = CASES[name]
    return build(family, 3, 4, dict(arguments))


def smaller(name, model, kept):
    family, arguments = CASES[name]
    return narrowed(model, family, arguments, kept)[0]


def flat(model):
    """Every number matters alike."""
    return {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}


@settings(max_examples=25)
@given(st.sampled_from(sorted(CASES)), st.floats(0.01, 0.5), st.integers(0, 2**16))
def test_the_share_of_the_parameters_is_gone_and_little_more(name, share, seed):
    model = make(name, seed)
    total = parameter_count(model)
    made = smaller(name, model, units_to_keep(model, share, saliency(model, None)))
    left = parameter_count(made)
    assert left <= (1 - share) * total
    largest = max(freed_by_one(name, model))
    assert left > (1 - share) * total - largest - 1
    for width, had in model.widths().items():
        assert had.least <= made.widths()[width].size <= had.size


def freed_by_one(name, model):
    """Of each width, the parameters that go with one unit of each lane, at the model's full size."""
    for width, had in model.widths().items():
        if had.size > had.least:
            kept = {width: torch.arange(had.size - 1).repeat(had.lanes, 1)}
            yield parameter_count(model) - parameter_count(smaller(name, model, kept))


def test_weights_that_were_pruned_are_not_counted_again():
    model = make("gru")
    layer = model.get_submodule("layers.0.from_hidden")
    mask = torch.zeros_like(weight_of(layer), dtype=torch.bool)
    mask[:, :2] = True
    set_mask(layer, mask)
    total = parameter_count(model)
    made = smaller("gru", model, units_to_keep(model, 0.3, saliency(model, None)))
    assert parameter_count(made) <= 0.7 * total
    assert made.widths()["layers.0.hidden"].size >= 5


def test_the_units_that_matter_least_go_and_the_others_keep_their_numbers():
    model = make("gru")
    matter = flat(model)
    for name in ("layers.0.from_input.weight", "layers.0.from_input.bias", "layers.0.from_hidden.bias"):
        matter[name].view(3, 9, -1)[:, [1, 4]] = 0
    matter["layers.0.from_hidden.weight"].view(3, 9, 9)[:, [1, 4]] = 0
    kept = units_to_keep(model, 0.3, matter)
    assert kept["layers.0.hidden"].tolist() == [[0, 2, 3, 5, 6, 7, 8]]
    made = smaller("gru", model, kept)
    assert torch.equal(made.readout.weight, model.readout.weight[:, kept["layers.0.hidden"][0]])


def test_units_that_cost_more_parameters_go_before_others_that_matter_as_much():
    model = make("lmu")
    matter = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    matter["blocks.0.mixer.bias"] += 1.2  # a hidden unit of the first block has two readers, of the second one
    matter["blocks.1.mixer.bias"] += 1
    matter["blocks.0.encoder.bias"] += 100
    matter["blocks.1.encoder.bias"] += 100
    matter["front.value.bias"] += 100
    kept = units_to_keep(model, 0.05, matter)
    assert list(kept) == ["blocks.0.hidden"]


def test_the_order_of_a_memory_is_the_last_to_go_and_from_its_end():
    model = make("lmu")
    matter = {
        name: torch.zeros_like(p) if "mixer" in name else torch.ones_like(p) for name, p in model.named_parameters()
    }
    assert not any(name.endswith("order") for name in units_to_keep(model, 0.4, matter))
    kept = units_to_keep(model, 0.89, matter)
    orders = {name: units for name, units in kept.items() if name.endswith("order")}
    assert orders
    assert all(units.tolist() == [list(range(units.shape[1]))] for units in orders.values())
    assert all(made.size == 1 for name, made in smaller("lmu", model, kept).widths().items() if "order" not in name)


def test_each_lane_loses_a_unit_of_its_own():
    model = make("sparse_rnn")
    matter = {name: torch.rand_like(parameter) for name, parameter in model.named_parameters()}
    kept = units_to_keep(model, 0.4, matter)["layers.0.hidden"]
    assert kept.shape[0] == 5
    assert kept.shape[1] < 4
    assert len({tuple(lane) for lane in kept.tolist()}) > 1


def test_what_cannot_get_so_small_says_how_small_it_can():
    model = make("gru")
    least = parameter_count(smaller("gru", model, {"layers.0.hidden": torch.tensor([[0]])}))
    total = parameter_count(model)
    with pytest.raises(
        InputError, match=rf"still has {least} of its {total} parameters .* ask for (0\.\d\d) or less"
    ) as e:
        units_to_keep(model, 0.99, flat(model))
    possible = float(str(e.value).split("ask for ")[1].split()[0])
    assert units_to_keep(model, possible, flat(model))["layers.0.hidden"].shape == (1, 1)


class Mean(StreamingModel):
    def initial_state(self, batch):
        return {"mean": torch.zeros(batch, self.input_size)}

    def step(self, x, state):
        return state["mean"][:, : self.output_size], {"mean": (state["mean"] + x) / 2}


def test_a_family_that_names_no_widths_is_refused():
    with pytest.raises(Unsupported, match="Mean names no widths"):
        units_to_keep(Mean(3, 2), 0.5, {})


# -- modes ----------------------------------------------------------------------------------------------------------


def test_the_energy_of_a_mode_is_that_of_its_impulse_response():
    model = make("s4d").double()
    layer = model.layers[0].ssm
    with torch.no_grad():
        layer.log_dt.fill_(-1.0)  # so that it has died away in the end
    turn, weight = (torch.complex(*part).T for part in layer.discretize())
    response = weight[..., None] * turn[..., None] ** torch.arange(4000)
    energy = response.abs().square().sum(-1)
    assert torch.allclose(mode_energy(model, "layers.0.modes"), energy / energy.sum(1, keepdim=True), rtol=1e-9)


def test_a_mode_that_rings_on_has_more_energy_than_a_louder_one_that_dies_at_once():
    model = make("s4d")
    layer = model.layers[0].ssm
    with torch.no_grad():
        layer.log_dt.fill_(-2.0)
        layer.log_decay[:] = torch.tensor([3.0, -6.0, 3.0, 3.0])
        layer.frequency.fill_(1.0)
    _, weight = (torch.complex(*part).T.abs().detach() for part in layer.discretize())
    with torch.no_grad():
        layer.C /= weight[..., None]  # as loud as each other at first
        layer.C[:, 0] *= 1.5
    assert mode_energy(model, "layers.0.modes").argmax(1).tolist() == [1] * 6


def test_modes_without_energy_go_each_channel_its_own():
    model = make("s4d")
    dead = torch.tensor([0, 1, 2, 3, 0, 2])
    for layer in model.layers:
        with torch.no_grad():
            layer.ssm.C[torch.arange(6), dead] = 0
    model.eval()
    kept = modes_to_keep(model, 0.25)
    assert sorted(kept) == ["layers.0.modes", "layers.1.modes"]
    for units in kept.values():
        assert [sorted({0, 1, 2, 3} - set(lane)) for lane in units.tolist()] == [[mode] for mode in dead.tolist()]
    x = torch.randn(2, 40, 3)
    assert torch.allclose(smaller("s4d", model, kept)(x)[0], model(x)[0], atol=1e-5)


def test_layers_keep_the_modes_that_they_need():
    model = make("s4d")
    with torch.no_grad():
        model.layers[1].ssm.C[:, 1:] *= 1e-3
    kept = modes_to_keep(model, 0.3)
    assert [kept["layers.1.modes"].shape, list(kept)] == [torch.Size([6, 1]), ["layers.1.modes"]]


def test_modes_are_asked_of_those_that_have_them_and_one_stays():
    with pytest.raises(Unsupported, match="modes: Rnn has none; those that do are of the family s4d"):
        modes_to_keep(make("gru"), 0.5)
    assert modes_of(make("gru")) == []
    with pytest.raises(InputError, match=r"12 of 48 modes are the least .* ask for 0\.75 or less"):
        modes_to_keep(make("s4d"), 0.8)
    assert all(units.shape[1] == 1 for units in modes_to_keep(make("s4d"), 0.75).values())


# -- what matters ---------------------------------------------------------------------------------------------------


def dataset(frames=60):
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([0, 1, 2, 3], np.int16), frames // 4)
    one = [Recording(rng.normal(size=(frames, 3)).astype(np.float32), y, who, who) for who in "abc"]
    return Dataset("noise", tuple(one), ("a", "b", "c"), ("V", "V", "V"), 20.0, ("w", "x", "y", "z"))


PLAIN = Settings(rounds=3, steps=1, batch=4, crop=1.0, settle=0.1, carry=0.0, stitch=0.0, label_smoothing=0.0)


def test_taylor_is_the_squared_gradient_of_the_weighted_loss_times_the_squared_weight():
    model, learned = make("gru"), dataset()
    squared = squared_gradients(model, learned, PLAIN, 7)
    (batch,) = batches_of(learned, PLAIN).round(np.random.default_rng([7, 0]))
    loss = torch.nn.functional.cross_entropy(
        model.eval()(batch.x)[0].flatten(0, 1), batch.y.flatten(), class_weights(learned), ignore_index=-1
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(squared[name], parameter.grad.square(), rtol=1e-4, atol=1e-12), name
        assert torch.allclose(
            saliency(model, squared)[name], (parameter * parameter.grad).square(), rtol=1e-4, atol=1e-12
        )
    assert float(squared["layers.0.from_hidden.weight"].max()) > 0


def test_asking_what_matters_changes_nothing_and_answers_alike():
    model = make("s4d").train()
    before = copy.deepcopy(model.state_dict())
    some = Settings(rounds=2, steps=3, batch=4, crop=1.0, settle=0.1, carry=0.5)
    first, second = (squared_gradients(model, dataset(), some, 3) for _ in range(2))
    other = squared_gradients(model, dataset(), some, 4)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("squared", [True, False])
def test_time_constants_do_not_say_which_units_go(squared):
    model = make("s4d")
    kind = {name: torch.rand_like(parameter) for name, parameter in model.named_parameters()} if squared else None
    before = units_to_keep(model, 0.4, saliency(model, kind))
    with torch.no_grad():
        for layer in model.layers:
            layer.ssm.frequency.mul_(torch.rand(6, 4) * 100)
            layer.ssm.log_dt.mul_(3)
            layer.ssm.log_decay.add_(torch.randn(6, 4))
    after = units_to_keep(model, 0.4, saliency(model, kind))
    assert before.keys() == after.keys()
    assert any(name.endswith("modes") for name in before)
    assert all(torch.equal(units, after[name]) for name, units in before.items())


def test_magnitude_asks_no_data():
    model = make("lmu")
    assert all(torch.equal(value, model.get_parameter(name) ** 2) for name, value in saliency(model, None).items())
