"""What the numbers say, in sentences. Each speaks of what is in the report, and is absent where that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeseq.devices.bench import Latency
from edgeseq.devices.facts import HOST
from edgeseq.devices.report.circumstances import fastest, timed_rows
from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.kinship import (
    accuracy_difference,
    float_of,
    grouped,
    plain_of,
    shared_rows,
    taught_in_torch,
    teacher_hashes,
    teacher_of,
    test_key,
)
from edgeseq.devices.report.numbers import (
    engine_name,
    joined,
    machine_name,
    micros,
    more_accurate,
    people,
    percent,
    plural,
    precision_name,
    times,
)
from edgeseq.devices.report.views import by_folder, device_of, devices, on_device
from edgeseq.metrics import Scores

ACCURACY = "test_accuracy"  # the metric that training leaves


def verdicts(report: Report) -> list[str]:
    """The sentences at the top, what matters most first."""
    whole = by_folder(report)
    said = [sentence for group in grouped(whole.models, test_key) for sentence in _right(whole, group)]
    for model in whole.models:
        said += [*_quantized(report, whole, model), *_distilled(report, whole, model)]
    said += _unsettled(whole)
    machines = grouped(report.models, device_of)
    for group in machines:
        said += _in_time(group, several=len(machines) > 1)
    said.append(_proven(whole.models))
    said += [_where(group) for group in machines]
    if len(machines) > 1:
        said.append("These are different machines: what is said to be faster is so on one machine, never between two.")
    return said


def title(report: Report) -> str:
    """The models' names, and those of the devices where there are several."""
    names, places = joined(model.name for model in by_folder(report).models), devices(report)
    return names if len(places) == 1 else f"{names} on {joined(places)}"


def slowed(model: Model) -> str | None:
    """Why a measurement counts as that of a machine that slowed itself down; None where nothing speaks for it."""
    if model.throttled or any(facts.throttle for facts in (model.facts, model.facts_at_end)):
        return model.throttled
    bits = {facts.throttled or "" for facts in (model.facts, model.facts_at_end)}  # all that an older bench has
    some = sorted(text for text in bits if text.lower().removeprefix("0x").strip("0"))
    return f"throttle bits {joined(some)}" if some else None


def scored_row(model: Model) -> EngineRow | None:
    """The first engine in which the accuracy was measured, on any frame at all."""
    return next((row for row in model.engines if row.scores and row.scores.frames), None)


def majority(scores: Scores) -> tuple[float, float]:
    """Accuracy and macro-F1 of always answering the label that is the most common among the counted frames."""
    labelled = [sum(row) for row in scores.confusion]
    share = max(labelled) / sum(labelled)
    return share, 2 * share / (1 + share) / sum(number > 0 for number in labelled)


def _right(report: Report, group: Sequence[Model]) -> Iterator[str]:
    rows = [(model, row.scores) for model in group if (row := scored_row(model)) and row.scores]
    rows.sort(key=lambda pair: -pair[1].accuracy)
    if rows:
        first = rows[0][1]
        shares = [f"{model.name} is right in {percent(scores.accuracy)} %" for model, scores in rows[:1]]
        shares += [f"{model.name} in {percent(scores.accuracy)} %" for model, scores in rows[1:]]
        baselines = [baseline for baseline in report.baselines if rows[0][0].name in baseline.models]
        shares += [f"a {b.name} in {percent(b.plain.accuracy)} %" for b in baselines if b.plain]
        whose = people(rows[0][0].people)
        yield (
            f"Of {plural(first.frames, rows[0][0].task)} of {whose} never seen in training, {', '.join(shares)}; "
            f"always naming the most common label would be right in {percent(majority(first)[0])} %."
        )
    for model in group:
        if scored_row(model) is None:
            trained = model.metrics.get(ACCURACY)
            found = "" if trained is None else f"; at training, torch found {percent(trained)} %"
            why = model.unscored or "no engine was asked"
            yield f"The accuracy of {model.name} was not measured here: {why}{found}."


