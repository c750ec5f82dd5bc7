"""The benchmark of accuracies: rows of one recipe are never mixed with another's, gaps are said, a budget is kept."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, load, write_npz
from edgeseq.errors import InputError
from edgeseq.folder import open_folder
from edgeseq.models.registry import presets

ROOM = Path(__file__).parents[2] / "benchmarks"
SHORT = {"rounds": 1, "steps": 2, "batch": 4, "crop": 3.0}


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark, with threads in the place of processes."""
    names = ("accuracy", "accuracy_table", "processes")
    sys.path.insert(0, str(ROOM))
    module = importlib.import_module("accuracy")
    sys.path.remove(str(ROOM))
    module.processes = sys.modules["processes"]
    module.processes.ProcessPoolExecutor = ThreadPoolExecutor
    yield module
    for name in names:
        del sys.modules[name]


def task(benchmark, model="gru", fold=0, recipe="r", **changes):
    return benchmark.Task("data.npz", "data", model, fold, 0, recipe, **changes)


def row(benchmark, model="gru", fold=0, seconds=10.0, recipe="r", **changes):
    test = {"test": ["a"], "accuracy": 0.5, "macro_f1": 0.5, "smoothed_accuracy": 0.6, "smoothed_macro_f1": 0.6}
    rest = {"validation_macro_f1": 0.5, "parameters": 9, "machine": "m", "versions": {}, "recipe": recipe}
    kind = {"data": "data", "model": model, "fold": fold, "seed": 0, "seconds": seconds}
    return benchmark.Row(**{**kind, **test, **rest, **changes})


def wanted(benchmark, model="gru", folds=(0,), seeds=1, recipe="r"):
    return benchmark.Wanted(model, folds, seeds, recipe)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five people who stand still and walk, a minute or so in all, as a file."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([0, 1, 0, 1], np.int16), 60)  # of 3 s each
    recordings = tuple(
        Recording(rng.normal(y[:, None], 1.0, (len(y), 2)).astype(np.float32), y, str(subject), str(subject))
        for subject in range(5)
    )
    path = tmp_path_factory.mktemp("walks") / "walks.npz"
    write_npz(Dataset("walks", recordings, ("ax", "ay"), ("V", "V"), 20.0, ("rest", "walk")), path)
    return path


def real(benchmark, source, keep, seed=0, **changes):
    dataset, changes = load(source), {**SHORT, **changes}
    made = benchmark.recipe(dataset, "gru", changes)
    return benchmark.Task(str(source), dataset.name, "gru", 0, seed, made, changes, keep)


def test_the_committed_rows_are_those_of_the_recipes_of_today(benchmark):
    rows = benchmark.read(benchmark.RESULTS)
    data = load("spar_watch")
    for model in ("lmu", "gru", "forest"):
        own = [r for r in rows if (r.data, r.model, r.recipe) == (data.name, model, benchmark.recipe(data, model))]
        assert {(r.fold, r.seed) for r in own} == {(fold, seed) for fold in range(5) for seed in range(3)}


def test_what_is_changed_of_the_training_changes_the_recipe(benchmark):
    data = load("spar_watch")
    assert benchmark.recipe(data, "gru", {"rounds": 11}) != benchmark.recipe(data, "gru")
    assert benchmark.recipe(data, "gru", {"rounds": 10}) == benchmark.recipe(data, "gru")


def test_where_a_model_is_trained_is_no_part_of_the_recipe(benchmark):
    data = load("spar_watch")
    assert benchmark.recipe(data, "gru", {"device": "auto"}) == benchmark.recipe(data, "gru")


def test_only_models_and_data_sets_that_there_are_are_planned(benchmark):
    from edgeseq.data import datasets

    assert set(benchmark.PLANS) <= {facts.name for facts in datasets()}
    for plan in benchmark.PLANS.values():
        assert set(plan.models) <= {*presets(), "forest"}
        assert set(plan.changes) <= set(plan.models)


