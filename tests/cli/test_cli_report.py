"""``edgeseq report``: the three files of folders, and two reports side by side."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import pytest

from edgeseq.cli import accuracy
from edgeseq.devices import check
from edgeseq.devices.report.document import encode_report, read_report
from edgeseq.devices.report.markdown import markdown
from edgeseq.devices.report.numbers import machine_name
from edgeseq.devices.report.page import page
from edgeseq.export import stage
from edgeseq.folder import open_folder
from edgeseq.manifest import Decision
from edgeseq.models.store import load_model
from edgeseq.training.heard import event_scores, hear


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
    (model,) = made.models
    assert model.device == machine_name(model.facts)
    named = {"name": "gru-export", "hash": open_folder(exported).hash, "device": model.device}
    assert done.document["models"] == [named]
    shown = " ".join(done.err.split())
    assert len(done.document["verdicts"]) >= 4
    assert all(sentence in shown for sentence in done.document["verdicts"])


def test_measurements_of_two_boards_stand_side_by_side_with_one_scoring(edgeseq, exported, benched, tmp_path):
    (entry,) = json.loads(benched.read_bytes())["reports"]
    board = {**entry["facts"], "model": "Raspberry Pi 4 Model B", "machine": "aarch64", "device_tree": True}
    there = {
        **entry,
        "facts": board,
        "facts_at_end": board,
        "provenance": "measured-on-device",
        "throttled": "it is hot",
    }
    (tmp_path / "pi4.json").write_text(json.dumps(there))
    files = ("--bench", benched, "--bench", tmp_path / "pi4.json")
    done = edgeseq("report", exported, *files, "--out", tmp_path / "out", "--no-baseline", "--json")
    assert done.code == 0, done.err
    here = machine_name(read_report(tmp_path / "out" / "report.json").models[0].facts)
    assert [model["device"] for model in done.document["models"]] == [here, "Raspberry Pi 4 Model B"]
    assert done.err.count("scoring") == 1
    one, other = read_report(tmp_path / "out" / "report.json").models
    assert one.main.scores == other.main.scores is not None
    content = (tmp_path / "out" / "report.md").read_text()
    assert f"| {here} (host) | gru-export | fp32 | LiteRT | – |" in content
    there = "Raspberry Pi 4 Model B (measured-on-device)"
    assert f"| {there} | gru-export | fp32 | LiteRT | slowed down |" in content
    assert "It had slowed itself down (it is hot)" in " ".join(done.document["verdicts"])
    twice = edgeseq("report", exported, *files[:2], *files[:2], "--out", tmp_path / "twice")
    assert twice.code == 2
    assert "name each file once" in " ".join(twice.err.split())


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
    (model,) = read_report(tmp_path / "report.json").models
    assert [found.rule for found in forest.following] == [Decision(), model.decision]
    followed = [(each.rule, each.scores.events, each.scores.hours, each.orders) for each in model.following]
    assert followed == [(each.rule, each.scores.events, each.scores.hours, each.orders) for each in forest.following]


def test_a_model_follows_changes_in_its_engine_as_in_torch(exported, reported):
    (model,) = read_report(reported[0] / "report.json").models
    folder = open_folder(exported)
    heard = hear(load_model(folder), accuracy.tested_on(folder))
    assert [found.rule for found in model.following] == [Decision(), folder.manifest.decision]
    for found in model.following:
        wanted = event_scores(heard, found.rule)
        assert found.scores.events == wanted.events > 0
        assert found.scores.hours == pytest.approx(wanted.hours)
        assert found.scores.accuracy == pytest.approx(wanted.accuracy, abs=2e-3)
        assert found.scores.f1 == pytest.approx(wanted.f1, abs=0.02)
    for name in ("report.html", "report.md"):
        assert "false switches an hour" in (reported[0] / name).read_text()


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


def test_bad_input_exits_2_and_names_the_mend(edgeseq, exported, tmp_path):
    file = tmp_path / "file"
    file.write_text("{}")
    for arguments, said in (
        ((exported,), "--out is needed"),
        (("--out", tmp_path), "edgeseq report FOLDER... --out DIR"),
        ((exported, "--out", file), "cannot be made a folder"),
        ((exported, "--out", tmp_path, "--bench", file), "edgeseq bench --out"),
        ((exported, "--compare", file, file), "leave out the folders"),
        (("--compare", file, file), "not a report.json"),
    ):
        done = edgeseq("report", *arguments, "--json")
        assert done.code == 2, done.err
        assert said in done.document["error"]["message"]


@pytest.mark.parametrize("measured", [False, True])
def test_what_cannot_be_reported_on_is_refused_before_it_is_measured(
    edgeseq, exported, trained, benched, tmp_path, measured
):
    file, out = tmp_path / "bench.json", tmp_path / "out"
    bench = ("--bench", benched) if measured else ()
    (reports,) = json.loads(benched.read_bytes()).values()
    file.write_text(json.dumps({"reports": [{**entry, "folder_hash": "0" * 64} for entry in reports]}))
    for arguments, said in (
        ((exported, exported, *bench), "name each folder once"),
        ((exported, shutil.copytree(exported, tmp_path / "copied"), *bench), "name each folder once"),
        ((exported, trained, *bench), f"run edgeseq export {trained}"),
        ((exported, "--bench", file), f"run edgeseq bench {exported}"),
        ((exported, "--bench", tmp_path / "absent.json"), "cannot be read"),
    ):
        done = edgeseq("report", *arguments, "--out", out, "--no-baseline")
        assert done.code == 2, done.err
        assert said in " ".join(done.err.split())
        assert "measuring" not in done.err
        assert "scoring" not in done.err
        assert not out.exists()


@pytest.fixture(scope="module")
def family(edgeseq, trained, exported, tmp_path_factory):
    """A plain model that taught one of its kind, and both of them in int8: exported, plain ones first."""
    out = tmp_path_factory.mktemp("family")
    student, made = out / "student", []
    tiny = [part for pair in ("rounds=1", "steps=1", "batch=2", "crop=2", "model.hidden=8") for part in ("--set", pair)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MIN_FRAMES", 250)
        patch.setattr(stage, "MIN_FRAMES", 250)
        for verb, source, to, more in (
            ("distill", trained, student, ("--model", "gru", *tiny)),
            ("quantize", trained, out / "plain-int8", ("--method", "ptq")),
            ("quantize", student, out / "student-int8", ("--method", "ptq")),
            *(
                ("export", out / n, out / f"{n}-export", ("--frames", 250))
                for n in ("student", "plain-int8", "student-int8")
            ),
        ):
            done = edgeseq(verb, source, "--out", to, *more)
            assert done.code == 0, done.err
            made += [to] if verb == "export" else []
    return exported, made[1], made[0], made[2]


def test_a_student_and_its_int8_are_set_beside_the_plain_ones_and_the_teacher(edgeseq, family, benched, tmp_path):
    (entry,) = json.loads(benched.read_bytes())["reports"]
    opened = [open_folder(path) for path in family]
    copies = [{**entry, "folder_hash": f.hash, "precision": msgspec.to_builtins(f.manifest.precision)} for f in opened]
    (tmp_path / "bench.json").write_text(json.dumps({"reports": copies}))
    options = ("--bench", tmp_path / "bench.json", "--no-baseline", "--json")
    done = edgeseq("report", *family, "--out", tmp_path / "all", *options)
    assert done.code == 0, done.err
    said = "\n".join(done.document["verdicts"])
    same = r".* (as|than) {}, the same model trained without a teacher\."
    assert re.search("the distilled student-export is" + same.format("gru-export"), said)
    assert re.search("the distilled student-int8-export is" + same.format("plain-int8-export"), said)
    assert "Compared with its teacher (gru-export), the distilled student (student-export) is" in said
    assert "Compared with its teacher (gru-export), the distilled student (student-int8-export) is" in said
    assert said.count("does not settle whether a teacher helps") == 1
    taught = f"{100 * opened[2].manifest.metrics['teacher_test_accuracy']:.1f}"
    assert f"| teacher, as measured in torch | – | ({taught}) |" in (tmp_path / "all" / "report.md").read_text()
    done = edgeseq("report", *family[1:], "--out", tmp_path / "without", *options)
    said = "\n".join(done.document["verdicts"])
    for name in ("student-export", "student-int8-export"):
        torch = rf"The distilled {name} is .* its teacher, which was right in {taught} %, both as measured in torch\."
        assert re.search(torch, said)


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


def changed(reported, to, **fields):
    """A report in the file ``to`` whose one model has other fields."""
    made = read_report(reported[0] / "report.json")
    models = (msgspec.structs.replace(made.models[0], **fields),)
    to.write_bytes(encode_report(msgspec.structs.replace(made, models=models)))
    return reported[0] / "report.json", to


def test_a_proof_and_an_accuracy_that_are_lost_exit_7_by_name(edgeseq, reported, tmp_path):
    (model,) = read_report(reported[0] / "report.json").models
    unscored = (msgspec.structs.replace(model.main, scores=None),)
    old, new = changed(reported, tmp_path / "new.json", proof=(), engines=unscored)
    done = edgeseq("report", "--compare", old, new, "--json")
    assert done.code == 7
    document = done.document
    assert document["error"]["type"] == "BudgetMissed"
    assert "the proof of gru-export: it held, and there is none now (1 more)" in document["error"]["message"]
    assert document["passed"] is False
    assert document["lost"][1].startswith("the accuracy of gru-export in LiteRT: only the old report has it")
    shown = edgeseq("report", "--compare", old, new)
    assert all(f"Lost: {what}." in " ".join(shown.out.split()) for what in document["lost"])
    assert "Nothing" not in shown.out
    back = edgeseq("report", "--compare", new, old)
    assert back.code == 0, back.err
    assert "Nothing that was compared got slower" in back.out
    assert "Not compared: the proof of gru-export, only in the new report." in back.out


def test_reports_of_different_models_exit_2_with_both_names(edgeseq, reported, tmp_path):
    files = changed(reported, tmp_path / "new.json", name="other", split={})
    done = edgeseq("report", "--compare", *files, "--json")
    assert done.code == 2
    message = done.document["error"]["message"]
    assert "old report is of gru-export (rnn, fp32), the new one of other (rnn, fp32)" in message


def test_a_report_that_is_there_is_replaced_only_when_asked_and_a_model_folder_never(
    edgeseq, exported, benched, tmp_path
):
    command = ("report", exported, "--bench", benched, "--no-baseline", "--out")
    assert edgeseq(*command, tmp_path).code == 0
    refused = edgeseq(*command, tmp_path)
    assert refused.code == 2
    assert "pass --overwrite" in refused.err
    assert edgeseq(*command, tmp_path, "--overwrite").code == 0
    inside = edgeseq(*command, exported)
    assert inside.code == 2
    assert "is a model folder" in inside.err
    assert not (exported / "report.html").exists()


def test_against_an_emulated_device_no_time_is_judged_and_what_is_left_out_is_said(edgeseq, reported, tmp_path):
    old, new = changed(reported, tmp_path / "new.json", provenance="emulated-functional", device="virt")
    done = edgeseq("report", "--compare", old, new, "--budget", 0, "--json")
    assert done.code == 0, done.err
    assert {change["quantity"] for change in done.document["changes"]} == {"file, bytes", "accuracy, %"}
    assert done.document["uncompared"] == ["the times of gru-export: virt is emulated and has none"]
    assert "Nothing that was compared got larger or worse." in done.document["findings"]
