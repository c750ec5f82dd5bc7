"""The tables of a report, for whichever page shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.kinship import (
    accuracy_difference,
    data_stage,
    float_of,
    grouped,
    split_key,
    taught_in_torch,
    teacher_hashes,
    teacher_of,
    teachers,
    test_key,
)
from edgeseq.devices.report.numbers import (
    HASH,
    NONE,
    count,
    engine_name,
    flat,
    joined,
    micros,
    millis,
    percent,
    points,
    precision_name,
    size,
)
from edgeseq.devices.report.numbers import people as number_of_people
from edgeseq.devices.report.table import Column, Table, numbers, text
from edgeseq.devices.report.views import by_folder, device_of, devices, placed, rows_of
from edgeseq.devices.report.words import majority, scored_row

JITTER, ENERGY = "jitter p99, µs", "a step, µJ"
_JITTER_NOTE = "Jitter: from when a step could begin (its frame due, the step before it done) to when it did."


def glance(report: Report) -> Table:
    """One row a model, in its main engine; on several devices one for each."""
    rows, several = [], len(devices(report)) > 1
    for model in report.models:
        row, scored = model.main, scored_row(model)
        tight, paced = row.tight.quantiles, row.paced.quantiles
        proof = NONE if not model.proof else "holds" if all(link.passed for link in model.proof) else "FAILS"
        right = percent(scored.scores.accuracy) if scored and scored.scores else _trained(model, "test_accuracy")
        cells = (right, size(row.file_bytes), micros(tight.p50), micros(paced.p50), micros(paced.p99), proof)
        kind = (
            precision_name(model.precision, model.lineage),
            engine_name(row.engine),
            device_of(model) if several else NONE,
        )
        rows.append((model.name, *kind, *cells))
    return Table(
        "At a glance",
        (
            *text("model", "precision", "engine", "device"),
            *numbers("right, %", "file"),
            *numbers("p50", group="tight, µs"),
            *numbers("p50", "p99", group="paced, µs"),
            Column("proof", number=False),
        ),
        tuple(rows),
    ).without_empty("device")


def people(report: Report) -> Table:
    """Who the models learned from, were chosen on, and were tested on."""
    rows, models = [], by_folder(report).models
    for group in grouped(models, split_key):
        model, stage = group[0], data_stage(group[0])
        names = joined(member.name for member in group) if len(group) < len(models) or len(group) < 3 else "all"
        data = f"{stage.data} {(stage.data_fingerprint or '')[:HASH]}".strip() if stage else "not said"
        rows.append((names, data, *(_who(model.split.get(part, ())) for part in ("train", "validation", "test"))))
    return Table("People", text("model", "data", "trained on", "chosen on", "tested on"), tuple(rows))


def _who(subjects: Sequence[str]) -> str:
    if not subjects:
        return "nobody"
    shown = subjects if len(subjects) <= 12 else (*subjects[:10], "…", subjects[-1])
    return f"{number_of_people(len(subjects))}: {', '.join(shown)}"


def stages(report: Report) -> Table:
    """How each model came about, stage by stage."""
    rows = []
    for model in by_folder(report).models:
        for stage in model.lineage:
            named = joined(f"{entry.get('name', '')} {entry['hash'][:HASH]}".strip() for entry in teachers(stage))
            source = [f"teacher {named}"] if any(teachers(stage)) else []
            source += [stage.data] if stage.data else []
            source += [f"folder {stage.parent[:HASH]}"] if stage.parent else []
            seed = NONE if stage.seed is None else str(stage.seed)
            how = ", ".join(f"{name} {value}" for name, value in _single(stage.arguments))
            version = stage.versions.get("edgeseq", NONE)
            rows.append((model.name, stage.verb, ", ".join(source) or NONE, how or NONE, seed, version))
    return Table("Stages", (*text("model", "stage", "from", "with"), *numbers("seed", "edgeseq")), tuple(rows))


def _single(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a stage's arguments those of one value; the nested ones, as the settings, have a place of their own."""
    return flat({name: value for name, value in arguments.items() if isinstance(value, (str, int, float))})


