from __future__ import annotations

import pytest
from msgspec.structs import replace

from edgeseq.devices.conditions import Conditions
from edgeseq.devices.report.compare import compare, findings
from edgeseq.errors import InputError
from edgeseq.manifest import Link, Precision, Stage

LINK = Link("litert free-running", 2400, 1e-7, 1e-4, True)


def row_of(comparison, quantity):
    (change,) = [change for change in comparison.changes if change.quantity == quantity]
    return change


def test_nothing_changed_is_nothing_missed(make_report, make_model):
    found = compare(make_report(make_model()), make_report(make_model()), budget=0, accuracy_budget=0)
    assert len(found.changes) == 5
    assert (found.missed, found.lost, found.warnings, found.uncompared) == ((), (), (), ())
    assert found.passed
    assert findings(found) == ["Nothing got slower, larger or worse."]


@pytest.mark.parametrize(
    ("changed", "quantity", "said"),
    [
        ({"paced": 13.5}, "paced p50, µs", "gru-export in LiteRT: paced p50 is 12.5 % slower (12.0 to 13.5 µs)"),
        ({"tight": 6.0}, "tight p50, µs", "tight p50 is 100.0 % slower (3.0 to 6.0 µs)"),
        ({"file_bytes": 84_000}, "file, bytes", "file is 20.0 % larger (70,000 to 84,000 bytes)"),
        ({"right": 805}, "accuracy, %", "is 1.5 points less accurate (82.0 to 80.5 %)"),
    ],
)
def test_more_than_the_budget_is_missed_and_less_is_not(make_report, make_model, make_row, changed, quantity, said):
    old, new = make_report(make_model()), make_report(make_model(engines=(make_row(**changed),)))
    found = compare(old, new)
    assert quantity in [change.quantity for change in found.missed]
    assert any(sentence.startswith("Over the budget: ") and said in sentence for sentence in findings(found))
    generous = compare(old, new, budget=200, accuracy_budget=5)
    assert generous.missed == ()
    assert any(sentence.startswith("Within it: ") and said in sentence for sentence in findings(generous))
    assert row_of(compare(new, old), quantity).missed is False
    assert row_of(compare(new, old), quantity).worse is False


def test_a_tail_is_shown_and_not_judged(make_report, make_model, make_row):
    row = make_row()
    slower = replace(row, paced=replace(row.paced, quantiles=replace(row.paced.quantiles, p99=900.0)))
    found = compare(make_report(make_model()), make_report(make_model(engines=(slower,))))
    assert row_of(found, "paced p99, µs").change == pytest.approx(3650)
    assert found.missed == ()
    assert findings(found) == ["Not judged: gru-export in LiteRT: paced p99 is 3,650.0 % slower (24.0 to 900 µs)."]


def test_models_are_paired_by_name_then_by_variant_and_the_rest_is_named(make_report, make_model, make_row, quantized):
    gru = make_model("gru")
    both = (make_row(), make_row("numpy", right=None))
    old = make_report(gru, quantized(gru, name="small"), make_model("gone", "e", family="lmu"))
    new = make_report(
        make_model("gru", engines=both), quantized(gru, name="tiny"), make_model("come", "f", family="s4d")
    )
    found = compare(old, new)
    assert {change.model for change in found.changes} == {"gru", "small → tiny"}
    assert found.uncompared == (
        "gru in numpy, only in the new report",
        "gone, only in the old report",
        "come, only in the new report",
    )
    assert findings(found) == [
        "Nothing that was compared got slower, larger or worse.",
        "Not compared: gru in numpy, only in the new report.",
        "Not compared: gone, only in the old report.",
        "Not compared: come, only in the new report.",
    ]
    assert found.passed


@pytest.mark.parametrize(
    "changed",
    [
        {"split": {"test": ("p1",)}},
        {"split": {}},
        {"lineage": (Stage("train", {}, {}, 0, "people", "e" * 64),)},
        {"precision": Precision("int8", "int8")},
        {"family": "lmu"},
    ],
)
def test_models_of_other_names_are_only_paired_where_variant_and_test_are_the_same(make_report, make_model, changed):
    old = make_report(make_model("before"))
    assert {change.model for change in compare(old, make_report(make_model("after"))).changes} == {"before → after"}
    with pytest.raises(
        InputError, match=r"nothing to compare: the old report is of before \(rnn, fp32\), the new one of"
    ):
        compare(old, make_report(make_model("after", **changed)))
    turned = make_model("after", split={**make_model().split, "test": ("p5", "p4")})
    assert compare(old, make_report(turned)).changes
    named = compare(old, make_report(make_model("before", **changed)))
    assert {change.model for change in named.changes} == {"before"}


