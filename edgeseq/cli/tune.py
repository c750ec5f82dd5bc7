"""``edgeseq tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseq.cli.output import Clock, Document, Json, Show, need, not_negative, percent, typed
from edgeseq.cli.train import next_export
from edgeseq.errors import InputError, MissingDependency
from edgeseq.folder import Folder

if TYPE_CHECKING:
    from edgeseq.training.early import Rule, Tuned

FORMATS = (".png", ".svg", ".pdf")


def tune(
    folder: Annotated[Path, typer.Argument(help="A model folder of segments, exported or not.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    drop: Annotated[
        float, typer.Option(metavar="POINTS", help="Accuracy that may be lost against answering at the end.")
    ] = 0.5,
    level: Annotated[float, typer.Option(help="How sure that must be; 0.5 takes what was counted as it is.")] = 0.95,
    earliest: Annotated[
        float, typer.Option(metavar="SECONDS", help="No answer before this.", callback=not_negative)
    ] = 0.0,
    hold: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a label must be likely enough.", callback=not_negative)
    ] = 0.0,
    data: Annotated[
        str | None, typer.Option(help="Data to choose and to score on, if not that of the training.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy against share of frames: .png, .svg or .pdf.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model folder OUT.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")] = False,
    json: Json = False,
) -> Document:
    """Choose when a segment is answered before it ends, for a stated loss of accuracy.

    Example: edgeseq tune runs/braille --out runs/braille-early --drop 0.5
    """
    need("tuning", "train", "torch")
    if plot is not None:
        _check_plot(plot)
    import msgspec

    from edgeseq.training.early import tune as tune_stage

    show, clock = Show(json), Clock()
    with show.notes.status("hearing the validation and test segments"):
        made, tuned = tune_stage(
            folder,
            out,
            drop=drop / 100,
            level=level,
            earliest=earliest,
            hold=hold,
            data=data,
            overwrite=overwrite,
            trust=trust,
        )
    _show(show, tuned)
    if plot is not None:
        _draw(plot, tuned, made.manifest.name)
        show.line(f"drew {plot}", "green")
    document = show.wrote_folder(made, clock)
    following = _next(made)
    show.next(*following)
    return {**document, **msgspec.to_builtins(tuned), "too_few": tuned.too_few, "next": typed(*following)}


def _show(show: Show, tuned: Tuned) -> None:
    """The table of the rules, and what was chosen on how much."""
    rows = [
        (
            *(rule.name, _setting(rule)),
            *(percent(share) for share in (rule.validation.accuracy, rule.validation.share)),
            *(percent(share) for share in (rule.test.accuracy, rule.test.share, rule.test.share_p90)),
        )
        for rule in tuned.rules
    ]
    show.table(("answer", ">from", ">validation", ">frames", ">test", ">frames", ">p90"), rows)
    rule, (before, after) = tuned.rule, tuned.errors
    warmth = f"{rule.temperature:.3g}" + (f" x seconds ^ {rule.growth:.3g}" if rule.growth else "")
    show.facts(
        [
            ("chosen on", f"{tuned.validation_segments:,} validation segments; {_caution(tuned)}"),
            ("judged on", f"{tuned.test_segments:,} test segments"),
            ("frames", "share of a segment's real frames up to its answer: mean, and 90th percentile"),
            ("calibrated", f"temperature {warmth}; calibration error {percent(before)} before, {percent(after)} after"),
        ]
    )
    if not rule.confidence < 1:
        show.text("No early answer is safe enough: every segment is answered at its end.")
    show.line()


def _setting(rule: Rule) -> str:
    """The confidence, or the number of frames."""
    return {"end": "", "frame": f"frame {rule.setting:.0f}", "confidence": f"{rule.setting:.5f}"}[rule.kind]


def _caution(tuned: Tuned) -> str:
    """What the number of validation segments means for the choice."""
    wanted = f"{100 * tuned.drop:g} points"
    if tuned.level == 0.5:
        return f"a loss of {wanted} or less, as counted there"
    if not tuned.too_few:
        return f"the loss is below {wanted} at {100 * tuned.level:g} % confidence"
    return (
        f"too few to show a loss below {wanted} at {100 * tuned.level:g} % confidence, so the rule is as careful as "
        f"one that loses no segment (which shows {100 * tuned.provable:.2g} points); more of them allow more"
    )


def _next(folder: Folder) -> tuple[str | Path, ...]:
    return ("stream", folder.path) if folder.formats else next_export(folder)


def _check_plot(file: Path) -> None:
    if file.suffix not in FORMATS:
        raise InputError(f"{file} ends in {file.suffix or 'nothing'}: a plot is one of {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: {file.parent} is not a folder")
    need("the plot", "train", "matplotlib")


def _draw(file: Path, tuned: Tuned, name: str) -> None:
    """Accuracy against the mean share of frames on the test segments, along both kinds of rules."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "train", "the plot") from None
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for curve in tuned.curves:
        axes.plot([100 * x for x in curve.shares], [100 * y for y in curve.accuracies], label=curve.name)
    for rule, mark in zip(tuned.rules, ("s", "o", "D", "x"), strict=True):
        point = (100 * rule.test.share, 100 * rule.test.accuracy)
        label = f"{rule.name}: {_setting(rule)}".rstrip(": ")
        axes.plot(*point, mark, color="black", markersize=6, fillstyle="none", label=label)
    axes.axhline(100 * (tuned.rules[0].test.accuracy - tuned.drop), color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("real frames used, mean share in %")
    axes.set_ylabel("accuracy in %")
    axes.set_title(f"{name}: {tuned.test_segments:,} test segments", fontsize=10)
    axes.legend(frameon=False)
    try:
        figure.savefig(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
