"""The spiking LMUFormer: the authors' spikes and gradients, both ends of a recording, and what folding leaves."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import batch_norm, conv1d, pad

from edgeseq.data import Recording
from edgeseq.errors import InputError
from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.manifest import Precision
from edgeseq.models.contract import Store, parameter_count
from edgeseq.models.norms import Affine, BatchNorm
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.registry import build, presets
from edgeseq.models.spiking_lmuformer import Population
from edgeseq.program.cost import cost
from edgeseq.quant.calibrate import calibrate, quantize_model

few = settings(max_examples=8, deadline=None, derandomize=True)

# Our linear maps and norms, by the names of theirs.
LINEAR = {
    **{f"tokenizer.{i}.conv.linear": f"patch_embed.proj_conv{i or ''}" for i in range(4)},
    "position.linear": "patch_embed.rpe_conv",
    "blocks.0.encoder": "block.0.attn.lmu.W_u",
    "blocks.0.mixer": "block.0.attn.lmu.W_h",
    "blocks.0.projection": "block.0.attn.proj_conv",
    "blocks.0.expand": "block.0.mlp.fc1_conv",
    "blocks.0.contract": "block.0.mlp.fc2_conv",
    "readout": "head",
}
NORMS = {
    **{f"tokenizer.{i}.population.norm": f"patch_embed.proj_bn{i or ''}" for i in range(4)},
    "blocks.0.begin.norm": "block.0.attn.prev_bn",
    "blocks.0.input.norm": "block.0.attn.lmu.bn_u",
    "blocks.0.remembered.norm": "block.0.attn.lmu.bn_m",
    "blocks.0.hidden.norm": "block.0.attn.lmu.bn_h",
    "blocks.0.projection_norm": "block.0.attn.proj_bn",
    "blocks.0.middle.norm": "block.0.mlp.fc1_bn",
    "blocks.0.expanded.norm": "block.0.mlp.fc2_bn",
    "end.norm": "head_bn",
}
# Our populations, the names of their states and of theirs, and how many calls ago the frame came that they work on.
POPULATIONS = {
    **{f"tokenizer.{i}.population": (f"tokenizer.{i}", f"embed_lif{i}", i + 1) for i in range(4)},
    "blocks.0.begin": ("blocks.0.begin", "lmu_prev", 5),
    "blocks.0.input": ("blocks.0.input", "lmu_u", 5),
    "blocks.0.remembered": ("blocks.0.remembered", "lmu_m", 5),
    "blocks.0.hidden": ("blocks.0.hidden", "lmu_h", 5),
    "blocks.0.middle": ("blocks.0.middle", "ffn_lif1", 5),
    "blocks.0.expanded": ("blocks.0.expanded", "ffn_lif2", 5),
    "end": ("end", "head_lif", 5),
}
FRAMES = 128


def published_graph(vectors):
    """A model of the reference's sizes with its weights, in float64, and its inputs."""
    tensors = {name: torch.from_numpy(array).double() for name, array in vectors.items() if array.dtype.kind in "fu"}
    model = build(
        "spiking_lmuformer", 16, 6, {"dim": 24, "stages": 4, "order": 48, "theta": 128.0, "readout": "mean"}
    ).double()
    weights = {}
    for ours, theirs in (LINEAR | NORMS).items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            if f"w/{theirs}.{part}" in tensors:
                weights[f"{ours}.{part}"] = as_ours(tensors[f"w/{theirs}.{part}"])
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith((".beta", ".threshold", ".A", ".B")) or "input_" in name for name in left.missing_keys)
    return model.eval(), tensors


def as_ours(weight):
    """A weight or its gradient in our layout: a convolution's is a matrix over the window, oldest frame first."""
    return weight.permute(0, 2, 1).flatten(1) if weight.ndim == 3 else weight


def flushed(model, x, state=None):
    """The answers of all frames of recordings ``(B, T, C)``."""
    y, state = model(x, state)
    return torch.cat([y, model.flush(state)[0]], 1)[:, model.look_ahead :]


class Record:
    """The currents and spikes of each population over a whole recording, the last calls of which bring no frame."""

    def __init__(self, model, x):
        self.given, handles = {}, []
        for name in POPULATIONS:
            neurons = model.get_submodule(name).neurons
            handles.append(neurons.register_forward_hook(self.keep(name)))
        self.answers = flushed(model, x)
        for handle in handles:
            handle.remove()

    def keep(self, name):
        def hook(_, inputs, outputs):
            self.given.setdefault(name, []).append((inputs[0].detach(), outputs[0].detach()))

        return hook

    def of(self, name):
        delay = POPULATIONS[name][2]
        return (torch.cat(parts, 1)[:, delay : delay + FRAMES] for parts in zip(*self.given[name], strict=True))


