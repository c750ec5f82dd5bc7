"""``edgeseq demo``: the whole way, and safe to repeat."""

from __future__ import annotations

import pytest

FILES = {"step.json", "model.onnx", "model.tflite"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(process, place):
    return process("demo", "har", "--quick", "--json", cwd=place)


def test_it_goes_through_all_stages_to_one_table(first):
    assert first.code == 0, first.err
    places = [first.err.index(f"{number}/9 ") for number in range(1, 10)]
    assert places == sorted(places)
    document = first.document
    assert [entry["name"] for entry in document["models"]] == [
        "student-export",
        "student-distilled-export",
        "student-int8-export",
    ]
    for entry in document["models"]:
        assert set(entry["sha256"]) == FILES
        assert 0 <= entry["metrics"]["test_accuracy"] <= 1
        assert all(link["passed"] for link in entry["proof"])
    assert {(row["name"], row["engine"]) for row in document["bench"]} >= {
        (f"{name}-export", engine)
        for name in ("student", "student-distilled", "student-int8")
        for engine in ("litert", "onnxruntime")
    }
    assert {row["accuracy_source"] for row in document["bench"] if row["engine"] != "numpy"} == {"measured"}
    assert document["stream"]["summary"]["frames"] > 0
    assert set(document["report"]["files"]) == {"report.html", "report.md", "report.json"}


def test_a_second_run_keeps_what_is_finished_and_says_who_was_tested(edgeseq, first, place):
    again = edgeseq("demo", "har", "--quick", "--out", place / "demo-quick", "--json")
    assert again.code == 0, again.err
    said = " ".join(again.err.split())
    assert "measured in the engine on 54,330 frames of 2 people, never seen in training." in said
    assert "the accuracy table of the README" in said
    assert again.err.count("kept") == 7
    for before, after in zip(first.document["models"], again.document["models"], strict=True):
        assert before["sha256"] == after["sha256"]
        assert before["metrics"] == after["metrics"]


def test_what_no_demo_has_made_is_not_replaced(edgeseq, tmp_path):
    (tmp_path / "student").mkdir()
    refused = edgeseq("demo", "har", "--quick", "--out", tmp_path)
    assert refused.code == 2
    assert "holds what no demo has made" in refused.err


@pytest.mark.slow
def test_another_seed_is_trained_anew_and_the_first_again_gives_the_same(process, first, place):
    other = process("demo", "har", "--quick", "--seed", 1, "--json", cwd=place)
    assert "kept" not in other.err
    again = process("demo", "har", "--quick", "--json", cwd=place)
    assert "kept" not in again.err
    hashes = [[entry["sha256"] for entry in done.document["models"]] for done in (first, other, again)]
    assert hashes[0] == hashes[2] != hashes[1]
