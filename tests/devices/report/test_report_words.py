from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from edgeseq.devices.report import tables
from edgeseq.devices.report.document import Baseline
from edgeseq.devices.report.markdown import markdown
from edgeseq.devices.report.numbers import (
    flat,
    machine_name,
    micros,
    more_accurate,
    points,
    precision_name,
    size,
    times,
)
from edgeseq.devices.report.page import page
from edgeseq.devices.report.words import majority, verdicts
from edgeseq.manifest import Link, Precision, Stage
from edgeseq.metrics import Scores


def cells(table, *start):
    """The one row that begins so."""
    (row,) = [row for row in table.rows if row[: len(start)] == start]
    return dict(zip([c.title if not c.group else f"{c.group} {c.title}" for c in table.columns], row, strict=True))


def test_what_one_model_says(make_report, make_model):
    assert verdicts(make_report(make_model())) == [
        "Of 1,000 frames of 2 people never seen in training, gru-export is right in 82.0 %; always naming the most "
        "common label would be right in 50.0 %.",
        "Fastest at the sensor's rate is gru-export in LiteRT: 12.0 µs a step at the median and 24.0 µs at p99, of the "
        "20,000 µs between two frames at 50 Hz.",
        "No answer was late, of 500 paced frames.",
        "What runs is what was trained: the one link of the proof holds.",
        "Times were measured on Raspberry Pi 5 Model B Rev 1.0, 4 cores.",
    ]


def test_one_of_everything_is_singular(make_report, make_model, make_row):
    row = make_row(deadline_misses=1, scores=Scores(1.0, 1.0, 1, ((1, 0), (0, 0))))
    said = "\n".join(verdicts(make_report(make_model(engines=(row,), people=1))))
    assert "Of 1 frame of 1 person never seen" in said
    assert "1 of 500 paced answers came after the next frame was due: gru-export in LiteRT (1 of 500)." in said
    assert "No answer was late" not in said


def test_late_answers_are_counted_once_a_device_with_where_they_were_most_often(make_report, make_model, make_row):
    rows = (make_row(deadline_misses=3), make_row("numpy", deadline_misses=2, paced_frames=10), make_row("onnxruntime"))
    said = [sentence for sentence in verdicts(make_report(make_model(engines=rows))) if "was due" in sentence]
    assert said == [
        "5 of 1,010 paced answers came after the next frame was due, most often gru-export in numpy (2 of 10)."
    ]


def test_how_many_paced_frames_none_was_late_of_is_their_sum_over_models_and_engines(make_report, make_model, make_row):
    rows = (make_row(), make_row("onnxruntime", paced_frames=1000))
    report = make_report(make_model(engines=rows), make_model("other", "e", engines=(make_row(paced_frames=7),)))
    assert "No answer was late, of 1,507 paced frames." in verdicts(report)


def test_weights_of_few_bits_are_compared_with_the_float_model_too(make_report, make_model, quantized):
    source = make_model()
    int8 = quantized(source)
    few = [replace(s, arguments={"method": "qd", "bits": 4}) if s.verb == "quantize" else s for s in int8.lineage]
    small = replace(int8, precision=Precision(), lineage=tuple(few))
    said = "\n".join(verdicts(make_report(source, small)))
    assert "Compared with fp32 (gru-export), 4-bit qd weights, fp32 activations (gru-int8) is" in said


def test_int8_is_compared_with_the_float_model_that_it_was_made_from(make_report, make_model, make_row, quantized):
    source = make_model(engines=(make_row(tight=3.0, paced=12.0, right=820),))
    small = quantized(source, engines=(make_row(tight=3.9, paced=36.0, right=817, file_bytes=30_000),))
    other = make_model("lmu-export", "e")
    report = make_report(other, source, small)
    assert (
        "Compared with fp32 (gru-export), int8 (gru-int8) is 2.3 times smaller; in LiteRT it is 3.0 times slower at "
        "the sensor's rate and 1.3 times slower in a tight loop; it is 0.3 points less accurate."
    ) in verdicts(report)
    assert cells(tables.accuracy(report), "gru-int8", "LiteRT")["points to fp32"] == "−0.3"
    assert not any("int8" in sentence for sentence in verdicts(make_report(other, source)))
    assert not any(sentence.startswith("Compared") for sentence in verdicts(make_report(other, small)))


def test_medians_at_the_sensors_rate_that_the_other_often_reaches_are_not_called_slower(
    make_report, make_model, make_row, quantized
):
    source = make_model(engines=(make_row(tight=3.0, paced=12.0),))
    small = quantized(source, engines=(make_row(tight=3.9, paced=12.5),))
    said = "\n".join(verdicts(make_report(source, small)))
    assert "it is 1.3 times slower in a tight loop, and at the sensor's rate the two cannot be told apart here" in said


