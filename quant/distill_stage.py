"""The stage behind ``edgeseq distill``: trained folders in, the folder of a student that learned from them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder
from edgeseq.models.threads import threads
from edgeseq.quant.distill import distillation, split_changes
from edgeseq.quant.ground import Ground
from edgeseq.training.evaluate import evaluate
from edgeseq.training.loop import Report
from edgeseq.training.stage import Announce, check_start, complete, prepare


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
    ground = Ground.of(open_folder(teachers[0]), teachers, source, trust=trust)
    split, models = ground.split, ground.models
    parent = open_folder(start) if start else None
    trainee = prepare(parent, preset, ground.dataset, split, others, seed, trust=trust)
    announce(trainee.model, split, trainee.settings)
    said = {
        "model": None if parent else preset,
        "settings": msgspec.to_builtins(trainee.settings),
        "distillation": msgspec.to_builtins(how),
    }
    entry = ground.entry("distill", said, seed, parent)
    with threads(trainee.settings.threads):
        accuracy = sum(evaluate(model, split.test).accuracy for model in models) / len(models)
    with ground.objective(trainee.model, trainee.settings, how) as objective:
        return complete(
            out,
            trainee,
            split,
            entry,
            seed,
            objective=objective,
            teachers=ground.teachers,
            measure=lambda model: {"teacher_test_accuracy": round(accuracy, 6)},
            overwrite=overwrite,
            report=report,
        )
