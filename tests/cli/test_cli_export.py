"""``edgeseq export`` and ``verify``: the proof is shown, and a file that is another model is found out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseq.export.tflite_writer import write_tflite
from edgeseq.folder import MANIFEST_NAME, open_folder, seal
from edgeseq.program import Program

LINKS = ("training form ~ step form", "step form ~ program", "litert teacher-forced", "onnxruntime free-running")


def test_export_shows_the_proof_and_what_comes_next(edgeseq, trained, tmp_path):
    done = edgeseq("export", trained, "--out", tmp_path / "e", "--to", "tflite", "--frames", 2000)
    assert done.code == 0, done.err
    assert [line.split()[-1] for line in done.out.splitlines() if "teacher-forced" in line] == ["ok"]
    assert f"wrote {tmp_path / 'e'} (" in done.out
    assert f"next: edgeseq stream {tmp_path / 'e'}" in done.out
    assert open_folder(tmp_path / "e").formats == ("tflite",)


def test_export_in_json_has_the_proof_and_the_hashes(edgeseq, trained, tmp_path):
    document = edgeseq("export", trained, "--out", tmp_path / "e", "--frames", 2000, "--json").document
    assert {*LINKS} <= {link["name"] for link in document["proof"]}
    assert all(link["passed"] for link in document["proof"])
    assert document["files"] == open_folder(tmp_path / "e").manifest.files


def test_exporting_twice_gives_the_same_files(edgeseq, trained, exported, tmp_path):
    done = edgeseq("export", trained, "--out", tmp_path / "again", "--frames", 2000)
    assert done.code == 0, done.err
    first, second = (open_folder(path).manifest.files for path in (exported, tmp_path / "again"))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "tflight"], "Did you mean 'tflite'?"),
        (["--frames", "10"], "at least 2000"),
        (["--data", "spar_watch"], "channels"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(edgeseq, trained, tmp_path, arguments, said):
    done = edgeseq("export", trained, "--out", tmp_path / "e", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_verify_checks_the_whole_chain_where_torch_is(edgeseq, exported):
    done = edgeseq("verify", exported)
    assert done.code == 0, done.err
    assert "the whole chain" in done.out
    for name in LINKS:
        assert name in done.out
    assert "links hold" in done.out


def test_verify_with_an_engine_checks_the_device_part_in_it(edgeseq, exported):
    done = edgeseq("verify", exported, "--engine", "litert", "--json")
    document = done.document
    assert (done.code, document["part"], document["passed"]) == (0, "device", True)
    assert not [link for link in document["links"] if "onnxruntime" in link["name"]]
    assert document["unchecked"] == ["model.onnx"]
    assert "not checked: model.onnx" in done.err


def test_an_engine_without_its_file_is_not_supported(edgeseq, exported, tmp_path):
    folder = with_files(exported, tmp_path / "half", lambda path: (path / "model.onnx").unlink())
    for verb in ("verify", "stream", "bench"):
        done = edgeseq(verb, folder, "--engine", "onnxruntime", "--json")
        assert done.code == 4
        assert done.document["error"]["type"] == "Unsupported"
        assert "model.onnx" in done.err


@pytest.mark.parametrize("arguments", [[], ["--engine", "litert"]])
def test_a_file_of_another_model_fails_and_the_link_is_named(edgeseq, exported, tmp_path, arguments):
    folder = with_files(exported, tmp_path / "swapped", write_another_model)
    done = edgeseq("verify", folder, *arguments)
    assert done.code == 5
    assert "litert teacher-forced does not hold" in done.err
    assert "Traceback" not in done.err
    shown = {line.split("  ")[0]: line.split()[-1] for line in done.out.splitlines() if line.strip()}
    assert shown["litert teacher-forced"] == "FAILED"
    assert shown["program ~ golden"] == "ok"
    again = edgeseq("verify", folder, *arguments, "--json")
    document = again.document
    assert (document["error"]["type"], document["error"]["exit_code"], again.code) == ("GateFailed", 5, 5)
    assert document["passed"] is False
    holds = {link["name"]: link["passed"] for link in document["links"]}
    assert not holds["litert teacher-forced"]
    assert holds["program ~ golden"]


def test_a_changed_file_is_refused(edgeseq, exported, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(exported, folder)
    write_another_model(folder)
    done = edgeseq("verify", folder)
    assert done.code == 2
    assert "model.tflite was changed" in done.err


def with_files(exported: Path, folder: Path, change) -> Path:
    """A copy of a folder with changed files and a manifest that knows them."""
    shutil.copytree(exported, folder)
    change(folder)
    manifest = open_folder(exported).manifest
    (folder / MANIFEST_NAME).unlink()
    seal(folder, manifest)
    return folder


def write_another_model(folder: Path) -> None:
    program = Program.read(folder)
    constants = {name: array * 1.01 if name.endswith("weight") else array for name, array in program.constants.items()}
    write_tflite(replace(program, constants=constants), folder / "model.tflite", name="another")