# -- the authors' model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    with np.load(Path(__file__).with_name("spiking_lmuformer_reference.npz")) as stored:
        return dict(stored)


def close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def test_every_spike_is_the_authors(shipped):
    model, vectors = published_graph(shipped)
    with torch.no_grad():
        record = Record(model, vectors["x"])
    for ours, (_, theirs, _) in POPULATIONS.items():
        _, spikes = record.of(ours)
        assert torch.equal(spikes, vectors[f"lif/{theirs}/spikes"]), theirs
        assert 0 < spikes.mean() < 1
    close(record.answers[:, -1], vectors["logits"])


def test_currents_membranes_and_answers_on_the_way_are_the_authors(reference):
    model, vectors = published_graph(reference("spiking_lmuformer.npz"))
    kept = {}
    for name in ("blocks.0.projection_norm", "blocks.0.contract", "readout"):
        model.get_submodule(name).register_forward_hook(lambda _, i, y, name=name: kept.setdefault(name, []).append(y))
    with torch.no_grad():
        record = Record(model, vectors["x"])
        for name, layout in (("projection_norm", "lmu_branch"), ("contract", "ffn_branch")):
            close(torch.cat(kept[f"blocks.0.{name}"], 1)[:, 5:].mT, vectors[f"inter/{layout}"])
        close(torch.cat(kept["readout"], 1)[:, 5:], vectors["inter/head_per_frame"])
        for ours, (_, theirs, _) in POPULATIONS.items():
            current, spikes = record.of(ours)
            close(current, vectors[f"lif/{theirs}/current"])
            assert torch.equal(spikes, vectors[f"lif/{theirs}/spikes"])
            assert model.get_submodule(ours).neurons.threshold == vectors[f"lif/{theirs}/threshold"]
        close(record.answers.transpose(0, 1), vectors["logits_all_seq"])

        state = model(vectors["x"])[1]
        memories = []
        for call in range(1, 6):  # after the call in which a population has come to the last frame
            _, state = model.step(torch.zeros(2, 16).double(), state, torch.zeros(2, 1).double())
            memories.append(state["blocks.0.memory"].flatten(1))
            for name, theirs, delay in POPULATIONS.values():
                if delay == call:
                    close(state[f"{name}.membrane"], vectors[f"lif/{theirs}/v_final"])
        close(memories[-1], vectors["inter/memory_linear"][:, -1])


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_through_spikes_are_the_authors(shipped, reference, whole):
    model, vectors = published_graph(reference("spiking_lmuformer.npz") if whole else shipped)
    (flushed(model, vectors["x"])[:, -1] * vectors["grad/upstream_logits"]).sum().backward()
    compared = 0
    for ours, theirs in (LINEAR | NORMS).items():
        for part, parameter in model.get_submodule(ours).named_parameters():
            expected = vectors.get(f"grad/{theirs}.{part}")
            if expected is not None:
                compared += 1
                close(parameter.grad / expected.abs().max(), as_ours(expected) / expected.abs().max(), 2e-5)
    assert compared == (sum(name.startswith("grad/") for name in vectors) - 1)


def test_the_published_size_is_the_authors():
    preset = presets()["spiking_lmuformer-published"]
    model = build(preset.family, 128, 35, preset.arguments)
    assert parameter_count(model) == 1_689_894
    assert model.look_ahead == 5
    assert (model.blocks[0].memory.order, model.blocks[0].memory.channels) == (512, 1)
    membranes = [tensor for name, tensor in model.initial_state(1).items() if name.endswith(".membrane")]
    assert (len(membranes), sum(tensor.numel() for tensor in membranes)) == (11, 3_585)


# -- both ends of a recording -----------------------------------------------------------------------------------------


def small(seed=0, **arguments):
    """A small model with norms that are not trivial, and that spikes."""
    torch.manual_seed(seed)
    sizes = {"dim": 6, "stages": 2, "blocks": 2, "channels": 2, "order": 4, "theta": 9.5, "ratio": 1.5}
    model = build("spiking_lmuformer", 3, 4, sizes | arguments).double()
    model.set_normalization([0.5, -1.0, 2.0], [2.0, 0.5, 1.5])
    for module in model.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.uniform_(module.weight, 1.5, 3.0)
            torch.nn.init.uniform_(module.bias, -0.3, 1.2)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.3, 1.5)
    return model.eval()


