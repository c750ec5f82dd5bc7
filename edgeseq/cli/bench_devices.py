"""``edgeseq bench --device``: the same measurement on boards, side by side, and what it shows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.progress import Progress, SpinnerColumn, TextColumn

from edgeseq.cli.bench import bench_folders, bench_rows, hold, shared, show_bench, show_machine, show_said
from edgeseq.cli.output import Clock, Document, Failed, Show, typed
from edgeseq.devices.bench import write_report
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.remote.boards import Boards
from edgeseq.devices.remote.inventory import Device, find_device
from edgeseq.devices.remote.remote_bench import Asked, Benched
from edgeseq.devices.remote.target import LOCAL
from edgeseq.devices.remote.verbs import one_error
from edgeseq.errors import EdgeseqError, InputError, unknown
from edgeseq.folder import GOLDEN_NAME, Folder

if TYPE_CHECKING:
    from edgeseq.devices.bench import BenchReport
    from edgeseq.devices.budget import Budget
    from edgeseq.devices.conditions import Conditions


def find_devices(names: Sequence[str], python: str | None, wheelhouse: Path | None) -> dict[str, Device]:
    """The devices by what the user calls them, with the interpreter and the wheelhouse that were given for all.

    Raises:
        InputError: one that is not known, or two that are the same machine.
    """
    given = {"python": python, "wheelhouse": str(wheelhouse.absolute()) if wheelhouse else None}
    changes = {name: value for name, value in given.items() if value is not None}
    found: dict[str, Device] = {}
    for name in dict.fromkeys(names):
        device = find_device(name)
        for other, known in found.items():
            if known.target == device.target:
                raise InputError(f"{other} and {name} are the same device ({device.url}): name it once")
        found[name] = msgspec.structs.replace(device, **changes)
    return found


def bench_devices(
    show: Show,
    folders: Sequence[Folder],
    devices: Mapping[str, Device],
    asked: Asked,
    *,
    conditions: Conditions,
    budget: Budget,
    out: Path | None,
    accept_new: bool,
) -> Document:
    """Measure on all devices, show and write what they found, and return it.

    Raises:
        Failed: a device failed, after the others' reports were written; ``out`` could not be written; or a budget was
            missed. Carries the document.
    """
    clock = Clock()
    _check(folders, devices, asked, out)
    kept = _Kept(out, tuple(devices))
    found: dict[str, Benched] = {}
    document: Document = {}
    through = False
    try:
        _measure(show, folders, devices, asked, conditions, accept_new, found, kept)
        through = True
    finally:  # an interruption, or a bug that one board meets, does not lose what the others have worked for
        found = {name: found[name] for name in devices if name in found}
        reports = [report for benched in found.values() for _, report in benched.reports]
        unwritten = kept.write(found)
        if found:
            document = _show(show, devices, found)
        if unwritten is None and out is not None and kept.reports:
            show.wrote(out, out.stat().st_size, clock)
            document["report"] = str(out)
        if unwritten is not None and not through:  # what ended it comes ahead
            show.warn(str(unwritten))
    if unwritten is not None:
        raise Failed(unwritten, document)
    _finish(show, found, reports, budget, document)
    following: tuple[str | Path, ...] = ("inspect", folders[0].path)
    if out is not None:
        following = ("report", *(folder.path for folder in folders), "--bench", out, "--out", "report")
    show.next(*following)
    return {**document, "next": typed(*following)}


@dataclass
class _Kept:
    """The file ``out`` with the reports by device, in that order; boards write into it from threads of their own."""

    out: Path | None
    order: tuple[str, ...]
    reports: dict[str, Sequence[BenchReport]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, name: str, reports: Sequence[BenchReport]) -> None:
        """Write the file with a device's reports.

        Raises:
            InputError: it cannot be written.
        """
        with self._lock:
            self.reports[name] = reports
            self._write()

    def write(self, found: Mapping[str, Benched]) -> InputError | None:
        """Write the file with all that was found, and what was kept before; the error where it cannot be written."""
        with self._lock:
            named = {name: [report for _, report in benched.reports] for name, benched in found.items()}
            self.reports |= {name: reports for name, reports in named.items() if reports}
            try:
                self._write()
            except InputError as error:
                return error
        return None

    def _write(self) -> None:
        reports = [report for name in self.order for report in self.reports.get(name, ())]
        if self.out is not None and reports:
            write_report(self.out, {"reports": reports})


def _check_out(out: Path) -> None:
    """Refuse a file that could not be written, before hours are spent on what is to be in it."""
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: {out.parent} is not a folder: make it, or name another file")
    if out.is_dir():
        raise InputError(f"{out} cannot be written: it is a folder: name a file")
    place = out.parent if out.is_file() or not out.exists() else out
    if not os.access(place, os.W_OK):
        raise InputError(f"{out} cannot be written: {place} may not be written to: name another file")


def _check(folders: Sequence[Folder], devices: Mapping[str, Device], asked: Asked, out: Path | None) -> None:
    """Refuse what no board could measure, before minutes are spent on finding out."""
    for engine in asked.engines:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
    for folder in folders:
        folder.file(GOLDEN_NAME)
    if out is not None:
        _check_out(out)
    if asked.duration is not None:
        from edgeseq.devices.budget import parse_duration
        from edgeseq.devices.endless import check_long

        parse_duration(asked.duration, "--duration")
        check_long(folders, asked.engines, out)
        if LOCAL in devices:
            raise InputError(f"--duration on {LOCAL} is a command of its own: leave it out here, or the others there")


def _measure(
    show: Show,
    folders: Sequence[Folder],
    devices: Mapping[str, Device],
    asked: Asked,
    conditions: Conditions,
    accept_new: bool,
    found: dict[str, Benched],
    kept: _Kept,
) -> None:
    """Boards side by side; this machine after them, so that sending and waiting is not among its numbers.

    ``found`` gets what each has come to, also those that were through before an exception; ``kept`` what must be
    written before it leaves a board.
    """
    boards = {name: device for name, device in devices.items() if name != LOCAL}
    with _steps(show, boards) as say:
        Boards(boards, folders, asked, accept_new, say, kept.keep, found).bench()
    if LOCAL not in devices:
        return
    try:
        reports = bench_folders(
            show,
            folders,
            asked.engines,
            seconds=asked.seconds,
            paced_seconds=asked.paced_seconds,
            rate=asked.rate,
            conditions=conditions,
            wait=True,
        )
    except EdgeseqError as error:
        found[LOCAL] = Benched([], [], error)
    else:
        named = [msgspec.structs.replace(report, device=LOCAL) for report in reports]
        found[LOCAL] = Benched(list(zip(folders, named, strict=True)), [])


@contextmanager
def _steps(show: Show, names: Mapping[str, object]) -> Iterator[Callable[[str, str], object]]:
    """Where each device's step is shown: in a line of its own that changes, or, on no terminal, a line for each."""
    if not show.notes.is_terminal:
        yield lambda name, step: show.note(f"{name}: {step}")
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[step]}", markup=False),
    )
    with Progress(*columns, console=show.notes, transient=True) as progress:
        lines = {name: progress.add_task(name, total=None, step="") for name in names}
        yield lambda name, step: progress.update(lines[name], step=step)


