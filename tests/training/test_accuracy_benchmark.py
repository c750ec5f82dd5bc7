"""The benchmark of accuracies: rows of one recipe are never mixed with another's, and a budget is kept."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from edgeseq.data import load

SOURCE = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("accuracy_benchmark", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy_benchmark"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["accuracy_benchmark"]


def task(benchmark, model="gru", fold=0, recipe="r"):
    return benchmark.Task("data.npz", "data", model, fold, 0, recipe)


def row(benchmark, model="gru", fold=0, seconds=10.0, recipe="r", **changes):
    test = {"test": ["a"], "accuracy": 0.5, "macro_f1": 0.5, "smoothed_accuracy": 0.6, "smoothed_macro_f1": 0.6}
    rest = {"validation_macro_f1": 0.5, "parameters": 9, "machine": "m", "versions": {}, "recipe": recipe}
    kind = {"data": "data", "model": model, "fold": fold, "seed": 0, "seconds": seconds}
    return benchmark.Row(**{**kind, **test, **rest, **changes})


def test_the_committed_rows_are_those_of_the_recipes_of_today(benchmark):
    rows = benchmark.read(benchmark.RESULTS)
    data = load("spar_watch")
    for model in benchmark.MODELS:
        own = [r for r in rows if (r.data, r.model, r.recipe) == (data.name, model, benchmark.recipe(data, model))]
        assert {r.fold for r in own} == set(range(5))


def test_rows_are_written_as_they_were_read(benchmark, tmp_path):
    benchmark.write(benchmark.read(benchmark.RESULTS), tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(benchmark.RESULTS.read_text())


def test_a_row_of_segments_has_nothing_smoothed_and_stands_in_the_table(benchmark, tmp_path):
    made = row(benchmark, smoothed_accuracy=None, smoothed_macro_f1=None, task="segment")
    benchmark.write([made], tmp_path / "rows.json")
    assert benchmark.read(tmp_path / "rows.json") == [made]
    assert benchmark.table([made], "data", {"gru": "r"}).splitlines()[-1] == (
        "| gru | 9 | 1 × 1 | 50.0 ± nan | 50.0 ± nan |  | 50 |"
    )


def test_no_run_is_started_that_would_end_after_the_budget(benchmark):
    waiting = [task(benchmark), task(benchmark, fold=1), task(benchmark, model="lmu")]
    rows = [row(benchmark, fold=3, seconds=20.0), row(benchmark, fold=4, seconds=30.0)]
    assert benchmark.next_task(waiting, rows, 31.0) == waiting[0]
    assert benchmark.next_task(waiting, rows, 29.0) == waiting[2]
    assert benchmark.next_task(waiting, rows, -1.0) is None
    assert benchmark.next_task(waiting, [row(benchmark, seconds=99.0, recipe="older")], 29.0) == waiting[0]


@pytest.mark.parametrize(("text", "found"), [("2h", 7200), ("90m", 5400), ("30s", 30), ("1.5", 5400)])
def test_a_budget_is_a_time(benchmark, text, found):
    assert benchmark.seconds(text) == found


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "soon", "infh"])
def test_what_is_no_time_is_refused(benchmark, text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time such as"):
        benchmark.seconds(text)
