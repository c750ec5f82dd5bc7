"""Devices beside each other: every engine of every model on each of them, as a table."""

from __future__ import annotations

from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.numbers import NONE, engine_name, micros, precision_name
from edgeseq.devices.report.table import Table, numbers, text
from edgeseq.devices.report.views import device_of, devices, rows_of
from edgeseq.devices.report.words import slowed

SLOWED = "slowed down"


def across(report: Report) -> Table:
    """One row for each model, engine and device, those of one model in one engine next to each other.

    Empty where there is one device. Microseconds; what was not measured on a device has no row, and an emulated one no
    times.
    """
    places = devices(report)
    hashes = list(dict.fromkeys(model.folder_hash for model in report.models))
    engines = list(dict.fromkeys(row.engine for _, row in rows_of(report)))

    def order(pair: tuple[Model, EngineRow]) -> tuple[int, int, int]:
        model, row = pair
        return hashes.index(model.folder_hash), engines.index(row.engine), places.index(device_of(model))

    pairs = sorted(rows_of(report), key=order) if len(places) > 1 else []
    return Table(
        "Devices",
        (
            *text("model", "precision", "engine", "device", "marks"),
            *numbers("p50", "p99", group="tight, µs"),
            *numbers("p50", "p99", group="paced, µs"),
            *numbers("late"),
            *text("provenance"),
        ),
        tuple(_row(model, row) for model, row in pairs),
        _notes(report) if pairs else (),
    ).without_empty("marks")


def _row(model: Model, row: EngineRow) -> tuple[str, ...]:
    tight, paced = row.tight.quantiles, row.paced.quantiles
    return (
        model.name,
        precision_name(model.precision, model.lineage),
        engine_name(row.engine),
        device_of(model),
        SLOWED if slowed(model) else NONE,
        *map(micros, (tight.p50, tight.p99, paced.p50, paced.p99)),
        NONE if row.deadline_misses is None else f"{row.deadline_misses:,} of {row.paced_frames:,}",
        model.provenance,
    )


def _notes(report: Report) -> tuple[str, ...]:
    notes = []
    rates = {model.rate for model in report.models}
    if len(rates) > 1:
        said = (f"{model.name} on {device_of(model)} at {model.rate:g} Hz" for model in report.models)
        notes.append(f"Paced at different rates: {', '.join(said)}.")
    for model in report.models:
        if why := slowed(model):
            notes.append(f"{device_of(model)} slowed itself down while it measured {model.name}: {why}.")
    if any(not model.timed for model in report.models):
        notes.append("An emulated device has no times: its clock is that of another machine.")
    return tuple(notes)
