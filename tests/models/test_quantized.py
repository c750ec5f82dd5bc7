"""Quantized layers: what they round, what they let through, and that a model made of them still keeps the contract."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeseq.data import Recording
from edgeseq.errors import InputError, Unsupported
from edgeseq.export.integer import IntegerLinear
from edgeseq.manifest import Precision
from edgeseq.models.contract import Projection, Store, StreamingModel
from edgeseq.models.quantized import (
    LARGEST_WIDTH,
    QuantizedLinear,
    Quantizer,
    StateGrid,
    quantized_linears,
    state_grids,
    with_precision,
)
from edgeseq.models.registry import build
from edgeseq.quant.calibrate import calibrate, quantize_model

few = settings(max_examples=25, deadline=None, derandomize=True)
MODELS = {
    "lmu": ("lmu", {"channels": [3, 2], "orders": [5, 4], "thetas": [20.0, 40.0], "hidden": [12, 12], "products": 3}),
    "gru": ("rnn", {"hidden": 12, "layers": 2}),
}
bounds = st.floats(-50, 50, width=32)


def recordings(count=3, frames=150, channels=6):
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.normal(size=(frames - 20 * i, channels)), 0) * 0.3 for i in range(count)]
    return [Recording(x.astype(np.float32), np.zeros(len(x), np.int16), "a", str(i)) for i, x in enumerate(walks)]


def quantized(name, state="float32"):
    torch.manual_seed(0)
    family, arguments = MODELS[name]
    model = build(family, 6, 4, arguments).eval()
    model.set_normalization([0.1] * 6, [1.5] * 6)
    return quantize_model(model, Precision("int8", "int8", state), calibrate(model, recordings())).eval()


@few
@given(low=bounds, high=bounds, x=st.lists(bounds, min_size=1, max_size=20))
def test_a_quantizer_is_off_by_half_a_step_inside_its_range_and_says_zero_exactly(low, high, x):
    quantizer = Quantizer()
    low, high = min(low, high), max(low, high)
    quantizer.set_range(low, high)
    step = float(quantizer.scale)
    values = torch.tensor(x).clamp(min(low, 0), max(high, 0))
    assert (quantizer(values) - values).abs().max() <= 1.01 * step + 1e-6  # the ends may be off by where 0 lies
    assert quantizer(torch.zeros(1)) == 0
    assert torch.equal(quantizer(quantizer(values)), quantizer(values))


def test_a_range_that_begins_at_zero_is_a_relu():
    quantizer = Quantizer()
    quantizer.set_range(0.0, 3.0)
    assert int(quantizer.zero) == -128
    x = torch.linspace(-4, 3, 300)
    assert torch.equal(quantizer(x), quantizer(torch.relu(x)))


def test_a_range_of_nothing_is_taken_as_it_is():
    quantizer = Quantizer()
    quantizer.set_range(0.0, 0.0)
    assert torch.equal(quantizer(torch.zeros(3)), torch.zeros(3))


@few
@given(width=st.floats(1e-45, 1e-30), x=st.floats(-2, 2))
def test_a_range_of_next_to_nothing_gives_numbers(width, x):
    quantizer, grid = Quantizer(), StateGrid((), "int16")
    quantizer.set_range(0.0, width)
    grid.set_range(torch.tensor(width))
    for rounded in (quantizer, grid):
        assert torch.isfinite(rounded(torch.tensor([x, 0.0]))).all()
        assert rounded(torch.zeros(1)) == 0


def test_gradients_pass_straight_through_inside_the_range_and_not_outside():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(3, 2))
    layer.input.set_range(-1, 1)
    layer.output.set_range(-4, 4)
    x = torch.tensor([[0.5, -0.5, 3.0]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert (x.grad[0, :2] != 0).all()
    assert x.grad[0, 2] == 0
    assert layer.linear.weight.grad is not None
    torch.testing.assert_close(layer.linear.weight.grad[:, 2], torch.ones(2), atol=0.01, rtol=0)  # clipped to 1
    assert torch.equal(layer.linear.bias.grad, torch.ones(2))


def test_weights_have_a_scale_for_each_output_and_the_bias_the_scale_of_the_products():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(5, 3))
    layer.input.set_range(-2, 2)
    weight, bias, scale = layer.integers()
    assert weight.dtype == torch.int8
    assert bias.dtype == torch.int32
    assert torch.equal(weight.abs().amax(1), torch.tensor([127, 127, 127], dtype=torch.int8))
    assert torch.allclose(weight * scale[:, None], layer.linear.weight, atol=float(scale.max()) / 2 + 1e-7)
    products = layer.input.scale * scale
    assert torch.allclose(bias * products, layer.linear.bias, atol=float(products.max()) / 2 + 1e-7)


def test_weights_of_4_bits_are_seven_steps_to_each_side_and_what_stands_on_them_stays():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(40, 6), "int4")
    layer.input.set_range(-2, 2)
    layer.output.set_range(-9, 9)
    weight, bias, scale = layer.integers()
    assert layer.limit == 7
    assert torch.equal(weight.abs().amax(1), torch.full((6,), 7, dtype=torch.int8))
    assert torch.allclose(weight * scale[:, None], layer.linear.weight, atol=float(scale.max()) / 2 + 1e-7)
    x = torch.randn(20, 40)
    with torch.no_grad():
        exact = layer(x)
        layer.linear.weight.copy_(layer.parts()[0])
        assert torch.equal(layer.integers()[0], weight)
        assert torch.equal(layer.integers()[1], bias)
        assert torch.equal(layer(x), exact)
        assert (IntegerLinear(layer)(x) - exact).abs().max() == 0
    assert (layer(x) - exact).abs().max() <= 1.01 * layer.output.scale


def test_a_row_of_zeros_keeps_its_bias():
    plain = nn.Linear(4, 2)
    with torch.no_grad():
        plain.weight[0] = 0
        plain.bias[0] = 3.0
    layer = QuantizedLinear(plain)
    layer.input.set_range(-5, 5)
    layer.output.set_range(-8, 8)
    _, bias, scale = layer.integers()
    assert float(bias[0] * scale[0] * layer.input.scale) == pytest.approx(3.0, rel=1e-5)


@few
@given(reach=st.floats(-14, 2), weight=st.floats(-9, 3), bias=st.floats(-3, 6), seed=st.integers(0, 99))
def test_a_bias_fits_int32_beside_the_products_whatever_the_magnitudes(reach, weight, bias, seed):
    torch.manual_seed(seed)
    plain = nn.Linear(4, 3)
    with torch.no_grad():
        plain.weight.normal_().mul_(10**weight)
        plain.bias.normal_().mul_(10**bias)
    layer = QuantizedLinear(plain)
    layer.input.set_range(-(10**reach), 10**reach)
    weights, biases, scales = (tensor.double() for tensor in layer.integers())
    assert (255 * weights.abs().sum(1) + biases.abs()).max() < 2**31
    step = layer.input.scale * scales
    torch.testing.assert_close(biases * step, layer.linear.bias.double(), rtol=1e-5, atol=float(step.max()) / 2)
    value, _, trained_step = layer.parts()
    torch.testing.assert_close(value.double(), weights * scales[:, None], rtol=1e-5, atol=0)
    torch.testing.assert_close(trained_step.double(), step, rtol=1e-5, atol=0)
    value.sum().backward()
    assert torch.isfinite(layer.linear.weight.grad).all()


def test_ordinary_weights_keep_the_scale_of_their_largest():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(5, 3))
    layer.input.set_range(-2, 2)
    assert torch.equal(layer.integers()[2], layer.linear.weight.detach().abs().amax(1) / 127)


def test_weights_quantized_once_for_a_loop_are_those_quantized_at_every_call():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(6, 4))
    layer.input.set_range(-3, 3)
    layer.output.set_range(-3, 3)
    x, once = torch.randn(5, 6), layer.fixed()
    assert torch.equal(once(x), layer(x))


def test_without_gradients_the_sums_are_the_devices_and_with_them_next_to_the_same():
    torch.manual_seed(0)
    layer = QuantizedLinear(nn.Linear(60, 40))
    layer.input.set_range(-3, 4)
    layer.output.set_range(-1.5, 1.2)
    x = 2 * torch.randn(500, 60)
    with torch.no_grad():
        exact = layer(x)
        device = IntegerLinear(layer)(x)
    assert torch.equal(exact, device)
    steps = (layer(x).detach() - exact).abs() / layer.output.scale
    assert float(steps.max()) < 1.5
    assert float((steps > 0.5).float().mean()) < 0.01


@few
@given(kind=st.sampled_from(["int8", "int16"]), seed=st.integers(0, 999))
def test_a_state_on_its_grid_stays_where_it_is(kind, seed):
    grid = StateGrid((4,), kind)
    state = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    grid.set_range(state.abs().reshape(-1, 4).amax(0))
    with torch.no_grad():
        kept = grid(state)
        assert (kept - state).abs().max() <= 0.51 * grid.scale.max()
        assert torch.equal(grid(kept), kept)


def test_the_gradient_of_a_grid_is_that_of_its_clipping():
    grid = StateGrid((), "int8")
    grid.set_range(torch.tensor(1.0))
    state = torch.tensor([0.3, 2.0], requires_grad=True)
    grid(state).sum().backward()
    assert torch.allclose(state.grad, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("state", ["float32", "int16", "int8"])
@settings(max_examples=4, deadline=None, derandomize=True)
@given(cut=st.integers(1, 99))
def test_chunks_one_forward_and_the_loop_of_step_give_the_same_answers(name, state, cut):
    model = quantized(name, state)
    x = torch.from_numpy(recordings()[0].x[:100])[None]
    with torch.no_grad():
        steps, after = model.run_steps(x)
        whole, _ = model(x)
        first, middle = model(x[:, :cut])
        second, ended = model(x[:, cut:], middle)
    for y in (whole, torch.cat([first, second], 1)):
        # Where sums in another order meet a tie, one value falls on the other side: rare, and a step of a scale.
        assert float(((y - steps).abs() > 1e-3).float().mean()) < 0.01
    for entry in after:
        assert float(((ended[entry] - after[entry]).abs() > 1e-3).float().mean()) < 0.02


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_are_built_again_from_precision_and_weights(name):
    model = quantized(name, "int8")
    family, arguments = MODELS[name]
    again = with_precision(build(family, 6, 4, arguments), Precision("int8", "int8", "int8")).eval()
    again.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    x = torch.from_numpy(recordings()[0].x)[None]
    with torch.no_grad():
        assert torch.equal(again(x)[0], model(x)[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_shares_quantizers_as_the_model_does(name):
    model = quantized(name)
    pairs = [
        (n, p.follows) for n, p in build(MODELS[name][0], 6, 4, MODELS[name][1]).projections().items() if p.follows
    ]
    for made in (model, copy.deepcopy(model)):
        layers = quantized_linears(made)
        assert all(layers[reader].input is layers[source].output for reader, source in pairs)
    assert bool(pairs) == (name == "lmu")


def test_a_read_out_behind_a_sum_does_not_follow_the_mixer():
    lmu = {"channels": [2], "orders": [3], "thetas": [9.0]}
    assert build("lmu", 6, 4, {**lmu, "hidden": [6]}).projections()["readout"].follows == ""  # 6 + 6: a sum
    assert build("lmu", 6, 4, {**lmu, "hidden": [5]}).projections()["readout"].follows == "blocks.0.mixer"


@pytest.mark.parametrize("name", MODELS)
def test_what_is_wide_stays_wide(name):
    model = quantized(name)
    assert not state_grids(model)
    if name == "lmu":
        assert model.blocks[0].memory.A.dtype == torch.float32
        assert not any("memory" in layer for layer in quantized_linears(model))


@pytest.mark.parametrize(
    "precision",
    [
        Precision("int8"),
        Precision("int4"),
        Precision("int4", "int4"),
        Precision("int8", "int8", "int4"),
        Precision(state="f8"),
    ],
)
def test_formats_that_are_not_known_are_refused_by_name(precision):
    with pytest.raises(Unsupported, match=r"int4|int8|f8"):
        with_precision(build("rnn", 6, 4, {"hidden": 4}), precision)


class Outside(StreamingModel):
    """A leaky sum with a linear map on each side, as somebody else might write it."""

    def __init__(self, *, shared=False, named=True, stored=True):
        super().__init__(3, 3)
        self.into = nn.Linear(3, 3)
        self.out = self.into if shared else nn.Linear(3, 3)
        self.named, self.keeper = named, Store() if stored else nn.Identity()

    def projections(self):
        return super().projections() if self.named else {}

    def initial_state(self, batch):
        return {"sum": self.input_mean.new_zeros(batch, 3)}

    def step(self, x, state):
        total = self.keeper(0.9 * state["sum"] + self.into(x))
        return self.out(total), {"sum": total}

    def forward(self, x, state=None):
        return self.run_steps(x, state)


INT8 = Precision("int8", "int8")


@pytest.mark.parametrize(
    ("options", "precision", "message"),
    [
        ({"named": False}, INT8, r"Outside names no linear map in projections\(\)"),
        ({"shared": True}, INT8, "Outside has one linear map under the names into, out.*use two.*or leave it out"),
        (
            {"stored": False},
            Precision(state="int16"),
            r"Outside has 0 Store for its states sum.*int16: pass each",
        ),
        ({"stored": False}, Precision("int8", "int8", "int8"), "has 0 Store.*int8"),
    ],
)
def test_a_model_that_would_not_be_what_its_manifest_says_is_refused(options, precision, message):
    model = Outside(**options)
    before = [type(module) for module in model.modules()]
    with pytest.raises(Unsupported, match=message):
        with_precision(model, precision)
    assert [type(module) for module in model.modules()] == before


def test_a_shared_linear_map_that_is_left_out_stays_float():
    model = Outside(shared=True)
    model.other = nn.Linear(3, 3)
    model.projections = lambda: {"other": Projection()}
    with_precision(model, INT8)
    assert list(quantized_linears(model)) == ["other"]
    assert model.into is model.out


def test_a_store_is_rounded_whatever_it_is_called():
    assert list(state_grids(with_precision(Outside(), Precision(state="int8")))) == ["keeper"]


def test_more_inputs_than_int32_holds_products_of_are_refused():
    model = Outside()
    model.into = nn.Linear(LARGEST_WIDTH + 1, 3)
    with pytest.raises(Unsupported, match=f"into of Outside has {LARGEST_WIDTH + 1} inputs"):
        with_precision(model, INT8)


def test_a_model_is_not_quantized_twice():
    with pytest.raises(InputError, match="only a plain linear map"):
        with_precision(quantized("gru"), Precision("int8", "int8"))
