"""``python -m edgeseq.devices bench``: its options in, reports out, and the tables that people read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edgeseq.devices.bench.measure import bench_side_by_side
from edgeseq.devices.bench.report import BenchReport, write_report
from edgeseq.devices.bench.words import sentences
from edgeseq.devices.budget import parse_budget, parse_duration, require
from edgeseq.devices.conditions import parse_conditions
from edgeseq.devices.endless import bench_long, check_long
from edgeseq.devices.facts import EMULATED
from edgeseq.errors import BudgetMissed, EdgeseqError, Unsupported


def measured(options: argparse.Namespace) -> tuple[list[BenchReport], EdgeseqError | None]:
    """Measure the folders in turns, and write their reports where they are to go.

    With them comes what of the budget was missed, or cannot be judged.

    Raises:
        EdgeseqError: an option cannot be taken, or a folder not be measured.
    """
    budget = parse_budget(options.max_p99, options.max_rss)
    reports = _measured(options)
    if options.out is not None:
        if options.duration is None:
            write_report(options.out, {"reports": reports})
        print(f"wrote {options.out}", file=sys.stderr)
    try:
        require(reports, budget)
    except (BudgetMissed, Unsupported) as error:
        return reports, error
    return reports, None


def _measured(options: argparse.Namespace) -> list[BenchReport]:
    conditions = parse_conditions(options.pin, options.priority, options.threads)
    if options.duration is None:
        return bench_side_by_side(
            options.folders,
            options.engine,
            seconds=options.seconds,
            paced_seconds=options.paced_seconds,
            rate=options.rate,
            conditions=conditions,
        )
    seconds = parse_duration(options.duration, "--duration")
    engine, out = check_long(options.folders, options.engine, options.out)
    report = bench_long(
        options.folders[0],
        out,
        seconds,
        engine,
        rate=options.rate,
        tight_seconds=options.seconds,
        conditions=conditions,
        say=lambda text: print(text, file=sys.stderr),
    )
    return [report]


def print_reports(reports: Sequence[BenchReport]) -> None:
    """For each folder the table of engines, and what there is to say to it. Microseconds."""
    for number, report in enumerate(reports):
        if number:
            print()
        _print(report)


def _print(report: BenchReport) -> None:
    print(
        f"{report.name} on {report.facts.model or report.facts.machine} ({report.provenance}): {report.parameters} "
        f"parameters, {report.macs} MACs a step, state {report.state_bytes} bytes; paced at {report.rate:g} Hz; us"
    )
    print(f"{'engine':16} {'load ms':>8} {'first ms':>8} {'file kB':>8} {'RSS MB':>7}", end=" ")
    print(f"{'tight p50':>9} {'p99':>8} {'paced p50':>9} {'p99':>8} {'max':>8}", end=" ")
    print(f"{'jitter p99':>10} {'missed':>6} {'CPU %':>6}")
    for entry in report.engines:
        fresh, tight, paced = entry.fresh, entry.tight, entry.paced
        print(f"{entry.engine:16} {_cell(fresh.load_ms, 8, 1)} {_cell(fresh.first_call_ms, 8, 2)}", end=" ")
        print(f"{entry.file_bytes / 1e3:8.1f} {_cell(fresh.peak_rss_bytes, 7, 1, 1e-6)}", end=" ")
        print(f"{_cell(tight.p50, 9, 1)} {_cell(tight.p99, 8, 1)}", end=" ")
        print(f"{_cell(paced.call.p50, 9, 1)} {_cell(paced.call.p99, 8, 1)} {_cell(paced.call.max, 8, 1)}", end=" ")
        print(f"{_cell(paced.jitter.p99, 10, 1)} {_cell(paced.deadline_misses, 6, 0)}", end=" ")
        print(_cell(paced.cpu_share, 6, 2, 100))
    for sentence in sentences(report):
        print(sentence)
    if report.provenance == EMULATED:
        print("no times: this machine is emulated, and how long it takes says nothing of any board")


def _cell(value: float | None, width: int, digits: int, factor: float = 1) -> str:
    """A number in its column, or a dash for what could not be measured."""
    return f"{'-':>{width}}" if value is None else f"{factor * value:{width}.{digits}f}"
