from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeseq.devices.bench import EnginePower, Latency, LongRun, Power, bench, latency
from edgeseq.devices.report.document import FORMAT, distribution, edge, encode_report, read_report
from edgeseq.devices.report.gather import Measured, check_folders, distinct, gather, measurements, read_bench
from edgeseq.devices.report.numbers import NONE
from edgeseq.devices.report.tables import running, sizes
from edgeseq.errors import InputError
from edgeseq.folder import open_folder, shipped_bytes
from edgeseq.metrics import Scores


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=300))
def test_a_histogram_counts_every_sample_in_a_bin_that_holds_it(samples):
    found = distribution(latency(samples), samples)
    assert sum(found.counts) == len(samples)
    assert found.counts[0]
    assert found.counts[-1]
    edges = [edge(found.first + i) for i in range(len(found.counts) + 1)]
    smallest, largest = max(min(samples), 1) / 1e3, max(max(samples), 1) / 1e3
    assert edges[0] * (1 - 1e-9) <= smallest <= edges[1] * (1 + 1e-9)
    assert edges[-2] * (1 - 1e-9) <= largest <= edges[-1] * (1 + 1e-9)


def test_no_samples_are_no_bins():
    found = distribution(Latency(None, None, None, None), [])
    assert (found.counts, found.quantiles.p50) == ((), None)