def test_rows_are_written_as_they_were_read(benchmark, tmp_path):
    benchmark.write(benchmark.read(benchmark.RESULTS), tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(benchmark.RESULTS.read_text())


def test_a_row_of_segments_has_nothing_smoothed_and_stands_in_the_table(benchmark, tmp_path):
    made = row(benchmark, smoothed_accuracy=None, smoothed_macro_f1=None, task="segment")
    benchmark.write([made], tmp_path / "rows.json")
    assert benchmark.read(tmp_path / "rows.json") == [made]
    assert benchmark.table([made], "data", [wanted(benchmark)]).splitlines()[-1] == (
        "| gru | 9 | 1 × 1 | 50.0 | 50.0 |  | 50 |"
    )


def test_what_is_not_there_yet_is_said_in_the_table(benchmark):
    rows = [row(benchmark), row(benchmark, fold=1), row(benchmark, fold=2, recipe="older")]
    folds = (0, 1, 2, 3, 4)
    lines = [wanted(benchmark, "gru", folds), wanted(benchmark, "lmu", folds, 3)]
    shown = benchmark.table(rows, "data", lines).splitlines()
    assert shown[-2] == "| gru | 9 | 2 of 5 folds | 50.0 ± 0.0 | 50.0 ± 0.0 | 60.0 ± 0.0 | 50 50 |"
    assert shown[-1] == "| lmu |  | 0 of 15 runs |  |  |  |  |"


def test_of_an_official_split_the_deviation_is_that_of_the_seeds(benchmark):
    rows = [row(benchmark, fold=-1, seed=seed, accuracy=0.5 + seed / 10) for seed in range(3)]
    shown = benchmark.table(rows, "data", [wanted(benchmark, folds=(-1,), seeds=3)]).splitlines()[-1]
    assert shown.startswith("| gru | 9 | official × 3 | 60.0 ± 10.0 |")


def test_events_are_shown_before_and_after_the_rule_was_tuned(benchmark):
    events = {"before": {"delay_median": 1.0, "missed": 0.5}, "after": {"delay_median": 2.0, "missed": 0.25}}
    lines = [wanted(benchmark), wanted(benchmark, "lmu")]
    shown = benchmark.event_table([row(benchmark, events=events), row(benchmark, "lmu")], "data", lines)
    assert len(shown.splitlines()) == 3  # a row without scores has no line
    assert "| 1.00 / 2.00 | none / none | 50.0 / 25.0 |" in shown
    assert benchmark.event_table([row(benchmark)], "data", lines) == ""


def test_a_kept_folder_is_taken_and_scored_in_the_place_of_training(benchmark, source, tmp_path):
    first = benchmark.run(real(benchmark, source, tmp_path))
    folder = tmp_path / "walks-gru-fold0-seed0"
    before = open_folder(folder).hash
    again = benchmark.run(real(benchmark, source, tmp_path))
    assert open_folder(folder).hash == before
    assert first.seconds > 0 == again.seconds
    assert (again.accuracy, again.events, again.test) == (first.accuracy, first.events, first.test)
    assert first.events.keys() == {"before", "after"}
    assert first.events["before"]["accuracy_decided"] > 0


def test_a_kept_folder_of_another_run_is_refused(benchmark, source, tmp_path):
    benchmark.run(real(benchmark, source, tmp_path))
    folder = tmp_path / "walks-gru-fold0-seed0"
    with pytest.raises(InputError, match="is of another run, with settings"):
        benchmark.run(real(benchmark, source, tmp_path, steps=3))
    with pytest.raises(InputError, match="is of another run, with arguments"):
        benchmark.run(real(benchmark, source, tmp_path, **{"model.hidden": 5}))
    folder.rename(tmp_path / "walks-gru-fold0-seed1")
    with pytest.raises(InputError, match="is of another run, with seed 0, not 1"):
        benchmark.run(real(benchmark, source, tmp_path, seed=1))


def test_old_rows_get_event_scores_where_their_folder_was_kept_and_keep_their_seconds(benchmark, source, tmp_path):
    made = real(benchmark, source, tmp_path / "kept")
    with benchmark.folder_of(made):
        pass
    old = row(benchmark, seconds=77.0, recipe=made.recipe, data="walks")
    parsed = SimpleNamespace(jobs=1, budget=100.0, out=tmp_path / "rows.json")
    (new,) = benchmark.run_missing([made], [old], parsed)
    assert new.events
    assert new.seconds == 77.0
    assert benchmark.read(parsed.out) == [new]
    assert not benchmark.lacks_events(new, made)
    assert not benchmark.lacks_events(old, real(benchmark, source, tmp_path / "empty"))


def test_a_run_that_fails_is_named_and_the_others_go_on(benchmark, capsys):
    def run(task):
        if task.fold == 0:
            raise InputError("no such subject")
        return row(benchmark, fold=task.fold)

    tasks = [task(benchmark, fold=fold) for fold in (0, 1)]
    assert [r.fold for r in benchmark.each_done(run, tasks, jobs=1, budget=60.0)] == [1]
    assert "missing: data gru 0 0 r (no such subject)" in capsys.readouterr().err


def test_no_run_is_started_that_would_end_after_the_budget(benchmark):
    waiting = [task(benchmark), task(benchmark, fold=1), task(benchmark, model="lmu")]
    rows = [row(benchmark, fold=3, seconds=20.0), row(benchmark, fold=4, seconds=30.0)]
    following = benchmark.processes.next_task

    def expected(task):
        return benchmark.longest(rows, task)

    assert following(waiting, expected, 31.0) == waiting[0]
    assert following(waiting, expected, 29.0) == waiting[2]
    assert following(waiting, expected, -1.0) is None
    rows[:] = [row(benchmark, seconds=99.0, recipe="older")]
    assert following(waiting, expected, 29.0) == waiting[0]


@pytest.mark.parametrize(("text", "found"), [("2h", 7200), ("90m", 5400), ("30s", 30), ("1.5", 5400)])
def test_a_budget_is_a_time(benchmark, text, found):
    assert benchmark.seconds(text) == found


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "soon", "infh"])
def test_what_is_no_time_is_refused(benchmark, text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time such as"):
        benchmark.seconds(text)
