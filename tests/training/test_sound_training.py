"""Training on sound: frames of many samples, changed as the signal that they are of, and what is refused."""

from __future__ import annotations

import warnings

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, load, write_npz
from edgeseq.data.dataset import SOUND
from edgeseq.data.frames import framed
from edgeseq.errors import InputError, Unsupported
from edgeseq.lineage import trained_on
from edgeseq.models.listening import HEARD, Listening
from edgeseq.models.registry import build
from edgeseq.models.store import load_model, save_model
from edgeseq.signal.log_mel import LogMel, log_mel
from edgeseq.training.augment import Sampler, coloured
from edgeseq.training.batches import batches_of, statistics
from edgeseq.training.retime_stage import retime
from edgeseq.training.settings import Augmentation, Settings
from edgeseq.training.stage import train

RATE, HOP = 4000.0, 40
PLAIN = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, mirror=0.0, scale=0.0, noise=0.0)
FRONT = {"model.front.hop": HOP, "model.front.window": 64, "model.front.mels": 6, "model.front.low": 150.0}
TINY = {"rounds": 1, "steps": 3, "batch": 4, "model.hidden": 5, **FRONT}
PEOPLE = {"test": ["1"], "validation": ["2"]}


def noise(count, seed, label=0):
    """A recording of noise (N, 1)."""
    x = 0.1 * np.random.default_rng(seed).normal(size=(count, 1))
    return Recording(x.astype(np.float32), np.full(count, label, np.int16), "s", f"r{seed}")


def framed_of(*recordings, task="segment"):
    data = Dataset("noise", recordings, ("sound",), (SOUND,), RATE, ("a", "b"), task=task)
    return framed(data, HOP)


def sampler_of(*recordings, augmentation=PLAIN):
    data = framed_of(*recordings)
    return Sampler(data.recordings, data.units, data.rate, augmentation, data.samples)


def humming(subject, label, seconds, seed, rate=RATE):
    """A hum, low or high (N, 1)."""
    t, rng = np.arange(int(seconds * rate)) / rate, np.random.default_rng(seed)
    x = 0.2 * np.sin(2 * np.pi * (300 + 700 * label) * t) + 0.02 * rng.normal(size=len(t))
    return Recording(x.astype(np.float32)[:, None], np.full(len(t), label, np.int16), subject, f"{subject}-{label}")


def write(path, task, channels=1):
    """Four people's hums: segments of a third of a second, or streams in which low and high take turns."""
    recordings = []
    for subject in range(4):
        parts = [humming(str(subject), k % 2, 0.3 + 0.05 * k, 10 * subject + k) for k in range(6)]
        if task == "frame":
            x, y = (np.concatenate([getattr(part, name) for part in parts * 3]) for name in ("x", "y"))
            parts = [Recording(x, y, str(subject), str(subject))]
        recordings += parts
    if channels > 1:
        recordings = [Recording(np.repeat(r.x, channels, 1), r.y, r.subject, r.name) for r in recordings]
    names, units = tuple(f"microphone{k}" for k in range(channels)), (SOUND,) * channels
    write_npz(Dataset("hums", tuple(recordings), names, units, RATE, ("low", "high"), task=task), path)
    return str(path)


@pytest.fixture(scope="module")
def hums(tmp_path_factory):
    """``hums(task)``: a data set of sound of either task."""
    root = tmp_path_factory.mktemp("hums")
    made = {task: write(root / f"{task}.npz", task) for task in ("frame", "segment")}
    return made.__getitem__


# -- what is drawn --------------------------------------------------------------------------------------------------


@given(length=st.integers(3, 700), seed=st.integers(0, 99))
def test_a_whole_recording_without_changes_is_its_whole_frames(length, seed):
    recording = noise(length, seed)
    x = sampler_of(recording).whole(np.random.default_rng(seed), 0)
    count = max(1, length // HOP)
    expected = np.pad(recording.x[:, 0], (0, max(0, HOP - length)))[: count * HOP].reshape(count, HOP)
    assert x.dtype == np.float32
    assert np.array_equal(x, expected)


@given(seed=st.integers(0, 200), seconds=st.floats(0.001, 0.1))
def test_a_shifted_recording_is_the_signal_shifted_by_samples_with_silence_where_it_came_from(seed, seconds):
    recording = noise(12 * HOP, 5)
    shifting = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, scale=0.0, noise=0.0, shift=seconds)
    found = sampler_of(recording, augmentation=shifting).whole(np.random.default_rng(seed), 0).ravel()
    signal = recording.x[:, 0]
    at = next(by for by in range(-len(signal), len(signal)) if np.array_equal(found, moved(signal, by)))
    assert abs(at) <= round(seconds * RATE)