def test_reports_that_share_no_model_are_refused_with_both_sides(make_report, make_model):
    with pytest.raises(InputError, match=r"old report is of a \(rnn, fp32\), the new one of b \(lmu, fp32\) and c"):
        compare(make_report(make_model("a")), make_report(*(make_model(name, family="lmu") for name in "bc")))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"proof": ()}, "the proof of gru-export: it held, and there is none now"),
        ({"proof": (replace(LINK, passed=False),)}, "the proof of gru-export fails: litert free-running"),
        ({"proof": (LINK, Link("numpy", 9, 1.0, 0.0, False))}, "the proof of gru-export fails: numpy"),
    ],
)
def test_a_proof_that_held_and_does_not_any_more_is_lost(make_report, make_model, changed, said):
    old, new = make_report(make_model(proof=(LINK,))), make_report(make_model(**changed))
    found = compare(old, new, budget=1000, accuracy_budget=100)
    assert (found.lost, found.missed, found.passed) == ((said,), (), False)
    assert findings(found)[0] == f"Lost: {said}."
    assert not any(sentence.startswith("Nothing") for sentence in findings(found))
    assert compare(new, new).passed


def test_a_proof_that_is_in_one_report_or_none_is_not_compared(make_report, make_model):
    with_one, without = make_report(make_model(proof=(LINK,))), make_report(make_model(proof=()))
    two = make_report(make_model(proof=(LINK, replace(LINK, name="numpy"))))
    assert compare(without, without).uncompared == ("the proof of gru-export, in neither report",)
    assert compare(without, with_one).uncompared == ("the proof of gru-export, only in the new report",)
    assert compare(two, with_one).uncompared == ("numpy in the proof of gru-export, only in the old report",)


def test_an_engine_that_was_there_is_lost(make_report, make_model, make_row):
    both, one = make_model(engines=(make_row(), make_row("onnxruntime"))), make_model()
    found = compare(make_report(both), make_report(one))
    assert found.lost == ("gru-export in ONNX Runtime: only the old report has this engine",)
    assert not found.passed
    other = compare(make_report(one), make_report(make_model(engines=(make_row("onnxruntime"),))))
    assert (other.changes, other.passed) == ((), False)
    assert findings(other) == [
        "Lost: gru-export in LiteRT: only the old report has this engine.",
        "Not compared: gru-export in ONNX Runtime, only in the new report.",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "Raspberry Pi 4"}, "Raspberry Pi 5 Model B Rev 1.0 and Raspberry Pi 4"),
        ({"cores": 2}, "4 cores and 2 cores"),
        ({"core": "Cortex-A72"}, "Cortex-A76 and Cortex-A72"),
        ({"memory_bytes": 4_000_000_000}, "8 GB and 4 GB"),
        ({"machine": "armv7l"}, "aarch64 and armv7l"),
        ({"python_bits": 32}, "64 bits and 32 bits"),
    ],
)
def test_times_of_another_machine_are_not_compared(make_report, make_model, make_row, changed, said):
    facts = replace(make_model().facts, core="Cortex-A76", memory_bytes=8_320_000_000, python_bits=64)
    slow = (make_row(paced=99.0, file_bytes=90_000),)
    other = replace(facts, **changed, versions={"numpy": "1.26.0"}, governor=None)
    found = compare(
        make_report(make_model(facts=facts)), make_report(make_model(facts=other, engines=slow)), budget=1000
    )
    assert {change.quantity for change in found.changes} == {"file, bytes", "accuracy, %"}
    assert found.uncompared == (f"the times of gru-export: they are of two machines ({said})",)
    assert "slower" not in " ".join(findings(found))
    warned = "\n".join(found.warnings)
    assert f"DIFFERENT MACHINES: {said}. Their times are not compared" in warned
    assert "DIFFERENT VERSIONS: numpy 2.0.0 and 1.26.0" in warned
    assert "DIFFERENT GOVERNORS: performance and not known" in warned


def test_two_boards_of_one_model_with_two_names_are_two_machines(make_report, make_model):
    found = compare(make_report(make_model(device="kitchen")), make_report(make_model(device="attic")))
    assert found.uncompared == ("the times of gru-export: they are of two machines (kitchen and attic)",)


@pytest.mark.parametrize("names", [("kitchen", ""), ("", "kitchen")])
def test_a_board_that_measured_itself_without_a_name_is_the_board_with_one(make_report, make_model, make_row, names):
    slow = make_model(device=names[1], engines=(make_row(paced=99.0),))
    found = compare(make_report(make_model(device=names[0])), make_report(slow))
    assert [change.quantity for change in found.missed] == ["paced p50, µs"]
    assert (found.uncompared, found.warnings) == ((), ())
    other = replace(slow, facts=replace(slow.facts, model="Raspberry Pi 4"))
    found = compare(make_report(make_model(device=names[0])), make_report(other))
    said = "they are of two machines (Raspberry Pi 5 Model B Rev 1.0 and Raspberry Pi 4)"
    assert found.uncompared == (f"the times of gru-export: {said}",)


def test_what_an_older_report_does_not_say_of_a_machine_is_no_difference(make_report, make_model):
    model = make_model()
    facts = replace(model.facts, core="Cortex-A76", memory_bytes=8_320_000_000, python_bits=64)
    rebooted = replace(facts, memory_bytes=8_310_000_000, kernel="6.7", clock_mhz=1500.0, temperature_c=60.0)
    for one, other in ((model.facts, facts), (facts, rebooted)):
        found = compare(make_report(replace(model, facts=one)), make_report(replace(model, facts=other)))
        assert (found.uncompared, found.warnings) == ((), ())


