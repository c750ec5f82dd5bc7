from __future__ import annotations

import pytest
from msgspec.structs import replace

from edgeseq.devices.report.compare import compare, findings


def row_of(comparison, quantity):
    (change,) = [change for change in comparison.changes if change.quantity == quantity]
    return change


def test_nothing_changed_is_nothing_missed(make_report, make_model):
    found = compare(make_report(make_model()), make_report(make_model()), budget=0, accuracy_budget=0)
    assert len(found.changes) == 5
    assert (found.missed, found.warnings, found.unpaired) == ((), (), ())
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
    assert found.unpaired == (
        "gru in numpy: only in the new report",
        "gone: only in the old report",
        "come: only in the new report",
    )


def test_reports_that_share_nothing_say_so(make_report, make_model):
    found = compare(make_report(make_model("a")), make_report(make_model("b", family="lmu")))
    assert (found.changes, len(found.unpaired)) == ((), 2)
    assert findings(found) == ["Nothing can be compared: the two reports share no measurement."]


def test_times_of_another_machine_are_shown_and_not_judged(make_report, make_model, make_row):
    facts = replace(make_model().facts, model="Raspberry Pi 4", versions={"numpy": "1.26.0"}, governor=None)
    slow = make_model(facts=facts, engines=(make_row(paced=99.0, file_bytes=90_000),))
    found = compare(make_report(make_model()), make_report(slow))
    assert row_of(found, "paced p50, µs").change > 700
    assert [change.quantity for change in found.missed] == ["file, bytes"]
    said = "\n".join(found.warnings)
    assert "DIFFERENT MACHINES: Raspberry Pi 5 Model B Rev 1.0 and Raspberry Pi 4" in said
    assert "DIFFERENT VERSIONS: numpy 2.0.0 and 1.26.0" in said
    assert "DIFFERENT GOVERNORS: performance and not known" in said


def test_accuracies_of_other_people_are_not_compared(make_report, make_model, make_row):
    other = make_model(split={"test": ("p1",)}, engines=(make_row(right=500),))
    found = compare(make_report(make_model()), make_report(other))
    assert "accuracy, %" not in [change.quantity for change in found.changes]
    assert "DIFFERENT TESTS of gru-export" in found.warnings[0]


def test_an_accuracy_that_is_in_one_report_only_is_named(make_report, make_model, make_row):
    unscored = make_model(engines=(make_row(right=None),))
    found = compare(make_report(make_model()), make_report(unscored))
    assert found.unpaired == ("gru-export in LiteRT: its accuracy is only in the old report",)


def test_an_emulated_board_is_compared_by_what_it_has(make_report, make_model, emulated):
    found = compare(make_report(make_model()), make_report(emulated(make_model())))
    assert {change.quantity for change in found.changes} == {"file, bytes", "accuracy, %"}
    assert any(warning.startswith("NO TIMES") for warning in found.warnings)
