"""Which weights of the linear maps become 0: exact counts, the least important first, whole blocks, gradually."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.contract import set_mask, weight_of
from edgeseq.models.registry import build
from edgeseq.quant.sparsity import RAMP, Gradual, Sparsity, cubic, open_masks, present, zero_shares
from edgeseq.training.settings import Settings

shares = st.floats(0, 0.94)  # each map keeps a weight


def make(family="rnn", seed=0, **arguments):
    torch.manual_seed(seed)
    return build(family, 3, 4, {"hidden": 5, "layers": 2} if family == "rnn" else arguments)


def maps(model):
    return {name: weight_of(model.get_submodule(name)).detach() for name in model.projections()}


def gone(model):
    return {name: ~mask for name, mask in present(model).items()}


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


@given(shares, st.integers(0, 2**16))
def test_of_all_weights_the_share_that_is_smallest_goes(share, seed):
    model = make(seed=seed)
    before = {name: weight.clone() for name, weight in maps(model).items()}
    total = sum(weight.numel() for weight in before.values())
    Sparsity(share, present(model)).apply(model)
    lost = gone(model)
    assert count(lost) == round(share * total)
    largest = max((float(before[name][mask].abs().max()) for name, mask in lost.items() if mask.any()), default=0.0)
    for name, mask in lost.items():  # a map's last weight stays, however small
        kept = before[name][~mask].abs().sort().values
        assert largest <= float(kept[0]) or len(kept) == 1
    for name, weight in maps(model).items():
        assert torch.equal(weight, torch.where(lost[name], 0.0, before[name]))


@given(shares)
def test_by_layer_each_map_loses_its_share(share):
    model = make()
    Sparsity(share, present(model), scope="layer").apply(model)
    for name, mask in gone(model).items():
        assert int(mask.sum()) == round(share * mask.numel()), name


@given(shares, st.integers(1, 7), st.integers(1, 7))
def test_blocks_go_as_a_whole_and_half_a_block_is_all_that_the_share_is_off(share, rows, columns):
    model = make()
    total = sum(weight.numel() for weight in maps(model).values())
    goal = round(share * total)
    blocks = sum(rows * columns for _ in maps(model))
    assume(not (rows >= 4 and columns >= 5) and goal <= total - blocks)
    Sparsity(share, present(model), block=(rows, columns)).apply(model)
    lost = gone(model)
    assert abs(count(lost) - goal) <= rows * columns / 2
    for mask in lost.values():
        assert not mask.all()
        for some in mask.split(rows, 0):
            assert all(bool(block.all()) or not bool(block.any()) for block in some.split(columns, 1))


def test_a_block_at_the_edge_is_compared_by_the_mean_of_its_weights():
    model = make()
    layer = model.get_submodule("readout")  # (4, 5)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[:, 4:] = 1.5  # two squares of the narrow blocks sum to 9, of the wide ones to 8
    Sparsity(0.3, {"readout": present(model)["readout"]}, block=(2, 2)).apply(model)
    assert count({"readout": gone(model)["readout"][:, :4]}) == 8
    assert not gone(model)["readout"][:, 4:].any()


def test_the_weight_that_matters_most_stays_in_a_map_of_small_ones():
    model = make()
    layer = model.get_submodule("readout")
    with torch.no_grad():
        layer.weight.mul_(1e-6)
        layer.weight[2, 3] = 1e-5
    Sparsity(0.5, present(model)).apply(model)
    assert (~gone(model)["readout"]).nonzero().tolist() == [[2, 3]]
    assert count(gone(model)) == round(0.5 * 290)


@pytest.mark.parametrize(
    ("share", "options", "message"),
    [
        (0.5, {"block": (4, 5)}, r"block 4x5 holds all of readout \(4x5\): name a smaller one"),
        (0.99, {}, r"weights 0.99: a linear map keeps one weight, .* of the 290 weights of all linear maps 285 can go"),
        (0.98, {"scope": "layer"}, r"20 weights of readout 19 can go: ask for 0.95 or less"),
        (0.9, {"block": (5, 3)}, r"a linear map keeps one block of 5x3"),
    ],
)
def test_what_would_leave_a_map_without_weights_is_refused_ahead_of_training(share, options, message):
    with pytest.raises(InputError, match=message):
        Sparsity(share, present(make()), **options)


def test_only_the_maps_that_are_named_lose_weights():
    model = make()
    Sparsity(0.5, present(model, ["layers.1.from_hidden"])).apply(model)
    assert {name for name, mask in gone(model).items() if mask.any()} == {"layers.1.from_hidden"}
    assert count(gone(model)) == round(0.5 * 15 * 5)


def test_weights_that_a_family_never_had_are_not_counted():
    model = build("sparse_rnn", 3, 4, {"graph": "barabasi_albert", "nodes": 9, "block": 1})
    there = present(model)
    had = count(there)
    assert had < sum(mask.numel() for mask in there.values())
    Sparsity(0.5, there).apply(model)
    assert count(present(model)) == had - round(0.5 * had)


def test_a_weight_that_the_loss_hangs_on_outlives_a_larger_one():
    model = make()
    squared = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
    weight = weight_of(model.get_submodule("readout"))
    with torch.no_grad():
        weight[0, 0], weight[1, 1] = 1e-3, 10.0
    squared["readout.weight"][0, 0], squared["readout.weight"][1, 1] = 1e9, 0.0
    Sparsity(0.5, present(model), squared=squared).apply(model)
    assert (bool(gone(model)["readout"][0, 0]), bool(gone(model)["readout"][1, 1])) == (False, True)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5).map(sorted), st.sampled_from([(1, 1), (2, 3)]), st.booleans())
def test_what_is_gone_never_comes_back_and_the_count_stays_exact(steps, block, dead):
    model = make()
    if dead:  # weights that matter as little as those that are gone
        with torch.no_grad():
            weight_of(model.get_submodule("readout"))[:2] = 0
    sparsity = Sparsity(0.8, present(model), block=block)
    total, before = sum(weight.numel() for weight in maps(model).values()), gone(model)
    generator = torch.Generator().manual_seed(1)
    for done in steps:
        sparsity.apply(model, done)
        now = gone(model)
        assert not any(bool((before[name] & ~now[name]).any()) for name in now)
        assert abs(count(now) - round(0.8 * done * total)) <= (block[0] * block[1]) // 2
        with torch.no_grad():  # training goes on
            for weight in maps(model).values():
                weight.add_(torch.randn(weight.shape, generator=generator))
        model.constrain()
        before = now


def test_the_share_is_that_of_zhu_and_gupta():
    assert [cubic(t) for t in (0.0, 0.5, 1.0, 3.0)] == [0.0, 0.875, 1.0, 1.0]


@given(st.integers(1, 3), st.integers(1, 80), st.floats(0.05, 0.95))
def test_gradually_the_whole_share_is_gone_when_half_of_training_is_done(rounds, steps, share):
    model = make()
    sparsity = Sparsity(share, present(model))
    open_masks(model)
    schedule, counts = Gradual(sparsity, Settings(rounds=rounds, steps=steps)), []
    for done in range(rounds * steps):
        schedule(model, done / (rounds * steps))
        counts.append(count(gone(model)))
    total = sum(weight.numel() for weight in maps(model).values())
    assert counts == sorted(counts)
    half = max(1, round(RAMP * rounds * steps))
    assert set(counts[half - 1 :]) == {round(share * total)}
    if half > 60:
        assert counts[0] == 0
        assert len(set(counts[:half])) > 10


def test_a_resumed_run_takes_up_the_zeros_of_the_one_before():
    settings = Settings(rounds=2, steps=4)
    model, fresh = make(), make()
    schedule = Gradual(Sparsity(0.5, present(model)), settings)
    sparsity = Sparsity(0.5, present(fresh))
    for each in (model, fresh):
        open_masks(each)
    for done in range(4):
        schedule(model, done / 8)
    fresh.load_state_dict(model.state_dict())
    assert not any(bool(mask.any()) for mask in gone(fresh).values())
    Gradual(sparsity, settings)(fresh, 4 / 8)
    assert all(torch.equal(mask, gone(fresh)[name]) for name, mask in gone(model).items())


def test_zeros_are_told_by_map_and_in_all():
    model = make()
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0] = False
    set_mask(model.get_submodule("readout"), mask)
    found = zero_shares(model, ("readout", "layers.0.from_input"))
    assert found == {"": pytest.approx(5 / 65), "readout": 0.25, "layers.0.from_input": 0.0}
