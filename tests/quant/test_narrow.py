"""A model is built smaller with the tensors of the units that are kept, and what was pruned stays so."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeseq.errors import InputError, Unsupported
from edgeseq.manifest import Precision
from edgeseq.models.contract import Place, StreamingModel, Width, parameter_count, set_mask, weight_of
from edgeseq.models.quantized import with_precision
from edgeseq.models.registry import build
from edgeseq.quant.narrow import cut, narrowed

FEW = {"layers.0.hidden": torch.tensor([[0, 2, 3]])}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_indices_are_counted_by_run_then_lane_then_unit(data):
    runs, lanes, size, each, start, behind = (data.draw(st.integers(low, 3)) for low in (1, 1, 1, 1, 0, 0))
    count, axis = data.draw(st.integers(1, size)), data.draw(st.integers(0, 1))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    units = np.sort([generator.permutation(size)[:count] for _ in range(lanes)])
    owners = [("ahead",)] * start
    owners += [(r, lane, i) for r in range(runs) for lane in range(lanes) for i in range(size) for _ in range(each)]
    owners += [("behind",)] * behind
    stays = [j for j, owner in enumerate(owners) if len(owner) == 1 or owner[2] in units[owner[1]]]
    tensor = torch.randn(2, len(owners)) if axis else torch.randn(len(owners), 2)
    left = cut(tensor, Place("w", axis, start, each, runs), Width(size, (), lanes), torch.from_numpy(units))
    assert torch.equal(left, tensor[:, stays] if axis else tensor[stays])


@pytest.mark.parametrize(("axis", "lane_axis"), [(0, 1), (1, 0), (2, 0), (1, 2)])
def test_lanes_of_another_axis_keep_units_of_their_own(axis, lane_axis):
    shape = [2, 2, 2]
    shape[axis], shape[lane_axis] = 4, 3
    tensor, units = torch.randn(shape), torch.tensor([[0, 1], [1, 3], [2, 3]])
    left = cut(tensor, Place("w", axis, lane_axis=lane_axis), Width(4, (), 3), units)
    assert left.shape[axis] == 2
    for lane in range(3):
        expected = tensor.select(lane_axis, lane).index_select(axis - (lane_axis < axis), units[lane])
        assert torch.equal(left.select(lane_axis, lane), expected)


def test_the_model_that_it_is_made_from_stays_as_it_is():
    arguments = {"hidden": 5, "layers": 2}
    model = build("rnn", 3, 4, arguments).double().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller, changed = narrowed(model, "rnn", arguments, FEW)
    assert arguments == {"hidden": 5, "layers": 2}
    assert changed == {"hidden": [3, 5], "layers": 2}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert smaller.training
    assert smaller.readout.weight.dtype == torch.float64
    assert torch.equal(
        smaller.layers[0].from_hidden.weight[3:6],
        before["layers.0.from_hidden.weight"][5:10][FEW["layers.0.hidden"][0]][:, [0, 2, 3]],
    )


# -- weights that were pruned -----------------------------------------------------------------------------------------


def prune_some(layer):
    weight = weight_of(layer)
    set_mask(layer, torch.rand(weight.shape) > 0.4)


def test_weights_that_were_pruned_stay_so_and_no_others_are():
    torch.manual_seed(0)
    model = build("rnn", 3, 4, {"hidden": 5})
    prune_some(model.layers[0].from_hidden)
    smaller, _ = narrowed(model, "rnn", {"hidden": 5}, FEW)
    rows = torch.cat([gate * 5 + FEW["layers.0.hidden"][0] for gate in range(3)])
    assert set(smaller.masks()) == {"layers.0.from_hidden"}
    expected = model.layers[0].from_hidden.mask[rows][:, FEW["layers.0.hidden"][0]]
    assert torch.equal(smaller.layers[0].from_hidden.mask, expected)
    assert parameter_count(smaller) == 3 * 3 * (3 + 2) + int(expected.sum()) + 4 * (3 + 1)


@pytest.mark.parametrize("arguments", [{"block": 8}, {"block": 3, "cell": "lstm", "layers": 2}, {"block": 1}])
def test_weights_that_were_pruned_in_a_wired_map_stay_so_in_the_other_parts_of_the_smaller_one(arguments):
    torch.manual_seed(1)
    arguments = {"nodes": 9, "neighbours": 2, **arguments}
    model = build("sparse_rnn", 3, 4, arguments)
    prune_some(model.layers[0].from_hidden.parts[0])
    size = model.widths()["layers.0.hidden"].size
    units = torch.arange(size)[-max(1, size // 2) :].repeat(9, 1)
    smaller, _ = narrowed(model, "sparse_rnn", arguments, {"layers.0.hidden": units})
    large, small = (each.layers[0].from_hidden.dense()[0] for each in (model, smaller))
    kept = (torch.arange(9)[:, None] * size + units).flatten()
    rows = torch.cat([gate * 9 * size + kept for gate in range(len(large) // (9 * size))])
    assert torch.equal(small, large[rows][:, kept])
    stored = sum(
        int(part.mask.sum()) if hasattr(part, "mask") else part.weight.numel()
        for part in smaller.layers[0].from_hidden.parts
    )
    assert stored == int((small != 0).sum())


def test_zeros_that_a_wired_map_starts_with_are_not_pruned():
    arguments = {"nodes": 6, "neighbours": 2, "block": 4, "cell": "tanh", "timescale": 20.0}  # starts as a diagonal
    model = build("sparse_rnn", 3, 4, arguments)
    smaller, changed = narrowed(model, "sparse_rnn", arguments, {"layers.0.hidden": torch.arange(3).repeat(6, 1)})
    assert int((smaller.layers[0].from_hidden.dense()[0] != 0).sum()) == 6 * 3
    assert parameter_count(smaller) == parameter_count(build("sparse_rnn", 3, 4, changed))


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"layer.0.hidden": [[0]]}, r"unknown width 'layer.0.hidden'. Did you mean 'layers.0.hidden'"),
        ({"layers.0.hidden": [[0, 5]]}, "those below 5 can"),
        ({"layers.0.hidden": [[2, 1]]}, "rising, each once"),
        ({"layers.0.hidden": [[1, 1]]}, "rising, each once"),
        ({"layers.0.hidden": [[]]}, "at least 1 remain"),
        ({"layers.0.hidden": [[0], [1]]}, "1 units in 2 lanes cannot be kept of 5 in 1"),
    ],
)
def test_units_that_are_not_there_are_refused(kept, said):
    model = build("rnn", 3, 4, {"hidden": 5})
    with pytest.raises(InputError, match=said):
        narrowed(model, "rnn", {"hidden": 5}, {name: torch.tensor(units).long() for name, units in kept.items()})


def test_only_the_last_orders_of_a_memory_can_go():
    arguments = {"channels": 1, "order": 4, "hidden": 3}
    model = build("lmu_cell", 3, 4, arguments)
    with pytest.raises(InputError, match="those below 2 can"):
        narrowed(model, "lmu_cell", arguments, {"layers.0.order": torch.tensor([[0, 3]])})


def test_a_quantized_model_is_refused():
    model = with_precision(build("rnn", 3, 4, {"hidden": 5}), Precision(weights="int8", activations="int8"))
    with pytest.raises(Unsupported, match="this rnn is quantized"):
        narrowed(model, "rnn", {"hidden": 5}, FEW)


# -- a family of one's own --------------------------------------------------------------------------------------------


class Twice(StreamingModel):
    """``h`` and ``-h`` in a row are what the read-out reads: units that stand in one axis at two places."""

    def __init__(self, input_size, output_size, *, hidden=4):
        super().__init__(input_size, output_size)
        self.into, self.readout = nn.Linear(input_size, hidden), nn.Linear(2 * hidden, output_size)

    def widths(self):
        size = self.into.out_features
        both = Place("readout.weight", 1), Place("readout.weight", 1, size)
        return {"hidden": Width(size, (Place("into.weight", 0), Place("into.bias", 0), *both))}

    def resized(self, sizes):
        return {"hidden": sizes["hidden"]}

    def initial_state(self, batch):
        return {"sum": self.input_mean.new_zeros(batch, self.output_size)}

    def step(self, x, state):
        h = torch.tanh(self.into(x))
        y = state["sum"] + self.readout(torch.cat([h, -h], -1))
        return y, {"sum": y}


def test_units_that_stand_at_two_places_of_one_axis_go_from_both(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_families", sys.modules[__name__])
    model = Twice(2, 3)
    smaller, changed = narrowed(model, "own_families:Twice", {}, {"hidden": torch.tensor([[1, 3]])}, trust=True)
    assert changed == {"hidden": 2}
    assert torch.equal(smaller.readout.weight, model.readout.weight[:, [1, 3, 5, 7]])
    assert torch.equal(smaller.into.weight, model.into.weight[[1, 3]])
