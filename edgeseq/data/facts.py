"""What edgeseq knows of a registered data set: its facts, and how its files are recognised and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeseq.data.dataset import UNSCORED, Dataset


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know about a registered data set without loading it. ``minutes`` of all recordings together.

    ``subjects``: 0 where nobody knows them. ``unscored``: seconds at the start of each recording. ``changing``: whether
    labels change within recordings, which are streams then. ``shipped``: whether it comes with edgeseq. ``part``: which
    part of what its origin has the numbers here, and those in the docs, are of; "" if of all.
    """

    name: str
    summary: str
    subjects: int = 0
    recordings: int
    frames: int
    minutes: float
    rate: float
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str
    origin: str
    part: str = ""
    worn: str = ""
    signs: str = ""
    task: str = "frame"
    unscored: float = UNSCORED
    changing: bool = False
    shipped: bool = False


@dataclass(frozen=True)
class Known:
    """A registered data set. ``read`` takes the file or folder in which ``forms`` were found.

    ``forms``: how its files may be called, as patterns inside of a folder: of an ``.npz``, which is read itself, or of
    the files of its origin, whose folder is read: the one in which the first name with a wildcard is looked for.
    ``folder``: where it lies in the folder of all data sets, if not in one of its own name.
    """

    facts: Facts
    read: Callable[[Path], Dataset]
    forms: tuple[str, ...]
    folder: str = ""

    def find(self, place: Path) -> Path | None:
        """What ``read`` takes, if it is at ``place``: a file, a folder of its files, or the folder of all data sets."""
        if place.is_file():
            return next((_read(place, form) for form in self.forms if place.match(_varying(form))), None)
        for folder in (place, place / (self.folder or self.facts.name)):
            for form in self.forms:
                found = min(folder.glob(form), default=None) if folder.is_dir() else None
                if found is not None:
                    return _read(found, form)
        return None


def _read(found: Path, form: str) -> Path:
    """The ``.npz`` that was found, or the folder of all files of its form."""
    return found if found.suffix == ".npz" else found.parents[_varying(form).count("/")]


def _varying(form: str) -> str:
    """The part of a pattern that differs from file to file: "s*/s*.csv" of "DATA/s*/s*.csv"."""
    names = form.split("/")
    first = next((k for k, name in enumerate(names) if "*" in name), len(names) - 1)
    return "/".join(names[first:])
