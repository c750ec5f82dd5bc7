"""``edgeseq quantize``: what it shows and answers, and that its model goes through export, verify and inspect."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from edgeseq.cli import output
from edgeseq.cli.shipped import shrunk
from edgeseq.export import stage
from edgeseq.folder import MANIFEST_NAME, open_folder, seal, shipped_bytes
from edgeseq.program import Program
from edgeseq.quant import quantize_stage

TINY = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "crop=2")
FRAMES = 250  # as few_frames_do allows

pytestmark = pytest.mark.usefixtures("few_frames_do")


@pytest.fixture(scope="module")
def small(edgeseq, trained, tmp_path_factory):
    """The folder of ``quantize --method ptq`` and what it said."""
    out = tmp_path_factory.mktemp("small") / "gru int8"
    done = edgeseq("quantize", trained, "--out", out, "--method", "ptq")
    assert done.code == 0, done.err
    return out, done


@pytest.fixture(scope="module")
def small_exported(edgeseq, small):
    out = small[0].with_name("gru-int8-export")
    done = edgeseq("export", small[0], "--out", out, "--frames", FRAMES)
    assert done.code == 0, done.err
    return out, done


def accuracy(folder):
    return f"{100 * open_folder(folder).manifest.metrics['test_accuracy']:.1f} %"


def test_it_shows_what_it_cost_and_what_comes_next(trained, small):
    out, done = small
    table = [line.split() for line in done.out.splitlines()]
    assert table[0][:3] == ["subjects", "of", "accuracy"]
    assert [row[0] for row in table if row and row[0] in ("validation", "test")] == ["validation", "test"]
    assert accuracy(out) in done.out
    assert f"wrote {out} (" in done.out
    assert f"accuracy on the test subjects: float32 {accuracy(trained)}, int8 {accuracy(out)}\n" in done.out
    assert done.out.splitlines()[-1] == f"next: edgeseq export '{out}' --out '{out}-export'"
    assert "round 1/" not in done.err


def test_json_of_a_calibration_has_what_it_is_and_nothing_of_training(edgeseq, trained, tmp_path):
    out = tmp_path / "q"
    document = edgeseq("quantize", trained, "--out", out, "--method", "ptq", "--state", "int16", "--json").document
    folder, before = open_folder(out), open_folder(trained)
    assert (document["folder"], document["hash"], document["files"]) == (str(out), folder.hash, folder.manifest.files)
    assert document["metrics"] == folder.manifest.metrics
    assert document["split"] == {part: list(who) for part, who in before.manifest.split.items()}
    assert document["accuracy_before"] == before.manifest.metrics["test_accuracy"]
    assert document["accuracy_after"] == folder.manifest.metrics["test_accuracy"]
    assert document["next"] == f"edgeseq export {out} --out {out}-export"
    assert not {"parameters", "rounds"} & set(document)
    assert folder.manifest.precision.state == "int16"


def test_on_other_data_there_is_no_accuracy_before(edgeseq, people, trained, tmp_path):
    other, out = tmp_path / "other", tmp_path / "q"
    shutil.copytree(people, other)
    done = edgeseq("quantize", trained, "--out", out, "--method", "ptq", "--data", other)
    assert done.code == 0, done.err
    assert f"accuracy on the test subjects: int8 {accuracy(out)}\n" in done.out
    arguments = ("quantize", trained, "--out", out, "--method", "ptq", "--data", other, "--overwrite", "--json")
    assert edgeseq(*arguments).document["accuracy_before"] is None


@pytest.mark.parametrize("verb", ["quantize", "distill"])
def test_a_model_is_not_written_over_what_it_is_made_from(edgeseq, trained, tmp_path, verb):
    source = tmp_path / "gru"
    shutil.copytree(trained, source)
    done = edgeseq(verb, source, "--out", source, "--overwrite", *TINY)
    assert (done.code, "is what the model is made from: name another folder" in done.err) == (2, True)
    assert open_folder(source).hash == open_folder(trained).hash


def test_by_default_it_trains_on_with_settings_of_set_after_config(edgeseq, trained, tmp_path):
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"steps": 5, "distillation": {"soft": 0.1}, "learning_rate": 0.002}), encoding="utf-8")
    done = edgeseq(
        *("quantize", trained, "--out", tmp_path / "q", "--config", config, *TINY, "--seed", 3, "--json"),
        *("--teacher", trained, "--set", "distillation.temperature=4"),
    )
    assert done.code == 0, done.err
    document = done.document
    assert "round 1/1" in done.err
    assert document["parameters"] > 0
    assert [entry["number"] for entry in document["rounds"]] == [0]
    entry = open_folder(tmp_path / "q").manifest.lineage[-1]
    assert (entry.verb, entry.seed, entry.arguments["method"]) == ("quantize", 3, "qat")
    assert (entry.arguments["settings"]["steps"], entry.arguments["settings"]["learning_rate"]) == (1, 0.002)
    assert (entry.arguments["distillation"]["soft"], entry.arguments["distillation"]["temperature"]) == (0.1, 4.0)
    assert entry.arguments["teachers"] == [{"name": "gru", "hash": open_folder(trained).hash}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "qta"], "unknown method 'qta'. Did you mean 'qat'?"),
        (["--state", "int9"], "unknown state precision 'int9'. Did you mean 'int8'?"),
        (["--memory", "int9"], "unknown memory precision 'int9'. Did you mean 'int8'?"),
        (["--memory", "int16", "--method", "qd"], "qd leaves the memory in float32"),
        (["--bits", "5"], "qat makes weights of 8 or 4 bits, not 5: for others use --method qd or dq"),
        (["--max-drop", "-1"], "a number, 0 or more, is needed"),
        (["--method", "ptq", "--set", "rounds=2"], "use --method qat"),
        (["--method", "ptq", "--teacher", "nowhere"], "use --method qat"),
        (["--set", "distillation.soft=1"], "name one with --teacher"),
        (["--set", "roundz=3"], "Did you mean 'rounds'?"),
        (["--set", "rounds"], "KEY=VALUE"),
        (["--seed", "-1"], "0 or more"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--teacher", "nowhere"], "nowhere is not a folder"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--metod", "ptq"], "Did you mean '--method'?"),
    ],
)
def test_wrong_options_exit_2_and_write_nothing(edgeseq, trained, tmp_path, arguments, said):
    done = edgeseq("quantize", trained, "--out", tmp_path / "q", *arguments, "--json")
    assert done.code == done.document["error"]["exit_code"] == 2
    assert said in done.document["error"]["message"]
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_weights_of_4_bits_are_called_so(edgeseq, trained, tmp_path):
    out = tmp_path / "q"
    done = edgeseq("quantize", trained, "--out", out, "--method", "ptq", "--bits", 4)
    assert done.code == 0, done.err
    assert f"float32 {accuracy(trained)}, int4 {accuracy(out)}\n" in done.out
    assert "int4" in edgeseq("inspect", out).out


def test_what_is_warned_of_is_on_standard_error_and_in_json(edgeseq, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_stage, "coarse", lambda model, ranges: ["a step of int8 is 3"])
    done = edgeseq("quantize", trained, "--out", tmp_path / "q", "--method", "ptq", "--json")
    assert done.document["warnings"] == ["a step of int8 is 3"]
    assert "warning: a step of int8 is 3\n" in done.err


def test_a_gate_that_fails_exits_5_and_writes_nothing(edgeseq, trained, tmp_path):
    source = tmp_path / "gru"
    shutil.copytree(trained, source)
    manifest = open_folder(trained).manifest
    seal(source, msgspec.structs.replace(manifest, metrics={**manifest.metrics, "validation_macro_f1": 1.0}))
    strict = ("quantize", source, "--out", tmp_path / "q", "--method", "ptq", "--max-drop")
    done = edgeseq(*strict, 0, "--json")
    assert done.code == done.document["error"]["exit_code"] == 5
    assert "and at most 0 are allowed" in done.document["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["gru"]
    assert edgeseq(*strict, 100).code == 0


def test_few_levels_of_floats_are_called_by_their_bits(edgeseq, trained, tmp_path):
    out = tmp_path / "q"
    done = edgeseq("quantize", trained, "--out", out, "--method", "qd", "--bits", 3, *TINY)
    assert done.code == 0, done.err
    assert f"float32 {accuracy(trained)}, 3 bits {accuracy(out)}\n" in done.out


def test_few_bits_are_4_unless_said_otherwise(edgeseq, trained, tmp_path):
    out = tmp_path / "q"
    assert edgeseq("quantize", trained, "--out", out, "--method", "dq", *TINY).code == 0
    assert open_folder(out).manifest.lineage[-1].arguments["bits"] == 4


def test_it_says_what_ships_and_what_is_loaded(edgeseq, trained, small, tmp_path):
    before, after = (shipped_bytes(open_folder(folder)) for folder in (trained, small[0]))
    assert f"{shrunk(before, after)}; an engine loads them as int8\n" in small[1].out
    done = edgeseq("quantize", trained, "--out", tmp_path / "q", "--method", "qd", *TINY, "--json")
    assert done.document["shipped_bytes"] == shipped_bytes(open_folder(tmp_path / "q"))
    assert done.document["shipped_bytes_before"] == before
    assert "; an engine loads them as float32\n" in done.err


def test_integers_of_few_bits_are_warned_of_where_they_take_more_bytes(edgeseq, trained, tmp_path):
    few, out = tmp_path / "few", tmp_path / "q"
    assert edgeseq("quantize", trained, "--out", few, "--method", "qd", "--bits", 2, *TINY).code == 0
    done = edgeseq("quantize", few, "--out", out, "--method", "ptq", "--json")
    before, after = (shipped_bytes(open_folder(folder)) for folder in (few, out))
    assert before < after
    said = f"weights of 2 bits (qd), which ship in {before:,} bytes; as int8 they ship in {after:,}"
    assert [said in warning for warning in done.document["warnings"]].count(True) == 1
    assert f"test subjects: 2 bits {accuracy(few)}, int8 {accuracy(out)}\n" in done.err
    again = edgeseq("quantize", trained, "--out", tmp_path / "r", "--method", "ptq", "--json").document
    assert not any("ship in" in warning for warning in again["warnings"])


def test_a_folder_and_a_target_are_needed(edgeseq, trained, small, tmp_path):
    assert "missing option '--out'" in edgeseq("quantize", trained).err
    assert "missing argument 'folder'" in edgeseq("quantize", "--out", tmp_path / "q").err
    existing = edgeseq("quantize", trained, "--out", small[0], "--method", "ptq")
    assert (existing.code, "--overwrite" in existing.err) == (2, True)


def test_a_quantized_model_is_not_quantized_again(edgeseq, small, tmp_path):
    done = edgeseq("quantize", small[0], "--out", tmp_path / "q", "--method", "ptq")
    assert done.code == 2
    assert "has int8 weights already" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["torch", "brevitas"])
def test_without_what_it_needs_it_exits_3_with_the_line_that_installs_it(edgeseq, monkeypatch, tmp_path, package):
    real = output.import_module

    def missing(name):
        if name == package:
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(output, "import_module", missing)
    done = edgeseq("quantize", "runs/gru", "--out", tmp_path / "q")
    assert done.code == 3
    assert f"quantization needs {package}" in done.err
    assert "pip install 'edgeseq[train]'" in done.err


# -- what comes after -----------------------------------------------------------------------------------------------


def test_the_export_of_it_shows_its_integer_layers(small_exported):
    folder, done = small_exported
    row, counted = [line for line in done.out.splitlines() if "litert integer layers" in line]
    assert row.split()[-1] == "ok"
    assert counted == "litert integer layers: 3 of 3 int8 layers"
    links = {link.name: link for link in open_folder(folder).manifest.proof}
    for engine in ("litert", "onnxruntime"):
        assert links[f"{engine} integer layers"].note == "3 of 3 int8 layers"
    assert open_folder(small_exported[0]).manifest.precision.weights == "int8"


def test_verify_proves_an_int8_folder_again(edgeseq, small_exported):
    done = edgeseq("verify", small_exported[0], "--json")
    document = done.document
    assert (done.code, document["part"], document["passed"]) == (0, "chain", True)
    names = [link["name"] for link in document["links"]]
    assert names[0] == "training form ~ step form"
    assert {"litert integer layers", "onnxruntime integer layers"} <= set(names)
    only = edgeseq("verify", small_exported[0], "--engine", "litert")
    assert only.code == 0, only.err
    assert "litert integer layers" in only.out


def test_verify_finds_a_wrong_integer_and_exits_5(edgeseq, small_exported, tmp_path):
    source, folder = small_exported[0], tmp_path / "wrong"
    shutil.copytree(source, folder)
    program = Program.read(folder)
    weight = next(node.inputs[1] for node in program.nodes if node.operator == "qlinear" and node.origin == "readout")
    program.constants[weight][0, 0] ^= 16
    stage.WRITERS["tflite"](program, folder / "model.tflite")
    (folder / MANIFEST_NAME).unlink()
    seal(folder, open_folder(source).manifest)
    done = edgeseq("verify", folder, "--json")
    assert done.code == done.document["error"]["exit_code"] == 5
    failed = {link["name"] for link in done.document["links"] if not link["passed"]}
    assert "litert teacher-forced" in failed
    assert all(name.startswith("litert ") for name in failed)


def test_inspect_says_what_is_int8(edgeseq, small):
    done = edgeseq("inspect", small[0])
    assert done.code == 0, done.err
    assert "int8" in done.out
