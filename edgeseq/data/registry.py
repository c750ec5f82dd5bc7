"""Data by name or by path: the sets that edgeseq knows, and the one door for the user's own.

To register another set, write a function that reads its file and add one line of facts to ``_REGISTERED``. A set that
may not be shipped is read from where the user keeps it: a path, or the folder that EDGESEQ_DATA names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeseq.data.braille7 import read_braille7
from edgeseq.data.dataset import Dataset, check
from edgeseq.data.mapping import Mapping
from edgeseq.data.npz import read_npz
from edgeseq.data.split import deal
from edgeseq.data.tables import SUFFIXES, read_tables
from edgeseq.errors import InputError, unknown

PLACE = "EDGESEQ_DATA"  # of the environment: a folder that holds NAME/NAME.npz for each set that is not shipped
Reader = Callable[[Path], Dataset]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a registered data set without loading it. ``minutes`` of all recordings together.

    ``subjects``: 0 where nobody knows them. ``shipped``: whether it comes with edgeseq.
    """

    name: str
    summary: str
    subjects: int
    recordings: int
    frames: int
    minutes: float
    rate: float
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str
    origin: str
    worn: str = ""
    task: str = "frame"
    shipped: bool = True


_REGISTERED: tuple[tuple[Facts, Reader], ...] = (
    (
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
        ),
        read_npz,
    ),
    (
        Facts(
            name="braille7",
            summary="a fingertip of twelve taxels sliding over seven Braille letters, as spikes (not shipped)",
            subjects=0,
            recordings=920,
            frames=235_520,
            minutes=19.6,
            rate=200.0,
            channels=tuple(f"taxel{k}" for k in range(1, 13)),
            labels=("Space", "A", "E", "I", "O", "U", "Y"),
            licence="of the repository Apache-2.0, of the recordings behind it unknown: look it up before publishing",
            citation=(
                "S. F. Müller-Cleve, V. Fra, L. Khacef, A. Pequeño-Zurro, D. Klepatsch, E. Forno, D. G. Ivanovich, "
                "S. Rastogi, G. Urgese, F. Zenke, C. Bartolozzi. Braille letter reading: A benchmark for "
                "spatio-temporal pattern recognition on neuromorphic hardware. Frontiers in Neuroscience 16, 2022, "
                "951164. Encoded by B. Leto, G. Urgese, E. Macii, V. Fra. A LIF-based Legendre Memory Unit as "
                "neuromorphic State Space Model benchmarked on a second-long spatio-temporal task. NICE 2025."
            ),
            origin=(
                "github.com/neuromorphic-polito/L2MU-Braille, data/braille_splitted/ds_val_0.pt to ds_val_9.pt, "
                "merged without duplicates"
            ),
            task="segment",
            shipped=False,
        ),
        read_braille7,
    ),
)


def datasets() -> tuple[Facts, ...]:
    """The facts of every registered data set, by name."""
    return tuple(facts for facts, _ in _REGISTERED)


def load(source: str | Path, mapping: Mapping | None = None) -> Dataset:
    """A data set that a model can be trained on, from a registered name or a path.

    ``source``: a name of :func:`datasets`, or the file of one that is not shipped, named like it; an ``.npz`` file (the
    format is in :mod:`edgeseq.data.npz`); a CSV or Parquet file, or a folder of them (:mod:`edgeseq.data.tables`).
    ``mapping``: which columns of a table mean what; of an ``.npz`` only its ``ignored`` labels apply.

    Raises InputError for an unknown name (with the closest match), for a path that does not exist, and for data that
    cannot be trained on, naming file, row and what to do; MissingDependency for Parquet without pyarrow.
    """
    for facts, read in _REGISTERED:
        named = source == facts.name
        if named or (not facts.shipped and _is_file_of(source, facts)):
            if mapping is not None and mapping != Mapping():
                raise InputError(f"{facts.name} is a registered data set and takes no mapping. Leave the mapping out.")
            path = _file_of(facts) if named else Path(source).expanduser()
            return check(
                dataclasses.replace(
                    read(path),
                    name=facts.name,
                    licence=facts.licence,
                    citation=facts.citation,
                    origin=facts.origin,
                    worn=facts.worn,
                )
            )
    dataset = _read_path(source, mapping or Mapping())
    unknown_subjects = dataset.task == "segment" and not any(recording.subject for recording in dataset.recordings)
    return check(deal(dataset) if unknown_subjects else dataset)


def locate(name: str, place: str | Path) -> Path:
    """The file of the data set ``name``, which is not shipped, at ``place``: itself, or in that folder.

    Raises InputError for a set that is not one of those, and where there is no such file.
    """
    sets = {facts.name: facts for facts in datasets() if not facts.shipped}
    if name not in sets:
        raise InputError(f"{name} is found by its own name or path: leave --data out, which is for {', '.join(sets)}")
    place = Path(place).expanduser()
    candidates = [place, place / f"{name}.npz", place / name / f"{name}.npz"]
    found = next((path for path in candidates if path.is_file() and path.name == f"{name}.npz"), None)
    if found is None:
        raise InputError(f"{place}: there is no {name}.npz here. {_where_from(sets[name])}")
    return found


def _is_file_of(source: str | Path, facts: Facts) -> bool:
    path = Path(source).expanduser()
    return path.name == f"{facts.name}.npz" and path.is_file()


def _file_of(facts: Facts) -> Path:
    if facts.shipped:
        return Path(__file__).parent / facts.name / f"{facts.name}.npz"
    place = os.environ.get(PLACE)
    if not place:
        raise InputError(f"{facts.name} does not come with edgeseq. {_where_from(facts)}")
    return locate(facts.name, place)


def _where_from(facts: Facts) -> str:
    return (
        f"It is made from {facts.origin} (licence: {facts.licence}). Say where {facts.name}.npz is: --data PATH, or "
        f"{PLACE}=FOLDER in the environment, with FOLDER/{facts.name}/{facts.name}.npz."
    )


def _read_path(source: str | Path, mapping: Mapping) -> Dataset:
    path = Path(source).expanduser()
    if not path.exists():
        if isinstance(source, Path) or path.suffix or len(path.parts) > 1:
            raise InputError(f"{source}: there is no such file or folder.")
        reason = unknown("data set", source, (facts.name for facts in datasets()))
        raise InputError(f"{reason} A path is accepted too: an .npz, a CSV or Parquet file, or a folder of those.")
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return read_tables(path, mapping)
    if path.suffix.lower() != ".npz":
        raise InputError(
            f"{path}: files of type {path.suffix or '(none)'} are not read. Give .npz, {', '.join(SUFFIXES)}, or a "
            "folder of the latter."
        )
    if mapping != Mapping(ignored=mapping.ignored):
        raise InputError(f"{path}: an .npz names its own columns. Of the mapping, leave all but 'ignored' out.")
    return read_npz(path, mapping.ignored)
