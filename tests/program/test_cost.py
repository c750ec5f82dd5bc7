"""What a step is said to cost: by hand, by torch's own counter, and by the formulas of the papers for every preset."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.models.registry import build, family_class, presets
from edgeseq.program import Builder, Value, cost, operator

INPUTS, OUTPUTS = 6, 7


# -- by hand ----------------------------------------------------------------------------------------------------------


def builder(*states):
    """A program on x (1, 4) with states (1, 4) of these names."""
    return Builder(Value("x", (1, 4)), [Value(name, (1, 4)) for name in states])


def constant(b, name, *shape, value=0.5):
    return b.constant(name, np.full(shape, value, np.float32))


def finished(b, y, initial=None, **after):
    return cost(b.finish(y, after, initial))


def test_a_product_that_is_added_is_one_mac_and_its_addition_is_in_it():
    b = builder("m")
    m = b.add("add", b.add("mul", "m", constant(b, "a", 4)), "x")
    found = finished(b, m, m=m)
    assert (found.macs, found.elementwise) == (4, 0)


def test_a_sum_of_two_products_is_two_macs():
    b = builder("m")
    left, right = (b.add("mul", "m", constant(b, name, 4)) for name in "ab")
    y = b.add("sub", left, right)
    found = finished(b, y, m="x")
    assert (found.macs, found.elementwise) == (8, 0)


def test_a_weighted_sum_is_as_many_macs_as_it_has_terms():
    b = builder("m")
    y = b.add("sum", b.add("mul", "m", constant(b, "c", 4)), axes=[1])
    found = finished(b, y, m="x")
    assert (found.macs, found.elementwise) == (4, 0)


@pytest.mark.parametrize("reader", ["mul", "sigmoid", "answer", "state"])
def test_a_product_that_something_else_reads_too_is_elementwise(reader):
    b = builder("m")
    product = b.add("mul", "m", constant(b, "a", 4))
    total = b.add("add", product, "x")
    y, after = total, total
    if reader == "mul":
        y = b.add("mul", product, total)
    elif reader == "sigmoid":
        y = b.add("add", b.add("sigmoid", product), total)
    elif reader == "answer":
        y = product
    else:
        after = product
    found = finished(b, y, m=after)
    assert found.macs == 0
    assert found.elementwise == 4 * {"mul": 3, "sigmoid": 4}.get(reader, 2)


def test_a_second_addition_of_a_product_is_counted():
    b = builder("m")
    product = b.add("mul", "m", constant(b, "a", 4))
    y = b.add("add", b.add("add", product, "x"), b.add("sub", product, "x"))
    found = finished(b, y, m="x")
    assert (found.macs, found.elementwise) == (4, 8)


def test_a_product_is_followed_through_what_only_moves_it():
    b = builder("m")
    product = b.add("mul", "m", constant(b, "a", 4))
    square = b.add("transpose", b.add("reshape", product, shape=[1, 2, 2]), axes=[0, 2, 1])
    halves = [b.add("slice", b.add("reshape", square, shape=[1, 4]), axis=1, start=i, stop=i + 2) for i in (2, 0)]
    moved = b.add("concat", *halves, axis=1)
    y = b.add("add", moved, "x")
    found = finished(b, y, m="x")
    assert (found.macs, found.elementwise) == (4, 0)
    assert finished(b, b.add("add", b.add("tanh", moved), y), m="x").macs == 0


@pytest.mark.parametrize(
    ("shape", "value", "macs"),
    [((2, 4), 1.0, 0), ((4,), 1.0, 4), ((2, 4), 0.5, 8), ((4,), 0.0, 4)],
    ids=["repeats", "a gain of one", "many gains", "a gain of zero"],
)
def test_only_ones_that_make_the_result_larger_repeat(shape, value, macs):
    b = builder("m")
    y = b.add("add", b.add("mul", "m", constant(b, "c", *shape, value=value)), "x")
    first = b.add("slice", y, axis=0, start=0, stop=1)
    assert finished(b, first, m="x").macs == macs


def test_a_mask_multiplies_nothing():
    b = builder("m")
    y = b.add("add", b.add("mul", "m", b.constant("mask", np.float32([0, 1, 1, 0]))), "x")
    found = finished(b, y, m="x")
    assert (found.macs, found.elementwise) == (0, 8)


def complex_system(b, modes, channels):
    """s ← a s + u, y = Re Σ c s + D u with s (1, 2, M, H), and the product with a as it is written in real numbers."""
    shape = (modes, channels)
    swapped = b.add("concat", *(b.add("slice", "s", axis=1, start=i, stop=i + 1) for i in (1, 0)), axis=1)
    turned = b.add(
        "add", b.add("mul", "s", constant(b, "re", *shape)), b.add("mul", swapped, constant(b, "im", 2, *shape))
    )
    u = b.add("reshape", "x", shape=[1, 1, 1, channels])
    s = b.add("add", turned, b.add("mul", u, b.constant("onto", np.float32([1, 0]).reshape(2, 1, 1))))
    read = b.add(
        "reshape", b.add("sum", b.add("mul", s, constant(b, "c", 2, *shape)), axes=[1, 2]), shape=[1, channels]
    )
    return s, b.add("add", read, b.add("mul", "x", constant(b, "d", channels)))


@given(modes=st.integers(1, 6), channels=st.integers(1, 6))
def test_a_diagonal_state_space_costs_six_macs_a_mode_and_channel_and_one_for_d(modes, channels):
    b = Builder(Value("x", (1, channels)), [Value("s", (1, 2, modes, channels))])
    s, y = complex_system(b, modes, channels)
    found = cost(b.finish(y, {"s": s}))
    assert found.macs == 6 * modes * channels + channels
    assert found.elementwise == 2 * channels + 2 * modes * channels  # the input put on the real part, and its addition


def test_parameters_are_passed_on():
    b = builder()
    program = b.finish(b.add("relu", "x"), {})
    assert cost(program).parameters is None
    assert cost(program, 12).parameters == 12


# -- spikes -----------------------------------------------------------------------------------------------------------


def fired(b, value="x", high=1.0, low=0.0):
    """Where ``value`` is above 0.5."""
    return b.add(
        "where",
        b.add("greater", value, constant(b, "threshold")),
        constant(b, f"high_{high}", value=high),
        constant(b, f"low_{low}", value=low),
    )


def weights(b, rows=3):
    return constant(b, "w", rows, 4)


def test_a_linear_map_of_spikes_accumulates():
    b = builder()
    spikes = b.add("reshape", b.add("transpose", b.add("reshape", fired(b), shape=[2, 2]), axes=[1, 0]), shape=[1, 4])
    both = b.add(
        "concat",
        b.add("slice", spikes, axis=1, start=0, stop=2),
        b.add("slice", spikes, axis=1, start=1, stop=3),
        axis=1,
    )
    found = finished(b, b.add("linear", both, weights(b)))
    assert (found.macs, found.acs) == (0, 12)


@pytest.mark.parametrize(("high", "low"), [(0.5, 0.0), (1.0, -1.0), (2.0, 0.0)])
def test_values_other_than_zero_and_one_are_no_spikes(high, low):
    b = builder()
    found = finished(b, b.add("linear", fired(b, high=high, low=low), weights(b)))
    assert (found.macs, found.acs) == (12, 0)


@pytest.mark.parametrize(
    ("spoil", "acs"), [(None, 12), ("add", 0), ("concat", 0), ("mul", 0), ("mul spikes", 12), ("quantize", 12)]
)
def test_what_is_made_of_spikes_is_followed_as_long_as_it_is_zero_or_one(spoil, acs):
    b = builder()
    value = fired(b)
    if spoil == "add":
        value = b.add("add", value, value)
    elif spoil == "concat":
        half = b.add("slice", value, axis=1, start=0, stop=2)
        value = b.add("concat", half, b.add("slice", "x", axis=1, start=0, stop=2), axis=1)
    elif spoil == "mul":
        value = b.add("mul", value, "x")
    elif spoil == "mul spikes":
        value = b.add("mul", value, fired(b, b.add("tanh", "x")))
    elif spoil == "quantize":
        grid = {"scale": 1 / 256, "zero": -128}
        value = b.add("dequantize", b.add("quantize", value, **grid), **grid)
    found = finished(b, b.add("linear", value, weights(b)))
    assert (found.acs, found.macs) == (acs, 12 - acs)


@pytest.mark.parametrize(("after", "initial", "acs"), [("spikes", 0.0, 12), ("spikes", 0.5, 0), ("x", 0.0, 0)])
def test_spikes_may_be_carried_to_the_next_step(after, initial, acs):
    b = builder("s")
    y, spikes = b.add("linear", "s", weights(b)), fired(b)
    found = finished(b, y, {"s": initial}, s=spikes if after == "spikes" else after)
    assert (found.acs, found.macs) == (acs, 12 - acs)


def test_states_that_pass_spikes_on_are_spikes_only_if_all_of_them_are():
    for last, acs in (("spikes", 12), ("x", 0)):
        b = builder("s", "t")
        y, spikes = b.add("linear", "t", weights(b)), fired(b)
        assert finished(b, y, s=spikes if last == "spikes" else last, t="s").acs == acs


def test_a_product_of_a_spike_that_is_added_accumulates():
    b = builder("v")
    v = b.add("sub", "v", b.add("mul", fired(b), constant(b, "threshold")))
    found = finished(b, v, v=v)
    assert (found.acs, found.macs, found.elementwise) == (4, 0, 8)  # the comparison and the choice


# -- every preset -----------------------------------------------------------------------------------------------------


def lmu(a, _):
    width = INPUTS + a["products"]
    total = 2 * INPUTS * a["products"]
    for u, q, hidden in zip(a["channels"], a["orders"], a["hidden"], strict=True):
        total += width * u + u * (q**2 + q) + (u * q + width) * hidden  # encoder; A m + B u; mixer
        width = hidden
    return total + width * OUTPUTS


GATES = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}


def recurrent(a, hidden, kept):
    """Each gate reads the input and the hidden units; GRU: r ⊙ b, z ⊙ (h - n); LSTM: f ⊙ c, i ⊙ g."""
    total, width, gates = 0, INPUTS, GATES[a["cell"]]
    for _ in range(a["layers"]):
        total += gates * (hidden * width + kept) + (2 * hidden if gates > 1 else 0)
        width = hidden
    return total + width * OUTPUTS


def rnn(a, _):
    return recurrent(a, a["hidden"], a["hidden"] ** 2)


def sparse_rnn(a, model):
    """Of the recurrent matrix the tiles that hold a connection, of a node or, where those are small, 8 units a side."""
    hidden, block = a["nodes"] * a["block"], a["block"]
    side = block if block >= 8 else 8 // block * block
    units = np.kron(model.wiring.numpy(), np.ones((block, block)))
    edges = [slice(start, min(start + side, hidden)) for start in range(0, hidden, side)]
    kept = sum(units[row, column].size for row in edges for column in edges if units[row, column].any())
    return recurrent(a, hidden, kept if kept <= 0.9 * hidden**2 else hidden**2)


def s4d(a, _):
    hidden, modes = a["hidden"], a["state"] // 2
    layer = 6 * modes * hidden + hidden + 2 * hidden**2 + hidden  # a s, Re c s, D u, mixer, gate
    average = OUTPUTS if a["readout"] == "average" else 0
    norms = (a["layers"] + a["prenorm"]) * hidden if a["norm"] == "batch" else 0  # affine maps when not training
    return INPUTS * hidden + a["layers"] * layer + norms + hidden * OUTPUTS + average


def lmu_cell(a, _):
    total, width, u, q, hidden = 0, INPUTS, a["channels"], a["order"], a["hidden"]
    for _layer in range(a["layers"]):
        read = width + ("hidden" in a["links"]) * hidden + ("memory" in a["links"]) * u * q
        mixed = u * q + a["input_to_hidden"] * width + a["recurrent"] * hidden
        total += read * u + u * (q**2 + q) + mixed * hidden
        width = hidden
    return total + width * OUTPUTS


def spiking_lmuformer(a, model):
    """What is no product with a spike: the first convolution, norms that nothing takes in, A m, the read-out."""
    dim, size = a["dim"], a["channels"] * a["order"]
    norms = 2 * dim + a["blocks"] * (2 * dim + size)
    live = model.look_ahead > 0  # masks what is averaged
    pooled = {"average": 1 + live, "mean": 2 * live}.get(a["readout"], 0)
    return 3 * INPUTS * dim + norms + a["blocks"] * size * a["order"] + pooled * OUTPUTS


def spiking_lmuformer_accumulates(a, _):
    dim, u, size, hidden = a["dim"], a["channels"], a["channels"] * a["order"], round(a["ratio"] * a["dim"])
    block = dim * u + size + (size + dim) * dim + dim**2 + 2 * dim * hidden  # encoder, B u, mixer, projection, the rest
    return 3 * a["stages"] * dim**2 + a["blocks"] * block + dim * OUTPUTS  # of the tokenizer all but the first


def lmuformer(a, _):
    """Convolutions and the norms behind their ReLUs; encoder, A m + B u, mixer, projection, channel mixer; read-out."""
    dim, u, q = a["dim"], a["channels"], a["order"]
    tokens = 3 * INPUTS * dim + 3 * a["stages"] * dim**2 + a["stages"] * dim
    block = dim * u + u * (q**2 + q) + (u * q + dim) * dim + dim**2 + 2 * a["ratio"] * dim**2
    pooled = {"last": 0, "average": OUTPUTS, "mean": OUTPUTS if a["causal"] else 2 * OUTPUTS}[a["readout"]]
    return tokens + a["blocks"] * block + dim * OUTPUTS + pooled


def l2mu(a, _):
    """What no spike is multiplied with: the encoder's weights, or else E_x and W_x; a read-out that forgets."""
    read = a["population"] if a["encoder"] == "single" else a["memories"] + a["hidden"]
    return INPUTS * read + OUTPUTS * (a["readout"] == "leaky")


