"""``edgeseq bench``: what folders cost, side by side, on this machine and on boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgeseq.cli.output import Clock, Document, Failed, Json, Show, kilobytes, percent, positive, typed
from edgeseq.errors import BudgetMissed, InputError, Unsupported
from edgeseq.folder import Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.devices.bench import BenchReport
    from edgeseq.devices.budget import Budget
    from edgeseq.devices.conditions import Conditions

LOCAL = "local"  # what this machine is called among devices
BOARDS = "Boards"
TIMES = (">tight\np50", ">\np99", ">paced\np50", ">\np99")  # microseconds a step


def bench(
    folders: Annotated[
        list[Path], typer.Argument(help="Model folders that edgeseq export wrote.", metavar="FOLDER...")
    ],
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An engine; may be repeated. All that work, if not given.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Tight loop of each folder, all engines in turn.", callback=positive)
    ] = 2.0,
    paced_seconds: Annotated[
        float, typer.Option(help="At the sensor's rate, for each engine.", callback=positive)
    ] = 10.0,
    rate: Annotated[
        float | None, typer.Option(help="Steps per second, instead of the manifest's.", callback=positive)
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Run one engine at the sensor's rate for so long, as 1h; kept in OUT.part, goes on where it ended.",
        ),
    ] = None,
    pin: Annotated[
        str | None, typer.Option(metavar="CPUS", help="Run on these processors only: 3, 2,3 or 0-3.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="A nice value from -20 to 19, or fifo:1 to fifo:99.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads that an engine may use (1 if not given).")
    ] = None,
    max_p99: Annotated[
        str | None, typer.Option(metavar="TIME", help="Exit with 7 if an engine's paced p99 is longer: 2ms, 500us.")
    ] = None,
    max_rss: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Exit with 7 if an engine's memory is larger: 60MB.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            help="A name from edgeseq devices, ssh://user@host[:port], or local; may be repeated: side by side.",
            rich_help_panel=BOARDS,
        ),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="NAME", help="The interpreter there.", rich_help_panel=BOARDS)
    ] = None,
    wheelhouse: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Wheels to install there, for a board without a network.", rich_help_panel=BOARDS
        ),
    ] = None,
    accept_new_host_key: Annotated[
        bool,
        typer.Option(
            "--accept-new-host-key",
            help="Take and remember a host key that is not known yet.",
            rich_help_panel=BOARDS,
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the reports, with all raw samples, to this file.")] = None,
    json: Json = False,
) -> Document:
    """Measure folders side by side, tight and at the sensor's rate: on this machine, or on boards over ssh.

    A board gets edgeseq, a runtime and the folders once, into a place of their own (edgeseq devices remove --clean).

    Example: edgeseq bench runs/gru-export runs/lmu-export
    """
    from edgeseq.devices.bench import write_report
    from edgeseq.devices.budget import parse_budget
    from edgeseq.devices.conditions import parse_conditions

    show, clock = Show(json), Clock()
    conditions, budget = parse_conditions(pin, priority, threads), parse_budget(max_p99, max_rss)
    opened = [open_folder(path) for path in folders]
    if device and set(device) != {LOCAL}:
        from edgeseq.cli.bench_devices import bench_devices, find_devices
        from edgeseq.devices.remote.remote_bench import Asked

        engines = tuple(dict.fromkeys(engine or ()))
        asked = Asked(engines, seconds, paced_seconds, rate, duration, pin, priority, threads)
        return bench_devices(
            show,
            opened,
            find_devices(device, python, wheelhouse),
            asked,
            conditions=conditions,
            budget=budget,
            out=out,
            accept_new=accept_new_host_key,
        )
    _refuse({"--python": python, "--wheelhouse": wheelhouse, "--accept-new-host-key": accept_new_host_key})
    if duration is not None:
        long_run = _bench_long(show, opened, engine, duration, out, rate=rate, seconds=seconds, conditions=conditions)
        reports = [long_run]
    else:
        reports = bench_folders(
            show, opened, engine, seconds=seconds, paced_seconds=paced_seconds, rate=rate, conditions=conditions
        )
    if device:
        reports = [msgspec.structs.replace(report, device=LOCAL) for report in reports]
    rows = bench_rows(show, opened, reports)
    show_machine(show, reports[0])
    show_bench(show, rows)
    show_said(show, reports)
    document: Document = {**shared(reports[0]), "rows": rows}
    if out is not None:
        if duration is None:
            write_report(out, {"reports": reports})
        show.wrote(out, out.stat().st_size, clock)
        document["report"] = str(out)
    following = ("inspect", folders[0])
    hold(reports, budget, document)
    show.next(*following)
    return {**document, "next": typed(*following)}


def _refuse(options: Mapping[str, object]) -> None:
    """Refuse options, by name, that only a board could be asked for.

    Raises:
        InputError: naming an option that was given.
    """
    for name, value in options.items():
        if value:
            raise InputError(f"{name} is for boards, and none is named: --device NAME, or --device ssh://user@host")


def shared(report: BenchReport) -> Document:
    """What the reports of one measurement have in common."""
    names = ("provenance", "conditions", "throttled", "resumed")
    return {"machine": report.facts, **{name: getattr(report, name) for name in names}}


def hold(reports: Sequence[BenchReport], budget: Budget, document: Document) -> None:
    """Hold the reports to a budget, after all has been written and shown.

    Raises:
        Failed: with BudgetMissed, or with Unsupported where a value could not be measured; it carries the document.
    """
    from edgeseq.devices.budget import require

    try:
        require(reports, budget)
    except (BudgetMissed, Unsupported) as error:
        raise Failed(error, document) from None


def _bench_long(
    show: Show,
    folders: Sequence[Folder],
    engines: Sequence[str] | None,
    duration: str,
    out: Path | None,
    *,
    rate: float | None,
    seconds: float,
    conditions: Conditions,
) -> BenchReport:
    from edgeseq.devices.budget import parse_duration
    from edgeseq.devices.endless import bench_long, check_long

    wanted = parse_duration(duration, "--duration")
    engine, out = check_long(folders, engines, out)
    show.note(f"measuring {folders[0].path} for {duration}; it may be interrupted, and goes on with the same command")
    return bench_long(
        folders[0], out, wanted, engine, rate=rate, tight_seconds=seconds, conditions=conditions, say=show.note
    )


def bench_folders(
    show: Show,
    folders: Sequence[Folder],
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
    rate: float | None = None,
    conditions: Conditions | None = None,
    wait: bool = False,
) -> list[BenchReport]:
    """Measure the folders in turns. Nothing moves on the screen meanwhile: it would cost what is measured.

    ``wait`` for another measurement on this machine to end, which is an error otherwise.
    """
    from edgeseq.devices.bench import bench_side_by_side
    from edgeseq.devices.conditions import AS_FOUND
    from edgeseq.devices.engines import candidates

    engines = list(dict.fromkeys(engines)) if engines else None
    # By the files alone: to open an engine takes processor time from whoever measures here, which is not known yet.
    count = sum(len(engines or candidates(folder)) for folder in folders)
    expected = seconds * len(folders) + count * (paced_seconds + 1)
    named = ", ".join(str(folder.path) for folder in folders)
    show.note(f"measuring {named}: about {expected:.0f} s")
    return bench_side_by_side(
        folders,
        engines,
        seconds=seconds,
        paced_seconds=paced_seconds,
        rate=rate,
        conditions=conditions or AS_FOUND,
        wait=wait,
    )


def bench_rows(show: Show, folders: Sequence[Folder], reports: Sequence[BenchReport]) -> list[Document]:
    """One row for each folder and engine: what the table shows, without the raw samples."""
    from edgeseq.cli.accuracy import accuracies

    engines: dict[Path, dict[str, None]] = {}  # a folder that several devices measured is scored once
    for folder, report in zip(folders, reports, strict=True):
        engines.setdefault(folder.path, {}).update(dict.fromkeys(entry.engine for entry in report.engines))
    found = {folder.path: folder for folder in folders}
    right = {path: accuracies(show, found[path], list(names)) for path, names in engines.items()}
    return [
        {
            "device": report.device,
            "name": report.name,
            "family": report.family,
            "engine": entry.engine,
            "file": entry.file,
            "file_bytes": entry.file_bytes,
            **right[folder.path][entry.engine],
            "rate": report.rate,
            "tight_us": msgspec.to_builtins(entry.tight),
            "paced_us": msgspec.to_builtins(entry.paced.call),
            "response_us": msgspec.to_builtins(entry.paced.response),
            "jitter_us": msgspec.to_builtins(entry.paced.jitter),
            "paced_frames": entry.paced.frames,
            "deadline_misses": entry.paced.deadline_misses,
            "cpu_share": entry.paced.cpu_share,
            "load_ms": entry.fresh.load_ms,
            "first_call_ms": entry.fresh.first_call_ms,
            "peak_rss_bytes": entry.fresh.peak_rss_bytes,
        }
        for folder, report in zip(folders, reports, strict=True)
        for entry in report.engines
    ]


def show_machine(show: Show, report: BenchReport) -> None:
    """What the numbers were measured on."""
    facts = report.facts
    known = [facts.model or facts.machine]
    known += [f"{facts.cores} cores"] if facts.cores else []
    known += [f"governor {facts.governor}"] if facts.governor else []
    known += [f"{facts.clock_mhz:.0f} MHz"] if facts.clock_mhz else []
    known += [f"{facts.temperature_c:.0f} °C"] if facts.temperature_c else []
    show.text(f"{', '.join(known)}; {facts.os}, Python {facts.python}")
    host = " (a computer, not a board)" if report.provenance == "host" else ""
    show.text(f"microseconds a step; provenance of the numbers: {report.provenance}{host}")
    show.line()


def show_bench(show: Show, rows: Sequence[Document]) -> None:
    """The table of family and engine, and what it says in sentences. Microseconds."""
    from edgeseq.cli.accuracy import accuracy_cell, accuracy_notes

    show.table(
        ["model", "engine", ">acc.\n%", ">file", *TIMES, ">late", ">CPU\n%"],
        [
            [
                row["name"],
                row["engine"],
                accuracy_cell(row),
                kilobytes(row["file_bytes"]),
                *times(row),
                "-" if row["deadline_misses"] is None else f"{row['deadline_misses']}",
                percent(row["cpu_share"]).removesuffix(" %"),
            ]
            for row in rows
        ],
    )
    for sentence in (*accuracy_notes(rows), *findings(rows)):
        show.text(sentence)


def show_said(show: Show, reports: Sequence[BenchReport]) -> None:
    """What the reports say beside their numbers, each sentence once."""
    from edgeseq.devices.bench.words import sentences

    for sentence in dict.fromkeys(sentence for report in reports for sentence in sentences(report)):
        show.text(sentence)


def times(row: Document) -> list[str]:
    """The cells of the columns ``TIMES``."""
    tight, paced = row["tight_us"], row["paced_us"]
    if tight["p50"] is None:  # an emulated board: its times are not those of any board
        return ["-"] * 4
    return [f"{tight['p50']:.1f}", f"{tight['p99']:.1f}", f"{paced['p50']:.0f}", f"{paced['p99']:.0f}"]


def findings(rows: Sequence[Document]) -> list[str]:
    """What the rows say, in plain sentences."""
    if any(row["paced_us"]["p50"] is None for row in rows):
        return ["This board is emulated: no times are shown, they would be those of no board."]
    best = min(rows, key=lambda row: row["paced_us"]["p50"])
    paced, tight, period = best["paced_us"]["p50"], best["tight_us"]["p50"], 1e6 / best["rate"]
    late = sum(row["deadline_misses"] for row in rows)
    frames = sum(row["paced_frames"] for row in rows)
    said = [
        f"Fastest at the sensor's rate: {best['name']} in {best['engine']}, {paced:.0f} us a step (p50), "
        f"{paced / tight:.1f} times its tight loop; a step may take {period:,.0f} us at {best['rate']:g} Hz.",
    ]
    said.append(
        f"{late} of {frames:,} paced answers came after the next frame."
        if late
        else f"No answer was late, of {frames:,} paced frames."
    )
    return said
