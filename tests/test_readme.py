"""The README's numbers are those of the committed result files."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from edgeseq.cli.demo import DISTILLED

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
    rows = [row for row in results("accuracy.json") if row["data"] == "spar_watch"]
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
        assert f"| {shown} | {ratios['student-export']} | {ratios['student-int8-export']} |" in README


def test_what_the_process_takes_and_a_day_of_steps_are_those_of_the_recorded_runs():
    text = " ".join(README.split())
    (process,) = [stream for stream in results("device_process.json")["streams"] if stream["engine"] == "litert"]
    assert f"first answer {process['first_answer_ms']:.0f} ms after the process starts" in text
    assert f"keeps {process['rss_mb']:.1f} MB resident" in text
    days = results("long_run.json")
    assert {(day["precision"], day["steps"]) for day in days} == {("int8", 4_320_000), ("fp32", 4_320_000)}
    assert f"its memory stays within {max(day['growth'] for day in days) / 1e6:.2f} MB" in text
    assert [day["different"] for day in days if day["precision"] == "int8"] == [0]
    (drift,) = [day["drift"] for day in days if day["precision"] == "fp32"]
    assert f"float32 ones torch's to {drift:.1e}" in text
    assert all(day["restored_different"] == 0 for day in days)


def test_the_compression_table_and_the_demos_sentence_are_those_of_the_recorded_runs():
    rows = results("compression.json")

    def accuracies(variant):
        return {(r["fold"], r["seed"]): 100 * r["metrics"]["test_accuracy"] for r in rows if r["variant"] == variant}

    shown = {
        "lmu-distilled": ("lmu distilled from a GRU of 2 × 64", "lmu"),
        "lmu-ptq": ("lmu in int8, calibrated", "lmu"),
        "lmu-qat": ("lmu in int8, trained on", "lmu"),
        "lmu-ptq-state8": ("lmu in int8, calibrated, state in int8", "lmu"),
        "lmu-distilled-qat": ("distilled lmu in int8, trained on", "lmu-distilled"),
        "gru-ptq": ("gru in int8, calibrated", "gru"),
        "gru-qat": ("gru in int8, trained on", "gru"),
        "gru-ptq-state8": ("gru in int8, calibrated, state in int8", "gru"),
    }
    for variant, (label, against) in shown.items():
        ours, theirs = accuracies(variant), accuracies(against)
        points = {key: ours[key] - theirs[key] for key in ours if key in theirs}
        means = [statistics.mean(p for (fold, _), p in points.items() if fold == f) for f in range(5)]
        half = 2.776 * statistics.stdev(means) / 5**0.5  # Student's t, four degrees of freedom
        difference = f"{statistics.mean(means):+.2f} ± {half:.2f}"
        line = next(line for line in README.splitlines() if line.startswith(f"| {label} |"))
        better = f"{sum(p > 0 for p in points.values())} of {len(points)}"
        assert [cell.strip() for cell in line.split("|")[4:6]] == [difference, better]
        if variant == "lmu-distilled":
            assert difference.removeprefix("+") in DISTILLED
        elif "state" not in variant:
            assert statistics.mean(means) > -1.0  # what int8 may cost


def test_what_is_said_of_smaller_models_is_that_of_the_recorded_runs():
    text = " ".join(README.split())
    rows = results("compression.json")

    def macro_f1(variant):
        found = [r for r in rows if r["variant"] == variant and r["seed"] == 0]
        assert sorted(r["fold"] for r in found) == list(range(5))
        return [100 * r["metrics"]["test_macro_f1"] for r in sorted(found, key=lambda r: r["fold"])]

    def points(variant, of):
        return statistics.mean(one - other for one, other in zip(macro_f1(variant), macro_f1(of), strict=True))

    def kilobytes(variant):
        return statistics.mean(r["shipped"] for r in rows if r["variant"] == variant) / 1e3

    presets = {r["variant"].removesuffix("-qat") for r in rows if r["variant"].endswith("-qat")} - {"lmu-distilled"}
    assert len(presets) == 13  # "of the thirteen presets"
    costs = {preset: points(f"{preset}-qat", preset) for preset in presets}
    assert f"costs {-min(costs.values()):.1f} at most" in text
    assert statistics.mean(costs.values()) > -0.05  # "nothing on average"
    assert f"may go for {-min(points(f'{preset}-units50', preset) for preset in presets):.1f} at most" in text
    assert f"of s4d nine of ten for {-points('s4d-units90', 's4d'):.1f};" in text
    lmu, gru = (-points(f"{preset}-units90", preset) for preset in ("lmu", "gru"))
    assert f"of lmu and gru nine of ten cost {lmu:.1f} and {gru:.1f}." in text
    lmu, gru, s4d = (-points(f"{preset}-qd2", preset) for preset in ("lmu", "gru", "s4d"))
    assert f"cost lmu {abs(lmu):.1f}, gru {gru:.1f} and s4d {s4d:.1f}." in text
    assert kilobytes("teacher") > 20 * kilobytes("chain-best")
    best, teacher = (statistics.mean(macro_f1(variant)) for variant in ("chain-best", "teacher"))
    assert f"{kilobytes('chain-best'):.1f} kB, macro-F1 {best:.1f} against {teacher:.1f}" in text
    smallest = -points("chain-smallest", "teacher")
    assert f"ships in {kilobytes('chain-smallest'):.1f} kB and loses {smallest:.1f} on the test subjects" in text


STEPS = {
    "litert": "LiteRT",
    "litert-builtin": "LiteRT, builtin kernels",
    "onnxruntime": "ONNX Runtime",
    "numpy": "numpy",
    "torch-eager": "torch, this model's step",
    "torch-compile": "torch.compile of it",
    "torch-layer": "`nn.GRU`, `nn.LSTM` in torch",
    "torch-layer-onnxruntime": "the same by torch.onnx, ONNX Runtime",
    "torch-layer-onnxruntime-bound": "the same with bound buffers",
    "executorch": "ExecuTorch, XNNPACK",
}


def test_the_table_of_steps_is_that_of_the_recorded_run():
    rows = {(row["contestant"], row["precision"], row["model"]): row for row in results("step_latency.json")}
    lines = [line.strip("| ").split("|") for line in README.splitlines() if line.startswith("|")]
    table = {tuple(cell.strip() for cell in line[:2]): [cell.strip() for cell in line[2:]] for line in lines}
    for contestant, precision in {key[:2] for key in rows}:
        wanted = []
        for model in ("gru", "lstm", "lmu"):
            row = rows.get((contestant, precision, model))
            wanted += [f"{row['tight_ratio']:.2f}", f"{row['paced_ratio']:.2f}"] if row else ["", ""]
        shown = table[STEPS[contestant], precision]
        assert shown + [""] * (6 - len(shown)) == wanted
    base = [rows["litert", "fp32", model] for model in ("gru", "lstm", "lmu")]
    tight, paced = [f"{row['tight_p50']:.1f}" for row in base], [f"{row['paced_p50']:.0f}" for row in base]
    text = " ".join(README.split())
    assert f"takes {tight[0]}, {tight[1]} and {tight[2]} us in a tight loop" in text
    assert f"and {paced[0]}, {paced[1]} and {paced[2]} us at 50 Hz" in text


def test_what_compression_does_to_the_time_of_a_step_is_that_of_the_recorded_run():
    times = {row["variant"]: f"{row['paced_p50']:.0f}" for row in results("compression_times.json")["rows"]}
    text = " ".join(README.split())
    assert f"a step of the teacher takes {times['teacher']} us and one of that chain {times['chain-best']}" in text
    assert f"parameters of gru gone: {times['gru']} to {times['gru-units90']} us" in text
