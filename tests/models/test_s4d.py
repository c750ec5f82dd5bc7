"""S4D models: the authors' block, norms, read-outs, other frame rates, and what compression makes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgeseq.data import Recording
from edgeseq.errors import InputError
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.manifest import Precision
from edgeseq.models.contract import parameter_count
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.quantized import QuantizedLinear, StateGrid, quantized_linears, state_grids, with_precision
from edgeseq.models.readout import ExponentialSum
from edgeseq.models.registry import build, presets
from edgeseq.models.s4d import S4dBlock, TiedDropout
from edgeseq.quant.calibrate import calibrate, quantize_model
from edgeseq.training.loop import DYNAMICS_RATE, _optimizer
from edgeseq.training.settings import Settings

SMALL = {"hidden": 6, "layers": 2, "state": 6}


def make(**arguments):
    torch.manual_seed(0)
    return build("s4d", 3, 4, {**SMALL, **arguments}).double().eval()


def frames(count, batch=2):
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# -- the authors' block ---------------------------------------------------------------------------------------------


def test_the_minimal_block_is_the_authors(reference):
    """Their one-file layer; its imaginary parts have our sign, and neither a norm nor a residual is there."""
    vectors = {n: torch.from_numpy(a).double() for n, a in reference("s4d.npz").items() if a.dtype == np.float32}
    weights = {name.removeprefix("block/w/"): array for name, array in vectors.items() if name.startswith("block/w/")}
    channels, modes = weights["kernel.A_imag"].shape
    block = S4dBlock(channels, "layer", True, 0.0, DiagonalSsm(channels, 2 * modes)).double()
    block.norm = nn.Identity()
    ours = {
        "kernel.log_dt": block.ssm.log_dt,
        "kernel.log_A_real": block.ssm.log_decay,
        "kernel.A_imag": block.ssm.frequency,
        "kernel.C": block.ssm.C,
        "D": block.ssm.D,
        "output_linear.0.weight": block.mixer.weight,
        "output_linear.0.bias": block.mixer.bias,
    }
    assert ours.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(weights[name].reshape(parameter.shape))
    u = vectors["u"].mT  # (B, T, H)
    v, _ = block.ssm(u, block.ssm.initial_state(len(u)))
    y = block(u, block.ssm.initial_state(len(u)))[0] - u
    for found, name in ((v, "y_ssm"), (nn.functional.gelu(v), "gelu"), (y, "y")):
        assert (found.mT - vectors[f"block/{name}"]).abs().max() <= 1e-5 * vectors[f"block/{name}"].abs().max()
    (y * vectors["block/grad/upstream_y"].mT).sum().backward()
    for name, parameter in ours.items():
        expected = vectors[f"block/grad/{name}"].reshape(parameter.shape)
        assert (parameter.grad - expected).abs().max() <= 3e-5 * expected.abs().max(), name


def test_sizes_of_the_presets():
    for name, expected in (("s4d", 20_000), ("s4d-published", 200_000)):
        count = parameter_count(build("s4d", 6, 7, presets()[name].arguments))
        assert abs(count - expected) < 0.02 * expected


# -- norms, dropout, read-outs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prenorm", [False, True])
def test_batch_norm_learns_from_batch_and_time_and_is_an_affine_map_afterwards(prenorm):
    model = make(norm="batch", prenorm=prenorm, layers=1)
    norm = model.layers[0].norm
    seen = []
    norm.register_forward_hook(lambda module, given, answer: seen.append((given[0].detach(), answer.detach())))
    model.train()(frames(50))
    given, answer = seen.pop()
    mean, var = given.mean((0, 1)), given.var((0, 1), unbiased=False)
    torch.testing.assert_close(answer, (given - mean) / torch.sqrt(var + 1e-5))
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    model.eval()
    frozen = copy.deepcopy(norm.state_dict())
    model(frames(50))
    given, answer = seen.pop()
    expected = (given - norm.running_mean) / torch.sqrt(norm.running_var + 1e-5)
    torch.testing.assert_close(answer, expected)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in norm.state_dict().items())


def test_dropout_takes_the_same_channels_at_every_frame_and_none_when_not_training():
    torch.manual_seed(0)
    layer, x = TiedDropout(0.5), torch.randn(4, 9, 20)
    kept = layer(x) / x
    assert set(kept.round(decimals=4).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.round(), kept.round()[:, :1].expand_as(kept))
    assert not torch.equal(kept[0, 0].round(), kept[1, 0].round())
    assert torch.equal(layer.eval()(x), x)


def with_readout(plain, readout):
    """The same weights with another read-out."""
    model = make(readout=readout, timescale=7.0)
    model.load_state_dict(plain.state_dict())
    return model


def test_the_mean_is_that_of_all_frames_so_far():
    plain, x = make(), frames(40)
    z, _ = plain(x)
    expected = z.cumsum(1) / torch.arange(1, 41)[:, None]
    model = with_readout(plain, "mean")
    y, state = model(x)
    torch.testing.assert_close(y, expected)
    assert torch.equal(state["readout.count"], torch.full((2, 1), 40.0, dtype=torch.float64))
    assert (plain.tasks, model.tasks) == (("frame", "segment"), ("segment",))


def test_the_average_forgets_by_its_timescale():
    plain, x = make(), frames(300)
    z, _ = plain(x)
    left = torch.exp(-(299 - torch.arange(300.0)).double() / 7.0)
    y, state = with_readout(plain, "average")(x)
    expected = (1 - np.exp(-1 / 7)) * (z * left[:, None]).sum(1)
    torch.testing.assert_close(y[:, -1], expected)
    assert torch.equal(state["readout.average"], y[:, -1])


@pytest.mark.parametrize("readout", ["last", "average", "mean"])
@pytest.mark.parametrize("count", [1, 45])
def test_the_last_answer_alone_is_the_last_of_all(readout, count):
    model, x = make(readout=readout, prenorm=readout == "last"), frames(count)
    _, start = model(frames(20) + 1)
    y, state = model(x, start)
    last, after = model.last(x, start)
    torch.testing.assert_close(last, y[:, -1])
    assert after.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(after[name], tensor)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"readout": "first"}, "unknown read-out 'first'"),
        ({"norm": "group"}, "unknown norm 'group'"),
        ({"readout": "average", "timescale": 0.0}, "timescale 0.0 must be positive"),
        ({"layers": 0}, "layers 0"),
        ({"state": 7}, "state size 7 must be even"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        make(**arguments)


# -- time -----------------------------------------------------------------------------------------------------------


def test_time_constants_are_trained_slowly_and_without_decay():
    model = make()
    assert set(model.dynamics()) == {
        f"layers.{i}.ssm.{name}" for i in range(2) for name in ("log_dt", "log_decay", "frequency")
    }
    parameters = dict(model.named_parameters())
    slow = {id(parameters[name]) for name in model.dynamics()}
    optimizer = _optimizer(model, Settings(learning_rate=0.02, weight_decay=0.1))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["peak"] == DYNAMICS_RATE) == (id(parameter) in slow)
            assert not (id(parameter) in slow and group["weight_decay"])


def test_frames_twice_as_far_apart_give_nearly_the_same_answers():
    """Sines of 60 frames and longer: within 3 % where the model was retimed, and far off where it was not."""
    model = make(readout="average", timescale=40.0, dt_min=0.01, dt_max=0.05)
    t = torch.arange(800, dtype=torch.float64)
    x = torch.stack([torch.sin(2 * np.pi * t / period) for period in (60.0, 140.0, 333.0)], -1)[None]
    coarse = copy.deepcopy(model)
    coarse.retime(2.0)
    with torch.no_grad():
        expected = model(x)[0][:, 1::2]
        retimed, unchanged = coarse(x[:, ::2])[0], model(x[:, ::2])[0]
    settled, size = slice(100, None), expected.abs().max()
    assert (retimed - expected)[:, settled].abs().max() < 0.03 * size
    assert (unchanged - expected)[:, settled].abs().max() > 0.2 * size


@pytest.mark.parametrize("readout", ["last", "average"])
def test_a_retimed_model_is_built_anew_from_its_arguments_and_weights(readout):
    model = make(readout=readout)
    changed = {**model.retime(2.5), **model.retime(2.0)}
    assert changed == {"rate": 5.0} | ({"timescale": 5.0} if readout == "average" else {})
    again = make(readout=readout, **changed)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(frames(30))[0], model(frames(30))[0])
    with pytest.raises(InputError, match="a positive number is needed"):
        model.retime(0.0)


# -- the step program and compression -------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_step_program_holds_cheap_operators_alone(norm):
    program = capture(lower(make(norm=norm, prenorm=True, readout="mean").float()))
    cheap = {"add", "sub", "mul", "div", "sum", "slice", "concat", "reshape", "linear", "gelu", "sigmoid"}
    assert {node.operator for node in program.nodes} - cheap == ({"layer_norm"} if norm == "layer" else set())
    assert len(program.nodes) < 70
    assert {state.name: state.before.shape for state in program.states} == {
        "layers.0.state": (1, 2, 3, 6),
        "layers.1.state": (1, 2, 3, 6),
        "readout.mean": (1, 4),
        "readout.count": (1, 1),
    }


def recordings():
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(120, 3)), 0) * 0.3 for _ in range(3)]
    return [Recording(x.astype(np.float32), np.zeros(len(x), np.int16), "a", str(i)) for i, x in enumerate(walks)]


@pytest.fixture(params=["float32", "int16", "int8"])
def compressed(request):
    model = make(readout="average", norm="batch").float()
    ranges = calibrate(model, recordings())
    return model, quantize_model(copy.deepcopy(model), Precision("int8", "int8", request.param), ranges).eval()


def test_linear_maps_become_int8_and_states_get_a_scale_for_each_mode(compressed):
    _, model = compressed
    assert set(quantized_linears(model)) == {"encoder", "layers.0.mixer", "layers.1.mixer", "readout"}
    for layer in model.layers:
        assert isinstance(layer.mixer, QuantizedLinear)
        assert layer.ssm.D.dtype == torch.float32
        if isinstance(layer.ssm.store, StateGrid):
            assert layer.ssm.store.scale.shape == (2, 3, 6)
            assert len(layer.ssm.store.scale.unique()) > 30
    assert isinstance(model.pooling.exponential, ExponentialSum)


def test_a_compressed_model_answers_as_the_float_one_does_and_keeps_the_contract(compressed):
    plain, model = compressed
    x = torch.from_numpy(np.stack([recording.x for recording in recordings()]))
    with torch.no_grad():
        expected, (y, after), (steps, steps_after) = plain(x)[0], model(x), model.run_steps(x)
    assert (y - expected).abs().max() < 0.1 * expected.abs().max()
    step = float(model.readout.output.scale)
    assert (y - steps).abs().max() <= 2 * step
    assert (y - steps).abs().mean() < 0.01 * step
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, steps_after[name], rtol=1e-2, atol=1e-2 * float(tensor.abs().max()))


def test_a_compressed_model_trains_and_is_captured_in_integers(compressed):
    _, model = compressed
    x, labels = torch.from_numpy(np.stack([recording.x for recording in recordings()])), torch.arange(3) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(6):
        y, _ = model.train()(x)
        loss = nn.functional.cross_entropy(y[:, 60:].flatten(0, 1), labels.repeat_interleave(60))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())
    program = capture(lower(model.eval()))
    assert sum(node.operator == "qlinear" for node in program.nodes) == 4


def test_a_count_of_frames_is_not_rounded_and_nor_is_the_mean_over_them():
    model = with_precision(make(readout="mean").float(), Precision("int8", "int8", "int8")).eval()
    assert set(state_grids(model)) == {"layers.0.ssm.store", "layers.1.ssm.store"}
    state = model.initial_state(2)
    for _ in range(300):  # more than an int8 can count
        _, state = model.step(torch.ones(2, 3), state)
    assert (state["readout.count"] == 300).all()


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("prenorm", [False, True])
def test_a_model_is_its_parts_in_the_documented_order(norm, prenorm):
    model, x = make(norm=norm, prenorm=prenorm), frames(1)[:, 0]
    state = model.initial_state(2)
    with torch.no_grad():
        for module in (*model.layers, model):
            if hasattr(module.norm, "running_mean"):
                module.norm.running_mean.normal_()
                module.norm.weight.normal_()
        h = model.encoder(model.normalize(x))
        for i, layer in enumerate(model.layers):
            read = layer.norm(h) if prenorm else h
            v, _ = layer.ssm.step(read, state[f"layers.{i}.state"])
            a, g = layer.mixer(nn.functional.gelu(v)).chunk(2, -1)
            h = h + a * torch.sigmoid(g)
            h = h if prenorm else layer.norm(h)
        y = model.readout(model.norm(h) if prenorm else h)
        torch.testing.assert_close(model.step(x, state)[0], y)
    assert isinstance(model.norm, nn.Identity) != prenorm


def test_dropout_takes_channels_ahead_of_the_mixer_and_behind_it():
    model = make(dropout=0.5).train()
    seen = []
    model.layers[0].mixer.register_forward_hook(lambda module, given, answer: seen.append(given[0]))
    model(frames(20))
    gone = (seen[0] == 0).all(1)  # (B, H): for the whole sequence
    assert gone.any()
    assert torch.equal((seen[0] == 0).any(1), gone)


def test_in_training_the_last_answer_knows_the_batch_statistics_of_all_frames():
    one, other = make(norm="batch", prenorm=True).train(), make(norm="batch", prenorm=True).train()
    torch.testing.assert_close(one.last(frames(30))[0], other(frames(30))[0][:, -1])


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"layers": 0}, {"dropout": 1.5}, {"dropout": -0.5}, {"prenorm": "no"}, {"rate": float("inf")}],
)
def test_sizes_and_shares_that_cannot_be_are_refused_when_it_is_built(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        make(**wrong)