def test_a_student_is_compared_with_its_teacher_and_with_itself_untaught(make_report, make_model, make_row, distilled):
    teacher = make_model("teacher", engines=(make_row(tight=6, paced=12, right=850, file_bytes=140_000),))
    student = distilled(teacher, arguments={"hidden": 4}, engines=(make_row(right=840),))
    plain = make_model("plain", "e", arguments={"hidden": 4}, engines=(make_row(right=830),))
    report = make_report(teacher, student, plain)
    said = verdicts(report)
    assert (
        "Compared with its teacher (teacher), the distilled student (student) is 2.0 times smaller; in LiteRT it is "
        "2.0 times faster in a tight loop, and at the sensor's rate the two cannot be told apart here; it is 1 point "
        "less accurate."
    ) in said
    at = said.index(
        "On the 2 people tested, the distilled student is 1 point more accurate than plain, the same model trained "
        "without a teacher."
    )
    assert said[at + 1].startswith("One pair of people does not settle whether a teacher helps")
    assert cells(tables.accuracy(report), "student", "LiteRT")["points to teacher"] == "−1.0"
    both = make_report(teacher, plain, distilled(teacher, plain))
    assert not any("its teacher" in sentence for sentence in verdicts(both))


def test_every_student_is_compared_with_every_untaught_model_that_can_be(make_report, make_model, make_row, distilled):
    student = distilled(make_model("teacher"), arguments={"hidden": 4}, split={"test": ("p4",)}, metrics={})
    seeds = [
        make_model(f"seed{n}", "ef"[n], arguments={"hidden": 4}, split={"test": ("p4",)}, engines=(make_row(right=r),))
        for n, r in enumerate((800, 825))
    ]
    large = make_model("large", "f", arguments={"hidden": 9}, parameters=99, split={"test": ("p4",)})
    said = "\n".join(verdicts(make_report(student, *seeds, large)))
    assert "On the 1 person tested, the distilled student is 2 points more accurate than seed0, the same model" in said
    assert "the distilled student is 0.5 points less accurate than seed1, the same model" in said
    assert "large, " not in said.partition("the distilled student is")[2]
    assert said.count("One person does not settle whether a teacher helps") == 1
    said = "\n".join(verdicts(make_report(student, large)))
    assert (
        "the distilled student is as accurate as large, a model of its family with other settings, of 99 parameters "
        "and not 1,234, trained without a teacher." in said
    )
    others = [replace(model, split={"test": ("p5",)}) for model in seeds]
    assert "settle" not in "\n".join(verdicts(make_report(student, *others)))
    second = distilled(make_model("teacher"), name="second", letter="d", arguments={"hidden": 4}, split=student.split)
    said = "\n".join(verdicts(make_report(student, second, *seeds)))
    assert said.count("the same model trained without a teacher") == 4
    assert said.count("does not settle") == 1


def test_a_teacher_that_is_not_in_the_report_is_compared_as_torch_measured_it(
    make_report, make_model, make_row, distilled, quantized
):
    teacher = make_model("teacher")
    measured = {"test_accuracy": 0.82, "teacher_test_accuracy": 0.85}
    student = distilled(teacher, metrics=measured)
    small = quantized(student, name="small", metrics={"test_accuracy": 0.81})
    report = make_report(student, small)
    said = verdicts(report)
    right = "its teacher, which was right in 85.0 %, both as measured in torch."
    assert f"The distilled student is 3 points less accurate than {right}" in said
    assert f"The distilled small is 4 points less accurate than {right}" in said
    taught = cells(tables.accuracy(report), "teacher, as measured in torch")
    assert (taught["percent accuracy"], taught["percent macro-F1"]) == ("(85.0)", "–")
    assert "In brackets" in tables.accuracy(report).notes[-1]
    assert not any("as measured in torch" in sentence for sentence in verdicts(make_report(teacher, student)))
    plain = make_model("plain", "e", engines=(make_row(right=None),), metrics={"test_accuracy": 0.8})
    said = "\n".join(verdicts(make_report(student, plain)))
    assert "is 2 points more accurate than plain, the same model trained without a teacher, both as measured in" in said


def test_several_teachers_have_a_row_each(make_report, make_model, distilled):
    one, two = make_model("one", "e"), make_model("two", "f")
    metrics = [{"test_accuracy": 0.82, "teacher_test_accuracy": right} for right in (0.8, 0.9)]
    students = distilled(one, metrics=metrics[0]), distilled(one, two, name="both", letter="d", metrics=metrics[1])
    report = make_report(*students)
    assert any("than the mean of its 2 teachers, which was right in 90.0 %" in said for said in verdicts(report))
    rows = [row[:3] for row in tables.accuracy(report).rows if row[0].startswith("teacher")]
    assert [(row[0], row[2]) for row in rows] == [
        ("teacher one, as measured in torch", "(80.0)"),
        ("teacher one and two, as measured in torch", "(90.0)"),
    ]


