"""Devices beside each other: every engine of every model on each of them, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from edgeseq.devices.report.circumstances import fastest
from edgeseq.devices.report.document import EngineRow, Model, Report
from edgeseq.devices.report.kinship import grouped
from edgeseq.devices.report.numbers import NONE, engine_name, joined, micros, precision_name
from edgeseq.devices.report.table import Table, numbers, text
from edgeseq.devices.report.views import device_of, devices, on_device, rows_of
from edgeseq.devices.report.words import slowed

SLOWED, FASTEST = "slowed down", "fastest"


def across(report: Report) -> Table:
    """One row for each device, model and engine; a device's own fastest is marked, none is compared with another's.

    Empty where there is one device. Microseconds; what was not measured on a device has no row, and an emulated one no
    times.
    """
    places = devices(report) if len(devices(report)) > 1 else []
    rows = [row for place in places for row in _rows(report, place)]
    return Table(
        "Devices",
        (
            *text("device", "model", "precision", "engine", "marks"),
            *numbers("p50", "p99", group="tight, µs"),
            *numbers("p50", "p99", group="paced, µs"),
        ),
        tuple(rows),
        _notes(report) if rows else (),
    ).without_empty("marks")


def _rows(report: Report, device: str) -> Iterator[tuple[str, ...]]:
    measured = on_device(report, device)
    pairs, (_, best) = list(rows_of(measured)), fastest(measured.models) or (None, None)
    for model, row in pairs:
        marks = [FASTEST] if row is best and len(pairs) > 1 else []
        marks += [SLOWED] if slowed(model) else []
        yield f"{device} ({model.provenance})", *_cells(model, row, ", ".join(marks) or NONE)


def _cells(model: Model, row: EngineRow, marks: str) -> tuple[str, ...]:
    tight, paced = row.tight.quantiles, row.paced.quantiles
    return (
        model.name,
        precision_name(model.precision, model.lineage),
        engine_name(row.engine),
        marks,
        *map(micros, (tight.p50, tight.p99, paced.p50, paced.p99)),
    )


def _notes(report: Report) -> tuple[str, ...]:
    notes = ["Fastest: at the sensor's rate, of what the same device measured. No device is compared with another."]
    rates = {model.rate for model in report.models}
    if len(rates) > 1:
        said = (f"{model.name} on {device_of(model)} at {model.rate:g} Hz" for model in report.models)
        notes.append(f"Paced at different rates: {', '.join(said)}.")
    for group in grouped(filter(slowed, report.models), lambda model: (device_of(model), slowed(model))):
        names = joined(model.name for model in group)
        notes.append(f"{device_of(group[0])} slowed itself down while it measured {names}: {slowed(group[0])}.")
    if any(not model.timed for model in report.models):
        notes.append("An emulated device has no times: its clock is that of another machine.")
    return tuple(notes)
