"""Two reports side by side: what got slower, larger or worse, whether by more than is allowed, and what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from edgeseq.devices.report.circumstances import apart, conditions_apart, incomparable, same_runtime
from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.kinship import data_stage, same_test, shared_rows
from edgeseq.devices.report.numbers import HASH, engine_name, joined, micros, points, precision_name
from edgeseq.devices.report.views import device_of, devices
from edgeseq.devices.report.words import slowed
from edgeseq.errors import InputError

PACED, PACED_TAIL, TIGHT, FILE, ACCURACY = (
    "paced p50, µs",
    "paced p99, µs",
    "tight p50, µs",
    "file, bytes",
    "accuracy, %",
)
TIMES, SIZE = (PACED, PACED_TAIL, TIGHT), (FILE,)
GATED = (PACED, TIGHT, FILE)  # p99 is shown, and too restless to judge by
BESIDE = "edgeseq report FOLDER --bench OLD --bench NEW --out DIR shows them beside each other."


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
    """All that changed.

    ``lost`` says what was there and is not any more: a proof that held, an engine, an accuracy. ``warnings`` say what
    makes the reports hard to compare, ``uncompared`` what could not be compared, and why.
    """

    changes: tuple[Change, ...]
    lost: tuple[str, ...]
    warnings: tuple[str, ...]
    uncompared: tuple[str, ...]

    @property
    def missed(self) -> tuple[Change, ...]:
        """The changes that are over the budget."""
        return tuple(change for change in self.changes if change.missed)

    @property
    def passed(self) -> bool:
        """Whether nothing is over the budget, and nothing lost."""
        return not (self.missed or self.lost)


def compare(old: Report, new: Report, *, budget: float = 10.0, accuracy_budget: float = 1.0) -> Comparison:
    """Compare two reports, model by model and engine by engine.

    ``budget``: the percent by which the median of a step, paced or tight, and a file may grow; ``accuracy_budget``: the
    points by which the accuracy may fall. Models are paired by name; what is left by family and number format, where
    the test is the same. Times of different machines or rates are not compared, and those of different versions of a
    runtime, under different conditions or of a machine that slowed itself down are shown and not judged.

    Of reports of several devices, what one device measured is compared with what it measured before.

    Raises:
        InputError: the reports have no model in common.
    """
    several = max(len(devices(old)), len(devices(new))) > 1
    if several:
        old, new = _placed(old), _placed(new)
    pairs = _pairs(old.models, new.models, device_of if several else None)
    if not pairs:
        sides = [joined(f"{m.name} ({', '.join(_kind(m))})" for m in r.models) for r in (old, new)]
        raise InputError(
            f"there is nothing to compare: the old report is of {sides[0]}, the new one of {sides[1]}; compare reports "
            "of models with the same names, or with the same family, number format and test"
        )
    changes: list[Change] = []
    lost: list[str] = []
    warnings: list[str] = []
    uncompared: list[str] = []
    for before, after in pairs:
        warnings += _differences(before, after)
        lost += _lost(before, after)
        uncompared += _uncompared(before, after)
        for row, later in shared_rows(before, after):
            changes += _changes(before, after, row, later, budget, accuracy_budget)
    paired = {id(model) for pair in pairs for model in pair}
    for models, which in ((old.models, "old"), (new.models, "new")):
        uncompared += [f"{model.name}, only in the {which} report" for model in models if id(model) not in paired]
    return Comparison(tuple(changes), tuple(lost), tuple(dict.fromkeys(warnings)), tuple(uncompared))


def _placed(report: Report) -> Report:
    """The report with each model called by its device too."""
    renamed = (replace(model, name=f"{model.name} on {device_of(model)}") for model in report.models)
    return replace(report, models=tuple(renamed))


def _pairs(
    old: Sequence[Model], new: Sequence[Model], device: Callable[[Model], str] | None
) -> list[tuple[Model, Model]]:
    """The models of one name; of the rest those of one variant and test, and ``device`` if that is given."""
    by_name = {model.name: model for model in new}
    pairs = [(model, by_name[model.name]) for model in old if model.name in by_name]

    def alike(one: Model, other: Model) -> bool:
        apart = device is not None and device(one) != device(other)
        return not apart and _kind(one) == _kind(other) and same_test(one, other)

    rest = [[model for model in models if model.name not in {a.name for a, _ in pairs}] for models in (old, new)]
    for model in rest[0]:
        own, others = ([m for m in ms if alike(m, model)] for ms in rest)
        if len(own) == len(others) == 1:
            pairs.append((model, others[0]))
    return pairs


def _kind(model: Model) -> tuple[str, str]:
    return model.family, precision_name(model.precision, model.lineage)


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
    seen = SIZE if incomparable(before, after) else TIMES + SIZE
    judged = GATED if same_runtime(row, later) and not any(_unlike(before, after)) else SIZE
    for quantity, was, now in values:
        if was and now and quantity in seen:
            growth = 100 * (now / was - 1)
            held = quantity in judged
            yield Change(name, row.engine, quantity, was, now, growth, held, held and growth > budget)
    if row.scores and later.scores and same_test(before, after):
        was, now = 100 * row.scores.accuracy, 100 * later.scores.accuracy
        yield Change(name, row.engine, ACCURACY, was, now, now - was, True, was - now > accuracy_budget)


def _lost(before: Model, after: Model) -> Iterator[str]:
    """What the old report has of a model and the new one has not."""
    failing = {link.name for link in before.proof if not link.passed}
    failed = [link.name for link in after.proof if not link.passed and link.name not in failing]
    if failed:
        yield f"the proof of {after.name} fails: {joined(failed)}"
    if before.proof and not failing and not after.proof:
        yield f"the proof of {after.name}: it held, and there is none now"
    theirs = {row.engine: row for row in after.engines}
    for row in before.engines:
        later = theirs.get(row.engine)
        if later is None:
            yield f"{after.name} in {engine_name(row.engine)}: only the old report has this engine"
        elif row.scores and not later.scores:
            why = f" ({after.unscored})" if after.unscored else ""
            yield f"the accuracy of {after.name} in {engine_name(row.engine)}: only the old report has it{why}"


def _uncompared(before: Model, after: Model) -> Iterator[str]:
    """What of a pair could not be set side by side, but for what is lost."""
    name, shared = after.name, list(shared_rows(before, after))
    known = {row.engine for row in before.engines}
    for row in after.engines:
        if row.engine not in known:
            yield f"{name} in {engine_name(row.engine)}, only in the new report"
    why = incomparable(before, after)
    if shared and why is not None:
        yield f"the times of {name}: {why}"
    if any(row.scores and later.scores for row, later in shared) and not same_test(before, after):
        yield f"the accuracy of {name}, not measured on one test"
    for row, later in shared:
        if later.scores and not row.scores:
            yield f"the accuracy of {name} in {engine_name(row.engine)}, only in the new report"
    if shared and not any(row.scores or later.scores for row, later in shared):
        yield f"the accuracy of {name}, in neither report"
    missing = [link.name for link in before.proof if link.name not in {other.name for other in after.proof}]
    if after.proof and missing:
        yield f"{joined(missing)} in the proof of {name}, only in the old report"
    if not before.proof:
        yield f"the proof of {name}, {'only in the new' if after.proof else 'in neither'} report"


def _differences(before: Model, after: Model) -> Iterator[str]:
    """What makes the numbers of two models those of different circumstances."""
    one, other = before.facts, after.facts
    machines = apart(before, after)
    if machines:
        yield f"DIFFERENT MACHINES: {'; '.join(machines)}. Their times are not compared. {BESIDE}"
    if before.rate != after.rate:
        yield f"DIFFERENT RATES: {before.rate:g} Hz and {after.rate:g} Hz; times are not compared"
    for what, was, now in (
        ("GOVERNORS", one.governor, other.governor),
        ("POWER MODES", one.power_mode, other.power_mode),
    ):
        if was != now:
            yield f"DIFFERENT {what}: {was or 'not known'} and {now or 'not known'}"
    if incomparable(before, after) is None:
        yield from _unlike(before, after)
    names = [name for name in one.versions if name in other.versions and name != "edgeseq"]
    changed = [f"{name} {one.versions[name]} and {other.versions[name]}" for name in names]
    changed = [text for name, text in zip(names, changed, strict=True) if one.versions[name] != other.versions[name]]
    if changed:
        yield f"DIFFERENT VERSIONS: {joined(changed)}; times of another version of a runtime are shown, not judged"
    if not same_test(before, after):
        data = [(stage.data_fingerprint or "")[:HASH] if (stage := data_stage(m)) else "none" for m in (before, after)]
        people = [", ".join(m.split.get("test", ())) or "nobody" for m in (before, after)]
        yield (
            f"DIFFERENT TESTS of {before.name}: data {data[0]} tested on {people[0]}, and data {data[1]} tested on "
            f"{people[1]}; accuracies are not compared"
        )
    if not (before.timed and after.timed):
        yield f"NO TIMES of {before.name}: an emulated device has none"


def _unlike(before: Model, after: Model) -> Iterator[str]:
    """Why times of one machine are not to be judged by: how it was asked to measure, and that it had slowed down."""
    conditions = conditions_apart(before, after)
    if conditions:
        yield f"DIFFERENT CONDITIONS: {'; '.join(conditions)}; times under other conditions are shown, not judged"
    for model, which in ((before, "old"), (after, "new")):
        why = slowed(model)
        if why:
            yield (
                f"THROTTLED: {why}, in the {which} report of {model.name}; times of a machine that slowed itself down "
                "are shown, not judged"
            )


def findings(comparison: Comparison) -> list[str]:
    """What is lost or got worse, in sentences, over the budget first; and what could not be compared."""
    said = [f"Lost: {what}." for what in comparison.lost]
    said += [f"Over the budget: {_said(change)}." for change in comparison.missed]
    worse = [change for change in comparison.changes if change.worse and not change.missed and _visible(change)]
    said += [f"Within it: {_said(change)}." for change in worse if change.judged]
    said += [f"Not judged: {_said(change)}." for change in worse if not change.judged]
    if not said:
        said.append(_nothing(comparison))
    return [*said, *(f"Not compared: {what}." for what in comparison.uncompared)]


def _nothing(comparison: Comparison) -> str:
    """That nothing got worse, of what there was to see."""
    seen = {change.quantity for change in comparison.changes}
    ways = [way for way, kind in (("slower", TIMES), ("larger", SIZE), ("worse", (ACCURACY,))) if seen & {*kind}]
    what = "that was compared " if comparison.uncompared else ""
    return f"Nothing {what}got {joined(ways).replace(' and ', ' or ')}."


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
