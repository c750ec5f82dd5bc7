"""The keyword example: real words of people whom the model never heard in training, from files and a microphone."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import types
import wave
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgeseq
from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.data.dataset import SOUND
from edgeseq.export.stage import export
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Decision, Early
from edgeseq.training.stage import train

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "keyword_spotting"
WORDS = sorted((EXAMPLE / "words").glob("?_*.wav"))
SEVERAL = EXAMPLE / "words" / "several.wav"
SAID = ["8", "7", "0", "0", "7", "8"]  # in SEVERAL
STARTS = [0.38, 1.24, 2.03, 3.08, 3.88, 4.93]  # where each is loud enough to be heard, seconds
LINE = re.compile(r"^ +([\d.]+) s   (\S+) .* (word of [\d.]+ s|no word: .*), (\d+) us a hop$", re.MULTILINE)


@pytest.fixture(scope="module")
def spot():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
        yield importlib.import_module("spot")
    for name in ("spot", "cutter", "sound"):
        sys.modules.pop(name, None)


@pytest.fixture
def heard(spot, capsys):
    """The lines that the script prints of words: (start, label) of each."""

    def run(*arguments):
        assert spot.main([*map(str, arguments)]) == 0
        return [(float(start), label) for start, label, *_ in LINE.findall(capsys.readouterr().out)]

    return run


@pytest.fixture
def refused(spot, capsys):
    """The exit code and the message of a run that is refused."""

    def run(*arguments):
        return spot.main([*map(str, arguments)]), capsys.readouterr().err

    return run


def samples_of(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15


def test_the_recordings_are_of_people_that_it_was_not_trained_on():
    speakers = {path.stem.split("_")[1] for path in WORDS}
    assert len(WORDS) == 6
    assert len(speakers) == 2
    assert not speakers & set(open_folder("digits").manifest.split["train"])


def test_the_script_names_each_word_where_there_is_no_torch(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n", encoding="utf-8")
    command = [sys.executable, str(EXAMPLE / "spot.py"), *map(str, WORDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert [label for _, label, *_ in LINE.findall(done.stdout)] == [path.name[0] for path in WORDS]
    assert [line for line in done.stdout.splitlines() if line.endswith(".wav")] == [str(path) for path in WORDS]


@pytest.mark.parametrize("engine", ["litert", "onnxruntime", "numpy"])
def test_each_word_of_a_long_recording_is_named_where_it_is(heard, engine):
    found = heard(SEVERAL, "--engine", engine)
    assert [label for _, label in found] == SAID
    assert [start for start, _ in found] == [pytest.approx(start, abs=0.12) for start in STARTS]


@pytest.mark.parametrize(("rate", "width", "channels"), [(16000, 2, 2), (44100, 3, 1), (11025, 4, 2)])
def test_a_recording_of_another_rate_width_and_number_of_channels_says_the_same(heard, tmp_path, rate, width, channels):
    sound = samples_of(SEVERAL)
    count = len(sound) * rate // 8000
    finer = np.fft.irfft(np.fft.rfft(sound), count) * count / len(sound)  # the same sound, with nothing added above
    levels = finer * (2 ** (8 * width - 1) - 1)
    raw = np.repeat(levels.astype("<i8"), channels).reshape(-1, 1).view(np.uint8)[:, :width]
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw.tobytes())
    assert [label for _, label in heard(tmp_path / "a.wav")] == SAID


@pytest.fixture
def early(tmp_path):
    """The folder with a rule that answers as soon as a label is likelier than all others together."""
    folder = open_folder("digits")
    with new_folder(tmp_path / "early") as staging:
        for name in folder.manifest.files:
            (staging / name).write_bytes(folder.file(name).read_bytes())
        rule = Decision(early=Early(confidence=0.5, earliest=0.1))
        seal(staging, msgspec.structs.replace(folder.manifest, name="early", decision=rule))
    return tmp_path / "early"


def spotted(spot, folder, path, on_answer):
    sound, rate = samples_of(path), 62.5
    cutter = spot.WordCutter(rate, noise=spot.noise_before(sound, 128, rate))
    return spot.Spotter(edgeseq.Session(folder), on_answer).words(spot.in_hops([sound], 128), cutter)


def test_a_rule_answers_before_a_word_ends_and_is_told_at_once(spot, early):
    told = []
    for word in spotted(spot, early, SEVERAL, lambda *answer: told.append(answer)):
        assert told[-1] == (word.start, word.answer)
        assert word.answer.probability > 0.5 or word.used == word.seconds
        assert 0.1 <= word.used <= word.seconds
        told.append(word)
    assert len(told) == 12
    assert any(word.used < 0.8 * word.seconds for word in told[1::2])


def test_without_a_rule_a_word_is_answered_at_its_end(spot):
    for word in spotted(spot, "digits", SEVERAL, lambda *answer: None):
        assert word.used == word.seconds


def test_each_word_starts_afresh(spot):
    """The same word gets the same answer, to the bit, whatever came before it."""
    sound = np.concatenate([np.zeros(6400, np.float32), samples_of(WORDS[3]), np.zeros(1280, np.float32)])
    sound = np.tile(sound[: len(sound) // 128 * 128], 3)
    spotter = spot.Spotter(edgeseq.Session("digits"), lambda *answer: None)
    words = list(spotter.words(spot.in_hops([sound], 128), spot.WordCutter(62.5)))
    assert len(words) == 3
    assert len({word.answer.probability for word in words}) == 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The smallest model of words that could be: it was not trained, and is exported in one format alone."""
    folder, x = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0).normal(size=(12, 26_000)).astype(np.float32)
    words = [
        Recording(0.1 * x[k][:, None], np.full(26_000, k % 2, np.int16), str(k // 2), f"r{k}") for k in range(len(x))
    ]
    write_npz(Dataset("w", tuple(words), ("s",), (SOUND,), 8000.0, ("0", "1"), task="segment"), folder / "w.npz")
    changes = {"rounds": 1, "steps": 1, "batch": 4, "model.hidden": 2, "model.front.mels": 4}
    train(str(folder / "w.npz"), folder / "m", changes=changes, test=["0"], validation=["1"])
    return export(folder / "m", folder / "e", formats=["onnx"]).path


class Microphone:
    """In the place of the module sounddevice: gives a recording in blocks of odd lengths, from a thread."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, sound, overflows=(), refuses=""):
        self._sound, self._overflows, self._refuses = sound, overflows, refuses

    def InputStream(self, *, samplerate, channels, dtype, device, callback):  # as it is called there
        if self._refuses:
            raise self.PortAudioError(self._refuses)
        assert (samplerate, channels, dtype) == (8000, 1, "float32")
        self.device, self._callback = device, callback
        return self

    def __enter__(self):
        self._thread = threading.Thread(target=self._give)
        self._thread.start()

    def __exit__(self, *error):
        self._thread.join()

    def _give(self):
        sizes, at, shared = np.random.default_rng(0), 0, np.empty((997, 1), np.float32)
        while at < len(self._sound):
            block = self._sound[at : at + int(sizes.integers(37, 997))]
            shared[: len(block), 0] = block  # which the next block is written over
            lost = any(at <= place < at + len(block) for place in self._overflows)
            self._callback(shared[: len(block)], len(block), None, types.SimpleNamespace(input_overflow=lost))
            at += len(block)


@pytest.fixture
def microphone(monkeypatch):
    def plug(*arguments, **options):
        plugged = Microphone(*arguments, **options)
        monkeypatch.setitem(sys.modules, "sounddevice", plugged)
        return plugged

    return plug


def listened():
    """The long recording behind a second of its noise, and how many seconds that is."""
    noise = (np.random.default_rng(1).normal(size=8000) * 20 / 2**15).astype(np.float32)
    sound = np.concatenate([noise, samples_of(SEVERAL)])
    return sound, len(sound) / 8000


def test_a_microphone_is_heard_word_by_word(heard, microphone):
    sound, seconds = listened()
    plugged = microphone(sound)
    found = heard("--microphone", "--seconds", seconds, "--device", "2")
    assert plugged.device == 2
    assert [label for _, label in found] == SAID
    assert [start - 1 for start, _ in found] == [pytest.approx(start, abs=0.12) for start in STARTS]


def test_a_word_that_was_not_all_heard_is_not_answered(heard, microphone):
    sound, seconds = listened()
    microphone(sound, overflows=[int((1 + STARTS[2] + 0.25) * 8000)])
    assert [label for _, label in heard("--microphone", "--seconds", seconds)] == [*SAID[:2], "-", *SAID[3:]]


def test_listening_ends_when_it_was_told_to(heard, microphone):
    sound, _ = listened()
    microphone(sound)
    assert [label for _, label in heard("--microphone", "--seconds", 1 + STARTS[2] - 0.1)] == SAID[:2]


def test_a_microphone_without_its_package_is_refused_with_what_installs_it(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    code, said = refused("--microphone", "--model", "no model")
    assert code == 3
    assert "a microphone needs sounddevice, which is not installed: pip install 'edgeseq[sound]'" in said


def test_a_package_without_its_library_is_refused_with_what_installs_that(refused, monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    code, said = refused("--microphone", "--model", "no model")
    assert code == 3
    assert "PortAudio library not found" in said
    assert "apt install libportaudio2" in said


def test_a_microphone_that_does_not_open_or_falls_silent_is_named(refused, tiny, microphone, spot, monkeypatch):
    microphone(np.zeros(0, np.float32), refuses="Invalid sample rate")
    code, said = refused("--microphone", "--device", "pulse", "--model", tiny)
    assert code == 2
    assert "the microphone pulse does not open at 8000 Hz: Invalid sample rate" in said
    microphone(np.zeros(0, np.float32))
    monkeypatch.setattr(sys.modules["sound"], "PATIENCE", 0.01)
    code, said = refused("--microphone", "--model", tiny)
    assert code == 6
    assert "no sound from the microphone" in said


def test_where_no_word_is_this_is_said_and_what_is_too_long_is_named(spot, tiny, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, seconds, loud in (("quiet", 2, 0), ("long", 5, 3)):
        x = rng.normal(size=8000 * seconds) * 30
        x[8000 : 8000 + 8000 * loud] *= 100
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(x.astype("<i2").tobytes())
    assert spot.main([str(tmp_path / "quiet.wav"), "--model", str(tiny)]) == 0
    assert "no word found" in capsys.readouterr().out
    assert spot.main([str(tmp_path / "long.wav"), "--model", str(tiny)]) == 0
    said = capsys.readouterr().out
    assert "no word: longer than 1.6 s" in said
    assert "no word found" not in said


def test_what_cannot_be_heard_is_refused(refused, spot, tmp_path):
    code, said = refused(SEVERAL, tmp_path / "none.wav", "--model", "no model")
    assert (code, "none.wav cannot be read" in said) == (2, True)
    code, said = refused(SEVERAL, "--model", "har_watch")
    assert (code, "har_watch reads ax (g)" in said) == (4, True)
    code, said = refused(SEVERAL, "--model", tmp_path / "nothing")
    assert (code, "is not a folder" in said) == (2, True)
    wrong_ways = [[], ["--microphone", str(SEVERAL)], [str(SEVERAL), "--seconds", "3"], [str(SEVERAL), "--device", "1"]]
    for wrong in [*wrong_ways, *(["--microphone", "--seconds", text] for text in ("0", "-1", "nan", "inf", "x"))]:
        with pytest.raises(SystemExit) as ended:
            spot.main(wrong)
        assert ended.value.code == 2
