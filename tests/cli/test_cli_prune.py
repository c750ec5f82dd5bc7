"""``edgeseq prune``: what it shows and answers, and that its model goes through export and verify."""

from __future__ import annotations

import shutil

import pytest

from edgeseq.cli import output
from edgeseq.cli.output import kilobytes
from edgeseq.cli.prune import warn_if_beaten
from edgeseq.folder import open_folder, shipped_bytes

TINY = ("--set", "rounds=1", "--set", "steps=2", "--set", "batch=2", "--set", "crop=2")
FRAMES = 250  # as few_frames_do allows

pytestmark = pytest.mark.usefixtures("few_frames_do")


@pytest.fixture(scope="module")
def half(edgeseq, trained, tmp_path_factory):
    """The folder of ``prune --structured 0.5`` and what it said."""
    out = tmp_path_factory.mktemp("half") / "gru half"
    done = edgeseq("prune", trained, "--out", out, "--structured", "0.5", *TINY)
    assert done.code == 0, done.err
    return out, done


def accuracy(folder):
    return f"{100 * open_folder(folder).manifest.metrics['test_accuracy']:.1f} %"


def test_it_shows_the_widths_what_it_cost_and_what_comes_next(trained, half):
    out, done = half
    before, after = open_folder(trained).manifest, open_folder(out).manifest
    rows = [line.split() for line in done.out.splitlines()]
    assert ["layers.0.hidden", "8", str(after.arguments["hidden"])] in rows
    remain = f"{after.parameters} of {before.parameters} parameters remain as whole units: every engine gains"
    assert f"50.0 % of the parameters asked: {remain}" in " ".join(done.out.split())
    sizes = [kilobytes(shipped_bytes(open_folder(folder))) for folder in (out, trained)]
    assert f"weights ship in {sizes[0]}, were {sizes[1]}\n" in done.out
    assert f"accuracy on the test subjects: before {accuracy(trained)}, pruned {accuracy(out)}\n" in done.out
    assert "zeros" not in done.out
    assert done.out.splitlines()[-1] == f"next: edgeseq export '{out}' --out '{out}-export'"
    assert "round 1/1" in done.err


def test_zeros_are_called_what_they_are(edgeseq, trained, tmp_path):
    out = tmp_path / "p"
    done = edgeseq("prune", trained, "--out", out, "--weights", "0.8", "--block", "2x2", "--one-shot", *TINY)
    assert done.code == 0, done.err
    share = open_folder(out).manifest.metrics["zeros"]
    assert share == pytest.approx(0.8, abs=0.01)
    assert (
        f"80.0 % asked: {100 * share:.1f} % of the weights of the linear maps are 0: zeros save bytes in "
        "weights.packed; no engine computes fewer products for them" in " ".join(done.out.split())
    )
    assert "every engine gains" not in done.out
    said = open_folder(out).manifest.lineage[-1].arguments
    assert (said["block"], said["gradual"], said["scope"]) == ([2, 2], False, "global")


def test_json_without_retraining_has_what_it_is_and_no_rounds(edgeseq, trained, tmp_path):
    out = tmp_path / "p"
    options = ("--weights", "0.5", "--scope", "layer", "--criterion", "magnitude", "--no-retrain", "--json")
    document = edgeseq("prune", trained, "--out", out, *options).document
    folder, before = open_folder(out), open_folder(trained)
    assert (document["folder"], document["hash"]) == (str(out), folder.hash)
    assert document["parameters"] == folder.manifest.parameters < before.manifest.parameters
    assert document["widths"] == {"layers.0.hidden": [8, 8]}
    assert document["zeros"]["zeros"] == pytest.approx(0.5, abs=0.01)
    assert set(document["zeros"]) == {"zeros", *folder.manifest.pruned}
    assert document["accuracy_before"] == before.manifest.metrics["test_accuracy"]
    assert document["accuracy_after"] == folder.manifest.metrics["test_accuracy"]
    assert document["next"] == f"edgeseq export {out} --out {out}-export"
    assert "rounds" not in document
    sizes = [document["shipped_bytes"], document["shipped_bytes_before"]]
    assert sizes == [shipped_bytes(each) for each in (folder, before)]
    assert sizes[0] < sizes[1]


def test_what_is_asked_again_is_of_those_that_are_not_0_yet(edgeseq, trained, tmp_path):
    first, second = tmp_path / "p", tmp_path / "q"
    assert edgeseq("prune", trained, "--out", first, "--weights", "0.5", "--no-retrain").code == 0
    done = edgeseq("prune", first, "--out", second, "--weights", "0.5", "--no-retrain")
    said = " ".join(done.out.split())
    assert "50.0 % of those that were not 0 yet asked: 75.0 % of the weights of the linear maps are 0" in said


