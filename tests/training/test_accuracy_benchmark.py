"""The benchmark of accuracies: rows of one recipe are never mixed with another's, gaps are said, a budget is kept."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edgeseq.data import Dataset, Recording, load, write_npz
from edgeseq.errors import InputError
from edgeseq.folder import open_folder, seal
from edgeseq.models.registry import presets

ROOM = Path(__file__).parents[2] / "benchmarks"
NAME = "walks-gru-fold0-seed0"
SHORT = {"rounds": 1, "steps": 2, "batch": 4, "crop": 3.0}


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark, with threads in the place of processes."""
    names = ("accuracy", "accuracy_kept", "accuracy_plans", "accuracy_table", "processes")
    sys.path.insert(0, str(ROOM))
    module = importlib.import_module("accuracy")
    sys.path.remove(str(ROOM))
    module.processes, module.plans, module.kept = (sys.modules[name] for name in ("processes", names[2], names[1]))
    module.processes.one_process = lambda: ThreadPoolExecutor(1)
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


def real(benchmark, source, keep, seed=0, fold=0, adopt=False, **changes):
    dataset, changes = load(source), {**SHORT, **changes}
    made = benchmark.recipe(dataset, "gru", changes)
    return benchmark.Task(str(source), dataset.name, "gru", fold, seed, made, changes, keep, adopt=adopt)


@pytest.fixture(scope="module")
def trained(benchmark, source, tmp_path_factory):
    """A folder of kept runs with one in it, and its row."""
    keep = tmp_path_factory.mktemp("kept")
    return keep, benchmark.run(real(benchmark, source, keep))


@pytest.fixture
def kept(trained, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copytree(trained[0], tmp_path / "kept")), trained[1]


def rewritten(keep, change):
    """The manifest of the kept folder with something ``change``d, sealed anew."""
    folder = open_folder(keep / NAME)
    seal(folder.path, change(folder.manifest))


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
        assert set(plan.models) <= {*presets(), "forest", "majority"}
        assert {"forest", "majority"} <= set(plan.models)
        assert set(plan.changes) <= set(plan.models)


