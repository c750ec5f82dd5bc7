"""Calibration: true ranges on streams that carry their state, and nothing of what fills up a batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeseq.data import Recording
from edgeseq.errors import Unsupported
from edgeseq.export.integer import IntegerLinear
from edgeseq.manifest import Precision
from edgeseq.models.contract import Projection, Store
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.registry import build
from edgeseq.program.quantized import QLinear
from edgeseq.quant.calibrate import calibrate, coarse, quantize_model

LMU = {"channels": [3, 2], "orders": [5, 4], "thetas": [20.0, 40.0], "hidden": [12, 9]}


def drawn(*lengths: int) -> list[Recording]:
    rng = np.random.default_rng(1)
    walks = [np.cumsum(rng.normal(size=(n, 6)), 0).astype(np.float32) for n in lengths]
    return [Recording(x, np.zeros(len(x), np.int16), str(i), str(i)) for i, x in enumerate(walks)]


@pytest.fixture
def lmu():
    torch.manual_seed(0)
    return build("lmu", 6, 4, LMU).eval()


def test_ranges_are_the_true_least_and_greatest_of_the_streamed_values(lmu):
    streams = drawn(40, 90, 61)
    ranges = calibrate(lmu, streams)
    seen, states = [], []
    with torch.no_grad():
        for recording in streams:
            state = lmu.initial_state(1)
            for frame in torch.from_numpy(recording.x):
                x = lmu.normalize(frame[None])
                state["blocks.0.memory"] = lmu.blocks[0].memory.step(lmu.blocks[0].encoder(x), state["blocks.0.memory"])
                states.append(state["blocks.0.memory"])
                seen.append(torch.cat([state["blocks.0.memory"].flatten(1), x], 1))
    everything = torch.cat(seen)
    assert ranges.inputs["blocks.0.mixer"] == pytest.approx((float(everything.min()), float(everything.max())))
    torch.testing.assert_close(ranges.states["blocks.0.memory.store"], torch.cat(states).abs().amax((0, 1)))


def test_a_long_recording_does_not_change_what_the_ended_ones_gave(lmu):
    short, longer = drawn(30), drawn(30, 400)
    narrow, wide = calibrate(lmu, short), calibrate(lmu, longer)
    for name, (low, high) in narrow.inputs.items():
        assert wide.inputs[name][0] <= low + 1e-4
        assert wide.inputs[name][1] >= high - 1e-4


def test_zeros_behind_the_end_of_a_recording_are_not_seen(lmu):
    rng = np.random.default_rng(0)
    away = [rng.normal(size=(n, 6)).astype(np.float32) + 20 for n in (20, 60)]  # never near 0
    ranges = calibrate(lmu, [Recording(x, np.zeros(len(x), np.int16), str(i), str(i)) for i, x in enumerate(away)])
    assert ranges.inputs["blocks.0.encoder"][0] > 10


def test_ticks_once_for_each_frame_of_the_longest_and_leaves_no_hook(lmu):
    ticks = []
    calibrate(lmu, drawn(15, 40), lambda: ticks.append(1))
    assert len(ticks) == 40
    assert not any(module._forward_hooks for module in lmu.modules())


def test_rectified_answers_begin_at_zero_and_followers_share_their_range(lmu):
    model = quantize_model(lmu, Precision("int8", "int8"), calibrate(lmu, drawn(50)))
    layers = quantized_linears(model)
    assert int(layers["blocks.0.mixer"].output.zero) == -128
    assert layers["blocks.1.encoder"].input is layers["blocks.0.mixer"].output
    assert layers["readout"].input is layers["blocks.1.mixer"].output
    assert layers["blocks.0.encoder"].input is not layers["blocks.0.mixer"].input


def test_a_state_has_a_scale_for_each_mode_and_an_int8_reader_takes_the_grids(lmu):
    streams = drawn(50)
    grids = state_grids(quantize_model(lmu, Precision("int8", "int8", "int16"), calibrate(lmu, streams)))
    assert [tuple(grid.scale.shape) for grid in grids.values()] == [(5,), (4,)]
    gru = build("rnn", 6, 4, {"hidden": 8, "layers": 2}).eval()
    model = quantize_model(gru, Precision("int8", "int8", "int8"), calibrate(gru, streams))
    grids, layers = state_grids(model), quantized_linears(model)
    for reader, store in [("layers.0.from_hidden", 0), ("layers.1.from_input", 0), ("readout", 1)]:
        assert layers[reader].input.scale == grids[f"layers.{store}.store"].scale
        assert layers[reader].input.zero == 0


def test_a_linear_map_that_no_step_calls_is_refused_until_it_is_left_out(lmu):
    ordinary = lmu.projections()
    lmu.helper = nn.Linear(12, 4)
    ranges = calibrate(lmu, drawn(20))
    with pytest.raises(
        Unsupported, match=r"helper is never called in step: leave it out by overriding projections\(\)"
    ):
        quantize_model(lmu, Precision("int8", "int8"), ranges)
    assert not quantized_linears(lmu)
    lmu.projections = lambda: ordinary
    assert "helper" not in quantized_linears(quantize_model(lmu, Precision("int8", "int8"), ranges))


def test_a_store_that_no_step_calls_is_refused_where_states_are_rounded(lmu):
    lmu.spare = Store()
    ranges = calibrate(lmu, drawn(20))
    with pytest.raises(Unsupported, match="spare is never called in step"):
        quantize_model(lmu, Precision("int8", "int8", "int16"), ranges)
    assert quantized_linears(quantize_model(lmu, Precision("int8", "int8"), ranges))


def test_answers_finer_than_their_products_are_refused_by_the_name_of_the_layer():
    gru = build("rnn", 6, 4, {"hidden": 8}).eval()
    ranges = calibrate(gru, drawn(20))
    ranges.outputs["readout"] = (0.0, 1e-6)
    with pytest.raises(Unsupported, match=r"readout answers on a scale of .*train longer, or leave it out"):
        quantize_model(gru, Precision("int8", "int8"), ranges)


def test_mean_squares_are_those_of_the_streamed_values(lmu):
    streams = drawn(25, 40)
    ranges = calibrate(lmu, streams)
    x = torch.cat([lmu.normalize(torch.from_numpy(recording.x)) for recording in streams])
    rms = ranges.squares["inputs"]["blocks.0.encoder"].root
    assert float(rms) == pytest.approx(float(x.square().mean().sqrt()), rel=1e-4)
    assert ranges.squares["states"]["blocks.0.memory.store"].root.shape == (5,)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_ordinary_ranges_give_nothing_to_say(lmu, weights):
    ranges = calibrate(lmu, drawn(60))
    assert coarse(quantize_model(lmu, Precision(weights, "int8", "int8"), ranges), ranges) == []


def test_a_step_above_the_rms_is_said_with_the_map_its_range_and_the_mend(lmu):
    quiet = drawn(*[200] * 100)
    for recording in quiet:
        recording.x[:] *= 1e-3
    quiet[0].x[7, 0] = 5.0  # once
    ranges = calibrate(lmu, quiet)
    said = coarse(quantize_model(lmu, Precision("int8", "int8"), ranges), ranges)
    assert said
    first = next(message for message in said if message.startswith("blocks.0.encoder: its inputs lie between"))
    assert " and 5, so a step of int8 is 0.0198" in first
    assert "projections()" in first


def test_a_state_that_int8_rounds_away_is_said_and_int16_keeps_it():
    torch.manual_seed(0)
    gru = build("rnn", 6, 4, {"hidden": 8}).eval()
    for kind, count in (("int8", 1), ("int16", 0)):
        model = copy.deepcopy(gru)
        ranges = calibrate(model, drawn(30))
        ranges.states["layers.0.store"].fill_(300.0)
        said = coarse(quantize_model(model, Precision("int8", "int8", kind), ranges), ranges)
        states = [message for message in said if "of the state" in message]
        assert len(states) == count
        assert all("1 of 1 scales" in message and "--state int16" in message for message in states)


def test_weights_that_stand_in_the_shadow_of_one_are_said_with_how_far_they_are_off():
    torch.manual_seed(0)
    gru = build("rnn", 6, 4, {"hidden": 32}).eval()
    with torch.no_grad():
        gru.readout.weight[:, 0] = 12 * gru.readout.weight.abs().max()
        gru.readout.weight[:, 1:] *= 3
    ranges = calibrate(gru, drawn(30))
    for weights in ("int8", "int4"):
        model = quantize_model(copy.deepcopy(gru), Precision(weights, "int8"), ranges)
        said = [message for message in coarse(model, ranges) if message.startswith("readout: its weights")]
        wanted, layer = gru.readout.weight, quantized_linears(model)["readout"]
        error = ((layer.parts()[0] - wanted).norm() / wanted.norm()).item()
        assert len(said) == (error > 0.2) == (weights == "int4")
        assert all(f"in 4 bits are off by {100 * error:.0f} %" in message for message in said)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(reach=st.floats(-12, 3), weight=st.floats(-9, 3), bias=st.floats(-9, 6), rectified=st.booleans())
def test_what_is_accepted_an_integer_operator_computes(reach, weight, bias, rectified):
    torch.manual_seed(0)
    gru = build("rnn", 2, 2, {"hidden": 3}).eval()
    with torch.no_grad():
        gru.readout.weight.mul_(10**weight)
        gru.readout.bias.mul_(10**bias)
        gru.layers[0].from_input.weight.mul_(10**weight)
    gru.projections = lambda: {"layers.0.from_input": Projection(), "readout": Projection(rectified=rectified)}
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(30, 2)) * 10**reach).astype(np.float32)
    try:
        model = quantize_model(gru, Precision("int8", "int8"), calibrate(gru, [Recording(x, np.zeros(30), "a", "a")]))
    except Unsupported:
        return
    for layer in quantized_linears(model).values():
        integer = IntegerLinear(layer)
        grids = {"x_scale": integer.x[0], "x_zero": integer.x[1], "y_scale": integer.y[0], "y_zero": integer.y[1]}
        constants = [t.numpy() for t in (integer.weight, integer.bias, integer.weight_scale)]
        QLinear().check_constants([None, *constants], grids)
        given_x = torch.randn(20, layer.in_features) * layer.input.scale * 100
        with torch.no_grad():
            assert (integer(given_x) - layer(given_x)).abs().max() <= 1.01 * layer.output.scale  # a tie may fall apart
