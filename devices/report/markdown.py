"""``report.md``: the same report for a terminal, a pull request or a wiki."""

from __future__ import annotations

import re

from edgeseq.devices.report import tables
from edgeseq.devices.report.across import across
from edgeseq.devices.report.changes import changes
from edgeseq.devices.report.document import Model, Report
from edgeseq.devices.report.machines import machines
from edgeseq.devices.report.numbers import engine_name, flat, percent
from edgeseq.devices.report.table import Column, Table
from edgeseq.devices.report.views import by_folder
from edgeseq.devices.report.words import scored_row, title, verdicts


def markdown(report: Report) -> str:
    """The whole report in Markdown."""
    folders = by_folder(report).models
    parts = [f"# {escape(title(report))}", "\n".join(f"- {escape(sentence)}" for sentence in verdicts(report))]
    parts += _table(tables.glance(report))
    parts += ["## What was trained, and on whom", *_table(tables.people(report)), *_table(tables.stages(report))]
    parts += [_settings(model) for model in folders]
    parts += ["## How often it is right", *_table(tables.accuracy(report)), *_table(changes(report))]
    for model in folders:
        parts += _confusion(model)
    parts += ["## How long a step takes"]
    beside = across(report)
    if beside.rows:
        parts += ["### Devices beside each other", *_table(beside), "### Each by itself"]
    parts += [*_table(tables.latency(report)), *_table(tables.running(report))]
    parts += ["## How much it takes", *_table(tables.sizes(report)), *_table(tables.engines(report))]
    parts.append("## Whether it is what was trained")
    for model in folders:
        parts += [f"### {escape(model.name)}", *_table(tables.proof(model))]
    parts.append("## Where it was measured")
    for table in machines(report):
        parts += [f"### {escape(table.name)}", *_table(table)]
    parts.append("\n".join(f"- {escape(model.name)} `{model.folder_hash}`" for model in folders))
    parts.append(f"edgeseq {escape(report.edgeseq)}")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown takes for text: no element, no table cell, no emphasis or link begins in it."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _table(table: Table) -> list[str]:
    """A table and its notes; nothing where there is neither."""
    parts = []
    if table.rows:
        heads = [escape(_head(column)) for column in table.columns]
        rules = ["---:" if column.number else "---" for column in table.columns]
        rows = [[escape(cell) for cell in row] for row in table.rows]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)))
    return [*parts, *(escape(note) for note in table.notes)]


def _head(column: Column) -> str:
    return f"{column.title} ({column.group})" if column.group else column.title


def _settings(model: Model) -> str:
    lines = [f"{escape(model.name)}, family {escape(model.family)}: {_pairs(flat(model.arguments))}"]
    for stage in model.lineage:
        seed = "" if stage.seed is None else f", seed {stage.seed}"
        made_with = ", ".join(f"{name} {version}" for name, version in stage.versions.items())
        lines.append(f"- {escape(stage.verb)}{seed}: {_pairs(flat(stage.arguments))} ({escape(made_with)})")
    return "\n".join(lines)


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return escape("; ".join(f"{name.removeprefix('settings.')} {value}" for name, value in pairs)) or "no arguments"


def _confusion(model: Model) -> list[str]:
    row = scored_row(model)
    if row is None or row.scores is None:
        return []
    columns = (Column("true", number=False), *(Column(label) for label in model.labels), Column(f"{model.task}s"))
    rows = []
    for label, counts in zip(model.labels, row.scores.confusion, strict=True):
        total = sum(counts)
        shares = (percent(number / total, 0) if total else "0" for number in counts)
        rows.append((label, *shares, f"{total:,}"))
    caption = f"{model.name} in {engine_name(row.engine)}, percent of each true label’s {model.task}s:"
    return [escape(caption), *_table(Table(model.name, columns, tuple(rows)))]
