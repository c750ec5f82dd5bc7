"""``edgeseq inspect``, ``models``, ``datasets`` and ``doctor``."""

from __future__ import annotations

from edgeseq.data import datasets
from edgeseq.folder import open_folder
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


def test_inspect_program_lists_every_node_with_its_module(here, exported, monkeypatch):
    document = here("inspect", exported, "--program", "--json").document
    program = Program.read(exported)
    assert [node["output"]["name"] for node in document["nodes"]] == [node.output.name for node in program.nodes]
    assert sum(document["operators"].values()) == len(program.nodes)
    monkeypatch.setenv("COLUMNS", "120")
    done = here("inspect", exported, "--program")
    for node in program.nodes:
        assert node.output.name in done.out
        assert node.origin in done.out


def test_inspect_of_a_trained_folder_points_at_export(here, trained):
    assert f"next: edgeseq export {trained}" in here("inspect", trained).out
    done = here("inspect", trained, "--program")
    assert done.code == 2
    assert "edgeseq export" in done.err


def test_inspect_in_json_is_the_manifest_and_what_it_costs(here, exported):
    document = here("inspect", exported, "--json").document
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


def test_doctor_names_what_is_missing_with_its_install_line(edgeseq, tmp_path):
    blocked = "import sys\nsys.modules['onnxruntime'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    done = edgeseq("doctor", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    assert "pip install 'edgeseq[onnx]'" in done.out
    document = edgeseq("doctor", "--json", env={"PYTHONPATH": str(tmp_path)}).document
    assert document["packages"]["onnxruntime"] is None
    assert not document["engines"]["onnxruntime"]["works"]


def test_doctor_tries_the_engines_on_a_folder(here, trained, exported):
    assert here("doctor", exported, "--json").document["engines"]["litert"]["works"]
    done = here("doctor", trained)
    assert done.code == 2
    assert f"edgeseq export {trained}" in done.err
