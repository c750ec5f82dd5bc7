"""Data by name or by path: the sets that edgeseq knows, and the one door for the user's own.

To register another set, write its file in ``edgeseq/data/sets`` and add it to ``REGISTERED`` there. A set that may not
be shipped is read from where the user keeps it: ``NAME=PATH``, or the folder that EDGESEQ_DATA names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from edgeseq.data.dataset import Dataset, check
from edgeseq.data.facts import Facts, Known
from edgeseq.data.mapping import Mapping
from edgeseq.data.npz import read_npz
from edgeseq.data.sets import REGISTERED
from edgeseq.data.split import deal
from edgeseq.data.tables import SUFFIXES, read_tables
from edgeseq.errors import InputError, unknown

PLACE = "EDGESEQ_DATA"  # of the environment: a folder that holds a folder for each set that is not shipped


def datasets() -> tuple[Facts, ...]:
    """The facts of every registered data set, by name."""
    return tuple(known.facts for known in REGISTERED)


def registered(name: str) -> Known:
    """What is known of the data set ``name``. Raises InputError for an unknown one, with all that may be meant."""
    for known in REGISTERED:
        if known.facts.name == name:
            return known
    raise _unknown(name, (facts.name for facts in datasets()))


def load(source: str | Path, mapping: Mapping | None = None) -> Dataset:
    """A data set that a model can be trained on, from a registered name or a path.

    ``source``: a name of :func:`datasets`; ``NAME=PATH``, of one that is not shipped and where it is; an ``.npz`` file
    (the format is in :mod:`edgeseq.data.npz`); a CSV or Parquet file, or a folder of them (:mod:`edgeseq.data.tables`).
    ``mapping``: which columns of a table mean what; of an ``.npz`` only its ``ignored`` labels apply.

    Raises InputError for an unknown name (with the closest match), for a path that does not exist, and for data that
    cannot be trained on, naming file, row and what to do; MissingDependency for Parquet without pyarrow.
    """
    known, place = _registered(source)
    if known is None:
        dataset = _read_unregistered(source, mapping or Mapping())
        unknown_subjects = dataset.task == "segment" and not any(recording.subject for recording in dataset.recordings)
        return check(deal(dataset) if unknown_subjects else dataset)
    facts = known.facts
    if mapping is not None and mapping != Mapping():
        raise InputError(f"{facts.name} is a registered data set and takes no mapping. Leave the mapping out.")
    path = _find(known, place) if place else _file_of(known)
    dataset = dataclasses.replace(
        known.read(path),
        name=facts.name,
        licence=facts.licence,
        citation=facts.citation,
        origin=facts.origin,
        worn=facts.worn,
        signs=facts.signs,
        unscored=facts.unscored,
    )
    try:
        return check(dataset)
    except InputError as error:
        raise InputError(f"{error} Or, if you changed nothing in {path}, copy it again.") from None


def locate(name: str, place: str | Path) -> str:
    """``NAME=PATH`` of the data set ``name``, which is not shipped, whose files are at ``place``, or in a folder there.

    Raises InputError for a set that is not one of those, and where there is no such file.
    """
    sets = _not_shipped()
    if name in sets:
        return f"{name}={_find(sets[name], place)}"
    path = Path(name).expanduser()
    if named(name) or "=" in name or path.exists() or path.suffix or len(path.parts) > 1:
        raise InputError(f"{name} is found by its own name or path: leave --data out, which is for {', '.join(sets)}")
    raise _unknown(name, sets)


def located(source: str, names: Iterable[str]) -> str:
    """``NAME=PATH``, where the path ``source`` holds the files of one of the sets ``names``; else ``source`` itself."""
    sets, place = _not_shipped(), Path(source).expanduser()
    if not named(source) and place.exists():
        for name in names:
            if name in sets and sets[name].find(place.absolute()):
                return locate(name, place)
    return source


def named(source: str | Path) -> str:
    """The name of the registered data set that ``source`` is, as for :func:`load`; "" if it is a path.

    Whether it is there is not looked at.
    """
    known, _ = _registered(source)
    return known.facts.name if known else ""


def _not_shipped() -> dict[str, Known]:
    return {known.facts.name: known for known in REGISTERED if not known.facts.shipped}


def _registered(source: str | Path) -> tuple[Known | None, Path | None]:
    """The registered data set that ``source`` names, and where it is said to be."""
    if not isinstance(source, Path):
        name, _, place = source.partition("=")
        for known in REGISTERED:
            if name == known.facts.name and (not place or not known.facts.shipped):
                return known, Path(place) if place else None
    path = Path(source).expanduser()
    for known in REGISTERED:  # as folders of before NAME=PATH have it
        if not known.facts.shipped and path.name == f"{known.facts.name}.npz" and path.is_file():
            return known, path
    return None, None


def _find(known: Known, place: str | Path, said_by: str = "") -> Path:
    """``said_by``: " (what said so)", behind the place in errors."""
    place = Path(place).expanduser().absolute()
    found = known.find(place)
    if found is not None:
        return found
    forms = " or ".join(known.forms)
    if not place.exists():
        wrong = f"{place}{said_by} does not exist"
    elif place.is_file():
        wrong = f"{place}{said_by}: this file is not one of {known.facts.name}, which are called {forms}"
    else:
        wrong = f"{place}{said_by}: there is no {forms} here"
    raise InputError(f"{wrong}. {_where_from(known)}")


def _file_of(known: Known) -> Path:
    facts = known.facts
    if facts.shipped:
        return Path(__file__).parent / (known.folder or facts.name) / known.forms[0]
    place = os.environ.get(PLACE)
    if not place:
        raise InputError(f"{facts.name} does not come with edgeseq. {_where_from(known)}")
    return _find(known, place, f" ({PLACE} of the environment)")


def _where_from(known: Known) -> str:
    facts = known.facts
    place = f"FOLDER/{known.folder or facts.name}/{known.forms[0]}"
    if not all(form.endswith(".npz") for form in known.forms):
        place += " or the files of its origin"
    return (
        f"It is from {facts.origin} (licence: {facts.licence}). Say where it is: edgeseq train {facts.name} --data "
        f"PATH, or of any other command --data {facts.name}=PATH; or {PLACE}=FOLDER in the environment, with {place}."
    )


def _unknown(name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is no data set's; all that a part of the name may mean are named."""
    names = list(known)
    meant = [repr(other) for other in names if len(name) > 2 and name.lower() in other]
    if len(meant) < 2:
        return unknown("data set", name, names)
    return InputError(f"unknown data set {name!r}. Did you mean {' or '.join(meant)}? Known: {', '.join(names)}.")


