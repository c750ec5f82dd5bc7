"""A report over several devices: each beside the others, what slowed down marked, what is emulated without times."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from edgeseq.devices.board.power import Rail
from edgeseq.devices.report import tables
from edgeseq.devices.report.across import FASTEST, SLOWED, across
from edgeseq.devices.report.compare import compare
from edgeseq.devices.report.machines import machines
from edgeseq.devices.report.markdown import markdown
from edgeseq.devices.report.numbers import NONE
from edgeseq.devices.report.page import page, plots, plots_beside
from edgeseq.devices.report.table import Table
from edgeseq.devices.report.views import by_folder, devices, on_device
from edgeseq.devices.report.words import title, verdicts


@pytest.fixture
def on(make_model):
    """``on(model, device, **changes)``: the model as it was measured there."""

    def make(model, device, **changes):
        facts = replace(model.facts, model=f"Board of {device}")
        return replace(model, device=device, facts=facts, facts_at_end=facts, **changes)

    return make


@pytest.fixture
def two(make_report, make_model, make_row, quantized, on):
    """A float model and its int8 one on two boards, the second of which runs one engine more."""
    plain = make_model()
    small = quantized(plain, engines=(make_row(tight=2.0, paced=8.0, file_bytes=30_000, right=810),))
    slow = (make_row(tight=9.0, paced=40.0), make_row("numpy", tight=90.0, paced=200.0, right=None))
    return make_report(
        on(plain, "pi5"),
        on(plain, "pi4", engines=slow),
        on(small, "pi5"),
        on(small, "pi4", engines=(make_row(tight=9.0, paced=40.0, file_bytes=30_000, right=810),)),
    )


def shown(table: Table) -> list[dict[str, str]]:
    names = [f"{column.group} {column.title}".strip() for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def test_each_device_has_its_rows_together_and_its_own_fastest_marked(two):
    rows = shown(across(two))
    five, four = "pi5 (measured-on-device)", "pi4 (measured-on-device)"
    assert [(row["device"], row["model"], row["engine"], row["marks"]) for row in rows] == [
        (five, "gru-export", "LiteRT", NONE),
        (five, "gru-int8", "LiteRT", FASTEST),
        (four, "gru-export", "LiteRT", FASTEST),
        (four, "gru-export", "numpy", NONE),
        (four, "gru-int8", "LiteRT", NONE),
    ]
    assert [row["paced, µs p50"] for row in rows] == ["12.0", "8.0", "40.0", "200", "40.0"]
    assert {row["precision"] for row in rows} == {"fp32", "int8"}


def test_one_device_has_no_table_of_devices(make_report, make_model):
    report = make_report(make_model(), make_model("other", "b"))
    assert across(report).rows == ()
    assert plots_beside(report) == []
    for content in (page(report), markdown(report)):
        assert "beside each other" not in content
    for table in (tables.glance(report), tables.latency(report), tables.running(report), tables.engines(report)):
        assert "device" not in [column.title for column in table.columns]


def test_a_run_that_slowed_down_is_marked_with_why(make_report, make_model, on):
    why = "under-voltage in 2 of 5 readings"
    report = make_report(on(make_model(), "pi5"), on(make_model(), "pi4", throttled=why))
    assert [row["marks"] for row in shown(across(report))] == [NONE, SLOWED]
    assert f"pi4 slowed itself down while it measured gru-export: {why}." in across(report).notes
    assert f"Times were measured on pi4 (Board of pi4), 4 cores. It had slowed itself down ({why})" in " ".join(
        verdicts(report)
    )
    assert "LiteRT, pi4 (slowed down)</text>" in page(report)


def test_bits_that_were_set_since_boot_do_not_mark_a_run_that_did_not_slow_down(make_report, make_model, on):
    model = make_model()
    long_ago = replace(model.facts, throttled="50000", throttle=("throttled since boot",))
    report = make_report(on(model, "pi5"), replace(model, device="pi4", facts=long_ago, facts_at_end=long_ago))
    assert "marks" not in shown(across(report))[0]
    assert "slowed itself" not in " ".join(verdicts(report))


def test_an_emulated_device_has_dashes_and_its_place(make_report, make_model, on, emulated):
    report = make_report(on(make_model(), "pi5"), emulated(on(make_model(), "virt")))
    row = shown(across(report))[1]
    assert {value for name, value in row.items() if "µs" in name} == {NONE}
    assert row["device"] == "virt (emulated-functional)"
    assert "An emulated device has no times: its clock is that of another machine." in across(report).notes
    assert "LiteRT, virt (no times)</text>" in page(report)
    assert [plot.model for plot in plots(report)] == ["gru-export on pi5"]
    alone = make_report(emulated(on(make_model(), "virt")), emulated(on(make_model(), "raspi3b")))
    assert plots_beside(alone) == []


def test_what_is_of_a_folder_is_said_once(two):
    said = verdicts(two)
    assert sum(sentence.startswith("Of 1,000 frames") for sentence in said) == 1
    assert (
        sum(sentence.startswith("Compared with fp32 (gru-export), int8 (gru-int8) is 2.3 times") for sentence in said)
        == 1
    )
    assert "What runs is what was trained: all 2 links of the proof hold." in said
    whole = by_folder(two)
    assert [model.name for model in whole.models] == ["gru-export", "gru-int8"]
    assert [row.engine for row in whole.models[0].engines] == ["litert", "numpy"]
    assert len([row for row in tables.accuracy(two).rows if row[0] == "gru-export"]) == 2
    assert len(tables.sizes(two).rows) == 2
    assert len(tables.stages(two).rows) == len(tables.stages(on_device(two, "pi5")).rows)
    assert markdown(two).count("litert free-running") == 2
    assert title(two) == "gru-export and gru-int8 on pi5 and pi4"


def test_each_device_says_what_int8_gains_there(two):
    said = " ".join(verdicts(two))
    assert "On pi5, compared with gru-export, gru-int8 in LiteRT is 1.5 times faster in a tight loop" in said
    assert "On pi4, compared with gru-export, gru-int8 in LiteRT is as fast in a tight loop" in said
    assert "Fastest at the sensor's rate on pi5 is gru-int8" in said
    assert "Fastest at the sensor's rate on pi4 is gru-export" in said
    assert "These are different machines" in said
    models = [f"gru-{name} on {device}" for name, device in (("export", "pi5"), ("export", "pi4"), ("int8", "pi5"))]
    assert list(dict.fromkeys(row["model"] for row in shown(tables.latency(two))))[:3] == models


def test_both_pages_show_every_device(two):
    assert devices(two) == ["pi5", "pi4"]
    content = page(two)
    assert content.count("<svg") == 4 + 2
    assert [plot.model for plot in plots_beside(two)] == ["gru-export", "gru-int8"]
    assert "On pi4: Durations of a step of gru-export" in plots_beside(two)[0].said
    for shown_on in (content, markdown(two)):
        assert "Devices beside each other" in shown_on
        assert "gru-export on pi4" in shown_on
        assert "Board of pi4" in shown_on
    ids = re.findall(r'\bid="([^"]*)"', content)
    assert len(ids) == len(set(ids))


def test_a_device_is_compared_with_itself(two, make_row):
    slower = tuple(
        replace(model, engines=(make_row(tight=9.0, paced=80.0), *model.engines[1:]))
        if (model.device, model.name) == ("pi4", "gru-export")
        else model
        for model in two.models
    )
    found = compare(two, replace(two, models=slower))
    assert [(change.model, change.quantity) for change in found.missed] == [("gru-export on pi4", "paced p50, µs")]
    assert found.warnings == ()
    gone = compare(two, on_device(two, "pi5"))
    assert {change.model for change in gone.changes} == {"gru-export on pi5", "gru-int8 on pi5"}
    assert gone.uncompared == ("gru-export on pi4, only in the old report", "gru-int8 on pi4, only in the old report")
    assert gone.missed == ()


def test_two_boards_of_one_model_are_two_machines(make_report, make_model, make_row, quantized):
    """Each has measured one of the two folders: how much faster is int8 nobody has measured."""
    plain, fast = make_model(device="kitchen"), (make_row(tight=1.0, paced=2.0, file_bytes=30_000),)
    said = " ".join(verdicts(make_report(plain, quantized(plain, device="attic", engines=fast))))
    assert "int8 (gru-int8) is 2.3 times smaller" in said
    assert "faster" not in said.replace("what is said to be faster", "")
    assert "Fastest at the sensor's rate on kitchen is gru-export" in said
    assert "Fastest at the sensor's rate on attic is gru-int8" in said


def test_times_of_an_engine_that_only_another_device_ran_do_not_enter_a_ratio(
    make_report, make_model, make_row, quantized, on
):
    plain = make_model()
    small = quantized(plain, engines=(make_row("numpy", tight=1.0, paced=2.0, right=None),))
    elsewhere = on(plain, "pi4", engines=(make_row("numpy", tight=90.0, paced=200.0, right=None),))
    report = make_report(on(plain, "pi5"), elsewhere, on(small, "pi5"))
    assert "times faster" not in " ".join(verdicts(report))
    (borrowed,) = [row for row in by_folder(report).models[0].engines if row.engine == "numpy"]
    assert borrowed.paced.quantiles.p50 is borrowed.tight.quantiles.p50 is borrowed.load_ms is None


def test_a_ratio_is_said_of_every_device_that_measured_both_by_its_name(make_report, make_model, quantized, on):
    """The first device of each folder is another; both folders were measured on the second."""
    plain = make_model()
    small = quantized(plain)
    said = verdicts(make_report(on(plain, "pi5"), on(plain, "pi4"), on(small, "pi4")))
    speeds = [sentence for sentence in said if "as fast in a tight loop" in sentence]
    assert len(speeds) == 1
    assert speeds[0].startswith("On pi4, compared with gru-export, gru-int8 in LiteRT is as fast")


def test_a_ratio_is_of_one_version_of_the_runtime(make_report, make_model, make_row, quantized):
    old, new = ({"runtime": "litert", "version": version} for version in ("2.1.0", "2.2.0"))
    plain = make_model(engines=(make_row(facts=old),))
    for facts, compared in ((old, True), (new, False)):
        small = quantized(plain, engines=(make_row(tight=1.0, paced=2.0, facts=facts),))
        assert ("3.0 times faster in a tight loop" in " ".join(verdicts(make_report(plain, small)))) is compared


def test_when_it_was_measured_is_said_where_the_bench_says_it(make_report, make_model, on):
    report = make_report(on(make_model(), "pi5", measured="2025-11-23T01:58:07+01:00"), on(make_model(), "pi4"))
    with_time, without = machines(report)
    assert with_time.notes[0].startswith("Measured 2025-11-23 00:58 UTC. ")
    assert "Measured" not in without.notes[0]
    assert "Measured 2025-11-23 00:58 UTC." in markdown(report)
    garbled = make_report(make_model(measured="<b>soon</b>"))
    assert "&lt;b&gt;soon&lt;/b&gt;" in page(garbled)


def test_the_end_of_a_measurement_says_what_changed_and_power_where_it_was_read(make_report, make_model):
    model = make_model()
    rails = tuple(Rail(name, 0.5, "ina3221 1-0040") for name in ("GPU", "CPU"))
    warm = replace(model.facts, temperature_c=60.0, rails=(Rail("VDD_IN", 4.0, "ina3221 1-0040"), *rails))
    (table,) = machines(make_report(replace(model, facts=replace(model.facts, rails=rails), facts_at_end=warm)))
    rows = {fact: (start, end) for fact, start, end in table.rows}
    assert rows["board or processor"] == ("Raspberry Pi 5 Model B Rev 1.0", "the same")
    assert rows["throttle bits"] == (NONE, NONE)
    assert rows["temperature"] == ("51.2 °C", "60.0 °C")
    assert rows["power"] == ("GPU 0.50 W, CPU 0.50 W", "VDD_IN 4.00 W")
