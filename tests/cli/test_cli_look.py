"""``edgeseq inspect``, ``models``, ``datasets`` and ``doctor``."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
from msgspec.structs import replace
from safetensors.numpy import load_file

from edgeseq.data import datasets
from edgeseq.folder import MANIFEST_NAME, WEIGHTS_NAME, open_folder, seal
from edgeseq.program import Builder, Program, Value, cost

KNOWN = {facts.name for facts in datasets()}


def test_inspect_says_what_a_step_hears(edgeseq):
    said = " ".join(edgeseq("inspect", "digits").out.split())
    assert "sound (full scale), 128 samples (16 ms) a step at 8000 Hz" in said
    assert "log-mel, of windows of 32 ms every 16 ms: 40 bands from 60 to 4000 Hz in dB, none below -50" in said
    int8 = open_folder("digits").manifest.precision.weights == "int8"
    assert ("the front end computes in float32" in said) == int8
    other = edgeseq("inspect", "har_watch").out
    assert "log-mel" not in other
    assert "front end" not in other


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


def test_inspect_of_a_trained_folder_counts_what_an_export_would_and_points_at_it(edgeseq, trained, exported):
    done, program = edgeseq("inspect", trained), Program.read(exported)
    assert f"next: edgeseq export {trained}" in done.out
    assert f"{cost(program).macs:,} MACs" in done.out
    document = edgeseq("inspect", trained, "--program", "--json").document
    assert document["cost"] == edgeseq("inspect", exported, "--json").document["cost"]
    assert [node["operator"] for node in document["nodes"]] == [node.operator for node in program.nodes]


def test_inspect_where_torch_is_not_says_to_export(process, trained, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n", encoding="utf-8")
    done = process("inspect", trained, env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    assert "not counted: torch is not installed here, and without it only exported" in " ".join(done.out.split())
    done = process("inspect", trained, "--program", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 2
    assert f"run edgeseq export {trained}" in done.err


def test_inspect_in_json_is_the_manifest_and_what_it_costs(edgeseq, trained, exported):
    document, program = edgeseq("inspect", exported, "--json").document, Program.read(exported)
    parameters = sum(tensor.size for name, tensor in load_file(trained / WEIGHTS_NAME).items() if "input_" not in name)
    assert document["manifest"]["files"] == open_folder(exported).manifest.files
    assert document["cost"] == msgspec.to_builtins(cost(program, parameters))
    assert document["parameters"] == parameters
    assert document["constants"] == sum(array.size for array in program.constants.values())


def changed(folder, out, **changes):
    """A copy of ``folder`` whose manifest says something else."""
    shutil.copytree(folder, out)
    (out / MANIFEST_NAME).unlink()
    seal(out, replace(open_folder(folder).manifest, **changes))
    return out


def test_inspect_shows_the_facts_of_a_family_and_counts_parameters_where_an_old_folder_does_not_say(
    edgeseq, trained, tmp_path
):
    told = edgeseq("inspect", trained, "--json").document["parameters"]
    folder = changed(trained, tmp_path / "m", facts={"mean_degree": 4.25, "edges": 12345.0}, parameters=None)
    done = edgeseq("inspect", folder)
    assert {("mean", "degree", "4.25"), ("edges", "12,345")} <= {tuple(line.split()) for line in done.out.splitlines()}
    assert f"{told:,} trained" in done.out


def test_inspect_asks_for_trust_before_it_imports_code(edgeseq, trained, tmp_path):
    folder = changed(trained, tmp_path / "m", family="edgeseq.models.rnn:Rnn", parameters=None)
    done = edgeseq("inspect", folder)
    assert done.code == 0, done.err
    assert "not counted: the model's family 'edgeseq.models.rnn:Rnn' is code from outside" in " ".join(done.out.split())
    assert "pass --trust" in " ".join(done.out.split())
    assert "after export" not in done.out
    assert "not known here" in done.out
    assert f"next: edgeseq export {folder} --out {folder}-export --trust" in done.out
    assert "MACs" in edgeseq("inspect", folder, "--trust").out


def test_inspect_tells_accumulates_from_multiplications(edgeseq, exported, tmp_path):
    folder = tmp_path / "spikes"
    shutil.copytree(exported, folder)
    b = Builder(Value("x", (1, 2)), [Value("v", (1, 2))])
    one, none = (b.constant(name, np.array(name == "one", np.float32)) for name in ("one", "none"))
    fired = b.add("where", b.add("greater", "x", none), one, none)
    y = b.add("linear", fired, b.constant("w", np.ones((3, 2), np.float32)))
    b.finish(y, {"v": b.add("add", "v", fired)}).write(folder)
    (folder / MANIFEST_NAME).unlink()
    seal(folder, open_folder(exported).manifest)
    assert "0 MACs, 6 ACs and 6 elementwise operations" in edgeseq("inspect", folder).out


def test_models_counts_parameters(edgeseq):
    document = edgeseq("models", "--json").document
    presets = {preset["name"]: preset for preset in document["presets"]}
    assert {"lmu", "gru"} <= set(presets)
    assert 0 < presets["lmu"]["parameters"] <= 20_000
    assert {family["name"] for family in document["families"]} >= {"lmu", "rnn"}


def test_datasets_show_licence_and_citation(edgeseq):
    for facts in datasets():
        said = " ".join(edgeseq("datasets", facts.name).out.split())
        assert f"{facts.name} {facts.summary} shipped {'yes' if facts.shipped else 'no; with its files: '}" in said
        assert f"edgeseq train {facts.name} --data PATH" in said or facts.shipped
        for known in (facts.licence, facts.citation, facts.part, *facts.labels):
            assert " ".join(known.split()) in said
        assert ("files under the folder that EDGESEQ_DATA names: " in said) != facts.shipped
    assert "fsdd/fsdd.npz or fsdd/[0-9]_*_*.wav" in " ".join(edgeseq("datasets", "fsdd").out.split())


def test_the_list_of_datasets_has_a_line_each(edgeseq, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    done = edgeseq("datasets")
    lines = [line for line in done.out.splitlines() if line.split()[:1] and line.split()[0] in KNOWN]
    assert [line.split()[0] for line in lines] == [facts.name for facts in datasets()]
    assert "EDGESEQ_DATA=FOLDER" in done.out
    wrong = edgeseq("datasets", "mnist")
    assert (wrong.code, "Did you mean 'psmnist' or 'smnist'?" in wrong.err) == (2, True)
    assert [facts["name"] for facts in edgeseq("datasets", "fsdd", "--json").document["datasets"]] == ["fsdd"]
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
