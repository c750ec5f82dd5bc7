"""Segments: recordings with one label as a whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgeseq.data import Dataset, Mapping, Recording, check, load, write_npz
from edgeseq.errors import InputError


def of(*labels, task="segment", subject="a"):
    recordings = tuple(
        Recording(np.full((len(y), 1), k, np.float32), np.array(y, np.int16), subject, f"r{k}")
        for k, y in enumerate(labels)
    )
    return Dataset("set", recordings, ("ax",), ("g",), 50.0, ("walk", "run"), task=task)


def test_a_segment_has_one_label_and_the_first_that_has_two_is_named():
    check(of([0, 0], [1, 1], [-1, -1]))
    with pytest.raises(InputError, match=r"'r1', row 2 .*changes from 'run' to 'none', and a segment has one"):
        check(of([0, 0], [1, 1, -1]))
    with pytest.warns(UserWarning, match="shorter than 1 s"):
        check(of([0, 0], [1, 1, -1], task="frame"))


def test_an_unknown_task_is_refused_with_the_closest():
    with pytest.raises(InputError, match="Did you mean 'segment'"):
        check(of([0], [1], task="segments"))


def test_segments_are_counted_whatever_their_length():
    data = of([0, 0, 0, 0], [1], [1, 1], [-1])
    assert data.label_counts().tolist() == [1, 2]
    assert data.majority_share() == pytest.approx(2 / 3)
    assert dataclasses.replace(data, task="frame").label_counts().tolist() == [4, 3]


def test_fingerprints_of_frames_are_those_of_before_there_were_tasks():
    assert load("spar_watch").fingerprint() == "aea4d030a07655f212df74348f7a00dec6d0196db89405df645a284c548723ac"
    assert of([0], [1]).fingerprint() != of([0], [1], task="frame").fingerprint()


@pytest.mark.parametrize("task", ["frame", "segment"])
def test_the_task_is_written_and_read(tmp_path, task):
    made = of([0] * 60, [1] * 70, task=task)
    write_npz(made, tmp_path / "set.npz")
    read = load(tmp_path / "set.npz")
    assert (read.task, read.fingerprint()) == (task, made.fingerprint())
    with np.load(tmp_path / "set.npz") as stored:
        assert ("task" in stored) == (task == "segment")


def without_subjects(path, task, y=None):
    arrays = {
        "x": np.arange(12 * 40, dtype=np.float32).reshape(12, 40, 1),
        "y": np.arange(12) % 2 if y is None else y,
        "labels": np.array(["walk", "run"]),
        "channels": np.array(["ax"]),
        "units": np.array(["g"]),
        "fs": 50.0,
        "task": np.array(task),
    }
    np.savez(path, **arrays)
    return path


def test_segments_may_lack_subjects_and_are_dealt_into_groups(tmp_path):
    data = load(without_subjects(tmp_path / "own.npz", "segment"))
    assert data.dealt
    assert len(data.subjects) == 12
    write_npz(data, tmp_path / "again.npz")
    assert load(tmp_path / "again.npz").fingerprint() == data.fingerprint()


def test_frames_need_subjects(tmp_path):
    with pytest.raises(InputError, match="key 'subject' is missing"):
        load(without_subjects(tmp_path / "own.npz", "frame"))


def table(folder, name, label):
    rows = [f"{0.02 * i:.2f},{int(name[0]) + i % 5},{label}" for i in range(60)]  # files differ
    (folder / name).write_text("\n".join(["timestamp,ax,label", *rows]) + "\n", encoding="utf-8")


def test_tables_hold_segments_where_the_mapping_says_so(tmp_path):
    for k in range(6):
        table(tmp_path, f"{k}.csv", "walk" if k % 2 else "run")
    named = load(tmp_path, Mapping(task="segment", subject_from="file"))
    assert (named.task, named.dealt, len(named.subjects)) == ("segment", False, 6)
    unnamed = load(tmp_path, Mapping(task="segment", subject_from="none"))
    assert (unnamed.dealt, len(unnamed.recordings)) == (True, 6)


def test_only_segments_may_have_no_subjects_and_only_two_tasks_are_known():
    with pytest.raises(InputError, match="splits of frames need subjects"):
        Mapping(subject_from="none")
    with pytest.raises(InputError, match="Did you mean 'segment'"):
        Mapping(task="segmnt")
