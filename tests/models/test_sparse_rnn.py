"""Hidden units wired by a graph: the tiles are the dense map with zeros, and zeros are neither kept nor computed."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import linear

from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.errors import InputError
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.models import sparse_rnn
from edgeseq.models.cells import CELLS
from edgeseq.models.contract import parameter_count, weight_of
from edgeseq.models.registry import build
from edgeseq.models.rnn import Rnn
from edgeseq.models.sparse_rnn import TILE, BlockSparseLinear, SparseRnn, tiles_of
from edgeseq.models.store import load_model
from edgeseq.models.wiring import draw_wiring
from edgeseq.program.cost import cost
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.loop import _mask_gradients
from edgeseq.training.stage import train

few = settings(max_examples=30, deadline=None, derandomize=True)
graphs = st.one_of(
    st.builds(partial(draw_wiring, "barabasi_albert"), st.integers(4, 14), attach=st.integers(1, 3)),
    st.builds(partial(draw_wiring, "watts_strogatz", neighbours=2), st.integers(3, 20), rewire=st.floats(0, 0.4)),
)


def block_sparse(wiring, block, gates):
    """A map in float64 with its absent weights at 0, and the dense mask ``(G H, H)``."""
    layer = BlockSparseLinear(torch.from_numpy(wiring), block, gates).double()
    layer.scale_to_inputs()
    mask = np.kron(wiring, np.ones((block, block), bool))
    return layer, torch.from_numpy(np.tile(mask, (gates, 1)))


@torch.no_grad()
def in_place_of_weights(layer, gradients):
    """The parts' gradients as those of the dense weight and bias, 0 outside of the tiles."""
    holder = copy.deepcopy(layer)  # parameters are set one by one: what is absent inside of tiles has gradients too
    for parameter, gradient in zip(holder.parameters(), gradients, strict=True):
        parameter.copy_(gradient)
    return holder.dense()


@few
@given(wiring=graphs, block=st.sampled_from([1, 2, 3, 5, 8, 11]), gates=st.sampled_from([1, 3, 4]))
def test_the_tiles_are_the_dense_map_under_the_mask_in_values_and_gradients(wiring, block, gates):
    torch.manual_seed(0)
    layer, mask = block_sparse(wiring, block, gates)
    weight, bias = (tensor.detach().clone().requires_grad_() for tensor in layer.dense())
    assert not weight[~mask].any()
    assert weight[mask].all()
    x = torch.randn(2, 3, layer.size, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), linear(x, weight * mask, bias)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.fixed()(x), y, rtol=0, atol=0)
    torch.testing.assert_close(linear(x, *layer.dense()), y, rtol=0, atol=1e-12)
    upstream = torch.randn_like(y)
    wanted = torch.autograd.grad((expected * upstream).sum(), [x, weight, bias])
    for answer in (y, linear(x, *layer.dense())):
        found = torch.autograd.grad((answer * upstream).sum(), [x, *layer.parameters()])
        torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-12)
        placed = in_place_of_weights(layer, found[1:])
        torch.testing.assert_close(placed[0] * mask, wanted[1], rtol=0, atol=1e-12)
        torch.testing.assert_close(placed[1], wanted[2], rtol=0, atol=1e-12)


@few
@given(wiring=graphs, block=st.integers(TILE, 20), gates=st.sampled_from([1, 3, 4]))
def test_with_blocks_the_stored_weights_are_those_of_the_graph_and_no_more(wiring, block, gates):
    layer, mask = block_sparse(wiring, block, gates)
    stored = sum(part.weight.numel() for part in layer.parts)
    assert layer.products() == stored
    if wiring.mean() <= 0.9:
        assert stored == mask.sum() == gates * block**2 * wiring.sum()
        assert not {n: p.mask for n, p in layer.named_modules() if hasattr(p, "mask")}
        assert len(layer.parts) == len(wiring)
    else:
        assert stored == mask.numel()
        assert len(layer.parts) == 1


