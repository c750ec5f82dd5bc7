"""``edgeseq retime``: a model at another rate, scored there, and on through every verb; refused where it cannot be."""

from __future__ import annotations

import pytest

from edgeseq.data import write_npz
from edgeseq.data.resample import resampled
from edgeseq.folder import open_folder
from edgeseq.lineage import trained_on

FRAMES = 250  # as few_frames_do allows

pytestmark = pytest.mark.usefixtures("few_frames_do")
LMU = ("channels=[2]", "orders=[4]", "thetas=[20.0]", "hidden=[6]", "products=0")


@pytest.fixture(scope="module")
def lmu(edgeseq, people, tmp_path_factory):
    out = tmp_path_factory.mktemp("retime") / "lmu"
    tiny = ("rounds=1", "steps=2", "batch=2", "crop=2", *(f"model.{pair}" for pair in LMU))
    done = edgeseq("train", people, "--model", "lmu", "--out", out, *(w for pair in tiny for w in ("--set", pair)))
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def slow(edgeseq, lmu):
    out = lmu.with_name("lmu-25")
    done = edgeseq("retime", lmu, "--rate", 25, "--out", out)
    assert done.code == 0, done.err
    return out, done


def test_it_is_the_same_model_with_its_windows_in_seconds(lmu, slow):
    before, after = open_folder(lmu).manifest, open_folder(slow[0]).manifest
    assert (before.input.rate, after.input.rate) == (50.0, 25.0)
    assert after.arguments == {**before.arguments, "thetas": [10.0]}
    assert after.input.normalization == before.input.normalization
    assert after.split == before.split
    assert [entry.verb for entry in after.lineage] == ["train", "retime"]


def test_it_says_what_that_cost(lmu, slow):
    out, done = slow
    figures = [f"{100 * open_folder(path).manifest.metrics['test_accuracy']:.1f} %" for path in (lmu, out)]
    said = f"accuracy on the test subjects: {figures[0]} at 50 Hz, {figures[1]} at 25 Hz (resampled recordings)\n"
    assert said in done.out
    assert done.out.splitlines()[-1].startswith(f"next: edgeseq export {out}")


def test_the_other_verbs_read_its_data_at_its_rate(edgeseq, slow, lmu):
    frames = {path: trained_on(open_folder(path)).frames for path in (lmu, slow[0])}
    assert frames[slow[0]] == frames[lmu] // 2
    exported = slow[0].with_name("lmu-25-export")
    done = edgeseq("export", slow[0], "--out", exported, "--frames", FRAMES)
    assert done.code == 0, done.err
    assert edgeseq("verify", exported).code == 0
    done = edgeseq("stream", exported, "--speed", 0, "--json")
    assert done.code == 0, done.err
    small = slow[0].with_name("lmu-25-int8")
    done = edgeseq("quantize", slow[0], "--out", small, "--method", "ptq")
    assert done.code == 0, done.err
    again = edgeseq("export", small, "--out", small.with_name("lmu-25-int8-export"), "--frames", FRAMES)
    assert again.code == 0, again.err
    done = edgeseq("retime", small, "--rate", 20, "--out", small.with_name("no"))
    assert done.code == 4
    assert "retime first, then quantize" in done.err


@pytest.mark.parametrize(
    ("rate", "code", "said"),
    [
        ("50", 2, "runs at 50 Hz already"),
        ("0", 2, "more than 0"),
        ("nan", 2, "more than 0"),
        ("2", 2, "3.125 to 800 are possible"),
    ],
)
def test_a_rate_that_makes_no_sense_is_refused(edgeseq, lmu, rate, code, said):
    done = edgeseq("retime", lmu, "--rate", rate, "--out", lmu.with_name("nothing"))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not lmu.with_name("nothing").exists()


def test_a_family_without_a_step_size_is_refused(edgeseq, trained):
    done = edgeseq("retime", trained, "--rate", 25, "--out", trained.with_name("nothing"))
    assert done.code == 4
    assert "no step size" in done.err
    assert not trained.with_name("nothing").exists()


def test_there_and_back_is_scored_on_what_was_recorded(edgeseq, lmu, slow):
    back = lmu.with_name("lmu-back")
    assert edgeseq("retime", slow[0], "--rate", 50, "--out", back).code == 0
    before, after = open_folder(lmu).manifest, open_folder(back).manifest
    assert after.arguments == before.arguments
    assert after.metrics == before.metrics


def test_a_student_of_a_retimed_teacher_finds_its_data(edgeseq, slow):
    student = slow[0].with_name("student-25")
    tiny = ("rounds=1", "steps=2", "batch=2", "crop=2", "model.hidden=4")
    settings = [word for pair in tiny for word in ("--set", pair)]
    done = edgeseq("distill", slow[0], "--model", "gru", "--out", student, *settings)
    assert done.code == 0, done.err
    assert open_folder(student).manifest.input.rate == 25.0
    exported = edgeseq("export", student, "--out", student.with_name("student-25-export"), "--frames", FRAMES)
    assert exported.code == 0, exported.err


def test_a_retimed_model_is_trained_on_with_the_data_it_came_from(edgeseq, people, slow):
    out = slow[0].with_name("lmu-25-on")
    tiny = ("rounds=1", "steps=2", "batch=2", "crop=2")
    settings = [word for pair in tiny for word in ("--set", pair)]
    done = edgeseq("train", people, "--from", slow[0], "--out", out, *settings)
    assert done.code == 0, done.err
    assert open_folder(out).manifest.input.rate == 25.0
    assert trained_on(open_folder(out)).rate == 25.0


def test_recordings_of_the_new_rate_itself_can_score_it(edgeseq, lmu, slow, tmp_path):
    native = tmp_path / "native.npz"
    write_npz(resampled(trained_on(open_folder(lmu)), 25.0), native)
    out = lmu.with_name("lmu-25-native")
    done = edgeseq("retime", lmu, "--rate", 25, "--data", native, "--out", out)
    assert done.code == 0, done.err
    assert open_folder(out).manifest.metrics == open_folder(slow[0]).manifest.metrics


def test_other_data_of_another_rate_is_not_resampled_in_silence(edgeseq, trained, lmu, tmp_path):
    other = tmp_path / "other.npz"
    write_npz(resampled(trained_on(open_folder(lmu)), 25.0), other)
    done = edgeseq("export", trained, "--data", other, "--out", tmp_path / "out", "--frames", FRAMES)
    assert done.code == 2
    assert "has 25 Hz, the model reads 50 Hz" in done.err