@pytest.mark.parametrize("fact", [{"version": "2.2.0"}, {"threads": 4}])
def test_times_of_another_version_of_a_runtime_are_shown_and_not_judged(make_report, make_model, make_row, fact):
    old = make_row(facts={"runtime": "litert", "version": "2.1.0", "threads": 1})
    new = make_row(paced=99.0, file_bytes=90_000, facts={**old.facts, **fact})
    found = compare(make_report(make_model(engines=(old,))), make_report(make_model(engines=(new,))))
    assert row_of(found, "paced p50, µs").change > 700
    assert [change.quantity for change in found.missed] == ["file, bytes"]
    assert any(sentence.startswith("Not judged: gru-export in LiteRT: paced p50") for sentence in findings(found))


@pytest.mark.parametrize(
    ("old", "new", "warned"),
    [
        ({"conditions": Conditions(pin=(3,))}, {}, "DIFFERENT CONDITIONS: pinned to 3 and not pinned; times under"),
        (
            {"conditions": Conditions(priority="fifo:50")},
            {"conditions": Conditions(pin=(2, 3), priority="-5")},
            "DIFFERENT CONDITIONS: not pinned and pinned to 2,3; priority fifo:50 and priority -5; times under",
        ),
        ({"throttled": "too hot"}, {}, "THROTTLED: too hot, in the old report of gru-export; times of a machine that"),
        ({}, {"throttled": "too hot"}, "THROTTLED: too hot, in the new report of gru-export; times of a machine that"),
    ],
)
def test_times_under_other_conditions_or_while_throttled_are_shown_and_not_judged(
    make_report, make_model, make_row, old, new, warned
):
    slow = (make_row(paced=99.0, tight=99.0, file_bytes=90_000),)
    found = compare(make_report(make_model(**old)), make_report(make_model(**new, engines=slow)))
    assert row_of(found, "paced p50, µs").change > 700
    assert [change.quantity for change in found.missed] == ["file, bytes"]
    (warning,) = found.warnings
    assert warning.startswith(warned)
    assert warning.endswith("are shown, not judged")
    assert any(sentence.startswith("Not judged: gru-export in LiteRT: paced p50") for sentence in findings(found))


def test_times_under_the_same_conditions_are_judged(make_report, make_model, make_row):
    one = make_model(conditions=Conditions(pin=(3,), priority="-5", warm_up_calls=30))
    other = replace(one, conditions=replace(one.conditions, warm_up_calls=10), engines=(make_row(paced=99.0),))
    found = compare(make_report(one), make_report(other))
    assert [change.quantity for change in found.missed] == ["paced p50, µs"]
    assert found.warnings == ()


def test_accuracies_of_other_people_are_not_compared(make_report, make_model, make_row):
    other = make_model(split={"test": ("p1",)}, engines=(make_row(right=500),))
    found = compare(make_report(make_model()), make_report(other))
    assert "accuracy, %" not in [change.quantity for change in found.changes]
    assert "DIFFERENT TESTS of gru-export" in found.warnings[0]
    assert findings(found) == [
        "Nothing that was compared got slower or larger.",
        "Not compared: the accuracy of gru-export, not measured on one test.",
    ]


def test_an_accuracy_that_was_there_is_lost_and_a_new_one_is_not_compared(make_report, make_model, make_row):
    scored = make_report(make_model())
    unscored = make_report(make_model(engines=(make_row(right=None),), unscored="the data is gone"))
    found = compare(scored, unscored)
    assert found.lost == ("the accuracy of gru-export in LiteRT: only the old report has it (the data is gone)",)
    assert not found.passed
    found = compare(unscored, scored)
    assert (found.passed, found.uncompared) == (True, ("the accuracy of gru-export in LiteRT, only in the new report",))
    found = compare(unscored, unscored)
    assert (found.passed, found.uncompared) == (True, ("the accuracy of gru-export, in neither report",))


def test_of_an_emulated_device_the_times_are_said_not_to_be_compared(make_report, make_model, emulated):
    local, there = make_report(make_model()), make_report(emulated(make_model(device="virt")))
    for old, new in ((local, there), (there, local)):
        found = compare(old, new)
        assert {change.quantity for change in found.changes} == {"file, bytes", "accuracy, %"}
        assert any(warning.startswith("NO TIMES") for warning in found.warnings)
        assert findings(found) == [
            "Nothing that was compared got larger or worse.",
            "Not compared: the times of gru-export: virt is emulated and has none.",
        ]


def test_rates_that_differ_are_said(make_report, make_model):
    found = compare(make_report(make_model()), make_report(make_model(rate=25.0)))
    assert found.uncompared == ("the times of gru-export: they are of two rates (50 and 25 Hz)",)
    assert "DIFFERENT RATES: 50 Hz and 25 Hz; times are not compared" in found.warnings
