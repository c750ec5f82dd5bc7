"""A model trained at one sample rate, on recordings at another: retimed, and as it is.

    python benchmarks/retime.py runs/lmu-* runs/s4d-* --rates 25 --rates 20 [--out benchmarks/results/retime.json]

Folders are of ``edgeseq train``. Accuracy per frame on the test subjects after the first 2 s of each recording, which
are resampled (edgeseq/data/resample.py). Nothing is learned or chosen here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from side_by_side import write_result

from edgeseq.data.resample import resampled
from edgeseq.errors import EdgeseqError
from edgeseq.folder import open_folder
from edgeseq.lineage import trained_on
from edgeseq.models.store import load_model
from edgeseq.training.evaluate import evaluate


def rows_of(path: Path, rates: list[float]) -> list[dict[str, Any]]:
    folder = open_folder(path)
    manifest = folder.manifest
    dataset = trained_on(folder).only(manifest.split["test"])
    stage = manifest.data_stage
    at_home = evaluate(load_model(folder), dataset).accuracy
    rows = []
    for rate in rates:
        there = resampled(dataset, rate)
        as_it_is, model = load_model(folder), load_model(folder)
        model.retime(manifest.input.rate / rate)
        rows.append(
            {
                "model": stage.arguments.get("model") if stage else manifest.family,
                "test": list(manifest.split["test"]),
                "seed": stage.seed if stage else None,
                "trained_at": manifest.input.rate,
                "rate": rate,
                "accuracy": round(at_home, 6),
                "retimed": round(evaluate(model, there).accuracy, 6),
                "as_it_is": round(evaluate(as_it_is, there).accuracy, 6),
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    for model, rate in sorted({(row["model"], row["rate"]) for row in rows}):
        chosen = [row for row in rows if (row["model"], row["rate"]) == (model, rate)]
        names = ("accuracy", "retimed", "as_it_is")
        means = {name: 100 * statistics.mean(row[name] for row in chosen) for name in names}
        print(
            f"{model:10} {len(chosen):3} models: {means['accuracy']:5.1f} % where trained, "
            f"{means['retimed']:5.1f} % at {rate:g} Hz retimed, {means['as_it_is']:5.1f} % as it is",
            file=sys.stderr,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rates", action="append", type=float)
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        rows = [row for path in options.folders for row in rows_of(path, options.rates or [25.0])]
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(rows)
    write_result(options.out, rows=rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