def frames(count, batch=2, seed=0):
    return 2 * torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def plainly(model, x):
    """The answers at every frame of whole recordings ``(B, T, C)``, as a model that does not stream computes them."""

    def normed(h, layer):
        return batch_norm(h, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5)

    def spikes(population, h):  # h (B, N, T)
        h = normed(h, population.norm)
        v, fired = torch.zeros_like(h[..., 0]), []
        for current in h.unbind(-1):
            v = v + (1 - population.neurons.beta) * (current - v)
            fired.append((v >= population.neurons.threshold).double())
            v = torch.where(fired[-1] > 0, 0.0, v)
        return torch.stack(fired, -1)

    def mapped(layer, h):
        return (layer(h.mT)).mT

    def convolved(layer, h):
        weight = layer.linear.weight.unflatten(1, (3, -1)).permute(0, 2, 1)  # (O, C, 3)
        return conv1d(pad(h, (1, 1) if model.look_ahead else (2, 0)), weight)

    h = model.normalize(x).mT
    for stage in model.tokenizer:
        z = convolved(stage.conv, h)
        h = spikes(stage.population, z)
    e = z + convolved(model.position, h)
    for block in model.blocks:
        begun = spikes(block.begin, e)
        u = spikes(block.input, mapped(block.encoder, begun))  # (B, U, T)
        m = torch.zeros(len(x), block.memory.channels, block.memory.order).double()
        memory = []
        for u_t in u.unbind(-1):
            m = m @ block.memory.A.T + u_t[..., None] * block.memory.B
            memory.append(m.flatten(1))
        remembered = spikes(block.remembered, torch.stack(memory, -1))
        hidden = spikes(block.hidden, mapped(block.mixer, torch.cat([remembered, begun], 1)))
        e = e + normed(mapped(block.projection, hidden), block.projection_norm)
        expanded = spikes(block.expanded, mapped(block.expand, spikes(block.middle, e)))
        e = e + mapped(block.contract, expanded)
    return model.readout(spikes(model.end, e).mT)


@pytest.mark.parametrize("causal", [False, True])
@few
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_stream_says_what_a_model_says_that_has_the_whole_recording(causal, count, seed):
    model, x = small(seed, causal=causal), frames(count, seed=seed)
    with torch.no_grad():
        close(flushed(model, x), plainly(model, x), 1e-9)


@few
@given(
    chunks=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    stages=st.integers(1, 3),
    readout=st.sampled_from(["last", "average", "mean", "sum"]),
)
def test_chunks_and_a_flush_step_by_step_are_one_forward(chunks, stages, readout):
    model, x = small(stages=stages, readout=readout), frames(sum(chunks))
    with torch.no_grad():
        whole, state = flushed(model, x), None
        parts = []
        for part in x.split(chunks, 1):
            y, state = model(part, state)
            parts.append(y)
        for _ in range(model.look_ahead):
            y, state = model.step(torch.full((2, 3), 7.0).double(), state, torch.zeros(2, 1).double())
            parts.append(y[:, None])
    assert model.look_ahead == stages + 1
    close(torch.cat(parts, 1)[:, model.look_ahead :], whole, 1e-9)


def test_nothing_spikes_before_the_first_frame_nor_after_the_last():
    model = small()
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Population):
            module.neurons.register_forward_hook(
                lambda _, i, out, name=name: seen.setdefault(name, []).append(out[0].any(-1)[0])
            )
    with torch.no_grad():
        _, state = model(frames(12, batch=1))
        for _ in range(2):
            _, state = model.flush(state)
    for name, parts in seen.items():
        delay = int(name.split(".")[1]) + 1 if name.startswith("tokenizer") else 3
        spiked = torch.cat(parts).tolist()  # at each of 12 + 3 + 3 calls
        assert not any(spiked[:delay]), name
        assert any(spiked[delay : delay + 12]), name
        assert not any(spiked[delay + 12 :]), name
    moved = model.step(torch.zeros(1, 3).double(), model.initial_state(1), torch.zeros(1, 1).double())[1]
    assert all(not tensor.any() for tensor in moved.values())


def test_only_frames_within_the_look_ahead_change_an_answer():
    model, x = small(theta=3.0), frames(30, batch=1)
    changed = x.clone()
    changed[:, 20:] += 3.0
    with torch.no_grad():
        before, after = flushed(model, x), flushed(model, changed)
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.equal(before[:, 17:20], after[:, 17:20])


