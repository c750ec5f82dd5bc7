"""``edgeseq bench``: what folders cost on this machine, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgeseq.cli.output import Clock, Document, Json, Show, kilobytes, positive, typed
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.devices.bench import BenchReport

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
    out: Annotated[Path | None, typer.Option(help="Write the reports, with all raw samples, to this file.")] = None,
    json: Json = False,
) -> Document:
    """Measure folders side by side, tight and at the sensor's rate.

    Example: edgeseq bench runs/gru-export runs/lmu-export
    """
    show = Show(json)
    clock = Clock()
    opened = [open_folder(path) for path in folders]
    reports = bench_folders(show, opened, engine, seconds=seconds, paced_seconds=paced_seconds)
    rows = bench_rows(show, opened, reports)
    show_machine(show, reports[0])
    show_bench(show, rows)
    document: Document = {"machine": reports[0].facts, "provenance": reports[0].provenance, "rows": rows}
    if out is not None:
        try:
            out.write_bytes(msgspec.json.encode({"reports": reports}) + b"\n")
        except OSError as error:
            raise InputError(f"{out} cannot be written: {error.strerror}") from None
        show.wrote(out, out.stat().st_size, clock)
        document["report"] = str(out)
    following = ("inspect", folders[0])
    show.next(*following)
    return {**document, "next": typed(*following)}


def bench_folders(
    show: Show,
    folders: Sequence[Folder],
    engines: Sequence[str] | None = None,
    *,
    seconds: float = 2.0,
    paced_seconds: float = 10.0,
) -> list[BenchReport]:
    """Measure the folders in turns. Nothing moves on the screen meanwhile: it would cost what is measured."""
    from edgeseq.devices.bench import bench_side_by_side
    from edgeseq.devices.engines import available

    engines = list(dict.fromkeys(engines)) if engines else None
    count = sum(len(engines or available(folder)) for folder in folders)
    wait = seconds * len(folders) + count * (paced_seconds + 1)
    named = ", ".join(str(folder.path) for folder in folders)
    show.note(f"measuring {named}: about {wait:.0f} s")
    return bench_side_by_side(folders, engines, seconds=seconds, paced_seconds=paced_seconds)


def bench_rows(show: Show, folders: Sequence[Folder], reports: Sequence[BenchReport]) -> list[Document]:
    """One row for each folder and engine: what the table shows, without the raw samples."""
    from edgeseq.cli.accuracy import accuracies

    found = [
        accuracies(show, folder, [entry.engine for entry in report.engines])
        for folder, report in zip(folders, reports, strict=True)
    ]
    return [
        {
            "name": report.name,
            "family": report.family,
            "engine": entry.engine,
            "file": entry.file,
            "file_bytes": entry.file_bytes,
            **right[entry.engine],
            "rate": report.rate,
            "tight_us": msgspec.to_builtins(entry.tight),
            "paced_us": msgspec.to_builtins(entry.paced.call),
            "response_us": msgspec.to_builtins(entry.paced.response),
            "paced_frames": entry.paced.frames,
            "deadline_misses": entry.paced.deadline_misses,
            "cpu_share": entry.paced.cpu_share,
            "load_ms": entry.fresh.load_ms,
            "first_call_ms": entry.fresh.first_call_ms,
            "peak_rss_bytes": entry.fresh.peak_rss_bytes,
        }
        for right, report in zip(found, reports, strict=True)
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
                f"{row['deadline_misses']}",
                f"{100 * row['cpu_share']:.1f}",
            ]
            for row in rows
        ],
    )
    for sentence in (*accuracy_notes(rows), *findings(rows)):
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
