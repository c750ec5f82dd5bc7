"""The table of how tuned models follow changes."""

from __future__ import annotations

from edgeseq.devices.report.document import Model, Report
from edgeseq.devices.report.numbers import NONE, percent
from edgeseq.devices.report.table import Table, numbers, text
from edgeseq.devices.report.views import by_folder


def changes(report: Report) -> Table:
    """How tuned models follow changes of the true label, under the rule before and the one that was chosen."""
    rows, notes = [], []
    for model in by_folder(report).models:
        if "test_event_f1" not in model.metrics:
            continue
        for rule, suffix in (("before", "_before"), ("tuned", "")):
            seconds = (_plain(model, f"test_{name}{suffix}", 2) for name in ("delay_median", "delay_p90"))
            shares = (percent(model.metrics.get(f"test_{name}{suffix}")) for name in ("missed", "accuracy_decided"))
            false = _plain(model, f"test_false_switches_per_hour{suffix}", 1)
            missed, right = shares
            rows.append((model.name, rule, *seconds, missed, false, _plain(model, f"test_event_f1{suffix}", 3), right))
        notes.append(f"{model.name} answers by {model.decision.shown()}.")
    if rows:
        notes += [
            "As judged in torch when the rule was tuned, on the people tested. Delay: of the changes that were "
            "answered. Right: share of the labelled time in which the answer, as it was said then, is the true label."
        ]
    return Table(
        "Changes",
        (
            *text("model", "rule"),
            *numbers("median", "p90", group="delay, s"),
            *numbers("missed, %", "false switches an hour", "F1", "right, %"),
        ),
        tuple(rows),
        tuple(notes),
    )


def _plain(model: Model, metric: str, digits: int) -> str:
    return f"{model.metrics[metric]:.{digits}f}" if metric in model.metrics else NONE
