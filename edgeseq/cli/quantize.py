"""``edgeseq quantize``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseq.cli.output import Document, Json, Show, counted, need, percent, typed
from edgeseq.cli.train import follow, next_export, parse_settings, read_config
from edgeseq.cli.tune_events import next_tune
from edgeseq.folder import Folder, open_folder


def quantize(
    folder: Annotated[Path, typer.Argument(help="A model folder in float32.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    method: Annotated[
        str, typer.Option(metavar="METHOD", help="qat trains on with the rounding in place, ptq only calibrates.")
    ] = "qat",
    state: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="What the state is rounded to: float32 (not at all), int16 or int8. Files carry it as floats.",
        ),
    ] = "float32",
    teacher: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="With qat: learn from this model; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", callback=counted)] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of qat: rounds=5, distillation.soft=0.5."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a .toml or .json file; --set comes after.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data to calibrate on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model folder OUT.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")] = False,
    json: Json = False,
) -> Document:
    """Give a model weights and activations of 8 bits.

    Example: edgeseq quantize runs/student --out runs/student-int8
    """
    show = Show(json)
    made, document = quantize_folder(
        show,
        folder,
        out,
        method=method,
        state=state,
        teachers=teacher or (),
        seed=seed,
        changes={**read_config(config), **parse_settings(set_ or [])},
        data=data,
        overwrite=overwrite,
        trust=trust,
    )
    following = next_tune(show, made) or next_export(made)
    show.next(*following)
    return {**document, "next": typed(*following)}


def quantize_folder(show: Show, source: Path, out: Path, **options: Any) -> tuple[Folder, Document]:
    """Quantize, showing how it goes and what it cost; the folder, and the document of it.

    ``options`` are those of :func:`edgeseq.quant.quantize_stage.quantize`.
    """
    need("quantization", "train", "torch", "brevitas")
    from edgeseq.quant.quantize_stage import quantize as quantize_stage

    # Read first, and only if it is of the same people: what is asked for may replace a folder, or be of other data.
    before = None if options.get("data") else open_folder(source).manifest.metrics.get("test_accuracy")
    made, document = follow(show, partial(quantize_stage, source, out, **options))
    if options.get("method") == "ptq":  # nothing was trained
        del document["parameters"], document["rounds"]
    after = made.manifest.metrics.get("test_accuracy")
    known = "" if before is None else f"float32 {percent(before)}, "
    show.line(f"accuracy on the test subjects: {known}int8 {percent(after)}")
    return made, {**document, "accuracy_before": before, "accuracy_after": after}
