"""The trained models that come with edgeseq: there by name, from anywhere, and what their manifests say."""

from __future__ import annotations

import numpy as np
import pytest

import edgeseq
from edgeseq.data import load
from edgeseq.devices.check import check_folder, require
from edgeseq.errors import InputError
from edgeseq.folder import open_folder, pretrained
from edgeseq.manifest import Precision

PAIR = ("har_watch", "har_watch_fp32")
WATCH = ("har_watch", "har_watch_acc", "har_watch_fp32")
NAMES = ("digits", *WATCH)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_all_are_found_by_name_and_say_so():
    assert pretrained() == NAMES
    for name in NAMES:
        folder = open_folder(name)
        assert folder.manifest.name == name
        assert set(folder.formats) == {"tflite", "onnx"}
        assert folder.manifest.proof
        assert all(link.passed for link in folder.manifest.proof)


def test_one_is_int8_made_from_the_other():
    small, plain = (open_folder(name).manifest for name in PAIR)
    assert small.precision == Precision("int8", "int8", "float32")
    assert plain.precision == Precision()
    assert small.lineage[-2].parent == plain.lineage[-1].parent  # the trained model that both come from
    assert small.split == plain.split


def test_one_needs_no_gyroscope_and_was_made_as_the_other_was():
    small, without = (open_folder(name).manifest for name in ("har_watch", "har_watch_acc"))
    assert without.input.channels == small.input.channels[:3]
    assert (without.input.signs, without.input.rate) == (small.input.signs, small.input.rate) == ("apple", 50.0)
    assert (without.family, without.arguments, without.precision) == (small.family, small.arguments, small.precision)
    assert (without.labels, without.split, without.max_gap) == (small.labels, small.split, small.max_gap)
    assert [stage.verb for stage in without.lineage] == [stage.verb for stage in small.lineage]
    assert [stage.seed for stage in without.lineage] == [stage.seed for stage in small.lineage]


@pytest.mark.parametrize("name", WATCH)
def test_it_names_exercises_of_people_it_has_never_seen(name):
    session, manifest = edgeseq.Session(name), open_folder(name).manifest
    right = []
    for recording in load(manifest.data_stage.data).only(manifest.split["test"]).recordings[::4]:
        session.reset()
        answers = session.run(recording.x).argmax(-1)
        right.append((answers == recording.y)[100:])
    accuracy = float(np.concatenate(right).mean())
    assert accuracy > 0.6
    assert accuracy == pytest.approx(manifest.metrics["test_accuracy"], abs=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_proven_on_this_machine(name):
    require(check_folder(name, frames=300))


def test_a_folder_here_of_that_name_comes_first(tmp_path):
    (tmp_path / "har_watch").mkdir()
    with pytest.raises(InputError, match="is not a model folder"):
        open_folder("har_watch")


def test_a_wrong_name_is_answered_with_the_right_ones():
    with pytest.raises(InputError, match=r"har_wach is not a folder.*har_watch, har_watch_acc, har_watch_fp32"):
        open_folder("har_wach")
