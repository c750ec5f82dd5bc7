"""The keyword example's word cutter and its sound: words of any stream, hops of any blocks, samples of any wav file."""

from __future__ import annotations

import importlib
import struct
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeseq.errors import InputError

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "keyword_spotting"
RATE, SIZE = 8000, 128
HOPS = RATE / SIZE  # per second


@pytest.fixture(scope="module")
def example():
    """What imports a module of the example, as it lies beside the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
        yield importlib.import_module
    for name in ("cutter", "sound"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cutter(example):
    return example("cutter")


@pytest.fixture(scope="module")
def sound(example):
    return example("sound")


def db(level):
    return 10 ** (level / 20)


def noise(seconds, level, seed=0):
    return (np.random.default_rng(seed).normal(size=int(seconds * RATE)) * db(level)).astype(np.float32)


def hops(samples):
    return list(samples[: len(samples) // SIZE * SIZE].reshape(-1, SIZE))


def cut(cutter, samples, **start):
    """The words of a sound: (index of the first hop, the hops, whether it is whole) of each."""
    words, current, find = [], None, cutter.WordCutter(HOPS, **start)
    for part, count in [*((find(hop), t) for t, hop in enumerate(hops(samples), 1)), (find.end(), None)]:
        if part.begins:
            assert current is None
            current = (count - len(part.hops), [])
        assert current is not None or not (part.hops or part.ends)
        if current:
            current[1].extend(part.hops)
        if part.ends:
            words.append((*current, not part.broken))
            current = None
    assert current is None
    return words


spoken = st.tuples(st.floats(0.12, 1.2), st.floats(0.45, 1.5), st.floats(-30, -6))  # seconds, pause behind, level


@settings(max_examples=60, deadline=None)
@given(words=st.lists(spoken, max_size=4), floor=st.floats(-90, -55), lead=st.floats(0.5, 3), seed=st.integers(0, 99))
def test_each_word_is_found_where_it_is(cutter, words, floor, lead, seed):
    parts, true, at = [np.zeros(int(lead * RATE), np.float32)], [], lead
    for seconds, pause, level in words:
        parts += [noise(seconds, level, seed), np.zeros(int(pause * RATE), np.float32)]
        true.append((at, at + seconds))
        at += seconds + pause
    samples = np.concatenate(parts)
    samples += noise(len(samples) / RATE + 1, floor, seed + 1)[: len(samples)]
    found = cut(cutter, samples)
    assert len(found) == len(true)
    for (first, inside, whole), (start, end) in zip(found, true, strict=True):
        assert whole
        assert -2 / HOPS <= start - first / HOPS <= cutter.BEFORE + 2 / HOPS
        assert -2 / HOPS <= (first + len(inside)) / HOPS - end <= cutter.AFTER + 2 / HOPS


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.tuples(st.floats(-90, 0), st.integers(1, 40)), max_size=12),
    settle=st.floats(0, 1),
    floor=st.floats(-90, -20),
)
def test_a_words_hops_are_the_sounds_own_in_order_and_none_is_given_twice(cutter, levels, settle, floor):
    samples = np.concatenate([noise(n / HOPS, level, n) for level, n in levels] or [np.zeros(0, np.float32)])
    stream, end = hops(samples), 0
    for first, inside, _ in cut(cutter, samples, settle=settle, noise=floor):
        assert first >= end
        end = first + len(inside)
        np.testing.assert_array_equal(inside, stream[first:end])


@settings(max_examples=30, deadline=None)
@given(level=st.floats(-100, -3), seed=st.integers(0, 99))
def test_noise_of_any_level_is_no_word(cutter, level, seed):
    samples = noise(4, level, seed)
    assert not cut(cutter, samples, noise=cutter.noise_before(samples, SIZE, HOPS))
    assert not cut(cutter, samples, settle=0.5)


def test_a_pause_inside_a_word_belongs_to_it_and_a_longer_one_does_not(cutter):
    def words(pause):
        return cut(cutter, np.concatenate([noise(0.3, -20), noise(pause, -80), noise(0.3, -20), noise(1, -80)]))

    assert [len(inside) for _, inside, _ in words(cutter.HANG - 0.06)] == [pytest.approx(0.78 * HOPS, abs=3)]
    assert len(words(cutter.HANG + 0.06)) == 2


def test_a_click_is_no_word(cutter):
    click = noise(cutter.ONSET - 2 / HOPS, -10)
    assert not cut(cutter, np.concatenate([noise(1, -70), click, noise(1, -70)]))


def test_a_recording_that_is_cut_to_its_word_is_a_word(cutter):
    samples = np.concatenate([noise(0.05, -35), noise(0.25, -15), noise(0.1, -40)])
    ((first, inside, whole),) = cut(cutter, samples, noise=cutter.noise_before(samples, SIZE, HOPS))
    assert first == 0
    assert len(inside) >= 0.3 * HOPS - 1
    assert whole


def test_what_does_not_end_is_no_word_and_becomes_the_noise_behind_the_next_one(cutter):
    samples = np.concatenate([noise(1, -70), noise(4, -40), noise(0.4, -10), noise(1, -40)])
    (first, inside, whole), (second, _, next_whole) = cut(cutter, samples)
    assert (whole, next_whole) == (False, True)
    assert first == pytest.approx(HOPS, abs=8)
    assert len(inside) == round(cutter.LONGEST * HOPS)
    assert second == pytest.approx(5 * HOPS, abs=8)


def test_the_rest_of_a_word_that_was_lost_in_part_is_no_word(cutter):
    find = cutter.WordCutter(HOPS)
    for hop in hops(noise(0.3, -20)):
        find(hop)
    lost = find.lost()
    assert (lost.ends, lost.broken) == (True, "not all of it came")
    assert not any(find(hop).hops for hop in hops(noise(0.3, -20)))
    assert not any(find(hop).hops for hop in hops(noise(0.3, -80)))
    assert any(find(hop).begins for hop in hops(noise(0.3, -20)))


def test_after_a_loss_the_noise_is_still_known(cutter):
    find = cutter.WordCutter(HOPS, noise=-90.0)
    for hop in hops(noise(2.5, -45)):
        find(hop)
    find.lost()
    assert not any(find(hop).hops for hop in hops(noise(2, -45, 1)))


ROOM, SPOKEN = -45, -15  # dB


@pytest.mark.parametrize("dead", [0.3, 1.0, 1.9, 3.0])
@pytest.mark.parametrize("constant", [0.0, 0.2])
def test_a_drop_out_in_a_noisy_room_leaves_its_noise_known(cutter, dead, constant):
    silence = np.full(int(dead * RATE), constant, np.float32)
    word = np.concatenate([noise(0.4, SPOKEN), noise(1, ROOM, 2)])
    for samples in (
        np.concatenate([noise(2.5, ROOM), silence, noise(1, ROOM, 1), word]),
        np.concatenate([silence, noise(2.5, ROOM), word]),
    ):
        known = {"noise": cutter.noise_before(samples, SIZE, HOPS)}
        for start in (known, {"settle": 0.5}) if dead < cutter.MEMORY else (known,):
            ((first, _, whole),) = cut(cutter, samples, **start)
            assert whole
            assert first == pytest.approx((len(samples) - len(word)) / SIZE, abs=8)


def test_words_are_found_for_ever_where_the_pauses_were_erased(cutter):
    erased = np.zeros(int(0.5 * RATE), np.float32)
    samples = np.concatenate([part for k in range(150) for part in (noise(0.3, -30, k), erased)])
    assert len(cut(cutter, samples)) == 150
    assert len(cut(cutter, np.concatenate([np.zeros(3 * RATE, np.float32), samples]), settle=0.5)) == 150


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_lost_sound(cutter, bad):
    word = noise(0.5, SPOKEN)
    word[len(word) // 2] = bad
    samples = np.concatenate([noise(1, ROOM), word, noise(1, ROOM, 1), noise(0.4, SPOKEN, 1), noise(1, ROOM, 2)])
    (_, inside, whole), (second, _, next_whole) = cut(cutter, samples, noise=ROOM)
    assert (whole, next_whole) == (False, True)
    assert np.isfinite(inside).all()
    assert second == pytest.approx(2.5 * HOPS, abs=8)


def test_a_constant_in_the_sound_changes_nothing(cutter):
    samples = np.concatenate([noise(1, ROOM), noise(0.4, SPOKEN), noise(1, ROOM)])
    (plain,), (moved,) = (cut(cutter, samples + np.float32(shift)) for shift in (0, 0.25))
    assert (plain[0], len(plain[1])) == (moved[0], len(moved[1]))


def test_what_is_too_long_for_a_word_is_said_to_be_so(cutter):
    find = cutter.WordCutter(HOPS)
    ends = [part.broken for hop in hops(noise(5, -10)) if (part := find(hop)).ends]
    assert ends == ["longer than 1.6 s"]


blocks = st.lists(st.none() | arrays(np.float32, st.integers(0, 300), elements=st.floats(-1, 1, width=32)), max_size=12)


@given(given_blocks=blocks, size=st.integers(1, 200))
def test_hops_are_the_blocks_end_to_end_but_for_what_was_lost(sound, given_blocks, size):
    found = list(sound.in_hops(given_blocks, size))
    runs: list[list[np.ndarray]] = [[]]
    for block in given_blocks:
        runs[-1].append(block) if block is not None else runs.append([])
    expected: list[np.ndarray | None] = []
    for k, run in enumerate(runs):
        samples = np.concatenate([np.empty(0, np.float32), *run])
        expected += [None] * (k > 0) + list(samples[: len(samples) // size * size].reshape(-1, size))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def written(path, samples, width, rate=RATE):
    """``samples (N, channels)``, -1 to 1, as a wav file of so many bytes a sample."""
    levels = np.rint(samples.astype(np.float64) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    levels += 128 * (width == 1)
    raw = levels.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_file_of_any_width_is_read(sound, tmp_path, width, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (500, channels))
    samples[0], samples[1] = 1, -1
    found, rate = sound.read_wav(written(tmp_path / "a.wav", samples, width, 11025))
    assert rate == 11025
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, samples.mean(1), atol=max(2e-7, 1.51 / 2 ** (8 * width - 1)))


@pytest.mark.parametrize(("gone", "left"), [(1, 99), (5, 98), (396, 1)])
def test_a_file_that_was_cut_off_is_refused_with_both_counts(sound, tmp_path, gone, left):
    path = written(tmp_path / "a.wav", np.full((100, 2), 0.5), 2)
    path.write_bytes(path.read_bytes()[:-gone])
    with pytest.raises(InputError, match=rf"a\.wav says 100 samples and holds {left}: it was cut off"):
        sound.read_wav(path)


def other_wav(kind=3, width=4):
    head = struct.pack("<HHIIHH", kind, 1, RATE, width * RATE, width, 8 * width)
    return b"RIFF" + struct.pack("<I", 44) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + bytes(8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"RIFF", "it ends too early"),
        (b"ID3\x04\x00\xff\xfb\x90", "file does not start with RIFF id"),
        (other_wav(), "unknown format: 3"),
        (other_wav(1, 8), "64 bits a sample"),
    ],
)
def test_what_is_no_pcm_is_refused_with_what_makes_it_such(sound, tmp_path, content, reason):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.wav is not a wav file of PCM samples \({reason}\)\. Copy .*ffmpeg"):
        sound.read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize("content", ["0.1, 0.2\n" * 9, "# Grüße\n", "é" * 5000 + "!"])
def test_text_is_not_made_sound_of(sound, tmp_path, content):
    (tmp_path / "README.md").write_text("x" + content, encoding="utf-8")
    with pytest.raises(InputError, match=r"README\.md is text, not sound: name a wav file$"):
        sound.read_wav(tmp_path / "README.md")
    (tmp_path / "a.wav").touch()
    with pytest.raises(InputError, match=r"a\.wav is empty: name a wav file$"):
        sound.read_wav(tmp_path / "a.wav")


def test_a_file_without_a_sample_is_refused(sound, tmp_path):
    with pytest.raises(InputError, match="holds no sample"):
        sound.read_wav(written(tmp_path / "a.wav", np.empty((0, 1)), 2))
    with pytest.raises(InputError, match=r"none\.wav cannot be read: No such file"):
        sound.read_wav(tmp_path / "none.wav")


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_tone_is_the_same_at_the_models_rate_and_what_it_cannot_carry_is_gone(sound, rate):
    def tone(hertz, at):
        return np.sin(2 * np.pi * hertz * np.arange(at) / at).astype(np.float32)  # a second

    inner = slice(200, -200)
    np.testing.assert_allclose(sound.at_rate(tone(440, rate), rate, RATE)[inner], tone(440, RATE)[inner], atol=0.01)
    if rate > 2 * RATE:
        assert np.abs(sound.at_rate(tone(6000, rate), rate, RATE)[inner]).max() < 0.01
