"""Log-mel features: librosa's, of windows that end with the last sample heard, without torch.

``librosa_log_mel.npz`` was computed by librosa 0.11.0 in an environment of its own (README.md beside it says how).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import load
from edgeseq.data.frames import framed
from edgeseq.errors import InputError
from edgeseq.signal.log_mel import LogMel, for_rate, log_mel, mel_filters, transform, windows

NAMES = ("rate", "hop", "window", "mels", "low", "high", "floor")
SETTINGS = 8
FSDD = Path(__file__).parents[3] / "shared" / "data" / "fsdd"


@pytest.fixture(scope="module")
def librosa():
    with np.load(Path(__file__).with_name("librosa_log_mel.npz")) as stored:
        return dict(stored)


def front_of(row):
    values = dict(zip(NAMES, row, strict=True))
    return LogMel.of({**values, **{name: int(values[name]) for name in ("hop", "window", "mels")}})


def hops(front, x):
    """Whole hops (T, H) of a sound (N,)."""
    return x[: len(x) // front.hop * front.hop].reshape(-1, front.hop)


def defined(front, x):
    """The features by the definition, in float64 and by numpy's own transform."""
    n = np.arange(front.window)
    spectrum = np.fft.rfft(windows(front, x).astype(np.float64) * (0.5 - 0.5 * np.cos(2 * np.pi * n / front.window)))
    return 10 * np.log10(np.maximum(np.abs(spectrum) ** 2 @ mel_filters(front).T, front.floor))


def assert_alike(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("row", range(SETTINGS))
def test_features_and_filters_are_librosas(librosa, row):
    front, reference = front_of(librosa["settings"][row].tolist()), librosa[f"features_{row}"]
    sound = librosa["x"] / np.float32(32768)
    assert_alike(log_mel(front, hops(front, sound)), reference)
    assert reference.min() < reference.max() - 50  # silence and a loud band are both in it
    filters = librosa[f"filters_{row}"]
    assert np.abs(mel_filters(front) - filters).max() <= 1e-6 * filters.max()


def test_all_settings_of_the_vectors_are_compared(librosa):
    assert len(librosa["settings"]) == SETTINGS
    assert len({(row[1], row[2]) for row in librosa["settings"].tolist()}) == SETTINGS


def test_features_of_real_speech_are_those_of_the_definition():
    if not (FSDD / "fsdd.npz").is_file():
        pytest.skip(f"no fsdd in {FSDD}")
    words = load(f"fsdd={FSDD}")
    front = LogMel.of(for_rate(words.rate))
    for word in framed(words, front.hop).recordings[::250]:
        assert_alike(log_mel(front, word.x), defined(front, word.x))


@given(
    window=st.integers(32, 150).map(lambda half: 2 * half),
    overlap=st.floats(0, 0.95),
    mels=st.integers(1, 8),
    low=st.floats(0, 1500),
    seed=st.integers(0, 999),
)
def test_features_of_any_setting_are_those_of_the_definition(window, overlap, mels, low, seed):
    values = {"rate": 8000.0, "hop": max(1, round(window * (1 - overlap))), "window": window, "mels": mels, "low": low}
    front = LogMel.of({**values, "high": 3900.0})
    x = np.random.default_rng(seed).normal(size=(5, front.hop)).astype(np.float32)
    assert_alike(log_mel(front, x), defined(front, x))


def test_silence_is_the_floor_and_a_tone_is_in_its_band():
    front = LogMel.of({**for_rate(8000.0), "floor": 1e-5})
    assert np.allclose(log_mel(front, np.zeros((3, 128), np.float32)), -50)
    centres = (np.arange(129) * 8000 / 256)[mel_filters(front).argmax(1)]
    for band in (3, 20, 37):
        tone = np.sin(2 * np.pi * centres[band] / 8000 * np.arange(1280)).astype(np.float32)
        assert log_mel(front, tone.reshape(-1, 128))[-1].argmax() == band


@given(frames=st.integers(1, 12), at=st.integers(0, 11), seed=st.integers(0, 99))
def test_a_frame_hears_its_own_hop_and_what_its_window_reaches_back_to(frames, at, seed):
    front = LogMel.of({"rate": 8000.0, "hop": 40, "window": 100, "mels": 4})
    x = np.random.default_rng(seed).normal(size=(frames, 40)).astype(np.float32)
    at = min(at, frames - 1)
    louder = x.copy()
    louder[at] *= 3
    moved = (log_mel(front, x) != log_mel(front, louder)).any(1)
    assert np.flatnonzero(moved).tolist() == [t for t in range(frames) if at <= t <= at + 2]  # 100 samples: 3 hops


def test_bins_that_no_filter_reads_are_left_out_and_a_lone_bin_has_a_neighbour():
    front = LogMel.of({"rate": 8000.0, "hop": 128, "window": 256, "mels": 10, "low": 1000.0, "high": 2000.0})
    made, heard = transform(front), (mel_filters(front) > 0).any(0).sum()
    assert len(made.even) + len(made.odd) == 2 * heard < 2 * 129
    assert made.filters.shape == (10, 2 * heard)
    lone = LogMel.of({"rate": 8000.0, "hop": 8, "window": 16, "mels": 1, "low": 600.0, "high": 1400.0})
    assert (mel_filters(lone) > 0).any(0).sum() == 1
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    assert_alike(log_mel(lone, x), defined(lone, x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mels": 400}, "band 1 of 400 lies between two bins of a window of 256 samples at 8000 Hz"),
        ({"window": 100}, "a window of 100 samples is shorter than a hop of 128"),
        ({"window": 255}, "a window of 255 samples has no halves: an even number is needed"),
        ({"low": 4000.0}, "bands from 4000 to 4000 Hz are not possible at 8000 Hz: low < high <= 4000"),
        ({"high": 5000.0}, "bands from 60 to 5000 Hz are not possible"),
        ({"hop": "many"}, "Expected `int`, got `str`"),
        ({"hop": 0}, "hop"),
        ({"floor": 0.0}, "floor"),
        ({"floor": 1e-46}, "floor 1e-46 is no normal number of float32"),  # 0 there, and its logarithm is infinite
        ({"floor": 1e-39}, "floor 1e-39 is no normal number of float32"),
        ({"floor": 1e39}, "floor 1e+39 is no normal number of float32"),
        ({"floor": float("inf")}, "finite numbers are needed"),
        ({"rate": float("inf")}, "finite numbers are needed"),
        ({"mel": 40}, "unknown setting of a front end 'mel'. Did you mean 'mels'?"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, said):
    with pytest.raises(InputError) as refused:
        LogMel.of({**for_rate(8000.0), **change})
    assert said in str(refused.value)


def test_settings_that_are_no_settings_are_refused():
    with pytest.raises(InputError, match="settings by name are needed, rate, hop, window"):
        LogMel.of(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="missing required field `window`"):
        LogMel.of({"rate": 8000.0, "hop": 128})


def test_a_window_is_two_hops_of_16_ms_where_nothing_else_is_said():
    assert for_rate(8000.0) == {"rate": 8000.0, "hop": 128, "window": 256}
    assert for_rate(8000.0, 160) == {"rate": 8000.0, "hop": 160, "window": 320}


def test_features_need_neither_torch_nor_a_runtime():
    barred = "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnxruntime', 'ai_edge_litert', 'scipy')))"
    code = f"{barred}; import edgeseq.signal.log_mel as m; m.log_mel(m.LogMel.of(m.for_rate(8e3)), [[0.0] * 128])"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
