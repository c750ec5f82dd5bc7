"""The README's numbers are those of the committed result files."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def test_the_demo_table_is_that_of_the_recorded_demo():
    for row in results("demo_har.json")["bench"]:
        tight, paced = row["tight_us"], row["paced_us"]
        accuracy = f"{100 * row['accuracy']:.1f}"
        shown = accuracy if row["accuracy_source"] == "measured" else f"({accuracy})"
        cells = [row["name"].removesuffix("-export"), row["engine"], shown, f"{row['file_bytes'] / 1000:.1f}", "kB"]
        cells += [f"{tight['p50']:.1f}", f"{tight['p99']:.1f}", f"{paced['p50']:.0f}", f"{paced['p99']:.0f}"]
        assert cells in [line.split() for line in README.splitlines()]


def test_the_accuracy_table_is_that_of_the_recorded_runs():
    rows = results("accuracy.json")
    for model in ("lmu", "gru", "forest"):
        cells = []
        for name in ("accuracy", "macro_f1", "smoothed_accuracy"):
            folds = [
                100 * statistics.mean(r[name] for r in rows if (r["model"], r["fold"]) == (model, fold))
                for fold in range(5)
            ]
            cells.append(f"{statistics.mean(folds):.1f} ± {statistics.stdev(folds):.1f}")
        line = next(line for line in README.splitlines() if line.startswith(f"| {model} |"))
        assert [cell.strip(" *") for cell in line.split("|")[3:6]] == cells


def test_the_overhead_table_is_that_of_the_recorded_run():
    for engine, shown in (("litert", "LiteRT"), ("onnxruntime", "ONNX Runtime, bound buffers"), ("numpy", "numpy")):
        ratios = {
            row["folder"]: f"{row['ratio']:.2f}"
            for row in results("step_overhead.json")["rows"]
            if (row["engine"], row["raw"]) == (engine, "public")
        }
        assert f"| {shown} | {ratios['lmu-export']} | {ratios['gru-export']} |" in README
