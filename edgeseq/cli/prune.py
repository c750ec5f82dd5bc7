"""``edgeseq prune``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseq.cli.options import Config, MaxDrop, Overwrite, Seed, Trust
from edgeseq.cli.output import Document, Json, Show, kilobytes, need, percent, typed
from edgeseq.cli.train import follow, next_export, parse_settings, read_config
from edgeseq.cli.tune_events import next_tune
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder, shipped_bytes

WHAT = "What goes, as a share from 0 to 1"
HOW = "How it is chosen"
ZEROS = "zeros save bytes in weights.packed; no engine computes fewer products for them (docs/measured.md)"


def prune(
    folder: Annotated[Path, typer.Argument(help="A model folder in float32.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    structured: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Of the parameters, with whole units: every engine gains.", rich_help_panel=WHAT
        ),
    ] = 0.0,
    modes: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Of S4D's modes, by energy, ahead of other units: every engine gains.",
            rich_help_panel=WHAT,
        ),
    ] = 0.0,
    weights: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Of the weights of the linear maps that are not 0 yet, which become 0: only weights.packed gains.",
            rich_help_panel=WHAT,
        ),
    ] = 0.0,
    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What units and weights matter by: magnitude, taylor. The one that suits, if not given.",
            rich_help_panel=HOW,
        ),
    ] = None,
    scope: Annotated[
        str,
        typer.Option(
            metavar="SCOPE", help="Compare all weights (global), or those of each map (layer).", rich_help_panel=HOW
        ),
    ] = "global",
    block: Annotated[
        str,
        typer.Option(
            metavar="RxC", help="Take weights out in blocks of so many rows and columns.", rich_help_panel=HOW
        ),
    ] = "1x1",
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="Take all weights out at once, not on the way.", rich_help_panel=HOW)
    ] = False,
    no_retrain: Annotated[bool, typer.Option("--no-retrain", help="Do not train what remains.")] = False,
    teacher: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="Learn from this model; may be repeated.")
    ] = None,
    max_drop: MaxDrop = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of retraining: rounds=5, distillation.soft=0.5."),
    ] = None,
    config: Config = None,
    data: Annotated[
        str | None, typer.Option(help="Data to train on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Make a model smaller by what matters least, and train what remains.

    Example: edgeseq prune runs/gru --structured 0.5 --out runs/gru-half
    """
    show = Show(json)
    made, document = prune_folder(
        show,
        folder,
        out,
        structured=structured,
        weights=weights,
        modes=modes,
        scope=scope,
        block=_sides(block),
        criterion=criterion,
        gradual=not one_shot,
        retrain=not no_retrain,
        teachers=teacher or (),
        data=data,
        seed=seed,
        changes={**read_config(config), **parse_settings(set_ or [])},
        max_drop=max_drop,
        overwrite=overwrite,
        trust=trust,
    )
    following = next_tune(show, made) or next_export(made)
    show.next(*following)
    return {**document, "next": typed(*following)}


def prune_folder(show: Show, source: Path, out: Path, **options: Any) -> tuple[Folder, Document]:
    """Prune, showing how it goes, what it cost and what is left; the folder, and the document of it.

    ``options`` are those of :func:`edgeseq.quant.prune_stage.prune`.
    """
    need("pruning", "train", "torch")
    from edgeseq.quant.prune_stage import prune as prune_stage

    # Read first, and only if it is of the same people: what is asked for may replace a folder, or be of other data.
    dense = open_folder(source)
    before = None if options.get("data") else dense.manifest.metrics.get("test_accuracy")
    shipped_before = shipped_bytes(dense)
    made, document = follow(show, partial(prune_stage, source, out, **options))
    metrics, stage = made.manifest.metrics, made.manifest.lineage[-1].arguments
    if not stage["retrain"]:
        del document["rounds"]
        warn_if_beaten(show, metrics)
    zeros = {name.removeprefix("zeros_"): share for name, share in metrics.items() if name.startswith("zeros")}
    _show_sizes(show, stage)
    if zeros:
        _show_zeros(show, zeros, stage["weights"], again=bool(dense.manifest.pruned))
    after = metrics.get("test_accuracy")
    known = "" if before is None else f"before {percent(before)}, "
    show.line(f"accuracy on the test subjects: {known}pruned {percent(after)}")
    shipped = shipped_bytes(made)
    show.line(f"weights ship in {kilobytes(shipped)}, were {kilobytes(shipped_before)}")
    document |= {"parameters": made.manifest.parameters, "widths": stage["widths"], "zeros": zeros}
    document |= {"shipped_bytes": shipped, "shipped_bytes_before": shipped_before}
    return made, {**document, "accuracy_before": before, "accuracy_after": after}


def _show_sizes(show: Show, stage: Mapping[str, Any]) -> None:
    changed = [(name, *map(str, sizes)) for name, sizes in stage["widths"].items() if sizes[0] != sizes[1]]
    if not changed:
        return
    show.table(["width", ">before", ">after"], changed)
    before, after = stage["parameters"]
    known = "" if before is None else f" of {before:,}"
    named = {"modes": "of the modes", "structured": "of the parameters"}
    asked = " and ".join(f"{percent(stage[name])} {what}" for name, what in named.items() if stage[name])
    show.text(f"{asked} asked: {after:,}{known} parameters remain as whole units: every engine gains")


def _show_zeros(show: Show, zeros: Mapping[str, float], asked: float, *, again: bool) -> None:
    """``again``: whether some were 0 before."""
    show.table(["linear map", ">zeros"], [(name, percent(share)) for name, share in zeros.items() if name != "zeros"])
    of = " of those that were not 0 yet" if again else ""
    said = f"{percent(asked)}{of} asked: " if asked else ""
    show.text(f"{said}{percent(zeros['zeros'])} of the weights of the linear maps are 0: {ZEROS}")


def warn_if_beaten(show: Show, metrics: Mapping[str, float]) -> None:
    """What :func:`follow` says of a model that was trained."""
    share = metrics.get("test_majority_share", 0.0)
    if metrics.get("test_accuracy", share) < share:
        hint = "leave --no-retrain out, or ask for less"
        show.note(f"worse than always giving the most frequent answer ({percent(share)}): {hint}")


def _sides(block: str) -> tuple[int, int]:
    """``8x4`` as rows and columns."""
    sides = block.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise InputError(f"--block {block!r}: rows and columns are needed, as in 8x4")
    return int(sides[0]), int(sides[1])
