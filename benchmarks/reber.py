"""The thesis "Investigating Sparsity in Recurrent Neural Networks" repeated beside its numbers, resumable.

    python benchmarks/reber.py                         # runs what is missing, then prints the tables
    python benchmarks/reber.py --cells gru --parts base weights --budget 30m
    python benchmarks/reber.py --table                 # prints the tables only

Strings are told apart that are Reber's and that are not (reber_strings.py). For each cell (tanh, relu, lstm, gru):

    base      three layers of 50 behind an embedding of 50, for 50 epochs
    weights   10 to 90 % of the recurrent layers' weights set to 0, and one epoch of training after that
    units     10 to 90 % of the parameters taken out with whole units, and the same
    graph     20 random graphs of each of two kinds that wire a layer of 10 to 50 units, for 15 epochs
    speed     the time of a step: dense, and with as many zeros or as few units as give the same accuracy

One row a run in ``benchmarks/results/reber.json``, with the accuracy on 6,250 test strings. Whatever is chosen (the
epoch whose weights are kept, the shares that are timed) is chosen on a tenth of the training strings. Trained models
are kept in ``--work``, from which a run goes on. Each run is one process of one thread, those that are timed one after
the other: nothing else should run on the machine then. What is missing is said at the end; the exit code is 1 if
anything failed, and 0 if there was no time for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from processes import Missing, count, each_done, seconds
from reber_runs import Setup, Task, run
from reber_table import (
    CELLS,
    GRAPHS,
    NUMBER,
    RESULTS,
    SHARES,
    Row,
    base_table,
    correlation_table,
    graph_table,
    ladder_table,
    largest_share,
    merged,
    read,
    speed_table,
    write,
)

PARTS = ("base", "weights", "units", "graph", "speed")
OF_BASE = ("weights", "units", "speed")  # what starts from a cell's trained model
GUESS = {"base": 600.0, "weights": 40.0, "units": 50.0, "graph": 90.0, "speed": 120.0}  # seconds


def planned(parsed: argparse.Namespace, setup: Setup) -> list[Task]:
    """All runs that are asked for, in the order in which they are begun; those of "speed" without their shares."""
    whats = {
        "base": [""],
        "weights": list(map(str, SHARES)),
        "units": list(map(str, SHARES)),
        "graph": [f"{kind} {number}" for number in range(parsed.graphs) for kind in GRAPHS],
        "speed": [""],
    }
    return [
        Task(part, cell, what, seed, setup, parsed.work)
        for part in PARTS
        if part in parsed.parts
        for what in whats[part]
        for seed in range(parsed.seeds)
        for cell in parsed.cells
    ]


def expected(rows: Sequence[Row], task: Task) -> float:
    """Seconds that a run may take: those of the longest of its kind that is there."""
    alike = [row.seconds for row in rows if (row.part, row.cell, row.recipe) == (task.part, task.cell, task.recipe)]
    return max(alike, default=GUESS[task.part])


def ready(task: Task, rows: Sequence[Row]) -> Task | Missing[Task]:
    """The task as it can be run now, or what it waits for."""
    if task.part in OF_BASE and not task.base.is_file():
        return Missing(task, "its trained model is not there: run the part base", failed=False)
    if task.part != "speed":
        return task
    zeros, units = (largest_share(rows, part, task.cell, task.seed) for part in ("weights", "units"))
    if zeros is None or units is None:
        return Missing(task, "which shares to time is not known yet: run the parts weights and units", failed=False)
    return Task(task.part, task.cell, task.what, task.seed, task.setup, task.work, (zeros, units))


def run_missing(
    tasks: Sequence[Task], rows: list[Row], parsed: argparse.Namespace
) -> tuple[list[Row], list[Missing[Task]]]:
    """Run those of ``tasks`` that have no row, and write each row as it comes; the rows, and what there is nothing of.

    A base's model that is not kept any more is trained again, if something starts from it.
    """
    found, left, end = list(rows), [], time.monotonic() + parsed.budget
    done = {row.key for row in rows}
    missing = [task for task in tasks if task.key not in done]
    needed = {task.base for task in missing if task.part in OF_BASE}
    missing += [task for task in tasks if task.part == "base" and task.key in done and lost(task, needed)]
    for together in (("base",), ("weights", "units", "graph"), ("speed",)):
        waiting = [ready(task, found) for task in missing if task.part in together]
        left += [task for task in waiting if isinstance(task, Missing)]
        jobs = 1 if "speed" in together else parsed.jobs
        runs = [task for task in waiting if isinstance(task, Task)]
        limits = {"jobs": jobs, "budget": end - time.monotonic()}
        for row in each_done(run, runs, expected=lambda task: expected(found, task), **limits):
            if isinstance(row, Missing):
                left.append(row)
                continue
            found[:] = merged(found, row)
            write(found, parsed.out)
            say(row)
    return found, left


def lost(task: Task, needed: set[Path]) -> bool:
    return task.base in needed and not task.base.is_file()


def say(row: Row) -> None:
    named = " ".join(filter(None, (row.part, row.cell, row.what, f"seed {row.seed}")))
    scores = ", ".join(f"{name} {100 * numbers['test']:.2f} %" for name, numbers in row.models.items())
    print(f"{named}: {scores}, {row.seconds:.0f} s", file=sys.stderr, flush=True)


def tables(rows: Sequence[Row]) -> str:
    made = {
        "base": base_table(rows),
        "weights": ladder_table(rows, "weights"),
        "units": ladder_table(rows, "units"),
        "speed": speed_table(rows),
        "graphs": "\n\n".join(filter(None, (graph_table(rows), correlation_table(rows)))),
    }
    return "\n\n".join(f"{name}\n\n{table}" for name, table in made.items() if table)


def arguments() -> argparse.Namespace:
    setup = Setup()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="(default: all)")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    add("--seeds", type=count, default=1, help="of strings and weights, from seed 0 on (default: %(default)s)")
    add("--graphs", type=count, default=NUMBER, help="of each kind and cell (default: %(default)s)")
    add("--epochs", type=count, default=setup.epochs, help="of a base (default: %(default)s)")
    add("--batch", type=count, default=setup.batch, help="strings at a time (default: %(default)s)")
    add("--graph-epochs", type=count, default=setup.graph_epochs, help="of a graph (default: %(default)s)")
    add("--graph-batch", type=count, default=setup.graph_batch, help="of a graph (default: %(default)s)")
    add("--scale", type=float, default=setup.scale, help="share of the strings, for a trial (default: %(default)s)")
    add("--jobs", type=count, default=os.cpu_count() or 1, help="runs at a time, of one thread (default: %(default)s)")
    add("--budget", type=seconds, default=seconds("6h"), help="90s, 30m, 2h; a number alone is hours (default: 6h)")
    add("--work", type=Path, default=Path(__file__).parents[1] / "runs" / "reber", help="(default: runs/reber)")
    add("--out", type=Path, default=RESULTS, help="file of the rows (default: benchmarks/results/reber.json)")
    add("--table", action="store_true", help="print the tables of what is there, run nothing")
    parsed = parser.parse_args()
    if not 0.01 <= parsed.scale <= 1:
        parser.error(f"--scale {parsed.scale:g}: from 0.01 to 1 is needed")
    return parsed


def main() -> int:
    """Run what is missing and print the tables; 1 if something that was asked for failed."""
    parsed = arguments()
    rows, left = read(parsed.out), list[Missing[Task]]()
    if not parsed.table:
        parsed.work.mkdir(parents=True, exist_ok=True)
        training = {"epochs": parsed.epochs, "batch": parsed.batch, "scale": parsed.scale}
        setup = Setup(**training, graph_epochs=parsed.graph_epochs, graph_batch=parsed.graph_batch)
        rows, left = run_missing(planned(parsed, setup), rows, parsed)
    print(tables(rows))
    print(*left, sep="\n", end="\n" if left else "", file=sys.stderr, flush=True)
    return int(any(each.failed for each in left))


if __name__ == "__main__":
    sys.exit(main())
