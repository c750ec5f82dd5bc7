"""A report of several devices, seen folder by folder or device by device."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from edgeseq.devices.report.document import EngineRow, Model, Report, untimed
from edgeseq.devices.report.numbers import machine_name


def device_of(model: Model) -> str:
    """The device that a model was measured on: by its name in the report, else that of the machine."""
    return model.device or machine_name(model.facts)


def devices(report: Report) -> list[str]:
    """The devices of a report, in the order in which they come."""
    return list(dict.fromkeys(map(device_of, report.models)))


def placed(report: Report, model: Model) -> str:
    """What a measurement is called: by its model, and by its device too where there are several."""
    return model.name if len(devices(report)) == 1 else f"{model.name} on {device_of(model)}"


def by_folder(report: Report) -> Report:
    """The report with each folder once, as on the first device that measured it.

    Engines that only another device ran come last, for their files and scores: their times are not of this device.
    """
    seen: dict[str, Model] = {}
    for model in report.models:
        first = seen.setdefault(model.folder_hash, model)
        known = {row.engine for row in first.engines}
        further = tuple(untimed(row) for row in model.engines if row.engine not in known)
        seen[model.folder_hash] = replace(first, engines=(*first.engines, *further))
    return replace(report, models=tuple(seen.values()))


def on_device(report: Report, device: str) -> Report:
    """What one device measured."""
    return replace(report, models=tuple(model for model in report.models if device_of(model) == device))


def rows_of(report: Report) -> Iterable[tuple[Model, EngineRow]]:
    """Every engine that was measured with every model, on every device."""
    return ((model, row) for model in report.models for row in model.engines)