def accuracy(report: Report) -> Table:
    """What is right, beside the baselines on the same people."""
    report = by_folder(report)
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for group in grouped(report.models, test_key):
        for model in group:
            rows += [_accuracy_row(report, model, row) for row in model.engines]
        rows += [*_teacher_rows(report, group), *_baseline_rows(report, group)]
        notes += _accuracy_notes(report, group)
    rate = f" Measured on {report.scored_on}." if any(scored_row(m) for m in report.models) else ""
    counted = {
        "frame": "the test people's frames, without the first seconds of each recording",
        "segment": "the segments that nothing was learned from or chosen on",
    }
    tasks = dict.fromkeys(model.task for model in report.models)
    notes.insert(0, f"Percent of {', and of '.join(counted[task] for task in tasks)}.{rate}")
    if any(cells[2].startswith("(") or cells[4].startswith("(") for cells in rows):
        notes.append("In brackets: what torch found at training, not measured in the engine.")
    return Table(
        "Accuracy",
        (
            *text("model", "engine"),
            *numbers("accuracy", "macro-F1", "smoothed", group="percent"),
            *numbers("to fp32", "to teacher", group="points"),
        ),
        tuple(rows),
        tuple(notes),
    ).without_empty("smoothed", "to fp32", "to teacher")


def _accuracy_row(report: Report, model: Model, row: EngineRow) -> tuple[str, ...]:
    scores, source, teacher = row.scores, float_of(report, model), teacher_of(report, model)
    measured = (percent(scores.accuracy), percent(scores.macro_f1)) if scores and scores.frames else None
    return (
        model.name,
        engine_name(row.engine),
        *(measured or (_trained(model, "test_accuracy"), _trained(model, "test_macro_f1"))),
        _trained(model, "test_accuracy_smoothed"),
        points(accuracy_difference(model, source, row.engine) if source else None),
        points(accuracy_difference(model, teacher, row.engine) if teacher else None),
    )


def _trained(model: Model, metric: str) -> str:
    return f"({percent(model.metrics[metric])})" if metric in model.metrics else NONE


def _teacher_rows(report: Report, group: Sequence[Model]) -> Iterable[tuple[str, ...]]:
    """Each teacher once, or each ensemble of them; named where there are several."""
    found: dict[frozenset[str], tuple[str, float]] = {}
    for model in group:
        right = taught_in_torch(report, model)
        if right is not None:
            named = joined(dict.fromkeys(str(e.get("name", "")) for stage in model.lineage for e in teachers(stage)))
            found.setdefault(teacher_hashes(model), (named, right))
    for named, right in found.values():
        who = f"teacher {named}" if len(found) > 1 else "teacher"
        yield (f"{who}, as measured in torch", NONE, f"({percent(right)})", NONE, NONE, NONE, NONE)


def _baseline_rows(report: Report, group: Sequence[Model]) -> Iterable[tuple[str, ...]]:
    names = {model.name for model in group}
    for baseline in report.baselines:
        if baseline.plain and names & set(baseline.models):
            calm = percent(baseline.smoothed.accuracy) if baseline.smoothed else NONE
            plain = percent(baseline.plain.accuracy), percent(baseline.plain.macro_f1)
            yield (baseline.name, NONE, *plain, calm, NONE, NONE)
    scored = next((row.scores for model in group if (row := scored_row(model)) and row.scores), None)
    if scored is not None:
        share, f1 = majority(scored)
        yield ("most common label", NONE, percent(share), percent(f1), NONE, NONE, NONE)
        return
    share_then = next((m.metrics["test_majority_share"] for m in group if "test_majority_share" in m.metrics), None)
    if share_then is not None:
        yield ("most common label", NONE, f"({percent(share_then)})", NONE, NONE, NONE, NONE)


def _accuracy_notes(report: Report, group: Sequence[Model]) -> Iterable[str]:
    names = {model.name for model in group}
    for baseline in report.baselines:
        if names & set(baseline.models):
            if baseline.missing:
                yield f"There is no {baseline.name} to compare with: {baseline.missing}."
            elif baseline.plain:
                what = "segments" if group[0].task == "segment" else "frames of the same people"
                yield f"The {baseline.name} answered {count(baseline.plain.frames)} {what}."
    for model in group:
        if model.unscored:
            yield f"{model.name} was not scored here: {model.unscored}."
    rules = {model.decision.smoothing for model in group}
    if any("test_accuracy_smoothed" in model.metrics for model in group) and len(rules) == 1:
        yield f"Smoothed: the answer averaged over {rules.pop():g} s."


