"""Models of raw sound, trained, quantized, exported and proven: each engine, fed by the hop, answers as torch."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch

from edgeseq.cli import app
from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.data.dataset import SOUND
from edgeseq.devices import check
from edgeseq.devices.check import check_folder
from edgeseq.devices.session import Session
from edgeseq.errors import InputError
from edgeseq.export import stage
from edgeseq.export.stage import export
from edgeseq.models.listening import HEARD, Listening
from edgeseq.models.store import load_model
from edgeseq.program import Program, cost
from edgeseq.quant.quantize_stage import quantize
from edgeseq.signal.log_mel import LogMel, log_mel
from edgeseq.training.stage import train

RATE, HOP, MELS = 4000.0, 64, 8
FRONT = {"model.front.hop": HOP, "model.front.window": 2 * HOP, "model.front.mels": MELS, "model.front.low": 100.0}
SHORT = {"rounds": 1, "steps": 2, "batch": 4, "learning_rate": 1e-3}
SIZES = {
    "gru": {"model.hidden": 6},
    "lmu": {"model.channels": [2, 2], "model.orders": [3, 4], "model.thetas": [9.5, 20.0], "model.hidden": [5, 4]},
    "s4d": {"model.hidden": 6, "model.layers": 1, "model.state": 4, "model.norm": "layer"},
    "lmuformer": {"model.dim": 6, "model.channels": 2, "model.order": 4, "model.theta": 9.5},
}
STATES = {"gru": "int8", "lmu": "float32", "s4d": "int16", "lmuformer": "int8"}
FRAMES = 200
ENGINES = ("numpy", "onnxruntime", "litert")


def chirp(label, seed):
    """A tone that rises or falls for half a second, under noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(0.5 * RATE) + int(rng.integers(0, HOP))) / RATE
    pitch = 600 + (400 if label else -400) * (t - 0.25) * 2 + rng.uniform(-50, 50)
    x = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.01 * rng.normal(size=len(t))
    return x.astype(np.float32)[:, None]


@pytest.fixture(scope="module")
def chirps(tmp_path_factory):
    """Six people's rising and falling tones, as segments."""
    path, recordings = tmp_path_factory.mktemp("data") / "chirps.npz", []
    for subject in range(6):
        for k in range(8):
            x = chirp(k % 2, 10 * subject + k)
            recordings.append(Recording(x, np.full(len(x), k % 2, np.int16), str(subject), f"{subject}-{k}"))
    data = Dataset("chirps", tuple(recordings), ("sound",), (SOUND,), RATE, ("falls", "rises"), task="segment")
    write_npz(data, path)
    return str(path)


