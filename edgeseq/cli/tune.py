"""``edgeseq tune``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.options import Overwrite, Trust
from edgeseq.cli.output import Clock, Document, Json, Show, counted, need, not_negative, percent, typed
from edgeseq.cli.train import next_export
from edgeseq.cli.tune_events import draw_events, show_events
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseq.training.early import Rule, Tuned

Stage = Callable[..., tuple[Folder, Any]]
FORMATS = (".png", ".svg", ".pdf")


def tune(
    folder: Annotated[Path, typer.Argument(help="A model folder, exported or not.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Segments: accuracy that may be lost against the end. [default: 0.5]"),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(help="Segments: how sure that must be; 0.5 takes what was counted as it is. [default: 0.95]"),
    ] = None,
    earliest: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Segments: no answer before this.", callback=not_negative)
    ] = None,
    hold: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Segments: how long a label must be likely.", callback=not_negative),
    ] = None,
    max_delay: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Frames: the fewest false switches with changes answered within this. [default: the best event F1]",
            callback=not_negative,
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Frames: of the changes, within that delay. [default: 90]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Frames: of the orders in which recordings are stitched.", callback=counted)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data (a path, NAME or NAME=PATH) to choose and score on, if not the training's.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw what is given for what: .png, .svg or .pdf."),
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Choose the rule by which answers are given: early, to segments; soon and calmly, at every frame of a stream.

    Example: edgeseq tune runs/gru --out runs/gru-tuned --max-delay 2
    """
    need("tuning", "train", "torch")
    if plot is not None:
        _check_plot(plot)
    source = open_folder(folder)
    early = {"drop": drop, "level": level, "earliest": earliest, "hold": hold}
    events = {"max_delay": max_delay, "share": share, "seed": seed}
    given = _of_its_task(source, early, events)
    for percents in {"drop", "share"} & given.keys():
        given[percents] /= 100
    segments, show, clock = source.manifest.task == "segment", Show(json), Clock()
    stage, shown, drawn = _stage(segments)
    with show.notes.status("hearing the validation and test subjects, and trying rules on them"):
        made, tuned = stage(source.path, out, **given, data=data, overwrite=overwrite, trust=trust)
    shown(show, tuned)
    if plot is not None:
        _save(plot, show, lambda figure: drawn(figure, tuned, made.manifest.name))
    document = show.wrote_folder(made, clock)
    following = ("stream", made.path) if made.formats else next_export(made)
    show.next(*following)
    document |= {**msgspec.to_builtins(tuned), "next": typed(*following)}
    return {**document, "too_few": tuned.too_few} if segments else document


def _of_its_task(source: Folder, early: dict[str, Any], events: dict[str, Any]) -> dict[str, Any]:
    """The options of the model's task that were given; those of the other task are refused."""
    segments = source.manifest.task == "segment"
    ours, others = (early, events) if segments else (events, early)
    wrong = next((name for name, value in others.items() if value is not None), None)
    if wrong is not None:
        answers = "answers bounded segments" if segments else "answers at every frame of a stream"
        refused, *options = (f"--{name.replace('_', '-')}" for name in (wrong, *ours))
        raise InputError(
            f"{refused} says nothing of {source.path}, which {answers}: its options are {', '.join(options)}"
        )
    return {name: value for name, value in ours.items() if value is not None}


def _stage(segments: bool) -> tuple[Stage, Callable[[Show, Any], None], Callable[[Figure, Any, str], None]]:
    """What chooses a rule for segments, or for frames, and what shows and draws the choice."""
    if segments:
        from edgeseq.training.early import tune as tune_segments

        return tune_segments, _show, _draw
    from edgeseq.training.tune_events import tune as tune_frames

    return tune_frames, show_events, draw_events


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


def _check_plot(file: Path) -> None:
    if file.suffix not in FORMATS:
        raise InputError(f"{file} ends in {file.suffix or 'nothing'}: a plot is one of {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: {file.parent} is not a folder")
    need("the plot", "train", "matplotlib")


def _save(file: Path, show: Show, draw: Callable[[Figure], None]) -> None:
    """Write the plot that ``draw`` makes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    draw(figure)
    try:
        figure.savefig(file)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
    show.line(f"drew {file}", "green")


def _draw(figure: Figure, tuned: Tuned, name: str) -> None:
    """Accuracy against the mean share of frames on the test segments, along both kinds of rules."""
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
