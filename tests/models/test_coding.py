"""What a quantized or pruned model's tensors are at their true size, and that nothing else comes back from the file."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.folder import PACKED_NAME, WEIGHTS_NAME, new_folder, open_folder, seal, shipped_bytes
from edgeseq.manifest import Precision
from edgeseq.models.coding import rows
from edgeseq.models.contract import set_mask, weight_of
from edgeseq.models.quantized import LARGEST_BIAS, SMALLEST_ROW, QuantizedLinear, quantized_linears, with_precision
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_weights
from edgeseq.packed import Bucketed, Plain, Rows, Sparse
from edgeseq.packed_file import read_packed

often = settings(max_examples=40, deadline=None, derandomize=True)
LIMITS = {"int8": 127, "int4": 7}
sizes = st.sampled_from((0.0, 1e-8, 3e-5, SMALLEST_ROW, 1.0, 3e4))
biases = st.sampled_from((0.0, -1.0, 1e4, 1e9, 3e30))


def layer_of(weight, bias, kind="int8", scale=0.03):
    plain = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        plain.weight.copy_(torch.from_numpy(weight))
        plain.bias.copy_(torch.from_numpy(bias))
    layer = QuantizedLinear(plain, kind).eval()
    layer.input.scale.fill_(scale)
    return layer


def equal(one, other):
    return all(torch.equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))


@st.composite
def layers(draw):
    """Rows of any size, of zeros, below the smallest row, and with biases that make their scale coarse."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    parts = draw(arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    row = draw(arrays(np.float64, shape[0], elements=sizes))
    bias = draw(arrays(np.float64, shape[0], elements=biases))
    kind = draw(st.sampled_from(sorted(LIMITS)))
    return layer_of((parts * row[:, None]).astype(np.float32), bias.astype(np.float32), kind), LIMITS[kind]


@often
@given(made=layers())
def test_rows_give_the_same_integers_scales_and_biases_again_and_then_themselves(made):
    layer, limit = made
    before, trained = layer.integers(), weight_of(layer).clone()
    coded = rows(layer)
    assert torch.equal(weight_of(layer), trained)  # the model itself is left alone
    if coded is None:
        assert bool((layer.linear.bias.abs() / LARGEST_BIAS / layer.input.scale > SMALLEST_ROW / limit).any())
        return
    assert coded.limit == limit
    assert np.array_equal(coded.levels, before[0].numpy())
    again = copy.deepcopy(layer)
    with torch.no_grad():
        weight_of(again).copy_(torch.from_numpy(coded.decoded()))
    assert equal(before, again.integers())
    twice = rows(again)
    assert twice is not None
    assert twice.decoded().tobytes() == coded.decoded().tobytes()
    assert twice.top.tobytes() == coded.top.tobytes()


@pytest.mark.parametrize("kind", LIMITS)
def test_ordinary_rows_are_always_said_exactly(kind):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(2000, 5)) * 10.0 ** rng.uniform(-7, 4, (2000, 1))).astype(np.float32)
    weight[::50] = 0
    coded = rows(layer_of(weight, rng.normal(size=2000).astype(np.float32), kind))
    assert coded is not None
    step = coded.top / LIMITS[kind]
    assert (np.abs(coded.decoded() - weight) <= 0.5001 * step[:, None]).all()


def test_the_scale_of_a_row_may_be_coarse_for_its_biass_sake():
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6)
    layer = layer_of(weight, np.float32([0.1, 3e8]))
    scale = layer.integers()[2]
    assert scale[1] > 1 / 127
    coded = rows(layer)
    assert coded is None or np.abs(coded.levels[1]).max() < 127


# -- what save_weights writes -----------------------------------------------------------------------------------------


def quantized(name, precision=None, mask=None):
    torch.manual_seed(0)
    family, arguments = {
        "lmu": ("lmu", {"channels": [3, 2], "orders": [5, 4], "thetas": [20.0, 40.0], "hidden": [12, 12]}),
        "gru": ("rnn", {"hidden": 12}),
        "wired": ("sparse_rnn", {"nodes": 5, "neighbours": 2, "block": 8}),
    }[name]
    model = build(family, 6, 4, dict(arguments)).eval()
    if mask is not None:
        for layer in model.projections():
            set_mask(model.get_submodule(layer), torch.rand(weight_of(model.get_submodule(layer)).shape) < mask)
    if precision:
        with_precision(model, precision)
        for layer in quantized_linears(model).values():
            layer.input.set_range(-2.0, 3.0)
            layer.output.set_range(-1.0, 4.0)
    return model.eval()