@pytest.fixture(scope="module", params=[f"{name}-{kind}" for name in SIZES for kind in ("fp32", "int8")])
def exported(request, chirps, floats, tmp_path_factory):
    """A trained model of each family, in float32 or int8, exported with its full proof."""
    name, _, kind = request.param.partition("-")
    root, folder = tmp_path_factory.mktemp(request.param), floats(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", FRAMES)
        patch.setattr(stage, "MIN_FRAMES", FRAMES)
        if kind == "int8":
            folder = quantize(folder.path, root / "int8", method="ptq", state=STATES[name])
        return export(folder.path, root / "export", frames=FRAMES)


@pytest.fixture(scope="module")
def floats(chirps, tmp_path_factory):
    """``floats(name)``: the trained folder of a family, made once."""
    root, made = tmp_path_factory.mktemp("float"), {}

    def trained(name):
        if name not in made:
            changes = {**SHORT, **FRONT, **SIZES[name]}
            made[name] = train(chirps, root / name, preset=name, changes=changes, test=["3", "4"], validation=["5"])
        return made[name]

    return trained


def spoken(seed=77):
    """Hops (T, H) of one sound."""
    x = np.concatenate([chirp(0, seed), chirp(1, seed)])[:, 0]
    return x[: len(x) // HOP * HOP].reshape(-1, HOP)


def test_a_sound_model_is_proven_and_every_engine_fed_by_the_hop_answers_as_torch(exported):
    manifest, x = exported.manifest, spoken()
    assert all(link.passed for link in manifest.proof)
    assert {link.name.split()[0] for link in manifest.proof} >= {"litert", "onnxruntime", "program"}
    assert all(link.passed for link in check_folder(exported, frames=FRAMES))
    assert (manifest.input.rate, manifest.input.samples_per_step, manifest.input.width) == (RATE, HOP, HOP)
    model = load_model(exported)
    assert isinstance(model, Listening)
    with torch.no_grad():
        y, state = model(torch.from_numpy(x)[None])
        rest, _ = model.flush(state)
    int8 = manifest.precision.weights == "int8"
    for engine in ENGINES:
        session = Session(exported, engine)
        found = session.run(x)
        assert np.array_equal(session.state[HEARD], x[-1:])  # one hop of it is in the next window
        answers = (found, y[0].numpy()), (session.flush(), rest[0].numpy())
        for got, expected in answers:
            assert got.shape == expected.shape
            if not int8:
                assert got.size == 0 or np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
        if int8:  # running freely: the same answers, where a rounding that fell otherwise is carried on
            assert (found.argmax(1) == y[0].numpy().argmax(1))[manifest.input.look_ahead :].mean() >= 0.95


def test_the_features_of_an_exported_folder_are_those_of_the_whole_recording(exported):
    """Read back from step.json, in every precision: the front end stays float."""
    from edgeseq.cli.front import front_end
    from edgeseq.program.interpret import evaluate

    program, x = Program.read(exported.path), spoken()
    part = front_end(program)
    step, states = evaluate(part), {s.name: np.zeros(s.before.shape, np.float32) for s in part.states}
    for frame, expected in zip(x, log_mel(LogMel.of(exported.manifest.arguments["front"]), x), strict=True):
        row = np.pad(frame, (0, program.x.shape[1] - HOP), constant_values=1)[None]
        values = step(row, states)
        assert np.array_equal(values[part.y][0], expected)
        states = {state.name: values[state.after] for state in part.states}
    assert {node.operator for node in part.nodes}.isdisjoint({"quantize", "qlinear", "dequantize"})


def test_inspect_counts_the_front_end_and_energy_counts_real_frames(exported):
    found = inspect(exported, "--json")["front_end"]
    whole = cost(Program.read(exported.path))
    assert found["share"] == pytest.approx(found["cost"]["macs"] / (whole.macs + whole.acs))
    assert 0 < found["cost"]["constant_bytes"] < whole.constant_bytes
    assert found["cost"]["state_bytes"] == 4 * HOP
    assert f"{found['cost']['macs']:,} of these MACs" in inspect(exported)
    assert inspect(exported, "--energy", "--json")["frames"] >= FRAMES


def test_a_model_without_a_front_end_shows_none():
    assert inspect("har_watch_fp32", "--json")["front_end"] is None
    assert "front end" not in inspect("har_watch_fp32")


def inspect(folder, *options):
    """What ``edgeseq inspect`` says: its document, or its text in one line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert app.run(["inspect", str(getattr(folder, "path", folder)), *options]) == 0
    return json.loads(out.getvalue()) if "--json" in options else " ".join(out.getvalue().split())


@pytest.fixture(scope="module")
def session(floats, tmp_path_factory):
    """A float32 GRU that was exported, in LiteRT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", FRAMES)
        patch.setattr(stage, "MIN_FRAMES", FRAMES)
        out = tmp_path_factory.mktemp("session") / "out"
        return Session(export(floats("gru").path, out, frames=FRAMES, formats=("tflite",)), "litert")


def test_a_frame_that_is_not_a_hop_is_refused_and_the_stream_goes_on(session):
    x = spoken()
    session.reset()
    before = session.run(x[:3])
    session.reset()
    for wrong in (x[0, :-1], np.zeros(1), 0.5, x[:2]):
        with pytest.raises(InputError, match=rf"\({HOP},\)"):
            session.step(wrong)
    with pytest.raises(InputError, match=rf"\(T, {HOP}\) is needed"):
        session.run(x.reshape(-1, 1))
    assert np.array_equal(session.run(x[:3]), before)


def test_a_sample_that_is_no_number_is_gone_after_a_reset(session):
    x = spoken()
    session.reset()
    before = session.run(x)
    session.reset()
    broken = x[0].copy()
    broken[3] = np.nan
    session.step(broken)
    assert np.isnan(session.state[HEARD]).sum() == 1
    session.reset()
    assert np.array_equal(session.run(x), before)


def test_the_card_says_how_many_samples_a_frame_holds(session):
    card = (session.folder.path / "README.md").read_text(encoding="utf-8")
    assert f"session.step(frame)  # {HOP} values: {HOP} samples, the oldest first" in card


def test_memories_behind_a_front_end_are_kept_as_taps_where_asked(floats, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", FRAMES)
        patch.setattr(stage, "MIN_FRAMES", FRAMES)
        made = export(floats("lmu").path, tmp_path / "taps", frames=FRAMES, formats=("onnx",), memory="taps")
    memories = made.manifest.memories
    assert set(memories) == {"model.blocks.0", "model.blocks.1"}
    assert {chosen.form for chosen in memories.values()} == {"taps"}
    assert all(link.passed for link in made.manifest.proof)