def test_int8_that_was_tuned_to_answer_as_its_float_model_has_no_teacher(make_report, make_model, quantized, distilled):
    source = make_model()
    stage = quantized(source).lineage[-2]
    own = replace(stage, arguments={"teachers": [{"name": "gru", "hash": stage.parent}]})
    tuned = quantized(source, lineage=(source.lineage[0], own, source.lineage[-1]))
    student = quantized(distilled(make_model("t", "e")), name="small", letter="f")
    said = "\n".join(verdicts(make_report(source, tuned, student)))
    assert "Compared with fp32 (gru-export), int8 (gru-int8)" in said
    assert "its teacher" not in said
    assert "the distilled small is as accurate as gru-int8, the same model trained without a teacher" in said


def test_scores_of_other_people_are_not_set_side_by_side(make_report, make_model, quantized):
    source = make_model()
    moved = quantized(source, split={"train": ("p4",), "validation": ("p3",), "test": ("p1",)}, people=1)
    said = verdicts(make_report(source, moved))
    assert sum(sentence.startswith("Of 1,000 frames of") for sentence in said) == 2
    (compared,) = [sentence for sentence in said if sentence.startswith("Compared")]
    assert "accurate" not in compared


def test_times_of_other_machines_are_not_set_side_by_side(make_report, make_model, quantized):
    source = make_model()
    host = replace(source.facts, machine="x86_64", model="Intel(R) Xeon(R) CPU @ 2.60GHz", device_tree=False, cores=1)
    said = verdicts(make_report(source, quantized(source, facts=host, provenance="host")))
    (compared,) = [sentence for sentence in said if sentence.startswith("Compared")]
    assert "slower" not in compared
    assert "fast" not in compared
    assert "Times are those of Intel Xeon, 1 core: a computer, not a board. They do not carry over to one." in said
    assert said[-1].startswith("These are different machines")


def test_an_emulated_board_has_no_times_anywhere(make_report, make_model, emulated):
    report = make_report(emulated(make_model()))
    said = "\n".join(verdicts(report))
    assert "is emulated: no times are shown" in said
    assert "Fastest" not in said
    assert "answer" not in said
    for table in (tables.latency(report), tables.running(report), tables.glance(report)):
        shown = dict(zip(table.columns, table.rows[0], strict=True))
        assert {cell for column, cell in shown.items() if "µs" in column.group or "ms" in column.title} == {"–"}
    assert "An emulated board has no times" in " ".join(tables.latency(report).notes)


def test_a_board_that_slowed_itself_down_is_said(make_report, make_model):
    hot = replace(make_model().facts, throttled="50000")
    assert "It had slowed itself down (throttle bits 50000)" in verdicts(make_report(make_model(facts_at_end=hot)))[-1]
    assert "slowed" not in verdicts(make_report(make_model(facts=replace(hot, throttled="0x0"))))[-1]


def test_what_was_not_scored_says_why_and_what_the_training_found(make_report, make_model, make_row):
    model = make_model(engines=(make_row(right=None),), unscored="the data is gone")
    report = make_report(model)
    assert verdicts(report)[0] == (
        "The accuracy of gru-export was not measured here: the data is gone; at training, torch found 82.0 %."
    )
    row = cells(tables.accuracy(report), "gru-export", "LiteRT")
    assert (row["percent accuracy"], row["percent macro-F1"]) == ("(82.0)", "(80.0)")
    assert cells(tables.accuracy(report), "most common label")["percent accuracy"] == "(50.0)"
    assert "In brackets" in tables.accuracy(report).notes[-1]


def test_the_baselines_stand_beside_the_models_or_say_why_not(make_report, make_model):
    forest = Baseline(name="random forest", models=("gru-export",), plain=Scores(0.8, 0.79, 100, ((80, 20), (0, 0))))
    report = make_report(make_model(), baselines=(forest,))
    assert "a random forest in 80.0 %" in verdicts(report)[0]
    assert cells(tables.accuracy(report), "random forest")["percent macro-F1"] == "79.0"
    gone = replace(forest, plain=None, missing="scikit-learn is not installed")
    report = make_report(make_model(), baselines=(gone,))
    assert not [row for row in tables.accuracy(report).rows if row[0] == "random forest"]
    assert "There is no random forest to compare with: scikit-learn is not installed." in tables.accuracy(report).notes


def test_a_failed_or_missing_proof_is_said(make_report, make_model):
    failed = Link("onnxruntime free-running", 2400, 0.5, 1e-4, False)
    said = "\n".join(verdicts(make_report(make_model(proof=(failed,)))))
    assert "The proof fails: onnxruntime free-running of gru-export. What would run is not what was trained." in said
    assert tables.glance(make_report(make_model(proof=(failed,)))).rows[0][-1] == "FAILS"
    assert "There is no proof in gru-export" in "\n".join(verdicts(make_report(make_model(proof=()))))