def moved(signal, by):
    """``by`` samples later, with silence before or behind it."""
    return np.pad(signal, (by, 0))[: len(signal)] if by >= 0 else np.pad(signal[-by:], (0, -by))


def test_shifts_are_of_samples_not_of_frames():
    recording = noise(12 * HOP, 5)
    shifting = Augmentation(tempo=1.0, rotation=0.0, roll=0.0, scale=0.0, noise=0.0, shift=0.05)
    sampler, shifts = sampler_of(recording, augmentation=shifting), set()
    for seed in range(30):
        found = sampler.whole(np.random.default_rng(seed), 0).ravel()
        shifts.add(next(by for by in range(-200, 201) if np.array_equal(found, moved(recording.x[:, 0], by))))
    assert len({by % HOP for by in shifts}) > 10
    assert min(shifts) < -100 < 100 < max(shifts) <= 200


def test_another_tempo_is_another_pitch():
    t = np.arange(int(RATE)) / RATE
    tone = np.sin(2 * np.pi * 400 * t).astype(np.float32)[:, None]
    recording = Recording(tone, np.zeros(len(t), np.int16), "s", "r")
    sampler = sampler_of(recording, augmentation=Augmentation(1.5, 0, 0, 0, 0, 0))
    pitches = []
    for seed in range(12):
        x = sampler.whole(np.random.default_rng(seed), 0).ravel()
        pitches.append(np.abs(np.fft.rfft(x * np.hanning(len(x)), 16000)).argmax() * RATE / 16000)
        assert len(x) == pytest.approx(RATE * 400 / pitches[-1], abs=1.01 * HOP + 3)
    assert 400 / 1.5 - 2 <= min(pitches) < 360 < 440 < max(pitches) <= 400 * 1.5 + 2


def test_louder_is_the_whole_signal_and_noise_is_no_louder_than_its_share():
    recording = noise(20 * HOP, 3)
    louder = sampler_of(recording, augmentation=Augmentation(1.0, 0, 0, 0, scale=0.5, noise=0.0))
    for seed in range(5):
        x = louder.whole(np.random.default_rng(seed), 0).ravel()
        gain = x / recording.x[:, 0]
        assert np.allclose(gain, gain[0], rtol=1e-4)
        assert gain[0] > 0
    noisy = sampler_of(recording, augmentation=Augmentation(1.0, 0, 0, 0, scale=0.0, noise=0.1))
    added = [noisy.whole(np.random.default_rng(seed), 0).ravel() - recording.x[:, 0] for seed in range(10)]
    assert 0 < max(float(each.std()) for each in added) <= 0.11 * recording.x.std()


def test_a_random_filter_colours_the_whole_signal_smoothly():
    recording = noise(50 * HOP, 4)
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(200):
        found = coloured(rng, recording.x, 5.0)
        assert (found.shape, found.dtype) == (recording.x.shape, np.float32)
        gain = np.abs(np.fft.rfft(found[:, 0])) / np.abs(np.fft.rfft(recording.x[:, 0]))
        gains.append(20 * np.log10(gain))
        assert np.abs(np.diff(gains[-1])).max() < 0.5
    assert np.std([gain[0] for gain in gains]) == pytest.approx(5.0, rel=0.2)
    assert np.array_equal(coloured(rng, recording.x, 0.0), coloured(rng, recording.x, 0.0))