def test_rows_are_written_as_they_were_read(benchmark, tmp_path):
    benchmark.write(benchmark.read(benchmark.RESULTS), tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(benchmark.RESULTS.read_text())


def test_a_row_of_segments_has_nothing_smoothed_and_stands_in_the_table(benchmark, tmp_path):
    made = row(benchmark, smoothed_accuracy=None, smoothed_macro_f1=None, task="segment")
    benchmark.write([made], tmp_path / "rows.json")
    assert benchmark.read(tmp_path / "rows.json") == [made]
    assert benchmark.table([made], "data", [wanted(benchmark)]).splitlines()[-1] == (
        "| gru | 9 | 1 × 1 | 50.0 | 50.0 | 50 |"
    )


def test_what_is_not_there_yet_is_said_in_the_table(benchmark):
    rows = [row(benchmark), row(benchmark, fold=1), row(benchmark, fold=2, recipe="older")]
    folds = (0, 1, 2, 3, 4)
    lines = [wanted(benchmark, "gru", folds), wanted(benchmark, "lmu", folds, 3)]
    shown = benchmark.table(rows, "data", lines).splitlines()
    assert shown[2] == "| gru | 9 | 2 of 5 (5 × 1) | 50.0 ± 0.0 | 50.0 ± 0.0 | 60.0 ± 0.0 | 50 50 |"
    assert shown[3:] == ["", "Not run yet: lmu (5 × 3)."]
    assert benchmark.table([], "data", lines) == "Not run yet: gru (5 × 1), lmu (5 × 3)."


def test_of_an_official_split_the_deviation_is_that_of_the_seeds(benchmark):
    rows = [row(benchmark, fold=-1, seed=seed, accuracy=0.5 + seed / 10) for seed in range(3)]
    shown = benchmark.table(rows, "data", [wanted(benchmark, folds=(-1,), seeds=3)]).splitlines()[-1]
    assert shown.startswith("| gru | 9 | 1 × 3 | 60.0 ± 10.0 |")


def test_events_are_shown_before_and_after_the_rule_was_tuned(benchmark):
    events = {"before": {"delay_median": 1.0, "missed": 0.5}, "after": {"delay_median": 2.0, "missed": 0.25}}
    lines = [wanted(benchmark), wanted(benchmark, "lmu")]
    shown = benchmark.event_table([row(benchmark, events=events), row(benchmark, "lmu")], "data", lines)
    assert len(shown.splitlines()) == 3  # a row without scores has no line
    assert "| 1.00 / 2.00 | none / none | 50.0 / 25.0 |" in shown
    assert benchmark.event_table([row(benchmark)], "data", lines) == ""


def test_a_kept_folder_is_taken_in_the_place_of_training_with_what_its_note_says(benchmark, source, kept):
    keep, first = kept
    before = open_folder(keep / NAME).hash
    again = benchmark.run(real(benchmark, source, keep))
    assert open_folder(keep / NAME).hash == before
    assert 0 < again.seconds <= first.seconds
    assert again == msgspec.structs.replace(first, seconds=again.seconds)
    assert first.events.keys() == {"before", "after"}


def test_a_kept_folder_is_scored_again(benchmark, source, kept):
    keep, first = kept
    wrong = dict.fromkeys(open_folder(keep / NAME).manifest.metrics, 0.125)
    rewritten(keep, lambda manifest: msgspec.structs.replace(manifest, metrics=wrong))
    again = benchmark.run(real(benchmark, source, keep))
    names = ("accuracy", "macro_f1", "smoothed_accuracy", "smoothed_macro_f1", "validation_macro_f1")
    assert [getattr(again, name) for name in names] == [getattr(first, name) for name in names]


def test_a_kept_folder_of_another_run_is_refused(benchmark, source, kept, tmp_path):
    keep, _ = kept
    (keep / f"{NAME}.json").unlink()

    def refused(match, **changes):
        with pytest.raises(InputError, match=f"is of another run, with {match}"):
            benchmark.run(real(benchmark, source, keep, adopt=True, **changes))

    refused("settings", steps=3)
    refused("arguments", **{"model.hidden": 5})
    (keep / NAME).rename(keep / "walks-gru-fold0-seed1")
    refused("seed 0, not 1", seed=1)
    (keep / "walks-gru-fold0-seed1").rename(keep / "walks-gru-fold1-seed0")
    refused(r"train subjects \['2', '3', '4'\], not \['0', '3', '4'\]", fold=1)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_kept_folder_of_another_split_is_refused(benchmark, source, kept, part):
    keep, _ = kept
    rewritten(keep, lambda old: msgspec.structs.replace(old, split={**old.split, part: ("9",)}))
    with pytest.raises(InputError, match=f"is of another run, with {part} subjects"):
        benchmark.run(real(benchmark, source, keep))


def test_a_kept_folder_of_other_data_is_refused(benchmark, source, kept, tmp_path):
    keep, _ = kept
    data = load(source)
    louder = tuple(dataclasses.replace(r, x=2 * r.x) for r in data.recordings)
    write_npz(dataclasses.replace(data, recordings=louder), tmp_path / "walks.npz")
    with pytest.raises(InputError, match="is of another run, with data"):
        benchmark.run(real(benchmark, tmp_path / "walks.npz", keep))


def test_a_kept_folder_with_settings_that_there_are_not_is_refused(benchmark, source, kept):
    keep, _ = kept

    def odd(manifest):
        (stage,) = manifest.lineage
        changed = {**stage.arguments, "settings": {**stage.arguments["settings"], "rounds": "many"}}
        return msgspec.structs.replace(manifest, lineage=(msgspec.structs.replace(stage, arguments=changed),))

    rewritten(keep, odd)
    with pytest.raises(InputError, match="its settings are not of today"):
        benchmark.run(real(benchmark, source, keep))


def test_a_kept_folder_of_an_older_revision_is_refused(benchmark, source, kept, monkeypatch):
    monkeypatch.setattr(benchmark.plans, "REVISION", benchmark.plans.REVISION + 1)
    with pytest.raises(InputError, match="is of another recipe"):
        benchmark.run(real(benchmark, source, kept[0]))


def test_a_folder_that_nobody_knows_of_is_taken_only_where_that_is_asked_for(benchmark, source, kept):
    keep, first = kept
    note = keep / f"{NAME}.json"
    note.write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        benchmark.run(real(benchmark, source, keep))
    note.unlink()
    with pytest.raises(InputError, match="take it by --adopt"):
        benchmark.run(real(benchmark, source, keep))
    taken = benchmark.run(real(benchmark, source, keep, adopt=True))
    assert (taken.accuracy, taken.seconds) == (first.accuracy, 0.0)
    assert taken.machine == "a machine that was not noted"


def test_old_rows_get_event_scores_where_their_folder_was_kept_and_keep_their_seconds(
    benchmark, source, kept, tmp_path
):
    keep, _ = kept
    (keep / f"{NAME}.json").unlink()
    made = real(benchmark, source, keep, adopt=True)
    old = row(benchmark, seconds=77.0, recipe=made.recipe, data="walks")
    parsed = SimpleNamespace(jobs=1, budget=100.0, out=tmp_path / "rows.json")
    (new,), left = benchmark.run_missing([made], [old], parsed)
    assert not left
    assert new.events
    assert (new.seconds, new.machine) == (77.0, "m")
    assert benchmark.read(parsed.out) == [new]
    assert not benchmark.lacks_events(new, made)
    assert not benchmark.lacks_events(old, real(benchmark, source, tmp_path / "empty"))


@pytest.mark.parametrize("error", [InputError("no such subject"), ValueError("no such subject")])
def test_a_run_that_fails_is_named_and_the_others_go_on(benchmark, capsys, error):
    def run(task):
        if task.fold == 0:
            raise error
        return row(benchmark, fold=task.fold)

    tasks = [task(benchmark, fold=fold) for fold in (0, 1)]
    failed, done = benchmark.each_done(run, tasks, jobs=1, budget=60.0)
    assert done.fold == 1
    assert failed.failed
    assert failed.task == tasks[0]
    assert str(failed).startswith("missing: data gru 0 0 r (")
    assert "no such subject" in str(failed)
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, ValueError)