@pytest.mark.parametrize(
    ("gate", "error", "allowed"),
    [("values", "2.0e-03", "5e-03"), ("answers", "0.20 %", "0.50 %"), ("count", "0.002", "0.005")],
)
def test_a_link_is_shown_as_its_gate_counts(make_model, gate, error, allowed):
    table = tables.proof(make_model(proof=(Link("litert", 2400, 0.002, 0.005, True, gate=gate),)))
    assert (cells(table, "litert")["error"], cells(table, "litert")["allowed"]) == (error, allowed)


def test_what_counts_no_frames_shows_a_dash(make_report, make_model, make_row):
    links = (Link("litert integer layers", 0, 0.0, 0.0, True, gate="count"), Link("x", 0, 0.0, 0.0, True))
    empty = make_row(paced_frames=0, scores=Scores(0.0, 0.0, 0, ((0, 0), (0, 0))))
    model = make_model(proof=links, engines=(empty,))
    assert [row[1] for row in tables.proof(model).rows] == ["–", "–"]
    report = make_report(model)
    assert cells(tables.running(report), "gru-export", "LiteRT")["late"] == "–"
    assert cells(tables.accuracy(report), "gru-export", "LiteRT")["percent accuracy"] == "(82.0)"
    assert verdicts(report)[0].startswith("The accuracy of gru-export was not measured here")
    assert not re.search(r"\bnan\b", page(report) + markdown(report))


def test_every_stage_shows_where_from_and_how(make_report, make_model, distilled, quantized):
    teacher = make_model("teacher")
    student = distilled(teacher)
    report = make_report(quantized(student, name="small"))
    rows = [cells(tables.stages(report), "small", verb) for verb in ("distill", "quantize", "export")]
    assert rows[0]["from"] == f"teacher teacher {'A' * 12}, people"
    assert (rows[1]["from"], rows[1]["with"]) == (f"folder {'C' * 12}", "method qat")
    assert rows[2]["with"] == "formats tflite,onnx"


def test_the_majority_is_what_always_naming_one_label_comes_to():
    share, f1 = majority(Scores(0.0, 0.0, 10, ((0, 6, 0), (4, 0, 0), (0, 0, 0))))
    assert share == 0.6
    assert f1 == pytest.approx((2 * 6 / (6 + 10)) / 2)


def test_numbers_are_written_for_people():
    assert [micros(value) for value in (None, 3.14159, 99.94, 99.96, 12345.6)] == ["–", "3.1", "99.9", "100", "12,346"]
    assert [size(value) for value in (None, 999, 1000, 999_949, 999_950)] == [
        "–",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
    ]
    assert [points(value) for value in (None, 0.04, -0.04, 1.25, -3.0)] == ["–", "0.0", "0.0", "+1.2", "−3.0"]
    assert [more_accurate(value) for value in (0.02, 1.0, -2.5)] == [
        "as accurate",
        "1 point more accurate",
        "2.5 points less accurate",
    ]
    words = ("smaller", "larger", "as large")
    assert times(100, 102, *words) == "as large"
    assert times(100, 105, *words) == "1.05 times larger"
    assert times(100, 50, *words) == "2.0 times smaller"
    assert times(100, 1234, *words) == "12 times larger"
    names = [Precision(), Precision("int8", "int8", "float32"), Precision("int8", "int8", "int16"), Precision("int8")]
    assert [precision_name(p) for p in names] == ["fp32", "int8", "int8, int16 state", "int8 weights, fp32 activations"]
    few = [Stage("train", {}, {}), Stage("quantize", {"method": "qd", "bits": 2}, {}), Stage("export", {}, {})]
    assert precision_name(Precision(), few) == "2-bit qd weights, fp32 activations"
    assert precision_name(Precision(), [*few, Stage("train", {}, {})]) == "fp32"


def test_a_machine_is_named_without_marks_of_trade(make_model):
    facts = make_model().facts
    assert machine_name(replace(facts, model="Intel(R) Core(TM) i7 CPU @ 3.00GHz")) == "Intel Core i7"
    assert machine_name(replace(facts, model=None)) == "aarch64"


def test_arguments_are_shown_flat_and_short():
    given = {
        "a": {"b": 0.10000000000000001, "c": None},
        "on": True,
        "sizes": [1, 2],
        "hash": "f" * 64,
        "made": [{"x": "y"}],
    }
    assert flat(given) == [("a.b", "0.1"), ("on", "yes"), ("sizes", "1, 2"), ("hash", "f" * 12), ("made", "y")]