def test_a_report_survives_its_file(tmp_path, make_report, make_model, quantized):
    model = make_model()
    report = make_report(model, quantized(model))
    (tmp_path / "report.json").write_bytes(encode_report(report))
    assert read_report(tmp_path / "report.json") == report


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "not a report.json"),
        ("no json", "not a report.json"),
        ("\udcff", "not a report.json"),
        (f'{{"format": {FORMAT + 1}}}', "upgrade edgeseq"),
        ('{"format": 1, "edgeseq": "0", "scored_on": "", "models": []}', "no measurement"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, said):
    (tmp_path / "report.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=said):
        read_report(tmp_path / "report.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_report(tmp_path / "absent.json")


def test_a_report_of_a_model_without_engines_is_refused(tmp_path, make_report, make_model):
    (tmp_path / "report.json").write_bytes(encode_report(make_report(make_model(engines=()))))
    with pytest.raises(InputError, match="no measurement of gru-export"):
        read_report(tmp_path / "report.json")


@pytest.fixture(scope="module")
def measured(folders):
    return bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.05, rate=100.0)


def test_a_model_is_its_folder_and_its_measurement_without_the_raw_samples(folders, measured):
    folder, scored = open_folder(folders["leaky"]), Scores(0.5, 0.4, 2, ((1, 1), (0, 0)))
    model = gather(Measured(folder, measured), {"numpy": scored}, people=1)
    (row,) = model.engines
    assert (model.name, model.folder_hash, model.labels) == ("leaky", folder.hash, folder.manifest.labels)
    assert (row.scores, model.people, row.file_bytes) == (scored, 1, measured.engines[0].file_bytes)
    assert row.tight.quantiles == measured.engines[0].tight
    assert sum(row.tight.counts) == len(measured.engines[0].tight_ns)
    assert sum(row.paced.counts) == sum(row.response.counts) == 5
    assert set(model.file_bytes) == {"tflite", "onnx"}
    assert gather(Measured(folder, measured), {}, unscored="no data").unscored == "no data"
    assert model.shipped_bytes is None  # a folder for a board


def test_what_weights_ship_in_stands_beside_the_files(measured, make_model, make_report):
    watch = open_folder("har_watch_fp32")
    model = gather(Measured(watch, measured), {})
    assert model.shipped_bytes == shipped_bytes(watch)
    table = sizes(make_report(make_model(shipped_bytes=17_433), make_model("other", "b")))
    column = [column.title for column in table.columns].index("shipped")
    assert [row[column] for row in table.rows] == ["17.4 kB", NONE]


def test_a_benchmark_is_read_as_the_verb_and_as_a_board_writes_it(tmp_path, measured):
    path = tmp_path / "bench.json"
    path.write_bytes(msgspec.json.encode({"reports": [measured]}))
    assert read_bench(path) == (measured,)
    path.write_bytes(msgspec.json.encode(measured))
    assert read_bench(path) == (measured,)
    for wrong in (b'{"reports": 1}', b"[]", b"{}", b"\xff"):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="edgeseq bench --out"):
            read_bench(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_bench(tmp_path / "absent.json")


def test_a_benchmark_of_another_folder_is_refused(folders, measured):
    leaky, gated, file = open_folder(folders["leaky"]), open_folder(folders["gated"]), Path("bench.json")
    with pytest.raises(
        InputError, match=r"no measurement of .*gated.*there is leaky.*run edgeseq bench .* --out bench"
    ):
        measurements([leaky, gated], [(file, [measured])])
    other = (Path("other.json"), [replace(measured, folder_hash=gated.hash)])
    with pytest.raises(
        InputError, match=r"other.json holds no measurement of the folders \(it holds leaky .*leave it out"
    ):
        measurements([leaky], [(file, [measured]), other])
    assert measurements([leaky], [(file, [measured])])[0].report is measured


def test_a_benchmark_in_an_engine_that_nobody_knows_is_refused(folders, measured):
    strange = replace(measured, engines=(replace(measured.engines[0], engine="nunpy"),))
    with pytest.raises(InputError, match=r"unknown engine in bench.json 'nunpy'. Did you mean 'numpy'"):
        measurements([open_folder(folders["leaky"])], [(Path("bench.json"), [strange])])


def on(report, model, **changes):
    """The report as another machine would have it."""
    facts = replace(report.facts, model=model, **changes)
    return replace(report, facts=facts, facts_at_end=facts)


def test_devices_are_told_apart_and_each_is_taken_once_from_a_file(folders, measured):
    leaky = open_folder(folders["leaky"])
    four, five = on(measured, "Pi 4"), on(measured, "Pi 5")
    later = replace(four, rate=25.0)
    found = measurements([leaky], [(Path("a.json"), [four, five, later])])
    assert [(each.device, each.report) for each in found] == [("Pi 4", later), ("Pi 5", five)]
    small, large = (on(measured, "Pi 4", memory_bytes=size) for size in (4_000_000_000, 8_000_000_000))
    found = measurements([leaky], [(Path("a.json"), [small, large])])
    assert [(each.device, each.report) for each in found] == [("Pi 4 (a) (1)", small), ("Pi 4 (a) (2)", large)]


def test_one_machine_in_two_files_is_called_by_its_files(folders, measured):
    leaky = open_folder(folders["leaky"])
    four = on(measured, "Pi 4")
    files = [(Path("pinned.json"), [four]), (Path("free.json"), [four, on(measured, "Pi 5")])]
    called = [each.device for each in measurements([leaky], files)]
    assert called == ["Pi 4 (pinned)", "Pi 4 (free)", "Pi 5"]
    same = [(Path("a/bench.json"), [four]), (Path("b/bench.json"), [four])]
    assert [each.device for each in measurements([leaky], same)] == ["Pi 4 (bench) (1)", "Pi 4 (bench) (2)"]


def test_a_device_may_have_measured_only_some_of_the_folders(folders, measured):
    leaky, gated = open_folder(folders["leaky"]), open_folder(folders["gated"])
    other = replace(measured, folder_hash=gated.hash, name="gated")
    files = [(Path("a.json"), [on(measured, "A"), on(other, "A")]), (Path("b.json"), [on(other, "B")])]
    found = [(each.folder.path.name, each.device) for each in measurements([leaky, gated], files)]
    assert found == [(leaky.path.name, "A"), (gated.path.name, "A"), (gated.path.name, "B")]


def test_a_long_run_is_drawn_from_its_counts(folders, measured):
    (entry,) = measured.engines
    run = LongRun(
        seconds=3600.0, minutes=(), call_counts={64 * 10: 3, 64 * 20: 1}, peak_rss_bytes=1, rss_growth_bytes=0
    )
    paced = replace(entry.paced, call=Latency(1.0, 1.0, 1000.0, 1000.0), call_ns=[], response_ns=[])
    report = replace(measured, engines=(replace(entry, paced=paced),), long_run=run, resumed=1)
    model = gather(Measured(open_folder(folders["leaky"]), report), {})
    drawn = model.main.paced
    assert (drawn.quantiles.p99, sum(drawn.counts), drawn.counts[0]) == (1000.0, 4, 3)
    assert edge(drawn.first) <= 1.024 * 2 ** (0.5 / 64) <= edge(drawn.first + 1)
    assert any("with 1 gap" in sentence for sentence in model.said)


def test_the_power_of_an_engine_is_its_rows(folders, measured, make_report):
    engine = EnginePower("numpy", (), 25e-6, 2e-6)
    report = replace(measured, power=Power((), (engine,), "in"), energy="measured")
    model = gather(Measured(open_folder(folders["leaky"]), report), {})
    assert (model.main.joules_per_step, model.main.joules_error) == (25e-6, 2e-6)
    table = running(make_report(model))
    column = [column.title for column in table.columns].index("a step, µJ")
    assert table.rows[0][column] == "25.0 ± 2.0"
    unseen = replace(model, engines=(replace(model.main, joules_error=20e-6),))
    assert running(make_report(unseen)).rows[0][column] == "< 40.0"


def test_times_of_an_emulated_device_are_left_out_even_where_a_file_has_them(folders, measured, make_report):
    engine = EnginePower("numpy", (), 25e-6, 2e-6)
    report = replace(measured, provenance="emulated-functional", power=Power((), (engine,), "in"))
    assert report.engines[0].paced.call.p50 is not None
    row = gather(Measured(open_folder(folders["leaky"]), report), {}).main
    found = (row.tight, row.paced, row.response)
    assert {(part.counts, part.quantiles.p50, part.quantiles.p99) for part in found} == {((), None, None)}
    assert {row.load_ms, row.first_call_ms, row.deadline_misses, row.cpu_share, row.joules_per_step} == {None}
    assert row.jitter.p99 is None
    assert row.peak_rss_bytes == measured.engines[0].fresh.peak_rss_bytes


def test_folders_of_one_name_are_told_apart(make_model):
    first, second = distinct([make_model(letter="a"), make_model(letter="b")])
    assert (first.name, second.name) == ("gru-export aaaaaa", "gru-export bbbbbb")


def test_a_folder_on_several_devices_keeps_its_name(make_model):
    models = distinct([make_model(device="A"), make_model(device="B"), make_model("other", "b")])
    assert [model.name for model in models] == ["gru-export", "gru-export", "other"]


def test_a_folder_is_named_once_and_exported(tmp_path, folders):
    leaky, gated = open_folder(folders["leaky"]), open_folder(folders["gated"])
    check_folders([leaky, gated])
    copied = open_folder(shutil.copytree(leaky.path, tmp_path / "copied"))
    with pytest.raises(InputError, match=r"copied is named twice \(as .*leaky.*name each folder once"):
        check_folders([leaky, gated, copied])
    bare = dataclasses.replace(gated, manifest=replace(gated.manifest, files={}))
    with pytest.raises(InputError, match=r"is not exported.*run edgeseq export"):
        check_folders([leaky, bare])
