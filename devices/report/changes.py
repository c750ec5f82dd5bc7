"""The table of how models, and the baselines on the same people, follow changes of the true label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    heard: dict[str, list[str]] = {}  # on how much: whose names
    notes: list[str] = []
    for group in grouped(by_folder(report).models, test_key):
        for model in group:
            rows += _rows(model)
        names = {model.name for model in group}
        baselines = [each for each in report.baselines if names & set(each.models)]
        for each in baselines:
            rows += [_row(each.name, _rule(found.rule), found.scores) for found in each.following]
        for model in group:
            if model.following:
                heard.setdefault(_heard(model.following[0]), []).append(model.name)
        notes += _notes(group, baselines)
    return Table(
        "Changes",
        (
            *text("model", "rule"),
            *numbers("median", "p90", group="delay, s"),
            *numbers("missed, %", "false switches an hour", "F1", "right, %"),
        ),
        tuple(rows),
        (*_on(heard), *notes, _LEGEND) if rows else (),
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


def _heard(found: Following) -> str:
    changes = f"{count(found.scores.events)} changes in {60 * found.scores.hours:.0f} minutes of the people tested"
    joins = f", whose recordings were joined in {found.orders} orders" if found.orders else ""
    return f"Of {changes}{joins}, in the first engine that was scored."


def _on(heard: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """On how much models were scored; by name where it differs."""
    return (f"{joined(names)}: {said}" if len(heard) > 1 else said for said, names in heard.items())


def _notes(group: Sequence[Model], baselines: Sequence[Baseline]) -> Iterable[str]:
    for model in group:
        if _tuned(model):
            rows = "before" if model.following else "before and tuned"
            yield f"{model.name} answers by {model.decision.shown()}. As torch judged it when it was tuned: {rows}."
    for baseline in baselines:
        for at, answers in ((0, "each frame's answer"), (-1, "their rules")):
            behind = [model.name for model in group if _is_behind(model, baseline, at)]
            if behind:
                yield f"The {baseline.name} follows changes better than {joined(behind)}, by the F1 of {answers}."


def _is_behind(model: Model, baseline: Baseline, at: int) -> bool:
    """Whether the baseline has the higher F1, as shown: by each frame alone (0), or by the rule (-1)."""
    if not model.following or not baseline.following:
        return False
    return round(model.following[at].scores.f1, 3) < round(baseline.following[at].scores.f1, 3)


def _tuned(model: Model) -> bool:
    return "test_event_f1" in model.metrics


def _seconds(value: float | None) -> str:
    return _number(value, 2)


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:.{digits}f}"