def latency(report: Report) -> Table:
    """The quantiles of a step, tight and paced. Microseconds."""
    quantiles = ("p50", "p90", "p99", "max")
    rows = []
    for model, row in rows_of(report):
        parts = (row.tight.quantiles, row.paced.quantiles, row.response.quantiles)
        cells = [micros(getattr(part, name)) for part in parts[:2] for name in quantiles]
        cells += [micros(parts[2].p50), micros(parts[2].p99)]
        rows.append((placed(report, model), engine_name(row.engine), *cells))
    rates = sorted({model.rate for model in report.models})
    paced = f"at {rates[0]:g} Hz, µs" if len(rates) == 1 else "at the sensor's rate, µs"
    notes = ["Response: from the moment a frame was due to its answer, the wake-up from sleep included."]
    if any(not model.timed for model in report.models):
        notes.append("An emulated board has no times: its clock is that of another machine.")
    return Table(
        "Latency",
        (
            *text("model", "engine"),
            *numbers(*quantiles, group="tight loop, µs"),
            *numbers(*quantiles, group=paced),
            *numbers("p50", "p99", group="response, µs"),
        ),
        tuple(rows),
        tuple(notes),
    )


def running(report: Report) -> Table:
    """What running costs beside the step itself."""
    rows = []
    for model, row in rows_of(report):
        late = (
            NONE
            if row.deadline_misses is None or not row.paced_frames
            else f"{row.deadline_misses:,} of {row.paced_frames:,}"
        )
        fresh = (millis(row.load_ms), millis(row.first_call_ms), size(row.peak_rss_bytes))
        cells = (late, micros(row.jitter.p99), percent(row.cpu_share, 2), *fresh, _joules(row), model.provenance)
        rows.append((placed(report, model), engine_name(row.engine), *cells))
    columns = numbers("late", JITTER, "CPU, %", "load, ms", "first call, ms", "peak memory", ENERGY)
    return Table(
        "Running",
        (*text("model", "engine"), *columns, Column("provenance", number=False)),
        tuple(rows),
        (
            "Load, first call and memory are those of a process of its own; CPU is its share of one core while paced.",
            *([_JITTER_NOTE] if _jitter(report) else []),
        ),
    ).without_empty(JITTER, ENERGY)


def _jitter(report: Report) -> bool:
    return any(row.jitter.p99 is not None for _, row in rows_of(report))


def _joules(row: EngineRow) -> str:
    """Energy above idle and its standard error; what is less than two of them is not told from nothing."""
    if row.joules_per_step is None or row.joules_error is None:
        return NONE
    seen, error = 1e6 * row.joules_per_step, 1e6 * row.joules_error
    return f"{seen:,.1f} ± {error:,.1f}" if seen > 2 * error else f"< {2 * error:,.1f}"


def sizes(report: Report) -> Table:
    """Bytes and operations."""
    report = by_folder(report)
    formats = sorted({name for model in report.models for name in model.file_bytes})
    rows = [
        (
            model.name,
            precision_name(model.precision, model.lineage),
            size(model.shipped_bytes),
            *(size(model.file_bytes.get(name)) for name in formats),
            size(model.constant_bytes),
            size(model.state_bytes),
            count(model.parameters),
            count(model.macs),
            count(model.elementwise),
        )
        for model in report.models
    ]
    return Table(
        "Size",
        (
            *text("model", "precision"),
            *numbers("shipped", *formats, "constants", "state", group="bytes"),
            *numbers("parameters"),
            *numbers("MACs", "elementwise", group="a step"),
        ),
        tuple(rows),
    )


def engines(report: Report) -> Table:
    """What each engine says of itself."""
    rows = [(placed(report, model), engine_name(row.engine), row.file, _facts(row)) for model, row in rows_of(report)]
    return Table("Engines", text("model", "engine", "file", "facts"), tuple(rows))


def _facts(row: EngineRow) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.facts.items())


def proof(model: Model) -> Table:
    """Every link from the trained model to the file in its engine."""
    rows = [
        (
            link.name,
            count(link.frames or None),
            *link.shown(),
            NONE if link.agreement is None else f"{percent(link.agreement, 2)} %",
            NONE if link.slope is None else f"{link.slope:+.1e}",
            "ok" if link.passed else "FAILED",
            link.note or NONE,
        )
        for link in model.proof
    ]
    columns = numbers("frames", "error", "allowed", "same answers", "slope per 1,000")
    missing = () if rows else (f"{model.name} holds no proof: export it, or run edgeseq verify.",)
    return Table(model.name, (*text("link"), *columns, *text("holds", "note")), tuple(rows), missing)
