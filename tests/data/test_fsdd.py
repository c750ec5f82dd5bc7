"""FSDD from the wav files of its origin, and from our file of them."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from edgeseq.data import load
from edgeseq.data.sets.fsdd import FULL_SCALE
from edgeseq.errors import InputError

WORDS = [("ann", 0, 0), ("ann", 0, 10), ("ann", 1, 2), ("bob", 0, 3), ("cy", 1, 0)]  # speaker, digit, take


def samples(k):
    return np.random.default_rng(k).integers(-32768, 32768, 40 + k).astype(np.int16)


def write_wav(path, x, *, channels=1, width=2, rate=8000):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(x.astype("<i2").tobytes())


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "recordings"
    place.mkdir()
    for k, (speaker, digit, take) in enumerate(WORDS):
        write_wav(place / f"{digit}_{speaker}_{take}.wav", samples(k))
    return place


def arrays():
    x = [samples(k) for k in range(len(WORDS))]
    return {
        "x": np.concatenate(x),
        "offset": np.cumsum([0, *map(len, x)]),
        "digit": np.array([digit for _, digit, _ in WORDS], np.uint8),
        "speaker": np.array([0, 0, 0, 1, 2], np.uint8),
        "speakers": np.array(["ann", "bob", "cy"]),
        "take": np.array([take for *_, take in WORDS], np.uint8),
        "fs": np.array(8000),
    }


def test_wav_files_are_words_of_samples_by_speaker(folder):
    data = load(f"fsdd={folder.parent}")
    assert (data.name, data.task, data.rate, data.units) == ("fsdd", "segment", 8000.0, ("full scale",))
    assert data.subjects == ("ann", "bob", "cy")
    assert [r.name for r in data.recordings[:3]] == ["0_ann_0.wav", "0_ann_10.wav", "1_ann_2.wav"]
    for k, (recording, (speaker, digit, _)) in enumerate(zip(data.recordings, WORDS, strict=True)):
        assert (recording.subject, set(recording.y.tolist())) == (speaker, {digit})
        np.testing.assert_array_equal(recording.x[:, 0], samples(k) * FULL_SCALE)


def test_both_forms_are_the_same_data(folder, tmp_path, save_npz):
    path = save_npz(tmp_path / "fsdd.npz", arrays())
    assert load(f"fsdd={path}").fingerprint() == load(f"fsdd={folder}").fingerprint()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"channels": 2}, r"2 channel\(s\) of 16 bit at 8000 Hz.*sox 1_bob_7\.wav -c 1 -b 16 -r 8000"),
        ({"width": 1}, r"1 channel\(s\) of 8 bit"),
        ({"rate": 16000}, "at 16000 Hz"),
    ],
)
def test_a_wav_of_another_form_is_refused_with_what_converts_it(folder, form, said):
    write_wav(folder / "1_bob_7.wav", samples(9), **form)
    with pytest.raises(InputError, match=said):
        load(f"fsdd={folder}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1_bob_7.wav", b"RIFF", "1_bob_7.wav: it cannot be read as a wav file"),
        ("1_bob_7.wav", b"RIFF", r"\(it ends too early\)"),
        ("1_bob_7.wav", b"", "1_bob_7.wav: it cannot be read as a wav file"),
        ("seven_bob_7.wav", b"", r"seven_bob_7.wav: it is not called \{digit\}_\{speaker\}_\{take\}.wav"),
    ],
)
def test_a_file_that_is_none_of_its_wav_files_is_refused(folder, name, content, said):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load(f"fsdd={folder}")


@pytest.mark.parametrize("left", [2, 3, 79])
def test_a_wav_that_was_cut_off_is_refused_with_both_counts(folder, left):
    path = folder / "0_ann_0.wav"
    path.write_bytes(path.read_bytes()[: 44 + left])
    with pytest.raises(InputError, match=rf"0_ann_0\.wav: it says 40 samples and holds {left // 2}: it was cut off"):
        load(f"fsdd={folder}")


def test_a_wav_without_samples_is_refused(folder):
    write_wav(folder / "1_bob_7.wav", samples(0)[:0])
    with pytest.raises(InputError, match=r"1_bob_7\.wav: it holds no samples"):
        load(f"fsdd={folder}")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no fsdd\.npz or .*\.wav"):
        load(f"fsdd={tmp_path}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"take": None}, "key 'take' is missing"),
        ({"x": samples(0).astype(np.float32)}, "'x' is float32"),
        ({"digit": np.zeros(4, np.uint8)}, r"digit, speaker and take are \(4,\)"),
        ({"digit": np.array(list("01234"))}, "whole numbers"),
        ({"fs": np.array(16000)}, "'fs' is 16000, and fsdd has 8000 Hz"),
        ({"speaker": np.array([0, 0, 0, 1, 3])}, "'speaker' has index 3, and there are 3 speakers"),
        ({"offset": np.array([0, 40, 40, 90, 130, 200])}, "it is empty"),
    ],
)
def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path, save_npz, changes, said):
    path = save_npz(tmp_path / "fsdd.npz", arrays(), **changes)
    with pytest.raises(InputError, match=said):
        load(f"fsdd={path}")
