"""The stage behind ``edgeseq distill``: trained folders in, the folder of a student that learned from them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.data import Dataset, Split
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import stage_entry, trained_on
from edgeseq.models.contract import StreamingModel
from edgeseq.models.store import load_model
from edgeseq.models.threads import threads
from edgeseq.quant.distill import distillation, distilling, split_changes
from edgeseq.training.checks import check_apart, check_fits
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Report
from edgeseq.training.stage import (
    Announce,
    check_start,
    choose_split,
    complete,
    kept_apart,
    prepare,
)


def distill(
    teachers: Sequence[str | Path],
    out: str | Path,
    *,
    source: str | None = None,
    preset: str = "lmu",
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    start: str | Path | None = None,
    overwrite: bool = False,
    trust: bool = False,
    announce: Announce = lambda model, split, settings: None,
    report: Report = lambda ended, steps: None,
) -> Folder:
    """Train a preset to answer as the models of the folders ``teachers`` do, and write the model folder ``out``.

    It learns on the data of the first teacher, or on ``source`` read the same way, and is tested and chosen on the
    subjects that the first teacher was tested and chosen on. ``changes`` are settings by name: those of training, of
    the model as ``model.hidden``, and of distillation as ``distillation.soft``. ``start`` is the folder of a student
    that is trained on. An interrupted run is taken up by the same call.

    Raises:
        InputError: as :func:`edgeseq.training.stage.train` does; or a teacher reads or answers something else, or was
            trained, or chosen, on somebody whom the student would be tested, or chosen, on.
        Unsupported: the student does not answer what the data asks.
    """
    out = Path(out)
    check_start(out, seed, [*teachers, *([start] if start else [])], overwrite=overwrite)
    loss, others = split_changes(changes or {})
    how = distillation(loss)
    if not teachers:
        raise InputError("name at least one model folder to distill from")
    folders = [open_folder(teacher) for teacher in teachers]
    test, validation = kept_apart(folders[0])
    dataset = trained_on(folders[0], source)
    split = choose_split(dataset, test=test, validation=validation)
    models = load_teachers(folders, dataset, split, trust=trust)
    parent = open_folder(start) if start else None
    trainee = prepare(parent, preset, dataset, split, others, seed, trust=trust)
    announce(trainee.model, split, trainee.settings)
    origin = folders[0].manifest.data_stage
    entry = stage_entry(
        "distill",
        {
            "model": None if parent else preset,
            "mapping": origin.arguments.get("mapping") if origin else None,
            "settings": msgspec.to_builtins(trainee.settings),
            "distillation": msgspec.to_builtins(how),
            "teachers": [{"name": folder.manifest.name, "hash": folder.hash} for folder in folders],
        },
        seed=seed,
        data=source or (origin.data if origin else None),
        data_fingerprint=dataset.origin_fingerprint,
        parent=parent.hash if parent else None,
    )
    with threads(trainee.settings.threads):
        accuracy = sum(evaluate(model, split.test).accuracy for model in models) / len(models)
    with distilling(trainee.model, models, split.train, trainee.settings, how) as objective:
        return complete(
            out,
            trainee,
            split,
            entry,
            seed,
            objective=objective,
            teachers=folders,
            measure=lambda model: {"teacher_test_accuracy": round(accuracy, 6)},
            overwrite=overwrite,
            report=report,
        )


def load_teachers(
    folders: Sequence[Folder], dataset: Dataset, split: Split, *, trust: bool = False
) -> list[StreamingModel]:
    """The models of the folders.

    Raises:
        InputError: one reads or answers something else than the data, or has seen people of the split's other parts.
    """
    for folder in folders:
        check_fits(folder, f"the teacher {folder.path}", dataset)
        check_apart(folder, f"the teacher {folder.path}", split, "Distill from teachers that were split alike")
    return [load_model(folder, trust=trust) for folder in folders]