DYING = """
import os, sys
sys.path.insert(0, {room!r})
from processes import Missing, each_done

class Task:
    def __init__(self, key):
        self.key = (key,)

def run(task):
    os._exit(9) if task.key == ("dies",) else None
    return task.key[0]

if __name__ == "__main__":
    found = each_done(run, [Task("a"), Task("dies"), Task("b")], jobs=2, budget=60.0)
    print(sorted(str(each.task.key[0]) + " died" if isinstance(each, Missing) else each for each in found))
"""


def test_a_process_that_dies_is_named_and_takes_no_other_run_with_it(tmp_path):
    script = tmp_path / "dying.py"
    script.write_text(DYING.format(room=str(ROOM)))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.strip() == "['a', 'b', 'dies died']"


def test_what_there_is_no_time_for_is_named_and_has_not_failed(benchmark):
    (left,) = benchmark.each_done(lambda task: None, [task(benchmark)], jobs=1, budget=5.0, expected=lambda task: 9.0)
    assert str(left) == "missing: data gru 0 0 r (out of time: it may take 9 s)"
    assert not left.failed


def test_no_run_is_started_that_would_end_after_the_budget(benchmark):
    waiting = [task(benchmark), task(benchmark, fold=1), task(benchmark, model="lmu", recipe="l")]
    rows = [row(benchmark, fold=3, seconds=20.0), row(benchmark, fold=4, seconds=30.0)]
    following = benchmark.processes.next_task

    def expected(task):
        return benchmark.expected(rows, task)

    assert following(waiting, expected, 31.0) == waiting[0]
    assert following(waiting, expected, 29.0) is None
    rows.append(row(benchmark, "lmu", seconds=10.0, recipe="l"))
    assert following(waiting, expected, 29.0) == waiting[2]
    assert following(waiting, expected, -1.0) is None


