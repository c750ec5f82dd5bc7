"""``edgeseq stream`` and ``bench``."""

from __future__ import annotations

import json

import pytest

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
    document = edgeseq("stream", exported, "--input", source, "--speed", 0, "--json", stdin=text).document
    assert document["summary"]["frames"] == 60
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
        (["--speed", "-1"], "speed -1"),
    ],
)
def test_stream_refuses_what_it_cannot_play(here, exported, arguments, said):
    done = here("stream", exported, *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_stream_names_the_bad_frame_of_a_file(here, exported, tmp_path):
    file = tmp_path / "frames.csv"
    file.write_text("ax,ay\n1,2\n3,four\n", encoding="utf-8")
    done = here("stream", exported, "--input", file, "--speed", 0)
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
        assert 0 <= row["accuracy"] <= 1
    assert document["provenance"] in ("host", "measured-on-device")


@pytest.mark.parametrize(
    "arguments", [["--seconds", "0"], ["--engine", "litter"], ["--out", "nowhere/at/all.json"], ["--paced-seconds=-1"]]
)
def test_bench_refuses_what_it_cannot_measure(here, exported, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    short = [*SHORT, "--engine", "numpy"] if "--out" in arguments else []
    done = here("bench", exported, *arguments, *short)
    assert done.code == 2
    assert "Traceback" not in done.err
