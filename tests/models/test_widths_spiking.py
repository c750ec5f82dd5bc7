"""Widths of LMUFormers, L2MUs and models that hear sound: units that nobody reads can go, and no answer changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.check import check_contract
from edgeseq.models.contract import LookAheadModel, parameter_count, set_mask
from edgeseq.models.norms import Affine, BatchNorm
from edgeseq.models.registry import build
from edgeseq.quant.narrow import narrowed

INPUTS, OUTPUTS = 3, 4
FORMER = {"dim": 5, "stages": 3, "blocks": 2, "channels": [2, 3], "order": [4, 3], "theta": 9.5, "ratio": 2}
SPIKING = {**FORMER, "threshold": 0.15, "ratio": 1.5}
L2MU = {"memories": 3, "order": 4, "theta": 5.0, "hidden": 6, "threshold": {"m": 0.1, "h": 0.2, "out": 0.1}}
SOUND = {"rate": 800.0, "window": 40, "hop": 20, "mels": 5}
CASES = {
    "lmuformer": ("lmuformer", FORMER),
    "lmuformer, sizes given": ("lmuformer", {**FORMER, "filters": [4, 6], "hidden": 3, "expand": [7, 4]}),
    "lmuformer, folded and causal": ("lmuformer", {**FORMER, "folded": True, "causal": True, "readout": "average"}),
    "spiking_lmuformer": ("spiking_lmuformer", SPIKING),
    "spiking_lmuformer, one stage": ("spiking_lmuformer", {**SPIKING, "stages": 1, "learn": True, "causal": True}),
    "spiking_lmuformer, sizes given": (
        "spiking_lmuformer",
        {**SPIKING, "filters": [4, 6], "hidden": [3, 4], "expand": 5, "readout": "mean"},
    ),
    "spiking_lmuformer, folded": ("spiking_lmuformer", {**SPIKING, "folded": True}),
    "l2mu": ("l2mu", L2MU),
    "l2mu, compat": ("l2mu", {**L2MU, "convention": "compat", "neuron": "synaptic"}),
    "l2mu, single": ("l2mu", {**L2MU, "encoder": "single", "population": 4}),
    "l2mu, stacked": ("l2mu", {**L2MU, "encoder": "stacked", "population": 3, "encoder_sizes": [7, 5]}),
    "lmuformer behind a front end": ("lmuformer", {**FORMER, "front": SOUND}),
    "l2mu behind a front end": ("l2mu", {**L2MU, "encoder": "single", "population": 3, "front": SOUND}),
}
few = settings(max_examples=12, deadline=None, derandomize=True)
cases = pytest.mark.parametrize("case", CASES)


def make(case):
    """A model in float64 of which nothing is at its start: norms have learned something, and units fire."""
    torch.manual_seed(0)
    family, arguments = CASES[case]
    model = build(family, SOUND["hop"] if "front" in arguments else INPUTS, OUTPUTS, arguments).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            for tensor in module.parameters():
                torch.nn.init.normal_(tensor, 0, 0.7)
        if isinstance(module, BatchNorm):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, 0, 0.5)
        if isinstance(module, Affine):
            torch.nn.init.uniform_(module.scale, 0.5, 2)
            torch.nn.init.normal_(module.shift, 0, 0.5)
    return model


def ran(model, frames=25):
    """Answers ``(B, T, K)`` to random frames, and the states after them."""
    x = torch.randn(2, frames, model.input_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model(x)


def draw_kept(draw, model, names):
    """Some of the units of some of a model's widths; of a nested width the first."""
    kept = {}
    for name in names:
        width = model.widths()[name]
        count = draw(st.integers(width.least, width.size))
        units = range(width.size)
        choose = st.just(list(units)) if width.nested else st.permutations(units)
        kept[name] = torch.tensor([sorted(draw(choose)[:count]) for _ in range(width.lanes)])
    return kept


@torch.no_grad()
def nobody_reads(model, kept):
    """Set to 0 what reads the units that are not ``kept``."""
    tensors = dict(model.state_dict())
    for name, units in kept.items():
        width = model.widths()[name]
        gone = torch.ones(width.lanes, width.size, dtype=torch.bool).scatter(1, units, False)
        for place in width.places:
            if place.axis == 1 and place.lane_axis is None:
                columns = gone.repeat(place.runs, 1).flatten().repeat_interleave(place.each).nonzero().flatten()
                tensors[place.name][:, place.start + columns] = 0


@torch.no_grad()
def part(model, kept, smaller):
    """Stop the orders that go: those that stay turn without them, as in the ``smaller`` model's memory."""
    for constant in {constant for name in kept for constant in model.widths()[name].constants}:
        made = smaller.get_buffer(constant)
        model.get_buffer(constant).zero_()[tuple(slice(size) for size in made.shape)] = made


