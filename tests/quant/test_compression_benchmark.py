"""The benchmark of compression: a run that is taken up again keeps the rows that are there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization, Stage

SOURCE = Path(__file__).parents[2] / "benchmarks" / "compression.py"
THEN = {"edgeseq": "0.0.1"}


def write_folder(out):
    manifest = Manifest(
        name=out.name,
        family="lmu",
        arguments={},
        task="frame",
        labels=("rest", "move"),
        input=Input((Channel("ax", "g"),), 50.0, Normalization((0.0,), (1.0,))),
        states=(),
        metrics={"test_accuracy": 0.5},
        lineage=(Stage("train", {}, THEN),),
    )
    with new_folder(out) as staging:
        save_file({"w": np.zeros(5, np.float32)}, staging / "weights.safetensors")
        seal(staging, manifest)
    return open_folder(out)


@pytest.fixture
def compression(tmp_path, monkeypatch):
    """The benchmark, within this process, and with folders that are written in place of trained."""
    monkeypatch.syspath_prepend(str(SOURCE.parent))
    for name in ("compression", "compression_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("compression")
    monkeypatch.setattr(sys.modules["compression_table"], "RESULTS", tmp_path / "results" / "compression.json")
    monkeypatch.setattr(module, "each_done", lambda run, tasks, **_: map(run, tasks))
    monkeypatch.setattr(module, "make", lambda work, *key, brief: write_folder(module.place(work, *key)))
    return module


def run(module, work, *variants):
    parsed = SimpleNamespace(work=work, seeds=1, folds=[0], families=["lmu"], variants=variants, jobs=1, budget=1)
    rows, missing = module.run_missing(parsed, module.read())
    assert not missing
    return {row.variant: row for row in rows}


def test_a_row_that_is_there_is_kept_and_learns_its_size_when_a_run_goes_on(compression, tmp_path):
    earlier = compression.Row("lmu", 0, 0, {"test_accuracy": 0.5}, 77.0, {"edgeseq": "0.0.0"})
    compression.write([earlier])
    write_folder(compression.place(tmp_path / "work", "lmu", 0, 0))
    rows = run(compression, tmp_path / "work", "lmu", "lmu-ptq")
    assert rows.keys() == {"lmu", "lmu-ptq"}
    assert rows["lmu"] == compression.Row(*earlier.key, earlier.metrics, 77.0, earlier.versions, shipped=20)
    assert compression.read() == [rows["lmu"], rows["lmu-ptq"]]


def test_a_row_of_another_model_than_the_folder_gives_way_to_it(compression, tmp_path):
    compression.write([compression.Row("lmu", 0, 0, {"test_accuracy": 0.9}, 77.0, {"edgeseq": "0.0.0"})])
    rows = run(compression, tmp_path / "work", "lmu", "lmu-ptq")
    assert rows["lmu"].metrics == rows["lmu-ptq"].metrics == {"test_accuracy": 0.5}
    assert compression.read() == [rows["lmu"], rows["lmu-ptq"]]


def test_a_folder_that_was_found_has_its_own_versions_and_no_time(compression, tmp_path):
    write_folder(compression.place(tmp_path / "work", "lmu", 0, 0))
    rows = run(compression, tmp_path / "work", "lmu", "lmu-ptq")
    assert (rows["lmu"].seconds, rows["lmu"].versions) == (None, THEN)
    assert rows["lmu-ptq"].seconds >= 0


def test_the_committed_rows_are_read_and_say_nothing_of_time_where_nothing_was_timed(compression, monkeypatch):
    monkeypatch.setattr(sys.modules["compression_table"], "RESULTS", SOURCE.parent / "results" / "compression.json")
    rows = compression.read()
    assert len({row.key for row in rows}) == len(rows) > 0
    assert all(row.seconds is None or row.seconds >= 0.5 for row in rows)
