"""LMUFormers: the authors' graph stage by stage, padding at both ends of a recording, folding, int8."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d, gelu, linear, pad

from edgeseq.data import Recording
from edgeseq.errors import InputError, Unsupported
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.manifest import Precision
from edgeseq.models.contract import parameter_count
from edgeseq.models.lmuformer import Lmuformer
from edgeseq.models.norms import Affine, BatchNorm
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.registry import build, presets
from edgeseq.quant.calibrate import calibrate, quantize_model

RELATIVE = 1e-5  # to the largest of an array: float32, summed in another order
SMALL = {"dim": 5, "stages": 2, "order": 4, "theta": 9.0, "ratio": 2}
few = settings(max_examples=25, deadline=None, derandomize=True)


def make(**arguments):
    """In float64, with norms that have learned something."""
    torch.manual_seed(0)
    model = build("lmuformer", 3, 4, {**SMALL, **arguments}).double()
    model.set_normalization([0.5, -1.0, 2.0], [2.0, 0.5, 1.5])
    for module in model.modules():
        if isinstance(module, BatchNorm):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, 0, 0.5)
    return model.eval()


def frames(count, batch=2, seed=1):
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(model, x, run=None):
    """An answer to each frame ``(B, T, K)`` of whole recordings: the calls with frames, then the flush."""
    y, state = (run or model)(x)
    rest, _ = model.flush(state)
    return torch.cat([y, rest], 1)[:, model.look_ahead :]


# -- the authors' vectors ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["shipped", "all"])
def vectors(request):
    """The authors' vectors: of one stream at a few frames, which are shipped, and all of them where they are."""
    if request.param == "all":
        found = request.getfixturevalue("reference")("lmuformer.npz")
        return {**found, "frames": np.arange(int(found["cfg/frames"]))}
    with np.load(Path(__file__).with_name("lmuformer_reference.npz")) as stored:
        return dict(stored)


MAPS = {
    "encoder": "attn.lmu.W_u",
    "mixer": "attn.lmu.W_h",
    "projection": "attn.proj_conv",
    "feedforward.expand": "mlp.fc1_conv",
    "feedforward.reduce": "mlp.fc2_conv",
}
NORMS = {"norm": "attn.proj_bn", "feedforward.expand_norm": "mlp.fc1_bn", "feedforward.reduce_norm": "mlp.fc2_bn"}


