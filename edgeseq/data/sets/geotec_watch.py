"""GeoTec: a watch while people sit, stand up, walk, turn and sit down, every sample labelled."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.csv_file import read_csv
from edgeseq.data.dataset import Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.mapping import Mapping
from edgeseq.data.npz import read_npz
from edgeseq.data.sets.files import named_files, rising
from edgeseq.errors import InputError, unknown

RATE = 50.0  # frames per second, that the recordings of about 104 Hz are interpolated to
LABELS = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
CHANNELS = ("ax", "ay", "az", "wx", "wy", "wz")
UNITS = ("m/s^2", "m/s^2", "m/s^2", "rad/s", "rad/s", "rad/s")
COLUMNS = Mapping(
    time="timestamp",
    time_unit="ms",
    label="label",
    subject_from="file",
    channels=("x_acc", "y_acc", "z_acc", "x_gyro", "y_gyro", "z_gyro"),
)
_NAMED = re.compile(r"s([0-9]+)_([0-9]+)_sw\.csv")
Frames = tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]


def read_geotec_watch(path: Path) -> Dataset:
    """The recordings of the file, or of the folder ``DATA`` (``s01/s01_01_sw.csv`` and so on), at 50 Hz.

    Raises:
        InputError: what :func:`~edgeseq.data.npz.read_npz` and :func:`~edgeseq.data.csv_file.read_csv` refuse; an
            unknown label.
    """
    return _of_folder(path) if path.is_dir() else read_npz(path)


def _of_folder(folder: Path) -> Dataset:
    found = named_files(folder, "s*/s*_sw.csv", _NAMED, "s01_01_sw.csv or alike")
    files = sorted((int(named[1]), int(named[2]), path) for named, path in found)
    recordings = tuple(Recording(*_frames(path), str(subject), path.name) for subject, _, path in files)
    return Dataset(folder.name, recordings, CHANNELS, UNITS, RATE, LABELS)


def _frames(path: Path) -> Frames:
    columns = read_csv(path, COLUMNS)
    for code, name in enumerate(columns.label.values):
        if name not in LABELS:
            row = int(np.argmax(columns.label.codes == code))
            raise InputError(f"{columns.at(row)}: {unknown('label', name, LABELS)}")
    index = np.array([LABELS.index(name) for name in columns.label.values], np.int16)
    return on_grid(columns.time, columns.x, index[columns.label.codes])


def on_grid(time: npt.NDArray[np.float64], x: npt.NDArray[np.float32], y: npt.NDArray[np.int16]) -> Frames:
    """Frames ``x (N, C)`` and their labels ``y (N,)`` as they would have come at 50 Hz, (T, C) and (T,).

    ``time``: (N,) seconds; put in order, and of frames of one time the first counts. Values are interpolated linearly;
    a label is that of the last frame before.
    """
    order = rising(time)
    ticks, x, y = np.rint(1e3 * (time[order] - time[order[0]])), x[order], y[order]  # ms: whole, as they were written
    grid = np.arange(0.0, ticks[-1] + 1, 1e3 / RATE)
    frames = np.stack([np.interp(grid, ticks, channel) for channel in x.T.astype(np.float64)], axis=1)
    return frames.astype(np.float32), y[np.searchsorted(ticks, grid, side="right") - 1]


GEOTEC_WATCH = Known(
    Facts(
        name="geotec_watch",
        summary="smartwatch while people sit, stand up, walk, turn, sit down; a label a sample",
        subjects=18,
        recordings=174,
        frames=97_788,
        minutes=32.6,
        rate=RATE,
        channels=CHANNELS,
        labels=LABELS,
        licence="CC BY 4.0",
        citation=(
            "M. Matey-Sanz, S. Casteleyn, C. Granell. Dataset of inertial measurements of smartphones and smartwatches "
            "for human activity recognition. Data in Brief, 2023, 109809, doi:10.1016/j.dib.2023.109809."
        ),
        origin="github.com/GeoTecINIT/sp-sw-har-dataset, DATA/sXX/sXX_YY_sw.csv",
        part="18 of its people",
        unscored=0.5,  # people sit still for less than a second before they get up
        changing=True,
        worn="wrist",
        signs="android",
    ),
    read_geotec_watch,
    ("geotec_watch_50hz.npz", "geotec_watch.npz", "s*/s*_sw.csv", "DATA/s*/s*_sw.csv"),
)
