"""``edgeseq quantize``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseq.cli.output import Document, Json, Show, counted, need, not_negative, percent, typed
from edgeseq.cli.train import follow, next_export, parse_settings, read_config
from edgeseq.cli.tune_events import next_tune
from edgeseq.folder import Folder, open_folder


def quantize(
    folder: Annotated[Path, typer.Argument(help="A model folder in float32.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="qat: integers, trained on with the rounding in place; ptq: integers, only calibrated; qd and dq: "
            "floats of few levels, even or learned, trained on.",
        ),
    ] = "qat",
    bits: Annotated[
        int, typer.Option(help="Bits of a weight: 8 or 4 of integers (activations have 8), fewer with qd and dq.")
    ] = 8,
    state: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="What the state is rounded to: float32 (not at all), int16 or int8. Files carry it as floats.",
        ),
    ] = "float32",
    memory: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="What A and B of an LMU, or the decays of S4D, are rounded to: float32 (not at all), int16 or int8.",
        ),
    ] = "float32",
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Fail, and write nothing, if macro-F1 on the validation subjects falls by more than this.",
            callback=not_negative,
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Learn from this model (not with ptq); may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", callback=counted)] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the training: rounds=5, distillation.soft=0.5."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a .toml or .json file; --set comes after.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data to calibrate on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model folder OUT.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")] = False,
    json: Json = False,
) -> Document:
    """Give a model weights of 8 bits or fewer.

    Example: edgeseq quantize runs/student --out runs/student-int4 --bits 4 --max-drop 1
    """
    show = Show(json)
    made, document = quantize_folder(
        show,
        folder,
        out,
        method=method,
        bits=bits,
        state=state,
        memory=memory,
        teachers=teacher or (),
        seed=seed,
        changes={**read_config(config), **parse_settings(set_ or [])},
        data=data,
        max_drop=max_drop,
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
    warnings: list[str] = []

    def warn(message: str) -> None:
        warnings.append(message)
        show.note(f"warning: {message}")

    made, document = follow(show, partial(quantize_stage, source, out, warn=warn, **options))
    if options.get("method") == "ptq":  # nothing was trained
        del document["parameters"], document["rounds"]
    after = made.manifest.metrics.get("test_accuracy")
    known = "" if before is None else f"float32 {percent(before)}, "
    show.line(f"accuracy on the test subjects: {known}{_form(made, options)} {percent(after)}")
    return made, {**document, "accuracy_before": before, "accuracy_after": after, "warnings": warnings}


def _form(folder: Folder, options: Mapping[str, Any]) -> str:
    """How the weights are, in a word: floats of few levels are float32 in the manifest."""
    weights = folder.manifest.precision.weights
    return weights if weights != "float32" else f"{options.get('bits', 8)} bits"
