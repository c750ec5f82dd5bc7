"""Calibration: true ranges on streams that carry their state, and nothing of what fills up a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseq.data import Recording
from edgeseq.manifest import Precision
from edgeseq.models.quantized import quantized_linears, state_grids
from edgeseq.models.registry import build
from edgeseq.quant.calibrate import calibrate, quantize_model

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
