"""``edgeseq retime``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseq.cli.options import Overwrite, Trust
from edgeseq.cli.output import Clock, Document, Json, Show, need, percent, typed
from edgeseq.cli.train import next_export
from edgeseq.folder import open_folder


def retime(
    folder: Annotated[Path, typer.Argument(help="A model folder in float32.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    rate: Annotated[float, typer.Option(metavar="HZ", help="Frames a second that the device will give.")],
    data: Annotated[
        str | None, typer.Option(help="Data to score on (a path, NAME or NAME=PATH), if not the training's.")
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Run a trained model at another sample rate, without training (lmu, s4d).

    Example: edgeseq retime runs/s4d --rate 25 --out runs/s4d-25
    """
    need("retiming", "train", "torch")
    from edgeseq.training.retime_stage import retime as retime_stage

    show, clock = Show(json), Clock()
    parent = open_folder(folder)  # what is asked for may replace it
    before, rate_before = parent.manifest.metrics.get("test_accuracy"), parent.manifest.input.rate
    with show.notes.status("scoring on resampled recordings"):
        made = retime_stage(folder, out, rate=rate, data=data, overwrite=overwrite, trust=trust)
    after = made.manifest.metrics.get("test_accuracy")
    show.line(
        f"accuracy on the test subjects: {percent(before)} at {rate_before:g} Hz, {percent(after)} at {rate:g} Hz "
        "(resampled recordings)"
    )
    document = show.wrote_folder(made, clock)
    following = next_export(made)
    show.next(*following)
    return {**document, "accuracy_before": before, "accuracy_after": after, "next": typed(*following)}
