"""Sound inside the step: the exported program hears what the whole recording says, bit for bit, and what it costs."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.cli.front import front_cost, front_end
from edgeseq.export.capture import capture
from edgeseq.export.lower import call_forward, lower
from edgeseq.models.listening import Listening
from edgeseq.models.registry import build
from edgeseq.program import cost
from edgeseq.program.interpret import evaluate
from edgeseq.signal.log_mel import LogMel, log_mel

FRONT = {"rate": 8000.0, "hop": 20, "window": 64, "mels": 6, "low": 200.0}  # as many features as the families read


def rnn(front):
    torch.manual_seed(0)
    family = build("rnn", front["hop"], 2, {"cell": "tanh", "hidden": 2, "front": front})
    return capture(lower(family.eval()))


def streamed(program, x):
    """The features (T, M) that the program makes of hops (T, H), one after another."""
    step, features = evaluate(program), front_end(program).y
    states = {state.name: np.full(state.before.shape, state.initial, np.float32) for state in program.states}
    live = np.ones((1, program.x.shape[1] - x.shape[1]), np.float32)
    found = []
    for frame in x:
        values = step(np.concatenate([frame[None], live], 1), states)
        states = {state.name: values[state.after] for state in program.states}
        found.append(values[features][0])
    return np.stack(found)


def sound(frames, hop, seed=0):
    """Hops (T, H) of noise whose loudness changes, with silence in it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(frames, hop)) * 10.0 ** rng.uniform(-4, 0, (frames, 1))
    return (x * (rng.random((frames, 1)) < 0.8)).astype(np.float32)


@settings(max_examples=6)
@given(
    hop=st.integers(1, 200),
    reach=st.floats(1, 4),
    mels=st.integers(1, 12),
    frames=st.integers(1, 30),
    seed=st.integers(0, 999),
)
def test_features_that_are_streamed_are_those_of_the_whole_recording(hop, reach, mels, frames, seed):
    window = 2 * max(32, round(hop * reach / 2 + 0.5))
    front = {"rate": 8000.0, "hop": hop, "window": window, "mels": min(mels, window // 16)}
    x = sound(frames, hop, seed)
    assert np.array_equal(streamed(rnn(front), x), log_mel(LogMel.of(front), x))


def test_windows_that_are_their_hop_keep_nothing_and_are_streamed_alike():
    front = {"rate": 8000.0, "hop": 128, "window": 128, "mels": 10}
    program, x = rnn(front), sound(40, 128)
    assert [state.name for state in program.states] == ["model.layers.0.hidden"]
    assert np.array_equal(streamed(program, x), log_mel(LogMel.of(front), x))


def test_the_sizes_of_speech_are_streamed_alike():
    for front in (
        {"rate": 8000.0, "hop": 128, "window": 256},
        {"rate": 16000.0, "hop": 160, "window": 512, "mels": 64},
        {"rate": 44100.0, "hop": 441, "window": 882, "mels": 26},
    ):
        x = sound(100, front["hop"])
        assert np.array_equal(streamed(rnn(front), x), log_mel(LogMel.of(front), x))


def test_every_family_is_captured_behind_a_front_end(model):
    """Its program is the model, frame by frame, and its features are those of the recording."""
    listening = Listening(LogMel.of(FRONT), model).eval()
    program, x = capture(lower(listening)), sound(40, 20)
    rows = np.pad(x, ((0, 0), (0, listening.look_ahead > 0)), constant_values=1)
    with torch.no_grad():
        y, _ = call_forward(listening, torch.from_numpy(rows)[None], None)
    step = evaluate(program)
    states = {state.name: np.full(state.before.shape, state.initial, np.float32) for state in program.states}
    found = []
    for row in rows:
        values = step(row[None], states)
        states = {state.name: values[state.after] for state in program.states}
        found.append(values[program.y][0])
    expected = y[0].numpy()
    assert np.abs(np.stack(found) - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert np.array_equal(streamed(program, x), log_mel(LogMel.of(FRONT), x))
    part = front_end(program)
    assert [state.name for state in part.states] == ["front.heard"]
    assert {name for name in part.constants if name.startswith("model.")} == set()


def test_what_the_front_end_costs_is_counted_on_its_part_of_the_program():
    program = rnn({"rate": 8000.0, "hop": 128, "window": 256, "mels": 40, "low": 0.0})
    part, found = front_end(program), front_cost(program)
    assert part.check().y == front_end(program).y
    bins = 127  # 1 to 127: of 129 the first and the last are in no band
    window, spectrum, bands = 256, 2 * bins * 128, 2 * bins * 40
    assert found.cost.macs == window + spectrum + bands
    assert found.cost.state_bytes == 4 * 128
    assert found.cost.constant_bytes == 4 * (window + spectrum + bands + 2)  # the floor, and a decibel
    whole = cost(program)
    assert found.share == found.cost.macs / whole.macs
    inner = 2 * 40 + 2 * 2 + 2 * 2  # input, state and read-out of two tanh units
    assert whole.macs - found.cost.macs == inner + 40  # decibels are products where their mean is subtracted next
    assert found.cost.nodes < whole.nodes


def test_a_familys_own_front_is_no_part_of_the_front_end():
    def lmu(products):
        torch.manual_seed(0)
        small = {"channels": [2], "orders": [3], "thetas": [9.0], "hidden": [4], "products": products}
        return capture(lower(build("lmu", FRONT["hop"], 2, {**small, "front": FRONT}).eval()))

    plain, own = lmu(0), lmu(3)
    assert front_cost(own).cost == front_cost(plain).cost
    assert "model.front" in {node.origin for node in own.nodes}
    assert {node.origin for node in own.nodes} >= {node.origin for node in plain.nodes} >= {"front", "readout"}
    x = sound(20, FRONT["hop"])
    assert np.array_equal(streamed(own, x), log_mel(LogMel.of(FRONT), x))


def test_a_model_without_a_front_end_has_no_cost_of_one(program):
    assert front_end(program) is None
    assert front_cost(program) is None