def l2mu_accumulates(a, _):
    """E_h, E_m, W_h and W_m; E_x and W_x, if x are spikes; A s_m + B s_u; W_o."""
    m, q, hidden = a["memories"], a["order"], a["hidden"]
    read = hidden + m * q + (INPUTS * a["population"] if a["encoder"] == "single" else 0)
    return (m + hidden) * read + m * (q**2 + q) + hidden * OUTPUTS


FORMULAS = {
    "lmu": lmu,
    "rnn": rnn,
    "sparse_rnn": sparse_rnn,
    "s4d": s4d,
    "lmu_cell": lmu_cell,
    "spiking_lmuformer": spiking_lmuformer,
    "lmuformer": lmuformer,
    "l2mu": l2mu,
}
ACCUMULATES = {"spiking_lmuformer": spiking_lmuformer_accumulates, "l2mu": l2mu_accumulates}  # of those that spike


@pytest.fixture(scope="module", params=sorted(presets()))
def preset(request):
    """Family, arguments (those left out too), a model and its program, of each preset."""
    found = presets()[request.param]
    torch.manual_seed(0)
    model = build(found.family, INPUTS, OUTPUTS, found.arguments).eval()
    accepted = inspect.signature(family_class(found.family)).parameters.values()
    defaults = {p.name: p.default for p in accepted if p.kind is p.KEYWORD_ONLY}
    return found.family, {**defaults, **found.arguments}, model, capture(lower(model, "recurrence"))


def test_the_macs_of_a_preset_are_those_of_its_equations(preset):
    family, arguments, model, program = preset
    assert family in FORMULAS, f"write down what a step of {family} costs"
    found = cost(program)
    assert found.macs == FORMULAS[family](arguments, model)
    assert found.acs == (ACCUMULATES[family](arguments, model) if family in ACCUMULATES else 0)


def test_the_linear_part_is_what_torch_counts(preset):
    _, _, model, program = preset
    values = program.values
    ours = sum(
        operator(node.operator).macs([values[name].shape for name in node.inputs], node.output.shape)
        for node in program.nodes
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.step(torch.zeros(1, INPUTS), model.initial_state(1))
    assert counter.get_total_flops() == 2 * ours