def _show(show: Show, devices: Mapping[str, Device], found: Mapping[str, Benched]) -> Document:
    """Show each device's numbers, and all of them in one table; the document of both."""
    pairs = [pair for benched in found.values() for pair in benched.reports]
    rows = bench_rows(show, [folder for folder, _ in pairs], [report for _, report in pairs])
    documents: Document = {}
    for name, benched in found.items():
        show.line(name, "bold")
        own = [row for row in rows if row["device"] == name]
        documents[name] = {"url": devices[name].url, **_show_device(show, benched, own)}
        show.line()
    if len(devices) > 1:
        show.table(
            ["device", "model", "engine", ">paced\np50", ">\np99", ">late", ">MB"], _compared(found, devices, rows)
        )
    if any(row["accuracy_source"] == "measured" for row in rows) and {row["device"] for row in rows} - {LOCAL}:
        show.text("Accuracies were measured in this machine's engines; the files were checked on each board.")
    return {"devices": documents, "rows": rows}


def _show_device(show: Show, benched: Benched, rows: Sequence[Document]) -> Document:
    """Show what one device has come to; its document."""
    document: Document = {}
    if benched.reports:
        reports = [report for _, report in benched.reports]
        show_machine(show, reports[0])
        show_bench(show, rows)
        show_said(show, reports)
        for note in benched.notes:
            show.text(note)
        document = {**shared(reports[0]), "notes": benched.notes}
    error = benched.failed
    if error is not None:
        show.line(f"FAILED: {error}", "red")
        document["error"] = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    return document


def _compared(found: Mapping[str, Benched], devices: Iterable[str], rows: Sequence[Document]) -> Iterator[list[str]]:
    """The paced numbers of all devices, in microseconds, and the memory."""
    for name in devices:
        own = [row for row in rows if row["device"] == name]
        if name not in found:
            yield [name, "not measured", *["-"] * 5]
        elif found[name].failed is not None:
            yield [name, "FAILED", *["-"] * 5]
        for row in own:
            paced, late, memory = row["paced_us"], row["deadline_misses"], row["peak_rss_bytes"]
            times = ["-" if paced[key] is None else f"{paced[key]:.0f}" for key in ("p50", "p99")]
            rest = ["-" if late is None else f"{late}", "-" if memory is None else f"{memory / 1e6:.1f}"]
            yield [name, row["name"], row["engine"], *times, *rest]


def _finish(
    show: Show, found: Mapping[str, Benched], reports: Sequence[BenchReport], budget: Budget, document: Document
) -> None:
    """Raise what ends the command: a device's failure ahead of a missed budget, which is then said."""
    failed = {name: benched.failed for name, benched in found.items() if benched.failed is not None}
    try:
        hold(reports, budget, document)
    except Failed as missed:
        if not failed:
            raise
        show.warn(str(missed.error))
    if not failed:
        return
    errors = list(failed.values())
    if len(found) == 1:
        raise Failed(errors[0], document)
    said = f"{len(failed)} of {len(found)} devices failed: {', '.join(failed)}"
    raise Failed(one_error(errors, said), document)
