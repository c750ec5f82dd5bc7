"""Model folders that ``benchmarks/accuracy.py`` keeps and finds again, each with a note beside it of what made it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from accuracy_plans import Task
from accuracy_table import OFFICIAL
from processes import machine

from edgeseq.errors import InputError

if TYPE_CHECKING:
    from edgeseq.data import Dataset, Split
    from edgeseq.folder import Folder


class Note(msgspec.Struct, frozen=True):
    """What made a kept folder, as ``NAME.json`` beside it; ``seconds`` of its training, on this ``machine``."""

    recipe: str
    seconds: float
    machine: str


NOBODY_KNOWS = Note("", 0.0, "a machine that was not noted")


@contextlib.contextmanager
def folder_of(task: Task) -> Iterator[tuple[Folder, Note, bool]]:
    """The folder of the task's model, what made it, and whether it was trained now, or kept by an earlier run.

    Raises:
        InputError: the folder that was kept is of another run; nobody knows of which, and it is not to be adopted.
    """
    from edgeseq.folder import open_folder

    with contextlib.ExitStack() as stack:
        place = (task.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))) / task.name
        if place.is_dir():
            note = note_of(place, task)
            folder = open_folder(place)
            check_same(folder, task)
            yield folder, note, False
        else:
            yield *trained(task, place), True


def trained(task: Task, place: Path) -> tuple[Folder, Note]:
    """The folder of the task's model at ``place``, trained, with its note beside it."""
    from edgeseq.training.stage import train

    started = time.monotonic()
    changes = {**task.changes, "device": task.device}
    fold = None if task.fold == OFFICIAL else task.fold
    folder = train(task.source, place, preset=task.model, seed=task.seed, fold=fold, changes=changes)
    gpu = folder.manifest.lineage[-1].arguments["settings"].get("device") == "cuda"
    note = Note(task.recipe, round(time.monotonic() - started, 1), machine(gpu=gpu))
    _note_file(place).write_bytes(msgspec.json.format(msgspec.json.encode(note), indent=1) + b"\n")
    return folder, note


def note_of(place: Path, task: Task) -> Note:
    """What made the folder at ``place``, which has to be the task's recipe.

    Raises InputError where it is of another, or where there is no note, unless such folders are to be adopted.
    """
    file = _note_file(place)
    if not file.is_file():
        if task.adopt:
            return NOBODY_KNOWS
        raise InputError(f"{place}: {file.name} is not there, to say what made it: move it away, or take it by --adopt")
    try:
        note = msgspec.json.decode(file.read_bytes(), type=Note)
    except msgspec.MsgspecError as error:
        raise InputError(f"{file} cannot be read ({error}): move it and the folder away") from None
    if note.recipe != task.recipe:
        raise InputError(f"{place} is of another recipe, {note.recipe}, not {task.recipe}: move it away")
    return note


def _note_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def check_same(folder: Folder, task: Task) -> None:
    """Refuse a kept folder that another run left: of another preset, settings, arguments, seed, data or split."""
    from edgeseq.models.registry import presets
    from edgeseq.training.configure import configure
    from edgeseq.training.settings import Settings

    manifest, stage = folder.manifest, folder.manifest.lineage[-1]
    try:
        had = msgspec.convert(stage.arguments.get("settings", {}), Settings)
    except msgspec.ValidationError as error:
        raise InputError(f"{folder.path}: its settings are not of today ({error}): move it away") from None
    dataset, split = split_of(task)
    _, arguments, settings = configure(presets()[task.model], dataset, task.changes)
    subjects = split.subjects()
    pairs = {
        "preset": (stage.arguments.get("model"), task.model),
        "settings": (msgspec.structs.replace(had, device=settings.device), settings),
        "arguments": (manifest.arguments, arguments),
        "seed": (stage.seed, task.seed),
        "data": (stage.data_fingerprint, dataset.origin_fingerprint),
        **{f"{part} subjects": (list(manifest.split.get(part, ())), subjects[part]) for part in subjects},
    }
    for what, (has, wanted) in pairs.items():
        if has != wanted:
            raise InputError(f"{folder.path} is of another run, with {what} {has}, not {wanted}: move it away")


def split_of(task: Task, samples: int = 0) -> tuple[Dataset, Split]:
    """The task's data, and its split; in frames of so many ``samples``, or as they come."""
    from edgeseq.data import default_split, load
    from edgeseq.data.frames import framed

    dataset = load(task.source)
    dataset = framed(dataset, samples) if samples else dataset
    return dataset, default_split(dataset, None if task.fold == OFFICIAL else task.fold)


def rescored(folder: Folder, task: Task) -> dict[str, float]:
    """The scores of a kept model as they are computed today, by their names in a manifest."""
    from edgeseq.models.store import load_model
    from edgeseq.models.threads import threads
    from edgeseq.training.stage import part_metrics

    _, split = split_of(task, folder.manifest.input.samples_per_step)
    with threads(1):
        return part_metrics(load_model(folder), split)
