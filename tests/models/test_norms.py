"""Batch norms and what they are folded into: the same answers."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from edgeseq.models.norms import Affine, BatchNorm, fold_behind, folded_norm, norm, norm_behind, normed
from edgeseq.models.registry import build


def frames(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def trained_norm(channels=4):
    """One that has seen data, with a gain and a shift."""
    made = BatchNorm(channels).double()
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1, 2, channels))
        made.bias.copy_(torch.linspace(1, -1, channels))
    for seed in range(30):
        made(frames(8, 20, channels, seed=seed) * torch.arange(1.0, channels + 1))
    return made.eval()


@pytest.mark.parametrize("shape", [(8, 4), (3, 7, 4)], ids=["frame", "frames"])
def test_a_batch_norm_is_torchs_over_batch_and_time(shape):
    ours, theirs = BatchNorm(4).double(), nn.BatchNorm1d(4).double()
    for seed in range(3):
        x = frames(*shape, seed=seed)
        flat = theirs(x.reshape(-1, 4)).reshape(shape)
        torch.testing.assert_close(ours(x), flat)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x.reshape(-1, 4)).reshape(shape))


def lives(batch, count, share=0.6, seed=0):
    """Which frames are there ``(B, T, 1)``: any of them."""
    return (torch.rand(batch, count, 1, generator=torch.Generator().manual_seed(seed)) < share).double()


@given(batch=st.integers(1, 5), count=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_statistics_are_those_of_torch_on_the_frames_that_are_there(batch, count, share, seed):
    ours, theirs = BatchNorm(4).double(), nn.BatchNorm1d(4).double()
    x, up, live = frames(batch, count, 4, seed=seed), frames(batch, count, 4, seed=seed + 1), lives(batch, count, share)
    there = live[..., 0] > 0
    assume(there.sum() > 1)
    x.requires_grad_()
    y = ours(x, live)
    expected = theirs(x[there])
    torch.testing.assert_close(y[there], expected)
    assert not y[~there].any()
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    found = torch.autograd.grad(y, [x, *ours.parameters()], up)
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], up[there])
    for ours_is, theirs_is in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours_is, theirs_is)
    assert not found[0][~there].any()


def test_the_gradient_of_a_norm_of_some_frames_is_that_of_its_answers():
    made, live, x = BatchNorm(3).double(), lives(2, 5), frames(2, 5, 3).requires_grad_()
    assert 0 < live.sum() < live.numel()

    def answer(x, weight, bias):
        statistics = {name: buffer.clone() for name, buffer in made.named_buffers()}  # written to at each call
        return torch.func.functional_call(made, {"weight": weight, "bias": bias, **statistics}, (x, live))

    assert torch.autograd.gradcheck(answer, (x, *made.parameters()))


def test_where_all_frames_are_there_not_a_bit_is_other_than_without_being_told():
    for shape in ((6, 4), (3, 7, 4)):
        x, plain, told = frames(*shape), BatchNorm(4).double(), BatchNorm(4).double()
        assert torch.equal(told(x, torch.ones(*shape[:-1], 1)), plain(x))
        assert torch.equal(told.running_var, plain.running_var)
        for made in (plain, told):
            made.eval()
        assert torch.equal(told(x, torch.zeros(*shape[:-1], 1)), plain(x))  # in use it is the same map of each frame


@pytest.mark.parametrize("there", [0, 1])
def test_fewer_than_two_frames_are_normed_as_in_use_and_teach_nothing(there):
    made = trained_norm().train()
    before = copy.deepcopy(made.state_dict())
    x, live = frames(2, 3, 4).requires_grad_(), torch.zeros(2, 3, 1)
    live[0, :there] = 1
    y = made(x, live)
    scale, shift = made.affine()
    torch.testing.assert_close(y, (x * scale + shift) * live)
    y.sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    one = x.detach()[:1, :1]
    torch.testing.assert_close(made(one), one * scale + shift)


def test_only_a_batch_norm_asks_which_frames_are_there():
    x, live = frames(2, 5, 4), lives(2, 5)
    for made in (nn.LayerNorm(4).double(), Affine(4).double(), nn.Identity()):
        torch.testing.assert_close(normed(made, x, live), made(x))
    torch.testing.assert_close(normed(BatchNorm(4).double(), x, live), BatchNorm(4).double()(x, live))


LOOKING = {"dim": 4, "stages": 2, "order": 3, "theta": 6.0, "blocks": 2}
DELAYS = {  # calls that a norm's frames wait, by the beginning of its name; of all others three
    "lmuformer": {"tokenizer.stages.0": 1, "tokenizer.stages.1": 2},
    "spiking_lmuformer": {"tokenizer.0": 1, "tokenizer.1": 2},
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("family", DELAYS)
def test_statistics_are_of_the_frames_that_have_come_to_a_norm_by_then(family, causal, monkeypatch):
    """Of two recordings of 5 and 9 frames, and 3 calls behind them: which frames each norm is told are there."""
    torch.manual_seed(0)
    model = build(family, 3, 4, {**LOOKING, "causal": causal}).double().train()
    names = {id(module): name for name, module in model.named_modules() if isinstance(module, BatchNorm)}
    told, lengths, calls = {}, torch.tensor([5, 9]), 12

    def counted(self, x):
        told[names[id(self)]] = told.get(names[id(self)], 0) + len(x.flatten(0, -2))
        return plain(self, x)

    plain = BatchNorm._normed
    monkeypatch.setattr(BatchNorm, "_normed", counted)
    live = (torch.arange(calls)[None] < lengths[:, None]).double()[..., None]
    delays = {
        name: next((d for part, d in DELAYS[family].items() if name.startswith(part)), 3) for name in names.values()
    }
    state = model.initial_state(2)
    for call in range(calls):  # one call each, in which so many frames are there
        told.clear()
        _, state = model(frames(2, 1, 3, seed=call), state, live[:, call : call + 1])
        for name, delay in delays.items():
            frame = call - (0 if causal else delay)
            assert told.get(name, 0) == int(((frame >= 0) & (frame < lengths)).sum()), (name, call)
    assert model.look_ahead == (0 if causal else 3)


def test_a_folded_norm_is_the_affine_map_that_it_was_in_eval_mode():
    made, x = trained_norm(), frames(3, 7, 4)
    folded = folded_norm(made)
    assert isinstance(folded, Affine)
    assert folded.scale.dtype == torch.float64
    torch.testing.assert_close(folded(x), made(x))
    assert folded_norm(folded) is folded


def test_a_norm_behind_a_linear_map_becomes_part_of_it():
    torch.manual_seed(0)
    linear, made, x = nn.Linear(5, 4).double(), trained_norm(), frames(3, 7, 5)
    expected = made(linear(x))
    left = fold_behind(linear, made)
    torch.testing.assert_close(left(linear(x)), expected)
    before = copy.deepcopy(linear.state_dict())
    fold_behind(linear, left)  # nothing is left to fold
    assert all(torch.equal(tensor, before[name]) for name, tensor in linear.state_dict().items())


def test_a_small_variance_is_kept_apart_from_zero():
    made = trained_norm()
    made.running_var.zero_()
    torch.testing.assert_close(folded_norm(made)(frames(3, 4)), made(frames(3, 4)))


def test_a_model_that_is_built_folded_has_no_batch_norm():
    assert isinstance(norm(4, folded=False), BatchNorm)
    assert isinstance(norm(4, folded=True), Affine)
    assert isinstance(norm_behind(4, folded=False), BatchNorm)
    assert not list(norm_behind(4, folded=True).parameters())


@pytest.mark.parametrize("prenorm", [True, False])
def test_an_s4d_with_batch_norms_folds_to_affine_maps_and_answers_the_same(prenorm):
    torch.manual_seed(0)
    arguments = {"hidden": 4, "layers": 2, "state": 4, "norm": "batch", "prenorm": prenorm}
    model = build("s4d", 3, 4, arguments).double()
    for seed in range(5):
        model(frames(2, 30, 3, seed=seed))
    model.eval()
    x = frames(2, 40, 3, seed=9)
    with torch.no_grad():
        expected, state = model(x)
        changed = model.fold()
        assert changed == {"norm": "affine"}
        assert not any(isinstance(module, BatchNorm) for module in model.modules())
        made = build("s4d", 3, 4, {**arguments, **changed}).double().eval()
        made.load_state_dict(model.state_dict())
        for folded in (model, made):
            y, after = folded(x)
            torch.testing.assert_close(y, expected)
            assert all(torch.equal(after[name].round(decimals=9), state[name].round(decimals=9)) for name in state)
    assert model.fold() == made.fold() == {}


@pytest.mark.parametrize("kind", ["layer", "affine"])
def test_an_s4d_without_batch_norms_has_nothing_to_fold(kind):
    model = build("s4d", 3, 4, {"hidden": 4, "layers": 1, "state": 4, "norm": kind})
    before = copy.deepcopy(model.state_dict())
    assert model.fold() == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
