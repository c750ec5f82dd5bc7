"""The table of how models, and the baselines on the same people, follow changes of the true label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeseq.devices.report.document import Baseline, Following, Model, Report
from edgeseq.devices.report.kinship import grouped, test_key
from edgeseq.devices.report.numbers import NONE, count, joined, percent
from edgeseq.devices.report.table import Table, numbers, text
from edgeseq.devices.report.views import by_folder
from edgeseq.events import EventScores
from edgeseq.manifest import Decision

Row = tuple[str, ...]


def changes(report: Report) -> Table:
    """How answers follow changes: by each frame alone and by a model's rule, and of a tuned one by that before."""
    rows: list[Row] = []
    notes: list[str] = []
    for group in grouped(by_folder(report).models, test_key):
        for model in group:
            rows += _rows(model)
        names = {model.name for model in group}
        baselines = [each for each in report.baselines if names & set(each.models)]
        for each in baselines:
            rows += [_row(each.name, _rule(found.rule), found.scores) for found in each.following]
        notes += _notes(group, baselines)
    return Table(
        "Changes",
        (
            *text("model", "rule"),
            *numbers("median", "p90", group="delay, s"),
            *numbers("missed, %", "false switches an hour", "F1", "right, %"),
        ),
        tuple(rows),
        (*notes, _LEGEND) if rows else (),
    )


_LEGEND = (
    "Delay: from a change to its first answer, of the changes that were answered. False switch: to what is not so, and "
    "was not in the second before. Right: share of the labelled time in which the answer, as it was said then, is the "
    "true label."
)


def _rows(model: Model) -> Iterable[Row]:
    tuned = _tuned(model)
    measured = [_row(model.name, _name(model, each), each.scores) for each in model.following]
    yield from measured[:1] if tuned else measured
    if tuned:
        yield _as_tuned(model, "before", "_before")
        yield measured[-1] if measured else _as_tuned(model, "tuned", "")


def _name(model: Model, found: Following) -> str:
    return "tuned" if _tuned(model) and found.rule == model.decision else _rule(found.rule)


def _rule(rule: Decision) -> str:
    """A rule in a word or two."""
    if rule == Decision():
        return "each frame"
    return f"smoothed {rule.smoothing:g} s" if rule == Decision(rule.smoothing) else "its rule"


def _row(name: str, rule: str, scores: EventScores) -> Row:
    return (
        *(name, rule, _seconds(scores.delay_median), _seconds(scores.delay_p90), percent(scores.missed)),
        *(f"{scores.false_switches_per_hour:.1f}", f"{scores.f1:.3f}", percent(scores.accuracy)),
    )


def _as_tuned(model: Model, rule: str, suffix: str) -> Row:
    """What torch found of a rule when it was chosen."""
    found = {name: model.metrics.get(f"test_{name}{suffix}") for name in _METRICS}
    median, slow, missed, false, f1, right = found.values()
    plain = ((median, 2), (slow, 2)), ((false, 1), (f1, 3))
    delays, others = ([_number(value, digits) for value, digits in pairs] for pairs in plain)
    return (model.name, rule, *delays, percent(missed), *others, percent(right))


_METRICS = ("delay_median", "delay_p90", "missed", "false_switches_per_hour", "event_f1", "accuracy_decided")


def _notes(group: Sequence[Model], baselines: Sequence[Baseline]) -> Iterable[str]:
    followed = [each for model in group for each in model.following]
    if followed:
        first = followed[0]
        where = f"{count(first.scores.events)} changes in {60 * first.scores.hours:.0f} minutes of the people tested"
        joins = f", whose recordings were joined in {first.orders} orders" if first.orders else ""
        yield f"Of {where}{joins}, in the first engine that was scored."
    for model in group:
        if _tuned(model):
            rows = "before" if model.following else "before and tuned"
            yield f"{model.name} answers by {model.decision.shown()}. As torch judged it when it was tuned: {rows}."
    yield from _ahead(group, baselines)


def _ahead(group: Sequence[Model], baselines: Sequence[Baseline]) -> Iterable[str]:
    """Where a baseline's best F1 is above that of models."""
    for baseline in baselines:
        best = max((each.scores.f1 for each in baseline.following), default=0.0)
        behind = [m.name for m in group if m.following and max(each.scores.f1 for each in m.following) < best]
        if behind:
            yield f"By its best F1, the {baseline.name} follows changes better than {joined(behind)}."


def _tuned(model: Model) -> bool:
    return "test_event_f1" in model.metrics


def _seconds(value: float | None) -> str:
    return _number(value, 2)


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"
