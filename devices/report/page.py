"""``report.html``: one file that needs nothing else, no network and no script.

A browser makes a picture of it: ``chromium --headless --window-size=1200,1400 --screenshot=report.png report.html``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseq.devices.report import tables
from edgeseq.devices.report.across import across
from edgeseq.devices.report.changes import changes
from edgeseq.devices.report.document import Model, Report
from edgeseq.devices.report.machines import machines
from edgeseq.devices.report.numbers import HASH, engine_name, flat, micros, percent
from edgeseq.devices.report.plots import beside, figure, limits
from edgeseq.devices.report.views import by_folder, device_of, devices, placed
from edgeseq.devices.report.words import scored_row, title, verdicts
from edgeseq.errors import MissingDependency

if TYPE_CHECKING:
    from edgeseq.manifest import Stage

TEMPLATE = "page.html.j2"
UNITS = ("µs", "ms", "ns", "s", "Hz", "kB", "MB", "B", "points?", "times", "frames?", "people", "person", "cores?")
LONG = 5  # letters; labels with more stand upright above their column


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix: the share of its row, how often it was counted, and whether it is right."""

    share: float
    count: int
    right: bool
    said: str


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: a row for each true label, and the number of its frames or segments (``counted``)."""

    model: str
    engine: str
    labels: tuple[str, ...]
    counted: str
    rows: tuple[tuple[str, int, tuple[Cell, ...]], ...]
    upright: bool


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows, for whoever cannot see it."""

    model: str
    svg: str
    said: str


def page(report: Report) -> str:
    """The whole page.

    Raises:
        MissingDependency: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingDependency("jinja2", "train", "the report") from None
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folders = by_folder(report).models
    return environment.get_template(TEMPLATE).render(
        report=report,
        folders=folders,
        across=across(report),
        machines=machines(report),
        title=title(report),
        verdicts=verdicts(report),
        tables=tables,
        changes=changes(report),
        plots=plots(report),
        beside=plots_beside(report),
        confusions=[matrix for model in folders if (matrix := confusion(model)) is not None],
        flat=flat,
        hash_length=HASH,
        versions=versions,
        unbroken=unbroken,
    )


def plots(report: Report) -> list[Plot]:
    """A figure for each model that has times."""
    within = limits(report.models)
    drawn = [(model, figure(model, f"plot{number}", within)) for number, model in enumerate(report.models)]
    return [Plot(placed(report, model), svg, _plot_said(model)) for model, svg in drawn if svg]


def plots_beside(report: Report) -> list[Plot]:
    """A figure for each model with all devices, where there are several."""
    if len(devices(report)) == 1:
        return []
    within, found = limits(report.models), []
    for number, folder in enumerate(by_folder(report).models):
        models = [model for model in report.models if model.folder_hash == folder.folder_hash]
        svg = beside(models, f"beside{number}", within)
        said = " ".join(f"On {device_of(model)}: {_plot_said(model)}" for model in models)
        found += [Plot(folder.name, svg, said)] if svg else []
    return found


def _plot_said(model: Model) -> str:
    parts = []
    for row in model.engines:
        tight, paced = row.tight.quantiles, row.paced.quantiles
        parts.append(
            f"{engine_name(row.engine)} tight {micros(tight.p50)} at the median and {micros(tight.p99)} at p99, "
            f"paced {micros(paced.p50)} and {micros(paced.p99)}"
        )
    return f"Durations of a step of {model.name} in microseconds: {'; '.join(parts)}."


def confusion(model: Model) -> Confusion | None:
    """What a model answered for each true label, in the first engine that was scored."""
    row = scored_row(model)
    if row is None or row.scores is None:
        return None
    rows, counted = [], f"{model.task}s"
    for true, counts in enumerate(row.scores.confusion):
        total, name = sum(counts), model.labels[true]
        cells = (_cell(name, model.labels[k], number, total, counted) for k, number in enumerate(counts))
        rows.append((name, total, tuple(cells)))
    upright = max(map(len, model.labels)) > LONG
    return Confusion(model.name, engine_name(row.engine), model.labels, counted, tuple(rows), upright)


def _cell(true: str, answered: str, number: int, total: int, counted: str) -> Cell:
    share = number / total if total else 0.0
    said = f"{true} answered {answered}: {number:,} of {total:,} {counted}, {percent(share)} %"
    return Cell(share, number, true == answered, said)


def unbroken(sentence: str) -> str:
    """A sentence whose numbers stay on a line with their units."""
    return re.sub(
        r"(?<=\d) (?=(%|µs|ns|ms|s|Hz|kB|MB|B|points?|times|frames?|people|person|cores?)\b|%)", "\u00a0", sentence
    )


def versions(stage: Stage) -> str:
    """The versions that a stage ran with."""
    return ", ".join(f"{name} {version}" for name, version in stage.versions.items())
