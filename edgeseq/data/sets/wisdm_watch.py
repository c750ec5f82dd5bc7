"""WISDM (2019): the accelerometer of a watch, six of its eighteen activities."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.npz import read_npz
from edgeseq.data.sets.files import named_files, numbers, rising, text_lines
from edgeseq.errors import InputError

ACTIVITIES = {"A": "walking", "B": "jogging", "C": "stairs", "D": "sitting", "E": "standing", "M": "kicking"}
LABELS = tuple(ACTIVITIES.values())
CODES = tuple("ABCDEFGHIJKLMOPQRS")  # of all eighteen; there is no N
CHANNELS, UNITS = ("ax", "ay", "az"), ("m/s^2",) * 3
RATE = 20.0
GAP = 0.25  # seconds without a frame after which another recording starts
SHORTEST = 1.0  # seconds: what is left between two gaps and is shorter is left out
OFF = 0.1  # the share by which a file's rate may differ: frames are taken as they come
_NAMED = re.compile(r"data_([0-9]+)_accel_watch\.txt")
_CELLS = 6  # subject, activity, time in ns, x, y, z


def read_wisdm_watch(path: Path) -> Dataset:
    """The recordings of the file, or of the folder ``raw/watch/accel``, of the six activities that are hard to tell.

    Frames of a folder are put in the order of time, those of a time that was there already are left out.
    Raises:
        InputError: what :func:`~edgeseq.data.npz.read_npz` refuses; a line that is not one of WISDM's; a file at
            another rate than 20 Hz.
    """
    if not path.is_dir():
        return read_npz(path)
    found = named_files(path, "data_*_accel_watch.txt", _NAMED, "data_1600_accel_watch.txt or alike")
    files = sorted((int(named[1]), file) for named, file in found)
    recordings = [recording for subject, file in files for recording in _recordings(file, str(subject))]
    return Dataset(path.name, tuple(recordings), CHANNELS, UNITS, RATE, LABELS)


def _recordings(path: Path, subject: str) -> list[Recording]:
    lines = text_lines(path)
    codes = [_code(path, number, line, subject) for number, line in enumerate(lines, 1)]
    found = []
    for label, code in enumerate(ACTIVITIES):
        rows = [
            line.strip().rstrip(";").split(",", 2)[2] if c == code else "" for line, c in zip(lines, codes, strict=True)
        ]
        if not any(rows):
            continue  # not everybody did everything
        values = numbers(path, rows, _CELLS - 2, ",")
        pieces = _pieces(path, code, values[:, 0] / 1e9, values[:, 1:].astype(np.float32))
        for k, x in enumerate(pieces):
            name = f"{path.name}, {code}" + (f", part {k + 1}" if len(pieces) > 1 else "")
            found.append(Recording(x, np.full(len(x), label, np.int16), subject, name))
    return found


def _code(path: Path, number: int, line: str, subject: str) -> str:
    """The activity that a line is of; "" if it is blank."""
    if not line.strip():
        return ""
    cells = [cell.strip() for cell in line.split(",", 2)]
    if len(cells) < 3 or cells[0] != subject or cells[1] not in CODES:
        raise InputError(
            f"{path}, line {number}: {line.strip()[:60]!r} is no line of subject {subject}. Lines are {subject}, an "
            f"activity of {CODES[0]} to {CODES[-1]}, time in ns, x, y, z;"
        )
    return cells[1]


def _pieces(
    path: Path, code: str, time: npt.NDArray[np.float64], x: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    """The unbroken stretches (T, 3) of frames ``x (N, 3)`` that came at ``time (N,)``, in seconds."""
    order = rising(time)
    time, x = time[order], x[order]
    steps = np.diff(time)
    if len(steps) and abs(float(np.median(steps)) * RATE - 1) > OFF:
        raise InputError(
            f"{path}: a frame of activity {code} every {1e3 * np.median(steps):.4g} ms, and wisdm_watch has one every "
            f"{1e3 / RATE:g} ms. Take the file out, or resample it."
        )
    pieces = np.split(x, np.flatnonzero(steps > GAP) + 1)
    return [piece for piece in pieces if len(piece) >= SHORTEST * RATE]


WISDM_WATCH = Known(
    Facts(
        name="wisdm_watch",
        summary="smartwatch, accelerometer only, six activities of daily life",
        subjects=43,
        recordings=256,
        frames=614_400,
        minutes=512.0,
        rate=RATE,
        channels=CHANNELS,
        labels=LABELS,
        licence="CC BY 4.0",
        citation=(
            "G. M. Weiss, K. Yoneda, T. Hayajneh. Smartphone and Smartwatch-Based Biometrics Using Activities of Daily "
            "Living. IEEE Access 7, 2019, 133190-133202."
        ),
        origin="UCI Machine Learning Repository, data set 507, wisdm-dataset/raw/watch/accel/",
        part="43 of its people, two minutes of each activity",
        worn="wrist",
        signs="android",
    ),
    read_wisdm_watch,
    (
        "wisdm_watch_acc.npz",
        "wisdm_watch.npz",
        "data_*_accel_watch.txt",
        "raw/watch/accel/data_*_accel_watch.txt",
        "wisdm-dataset/raw/watch/accel/data_*_accel_watch.txt",
    ),
)
