"""FSDD: spoken digits, one word a recording, mono at 8 kHz: our ``.npz``, or the folder of wav files."""

from __future__ import annotations

import itertools
import re
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import SOUND, Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.sets.files import named_files, needed
from edgeseq.errors import InputError

RATE = 8000  # samples per second
FULL_SCALE = np.float32(1 / 32768)  # of a 16-bit sample
LABELS = tuple(str(digit) for digit in range(10))
_KEYS = ("x", "offset", "digit", "speaker", "speakers", "take", "fs")
_NAMED = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")


def read_fsdd(path: Path) -> Dataset:
    """The words of the file, or of a folder of wav files, as segments of samples (T, 1), -1 to 1.

    A wav file is called ``{digit}_{speaker}_{take}.wav``. The subjects are who speaks.
    Raises:
        InputError: a key is missing or does not fit the others; a wav that is called otherwise, cannot be read, is
            empty or cut off, or is not mono, 16 bit, 8000 Hz.
    """
    words = _of_folder(path) if path.is_dir() else _of_npz(path)
    return Dataset(path.stem, words, ("sound",), (SOUND,), float(RATE), LABELS, task="segment")


def _of_npz(path: Path) -> tuple[Recording, ...]:
    arrays = needed(path, "fsdd", _KEYS)
    x, offset, rate = arrays["x"], arrays["offset"], arrays["fs"]
    spoken = [arrays[key] for key in ("digit", "speaker", "take")]
    fitting = offset.ndim == 1 and all(a.shape == (len(offset) - 1,) and a.dtype.kind in "iu" for a in spoken)
    if x.ndim != 1 or x.dtype != np.int16 or offset.dtype.kind not in "iu" or not fitting:
        raise InputError(
            f"{path}: 'x' is {x.dtype} {x.shape}, 'offset' {offset.shape}, and digit, speaker and take are "
            f"{', '.join(str(a.shape) for a in spoken)}. Give int16 samples (N,), R + 1 offsets, and R whole numbers "
            "of each of the others."
        )
    if rate.size != 1 or rate.item() != RATE:
        raise InputError(f"{path}: 'fs' is {rate}, and fsdd has {RATE} Hz. Copy the file again.")
    speakers = [str(name) for name in arrays["speakers"].tolist()]
    if spoken[1].size and int(spoken[1].max()) >= len(speakers):
        raise InputError(f"{path}: 'speaker' has index {spoken[1].max()}, and there are {len(speakers)} speakers.")
    words = zip(itertools.pairwise(offset.tolist()), *(array.tolist() for array in spoken), strict=True)
    return tuple(_word(x[first:last], d, speakers[who], take) for (first, last), d, who, take in words)


def _of_folder(folder: Path) -> tuple[Recording, ...]:
    files = named_files(folder, "*.wav", _NAMED, "{digit}_{speaker}_{take}.wav")
    words = sorted((named[2], int(named[1]), int(named[3]), path) for named, path in files)
    return tuple(_word(_samples(path), digit, speaker, take) for speaker, digit, take, path in words)


def _samples(path: Path) -> npt.NDArray[np.int16]:
    """(N,) of a wav file, as FSDD has them."""
    try:
        with wave.open(str(path), "rb") as sound:
            form = sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate()
            count, said = sound.getnframes(), sound.readframes(sound.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        reason = str(error) or "it ends too early"
        raise InputError(f"{path}: it cannot be read as a wav file ({reason}). Copy it again.") from None
    if form != (1, 16, RATE):
        raise InputError(
            f"{path}: {form[0]} channel(s) of {form[1]} bit at {form[2]} Hz, and fsdd is mono, 16 bit, {RATE} Hz. "
            f"Convert it: sox {path.name} -c 1 -b 16 -r {RATE} new.wav"
        )
    if len(said) != 2 * count:
        raise InputError(f"{path}: it says {count} samples and holds {len(said) // 2}: it was cut off. Copy it again.")
    if not count:
        raise InputError(f"{path}: it holds no samples. Take it out.")
    return np.frombuffer(said, "<i2").astype(np.int16)


def _word(x: npt.NDArray[np.int16], digit: int, speaker: str, take: int) -> Recording:
    """One recording, named as its file is."""
    frames = x.astype(np.float32)[:, None] * FULL_SCALE
    return Recording(frames, np.full(len(x), digit, np.int16), speaker, f"{digit}_{speaker}_{take}.wav")


FSDD = Known(
    Facts(
        name="fsdd",
        summary="spoken digits, five speakers, single words at 8 kHz",
        subjects=5,
        recordings=2500,
        frames=8_731_554,
        minutes=18.2,
        rate=float(RATE),
        channels=("sound",),
        labels=LABELS,
        licence="CC BY-SA 4.0",
        citation=(
            "Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas, A. Thite. Free Spoken Digit Dataset, Zenodo, "
            "doi:10.5281/zenodo.1342401."
        ),
        origin="github.com/Jakobovski/free-spoken-digit-dataset, recordings/",
        part="five of its speakers: jackson, lucas, nicolas, theo and yweweler",
        task="segment",
    ),
    read_fsdd,
    ("fsdd.npz", "[0-9]_*_*.wav", "recordings/[0-9]_*_*.wav"),
)
