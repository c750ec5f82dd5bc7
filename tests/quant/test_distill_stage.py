"""``distill`` as a stage: whose data and split a student gets, what is written down, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import Dataset, Mapping, Recording, write_npz
from edgeseq.errors import InputError
from edgeseq.folder import open_folder
from edgeseq.lineage import trained_on
from edgeseq.models.store import load_model
from edgeseq.quant.distill_stage import distill
from edgeseq.quant.quantize_stage import quantize
from edgeseq.training.evaluate import evaluate
from edgeseq.training.settings import Settings
from edgeseq.training.stage import train

RATE = 25.0
SHORT = {"rounds": 2, "steps": 2, "batch": 4, "crop": 1.0, "settle": 0.1}
SMALL_LMU = {"model.channels": [2], "model.orders": [3], "model.thetas": [10.0], "model.hidden": [4]}
SMALL_LMU |= {"model.products": 0, "model.dropout": 0.0}


def write_waves(path, *, labels=("slow", "fast"), subjects="12345"):
    rng = np.random.default_rng(0)
    t = np.arange(int(4 * RATE)) / RATE
    recordings = []
    for subject in subjects:
        for label in range(len(labels)):
            wave = np.sin(2 * np.pi * (0.7 + 2 * label) * t[:, None] + rng.uniform(0, 6, 2))
            y = np.full(len(t), label, np.int16)
            recordings.append(Recording(wave.astype(np.float32), y, subject, f"{subject}-{label}"))
    write_npz(Dataset("waves", tuple(recordings), ("a", "b"), ("V", "V"), RATE, labels), path)
    return str(path)


@pytest.fixture
def source(tmp_path):
    return write_waves(tmp_path / "waves.npz")


def teacher(source, out, *, test="1", validation="2", **options):
    changes = {**SHORT, "model.hidden": 6}
    return train(source, out, changes=changes, test=[test], validation=[validation], **options)


def taught(teachers, out, **options):
    options.setdefault("changes", {**SHORT, **SMALL_LMU})
    return distill([getattr(folder, "path", folder) for folder in teachers], out, **options)


def test_a_student_gets_the_data_and_the_split_of_its_teacher(source, tmp_path):
    first = teacher(source, tmp_path / "t", test="3", validation="5")
    changes = {**SHORT, **SMALL_LMU, "distillation.temperature": 3, "distillation.level": "sequence"}
    student = taught([first], tmp_path / "s", changes=changes, seed=4)
    manifest = student.manifest
    assert manifest.split == first.manifest.split == {"train": ("1", "2", "4"), "validation": ("5",), "test": ("3",)}
    assert (manifest.family, first.manifest.family) == ("lmu", "rnn")
    assert manifest.arguments["hidden"] == [4]
    (entry,) = manifest.lineage
    assert (entry.verb, entry.seed, entry.data, entry.parent) == ("distill", 4, source, None)
    assert entry.arguments["teachers"] == [{"name": "t", "hash": first.hash}]
    assert entry.arguments["distillation"] == {
        "temperature": 3.0,
        "soft": 0.7,
        "hard": 0.3,
        "level": "sequence",
        "hidden": 0.0,
        "early": None,
    }
    assert entry.arguments["settings"]["rounds"] == SHORT["rounds"]
    assert entry.arguments["model"] == "lmu"
    assert trained_on(student).fingerprint() == entry.data_fingerprint


def test_the_accuracy_beside_the_students_is_the_mean_of_its_teachers(source, tmp_path):
    teachers = [teacher(source, tmp_path / f"t{seed}", seed=seed) for seed in range(2)]
    student = taught(teachers, tmp_path / "s")
    test = trained_on(student).only(["1"])
    each = [evaluate(load_model(folder), test).accuracy for folder in teachers]
    assert student.manifest.metrics["teacher_test_accuracy"] == pytest.approx(np.mean(each), abs=1e-6)
    assert [entry["name"] for entry in student.manifest.lineage[0].arguments["teachers"]] == ["t0", "t1"]


def test_what_a_student_becomes_depends_on_its_teacher_and_the_seed_alone(source, tmp_path):
    a, b = (teacher(source, tmp_path / f"t{seed}", seed=seed) for seed in range(2))
    calls = {"one": ([a], 0), "again": ([a], 0), "other teacher": ([b], 0), "both": ([a, b], 0), "seed": ([a], 1)}
    files = {name: taught(t, tmp_path / name, seed=seed).manifest.files for name, (t, seed) in calls.items()}
    assert files["one"] == files["again"]
    assert len({found["weights.safetensors"] for found in files.values()}) == 4


def test_columns_of_the_teachers_data_are_read_the_same_way(tmp_path):
    data = tmp_path / "mine"
    data.mkdir()
    for person in "abcd":
        rows = [f"{40 * i},{np.sin(i * (0.2 + (i > 80))):.3f},{'on' if i < 80 else 'off'}" for i in range(160)]
        (data / f"{person}.csv").write_text("\n".join(["ms,acc,state", *rows]) + "\n", encoding="utf-8")
    mapping = Mapping(time="ms", time_unit="ms", label="state", subject_from="file", channels=("acc",))
    first = teacher(str(data), tmp_path / "t", test="a", validation="b", mapping=mapping)
    student = taught([first], tmp_path / "s")
    again = taught([student], tmp_path / "s2")
    assert again.manifest.lineage[0].arguments["mapping"]["time"] == "ms"
    assert again.manifest.split["test"] == ("a",)


@pytest.mark.parametrize(("test", "validation", "named"), [("3", "2", "'1'.*test"), ("1", "3", "'2'.*validation")])
def test_a_teacher_that_has_seen_whom_the_student_is_tested_or_chosen_on_is_refused(
    source, tmp_path, test, validation, named
):
    first = teacher(source, tmp_path / "t")
    second = teacher(source, tmp_path / "leaky", test=test, validation=validation)
    with pytest.raises(InputError, match=f"subject {named} subjects: the teacher .*leaky has seen"):
        taught([first, second], tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_whom_a_teacher_has_seen_the_student_has_seen(source, tmp_path):
    """A student of fewer people is no fresh start: its teacher answered for the others."""
    first = teacher(source, tmp_path / "t")
    fewer = write_waves(tmp_path / "fewer.npz", subjects="1234")
    student = taught([first], tmp_path / "s", source=fewer)
    assert student.manifest.lineage[0].data == fewer
    assert student.manifest.split["train"] == ("3", "4", "5")
    with pytest.raises(InputError, match="'5' cannot be of the test subjects"):
        train(source, tmp_path / "on", start=student.path, test=["5"], validation=["2"], changes=SHORT)


def test_a_student_is_trained_on_by_its_teacher_and_without_it(source, tmp_path):
    first = teacher(source, tmp_path / "t")
    student = taught([first], tmp_path / "s")
    further = taught([first], tmp_path / "s2", start=student.path, changes=SHORT)
    alone = train(source, tmp_path / "s3", start=further.path, changes=SHORT)
    assert [stage.verb for stage in alone.manifest.lineage] == ["distill", "distill", "train"]
    assert [stage.arguments["model"] for stage in alone.manifest.lineage] == ["lmu", None, None]
    assert alone.manifest.lineage[-1].arguments["settings"]["learning_rate"] == 6e-3 != Settings().learning_rate
    assert further.manifest.lineage[-1].parent == student.hash
    assert student.manifest.arguments == further.manifest.arguments == alone.manifest.arguments
    with pytest.raises(InputError, match=r"model\.channels cannot be set"):
        taught([first], tmp_path / "s4", start=student.path)


def test_a_quantized_student_learns_from_a_float_teacher_and_stays_quantized(source, tmp_path):
    first = teacher(source, tmp_path / "t")
    small = quantize(first.path, tmp_path / "int8", method="ptq")
    student = taught([first], tmp_path / "s", start=small.path, changes={**SHORT, "distillation.hidden": 1.0})
    assert student.manifest.precision == small.manifest.precision != first.manifest.precision
    assert [stage.verb for stage in student.manifest.lineage] == ["train", "quantize", "distill"]
    assert student.manifest.files != small.manifest.files
    test = trained_on(student).only(["1"])
    written = student.manifest.metrics["test_accuracy"]
    assert evaluate(load_model(student), test).accuracy == pytest.approx(written, abs=1e-6)


def test_a_teacher_of_other_labels_is_refused(source, tmp_path):
    first = teacher(source, tmp_path / "t")
    other = teacher(write_waves(tmp_path / "other.npz", labels=("calm", "quick")), tmp_path / "o")
    with pytest.raises(InputError, match=r"has labels .*but the teacher .*o has .*calm"):
        taught([first, other], tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distillation.sotf": 1}, "Did you mean 'soft'"),
        ({"distillation.hidden": 1.0}, "4 units into the student's read-out, 6 into the teacher's"),
        ({"roundz": 1}, "Did you mean 'rounds'"),
        ({"model.hiden": 1}, "Did you mean 'hidden'"),
    ],
)
def test_settings_are_refused_before_anything_is_written(source, tmp_path, changes, message):
    first = teacher(source, tmp_path / "t")
    with pytest.raises(InputError, match=message):
        taught([first], tmp_path / "s", changes={**SHORT, **SMALL_LMU, **changes})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["t", "waves.npz"]


def test_without_teachers_or_over_an_existing_folder_it_is_refused(source, tmp_path):
    first = teacher(source, tmp_path / "t")
    with pytest.raises(InputError, match="at least one model folder"):
        taught([], tmp_path / "s")
    other = teacher(source, tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="--overwrite"):
        taught([first], other.path)
    with pytest.raises(InputError, match="seed -1"):
        taught([first], tmp_path / "s", seed=-1)


def test_what_a_student_is_made_from_is_never_replaced_by_it(source, tmp_path):
    first, second = (teacher(source, tmp_path / f"t{seed}", seed=seed) for seed in range(2))
    student = taught([first], tmp_path / "s")
    (tmp_path / "link").symlink_to(second.path)
    changes = {"changes": SHORT, "start": student.path, "overwrite": True}
    for out in (second.path, tmp_path / "link", tmp_path / "t0" / ".." / "t1", student.path):
        with pytest.raises(InputError, match="is what the model is made from: name another folder"):
            taught([first, second], out, **changes)
    assert [open_folder(folder.path).hash for folder in (second, student)] == [second.hash, student.hash]


def test_whom_a_teacher_was_chosen_on_the_student_has_seen(source, tmp_path):
    data = {people: write_waves(tmp_path / f"{people}.npz", subjects=people) for people in ("1234", "1345")}
    first, second = teacher(data["1234"], tmp_path / "t"), teacher(data["1345"], tmp_path / "t5", validation="5")
    student = taught([first, second], tmp_path / "s")
    assert student.manifest.split == {"train": ("3", "4", "5"), "validation": ("2",), "test": ("1",)}
    with pytest.raises(InputError, match="'5' cannot be of the test subjects"):
        train(source, tmp_path / "on", start=student.path, test=["5"], validation=["2"], changes=SHORT)


class Stop(Exception):
    pass


def test_an_interrupted_run_is_taken_up_by_the_same_call_only(source, tmp_path):
    first, second = (teacher(source, tmp_path / f"t{seed}", seed=seed) for seed in range(2))

    def stop(ended, steps):
        if ended is not None:
            raise Stop

    whole = taught([first], tmp_path / "whole")
    steps, files = {}, {}
    for name, by in (("same", first), ("other", second)):
        with pytest.raises(Stop):
            taught([first], tmp_path / name, report=stop)
        done = steps[name] = []
        files[name] = taught([by], tmp_path / name, report=lambda _, n, done=done: done.append(n)).manifest.files
    assert steps["same"][0] == SHORT["steps"] + 1
    assert steps["other"][0] == 1
    assert files["same"] == whole.manifest.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same", "t0", "t1", "waves.npz", "whole"]
