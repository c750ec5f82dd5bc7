"""Sound from wav files and from a microphone, in hops of the length that a model reads. -1 to 1 is full scale."""

import codecs
import queue
import sys
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseq.data.dataset import SOUND, Dataset, Recording
from edgeseq.data.resample import resampled
from edgeseq.errors import DeviceUnreachable, InputError, MissingDependency

Floats = NDArray[np.float32]
WAITING = 256  # blocks of a microphone that may wait to be heard: seconds
PATIENCE = 5.0  # seconds without a block after which a microphone is given up
WIDEST = 4  # bytes of a sample
HEAD = 4096  # bytes of a file that show whether it is text


def read_wav(path: Path) -> tuple[Floats, float]:
    """The samples (N,) of a file of 8, 16, 24 or 32-bit PCM, the mean of its channels, and their rate in Hz.

    Raises:
        InputError: no such file, not such a wav file, one that was cut off, or no sample in it.
    """
    try:
        with path.open("rb") as file, wave.open(file) as sound:
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            count, raw = sound.getnframes(), sound.readframes(sound.getnframes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (wave.Error, EOFError) as error:
        raise _no_wav(path, str(error) or "it ends too early") from None
    if width > WIDEST:
        raise _no_wav(path, f"{8 * width} bits a sample")
    held = len(raw) // (width * channels)
    if held != count:
        raise InputError(f"{path} says {count} samples and holds {held}: it was cut off. Copy it, or record it, anew")
    if not count or not rate:
        raise InputError(f"{path} holds no sample: record it anew")
    return _full_scale(raw, width).reshape(-1, channels).mean(1, dtype=np.float32), float(rate)


def _no_wav(path: Path, reason: str) -> InputError:
    """The error for a file that is not read, with what makes it such if it may be sound of another kind."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if _is_text(head):
        return InputError(f"{path} is {'text, not sound' if head else 'empty'}: name a wav file")
    mend = f"Copy it again, or make one of it: ffmpeg -i {path} -c:a pcm_s16le word.wav"
    return InputError(f"{path} is not a wav file of PCM samples ({reason}). {mend}")


def _is_text(head: bytes) -> bool:
    """Whether a file that begins so is text; also if it is empty."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end inside a letter
    except UnicodeDecodeError:
        return False
    return "\0" not in text and not head.startswith(b"RIFF")


def _full_scale(raw: bytes, width: int) -> Floats:
    """Samples of ``width`` bytes as -1 to 1."""
    if width == 1:  # the one width without a sign
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    padded = np.zeros((len(raw) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)  # the upper bytes of 32 bits
    return (padded.view("<i4")[:, 0] / 2**31).astype(np.float32)


def at_rate(samples: Floats, rate: float, wanted: float) -> Floats:
    """Samples (N,) at ``rate`` Hz as they are at ``wanted`` Hz.

    Raises:
        InputError: the rates are over 16 times apart.
    """
    if rate == wanted:
        return samples
    recording = Recording(samples[:, None], np.zeros(len(samples), np.int16), "", "sound")
    sound = Dataset("the sound", (recording,), ("sound",), (SOUND,), rate, ("word",), task="segment")
    return resampled(sound, wanted).recordings[0].x[:, 0]


def in_hops(blocks: Iterable[Floats | None], size: int) -> Iterator[Floats | None]:
    """Blocks of any lengths as hops of ``size`` samples, each an array of its own; an incomplete last one is left out.

    None stands for samples that were lost: what is left of the hop before it is left out as well.
    """
    rest = np.empty(0, np.float32)
    for block in blocks:
        if block is None:
            rest = rest[:0]
            yield None
            continue
        sound = np.concatenate([rest, block])
        count = len(sound) // size
        yield from sound[: count * size].reshape(count, size)
        rest = sound[count * size :]


def microphone(rate: float, device: str | None = None, seconds: float | None = None) -> Iterator[Floats | None]:
    """Blocks of samples at ``rate`` Hz from a microphone, None where some were lost; without ``seconds`` for ever.

    ``device``: a number or a part of a name, of those that ``python -m sounddevice`` lists.

    Raises:
        MissingDependency: sounddevice, or the PortAudio library that it calls, is not installed.
        InputError: the device is unknown, or does not open at this rate.
        DeviceUnreachable: it no longer gives sound.
    """
    sounddevice = ears()
    blocks: queue.Queue[Floats | None] = queue.Queue(WAITING)
    left = sys.maxsize if seconds is None else round(seconds * rate)
    hear = _Ear(blocks)
    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        stream = sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", device=chosen, callback=hear)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise InputError(
            f"the microphone {device or ''} does not open at {rate:g} Hz: {error}. `python -m sounddevice` lists what "
            "there is; one that brings sound to any rate, such as pulse or pipewire, is chosen with --device NAME"
        ) from None
    with stream:
        while left > 0:
            try:
                block = blocks.get(timeout=PATIENCE)
            except queue.Empty:
                raise DeviceUnreachable(f"no sound from the microphone for {PATIENCE:g} s: is it plugged in?") from None
            if block is not None:
                block = block[:left]
                left -= len(block)
            yield block


class _Ear:
    """What a stream calls with each block, in a thread of its own: it must not wait."""

    def __init__(self, blocks: "queue.Queue[Floats | None]") -> None:
        self._blocks, self._lost = blocks, False

    def __call__(self, block: Floats, count: int, when: Any, status: Any) -> None:
        self._lost |= bool(status.input_overflow)
        try:
            if self._lost:
                self._blocks.put_nowait(None)
                self._lost = False
            self._blocks.put_nowait(block[:, 0].copy())  # the stream goes on to use its own
        except queue.Full:
            self._lost = True


class _NoPortAudio(MissingDependency):
    def __init__(self, error: OSError) -> None:
        Exception.__init__(
            self, f"a microphone needs PortAudio, which sounddevice does not find ({error}): apt install libportaudio2"
        )


def ears() -> Any:
    """What a microphone is heard with. Raises MissingDependency as :func:`microphone` does."""
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MissingDependency("sounddevice", "sound", "a microphone") from None
    except OSError as error:
        raise _NoPortAudio(error) from None
    return sounddevice