def _quantized(report: Report, whole: Report, model: Model) -> Iterator[str]:
    source = float_of(whole, model)
    if source is not None:
        yield from _compared(report, model, precision_name(model.precision, model.lineage), source, "fp32")


def _distilled(report: Report, whole: Report, model: Model) -> Iterator[str]:
    """How a student compares with its teacher, and with the same family untaught, on the people tested."""
    teacher = teacher_of(whole, model)
    if teacher is not None:
        yield from _compared(report, model, "the distilled student", teacher, "its teacher")
    taught = taught_in_torch(whole, model)
    difference = _points(model.metrics.get(ACCURACY), taught)
    if difference is not None and (teacher is None or accuracy_difference(model, teacher) is None):
        number = len(teacher_hashes(model))
        who = "its teacher, which was" if number == 1 else f"the mean of its {number} teachers, which was"
        right = f"right in {percent(taught)} %, both as measured in torch"
        yield f"The distilled {model.name} is {_than(difference)} {who} {right}."
    for plain in plain_of(whole, model):
        yield from _untaught(model, plain)


def _unsettled(report: Report) -> Iterator[str]:
    """What students beside untaught models do not show, once for each number of people tested."""
    students = (model for model in report.models for plain in plain_of(report, model) if any(_untaught(model, plain)))
    for number in dict.fromkeys(len(model.split.get("test", ())) for model in students):
        tested = {1: "One person", 2: "One pair of people"}.get(number, f"One group of {people(number)}")
        yield f"{tested} does not settle whether a teacher helps: with others, or another seed, it may be otherwise."


def _untaught(model: Model, plain: Model) -> Iterator[str]:
    difference, where = accuracy_difference(model, plain), ""
    if difference is None:
        difference = _points(model.metrics.get(ACCURACY), plain.metrics.get(ACCURACY))
        where = ", both as measured in torch"
    if difference is None:
        return
    what = "the same model trained without a teacher"
    if plain.arguments != model.arguments:
        of = f"of {plain.parameters:,} parameters and not {model.parameters:,}"
        what = f"a model of its family with other settings, {of}, trained without a teacher"
    tested = people(len(model.split.get("test", ())))
    yield f"On the {tested} tested, the distilled {model.name} is {_than(difference)} {plain.name}, {what}{where}."


def _points(share: float | None, other: float | None) -> float | None:
    return None if share is None or other is None else 100 * (share - other)


def _than(difference: float) -> str:
    how = more_accurate(difference)
    return f"{how} {'as' if how == 'as accurate' else 'than'}"


def _compared(report: Report, model: Model, kind: str, other: Model, other_kind: str) -> Iterator[str]:
    """How a model compares with another in size, time and accuracy, in the first engine that ran both.

    Where there are several devices, each has a sentence about time of its own.
    """
    parts: list[str] = []
    pair = next(shared_rows(model, other), None)
    if pair is not None:
        parts.append(f"is {times(pair[1].file_bytes, pair[0].file_bytes, 'smaller', 'larger', 'as large')}")
    speeds = list(_speeds(report, model, other))
    if len(devices(report)) == 1:
        parts += [f"in {engine} it is {speed}" for _, engine, speed in speeds]
    difference = accuracy_difference(model, other)
    if difference is not None:
        parts.append(f"{'it ' if parts else ''}is {more_accurate(difference)}")
    if parts:
        yield f"Compared with {other_kind} ({other.name}), {kind} ({model.name}) {'; '.join(parts)}."
    if len(devices(report)) > 1:
        for device, engine, speed in speeds:
            yield f"On {device}, compared with {other.name}, {model.name} in {engine} is {speed}."


def _speeds(report: Report, model: Model, other: Model) -> Iterator[tuple[str, str, str]]:
    """Each device that measured both, with the first engine that ran both there, and how they compare in it."""
    for device in devices(report):
        there = {each.folder_hash: each for each in on_device(report, device).models}
        own, theirs = there.get(model.folder_hash), there.get(other.folder_hash)
        pair = next(timed_rows(own, theirs), None) if own and theirs else None
        if pair is not None:
            yield device, engine_name(pair[0].engine), _speed(*pair)


