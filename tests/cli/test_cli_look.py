"""``edgeseq inspect``, ``models``, ``datasets`` and ``doctor``."""

from __future__ import annotations

import shutil

from msgspec.structs import replace

from edgeseq.data import datasets
from edgeseq.folder import MANIFEST_NAME, open_folder, seal
from edgeseq.program import Program, cost


def test_inspect_shows_states_cost_files_proof_and_lineage(edgeseq, exported):
    done = edgeseq("inspect", exported)
    assert done.code == 0, done.err
    program, manifest = Program.read(exported), open_folder(exported).manifest
    for said in (
        *manifest.labels,
        *(state.name for state in manifest.states),
        *manifest.files,
        f"{cost(program).macs:,} MACs",
        "litert free-running",
        "train",
        "export",
    ):
        assert said in done.out
    assert program.nodes[0].output.name not in done.out


def test_inspect_program_lists_every_node_with_its_module(edgeseq, exported, monkeypatch):
    document = edgeseq("inspect", exported, "--program", "--json").document
    program = Program.read(exported)
    assert [node["output"]["name"] for node in document["nodes"]] == [node.output.name for node in program.nodes]
    assert sum(document["operators"].values()) == len(program.nodes)
    monkeypatch.setenv("COLUMNS", "120")
    done = edgeseq("inspect", exported, "--program")
    for node in program.nodes:
        assert node.output.name in done.out
        assert node.origin in done.out


def test_inspect_of_a_trained_folder_points_at_export(edgeseq, trained):
    assert f"next: edgeseq export {trained}" in edgeseq("inspect", trained).out
    done = edgeseq("inspect", trained, "--program")
    assert done.code == 2
    assert "edgeseq export" in done.err


def test_inspect_in_json_is_the_manifest_and_what_it_costs(edgeseq, exported):
    document = edgeseq("inspect", exported, "--json").document
    assert document["manifest"]["files"] == open_folder(exported).manifest.files
    assert document["cost"]["macs"] == cost(Program.read(exported)).macs


def test_models_counts_parameters(edgeseq):
    document = edgeseq("models", "--json").document
    presets = {preset["name"]: preset for preset in document["presets"]}
    assert {"lmu", "gru"} <= set(presets)
    assert 0 < presets["lmu"]["parameters"] <= 20_000
    assert {family["name"] for family in document["families"]} >= {"lmu", "rnn"}


def test_datasets_show_licence_and_citation(edgeseq):
    done = edgeseq("datasets")
    for facts in datasets():
        assert facts.name in done.out
        assert facts.licence.split(",")[0] in done.out
    assert edgeseq("datasets", "--json").document["datasets"][0]["name"] == datasets()[0].name


def test_doctor_runs_every_engine_that_is_installed(edgeseq):
    done = edgeseq("doctor", "--json")
    assert done.code == 0, done.err
    engines = done.document["engines"]
    for name in ("litert", "onnxruntime", "numpy"):
        assert engines[name]["works"], engines[name]
    assert done.document["packages"]["torch"]


def test_doctor_names_what_is_missing_with_its_install_line(process, tmp_path):
    blocked = "import sys\nsys.modules['onnxruntime'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    done = process("doctor", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    assert "pip install 'edgeseq[onnx]'" in done.err
    document = done.document
    assert document["packages"]["onnxruntime"] is None
    assert not document["engines"]["onnxruntime"]["works"]


def test_doctor_tries_the_engines_on_a_folder(edgeseq, trained, exported):
    assert edgeseq("doctor", exported, "--json").document["engines"]["litert"]["works"]
    done = edgeseq("doctor", trained)
    assert done.code == 2
    assert f"edgeseq export {trained}" in done.err


def test_doctor_says_when_no_engine_runs_a_folder(edgeseq, exported, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(exported, folder)
    manifest = open_folder(exported).manifest
    (folder / MANIFEST_NAME).unlink()
    seal(folder, replace(manifest, states=()))
    done = edgeseq("doctor", folder)
    assert done.code == 4
    assert f"no engine runs {folder}" in done.err
