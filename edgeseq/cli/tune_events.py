"""What ``edgeseq tune`` shows of a model that answers at every frame: the rule before and after, as table and plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeseq.cli.output import Show, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseq.events import EventScores
    from edgeseq.training.tune_events import Rule, TunedEvents

COLUMNS = ("rule", "part", ">delay", ">p90", ">missed", ">false/h", ">F1", ">right", ">unknown")


def show_events(show: Show, tuned: TunedEvents) -> None:
    """The table of both rules on both parts, what they say, and on how much the new one was chosen."""
    show.table(COLUMNS, [row for rule in (tuned.before, tuned.after) for row in _rows(rule)])
    validation, test = tuned.after.validation, tuned.after.test
    stitched = f", each subject's recordings stitched in {tuned.orders} random orders" if tuned.orders else ""
    show.facts(
        [
            ("before", tuned.before.decision.shown()),
            ("after", tuned.after.decision.shown()),
            ("chosen", f"{_aim(tuned)}, of {tuned.tried:,} rules"),
            ("chosen on", f"{_size(validation)} of the validation subjects{stitched}"),
            ("judged on", f"{_size(test)} of the test subjects"),
            ("delay", "from a change to its first answer, look-ahead included: median and 90th percentile"),
            ("right", "share of the labelled time in which the answer is the true label"),
        ]
    )
    if tuned.after.decision == tuned.before.decision:
        show.text("No rule of the grid is better: the one before stays.")
    show.line()


def _rows(rule: Rule) -> list[tuple[str, ...]]:
    return [
        (
            *(rule.name, part, _seconds(score.delay_median), _seconds(score.delay_p90), percent(score.missed)),
            *(f"{score.false_switches_per_hour:.1f}", f"{score.f1:.3f}"),
            *(percent(score.accuracy), percent(score.unknown)),
        )
        for part, score in (("validation", rule.validation), ("test", rule.test))
    ]


def _aim(tuned: TunedEvents) -> str:
    if tuned.max_delay is None:
        return "for the highest F1 of changes, right no less of the time than before"
    share = f"{100 * tuned.share:g} % of the changes answered within {tuned.max_delay:g} s"
    return f"for the fewest false switches with {share}"


def _size(score: EventScores) -> str:
    return f"{score.events:,} changes in {60 * score.hours:.0f} minutes"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def draw_events(figure: Figure, tuned: TunedEvents, name: str) -> None:
    """Delay against false switches per hour: both rules, and on the validation subjects the best of the grid."""
    axes = figure.add_subplot()
    trade = tuned.trade
    axes.plot(trade.false_switches_per_hour, trade.delays, label="best of the grid, validation")
    for rule, mark in ((tuned.before, "s"), (tuned.after, "o")):
        parts = (("validation", rule.validation, "none"), ("test", rule.test, "full"))
        for (part, score, fill), seconds in zip(parts, rule.times, strict=True):
            label = f"{rule.name}, {part}" + ("" if seconds is not None else ": too many missed")
            point = (score.false_switches_per_hour, math.nan if seconds is None else seconds)
            axes.plot(*point, mark, color="black", markersize=6, fillstyle=fill, label=label)
    axes.set_xlabel("false switches per hour")
    axes.set_ylabel(f"seconds in which {100 * tuned.share:g} % of the changes are answered")
    axes.set_title(f"{name}: {tuned.after.test.events:,} changes of the test subjects", fontsize=10)
    axes.legend(frameon=False)