def written(model, folder, coded=None):
    folder.mkdir()
    save_weights(model, folder, coded)
    return read_packed(folder / PACKED_NAME) if (folder / PACKED_NAME).exists() else None


@pytest.mark.parametrize(("name", "kind"), [("lmu", "int4"), ("gru", "int8"), ("wired", "int8")])
def test_a_quantized_model_computes_with_what_is_written_what_it_computed_before(name, kind, tmp_path):
    model = quantized(name, Precision(kind, "int8"))
    packed = written(model, tmp_path / "a")
    assert {f"{layer}.linear.weight" for layer in quantized_linears(model)} == {
        tensor for tensor, coded in packed.items() if isinstance(coded, Rows)
    }
    again = quantized(name, Precision(kind, "int8"))
    again.load_state_dict({tensor: torch.from_numpy(np.array(c.decoded())) for tensor, c in packed.items()})
    for folder, made in (("before", model), ("after", again)):
        (tmp_path / folder).mkdir()
        capture(lower(made)).write(tmp_path / folder)
    for file in ("step.json", "step.safetensors"):
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()
    written(again, tmp_path / "b")
    for file in (WEIGHTS_NAME, PACKED_NAME):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_pretrained_model_keeps_its_program_when_it_is_packed(tmp_path):
    folder, name = open_folder("har_watch"), "watch"
    model = load_model(folder)
    with new_folder(tmp_path / name) as staging:
        save_weights(model, staging)
        seal(staging, folder.manifest)
    again = open_folder(tmp_path / name)
    before, after = (capture(lower(made)) for made in (model, load_model(again)))
    assert before.constants.keys() == after.constants.keys()
    for constant, values in before.constants.items():
        assert values.tobytes() == after.constants[constant].tobytes()
    assert before.nodes == after.nodes
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert shipped_bytes(again) == again.file(PACKED_NAME).stat().st_size < 1.25 * parameters
    assert f"ship in {shipped_bytes(again):,} bytes" in (again.path / "README.md").read_text(encoding="utf-8")


def test_a_float_model_has_nothing_to_pack(tmp_path):
    assert written(quantized("gru"), tmp_path / "a") is None


@pytest.mark.parametrize("precision", [None, Precision("int8", "int8")])
def test_zeros_of_a_pruned_model_are_not_written(precision, tmp_path):
    model = quantized("gru", precision, mask=0.1)
    with torch.no_grad():
        for layer in model.masks():
            weight_of(model.get_submodule(layer)).mul_(-1)  # so that zeros are -0
    packed = written(model, tmp_path / "a")
    kinds = {type(coded) for name, coded in packed.items() if name.endswith("from_hidden.weight")}
    assert kinds == (set() if precision else {Sparse})
    for name, mask in model.masks().items():
        tensor = f"{name}.linear.weight" if precision else f"{name}.weight"
        values = packed[tensor].decoded()
        assert (values[~mask.numpy()].view(np.uint32) == 0).all()
    dense = written(quantized("gru", precision or Precision("int8", "int8")), tmp_path / "b")
    assert dense is not None
    sizes = [(tmp_path / each / PACKED_NAME).stat().st_size for each in "ab"]
    assert sizes[0] < sizes[1]


def test_what_is_given_wins_and_must_be_the_models(tmp_path):
    levels = np.arange(40, dtype=np.uint8) % 4
    coded = Bucketed((4, 10), levels, 2, 16, np.ones(3, np.float32), np.zeros(3, np.float32))
    model = build("rnn", 6, 4, {"hidden": 10}).eval()
    with torch.no_grad():
        model.readout.weight.copy_(torch.from_numpy(coded.decoded()))
    found = written(model, tmp_path / "a", {"readout.weight": coded})
    assert isinstance(found["readout.weight"], Bucketed)
    assert isinstance(found["readout.bias"], Plain)
    with torch.no_grad():
        model.readout.weight[1, 1] += 1e-6
    with pytest.raises(ValueError, match=r"readout\.weight is coded as other numbers"):
        written(model, tmp_path / "b", {"readout.weight": coded})