def published(vectors):
    """Our model with the authors' weights, under our names."""
    w = {n.removeprefix("w/"): torch.from_numpy(a) for n, a in vectors.items() if n.startswith("w/")}
    model = Lmuformer(vectors["x"].shape[2], len(w["head.bias"]), theta=float(vectors["cfg/theta"]), readout="mean")
    ours = {n: t for n, t in model.state_dict().items() if n.startswith("input_") or n.endswith((".A", ".B"))}
    convs = {f"tokenizer.stages.{i}.conv": f"patch_embed.conv_layers.{i}.0" for i in range(4)}
    convs["tokenizer.residual"] = "patch_embed.rpe_conv"
    for name, theirs in convs.items():
        ours[f"{name}.linear.weight"] = w[f"{theirs}.weight"].permute(0, 2, 1).flatten(1)
    maps = {f"blocks.0.{name}": f"block.0.{theirs}" for name, theirs in MAPS.items()} | {"readout": "head"}
    for name, theirs in maps.items():
        ours |= {f"{name}.weight": w[f"{theirs}.weight"].flatten(1), f"{name}.bias": w[f"{theirs}.bias"]}
    norms = {f"blocks.0.{name}": f"block.0.{theirs}" for name, theirs in NORMS.items()}
    norms |= {f"tokenizer.stages.{i}.norm": f"patch_embed.conv_layers.{i}.3" for i in range(4)}
    for name, theirs in norms.items():
        ours |= {f"{name}.{part}": w[f"{theirs}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    model.load_state_dict(ours)
    return model.eval()


def assert_authors(found, expected, name=""):
    found = found.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max(), err_msg=name)


def watched(model):
    """Where each intermediate value of the authors is seen: module, whether it is its input, and its frame's delay."""
    block, seen = model.blocks[0], {}
    places = {
        **{f"tok/stage{i}": (stage.norm, False, i + 1) for i, stage in enumerate(model.tokenizer.stages)},
        "tok/out": (block.encoder, True, 5),
        "lmu/u": (block.memory, True, 5),
        "lmu/m": (block.memory, False, 5),
        "lmu/h": (block.projection, True, 5),
        "lmu/branch": (block.norm, False, 5),
        "lmu/out": (block.feedforward, True, 5),
        "ffn/branch": (block.feedforward, False, 5),
        "ffn/out": (model.readout, True, 5),
        "head/per_frame": (model.readout, False, 5),
    }
    for name, (module, of_input, _) in places.items():

        def keep(_module, given, answer, name=name, of_input=of_input):
            seen.setdefault(name, given[0] if of_input else answer)

        module.register_forward_hook(keep)
    return seen, {name: delay for name, (*_, delay) in places.items()}


def test_every_intermediate_value_is_the_authors(vectors):
    model = published(vectors)
    x, count = torch.from_numpy(vectors["x"]), vectors["x"].shape[1]
    live = torch.ones(len(x), count + 5, 1)
    live[:, count:] = 0
    seen, delays = watched(model)
    model(pad(x, (0, 0, 0, 5)), None, live)
    compared = {name.removeprefix("inter/") for name in vectors if name.startswith("inter/")}
    assert compared - {"lmu/branch_recurrent"} == set(delays)
    for name, delay in delays.items():
        of_frames = seen[name].flatten(2)[:, delay : delay + count][:, vectors["frames"]]  # (B, T, ...)
        expected = vectors[f"inter/{name}"]
        frame_axis = 1 if name in ("lmu/u", "lmu/m", "lmu/h", "head/per_frame") else 2
        assert_authors(of_frames, np.moveaxis(expected, frame_axis, 1), name)


@pytest.mark.parametrize("run", ["forward", "run_steps"])
def test_logits_are_the_authors_after_every_frame(vectors, run):
    model = published(vectors)
    with torch.no_grad():
        y = answers(model, torch.from_numpy(vectors["x"]), getattr(model, run))
    assert_authors(y.transpose(0, 1), vectors["logits_all_seq"])
    assert_authors(y[:, -1], vectors["logits"])


def test_the_folded_model_is_still_the_authors(vectors):
    model = published(vectors)
    assert model.fold() == {"folded": True}
    with torch.no_grad():
        assert_authors(answers(model, torch.from_numpy(vectors["x"])).transpose(0, 1), vectors["logits_all_seq"])


def test_the_published_size_has_the_authors_number_of_parameters(reference):
    """Batch norms included, as they count them."""
    count = parameter_count(build("lmuformer", 128, 35, presets()["lmuformer-published"].arguments))
    assert count == 1_621_796
    assert count == int(reference("lmuformer.npz")["cfg/params_published"])


# -- against torch's own convolutions on whole recordings -------------------------------------------------------------


def normed(model, name, h):
    norm = model.get_submodule(name)
    return (h - norm.running_mean) / torch.sqrt(norm.running_var + 1e-5) * norm.weight + norm.bias


def convolved(layer, h, causal):
    """Over all of ``h (B, T, C)``, with zeros around it."""
    weight = layer.weight.unflatten(1, (3, -1)).permute(0, 2, 1)
    return conv1d(pad(h.mT, (2, 0) if causal else (1, 1)), weight).mT


def on_whole_recordings(model, x, causal):
    """What the paper computes, of ``x (B, T, C)`` at once; the model's read-out is the last frame's."""
    h = (x - model.input_mean) * model.input_scale
    for i in range(len(model.tokenizer.stages)):
        name = f"tokenizer.stages.{i}"
        h = normed(model, f"{name}.norm", torch.relu(convolved(model.get_submodule(f"{name}.conv.linear"), h, causal)))
    h = h + convolved(model.tokenizer.residual.linear, h, causal)
    for i, block in enumerate(model.blocks):
        u, m, kept = torch.relu(block.encoder(h)), 0, []
        for u_t in u.unbind(1):
            m = linear(m, block.memory.A) + u_t[..., None] * block.memory.B if kept else u_t[..., None] * block.memory.B
            kept.append(m.flatten(1))
        mixed = torch.relu(block.mixer(torch.cat([torch.stack(kept, 1), h], 2)))
        h = h + normed(model, f"blocks.{i}.norm", block.projection(mixed))
        wide = gelu(normed(model, f"blocks.{i}.feedforward.expand_norm", block.feedforward.expand(h)))
        h = h + torch.relu(normed(model, f"blocks.{i}.feedforward.reduce_norm", block.feedforward.reduce(wide)))
    return model.readout(h)


@few
@given(
    count=st.integers(1, 40),
    causal=st.booleans(),
    stages=st.integers(1, 4),
    blocks=st.integers(1, 2),
    channels=st.integers(1, 2),
    folded=st.booleans(),
)
def test_padding_is_exact_at_both_ends_of_recordings_of_any_length(count, causal, stages, blocks, channels, folded):
    model = make(causal=causal, stages=stages, blocks=blocks, channels=channels)
    x = frames(count)
    with torch.no_grad():
        expected = on_whole_recordings(model, x, causal)
        if folded:
            model.fold()
        assert model.look_ahead == (0 if causal else stages + 1)
        for run in (model, model.run_steps):
            torch.testing.assert_close(answers(model, x, run), expected, rtol=0, atol=1e-9)


@few
@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_recording_may_come_in_chunks_of_any_length(cuts):
    model, x = make(), frames(sum(cuts))
    state, found = None, []
    with torch.no_grad():
        for part in x.split(cuts, 1):
            y, state = model(part, state)
            found.append(y)
        y = torch.cat([*found, model.flush(state)[0]], 1)[:, model.look_ahead :]
        torch.testing.assert_close(y, answers(model, x), rtol=0, atol=1e-10)


def test_what_comes_with_a_call_that_brings_no_frame_is_not_read():
    model, x = make(readout="mean"), frames(6)
    live = torch.ones(2, 9, 1).double()
    live[:, 6:] = 0
    with torch.no_grad():
        found = [model(torch.cat([x, size * frames(3, seed=2)], 1), None, live)[0][:, 3:] for size in (0, 100)]
        torch.testing.assert_close(*found)
        torch.testing.assert_close(found[0], answers(model, x))


def test_recordings_of_one_batch_may_end_at_different_frames():
    model, x = make(), frames(12)
    live = torch.ones(2, 15, 1).double()
    live[0, 7:], live[1, 12:] = 0, 0
    with torch.no_grad():
        y, _ = model(pad(x, (0, 0, 0, 3)), None, live)
        torch.testing.assert_close(y[:1, 3:10], answers(model, x[:1, :7]))
        torch.testing.assert_close(y[1:, 3:], answers(model, x[1:]))


def test_the_mean_is_over_the_frames_that_are_there():
    plain, x = make(), frames(11)
    mean = make(readout="mean")
    mean.load_state_dict(plain.state_dict())
    with torch.no_grad():
        z, y = answers(plain, x), answers(mean, x)
    torch.testing.assert_close(y, z.cumsum(1) / torch.arange(1, 12)[:, None])
    assert mean.tasks == ("segment",)


def test_states_are_what_the_layers_keep():
    look_ahead = {"live": (3,)}
    kept = {
        "tokenizer.0.past": (2, 3),
        "tokenizer.1.past": (2, 5),
        "tokenizer.residual.past": (2, 5),
        "blocks.0.memory": (1, 4),
        "readout.average": (4,),
    }
    for causal, expected in ((False, look_ahead | kept), (True, kept)):
        state = make(causal=causal, readout="average").initial_state(7)
        assert {name: tuple(tensor.shape[1:]) for name, tensor in state.items()} == expected
    assert make(readout="mean").counts() == ("live", "readout.mean", "readout.count")
    assert make(causal=True).counts() == ()


# -- folding, compression, refusals -----------------------------------------------------------------------------------


def test_folding_leaves_a_norm_only_where_a_relu_is_ahead_of_it():
    model = make(blocks=2)
    assert sum(isinstance(module, BatchNorm) for module in model.modules()) == 2 + 2 * 3
    changed = model.fold()
    assert not any(isinstance(module, BatchNorm) for module in model.modules())
    assert sum(isinstance(module, Affine) for module in model.modules()) == 2
    made = make(blocks=2, **changed)
    made.load_state_dict(model.state_dict())
    assert model.fold() == made.fold() == {}
    with torch.no_grad():
        torch.testing.assert_close(answers(made, frames(9)), answers(model, frames(9)))


def test_what_a_relu_follows_is_said_to_be_rectified():
    model = make()
    reduced = "blocks.0.feedforward.reduce"
    assert not model.projections()[reduced].rectified  # its norm is in between
    model.fold()
    known = model.projections()
    assert {name for name, projection in known.items() if projection.rectified} == {
        "tokenizer.stages.0.conv.linear",
        "tokenizer.stages.1.conv.linear",
        "blocks.0.encoder",
        "blocks.0.mixer",
        reduced,
    }
    assert {name: p.follows for name, p in known.items() if p.follows} == {"blocks.0.projection": "blocks.0.mixer"}


@pytest.mark.parametrize("state", ["float32", "int16"])
def test_an_int8_model_answers_as_the_float_one_does_and_is_captured_in_integers(state):
    model = make(readout="average", dim=8, order=6).float()
    model.fold()
    plain = copy.deepcopy(model)
    ranges = calibrate(model, [Recording(frames(200)[0].float().numpy(), np.zeros(200, np.int64), "1", "walk")])
    quantize_model(model, Precision("int8", "int8", state), ranges).eval()
    assert set(quantized_linears(model)) == set(plain.projections())
    kept = set(plain.initial_state(1)) - {"live"}  # which is 0 or 1
    assert len(state_grids(model)) == (0 if state == "float32" else len(kept))
    x = frames(150, seed=3).float()
    with torch.no_grad():
        y, expected = model(x)[0], plain(x)[0]
        torch.testing.assert_close(model.run_steps(x)[0], y, rtol=0, atol=1e-3)
    assert (y - expected).abs().max() < 0.2 * expected.abs().max()
    program = capture(lower(model))
    assert sum(node.operator == "qlinear" for node in program.nodes) == len(plain.projections())


def test_another_rate_is_refused():
    with pytest.raises(Unsupported, match="convolutions have no step size"):
        make().retime(2.0)


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"stages": 0}, {"blocks": 0}, {"channels": 0}, {"ratio": 0}, {"theta": 0.0}, {"causal": 1}]
)
def test_sizes_that_make_no_model_are_refused(wrong):
    with pytest.raises(InputError, match=r"lmuformer|Legendre"):
        make(**wrong)


def test_dropout_acts_in_training_only():
    model, x = make(dropout=0.5, causal=True, folded=True), frames(30)
    with torch.no_grad():
        assert torch.equal(model(x)[0], model(x)[0])
        model.train()
        assert not torch.equal(model(x)[0], model(x)[0])
