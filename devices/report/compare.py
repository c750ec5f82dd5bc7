"""Two reports side by side: what got slower, larger or worse, and whether by more than is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.kinship import data_stage, same_machine, same_test
from edgeseq.devices.report.numbers import HASH, engine_name, joined, machine_name, micros, points, precision_name

PACED, PACED_TAIL, TIGHT, FILE, ACCURACY = (
    "paced p50, µs",
    "paced p99, µs",
    "tight p50, µs",
    "file, bytes",
    "accuracy, %",
)
SIZE = (FILE,)
GATED = (PACED, TIGHT, FILE)  # p99 is shown, and too restless to judge by


class Change(msgspec.Struct, frozen=True):
    """One quantity of one model in one engine.

    ``change`` is in percent of the old value, or in points for the accuracy. Only what is ``judged`` can be ``missed``,
    which is worse by more than allowed.
    """

    model: str
    engine: str
    quantity: str
    old: float
    new: float
    change: float
    judged: bool
    missed: bool

    @property
    def worse(self) -> bool:
        """Whether it went the wrong way at all."""
        return self.change < 0 if self.quantity == ACCURACY else self.change > 0


class Comparison(msgspec.Struct, frozen=True):
    """All that changed; ``warnings`` say what makes it hard to compare, ``unpaired`` what is in one report only."""

    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    unpaired: tuple[str, ...]

    @property
    def missed(self) -> tuple[Change, ...]:
        """The changes that are over the budget."""
        return tuple(change for change in self.changes if change.missed)


def compare(old: Report, new: Report, *, budget: float = 10.0, accuracy_budget: float = 1.0) -> Comparison:
    """Compare two reports, model by model and engine by engine.

    ``budget``: the percent by which the median of a step, paced or tight, and a file may grow; ``accuracy_budget``: the
    points by which the accuracy may fall. Models are paired by name, what is left by family and number format. Times
    of different machines or rates are shown and not judged.
    """
    pairs = _pairs(old.models, new.models)
    changes: list[Change] = []
    warnings: list[str] = []
    unpaired: list[str] = []
    for before, after in pairs:
        warnings += _differences(before, after)
        theirs = {row.engine: row for row in after.engines}
        for row in before.engines:
            if row.engine in theirs:
                unpaired += _scored_once(before, row, theirs[row.engine])
                changes += _changes(before, after, row, theirs[row.engine], budget, accuracy_budget)
        unpaired += _only(f"{before.name} in ", before.engines, theirs, "old")
        unpaired += _only(f"{after.name} in ", after.engines, {row.engine: row for row in before.engines}, "new")
    paired = {id(model) for pair in pairs for model in pair}
    for models, which in ((old.models, "old"), (new.models, "new")):
        unpaired += [f"{model.name}: only in the {which} report" for model in models if id(model) not in paired]
    return Comparison(tuple(changes), tuple(dict.fromkeys(warnings)), tuple(unpaired))


def _pairs(old: Sequence[Model], new: Sequence[Model]) -> list[tuple[Model, Model]]:
    by_name = {model.name: model for model in new}
    pairs = [(model, by_name[model.name]) for model in old if model.name in by_name]
    rest = [[model for model in models if model.name not in {a.name for a, _ in pairs}] for models in (old, new)]
    for model in rest[0]:
        own, others = ([m for m in models if _variant(m) == _variant(model)] for models in rest)
        if len(own) == len(others) == 1:
            pairs.append((model, others[0]))
    return pairs


def _variant(model: Model) -> tuple[str, str]:
    return model.family, precision_name(model.precision)


def _changes(
    before: Model, after: Model, row: EngineRow, later: EngineRow, budget: float, accuracy_budget: float
) -> Iterator[Change]:
    name = before.name if before.name == after.name else f"{before.name} → {after.name}"
    values = (
        (PACED, row.paced.quantiles.p50, later.paced.quantiles.p50),
        (PACED_TAIL, row.paced.quantiles.p99, later.paced.quantiles.p99),
        (TIGHT, row.tight.quantiles.p50, later.tight.quantiles.p50),
        (FILE, row.file_bytes, later.file_bytes),
    )
    judged = GATED if same_machine(before, after) else SIZE
    for quantity, was, now in values:
        if was and now:
            growth = 100 * (now / was - 1)
            held = quantity in judged
            yield Change(name, row.engine, quantity, was, now, growth, held, held and growth > budget)
    if row.scores and later.scores and same_test(before, after):
        was, now = 100 * row.scores.accuracy, 100 * later.scores.accuracy
        yield Change(name, row.engine, ACCURACY, was, now, now - was, True, was - now > accuracy_budget)


def _scored_once(before: Model, row: EngineRow, later: EngineRow) -> Iterator[str]:
    if bool(row.scores) != bool(later.scores):
        which = "old" if row.scores else "new"
        yield f"{before.name} in {engine_name(row.engine)}: its accuracy is only in the {which} report"


def _only(where: str, rows: Sequence[EngineRow], others: dict[str, EngineRow], which: str) -> Iterator[str]:
    for row in rows:
        if row.engine not in others:
            yield f"{where}{engine_name(row.engine)}: only in the {which} report"


def _differences(before: Model, after: Model) -> Iterator[str]:
    """What makes the numbers of two models those of different circumstances."""
    one, other = before.facts, after.facts
    if (one.model, one.machine, one.cores) != (other.model, other.machine, other.cores):
        yield f"DIFFERENT MACHINES: {machine_name(one)} and {machine_name(other)}; their times are shown, not judged"
    if before.provenance != after.provenance:
        yield f"DIFFERENT PROVENANCE: {before.provenance} and {after.provenance}; times are shown, not judged"
    if one.governor != other.governor:
        yield f"DIFFERENT GOVERNORS: {one.governor or 'not known'} and {other.governor or 'not known'}"
    if before.rate != after.rate:
        yield f"DIFFERENT RATES: {before.rate:g} Hz and {after.rate:g} Hz; times are shown, not judged"
    names = [name for name in one.versions if name in other.versions and name != "edgeseq"]
    changed = [f"{name} {one.versions[name]} and {other.versions[name]}" for name in names]
    changed = [text for name, text in zip(names, changed, strict=True) if one.versions[name] != other.versions[name]]
    if changed:
        yield f"DIFFERENT VERSIONS: {joined(changed)}"
    if not same_test(before, after):
        data = [(stage.data_fingerprint or "")[:HASH] if (stage := data_stage(m)) else "none" for m in (before, after)]
        people = [", ".join(m.split.get("test", ())) or "nobody" for m in (before, after)]
        yield (
            f"DIFFERENT TESTS of {before.name}: data {data[0]} tested on {people[0]}, and data {data[1]} tested on "
            f"{people[1]}; accuracies are not compared"
        )
    if not (before.timed and after.timed):
        yield f"NO TIMES of {before.name}: an emulated board has none"


def findings(comparison: Comparison) -> list[str]:
    """What got worse, in sentences; over the budget first."""
    said = [f"Over the budget: {_said(change)}." for change in comparison.missed]
    worse = [change for change in comparison.changes if change.worse and not change.missed and _visible(change)]
    said += [f"Within it: {_said(change)}." for change in worse if change.judged]
    said += [f"Not judged: {_said(change)}." for change in worse if not change.judged]
    if not comparison.changes:
        said.append("Nothing can be compared: the two reports share no measurement.")
    return said or ["Nothing got slower, larger or worse."]


def _visible(change: Change) -> bool:
    return abs(change.change) >= (0.05 if change.quantity == ACCURACY else 0.5)


def _said(change: Change) -> str:
    where = f"{change.model} in {engine_name(change.engine)}"
    if change.quantity == ACCURACY:
        return f"{where} is {abs(change.change):.1f} points less accurate ({change.old:.1f} to {change.new:.1f} %)"
    name, _, unit = change.quantity.partition(", ")
    old, new = shown(change)
    how = "larger" if change.quantity == FILE else "slower"
    return f"{where}: {name} is {change.change:,.1f} % {how} ({old} to {new} {unit})"


def shown(change: Change) -> tuple[str, str]:
    """The old and the new value for people."""
    if change.quantity == ACCURACY:
        return f"{change.old:.1f}", f"{change.new:.1f}"
    if change.quantity == FILE:
        return f"{change.old:,.0f}", f"{change.new:,.0f}"
    return micros(change.old), micros(change.new)


def difference(change: Change) -> str:
    """How much it changed: percent, or points."""
    text = points(change.change)
    return text if change.quantity == ACCURACY else f"{text} %"
