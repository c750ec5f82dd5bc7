"""``edgeseq distill``: options, what is said, exit codes, and a run that is interrupted."""

from __future__ import annotations

import signal

import pytest
from typer.testing import CliRunner

from edgeseq.cli import app as application
from edgeseq.cli import output
from edgeseq.folder import WEIGHTS_NAME, open_folder

TINY = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "crop=2")
SMALL = ("--model", "gru", "--set", "model.hidden=4")


def test_help_has_an_example_and_json():
    done = CliRunner().invoke(application.app, ["distill", "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0
    assert "Example: edgeseq distill runs/teacher --model lmu --out runs/student" in done.output
    assert "--json" in done.output


def test_it_says_both_accuracies_and_what_comes_next(edgeseq, trained, tmp_path):
    done = edgeseq("distill", trained, "--out", tmp_path / "a student", *TINY, *SMALL)
    assert done.code == 0, done.err
    metrics = open_folder(tmp_path / "a student").manifest.metrics
    taught, learned = (f"{100 * metrics[name]:.1f} %" for name in ("teacher_test_accuracy", "test_accuracy"))
    assert f"wrote {tmp_path / 'a student'} (" in done.out
    assert f"accuracy on the test subjects: teacher {taught}, student {learned}\n" in done.out
    assert f"next: edgeseq quantize '{tmp_path / 'a student'}' --out '{tmp_path / 'a student-int8'}'" in done.out
    assert "round 1/1" in done.err


def test_json_has_teachers_split_rounds_metrics_and_hashes(edgeseq, trained, tmp_path):
    out = tmp_path / "s"
    document = edgeseq("distill", trained, trained, "--out", out, "--json", *TINY).document
    folder = open_folder(out)
    assert document["teachers"] == [{"name": "gru", "hash": open_folder(trained).hash}] * 2
    assert document["split"] == {part: list(who) for part, who in open_folder(trained).manifest.split.items()}
    assert [entry["number"] for entry in document["rounds"]] == [0]
    assert document["metrics"] == folder.manifest.metrics
    assert document["metrics"]["teacher_test_accuracy"] == open_folder(trained).manifest.metrics["test_accuracy"]
    assert document["files"] == folder.manifest.files
    assert document["hash"] == folder.hash
    assert document["next"].startswith("edgeseq quantize ")
    assert folder.manifest.family == "lmu"


def test_options_come_after_set_and_set_after_config(edgeseq, trained, tmp_path):
    config = tmp_path / "c.json"
    config.write_text('{"distillation": {"soft": 0.1, "hard": 0.1, "temperature": 9}, "steps": 5}', encoding="utf-8")
    done = edgeseq(
        *("distill", trained, "--out", tmp_path / "s", "--config", config, *TINY, *SMALL),
        *("--set", "distillation.hard=0.2", "--set", "distillation.temperature=8", "--set", "distillation.early=1"),
        *("--temperature", 4, "--level", "sequence", "--seed", 3),
    )
    assert done.code == 0, done.err
    (stage,) = open_folder(tmp_path / "s").manifest.lineage
    expected = {"soft": 0.1, "hard": 0.2, "temperature": 4.0, "level": "sequence", "early": 1.0, "hidden": 0.0}
    assert stage.arguments["distillation"] == expected
    assert stage.arguments["settings"]["steps"] == 1
    assert stage.seed == 3


def test_it_trains_on_from_a_student_and_exports(edgeseq, trained, tmp_path):
    done = edgeseq("distill", trained, "--from", trained, "--hidden", 1, "--out", tmp_path / "s", *TINY)
    assert done.code == 0, done.err
    assert [stage.verb for stage in open_folder(tmp_path / "s").manifest.lineage] == ["train", "distill"]
    exported = edgeseq("export", tmp_path / "s", "--out", tmp_path / "e", "--to", "onnx", "--frames", 2000)
    assert exported.code == 0, exported.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--temperature", "0"], "above 0"),
        (["--soft", "-1"], "0 or more"),
        (["--hard", "nan"], "0 or more"),
        (["--early", "inf"], "0 or more"),
        (["--hidden", "1"], "4 units into the student's read-out, 8 into the teacher's"),
        (["--level", "crop"], "unknown level 'crop'"),
        (["--soft", "0", "--hard", "0"], "nothing to learn"),
        (["--set", "distillation.tau=1"], "unknown distillation setting 'tau'"),
        (["--set", "roundz=3"], "Did you mean 'rounds'?"),
        (["--seed", "-1"], "0 or more"),
        (["--data", "nowhere"], "nowhere"),
        (["--from", "nowhere"], "leave --model gru out"),
        (["nowhere"], "nowhere is not a folder"),
    ],
)
def test_wrong_options_exit_2_and_write_nothing(edgeseq, trained, tmp_path, arguments, said):
    done = edgeseq("distill", trained, "--out", tmp_path / "s", *TINY, *SMALL, *arguments)
    assert done.code == 2
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_a_teacher_is_needed(edgeseq, tmp_path):
    done = edgeseq("distill", "--out", tmp_path / "s", "--json")
    assert done.code == done.document["error"]["exit_code"] == 2
    assert "missing argument 'TEACHER'" in done.err


def test_a_teacher_that_knows_the_test_subjects_exits_2(edgeseq, people, trained, tmp_path):
    seen = edgeseq("train", people, "--out", tmp_path / "t", "--fold", 3, *TINY, "--set", "model.hidden=4")
    assert seen.code == 0, seen.err
    done = edgeseq("distill", trained, tmp_path / "t", "--out", tmp_path / "s", "--json", *TINY)
    assert done.code == 2
    assert "has seen that one" in done.document["error"]["message"]
    assert not (tmp_path / "s").exists()


def test_without_torch_exits_3_with_the_line_that_installs_it(edgeseq, monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(output, "import_module", missing)
    done = edgeseq("distill", "runs/teacher", "--out", tmp_path / "s")
    assert done.code == 3
    assert "pip install 'edgeseq[train]'" in done.err


def test_an_interrupted_run_goes_on_and_ends_in_the_same_weights(edgeseq, trained, tmp_path, in_background):
    arguments = ["distill", trained, "--set", "rounds=12", "--set", "steps=4", "--set", "batch=4", "--set", "crop=4"]
    interrupted = in_background(*arguments, "--out", tmp_path / "one")
    assert interrupted.stderr is not None
    for line in interrupted.stderr:
        if line.startswith("round 2/"):
            interrupted.send_signal(signal.SIGINT)
            break
    rest = interrupted.communicate(timeout=60)[1]
    assert interrupted.returncode == 130
    assert rest.splitlines()[-1] == "interrupted; the same command goes on after the last finished round"
    resumed = edgeseq(*arguments, "--out", tmp_path / "one")
    assert resumed.code == 0, resumed.err
    assert "going on after round" in resumed.err
    whole = edgeseq(*arguments, "--out", tmp_path / "two")
    hashes = [open_folder(tmp_path / name).manifest.files[WEIGHTS_NAME] for name in ("one", "two")]
    assert hashes[0] == hashes[1], whole.err
