"""ECG5000: single heartbeats, normal and not, of one patient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.sets.files import OFFICIAL, PARTS, line_numbers, needed, numbers, segments, text_lines
from edgeseq.data.split import deal, subject_folds
from edgeseq.errors import InputError

FRAMES = 140  # of a beat, which the archive stretched to that
RATE = 140.0  # frames per second: a beat is taken for a second
LABELS = ("normal", "r_on_t_pvc", "pvc", "sp", "ub")
SUFFIXES = (".ts", ".txt", ".tsv")
_KEYS = ("x", "y")
Beats = tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]  # (R, 140, 1), and a label index of each (R,)


def read_ecg5000(path: Path) -> Dataset:
    """The beats of the file, or of the archive's files in a folder, as segments of 140 frames (140, 1).

    Where ``ECG5000_TEST`` lies beside ``ECG5000_TRAIN``, it is the test part of the official split; a fifth of each
    label of the training part is then what models are chosen on.
    Raises:
        InputError: a key is missing or does not fit the other; a file that is not of the archive's format, with its
            line.
    """
    if not path.is_dir():
        return _dealt(path.stem, _of_npz(path))
    file = next(file for suffix in SUFFIXES if (file := path / f"ECG5000_TRAIN{suffix}").is_file())
    train = _dealt(path.name, _of_text(file))
    test = file.with_stem("ECG5000_TEST")
    return _official(train, segments(*_of_text(test), PARTS[2], test.name)) if test.is_file() else train


def _dealt(name: str, beats: Beats) -> Dataset:
    return deal(Dataset(name, segments(*beats, "", name), ("ecg",), ("",), RATE, LABELS, task="segment"))


def _official(train: Dataset, test: tuple[Recording, ...]) -> Dataset:
    """The archive's own parts: ``train`` is dealt, and its first fold becomes what models are chosen on."""
    chosen_on = frozenset(subject_folds(train)[0][0])
    own = (dataclasses.replace(beat, subject=PARTS[beat.subject in chosen_on]) for beat in train.recordings)
    return dataclasses.replace(train, recordings=(*own, *test), official=OFFICIAL)


def _of_npz(path: Path) -> Beats:
    arrays = needed(path, "ecg5000", _KEYS)
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or x.dtype.kind != "f" or y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise InputError(
            f"{path}: 'x' is {x.dtype} {x.shape}, and 'y' {y.dtype} {y.shape}. Give the beats (R, {FRAMES}), and a "
            "label index of each."
        )
    return x.astype(np.float32)[..., None], y.astype(np.int16)


def _of_text(path: Path) -> Beats:
    """Of a ``.ts`` file, whose label is behind a colon, or of a table whose first column it is."""
    lines = text_lines(path)
    rows = _label_first(path, lines) if path.suffix == ".ts" else lines
    values = numbers(path, rows, FRAMES + 1, "," if path.suffix == ".ts" else None)
    wrong = np.flatnonzero(~np.isin(values[:, 0], np.arange(1, len(LABELS) + 1)))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}, line {line_numbers(rows)[row]}: the label is {values[row, 0]:g}, and ECG5000 has 1 to "
            f"{len(LABELS)}. Copy the file again."
        )
    return values[:, 1:, None].astype(np.float32), (values[:, 0] - 1).astype(np.int16)


def _label_first(path: Path, lines: list[str]) -> list[str]:
    """The beats of a ``.ts`` file as lines of label and values, in the lines where they were; its head is blank."""
    start = next((k for k, line in enumerate(lines, 1) if line.strip().lower() == "@data"), None)
    if start is None:
        raise InputError(f"{path}: there is no line @data, behind which the beats of a .ts file are. Copy it again.")
    rows = [""] * start
    for number, line in enumerate(lines[start:], start + 1):
        values, colon, label = line.strip().rpartition(":")
        if line.strip() and not colon:
            raise InputError(f"{path}, line {number}: no label stands behind a colon at its end. Copy the file again.")
        rows.append(f"{label},{values}" if colon else "")
    return rows


ECG5000 = Known(
    Facts(
        name="ecg5000",
        summary="single heartbeats, normal and four kinds that are not, very unbalanced",
        recordings=500,
        frames=70_000,
        minutes=8.3,
        rate=RATE,
        channels=("ecg",),
        labels=LABELS,
        licence="ODC-BY 1.0 (PhysioNet); the UCR archive asks for its citation",
        citation=(
            "H. A. Dau et al. The UCR Time Series Archive, 2018. A. L. Goldberger et al. PhysioBank, PhysioToolkit, "
            "and PhysioNet. Circulation 101(23), 2000."
        ),
        origin="UCR Time Series Classification Archive, ECG5000_TRAIN and ECG5000_TEST as .ts, .txt or .tsv",
        part="its training part alone, ECG5000_TRAIN",
        task="segment",
    ),
    read_ecg5000,
    ("ecg5000_train500.npz", "ecg5000.npz", *(f"ECG5000_TRAIN{suffix}" for suffix in SUFFIXES)),
)