def _refuse_place(source: str | Path) -> None:
    """Raise InputError for ``NAME=PATH`` of a set that is shipped, or that is none: :func:`_registered` took others."""
    name, equals, _ = str(source).partition("=")
    if not equals or isinstance(source, Path) or "/" in name:
        return
    if name in (facts.name for facts in datasets() if facts.shipped):
        raise InputError(f"{source}: {name} comes with edgeseq. Leave its place out: {name}.")
    raise _unknown(name, _not_shipped())


def _read_unregistered(source: str | Path, mapping: Mapping) -> Dataset:
    """What is at a path; where that fails, the sets whose files may be there are named."""
    try:
        return _read_path(source, mapping)
    except InputError as error:
        place = Path(source).expanduser()
        alike = [name for name, known in _not_shipped().items() if place.exists() and known.find(place.absolute())]
        hints = (
            f"If this is {name}: edgeseq train {name} --data {source}, elsewhere {name}={source}." for name in alike
        )
        raise InputError(" ".join([str(error), *hints])) from None


def _read_path(source: str | Path, mapping: Mapping) -> Dataset:
    path = Path(source).expanduser()
    if not path.exists():
        _refuse_place(source)
        if isinstance(source, Path) or path.suffix or len(path.parts) > 1:
            raise InputError(f"{source}: there is no such file or folder.")
        reason = _unknown(source, (facts.name for facts in datasets()))
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