@given(
    frames=st.integers(4, 60),
    settle=st.integers(0, 6),
    stitch=st.floats(0, 1),
    lengths=st.lists(st.integers(2 * HOP, 60 * HOP), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_a_crop_is_full_of_frames_whose_label_and_age_are_of_their_last_sample(frames, settle, stitch, lengths, seed):
    recordings = [noise(length, k, label=k % 2) for k, length in enumerate(lengths)]
    crop = sampler_of(*recordings).draw(np.random.default_rng(seed), frames, settle, stitch)
    assert crop.x.shape == (frames, HOP)
    assert crop.y.shape == crop.age.shape == (frames,)
    assert crop.age[0] == 0
    assert ((np.diff(crop.age) == 1) | (crop.age[1:] == 0)).all()
    assert (crop.y[crop.age < settle] == -1).all()
    assert (crop.y[crop.age >= settle] >= 0).all()


def test_a_crop_without_changes_is_a_stretch_of_the_signal_between_its_samples():
    ramp = np.arange(50 * HOP, dtype=np.float32)[:, None]
    crop = sampler_of(Recording(ramp, np.zeros(len(ramp), np.int16), "s", "r")).draw(
        np.random.default_rng(0), 20, 0, 0.0
    )
    assert np.allclose(np.diff(crop.x.ravel()), 1, atol=1e-3)
    assert crop.age.tolist() == list(range(20))


def test_a_frame_in_which_the_label_changes_has_that_of_its_last_sample():
    ramp, at, crossed = np.arange(50 * HOP, dtype=np.float32)[:, None], 19 * HOP, 0
    recording = Recording(ramp, (ramp[:, 0] >= at).astype(np.int16), "s", "r")
    for seed in range(20):
        crop = sampler_of(recording).draw(np.random.default_rng(seed), 30, 0, 0.0)
        clear = np.abs(crop.x[:, -1] - at) > 1
        assert np.array_equal(crop.y[clear], crop.x[clear, -1] >= at)
        crossed += int(((crop.x[:, 0] < at - 1) & (crop.x[:, -1] > at + 1)).sum())
    assert crossed > 3


def test_normalization_is_of_the_features_of_the_recordings():
    data = framed_of(noise(30 * HOP, 1), noise(11 * HOP, 2, label=1))
    front = LogMel(RATE, HOP, 64, 6, 150.0)
    inner = torch.nn.Identity()
    inner.input_size, inner.output_size, inner.look_ahead, inner.tasks = 6, 2, 0, ("segment",)
    mean, std = statistics(Listening(front, inner), batches_of(data, Settings()), data)  # type: ignore[arg-type]
    features = np.concatenate([log_mel(front, recording.x) for recording in data.recordings])
    assert np.allclose(mean, features.mean(0), atol=1e-3)
    assert np.allclose(std, features.std(0), atol=1e-3)


# -- what is trained ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["frame", "segment"])
def test_sound_of_either_task_is_trained_on_and_read_again(hums, task, tmp_path):
    changes = TINY if task == "segment" else {**TINY, "crop": 2.5}
    folder = train(hums(task), tmp_path / "out", preset="gru", changes=changes, **PEOPLE)
    manifest = folder.manifest
    assert (manifest.task, manifest.input.rate, manifest.input.samples_per_step) == (task, RATE, HOP)
    assert (manifest.input.width, manifest.input.step_rate) == (HOP, RATE / HOP)
    assert manifest.arguments["front"]["hop"] == HOP
    assert [state.name for state in manifest.states] == [HEARD, "model.layers.0.hidden"]
    assert len(manifest.input.normalization.mean) == 6
    assert 0 <= manifest.metrics["test_accuracy"] <= 1
    model = load_model(folder)
    assert isinstance(model, Listening)
    assert torch.allclose(model.input_mean, torch.tensor(manifest.input.normalization.mean))
    assert f"session.step(frame)  # {HOP} values" in (folder.path / "README.md").read_text(encoding="utf-8")


def test_the_rate_of_samples_is_written_down_as_it_was_and_may_be_said(hums, tmp_path):
    changes = {**TINY, "rounds": 1, "steps": 1, "model.front.hop": 61, "model.front.rate": RATE}
    assert RATE / 61 * 61 != RATE
    folder = train(hums("segment"), tmp_path / "out", preset="gru", changes=changes, **PEOPLE)
    source = folder.manifest.input
    assert (source.rate, source.step_rate, folder.manifest.arguments["front"]["rate"]) == (RATE, RATE / 61, RATE)
    data = trained_on(folder)
    assert (data.samples, data.rate, data.sample_rate) == (61, source.step_rate, RATE)


def test_a_hum_is_learned(hums, tmp_path):
    changes = {**TINY, "rounds": 3, "steps": 20, "batch": 16, "learning_rate": 0.02, "augmentation.tempo": 1.05}
    folder = train(hums("segment"), tmp_path / "out", preset="gru", changes=changes, **PEOPLE)
    assert folder.manifest.metrics["test_accuracy"] == 1.0


def test_training_goes_on_from_a_sound_folder_with_its_own_hop(hums, tmp_path):
    first = train(hums("segment"), tmp_path / "one", preset="gru", changes=TINY, **PEOPLE)
    short = {name: value for name, value in TINY.items() if not name.startswith("model.")}
    second = train(hums("segment"), tmp_path / "two", start=first.path, changes=short)
    assert second.manifest.arguments == first.manifest.arguments
    assert second.manifest.input.samples_per_step == HOP


def test_a_hop_alone_brings_a_window_of_two_hops(hums, tmp_path):
    changes = {"rounds": 1, "steps": 2, "batch": 4, "model.front.hop": 100, "model.front.mels": 6}
    folder = train(hums("segment"), tmp_path / "out", preset="gru", changes=changes, **PEOPLE)
    front = folder.manifest.arguments["front"]
    assert (front["hop"], front["window"], folder.manifest.input.step_rate) == (100, 200, 40.0)


def test_a_live_model_that_listens_is_saved_as_its_family_behind_its_front_end(hums, tmp_path):
    front = LogMel(RATE, HOP, 64, 6, 150.0)
    made = build("rnn", HOP, 2, {"cell": "gru", "hidden": 5, "front": msgspec.to_builtins(front)})
    folder = save_model(made, tmp_path / "m", arguments={"cell": "gru", "hidden": 5}, data=hums("segment"))
    manifest = folder.manifest
    assert (manifest.family, manifest.arguments["front"]["mels"]) == ("rnn", 6)
    assert (manifest.input.rate, manifest.input.samples_per_step, manifest.input.width) == (RATE, HOP, HOP)
    x = torch.randn(1, 7, HOP)
    with torch.no_grad():
        assert torch.equal(load_model(folder)(x)[0], made.eval()(x)[0])
    assert trained_on(folder).samples == HOP


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.front.mels": 400}, "of 400 lies between two bins"),
        ({"model.front.mel": 40}, "Did you mean 'mels'?"),
        ({"model.front.window": 20}, "shorter than a hop of 40"),
        ({"model.front.window": 63}, "an even number is needed"),
        ({"model.front.high": 2500.0}, "are not possible at 4000 Hz"),
        ({"model.front.hop": "x"}, "Expected `int`"),
        ({"model.front.rate": 16000.0}, "model.front.rate 16000.0: segment has 4000 Hz. Leave it out"),
        ({"model.front.floor": 1e-46}, "floor 1e-46 is no normal number of float32"),
        ({"model.front": 3}, "model.front 3: set its parts, such as model.front.mels"),
    ],
)
def test_bad_front_settings_are_refused_before_anything_is_written(hums, tmp_path, change, said):
    with pytest.raises(InputError) as refused:
        train(hums("segment"), tmp_path / "out", preset="gru", changes={**TINY, **change}, **PEOPLE)
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_two_channels_of_sound_are_refused(tmp_path):
    data = write(tmp_path / "stereo.npz", "segment", channels=2)
    with pytest.raises(InputError, match="a front end hears one channel of sound"):
        train(data, tmp_path / "out", preset="gru", changes=TINY, **PEOPLE)


