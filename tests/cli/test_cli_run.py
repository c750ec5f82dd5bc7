"""``edgeseq stream`` and ``bench``."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from msgspec.structs import replace

from edgeseq.cli.output import Show
from edgeseq.cli.stream import Played, play
from edgeseq.data import load
from edgeseq.data.dataset import UNSCORED
from edgeseq.devices.session import Session
from edgeseq.folder import MANIFEST_NAME, open_folder, seal
from edgeseq.models.store import load_model
from edgeseq.training.evaluate import evaluate

SHORT = ("--seconds", "0.02", "--paced-seconds", "0.1")


def test_stream_shows_answers_and_a_summary(edgeseq, exported):
    done = edgeseq("stream", exported, "--speed", 0)
    assert done.code == 0, done.err
    first = next(line for line in done.out.splitlines() if " s  " in line)
    assert first.split()[0] == "0.00"
    assert first.endswith("right") or "wrong, it is slow" in first
    assert "1,100 frames" in done.out
    assert f"next: edgeseq bench {exported}" in done.out


def test_stream_in_json_says_whether_each_answer_was_right(edgeseq, exported):
    document = edgeseq("stream", exported, "--subject", "p1", "--recording", 1, "--speed", 0, "--json").document
    assert document["source"] == "subject p1 of people, recording 1"
    assert document["summary"]["frames"] == 1100
    verdicts = {answer["label"]: answer["verdict"] for answer in document["answers"]}
    assert verdicts.get("fast", "right") == "right"
    assert verdicts.get("slow", "wrong, it is fast") == "wrong, it is fast"


@pytest.mark.parametrize("name", ["file", "-"])
def test_stream_reads_frames_from_a_file_or_standard_input(edgeseq, exported, tmp_path, name):
    text = "ay,time,ax\n" + "".join(f"1.0,{i},0.{i % 10}\n" for i in range(60))
    file = tmp_path / "frames.csv"
    file.write_text(text, encoding="utf-8")
    source = file if name == "file" else "-"
    pace = ["--speed", 0] if name == "file" else []  # a live source paces itself
    document = edgeseq("stream", exported, "--input", source, *pace, "--json", stdin=text).document
    assert document["summary"]["frames"] == 60
    assert document["summary"]["seconds"] < 0.6  # 1.2 at the rate of the sensor
    assert document["summary"]["answer_accuracy"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--subject", "p9"], "p9"),
        (["--recording", "5"], "0 to 1"),
        (["--engine", "litter"], "Did you mean 'litert'?"),
        (["--input", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--input", "-", "--subject", "p1"], "--input"),
        (["--data", "spar_watch"], "channels"),
        (["--speed", "-1"], "0 or more"),
        (["--speed", "nan"], "0 or more"),
        (["--speed", "inf"], "0 or more"),
        (["--recording", "-1"], "0 or more"),
    ],
)
def test_stream_refuses_what_it_cannot_play(edgeseq, exported, arguments, said):
    done = edgeseq("stream", exported, *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_answers_are_kept_only_for_the_document(exported, capsys):
    session = Session(exported, "numpy")
    kept = []
    for json_wanted in (False, True):
        session.reset()
        kept.append(play(Show(json_wanted), session, Played("zeros", np.zeros((9, 2))), 0)["answers"])
    shown = capsys.readouterr()
    assert "0.00 s" in shown.out
    assert "0.00 s" in shown.err
    assert [len(answers) for answers in kept] == [0, 1]


def test_stream_names_the_bad_frame_of_a_file(edgeseq, exported, tmp_path):
    file = tmp_path / "frames.csv"
    file.write_text("ax,ay\n1,2\n3,four\n", encoding="utf-8")
    done = edgeseq("stream", exported, "--input", file, "--speed", 0)
    assert done.code == 2
    assert f"{file}, frame 1" in done.err


def test_stream_of_a_folder_that_is_not_exported_says_how(edgeseq, trained):
    done = edgeseq("stream", trained)
    assert done.code == 2
    assert f"edgeseq export {trained}" in done.err


def test_bench_puts_folders_side_by_side_and_says_what_it_means(edgeseq, exported, tmp_path):
    report = tmp_path / "report.json"
    done = edgeseq("bench", exported, exported, "--engine", "litert", "--engine", "numpy", *SHORT, "--out", report)
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines() if line.startswith("gru-export ")]
    assert [row[1] for row in rows] == ["litert", "numpy"] * 2
    assert "provenance of the numbers: " in done.out
    assert "Fastest at the sensor's rate: gru-export in " in done.out
    assert f"wrote {report}" in done.out
    stored = json.loads(report.read_text(encoding="utf-8"))["reports"]
    assert [entry["engine"] for entry in stored[0]["engines"]] == ["litert", "numpy"]
    assert len(stored[0]["engines"][0]["paced"]["call_ns"]) == 5


def test_bench_in_json_has_a_row_for_each_folder_and_engine(edgeseq, exported):
    document = edgeseq("bench", exported, *SHORT, "--json").document
    assert {row["engine"] for row in document["rows"]} >= {"litert", "onnxruntime", "numpy"}
    for row in document["rows"]:
        assert row["file_bytes"] > 0
        assert 0 < row["tight_us"]["p50"] <= row["tight_us"]["p99"]
        assert 0 < row["paced_us"]["p50"] <= row["paced_us"]["max"]
        assert row["paced_frames"] == 5
    assert document["provenance"] in ("host", "measured-on-device")
    sources = {row["engine"]: (row["accuracy_source"], row["accuracy_frames"]) for row in document["rows"]}
    counted = 2 * (1100 - round(UNSCORED * 50))  # the two recordings of a test subject
    assert sources["litert"] == sources["onnxruntime"] == ("measured", counted)
    assert sources["numpy"] == ("trained", 0)


def test_bench_measures_the_accuracy_of_the_file_and_not_that_of_the_training(edgeseq, people, exported, tmp_path):
    """Of a folder whose manifest says another number, and of one whose data is gone."""
    folder = open_folder(exported)
    tested = load(str(people)).only(folder.manifest.split["test"])
    truth = evaluate(load_model(folder), tested).accuracy
    liar = with_manifest(exported, tmp_path / "liar", metrics={"test_accuracy": 0.123})
    stages = tuple(replace(stage, data=stage.data and str(tmp_path / "gone")) for stage in folder.manifest.lineage)
    alone = with_manifest(exported, tmp_path / "alone", metrics={"test_accuracy": 0.123}, lineage=stages)
    done = edgeseq("bench", liar, alone, "--engine", "litert", *SHORT, "--json")
    measured, trained = done.document["rows"]
    assert measured["accuracy"] == pytest.approx(truth, abs=1e-3)
    assert (measured["accuracy_source"], measured["accuracy_subjects"]) == ("measured", len(tested.subjects))
    assert (trained["accuracy"], trained["accuracy_source"]) == (0.123, "trained")
    assert "(12.3)" in done.err
    assert "Accuracy in brackets: trained" in done.err


def with_manifest(exported, out, **changes):
    """A copy of a folder whose manifest says something else."""
    shutil.copytree(exported, out)
    (out / MANIFEST_NAME).unlink()
    seal(out, replace(open_folder(exported).manifest, **changes))
    return out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *((["--seconds", seconds], "a number above 0 is needed") for seconds in ("0", "-1", "nan", "inf")),
        (["--paced-seconds=-1"], "a number above 0 is needed"),
        (["--engine", "litter"], "litert"),
        (["--out", "nowhere/at/all.json"], "cannot be written"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(edgeseq, exported, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    short = [*SHORT, "--engine", "numpy"] if "--out" in arguments else []
    done = edgeseq("bench", exported, *arguments, *short)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_stream_refuses_a_file_before_it_shows_anything(edgeseq, exported, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    for source, model, said in (
        (tmp_path / "none.csv", exported, "none.csv cannot be read: no such file"),
        (tmp_path, exported, "cannot be read: it is a folder"),
        (tmp_path / "a.wav", exported, "reads no sound"),
        (tmp_path / "a.wav", "digits", "examples/keyword_spotting/spot.py --model "),
    ):
        done = edgeseq("stream", model, "--input", source)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
