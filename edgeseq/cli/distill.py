"""``edgeseq distill``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseq.cli.options import Config, Overwrite, Seed, Trust
from edgeseq.cli.output import Document, Json, Show, need, not_negative, percent, positive, typed
from edgeseq.cli.train import follow, parse_settings, read_config
from edgeseq.errors import InputError

if TYPE_CHECKING:
    from edgeseq.folder import Folder

PRESET = "lmu"
LOSS = "What is learned from whom"


def distill(
    teachers: Annotated[
        list[Path], typer.Argument(help="Model folders to learn from; of several the mean.", metavar="TEACHER")
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    model: Annotated[
        str | None, typer.Option(metavar="PRESET", help="The student: see edgeseq models; lmu if not given.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides the logits that are compared; 2.", rich_help_panel=LOSS, callback=positive),
    ] = None,
    soft: Annotated[
        float | None,
        typer.Option(help="Weight of the teacher's answers; 0.7.", rich_help_panel=LOSS, callback=not_negative),
    ] = None,
    hard: Annotated[
        float | None, typer.Option(help="Weight of the labels; 0.3.", rich_help_panel=LOSS, callback=not_negative)
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Compare every frame, or the mean over a crop (sequence); frame.",
            rich_help_panel=LOSS,
        ),
    ] = None,
    hidden: Annotated[
        float | None,
        typer.Option(
            help="Weight of the difference between the hidden layers, if of one size; 0.",
            rich_help_panel=LOSS,
            callback=not_negative,
        ),
    ] = None,
    early: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds over which trust in the teacher rises after a start; its look-ahead.",
            rich_help_panel=LOSS,
            callback=not_negative,
        ),
    ] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; model.dropout=0 is the model's."),
    ] = None,
    config: Config = None,
    data: Annotated[
        str | None, typer.Option(help="Data to learn on (a path, NAME or NAME=PATH), if not the first teacher's.")
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Train on from the student of this folder.")] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Train a small model to answer as larger ones do.

    Example: edgeseq distill runs/teacher --model lmu --out runs/student
    """
    show = Show(json)
    if start is not None and model is not None:
        raise InputError(f"--from trains on the model of {start}: leave --model {model} out")
    loss = {
        "temperature": temperature,
        "soft": soft,
        "hard": hard,
        "level": level,
        "hidden": hidden,
        "early": early,
    }
    given = {f"distillation.{name}": value for name, value in loss.items() if value is not None}
    folder, document = distill_folder(
        show,
        teachers,
        out,
        source=data,
        preset=model or PRESET,
        seed=seed,
        changes={**read_config(config), **parse_settings(set_ or []), **given},
        start=start,
        overwrite=overwrite,
        trust=trust,
    )
    following = ("quantize", folder.path, "--out", folder.path.with_name(f"{folder.path.name}-int8"))
    show.next(*following)
    return {**document, "next": typed(*following)}


def distill_folder(show: Show, teachers: Sequence[Path], out: Path, **options: Any) -> tuple[Folder, Document]:
    """Distill, showing how it goes and how near the student comes; the folder, and the document of it.

    ``options`` are those of :func:`edgeseq.quant.distill_stage.distill`.
    """
    need("distillation", "train", "torch")
    from edgeseq.quant.distill_stage import distill as distill_stage

    folder, document = follow(show, partial(distill_stage, teachers, out, **options))
    metrics = folder.manifest.metrics
    taught, learned = (percent(metrics[name]) for name in ("teacher_test_accuracy", "test_accuracy"))
    who = "teacher" if len(teachers) == 1 else f"{len(teachers)} teachers (mean)"
    show.line(f"accuracy on the test subjects: {who} {taught}, student {learned}")
    return folder, {**document, "teachers": folder.manifest.lineage[-1].arguments["teachers"]}