@cases
@few
@given(data=st.data())
def test_units_that_nobody_reads_can_go_and_no_answer_changes(case, data):
    family, arguments = CASES[case]
    model = make(case)
    names = data.draw(st.lists(st.sampled_from(sorted(model.widths())), min_size=1, max_size=4, unique=True))
    kept = draw_kept(data.draw, model, names)
    nobody_reads(model, kept)
    after, changed = narrowed(model, family, arguments, kept)
    part(model, kept, after)

    assert {name: after.widths()[name].size for name in kept} == {name: len(units[0]) for name, units in kept.items()}
    (expected, states), (found, states_after) = ran(model), ran(after)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for name in [name for name, state in states.items() if state.shape == states_after[name].shape]:
        torch.testing.assert_close(states_after[name], states[name], rtol=1e-10, atol=1e-10)
    rebuilt = build(family, model.input_size, OUTPUTS, changed)
    assert parameter_count(rebuilt) == parameter_count(after)


@cases
def test_each_width_by_itself_can_go_to_its_least_and_less_is_left(case):
    family, arguments = CASES[case]
    model = make(case)
    for name, width in model.widths().items():
        kept = {name: torch.arange(width.least).expand(width.lanes, width.least)}
        after, changed = narrowed(model, family, arguments, kept)
        there = {place.name for place in width.places}
        gone = sum(p.numel() for n, p in model.named_parameters() if n in there)
        left = sum(p.numel() for n, p in after.named_parameters() if n in there)
        assert parameter_count(model) - parameter_count(after) == gone - left > 0
        check_contract(build(family, model.input_size, OUTPUTS, changed).eval())


@cases
def test_a_model_that_answers_still_runs_with_the_least_of_everything(case):
    family, arguments = CASES[case]
    model = make(case)
    kept = {n: torch.arange(width.least).expand(width.lanes, width.least) for n, width in model.widths().items()}
    after, changed = narrowed(model, family, arguments, kept)
    assert all(width.size == width.least for width in after.widths().values())
    check_contract(build(family, model.input_size, OUTPUTS, changed).eval())
    assert ran(model)[0].std() > 0
    assert ran(after)[0].isfinite().all()
    if isinstance(model, LookAheadModel):
        assert after.look_ahead == model.look_ahead


@cases
def test_arguments_say_only_what_changed_and_one_number_where_all_agree(case):
    family, arguments = CASES[case]
    model = make(case)
    sizes = {name: width.size for name, width in model.widths().items()}
    assert model.resized(sizes) == {}
    for name, width in model.widths().items():
        changed = model.resized({**sizes, name: width.size - 1})
        made = build(family, model.input_size, OUTPUTS, {**arguments, **changed})
        assert {each: w.size for each, w in made.widths().items()} == {**sizes, name: width.size - 1}
    own = {name: size for name, size in sizes.items() if name.endswith(".order")}
    if own:
        assert model.resized({**sizes, **dict.fromkeys(own, 2)}) == {"order": 2}


def test_units_of_each_channels_population_go_one_by_one():
    model = make("l2mu, single")
    units = torch.tensor([[0, 2], [1, 3], [2, 3]])
    after, changed = narrowed(model, *CASES["l2mu, single"], {"encoder.population": units})
    assert changed["population"] == 2
    for channel, (first, second) in enumerate(units.tolist()):
        assert torch.equal(after.encoder.weight[channel], model.encoder.weight[channel, [first, second]])
        columns = [4 * channel + first, 4 * channel + second]
        found = after.from_input.weight[:, 2 * channel : 2 * channel + 2]
        assert torch.equal(found, model.from_input.weight[:, columns])


def test_what_was_pruned_in_a_model_behind_a_front_end_stays_so():
    family, arguments = CASES["lmuformer behind a front end"]
    model = make("lmuformer behind a front end")
    layer = model.get_submodule("model.blocks.0.feedforward.expand")
    set_mask(layer, torch.arange(layer.weight.numel()).reshape(layer.weight.shape) % 2 == 0)
    after, _ = narrowed(model, family, arguments, {"model.blocks.0.expand": torch.arange(6)[None]})
    assert list(after.masks()) == ["model.blocks.0.feedforward.expand"]
    assert np.count_nonzero(after.masks()["model.blocks.0.feedforward.expand"]) == 15


@pytest.mark.parametrize("family", ["lmuformer", "spiking_lmuformer"])
def test_a_folded_model_is_narrowed_as_it_was_before(family):
    model = make(family)
    widths = model.widths()
    kept = {name: torch.arange(1, width.size)[None] for name, width in widths.items() if not width.nested}
    before, arguments = narrowed(model, family, CASES[family][1], kept)
    arguments_folded = {**CASES[family][1], **model.fold()}
    after, changed = narrowed(model, family, arguments_folded, kept)
    assert changed == {**arguments, "folded": True}
    torch.testing.assert_close(ran(after)[0], ran(before)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["lmuformer", "spiking_lmuformer"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"channels": [2, 2, 2]}, r"channels \[2, 2, 2\] has 3 entries: give one number, or 2"),
        ({"filters": [5]}, r"filters \[5\] has 1 entries: give one number, or 2"),
        ({"order": [4, 0]}, "order .* at least 1"),
        ({"hidden": 0}, "hidden 0 must be at least 1"),
        ({"expand": -1}, "expand -1 must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_the_layers_are_refused(family, wrong, said):
    with pytest.raises(InputError, match=said):
        build(family, INPUTS, OUTPUTS, {**CASES[family][1], **wrong})
