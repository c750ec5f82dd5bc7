"""Chains of stages: what ``edgeseq compress`` chooses between, and how one is run.

    source ─distill─▶ student ─prune─▶ fewer units ─prune─▶ fewer weights ─quantize─▶ fewer bits ─export─▶ files

Every stage may be left out. Each step's folder is named after the chain up to it, so that chains which begin alike
share what they share, and an interrupted one goes on where it was. All that train learn from the source's answers
beside the labels.
"""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.errors import InputError, unknown
from edgeseq.folder import Folder, open_folder

UNITS = (0.0, 0.25, 0.5, 0.75, 0.9)  # share of the parameters that structured pruning takes
WEIGHTS = (0.0, 0.5, 0.8)  # share of the remaining weights that become zeros
# The number formats: arguments of quantize. "float32" is left as it is.
FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8-ptq": {"method": "ptq", "bits": 8},
    "int8-qat": {"method": "qat", "bits": 8},
    "int4-qat": {"method": "qat", "bits": 4},
    "qd4": {"method": "qd", "bits": 4},
    "qd2": {"method": "qd", "bits": 2},
    "dq4": {"method": "dq", "bits": 4},
}
EXPORTED = "export"


class Refused(InputError):
    """A stage of a chain took something for bad input: what the chain asks of this model, if nothing else changed."""


class Chain(msgspec.Struct, frozen=True):
    """One choice: ``student`` is a preset to distill to ("": the source's own model), ``form`` one of ``FORMS``."""

    student: str = ""
    structured: float = 0.0
    weights: float = 0.0
    form: str = "float32"

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(self._parts()) or "source"

    def _parts(self) -> list[str]:
        return [
            *([self.student] if self.student else []),
            *([f"units{round(100 * self.structured)}"] if self.structured else []),
            *([f"zeros{round(100 * self.weights)}"] if self.weights else []),
            *([self.form] if self.form != "float32" else []),
        ]


def space(students: Sequence[str] = (), forms: Sequence[str] = tuple(FORMS)) -> dict[str, list[Any]]:
    """What each field of a chain may be.

    Raises:
        InputError: a form that is not known, or none.
    """
    if not forms:
        raise InputError(f"name at least one form: {', '.join(FORMS)}")
    for form in forms:
        if form not in FORMS:
            raise unknown("form", form, FORMS)
    presets, formats = dict.fromkeys(("", *students)), dict.fromkeys(forms)  # each once
    return {"student": [*presets], "structured": [*UNITS], "weights": [*WEIGHTS], "form": [*formats]}


def chains(choices: Mapping[str, Sequence[Any]]) -> list[Chain]:
    """All chains of a space."""
    return [Chain(*values) for values in itertools.product(*(choices[name] for name in Chain.__struct_fields__))]


@dataclass(frozen=True)
class Workshop:
    """Where chains of a ``source`` are run, and what all of their stages are given."""

    source: Folder
    place: Path
    seed: int = 0
    changes: Mapping[str, Any] | None = None
    data: str | None = None
    trust: bool = False
    follow: Callable[[Callable[..., Folder]], Folder] = lambda stage: stage()

    def run(self, chain: Chain) -> Folder:
        """The trained folder of a chain, made or found.

        Raises:
            Refused: a stage raised InputError.
            EdgeseqError: whatever else a stage raises; or a folder is there that was made of another model.
        """
        folder = self.source
        for name, stage in self._stages(chain):
            folder = self._made(name, folder, stage)
        return folder

    def exported(self, chain: Chain) -> Folder:
        """The folder of a chain with its files, proven."""
        from edgeseq.export.stage import export

        trained = self.run(chain)
        stage = partial(export, data=self.data, trust=self.trust)
        return self._made(f"{chain.name}-{EXPORTED}", trained, lambda source, out, **_: stage(source.path, out))

    def _stages(self, chain: Chain) -> Iterator[tuple[str, Callable[..., Folder]]]:
        """Each stage with the name of the folder that it writes; called with its source, its target and callbacks."""
        from edgeseq.quant.distill_stage import distill
        from edgeseq.quant.prune_stage import prune
        from edgeseq.quant.quantize_stage import quantize

        changes = dict(self.changes or {})
        given: dict[str, Any] = {"data": self.data, "seed": self.seed, "trust": self.trust}
        taught = {**given, "teachers": [self.source.path], "changes": changes}
        done = Chain(chain.student)
        if chain.student:
            wanted: dict[str, Any] = {"source": self.data, "preset": chain.student, "changes": changes}
            wanted |= {"seed": self.seed, "trust": self.trust}
            yield done.name, lambda start, out, **shown: distill([start.path], out, **wanted, **shown)
        for what in ("structured", "weights"):
            if share := getattr(chain, what):
                done = msgspec.structs.replace(done, **{what: share})
                yield done.name, partial(_called, prune, {**taught, what: share})
        if chain.form != "float32":
            form = FORMS[chain.form]
            yield chain.name, partial(_called, quantize, {**(given if form["method"] == "ptq" else taught), **form})

    def _made(self, name: str, source: Folder, stage: Callable[..., Folder]) -> Folder:
        out = self.place / name
        with _held(out):
            if found := _found(out, source):
                return found
            try:
                return self.follow(partial(stage, source, out))
            except InputError as error:
                raise Refused(str(error)) from error


def _called(stage: Callable[..., Folder], arguments: dict[str, Any], source: Folder, out: Path, **shown: Any) -> Folder:
    return stage(source.path, out, **arguments, **shown)


def _found(out: Path, source: Folder) -> Folder | None:
    """The folder that is there, if it was made of this source."""
    if not out.exists():
        return None
    folder = open_folder(out)
    last = folder.manifest.lineage[-1]
    origins = {last.parent, *(teacher["hash"] for teacher in last.arguments.get("teachers", ()))}
    if source.hash not in origins:
        raise InputError(f"{out} was made of another model than {source.path}: remove it, or choose another --out")
    return folder


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """One process at a time makes a folder: another waits for it, and finds it made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
