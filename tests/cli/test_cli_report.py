"""``edgeseq report``: the three files of folders, and two reports side by side."""

from __future__ import annotations

import re
import shutil

import msgspec
import pytest

from edgeseq.devices.report.document import encode_report, read_report
from edgeseq.devices.report.markdown import markdown
from edgeseq.devices.report.page import page
from edgeseq.folder import open_folder


@pytest.fixture(scope="module")
def benched(edgeseq, exported, tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    done = edgeseq("bench", exported, "--engine", "litert", "--seconds", 0.05, "--paced-seconds", 0.1, "--out", file)
    assert done.code == 0, done.err
    return file


@pytest.fixture(scope="module")
def reported(edgeseq, exported, benched, tmp_path_factory):
    """A report without a baseline, and what the verb printed."""
    out = tmp_path_factory.mktemp("reports") / "deep" / "report"
    done = edgeseq("report", exported, "--out", out, "--bench", benched, "--no-baseline", "--json")
    assert done.code == 0, done.err
    return out, done


def test_the_report_is_three_files_and_one_document(reported, exported):
    out, done = reported
    made = read_report(out / "report.json")
    assert (out / "report.html").read_text() == page(made)
    assert (out / "report.md").read_text() == markdown(made)
    assert done.document["files"] == {file.name: file.stat().st_size for file in out.iterdir()}
    assert done.document["models"] == [{"name": "gru-export", "hash": open_folder(exported).hash}]
    shown = " ".join(done.err.split())
    assert len(done.document["verdicts"]) >= 4
    assert all(sentence in shown for sentence in done.document["verdicts"])


def test_the_scores_are_measured_in_the_engine(reported, exported):
    (model,) = read_report(reported[0] / "report.json").models
    scores, manifest = model.main.scores, open_folder(exported).manifest
    assert scores.accuracy == pytest.approx(manifest.metrics["test_accuracy"], abs=2e-3)
    assert (model.people, len(scores.confusion)) == (len(manifest.split["test"]), len(manifest.labels))
    assert sum(map(sum, scores.confusion)) == scores.frames


def test_what_is_measured_at_once_is_reported_too(edgeseq, exported, tmp_path):
    arguments = ("--out", tmp_path, "--seconds", 0.05, "--paced-seconds", 0.1, "--no-baseline")
    done = edgeseq("report", exported, *arguments)
    assert done.code == 0, done.err
    (model,) = read_report(tmp_path / "report.json").models
    assert [row.engine for row in model.engines] == ["litert", "onnxruntime", "numpy"]
    assert "report.html" in done.out


def test_a_random_forest_stands_beside_the_model(edgeseq, exported, benched, tmp_path):
    done = edgeseq("report", exported, "--out", tmp_path, "--bench", benched)
    assert done.code == 0, done.err
    (forest,) = read_report(tmp_path / "report.json").baselines
    assert forest.models == ("gru-export",)
    assert 0.5 < forest.plain.accuracy <= 1
    assert forest.smoothed.frames == forest.plain.frames > 0


def test_without_the_data_the_report_says_so(edgeseq, exported, people, benched, tmp_path):
    hidden = people.with_name("hidden")
    people.rename(hidden)
    try:
        done = edgeseq("report", exported, "--out", tmp_path, "--bench", benched)
    finally:
        hidden.rename(people)
    assert done.code == 0, done.err
    made = read_report(tmp_path / "report.json")
    assert made.models[0].main.scores is None
    assert "no such file" in made.models[0].unscored
    assert "no such file" in made.baselines[0].missing
    for name in ("report.html", "report.md"):
        content = (tmp_path / name).read_text()
        assert "was not measured here" in content
        assert "There is no random forest to compare with" in content


def test_without_what_the_forest_needs_the_report_says_so(edgeseq, exported, benched, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    done = edgeseq("report", exported, "--out", tmp_path, "--bench", benched)
    assert done.code == 0, done.err
    assert "sklearn" in read_report(tmp_path / "report.json").baselines[0].missing


def test_without_what_draws_it_nothing_is_measured(edgeseq, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = edgeseq("report", exported, "--out", tmp_path / "out")
    assert done.code == 3
    assert "pip install 'edgeseq[train]'" in done.err
    assert "measuring" not in done.err
    assert not (tmp_path / "out").exists()


def test_bad_input_exits_2_and_names_the_mend(edgeseq, exported, trained, benched, tmp_path):
    file = tmp_path / "file"
    file.write_text("{}")
    for arguments, said in (
        ((exported,), "--out is needed"),
        (("--out", tmp_path), "edgeseq report FOLDER... --out DIR"),
        ((exported, "--out", file), "cannot be made a folder"),
        ((exported, "--out", tmp_path, "--bench", file), "edgeseq bench --out"),
        ((trained, "--out", tmp_path, "--bench", benched), "run edgeseq bench"),
        ((exported, exported, "--out", tmp_path, "--bench", benched, "--no-baseline"), "name each folder once"),
        ((exported, "--compare", file, file), "leave out the folders"),
        (("--compare", file, file), "not a report.json"),
    ):
        done = edgeseq("report", *arguments, "--json")
        assert done.code == 2, done.err
        assert said in done.document["error"]["message"]


def test_a_report_of_the_same_run_compares_well(edgeseq, reported):
    file = reported[0] / "report.json"
    done = edgeseq("report", "--compare", file, file)
    assert done.code == 0, done.err
    assert "Nothing got slower, larger or worse." in done.out


def test_a_larger_file_misses_the_budget(edgeseq, reported, tmp_path):
    made = read_report(reported[0] / "report.json")
    (model,) = made.models
    row = msgspec.structs.replace(model.main, file_bytes=round(1.2 * model.main.file_bytes))
    worse = msgspec.structs.replace(made, models=(msgspec.structs.replace(model, engines=(row,)),))
    files = (reported[0] / "report.json", tmp_path / "worse.json")
    files[1].write_bytes(encode_report(worse))
    done = edgeseq("report", "--compare", *files, "--json")
    assert done.code == 7
    document = done.document
    assert document["error"]["type"] == "BudgetMissed"
    assert "20.0 % larger" in document["error"]["message"]
    assert [change["quantity"] for change in document["changes"] if change["missed"]] == ["file, bytes"]
    assert edgeseq("report", "--compare", *files, "--budget", 25).code == 0
    shown = edgeseq("report", "--compare", *files)
    assert shown.code == 7
    assert re.search(r"file, bytes.*\+20\.0 %.*FAILED", shown.out)


def test_a_folder_that_was_copied_keeps_its_measurement(edgeseq, exported, benched, tmp_path):
    copied = shutil.copytree(exported, tmp_path / "elsewhere")
    done = edgeseq("report", copied, "--out", tmp_path / "out", "--bench", benched, "--no-baseline")
    assert done.code == 0, done.err
