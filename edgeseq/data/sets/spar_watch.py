"""SPAR: shoulder physiotherapy exercises, a watch on the wrist. Shipped with edgeseq.

``spar_watch_acc`` is the same recordings without the gyroscope: for watches that have none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from edgeseq.data.dataset import Dataset
from edgeseq.data.facts import Facts, Known
from edgeseq.data.npz import read_npz

ACCELERATIONS = 3  # channels, the first ones

SPAR_WATCH = Known(
    Facts(
        name="spar_watch",
        summary="smartwatch on the wrist, seven shoulder physiotherapy exercises",
        subjects=10,
        recordings=140,
        frames=244_102,
        minutes=81.4,
        rate=50.0,
        channels=("ax", "ay", "az", "wx", "wy", "wz"),
        labels=("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"),
        licence="BSD-3-Clause, Copyright (c) 2018, David M. Burns (edgeseq/data/spar_watch/LICENSE.txt)",
        citation=(
            "D. M. Burns, N. Leung, M. Hardisty, C. M. Whyne, P. Henry, S. McLachlin. Shoulder Physiotherapy "
            "Exercise Recognition: Machine Learning the Inertial Signals from a Smartwatch. Physiological "
            "Measurement 39(7), 2018, arXiv:1802.01489."
        ),
        origin="seglearn 1.2.5, seglearn/data/watch_dataset.npy (a part of the SPAR data set), rounded to int16",
        worn="wrist",
        signs="apple",
        shipped=True,
    ),
    read_npz,
    ("spar_watch.npz",),
)


def read_accelerations(path: Path) -> Dataset:
    """The recordings of the file with the channels of the accelerometer alone.

    Raises:
        InputError: what :func:`~edgeseq.data.npz.read_npz` refuses.
    """
    whole = read_npz(path)
    recordings = tuple(dataclasses.replace(each, x=each.x[:, :ACCELERATIONS].copy()) for each in whole.recordings)
    channels, units = whole.channels[:ACCELERATIONS], whole.units[:ACCELERATIONS]
    return dataclasses.replace(whole, recordings=recordings, channels=channels, units=units)


SPAR_WATCH_ACC = Known(
    msgspec.structs.replace(
        SPAR_WATCH.facts,
        name="spar_watch_acc",
        summary="the recordings of spar_watch without the gyroscope, for watches that have none",
        channels=SPAR_WATCH.facts.channels[:ACCELERATIONS],
    ),
    read_accelerations,
    SPAR_WATCH.forms,
    folder=SPAR_WATCH.facts.name,
)
