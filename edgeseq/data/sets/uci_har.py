"""UCI HAR: the unbroken recordings (HAPT) that the well-known windows were cut from, a phone at the waist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseq.data.dataset import IGNORED, Dataset, Recording
from edgeseq.data.facts import Facts, Known
from edgeseq.data.npz import read_npz
from edgeseq.data.sets.files import line_numbers, named_files, numbers, text_lines
from edgeseq.errors import InputError

LABELS = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
TRANSITIONS = ("STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND")
CHANNELS, UNITS = ("ax", "ay", "az", "wx", "wy", "wz"), ("g", "g", "g", "rad/s", "rad/s", "rad/s")
RATE = 50.0
TESTED = ("2", "4", "9", "10", "12", "13", "18", "20", "24")  # the official test subjects
CHOSEN_ON = ("27", "28", "29", "30")  # ours, of the official training subjects
_NAMED = re.compile(r"acc_exp([0-9]+)_user([0-9]+)\.txt")


def read_uci_har(path: Path) -> Dataset:
    """The recordings of the file, or of the folder ``RawData``.

    Postural transitions, of a few seconds in an hour, count as unlabelled.
    Raises:
        InputError: what :func:`~edgeseq.data.npz.read_npz` refuses; a file that is missing from the folder or is
            malformed, with its line; a recording without a label.
    """
    dataset = _of_folder(path) if path.is_dir() else read_npz(path, ("UNLABELLED", *TRANSITIONS))
    there = set(dataset.subjects)
    tested, chosen_on = (tuple(name for name in part if name in there) for part in (TESTED, CHOSEN_ON))
    # Of a few subjects there may be no such parts: they are then split as any others.
    return dataclasses.replace(dataset, official=(tested, chosen_on) if tested and chosen_on else None)


def _of_folder(folder: Path) -> Dataset:
    found = named_files(folder, "acc_exp*_user*.txt", _NAMED, "acc_expNN_userNN.txt")
    files = {(int(named[1]), int(named[2])): path for named, path in found}
    said = folder / "labels.txt"
    spans = _spans(said)
    for key, path in files.items():
        if key not in spans:
            raise InputError(
                f"{path}: no line of labels.txt is of experiment {key[0]} and user {key[1]}. Copy labels.txt again, or "
                "take the recording out."
            )
    recordings = tuple(
        Recording(x := _frames(path), _labels(said, spans[key], len(x)), str(key[1]), path.name)
        for key, path in sorted(files.items())
    )
    return Dataset(folder.name, recordings, CHANNELS, UNITS, RATE, LABELS)


def _frames(path: Path) -> npt.NDArray[np.float32]:
    """(T, 6) of an accelerometer's file and the gyroscope's beside it."""
    beside = path.with_name(path.name.replace("acc_", "gyro_"))
    if not beside.is_file():
        raise InputError(f"{path}: {beside.name} is missing beside it. Copy it too, or take this one out.")
    acceleration, rotation = (numbers(file, text_lines(file), 3) for file in (path, beside))
    if len(acceleration) != len(rotation):
        raise InputError(
            f"{path}: {len(acceleration)} samples, and {beside.name} has {len(rotation)}. Copy both files again."
        )
    return np.concatenate([acceleration, rotation], axis=1).astype(np.float32)


Span = tuple[int, int, int, int]  # activity, first and last sample, and the line that says so


def _spans(path: Path) -> dict[tuple[int, int], list[Span]]:
    """What ``labels.txt`` says of each experiment and user."""
    lines = text_lines(path)
    spans: dict[tuple[int, int], list[Span]] = {}
    rows = numbers(path, lines, 5).astype(np.int64).tolist()
    for line, (experiment, user, activity, first, last) in zip(line_numbers(lines), rows, strict=True):
        if not 1 <= activity <= len(LABELS) + len(TRANSITIONS) or not 0 <= first <= last:
            raise InputError(
                f"{path}, line {line}: activity {activity} from sample {first} to {last}. Activities "
                f"are 1 to {len(LABELS) + len(TRANSITIONS)}, and samples rise from 0. Copy the file again."
            )
        spans.setdefault((experiment, user), []).append((activity, first, last, line))
    return spans


def _labels(path: Path, spans: list[Span], count: int) -> npt.NDArray[np.int16]:
    """(count,) of the spans of ``path``, which include their last sample, from 0 as the windows of others count.

    A span that ends at ``count`` ends with the recording: whoever wrote it counted from 1.
    """
    y = np.full(count, IGNORED, np.int16)
    for activity, first, last, line in spans:
        if last > count:
            raise InputError(
                f"{path}, line {line}: it ends at sample {last} of a recording that has {count}. Copy the files again."
            )
        if activity <= len(LABELS):
            y[first : last + 1] = activity - 1
    return y


UCI_HAR = Known(
    Facts(
        name="uci_har",
        summary="phone at the waist, six activities, the unbroken recordings behind UCI HAR",
        subjects=25,
        recordings=50,
        frames=934_388,
        minutes=311.5,
        rate=RATE,
        channels=CHANNELS,
        labels=LABELS,
        licence="CC BY 4.0 by UCI; the authors' own README forbids commercial use: take it for research",
        citation=(
            "J.-L. Reyes-Ortiz, L. Oneto, A. Samà, X. Parra, D. Anguita. Transition-Aware Human Activity Recognition "
            "Using Smartphones. Neurocomputing 171, 2016."
        ),
        origin="UCI Machine Learning Repository, data set 341 (HAPT), RawData/",
        part="25 of its 30 people, of whom four are official test subjects",
        changing=True,
        worn="waist",
        signs="android",
    ),
    read_uci_har,
    ("uci_hapt_stream.npz", "acc_exp*_user*.txt", "RawData/acc_exp*_user*.txt"),
)
