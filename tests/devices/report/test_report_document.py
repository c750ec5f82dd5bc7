from __future__ import annotations

import shutil
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.bench import Latency, bench, latency
from edgeseq.devices.report.document import FORMAT, distribution, edge, encode_report, read_report
from edgeseq.devices.report.gather import bench_of, check_folders, distinct, gather, read_bench
from edgeseq.devices.report.numbers import NONE
from edgeseq.devices.report.tables import sizes
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
    model = gather(folder, measured, {"numpy": scored}, people=1)
    (row,) = model.engines
    assert (model.name, model.folder_hash, model.labels) == ("leaky", folder.hash, folder.manifest.labels)
    assert (row.scores, model.people, row.file_bytes) == (scored, 1, measured.engines[0].file_bytes)
    assert row.tight.quantiles == measured.engines[0].tight
    assert sum(row.tight.counts) == len(measured.engines[0].tight_ns)
    assert sum(row.paced.counts) == sum(row.response.counts) == 5
    assert set(model.file_bytes) == {"tflite", "onnx"}
    assert gather(folder, measured, {}, unscored="no data").unscored == "no data"
    assert model.shipped_bytes is None  # a folder for a board


def test_what_weights_ship_in_stands_beside_the_files(measured, make_model, make_report):
    watch = open_folder("har_watch_fp32")
    model = gather(watch, measured, {})
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


def test_a_benchmark_of_another_folder_is_refused(tmp_path, folders, measured):
    with pytest.raises(InputError, match=r"no measurement of .*gated.*it holds leaky.*run edgeseq bench"):
        bench_of(open_folder(folders["gated"]), [measured], tmp_path)
    assert bench_of(open_folder(folders["leaky"]), [measured], tmp_path) is measured


def test_a_benchmark_in_an_engine_that_nobody_knows_is_refused(tmp_path, folders, measured):
    strange = msgspec.structs.replace(measured.engines[0], engine="nunpy")
    with pytest.raises(InputError, match=r"unknown engine in .*bench.json 'nunpy'. Did you mean 'numpy'"):
        bench_of(
            open_folder(folders["leaky"]),
            [msgspec.structs.replace(measured, engines=(strange,))],
            tmp_path / "bench.json",
        )


def test_folders_of_one_name_are_told_apart(make_model):
    first, second = distinct([make_model(letter="a"), make_model(letter="b")])
    assert (first.name, second.name) == ("gru-export aaaaaa", "gru-export bbbbbb")


def test_a_folder_is_named_once_and_exported(tmp_path, folders):
    leaky, gated = open_folder(folders["leaky"]), open_folder(folders["gated"])
    check_folders([leaky, gated])
    copied = open_folder(shutil.copytree(leaky.path, tmp_path / "copied"))
    with pytest.raises(InputError, match=r"copied is named twice \(as .*leaky.*name each folder once"):
        check_folders([leaky, gated, copied])
    bare = replace(gated, manifest=msgspec.structs.replace(gated.manifest, files={}))
    with pytest.raises(InputError, match=r"is not exported.*run edgeseq export"):
        check_folders([leaky, bare])
