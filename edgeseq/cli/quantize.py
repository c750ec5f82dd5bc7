"""``edgeseq quantize``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseq.card import few_bits, loaded_as
from edgeseq.cli.options import Config, MaxDrop, Overwrite, Seed, Trust
from edgeseq.cli.output import Document, Json, Show, need, percent, typed
from edgeseq.cli.shipped import shrunk
from edgeseq.cli.train import follow, next_export, parse_settings, read_config
from edgeseq.cli.tune_events import next_tune
from edgeseq.folder import Folder, open_folder, shipped_bytes
from edgeseq.manifest import Manifest


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
        int | None,
        typer.Option(
            help="Bits of a weight: of integers 8 (if not said) or 4, with activations of 8; of qd and dq 2 to 8 (4)."
        ),
    ] = None,
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
    max_drop: MaxDrop = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Learn from this model (not with ptq); may be repeated."),
    ] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the training: rounds=5, distillation.soft=0.5."),
    ] = None,
    config: Config = None,
    data: Annotated[
        str | None, typer.Option(help="Data to calibrate on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
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

    # Read first: what is asked for may replace a folder.
    origin = open_folder(source)
    was, shipped_before = origin.manifest, shipped_bytes(origin) if origin.has_weights else None
    before = None if options.get("data") else was.metrics.get("test_accuracy")  # of other data it says nothing
    warnings: list[str] = []

    def warn(message: str) -> None:
        warnings.append(message)
        show.warn(message)

    made, document = follow(show, partial(quantize_stage, source, out, warn=warn, **options))
    if options.get("method") == "ptq":  # nothing was trained
        del document["parameters"], document["rounds"]
    after, size = made.manifest.metrics.get("test_accuracy"), shipped_bytes(made)
    known = "" if before is None else f"{_form(was)} {percent(before)}, "
    show.line(f"accuracy on the test subjects: {known}{_form(made.manifest)} {percent(after)}")
    show.line(f"{shrunk(shipped_before, size)}; an engine loads them as {loaded_as(made.manifest)}")
    document |= {"accuracy_before": before, "accuracy_after": after}
    document |= {"shipped_bytes": size, "shipped_bytes_before": shipped_before}
    return made, {**document, "warnings": warnings}


def _form(manifest: Manifest) -> str:
    """How the weights are, in a word: floats of few levels are float32 in the manifest."""
    found = few_bits(manifest.lineage)
    return manifest.precision.weights if found is None else f"{found[0]} bits"