def test_a_front_end_for_what_is_no_sound_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.front\.hop cannot be set: spar_watch has no channel of sound"):
        train("spar_watch", tmp_path / "out", preset="gru", changes={"model.front.hop": 10})


def test_a_sound_model_has_no_other_rate(hums, tmp_path):
    changes = {**TINY, "model.state": 4, "model.layers": 1, "model.norm": "layer"}
    folder = train(hums("segment"), tmp_path / "out", preset="s4d", changes=changes, **PEOPLE)
    with pytest.raises(Unsupported, match="hears sound at 4000 Hz by hops of 40 samples"):
        retime(folder.path, tmp_path / "other", rate=8000.0)


def test_recordings_shorter_than_a_hop_are_filled_up_with_silence(tmp_path):
    """Segments of less than a frame are heard, not lost; of an endless stream they are too short to score."""
    path = tmp_path / "short.npz"
    recordings = [humming(str(s), k, 0.3 if k else 0.005, s) for s in range(4) for k in range(2)]
    write_npz(Dataset("s", tuple(recordings), ("m",), (SOUND,), RATE, ("click", "hum"), task="segment"), path)
    folder = train(str(path), tmp_path / "out", preset="gru", changes=TINY, **PEOPLE)
    assert folder.manifest.metrics["test_majority_share"] == 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = tmp_path / "frames.npz"
        write_npz(Dataset("s", tuple(recordings), ("m",), (SOUND,), RATE, ("click", "hum")), frames)
        with pytest.raises(InputError, match="last"):
            train(str(frames), tmp_path / "out2", preset="gru", changes=TINY, **PEOPLE)


def test_a_sample_that_is_no_number_is_refused_with_its_place(tmp_path):
    path, broken = tmp_path / "nan.npz", humming("0", 0, 0.3, 0)
    broken.x[17, 0] = np.nan
    write_npz(Dataset("s", (broken, humming("1", 1, 0.3, 1)), ("m",), (SOUND,), RATE, ("a", "b"), task="segment"), path)
    with pytest.raises(InputError, match=r"row 17 .* channel 'm'"):
        load(str(path))
