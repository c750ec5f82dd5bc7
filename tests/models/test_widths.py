"""Units that nothing listens to can go, from every place that they stand in, without changing an answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.check import check_contract
from edgeseq.models.contract import parameter_count
from edgeseq.models.registry import build
from edgeseq.quant.narrow import cut, narrowed

INPUTS, OUTPUTS, FRAMES = 3, 4, 9
CASES = {
    "lmu-products": ("lmu", {"channels": [3], "orders": [4], "thetas": [9.5], "hidden": [6], "products": 4}),
    "lmu-one-residual-sum": (
        "lmu",
        {"channels": [3, 2, 2], "orders": [4, 3, 5], "thetas": [9.5, 20.0, 4.0], "hidden": [6, 6, 5], "products": 2},
    ),
    "lmu-residual-to-the-inputs": (
        "lmu",
        {"channels": [2, 3], "orders": [3, 4], "thetas": [9.5, 20.0], "hidden": [5, 4], "products": 2},
    ),
    "lmu-large-order": ("lmu", {"channels": [2], "orders": [20], "thetas": [30.0], "hidden": [2]}),  # folded
    "lmu-cell": ("lmu_cell", {"channels": 3, "order": [4, 3], "theta": 9.5, "hidden": [6, 4], "layers": 2}),
    "lmu-cell-free": (
        "lmu_cell",
        {"channels": [2, 3], "order": 4, "hidden": 5, "links": [], "bias": True, "layers": 2, "input_to_hidden": False},
    ),
    "lmu-cell-memory-link": (
        "lmu_cell",
        {"channels": 2, "order": 3, "hidden": 5, "links": ["memory"], "recurrent": False, "activation": "relu"},
    ),
    "lmu-cell-hidden-link": ("lmu_cell", {"channels": 2, "order": 3, "hidden": 5, "links": ["hidden"], "layers": 3}),
    "gru": ("rnn", {"hidden": [7, 5], "layers": 2}),
    "lstm": ("rnn", {"hidden": 5, "layers": 2, "cell": "lstm"}),
    "tanh": ("rnn", {"hidden": 6, "layers": 2, "cell": "tanh"}),
    "relu": ("rnn", {"hidden": 6, "cell": "relu"}),
    "sparse-gru": ("sparse_rnn", {"nodes": 5, "neighbours": 2, "block": 8}),
    "sparse-lstm": ("sparse_rnn", {"graph": "barabasi_albert", "nodes": 9, "block": [3, 2], "cell": "lstm",
                                   "layers": 2}),
    "s4d-batch": ("s4d", {"hidden": 5, "state": [6, 4], "norm": "batch", "dropout": 0.3}),
    "s4d-affine-ahead": (
        "s4d",
        {"hidden": 4, "state": 8, "layers": 3, "norm": "affine", "prenorm": True, "rule": "bilinear",
         "readout": "average"},
    ),
}  # fmt: skip
LEAST_ONLY = {"s4d-layer-norm": ("s4d", {"hidden": 4, "state": 4, "layers": 2})}  # a norm over units listens to all
OUTGOING = ("weight", "ssm.C")  # tensors whose second axis is what is read


@torch.no_grad()
def drawn(family, arguments, seed=0):
    """A model in float64 and eval mode, none of whose numbers is one that initializations like."""
    torch.manual_seed(seed)
    model = build(family, INPUTS, OUTPUTS, dict(arguments)).double().eval()
    model.set_normalization([0.5, -1.0, 2.0], [2.0, 0.5, 1.5])
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + torch.rand_like(buffer))
    model.constrain()
    return model


def some_of(width, count, seed):
    """``count`` units of each lane, rising, as random as the width allows: ``(lanes, count)``."""
    if width.nested:
        return torch.arange(count)[None].repeat(width.lanes, 1)
    generator = torch.Generator().manual_seed(seed)
    lanes = [torch.randperm(width.size, generator=generator)[:count].sort().values for _ in range(width.lanes)]
    return torch.stack(lanes)


def silence(model, kept):
    """Nothing reads any more what is not ``kept``, by name of a width."""
    whole, widths = {name: tensor.clone() for name, tensor in model.whole().items()}, model.widths()
    for name, units in kept.items():
        for place in widths[name].places:
            if place.axis == 1 and place.name.endswith(OUTGOING):
                read = whole[place.name]
                numbered = torch.arange(read.numel()).view_as(read)
                rest = cut(numbered, place, widths[name], units).flatten()
                heard = torch.zeros_like(read).flatten().index_copy(0, rest, read.flatten()[rest])
                whole[place.name] = heard.view_as(read)
    model.take(whole)


def shorten_memories(model, smaller):
    """What is kept of each memory becomes one of its order by itself; what is not, goes on hanging on all of it."""
    for name, module in smaller.named_modules():
        if hasattr(module, "A"):
            large, q = model.get_submodule(name), module.order
            large.A[:q] = 0
            large.A[:q, :q], large.B[:q] = module.A, module.B


def agree(one, other, frames, tolerance=1e-10):
    largest = one(frames)[0].abs().max().clamp(min=1)
    for answers in (other(frames)[0], other.run_steps(frames, None)[0], other.last(frames)[0][:, None]):
        torch.testing.assert_close(
            answers / largest, one(frames)[0][:, -answers.shape[1] :] / largest, rtol=0, atol=tolerance
        )


@pytest.mark.parametrize("case", sorted(CASES))
@settings(max_examples=4, deadline=None, derandomize=True)
@given(data=st.data())
@torch.no_grad()
def test_units_that_nothing_reads_go_without_changing_an_answer(case, data):
    family, arguments = CASES[case]
    model = drawn(family, arguments, data.draw(st.integers(0, 99)))
    widths = model.widths()
    sizes = {name: data.draw(st.integers(each.least, each.size), label=name) for name, each in widths.items()}
    kept = {name: some_of(widths[name], size, seed) for seed, (name, size) in enumerate(sizes.items())}
    silence(model, kept)
    smaller, changed = narrowed(model, family, arguments, kept)
    assert {name: width.size for name, width in smaller.widths().items()} == sizes
    assert set(changed) - set(arguments) <= {"residual", "state", "hidden", "block", "channels", "order"}
    shorten_memories(model, smaller)
    agree(model, smaller, torch.randn(2, FRAMES, INPUTS).double())


@pytest.mark.parametrize("case", sorted(CASES | LEAST_ONLY))
def test_the_least_of_everything_is_a_model_that_keeps_the_contract(case):
    family, arguments = (CASES | LEAST_ONLY)[case]
    model = drawn(family, arguments).float()
    kept = {name: some_of(each, each.least, 0) for name, each in model.widths().items()}
    smaller, changed = narrowed(model, family, arguments, kept)
    check_contract(smaller)
    assert parameter_count(smaller) < parameter_count(model)
    again = build(family, INPUTS, OUTPUTS, changed)
    again.load_state_dict(smaller.state_dict())
    frames = torch.randn(2, FRAMES, INPUTS)
    torch.testing.assert_close(again.eval()(frames)[0], smaller(frames)[0])


@pytest.mark.parametrize("case", sorted(CASES | LEAST_ONLY))
def test_sizes_as_they_are_change_no_argument(case):
    family, arguments = (CASES | LEAST_ONLY)[case]
    model = build(family, INPUTS, OUTPUTS, dict(arguments))
    assert model.resized({name: width.size for name, width in model.widths().items()}) == {}


@pytest.mark.parametrize("prenorm", [False, True])
@torch.no_grad()
def test_a_layer_norm_sees_the_same_mean_and_variance_without_the_second_of_each_pair(prenorm):
    arguments = {"hidden": 8, "state": [4, 6], "prenorm": prenorm}
    model = drawn("s4d", arguments)
    whole, width = model.whole(), model.widths()["hidden"]
    for place in width.places:  # unit i + 4 is as unit i
        runs = whole[place.name].unflatten(place.axis, (place.runs, 2, 4))
        runs.select(place.axis + 1, 1).copy_(runs.select(place.axis + 1, 0))
    model.take(whole)
    kept = {"hidden": torch.arange(4)[None]}
    silence(model, kept)
    smaller, changed = narrowed(model, "s4d", arguments, kept)
    assert changed == {**arguments, "hidden": 4}
    agree(model, smaller, torch.randn(2, FRAMES, INPUTS).double())


@pytest.mark.parametrize(
    ("case", "width", "size", "changed"),
    [
        ("gru", "layers.0.hidden", 5, {"hidden": 5}),
        ("lstm", "layers.1.hidden", 2, {"hidden": [5, 2]}),
        ("sparse-gru", "layers.0.hidden", 3, {"block": 3}),
        ("sparse-lstm", "layers.0.hidden", 2, {"block": 2}),
        ("lmu-cell", "layers.0.order", 3, {"order": 3}),
        ("lmu-cell", "layers.1.channels", 1, {"channels": [3, 1]}),
        ("s4d-batch", "layers.0.modes", 2, {"state": 4}),
        ("s4d-batch", "layers.1.modes", 1, {"state": [6, 2]}),
        ("s4d-batch", "hidden", 2, {"hidden": 2}),
        ("lmu-one-residual-sum", "products", 1, {"products": 1}),
        ("lmu-one-residual-sum", "blocks.0.hidden", 4, {"hidden": [4, 4, 5]}),
        ("lmu-one-residual-sum", "blocks.2.order", 1, {"orders": [4, 3, 1]}),
        ("lmu-one-residual-sum", "blocks.1.channels", 1, {"channels": [3, 1, 2]}),
    ],
)
def test_arguments_that_change_are_one_number_where_the_layers_agree(case, width, size, changed):
    family, arguments = CASES[case]
    model = build(family, INPUTS, OUTPUTS, dict(arguments))
    sizes = {name: each.size for name, each in model.widths().items()}
    assert model.resized({**sizes, width: size}) == changed


def test_a_gru_loses_the_parameters_of_the_units_that_go():
    model = drawn("rnn", {"hidden": 8})
    smaller, _ = narrowed(model, "rnn", {"hidden": 8}, {"layers.0.hidden": torch.tensor([[0, 3, 4]])})
    assert parameter_count(model) == 3 * 8 * (INPUTS + 8 + 2) + OUTPUTS * (8 + 1)
    assert parameter_count(smaller) == 3 * 3 * (INPUTS + 3 + 2) + OUTPUTS * (3 + 1)


def test_a_state_space_layer_loses_four_parameters_a_mode_and_keeps_others_in_each_channel():
    arguments = {"hidden": 2, "state": 6, "layers": 1}
    model = drawn("s4d", arguments)
    smaller, _ = narrowed(model, "s4d", arguments, {"layers.0.modes": torch.tensor([[0, 2], [1, 2]])})
    assert parameter_count(model) - parameter_count(smaller) == 2 * 4
    large, small = model.layers[0].ssm, smaller.layers[0].ssm
    for name in ("log_decay", "frequency", "C"):
        whole, rest = getattr(large, name), getattr(small, name)
        assert torch.equal(rest[0], whole[0, [0, 2]])
        assert torch.equal(rest[1], whole[1, [1, 2]])


# -- residual blocks of an LMU ----------------------------------------------------------------------------------------


def lmu(hidden, **arguments):
    blocks = len(hidden)
    sizes = {"channels": [2] * blocks, "orders": [3] * blocks, "thetas": [9.5] * blocks}
    return {**sizes, "hidden": hidden, **arguments}


def test_a_block_that_comes_to_have_as_many_units_as_inputs_adds_nothing_still():
    arguments = lmu([6, 4])
    smaller, changed = narrowed(drawn("lmu", arguments), "lmu", arguments, {"blocks.0.hidden": torch.arange(4)[None]})
    assert (changed["hidden"], changed["residual"]) == ([4, 4], [False, False])
    assert [block.residual for block in smaller.blocks] == [False, False]
    again, changed = narrowed(smaller, "lmu", changed, {"blocks.1.hidden": torch.arange(2)[None]})
    assert (changed["hidden"], changed["residual"]) == ([4, 2], [False, False])
    assert [block.residual for block in again.blocks] == [False, False]


def test_products_that_come_to_make_the_inputs_as_many_as_the_units_make_no_sum():
    arguments = lmu([4], products=2)
    smaller, changed = narrowed(drawn("lmu", arguments), "lmu", arguments, {"products": torch.tensor([[1]])})
    assert (changed["products"], changed["residual"]) == (1, [False])
    assert not smaller.blocks[0].residual


def test_blocks_that_add_to_one_sum_have_one_width_and_those_that_add_to_the_inputs_none():
    tied = build("lmu", INPUTS, OUTPUTS, lmu([6, 6, 5]))
    assert {name for name in tied.widths() if "hidden" in name} == {"blocks.0.hidden", "blocks.2.hidden"}
    to_inputs = build("lmu", INPUTS, OUTPUTS, lmu([5, 5, 4], products=2))
    assert {name for name in to_inputs.widths() if "order" not in name and "channels" not in name} == {
        "blocks.2.hidden"
    }


@pytest.mark.parametrize(
    ("residual", "said"),
    [([True, False], "6 hidden units cannot add them to its 3 inputs"), ([False], "each of 2"), ([0, 1], "true or")],
)
def test_residuals_that_cannot_be_are_refused(residual, said):
    with pytest.raises(InputError, match=said):
        build("lmu", INPUTS, OUTPUTS, lmu([6, 6], residual=residual))


# -- other changes of a model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["lmu-one-residual-sum", "lmu-cell-memory-link", "s4d-affine-ahead", "s4d-batch"])
@torch.no_grad()
def test_a_model_that_was_folded_and_runs_at_another_rate_still_does_when_it_is_narrowed(case):
    family, arguments = CASES[case]
    model = drawn(family, arguments)
    arguments = {**arguments, **model.fold(), **({} if family == "lmu_cell" else model.retime(2.0))}
    kept = {
        name: some_of(each, max(each.least, each.size - 1), 1)
        for name, each in model.widths().items()
        if not each.nested
    }
    silence(model, kept)
    smaller, _ = narrowed(model, family, arguments, kept)
    agree(model, smaller, torch.randn(2, FRAMES, INPUTS).double())
