"""Data by name or by path: the sets that come with edgeseq, and the one door for the user's own.

To register another set, write a function that returns its Dataset and add one line of facts to ``_REGISTERED``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeseq.data.dataset import Dataset, check
from edgeseq.data.mapping import Mapping
from edgeseq.data.npz import read_npz
from edgeseq.data.tables import SUFFIXES, read_tables
from edgeseq.errors import InputError, unknown


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a registered data set without loading it. ``minutes`` of all recordings together."""

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


def _spar_watch() -> Dataset:
    return read_npz(Path(__file__).parent / "spar_watch" / "spar_watch.npz")


_REGISTERED: tuple[tuple[Facts, Callable[[], Dataset]], ...] = (
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
        _spar_watch,
    ),
)


def datasets() -> tuple[Facts, ...]:
    """The facts of every registered data set, by name."""
    return tuple(facts for facts, _ in _REGISTERED)


def load(source: str | Path, mapping: Mapping | None = None) -> Dataset:
    """A data set that a model can be trained on, from a registered name or a path.

    ``source``: a name of :func:`datasets`; an ``.npz`` file (the format is in :mod:`edgeseq.data.npz`); a CSV or
    Parquet file, or a folder of them (:mod:`edgeseq.data.tables`). ``mapping``: which columns of a table mean what;
    of an ``.npz`` only its ``ignored`` labels apply.

    Raises InputError for an unknown name (with the closest match), for a path that does not exist, and for data that
    cannot be trained on, naming file, row and what to do; MissingDependency for Parquet without pyarrow.
    """
    for facts, read in _REGISTERED:
        if source == facts.name:
            if mapping is not None and mapping != Mapping():
                raise InputError(f"{facts.name} is a registered data set and takes no mapping. Leave the mapping out.")
            return check(
                dataclasses.replace(
                    read(),
                    name=facts.name,
                    licence=facts.licence,
                    citation=facts.citation,
                    origin=facts.origin,
                    worn=facts.worn,
                )
            )
    return check(_read_path(source, mapping or Mapping()))


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
