"""What ``edgeseq tune`` shows of a model that answers at every frame: the rule before and after, as table and plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseq.cli.output import Show, percent
from edgeseq.folder import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgeseq.training.heard import Evidence
    from edgeseq.training.tune_events import Rule, TunedEvents

COLUMNS = ("rule", "part", ">delay", ">p90", ">missed", ">false/h", ">F1", ">right", ">unknown")
KEEPS_RULE = ("export", "retime")  # verbs that leave the rule of a model as it is


def show_events(show: Show, tuned: TunedEvents) -> None:
    """The table of both rules on both parts, what they say, and on how much the new one was chosen."""
    within = f">{100 * tuned.share:g} % in"
    columns = [within if column == ">p90" and tuned.max_delay is not None else column for column in COLUMNS]
    show.table(columns, [row for rule in (tuned.before, tuned.after) for row in _rows(rule, tuned.max_delay)])
    show.facts(
        [
            ("before", tuned.before.decision.shown()),
            ("after", tuned.after.decision.shown()),
            ("chosen", f"{_aim(tuned)}, of {tuned.tried:,} rules"),
            ("chosen on", f"{_size(tuned.chosen_on)} of the validation part"),
            ("judged on", f"{_size(tuned.judged_on)} of the test part"),
            ("delay", "from a change to its first answer, of those answered, look-ahead included: median"),
            ("p90", "the 90th percentile of the same")
            if tuned.max_delay is None
            else (within[1:], "the time in which so many of all changes are answered; -: more are missed"),
            ("right", "share of the labelled time in which the answer is the true label"),
        ]
    )
    if tuned.kept:
        show.text("No rule of the grid is better by more than chance may be: the one before stays.")
    elif tuned.after.decision == tuned.before.decision:
        show.text("No rule of the grid is better: the one before stays.")
    show.line()
    if tuned.chosen_on.few:
        from edgeseq.training.heard import ENOUGH

        show.note(
            f"{tuned.chosen_on.changes} different changes are too few to choose a rule on with any certainty: on other "
            f"people it may do worse than the one before. Validation people with {ENOUGH} or more would say more"
        )


def next_tune(show: Show, made: Folder) -> tuple[str | Path, ...]:
    """The command that gives ``made`` a rule again, said where the model before had one that was tuned; else nothing.

    A stage that changes the answers drops what was fitted to those before.
    """
    before = [stage.verb for stage in made.manifest.lineage[:-1] if stage.verb not in KEEPS_RULE]
    if not before or before[-1] != "tune":
        return ()
    rule = "at a segment's end" if made.manifest.task == "segment" else f"by {made.manifest.decision.shown()}"
    show.note(
        "the rule that edgeseq tune chose was fitted to the answers of the model before, and is dropped: "
        f"{made.path} answers {rule}, until edgeseq tune chooses again"
    )
    foreign = ("--trust",) if ":" in made.manifest.family else ()
    return ("tune", made.path, "--out", made.path.with_name(f"{made.path.name}-tuned"), *foreign)


def _rows(rule: Rule, max_delay: float | None) -> list[tuple[str, ...]]:
    parts = zip(("validation", "test"), (rule.validation, rule.test), rule.times, strict=True)
    return [
        (
            *(rule.name, part, _seconds(score.delay_median)),
            *(_seconds(score.delay_p90 if max_delay is None else time), percent(score.missed)),
            *(f"{score.false_switches_per_hour:.1f}", f"{score.f1:.3f}"),
            *(percent(score.accuracy), percent(score.unknown)),
        )
        for part, score, time in parts
    ]


def _aim(tuned: TunedEvents) -> str:
    if tuned.max_delay is None:
        return "for the highest F1 of changes, right no less of the time than before"
    share = f"{100 * tuned.share:g} % of the changes answered within {tuned.max_delay:g} s"
    return f"for the fewest false switches with {share}"


def _size(evidence: Evidence) -> str:
    """Each recording once, and what is done to hear more changes."""
    people = {0: "nobody knows how many people", 1: "1 person"}.get(evidence.people, f"{evidence.people:,} people")
    amount = f"{evidence.changes:,} different changes in {60 * evidence.hours:.1f} minutes of {people}"
    return f"{amount} (recordings joined in {evidence.orders} orders)" if evidence.orders else amount


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
    axes.set_title(f"{name}: {tuned.judged_on.changes:,} different changes of the test part", fontsize=10)
    axes.legend(frameon=False)