def test_of_a_run_that_was_never_made_the_time_is_taken_from_those_like_it(benchmark):
    new = task(benchmark)
    others = [row(benchmark, "forest", seconds=500.0), row(benchmark, "lmu", seconds=40.0)]
    assert benchmark.expected([], new) == 60.0
    assert benchmark.expected(others[:1], new) == 60.0
    assert benchmark.expected(others, new) == 80.0
    elsewhere = row(benchmark, seconds=7.0, data="elsewhere")
    assert benchmark.expected([*others, elsewhere], new) == 14.0
    assert benchmark.expected([*others, elsewhere, row(benchmark, seconds=9.0, recipe="older")], new) == 18.0
    assert benchmark.expected([*others, elsewhere, row(benchmark, seconds=3.0)], new) == 3.0
    assert benchmark.expected([row(benchmark, seconds=0.0)], new) == 60.0  # nobody knows


def ended(benchmark, monkeypatch, capsys, *arguments):
    """What the program says and its exit code."""
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, arguments)])
    code = benchmark.main()
    return (*capsys.readouterr(), code)


def test_of_data_that_are_not_here_the_rows_and_the_plan_are_shown(benchmark, monkeypatch, capsys, tmp_path):
    benchmark.write([row(benchmark, "lmu", data="fsdd", task="segment")], tmp_path / "rows.json")
    said = "--data", "fsdd", "--out", tmp_path / "rows.json"
    out, error, code = ended(benchmark, monkeypatch, capsys, *said, "--table")
    assert "| lmu | 9 | 1 of 15 (5 × 3) |" in out
    assert "Not run yet: s4d (5 × 1)" in out
    assert (error, code) == ("", 0)
    _, error, code = ended(benchmark, monkeypatch, capsys, *said)
    assert (error, code) == ("missing: fsdd is not here: --data fsdd=PATH\n", 1)


def test_data_that_nobody_knows_fail(benchmark, monkeypatch, capsys, tmp_path):
    _, error, code = ended(benchmark, monkeypatch, capsys, "--data", "fsddd", "--out", tmp_path / "rows.json")
    assert error.startswith("missing: fsddd: ")
    assert code == 1


def test_a_program_says_what_it_ran_and_fails_with_a_run(benchmark, source, monkeypatch, capsys, tmp_path):
    said = "--data", source, "--models", "majority", "--folds", 0, "--out", tmp_path / "rows.json"
    _, error, code = ended(benchmark, monkeypatch, capsys, *said, "--budget", "1s")
    assert "out of time: it may take 60 s" in error
    assert code == 0
    out, error, code = ended(benchmark, monkeypatch, capsys, *said)
    assert "| majority |  | 1 of 5 (5 × 1) | 60.0 | 37.5 |" in out
    assert code == 0
    monkeypatch.setattr(benchmark, "run_baseline", lambda task: 1 / 0)
    _, error, code = ended(benchmark, monkeypatch, capsys, *said[:-4], "--folds", 1, "--out", tmp_path / "rows.json")
    assert "ZeroDivisionError" in error
    assert code == 1


@pytest.mark.parametrize(("text", "found"), [("2h", 7200), ("90m", 5400), ("30s", 30), ("1.5", 5400)])
def test_a_budget_is_a_time(benchmark, text, found):
    assert benchmark.seconds(text) == found


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "soon", "infh"])
def test_what_is_no_time_is_refused(benchmark, text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time such as"):
        benchmark.seconds(text)