# -- folding, compression, arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"causal": True, "learn": True, "beta": 0.7}], ids=["published", "learned"])
def test_folded_norms_leave_every_answer_and_take_the_weights(arguments):
    model, x = small(**arguments), frames(60)
    folded = copy.deepcopy(model)
    assert folded.fold() == {"folded": True}
    assert folded.fold() == {}
    assert not any(isinstance(module, BatchNorm) for module in folded.modules())
    kept = {name for name, module in folded.named_modules() if isinstance(module, Affine)}
    of_blocks = {f"blocks.{i}.{name}.norm" for i in (0, 1) for name in ("begin", "remembered", "middle")}
    assert kept == {"tokenizer.1.population.norm", "end.norm", *of_blocks}
    rebuilt = small(folded=True, **arguments)
    rebuilt.load_state_dict(folded.state_dict())
    with torch.no_grad():
        (y, state), (found, after) = model(x), rebuilt(x)
    close(found, y, 1e-12)
    for name, tensor in state.items():
        close(after[name], tensor, 1e-11)


def test_what_neurons_learn_is_trained_as_dynamics():
    model = small(learn=True, beta=0.7, blocks=1)
    learned = model.dynamics()
    assert len(learned) == 2 * sum(isinstance(module, Population) for module in model.modules()) == 2 * 9
    model(frames(30))[0].square().sum().backward()
    assert all(model.get_parameter(name).grad is not None for name in learned)
    assert small().dynamics() == ()


def test_every_state_but_counts_and_spikes_passes_a_store():
    model = small(readout="mean")
    assert model.counts() == ("live", "tokenizer.1.past", "position.past", "readout.mean", "readout.count")
    stores = sum(isinstance(module, Store) for module in model.modules())
    assert stores == len(model.initial_state(1)) - len(model.counts())


def test_a_branch_can_drop_channels_in_training_only():
    model, x = small(dropout=0.5), frames(40)
    assert torch.equal(model(x)[0], model(x)[0])
    model.train()
    assert not torch.equal(model(x)[0], model(x)[0])


def recordings():
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(150, 3)), 0) * 0.3 for _ in range(3)]
    return [Recording(x.astype(np.float32), np.zeros(len(x), np.int16), "a", str(i)) for i, x in enumerate(walks)]


@pytest.fixture(scope="module")
def compressed():
    model = small(causal=True, blocks=1, readout="average").float()
    model.fold()
    ranges = calibrate(model, recordings())
    return model, quantize_model(copy.deepcopy(model), Precision("int8", "int8", "int16"), ranges).eval()


def test_all_linear_maps_become_int8_and_those_of_spikes_read_them_exactly(compressed):
    plain, model = compressed
    layers = quantized_linears(model)
    assert set(layers) == set(plain.projections())
    assert len(layers) == 2 + 1 + 5 + 1  # the tokenizer's and its positions, a block's, the read-out
    spikes = torch.tensor([0.0, 1.0])
    for name, layer in layers.items():
        if name != "tokenizer.0.conv.linear":
            assert torch.equal(layer.input(spikes), spikes), name
    assert len(state_grids(model)) == 12 == len(model.initial_state(1)) - len(model.counts())


def test_a_compressed_model_keeps_the_contract_and_is_captured_in_integers(compressed):
    _, model = compressed
    x = torch.from_numpy(np.stack([recording.x for recording in recordings()]))
    with torch.no_grad():
        (y, after), (steps, steps_after) = model(x), model.run_steps(x)
    assert (y - steps).abs().mean() < 0.05 * float(model.readout.output.scale)
    assert after.keys() == steps_after.keys()
    for name in ("tokenizer.1.past", "position.past"):
        assert set(after[name].unique().tolist()) == {0.0, 1.0}
    program = capture(lower(model))
    assert sum(node.operator == "qlinear" for node in program.nodes) == 9
    assert sum(node.operator == "leaky" for node in program.nodes) == 9


def test_the_program_accumulates_all_but_the_first_convolution_the_norms_and_the_memory():
    program = capture(lower(small(blocks=1).float()))
    found = cost(program)
    norms, memory = 6 * 4 + 8, 2 * 4 * 4
    assert found.macs == 3 * 3 * 6 + norms + memory
    assert found.acs == 2 * 3 * 6 * 6 + 6 * 2 + 8 + 14 * 6 + 6 * 6 + 2 * 6 * 9 + 6 * 4
    known = {"leaky", "linear", "slice", "concat", "reshape", "mul", "add", "sub"}
    assert {node.operator for node in program.nodes} <= known


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "dim 0"),
        ({"stages": 0}, "stages 0"),
        ({"blocks": -1}, "blocks -1"),
        ({"channels": 0}, "channels 0"),
        ({"ratio": 0.0}, "ratio"),
        ({"beta": 1.0}, "beta 1.0"),
        ({"threshold": 0.0}, "threshold 0.0"),
        ({"readout": "first"}, "first"),
        ({"theta": 0.0}, "theta"),
        ({"causal": "yes"}, "causal 'yes'"),
    ],
)
def test_arguments_that_make_no_model_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        build("spiking_lmuformer", 3, 4, wrong)
