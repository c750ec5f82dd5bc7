"""Spiking programs in the proof: frames beside a threshold are excused, all others are not; and counts of flips."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseq.devices.check import check_folder, require
from edgeseq.devices.compare import (
    ANSWERS_TOLERANCE,
    SPIKE_TIE,
    Comparison,
    Ties,
    jumps,
    parts_of,
    rounds,
    spiking,
    steps_of,
)
from edgeseq.devices.engines import available, open_engine
from edgeseq.devices.random_states import RANDOM_FRAMES, random_states
from edgeseq.errors import GateFailed, Unsupported
from edgeseq.folder import open_folder
from edgeseq.manifest import state_table
from edgeseq.program import Builder, Program, Value, interpret

CHANNELS, SIZE, LABELS = 3, 8, 4


def spiking_program(
    threshold: float = 1.0, *, alpha: float | None = None, delay: bool = True, seed: int = 0, int8: bool = False
) -> Program:
    """x → currents (on an int8 grid, if wanted) → neurons; the answer is a map of a trace of their spikes."""
    rng = np.random.default_rng(seed)
    names = ["membrane"] if alpha is None else ["current", "membrane"]
    b = Builder(Value("x", (1, CHANNELS)), [Value(name, (1, SIZE)) for name in (*names, "trace")])
    current = b.add("linear", "x", b.constant("w", rng.normal(0, 0.7, (SIZE, CHANNELS)).astype(np.float32)))
    if int8:
        current = b.add("dequantize", b.add("quantize", current, scale=0.0625, zero=0), scale=0.0625, zero=0)
    decays = [0.9] if alpha is None else [alpha, 0.9]
    held = [b.constant(f"c{i}", np.array(value, np.float32)) for i, value in enumerate([*decays, threshold])]
    rule = {"reset": "subtract", "delay": delay, "inclusive": False}
    b.origin = "neurons"
    spikes, *after = b.add_all("leaky" if alpha is None else "synaptic", current, *names, *held, **rule)
    trace = b.add("add", b.add("mul", "trace", b.constant("slow", np.float32([0.95]))), spikes)
    y = b.add("linear", trace, b.constant("v", rng.normal(0, 0.4, (LABELS, SIZE)).astype(np.float32)))
    return b.finish(y, dict(zip([*names, "trace"], [*after, trace], strict=True)))


def near(program: Program, membrane: float, current: float = 0.0) -> bool:
    """Whether a step from this membrane is near a tie; every neuron but the first is at rest."""
    ties = Ties()
    states = {state.name: np.zeros(state.before.shape, np.float32) for state in program.states}
    states["membrane"][0, 0] = membrane
    if "current" in states:
        states["current"][0, 0] = current
    interpret(program, ties.watch)(np.zeros((1, CHANNELS), np.float32), states)
    return ties.near


# -- what is near a tie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.5, 1.0, 30.0])
def test_a_frame_is_near_a_tie_where_the_new_membrane_is_beside_its_threshold(threshold):
    program = spiking_program(threshold, delay=False)
    at = threshold / 0.9
    width = SPIKE_TIE * max(1.0, threshold) / 0.9
    for by, expected in [(0, True), (0.8, True), (-0.8, True), (1.3, False), (-1.3, False), (1e4, False)]:
        assert near(program, at + by * width) is expected


def test_the_membrane_of_a_late_reset_counts_after_the_reset_and_the_one_it_came_from_does_not():
    program = spiking_program(1.0)
    assert near(program, 2 / 0.9)  # resets: 2 - 1 is the threshold
    assert not near(program, np.nextafter(np.float32(1), np.float32(2)))  # given, so both engines see it as it is


def test_the_synapse_is_part_of_the_membrane():
    program = spiking_program(1.0, alpha=0.5)
    assert near(program, 0.5 / 0.9, 1.0)
    assert not near(program, 0.5 / 0.9, 1.1)


def test_a_frame_begins_away_from_ties():
    ties, program = Ties(), spiking_program()
    states = {state.name: np.full(state.before.shape, 2 / 0.9, np.float32) for state in program.states}
    interpret(program, ties.watch)(np.zeros((1, CHANNELS), np.float32), states)
    assert ties.near
    ties.clear()
    assert not ties.near


def test_a_program_that_spikes_jumps_and_has_no_bound_and_rounds_nothing(programs):
    plain, float32, int8 = programs["leaky"](), spiking_program(), spiking_program(int8=True)
    assert [(rounds(p), spiking(p), jumps(p)) for p in (plain, float32, int8)] == [
        (False, False, False),
        (False, True, True),
        (True, True, True),
    ]
    assert [steps_of(p) for p in (plain, float32, int8)] == [0.0, np.inf, np.inf]


# -- the links ---------------------------------------------------------------------------------------------------------


def compared(frames) -> Comparison:
    comparison = Comparison(parts_of(2, [("v", 3)]))
    for difference, beside in frames:
        comparison.add(np.float64([2, 0, 1, 1, 1]), np.float64([2, 0, 1, 1, 1]) + difference, beside)
    return comparison


SAME, FLIP = (np.zeros(5), False), np.float64([0, 0, -1, 0, 0])


def test_a_flip_beside_a_threshold_is_excused_whatever_it_comes_to_and_elsewhere_it_is_not():
    link = compared([SAME] * 99 + [(30 * FLIP, True)]).link("x", np.inf)
    assert (link.passed, link.error) == (True, 0.0)
    assert link.note == "equal; 1 frame spiked or rounded the other way at a tie (by 3.0e+01)"
    for exact in (True, False):
        assert not compared([SAME] * 99 + [(FLIP, False)]).link("x", np.inf, exact=exact).passed


def test_flips_are_rare_and_what_is_not_a_number_is_none():
    assert not compared([SAME] * 97 + [(FLIP, True)] * 3).link("x", np.inf).passed
    for by in (np.nan, np.inf):
        assert not compared([SAME] * 99 + [(by * np.ones(5), True)]).link("x", np.inf).passed
        assert not compared([SAME] * 999 + [(by * np.ones(5), True)]).link("x", np.inf, exact=False).passed


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.6])
def test_a_right_folder_with_neurons_holds_in_every_engine_that_rounds_as_it_does(make_folder, alpha, int8):
    folder = make_folder(spiking_program(alpha=alpha, int8=int8))
    engines = ["litert", "onnxruntime", "numpy", *([] if int8 else ["litert-builtin"])]
    links = check_folder(folder, engines)
    assert [link for link in links if not link.passed] == []
    for what in ("teacher-forced", "random states"):
        forced = [link for link in links if link.name.endswith(what)]
        assert len(forced) == len(engines)
        assert all(link.error <= 1e-5 and link.gate != "answers" for link in forced)
    assert {link.frames for link in links if link.name.endswith("random states")} == {RANDOM_FRAMES}
    free = [link for link in links if link.name.endswith("free-running")]
    assert all((link.gate, link.tolerance) == ("answers", ANSWERS_TOLERANCE) for link in free)
    assert any(link.name == "program wide states" for link in links) is int8


@pytest.mark.parametrize("engine", ["litert-builtin", "tflite-runtime"])
def test_int8_neurons_are_refused_by_name_where_an_engine_rounds_in_its_own_way(make_folder, programs, engine):
    folder = make_folder(spiking_program(int8=True))
    with pytest.raises(Unsupported, match=f"{engine} rounds int8 layers in its own way, and other neurons would fire"):
        open_engine(folder, engine)
    with pytest.raises(Unsupported, match="use a float32 model"):
        check_folder(folder, [engine])
    if engine == "litert-builtin":
        for right in (spiking_program(), programs["leaky"]()):
            assert open_engine(make_folder(right, f"right{right.nodes[-1].operator}{len(right.nodes)}"), engine)


def test_what_an_engine_of_its_own_refuses_goes_to_the_next_one(make_folder, monkeypatch):
    """As on a board whose only LiteRT is tflite-runtime, here the same interpreter under its name."""
    import ai_edge_litert.interpreter as same

    monkeypatch.setitem(sys.modules, "tflite_runtime", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", same)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("sys.executable", "/no/such/python")  # in a process of its own nobody plays tflite-runtime
    int8, float32 = (make_folder(spiking_program(int8=int8), f"int8{int8}") for int8 in (True, False))
    assert open_engine(float32).name == "tflite-runtime"
    assert available(int8) == ("numpy",)
    assert open_engine(int8).name == "numpy"
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert {link.name.split()[0] for link in check_folder(int8, frames=50)} == {"program", "onnxruntime"}


# -- behind neurons that are silent ------------------------------------------------------------------------------------


def layered_program(*, alpha: float | None = None, **how) -> Program:
    """Two populations, the second fed by the spikes of the first, of which two have a threshold out of reach."""
    rng = np.random.default_rng(3)
    first = ["u"] if alpha is None else ["i", "u"]
    b = Builder(Value("x", (1, CHANNELS)), [Value(name, (1, SIZE)) for name in (*first, "h")])
    rule = {"reset": "subtract", "delay": True, "inclusive": False, **how}
    threshold = np.ones((1, SIZE), np.float32)
    threshold[0, SIZE - 2 :] = 1e3
    beta = b.constant("beta", np.array(0.9, np.float32))
    decays = [beta] if alpha is None else [b.constant("alpha", np.array(alpha, np.float32)), beta]
    current = b.add("linear", "x", b.constant("w", rng.normal(0, 0.7, (SIZE, CHANNELS)).astype(np.float32)))
    held = [*decays, b.constant("u.threshold", threshold)]
    spikes, *after = b.add_all("leaky" if alpha is None else "synaptic", current, *first, *held, **rule)
    current = b.add("linear", spikes, b.constant("between", rng.normal(0, 0.5, (SIZE, SIZE)).astype(np.float32)))
    level = b.constant("h.threshold", np.array(1, np.float32))
    spikes, h = b.add_all("leaky", current, "h", beta, level, **rule)
    y = b.add("linear", spikes, b.constant("v", rng.normal(0, 0.4, (LABELS, SIZE)).astype(np.float32)))
    return b.finish(y, {**dict(zip(first, after, strict=True)), "h": h})


@pytest.mark.parametrize(
    ("file", "engine", "how"),
    [
        ("tflite", "litert", {}),
        ("tflite", "litert-builtin", {"reset": "none"}),
        ("onnx", "onnxruntime", {"reset": "zero", "delay": False, "inclusive": True}),
        ("onnx", "onnxruntime", {"reset": "subtract_decayed"}),
        ("tflite", "litert", {"alpha": 0.6, "reset": "zero"}),
    ],
)
def test_a_wrong_weight_behind_a_neuron_that_no_golden_frame_made_fire_is_found_by_random_states(
    make_folder, file, engine, how
):
    program = layered_program(**how)
    assert [link for link in check_folder(make_folder(program, "right"), [engine]) if not link.passed] == []
    between = program.constants["between"].copy()
    between[1, SIZE - 1] += 0.01
    changed = replace(program, constants={**program.constants, "between": between})
    links = check_folder(make_folder(program, "wrong", **{file: changed}), [engine])
    assert [link.name for link in links if not link.passed] == [f"{engine} random states"]
    with pytest.raises(GateFailed, match=f"{engine} random states does not hold over {RANDOM_FRAMES} frames"):
        require(links)


def test_random_states_are_in_the_ranges_of_what_they_are_and_the_same_every_time(make_folder):
    program = delayed_program()
    manifest, x = open_folder(make_folder(program)).manifest, np.eye(CHANNELS, dtype=np.float32)
    largest = np.linspace(0, 2, manifest.state_size, dtype=np.float32)
    largest[0] = np.nan
    drawn, frames = (np.stack(rows) for rows in zip(*random_states(program, manifest, largest, x), strict=True))
    again = random_states(program, manifest, largest, x)
    assert all(np.array_equal(state, one) for state, (one, _) in zip(drawn, again, strict=True))
    assert drawn.shape == (RANDOM_FRAMES, manifest.state_size)
    assert {tuple(frame) for frame in frames} == {tuple(row) for row in x}
    parts = {e.name: slice(e.offset, e.offset + e.size) for e in manifest.states}
    past, membrane, trace = (drawn[:, parts[name]] for name in ("past", "membrane", "trace"))
    assert set(np.unique(past)) == {0, 1}
    assert 0.4 < past.mean() < 0.6
    threshold = program.constants["threshold"]
    fires = membrane * 0.9 >= threshold
    assert ((fires.mean(0) > 0.2) & (fires.mean(0) < 0.8)).all()
    assert (membrane.min(0) < -0.9 * threshold).all()
    bound = np.maximum(largest[parts["trace"]], 0.1)
    assert (np.abs(trace) <= bound).all()
    assert (np.abs(trace).max(0) > 0.9 * bound).all()
    assert (trace < 0).any(0).all()


def delayed_program() -> Program:
    """Neurons of two thresholds whose spikes come a frame later, and a trace of them."""
    b = Builder(Value("x", (1, CHANNELS)), [Value(name, (1, CHANNELS)) for name in ("past", "membrane", "trace")])
    held = [b.constant("beta", np.array(0.9, np.float32)), b.constant("threshold", np.float32([[0.5, 1, 4]]))]
    spikes, after = b.add_all("leaky", "x", "membrane", *held, reset="zero", delay=False, inclusive=True)
    trace = b.add("add", b.add("mul", "trace", b.constant("slow", np.float32([0.95]))), "past")
    y = b.add("linear", trace, b.constant("v", np.eye(LABELS, CHANNELS, dtype=np.float32)))
    return b.finish(y, {"past": spikes, "membrane": after, "trace": trace})


def test_neurons_that_stand_still_are_named_with_the_mend(make_folder):
    """Spikes of a threshold out of reach. That the export is not to blame is said of neurons alone."""
    program = delayed_program()
    high = replace(program, constants={**program.constants, "threshold": np.full((1, CHANNELS), 1e6, np.float32)})
    states = state_table((state.name, state.before.shape, 0.0) for state in high.states)
    links = check_folder(make_folder(high, states=states), ["litert"])
    with pytest.raises(GateFailed, match="neurons that never fired or moved: past") as raised:
        require(link for link in links if link.name.endswith("state moves"))
    assert "never changed: past, trace" in str(raised.value)
    assert "train longer, lower the threshold or raise the gain" in str(raised.value)
    assert "--data" in str(raised.value)
    assert "export the model anew" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["threshold", "beta", "reset"])
def test_a_file_with_other_neurons_is_found_out(make_folder, wrong):
    program = spiking_program()
    node = next(node for node in program.nodes if node.operator == "leaky")
    constants = dict(program.constants)
    if wrong == "reset":
        changed = replace_node(program, node, {**node.attributes, "reset": "zero"})
    else:
        name = node.inputs[3 if wrong == "threshold" else 2]
        changed = replace(program, constants={**constants, name: constants[name] + np.float32(2e-4)})
    links = check_folder(make_folder(program, tflite=changed), ["litert"])
    failed = [link.name for link in links if not link.passed]
    assert "litert teacher-forced" in failed


def replace_node(program: Program, node, attributes) -> Program:
    import msgspec

    nodes = tuple(msgspec.structs.replace(n, attributes=attributes) if n is node else n for n in program.nodes)
    return replace(program, nodes=nodes)


# -- flips -------------------------------------------------------------------------------------------------------------