def _speed(row: EngineRow, theirs: EngineRow) -> str:
    """Tight loops by their medians; runs at the sensor's rate only where they can be told apart: they vary widely."""
    paced = _faster(theirs.paced.quantiles.p50, row.paced.quantiles.p50)
    tight = _faster(theirs.tight.quantiles.p50, row.tight.quantiles.p50)
    if _overlap(row.paced.quantiles, theirs.paced.quantiles):
        return f"{tight} in a tight loop, and at the sensor's rate the two cannot be told apart here"
    if paced == tight:
        return f"{paced}, at the sensor's rate and in a tight loop"
    return f"{paced} at the sensor's rate and {tight} in a tight loop"


def _overlap(one: Latency, other: Latency) -> bool:
    """Whether the slower median is one that the faster often reaches, in more than a tenth of its steps."""
    if one.p50 is None or other.p50 is None:
        return False
    fast, slow = sorted((one, other), key=lambda quantiles: quantiles.p50 or 0.0)
    return (fast.p90 or 0.0) >= (slow.p50 or 0.0)


def _faster(before: float | None, after: float | None) -> str:
    return times(before, after, "faster", "slower", "as fast") if before and after else "not timed"


def _in_time(group: Sequence[Model], *, several: bool = False) -> Iterator[str]:
    first = fastest(group)
    if first is None:
        return
    model, row = first
    quantiles = row.paced.quantiles
    where = f" on {device_of(model)}" if several else ""
    yield (
        f"Fastest at the sensor's rate{where} is {model.name} in {engine_name(row.engine)}: {micros(quantiles.p50)} µs "
        f"a step at the median and {micros(quantiles.p99)} µs at p99, of the {1e6 / model.rate:,.0f} µs between two "
        f"frames at {model.rate:g} Hz."
    )
    timed = [(m, r) for m in group if m.timed for r in m.engines if r.paced.quantiles.p50]
    late = [(m, r) for m, r in timed if r.deadline_misses]
    if not late:
        yield f"No answer was late{where}, of {plural(sum(r.paced_frames for _, r in timed), 'paced frame')}."
        return
    m, r = max(late, key=lambda pair: (pair[1].deadline_misses or 0) / pair[1].paced_frames)
    yield (
        f"{sum(r.deadline_misses or 0 for _, r in late):,} of {sum(r.paced_frames for _, r in timed):,} paced answers"
        f"{where} came after the next frame was due{', most often' if len(late) > 1 else ':'} {m.name} in "
        f"{engine_name(r.engine)} ({r.deadline_misses:,} of {r.paced_frames:,})."
    )


def _proven(models: Sequence[Model]) -> str:
    failed = [(model.name, link.name) for model in models for link in model.proof if not link.passed]
    unproven = [model.name for model in models if not model.proof]
    if failed:
        where = joined(f"{link} of {name}" for name, link in failed)
        return f"The proof fails: {where}. What would run is not what was trained."
    if unproven:
        return f"There is no proof in {joined(unproven)}: nothing says that it computes what was trained."
    links = sum(len(model.proof) for model in models)
    held = "the one link of the proof holds" if links == 1 else f"all {links:,} links of the proof hold"
    return f"What runs is what was trained: {held}."


def _where(group: Sequence[Model]) -> str:
    facts, first = group[0].facts, group[0]
    name = machine_name(facts)
    if first.device and first.device != name:
        name = f"{first.device} ({name})"
    if not first.timed:
        return f"{name} is emulated: no times are shown, they would be those of no board."
    cores = f", {plural(facts.cores, 'core')}" if facts.cores else ""
    slowed = _throttled(group)
    if first.provenance == HOST:
        return f"Times are those of {name}{cores}: a computer, not a board. They do not carry over to one.{slowed}"
    return f"Times were measured on {name}{cores}.{slowed}"


def _throttled(group: Sequence[Model]) -> str:
    why = list(dict.fromkeys(filter(None, map(slowed, group))))
    return f" It had slowed itself down ({joined(why)}): mend that, and measure again." if why else ""