@few
@given(wiring=graphs, block=st.integers(1, TILE - 1))
def test_small_nodes_share_tiles_and_masks_say_what_is_absent_there(wiring, block):
    layer, mask = block_sparse(wiring, block, 2)
    masks = {n: p.mask for n, p in layer.named_modules() if hasattr(p, "mask")}
    kept = sum(
        int(masks[f"parts.{i}"].sum()) if f"parts.{i}" in masks else part.weight.numel()
        for i, part in enumerate(layer.parts)
    )
    assert kept == mask.sum()
    for name, each in masks.items():
        assert each.dtype == torch.bool
        assert each.shape == layer.get_submodule(name).weight.shape
    rows = {tile.rows for tile in layer.tiles[:-1]}
    assert len(layer.tiles) == 1 or rows == {TILE // block * block}


def test_runs_of_columns_are_merged():
    units = torch.eye(6, dtype=torch.bool)
    units[0, 1] = units[2, 0] = units[2, 5] = True
    tiles = tiles_of(units, 1)
    assert [tile.runs for tile in tiles[:3]] == [((0, 2),), ((1, 2),), ((0, 1), (2, 3), (5, 6))]


@pytest.mark.parametrize(
    "arguments",
    [
        {"nodes": 9, "block": 8},
        {"nodes": 6, "block": 16, "layers": 2, "cell": "lstm"},
        {"nodes": 40, "block": 1, "cell": "relu"},
        {"graph": "barabasi_albert", "nodes": 10, "attach": 2, "block": 10, "cell": "tanh"},
    ],
)
def test_a_step_multiplies_what_is_stored_and_no_more(arguments):
    model = build("sparse_rnn", 6, 4, arguments).eval()
    hidden, cell, layers = arguments["nodes"] * arguments["block"], arguments.get("cell", "gru"), len(model.layers)
    plain = build("rnn", 6, 4, {"hidden": hidden, "cell": cell, "layers": layers}).eval()
    program, facts = capture(lower(model)), model.facts()
    multiplied = sum(program.constants[node.inputs[1]].size for node in program.nodes if node.operator == "linear")
    assert multiplied == sum(map_.weight.numel() for map_ in model.modules() if isinstance(map_, nn.Linear))
    spared = cost(capture(lower(plain))).macs - cost(program).macs
    assert spared == round((1 - facts["products_share"]) * layers * CELLS[cell].gates * hidden**2)
    assert facts["products_share"] < 0.9
    if arguments["block"] >= TILE:
        assert facts["products_share"] == pytest.approx(facts["wired_share"])
        assert facts["tiles"] == arguments["nodes"]


def test_a_wiring_without_room_for_tiles_is_one_dense_map_and_says_so():
    model = build("sparse_rnn", 6, 4, {"nodes": 50, "neighbours": 10, "rewire": 1.0, "block": 1})
    facts = model.facts()
    assert (facts["tiles"], facts["products_share"]) == (1, 1.0)
    assert facts["wired_share"] == pytest.approx((50 + 2 * 250) / 50**2)
    (mask,) = model.masks().values()
    assert mask.float().mean() == pytest.approx(facts["wired_share"])


def test_every_pair_joined_is_the_plain_network():
    torch.manual_seed(0)
    plain = Rnn(3, 4, hidden=20, cell="lstm", layers=2, timescale=30.0).eval()
    torch.manual_seed(0)
    full = SparseRnn(
        3, 4, graph="watts_strogatz", nodes=5, neighbours=4, block=4, cell="lstm", layers=2, timescale=30.0
    )
    x = torch.randn(2, 30, 3)
    assert not full.masks()
    assert torch.equal(full.eval()(x)[0], plain(x)[0])


def test_units_that_are_not_joined_do_not_see_each_other():
    model = build("sparse_rnn", 3, 4, {"nodes": 8, "block": 8}).double()
    start = model.initial_state(1)
    start["layers.0.hidden"].requires_grad_()
    _, after = model.step(torch.randn(1, 3).double(), start)
    for node in range(8):
        (seen,) = torch.autograd.grad(
            after["layers.0.hidden"][0, 8 * node : 8 * node + 8].sum(), start["layers.0.hidden"], retain_graph=True
        )
        assert torch.equal(seen.view(8, 8).abs().sum(1) > 0, model.wiring[node])


def test_a_unit_starts_with_weights_for_as_many_inputs_as_it_has():
    torch.manual_seed(0)
    model = build("sparse_rnn", 3, 4, {"graph": "barabasi_albert", "nodes": 12, "block": 16, "cell": "tanh"})
    for part in model.layers[0].from_hidden.parts:
        assert 0.9 < part.weight.abs().max() * part.in_features**0.5 <= 1.0


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_timescales_reach_all_tiles(cell):
    model = build("sparse_rnn", 3, 4, {"nodes": 6, "block": 8, "cell": cell, "timescale": 90.0})
    (layer,) = model.layers
    _, bias = layer.from_hidden.dense()
    assert not bias.view(layer.gates, -1)[1].any()
    assert layer.from_input.bias.view(layer.gates, -1)[1].min() >= 0


@pytest.mark.parametrize("block", [2, 8])
def test_units_without_gates_start_alone_in_their_tiles_too(block):
    torch.manual_seed(0)
    model = build("sparse_rnn", 3, 4, {"nodes": 20, "block": block, "cell": "relu", "timescale": 9.0})
    assert model.facts()["tiles"] > 1
    weight, bias = model.layers[0].from_hidden.dense()
    assert torch.equal(weight, weight.diagonal().diag())
    assert 0 <= weight.min() < 0.6 < weight.max() <= 1 - 1 / 9.01
    assert not bias.any()


@pytest.mark.parametrize("block", [2, 9])
def test_a_dense_map_is_taken_over_where_there_is_room_for_it(block):
    layer, mask = block_sparse(draw_wiring("watts_strogatz", 17, neighbours=2, rewire=0.2), block, 3)
    weight, bias = torch.randn(mask.shape).double(), torch.randn(len(mask)).double()
    layer.assign(weight, bias)
    found = layer.dense()
    assert torch.equal(found[0], weight * mask)
    assert torch.equal(found[1], bias)


# -- trained --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def masked_folders(tmp_path_factory):
    """A model with absent weights inside of its tiles, after training with weight decay, and after int8 training."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("sparse")
    recordings = [
        Recording(rng.normal(label, 1, (100, 2)).astype(np.float32), np.full(100, label, np.int16), subject, f"{label}")
        for subject in "12345"
        for label in (0, 1)
    ]
    write_npz(Dataset("noise", tuple(recordings), ("a", "b"), ("V", "V"), 25.0, ("low", "high")), root / "noise.npz")
    short = {"rounds": 2, "steps": 3, "batch": 4, "crop": 1.0, "settle": 0.1, "weight_decay": 0.3}
    sizes = {"model.nodes": 30, "model.block": 1, "model.neighbours": 4, "model.rewire": 0.1}
    trained = train(
        *(str(root / "noise.npz"), root / "float"),
        preset="sparse_rnn",
        changes={**short, **sizes, "learning_rate": 0.05},
        test=["3"],
        validation=["5"],
    )
    return trained, quantize(trained.path, root / "int8", changes={**short, "learning_rate": 0.01})


@pytest.mark.parametrize("stage", [0, 1])
def test_absent_weights_stay_absent_through_training(masked_folders, stage):
    folder = masked_folders[stage]
    model = load_model(folder)
    fresh = build("sparse_rnn", 2, 2, dict(folder.manifest.arguments))
    assert len(model.masks()) > 1
    for name, mask in model.masks().items():
        weight = weight_of(model.get_submodule(name))
        assert not weight[~mask].any()
        assert (weight[mask] != 0).all() or stage == 1  # on the grid of int8 some are 0
        assert not torch.equal(weight, fresh.get_submodule(name).weight)
    if stage == 1:
        for name, mask in model.masks().items():
            assert not model.get_submodule(name).integers()[0][~mask].any()


def test_the_wiring_is_stored_and_the_facts_are_in_the_manifest(masked_folders):
    folder = masked_folders[0]
    model = load_model(folder)
    drawn = draw_wiring("watts_strogatz", 30, neighbours=4, rewire=0.1)
    assert torch.equal(model.wiring, torch.from_numpy(drawn))
    assert folder.manifest.facts == pytest.approx(dict(model.facts()))


@pytest.mark.parametrize("other", [{"wiring_seed": 1}, {"nodes": 29}, {"neighbours": 6}, {"rewire": 0.2}])
def test_weights_of_another_wiring_are_refused_by_name(masked_folders, other):
    model = load_model(masked_folders[0])
    again = build("sparse_rnn", 2, 2, {**masked_folders[0].manifest.arguments, **other})
    before = {name: tensor.clone() for name, tensor in again.state_dict().items()}
    with pytest.raises(InputError, match=r"wired by another graph.*wiring_seed.*networkx"):
        again.load_state_dict(model.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())


def test_a_folder_whose_graph_is_drawn_in_another_way_here_is_refused(masked_folders, monkeypatch):
    def other(*sizes, seed, **options):
        return draw_wiring(*sizes, seed=seed + 1, **options)

    monkeypatch.setattr(sparse_rnn, "draw_wiring", other)
    with pytest.raises(InputError, match=r"wired by another graph.*networkx"):
        load_model(masked_folders[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 0}, "sparse_rnn: block 0"),
        ({"nodes": 1}, "nodes 1"),
        ({"graph": "erdos"}, "unknown graph 'erdos'"),
        ({"neighbours": 5}, "neighbours 5"),
        ({"cell": "lsmt"}, "unknown cell of sparse_rnn 'lsmt'"),
        ({"layers": 0}, "sparse_rnn: layers must be at least 1"),
        ({"timescale": -9.0}, "sparse_rnn: timescale -9"),
    ],
)
def test_values_that_no_sparse_network_can_have_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        build("sparse_rnn", 3, 4, arguments)


def test_every_part_of_a_wired_map_reads_the_state():
    model = build("sparse_rnn", 3, 4, {"nodes": 6, "block": 8, "layers": 2})
    parts = {name: entry for name, entry in model.projections().items() if ".parts." in name}
    assert len(parts) == 12
    for name, entry in parts.items():
        assert entry.reads == f"{name.split('.from_hidden')[0]}.store"


def test_weights_that_do_not_exist_are_not_counted_as_parameters():
    model = build("sparse_rnn", 3, 4, {"nodes": 50, "neighbours": 10, "rewire": 1.0, "block": 1})
    stored = sum(p.numel() for p in model.parameters())
    (mask,) = model.masks().values()
    assert parameter_count(model) == stored - int((~mask).sum())


def test_weights_that_do_not_exist_have_no_part_in_the_norm_of_the_gradient():
    torch.manual_seed(0)
    model = build("sparse_rnn", 3, 4, {"nodes": 50, "neighbours": 10, "rewire": 1.0, "block": 1})
    model(torch.randn(2, 20, 3))[0].square().sum().backward()
    ((name, mask),) = model.masks().items()
    gradient = model.get_submodule(name).weight.grad
    assert (gradient[~mask] != 0).any()
    kept = gradient[mask].clone()
    _mask_gradients(model, model.masks())
    assert not gradient[~mask].any()
    assert torch.equal(gradient[mask], kept)