@pytest.mark.parametrize(("accuracy", "warned"), [(0.2, True), (0.3, False)])
def test_a_model_that_any_constant_answer_beats_is_called_so(capsys, accuracy, warned):
    warn_if_beaten(output.Show(), {"test_accuracy": accuracy, "test_majority_share": 0.25})
    said = "worse than always giving the most frequent answer (25.0 %): leave --no-retrain out, or ask for less"
    assert (said in capsys.readouterr().err) == warned


def test_a_teacher_and_settings_reach_the_retraining(edgeseq, trained, tmp_path):
    done = edgeseq(
        *("prune", trained, "--out", tmp_path / "p", "--structured", "0.3", *TINY, "--seed", 3, "--json"),
        *("--teacher", trained, "--set", "distillation.temperature=4"),
    )
    assert done.code == 0, done.err
    assert [entry["number"] for entry in done.document["rounds"]] == [0]
    entry = open_folder(tmp_path / "p").manifest.lineage[-1]
    assert (entry.verb, entry.seed, entry.arguments["settings"]["steps"]) == ("prune", 3, 2)
    assert entry.arguments["distillation"]["temperature"] == 4.0


def test_a_narrower_model_is_exported_and_verified(edgeseq, half, tmp_path):
    out = tmp_path / "export"
    done = edgeseq("export", half[0], "--out", out, "--frames", FRAMES)
    assert done.code == 0, done.err
    document = edgeseq("verify", out, "--json").document
    assert document["passed"]
    assert [stage.verb for stage in open_folder(out).manifest.lineage] == ["train", "prune", "export"]


def test_what_loses_too_much_exits_5_and_writes_nothing(edgeseq, trained, tmp_path, monkeypatch):
    asked = []
    from edgeseq.errors import GateFailed

    def gate(parent, metrics, max_drop):
        asked.append(max_drop)
        raise GateFailed("macro-F1 falls too far")

    monkeypatch.setattr("edgeseq.quant.prune_stage.check_drop", gate)
    arguments = ("prune", trained, "--out", tmp_path / "p", "--weights", "0.9", "--no-retrain", "--max-drop", "1.5")
    done = edgeseq(*arguments, "--json")
    assert (done.code, asked) == (5, [1.5])
    assert done.document["error"]["message"] == "macro-F1 falls too far"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, [], "nothing to prune"),
        (2, ["--structured", "1"], "from 0 to less than 1"),
        (2, ["--structured", "0.999"], "with every width at its smallest this model still has"),
        (4, ["--modes", "0.5"], "those that do are of the family s4d"),
        (2, ["--weights", "0.5", "--block", "8"], "--block '8': rows and columns are needed, as in 8x4"),
        (2, ["--weights", "0.5", "--block", "0x4"], "1 or more"),
        (2, ["--weights", "0.5", "--scope", "globl"], "Did you mean 'global'?"),
        (2, ["--weights", "0.5", "--criterion", "energy"], "unknown criterion 'energy'"),
        (2, ["--weights", "0.5", "--no-retrain", "--set", "rounds=2"], "rounds is a setting for training"),
        (2, ["--weights", "0.5", "--max-drop", "-1"], "0 or more"),
        (2, ["--wieghts", "0.5"], "Did you mean '--weights'?"),
    ],
)
def test_wrong_options_say_what_is_wrong_and_write_nothing(edgeseq, trained, tmp_path, code, arguments, said):
    done = edgeseq("prune", trained, "--out", tmp_path / "p", *arguments, "--json")
    assert done.code == done.document["error"]["exit_code"] == code
    assert said in done.document["error"]["message"]
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_written_over_what_it_is_made_from(edgeseq, trained, tmp_path):
    source = tmp_path / "gru"
    shutil.copytree(trained, source)
    done = edgeseq("prune", source, "--out", source, "--structured", "0.5", "--overwrite", *TINY)
    assert (done.code, "is what the model is made from: name another folder" in done.err) == (2, True)
    assert open_folder(source).hash == open_folder(trained).hash


def test_without_torch_it_exits_3_with_the_line_that_installs_it(edgeseq, monkeypatch, tmp_path):
    real = output.import_module

    def missing(name):
        if name == "torch":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(output, "import_module", missing)
    done = edgeseq("prune", "runs/gru", "--out", tmp_path / "q", "--weights", "0.5")
    assert done.code == 3
    assert "pruning needs torch" in done.err
    assert "pip install 'edgeseq[train]'" in done.err
