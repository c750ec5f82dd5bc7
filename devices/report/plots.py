"""The distributions of a step's duration as SVG: one figure a model, tight above the line and paced below it; and of
several devices one figure a model with all of them.

matplotlib draws, its Figure alone: no pyplot, no state. The text stays text, and the colours become those of the page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeseq.devices.report.document import Distribution, EngineRow, Model, edge
from edgeseq.devices.report.numbers import engine_name, micros
from edgeseq.devices.report.views import device_of
from edgeseq.devices.report.words import slowed
from edgeseq.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW, THIN, MARGIN = 4.4, 1.2, 0.62, 0.3  # inches; of a figure, of an engine, of one on a device, of the axis
APART = 1.45  # from one line to the next, where a shape is 0.36 high
LABEL = 0.16  # of the axis' length: the room for a number of five digits beside the slowest
POINTS = 8.5  # size of the letters
_TIGHT, _PACED, _INK, _MUTED, _LINE = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"  # drawn with, then replaced
_VARIABLES = {_TIGHT: "--tight", _PACED: "--paced", _INK: "--ink", _MUTED: "--muted", _LINE: "--line"}


def limits(models: Sequence[Model]) -> tuple[float, float]:
    """The range in microseconds from the fastest call to the slowest p99, so that all figures have one axis."""
    parts = [part for model in models for row in model.engines for part in (row.tight, row.paced)]
    lows = [edge(part.first) for part in parts if part.counts]
    lows += [part.quantiles.p50 for part in parts if not part.counts and part.quantiles.p50]
    return min(lows, default=1.0), max(
        (part.quantiles.p99 or 0.0 for part in parts if part.quantiles.p99), default=10.0
    )


def figure(model: Model, name: str, within: tuple[float, float]) -> str:
    """An ``<svg>`` element with every engine of a model, its ids beginning with ``name``; empty without times.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    rows = [row for row in model.engines if row.tight.counts and row.paced.counts]
    if not rows:
        return ""
    height = ROW * len(rows) + MARGIN
    with _figure(height) as (drawn, axes):
        _frame(axes, APART * len(rows) - 0.6, within)
        for place, row in enumerate(rows):
            _engine(axes, APART * (len(rows) - 1 - place), row, within[0])
    return inline(drawn.getvalue(), name)


def beside(models: Sequence[Model], name: str, within: tuple[float, float]) -> str:
    """An ``<svg>`` element with one model's engines on every device: medians, and lines to p99; empty without times.

    A device without times has its place all the same.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    engines = dict.fromkeys(row.engine for model in models for row in model.engines)
    rows = [(model, row) for engine in engines for model in models for row in model.engines if row.engine == engine]
    if not any(row.paced.quantiles.p50 for _, row in rows):
        return ""
    within = within[0] / (within[1] / within[0]) ** LABEL, within[1]  # medians stand on the left of their dots
    with _figure(THIN * len(rows) + MARGIN) as (drawn, axes):
        _frame(axes, len(rows) - 0.4, within)
        for place, (model, row) in enumerate(rows):
            _device(axes, len(rows) - 1 - place, model, row, within[0])
    return inline(drawn.getvalue(), name)


@contextmanager
def _figure(height: float) -> Iterator[tuple[io.StringIO, Axes]]:
    """Axes to draw on; behind them the SVG."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "train", "the report") from None
    target = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgeseq", "font.size": POINTS}):
        drawn = Figure(figsize=(WIDTH, height))
        yield target, drawn.add_axes((0.01, MARGIN / height, 0.98, 1 - MARGIN / height))
        drawn.savefig(target, format="svg", transparent=True, metadata={"Date": None})


def _frame(axes: Axes, top: float, within: tuple[float, float]) -> None:
    low, high = within[0] / 1.1, within[1] * max(2.0, (within[1] / within[0]) ** LABEL)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, top)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    if len(ticks) < 2:
        ticks = sorted({*ticks, *(t * k for t in (0.1, 1.0, 10.0) for k in (2, 5) if low <= t * k <= high)})
    room = max(1.2, (high / low) ** (LABEL / 3))  # half a label, which would be cut nearer to the ends
    ticks = [tick for tick in ticks if room * low <= tick <= high / room]
    axes.set_xticks(ticks, [_tick(value) for value in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", length=0, labelcolor=_MUTED)
    for value in ticks:
        axes.axvline(value, color=_LINE, linewidth=0.8, zorder=0)


def _tick(value: float) -> str:
    return f"{value / 1000:g} ms" if value >= 1000 else f"{value:g} µs"


def _engine(axes: Axes, place: float, row: EngineRow, left: float) -> None:
    axes.axhline(place, color=_LINE, linewidth=0.8, zorder=1)
    name = engine_name(row.engine)
    axes.text(left, place + 0.76, name, color=_INK, weight="bold", ha="left", va="center", parse_math=False)
    _shape(axes, place, row.tight, _TIGHT, 1)
    _shape(axes, place, row.paced, _PACED, -1)


def _device(axes: Axes, place: float, model: Model, row: EngineRow, left: float) -> None:
    """One engine on one device: its name above, the tight loop's range and the paced one's below."""
    name = f"{engine_name(row.engine)}, {device_of(model)}"
    state = "" if row.paced.quantiles.p50 else " (no times)"
    state = state or (" (slowed down)" if slowed(model) else "")
    axes.text(left, place + 0.34, name + state, color=_INK, ha="left", va="center", parse_math=False)
    for part, colour, height in ((row.tight, _TIGHT, 0.04), (row.paced, _PACED, -0.24)):
        middle, far = part.quantiles.p50, part.quantiles.p99
        if middle is None or far is None:
            continue
        axes.plot([middle, far], [place + height] * 2, color=colour, linewidth=1.6, zorder=3)
        axes.plot([middle], [place + height], color=colour, marker="o", markersize=4, zorder=4)
        said = axes.text(middle / 1.15, place + height, micros(middle), color=colour, ha="right", va="center", zorder=4)
        said.set_parse_math(False)


def _shape(axes: Axes, place: float, part: Distribution, colour: str, side: int) -> None:
    """A histogram upwards or downwards from the line, as high as the others, with its median and p99."""
    top = max(part.counts)
    edges = [edge(part.first + i) for i in range(len(part.counts) + 1)]
    heights = [place + side * 0.36 * number / top for number in part.counts]
    axes.stairs(heights, edges, baseline=place, fill=True, color=colour, alpha=0.5, zorder=2)
    for value, where, apart in ((part.quantiles.p50, "right", 1.02), (part.quantiles.p99, "left", 1 / 1.02)):
        if value is None:
            continue
        axes.plot([value, value], [place, place + side * 0.42], color=colour, linewidth=1.2, zorder=3)
        text = axes.text(
            value * apart, place + side * 0.53, micros(value), color=colour, ha=where, va="center", zorder=4
        )
        text.set_parse_math(False)


def inline(svg: str, name: str) -> str:
    """A figure's SVG as a page's element: no prolog, metadata or style sheet, ids of its own, the page's colours."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', element)
    element = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", element)
    element = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', element)
    element = re.sub(r'<svg\b[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', element, count=1)
    element = re.sub(r"font-family: [^;\"]*;? ?", "", element)
    element = re.sub(r"font: (?:(bold|\d+) )?([\d.]+px) [^;\"]*", _font, element)  # as matplotlib 3.8 writes it
    for colour, variable in _VARIABLES.items():
        element = element.replace(colour, f"var({variable})")
    return element.strip()


def _font(found: re.Match[str]) -> str:
    return f"font-weight: {found[1] or 'normal'}; font-size: {found[2]}"
