"""HAPT's raw recordings: the accelerometer's file, the gyroscope's, and the spans of labels."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq.data import load
from edgeseq.data.sets.uci_har import LABELS, TRANSITIONS
from edgeseq.errors import InputError

SPANS = "1 1 5 10 39\n1 1 7 40 49\n1 1 1 60 99\n2 2 6 0 99\n2 2 1 100 119\n3 27 1 5 80\n4 30 6 5 80\n"


def signal(seed, count):
    return np.random.default_rng(seed).normal(size=(count, 3)).round(6)


def write(path, values):
    path.write_text("".join(" ".join(map(str, row)) + " \n" for row in values.tolist()), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "RawData"
    place.mkdir()
    for experiment, user in ((1, 1), (2, 2), (3, 27), (4, 30)):
        write(place / f"acc_exp{experiment:02}_user{user:02}.txt", signal(experiment, 120))
        write(place / f"gyro_exp{experiment:02}_user{user:02}.txt", signal(experiment + 10, 120))
    (place / "labels.txt").write_text(SPANS, encoding="utf-8")
    return place


def test_spans_of_labels_lie_on_both_sensors(folder):
    data = load(f"uci_har={folder.parent}")
    assert (data.rate, data.worn, data.subjects) == (50.0, "waist", ("1", "2", "27", "30"))
    assert data.units == ("g", "g", "g", "rad/s", "rad/s", "rad/s")
    first = data.recordings[0]
    np.testing.assert_array_equal(first.x, np.hstack([signal(1, 120), signal(11, 120)]).astype(np.float32))
    expected = np.full(120, -1)
    expected[10:40], expected[60:100] = 4, 0  # standing, walking; from standing to sitting is unlabelled
    np.testing.assert_array_equal(first.y, expected)
    assert data.official == (("2",), ("27", "30"))


def test_both_forms_are_the_same_data(folder, tmp_path):
    data = load(f"uci_har={folder}")
    y = np.zeros((4, 120), np.uint8)
    for experiment, _, activity, start, end in (map(int, line.split()) for line in SPANS.splitlines()):
        y[experiment - 1, start : end + 1] = activity
    np.savez(
        tmp_path / "uci_hapt_stream.npz",
        x=np.concatenate([r.x for r in data.recordings]),
        y=y.ravel(),
        offset=np.arange(5) * 120,
        subject=np.array([1, 2, 27, 30]),
        labels=np.array(["UNLABELLED", *LABELS, *TRANSITIONS]),
        channels=np.array(data.channels),
        units=np.array(data.units),
        fs=50.0,
    )
    other = load(f"uci_har={tmp_path / 'uci_hapt_stream.npz'}")
    assert other.fingerprint() == data.fingerprint()
    assert other.official == data.official == (("2",), ("27", "30"))


def test_a_few_subjects_have_no_official_split(folder):
    for path in folder.glob("*_exp02_*"):
        path.unlink()
    data = load(f"uci_har={folder}")
    assert data.official is None
    assert data.subjects == ("1", "27", "30")


def test_a_missing_gyroscope_is_named(folder):
    (folder / "gyro_exp03_user27.txt").unlink()
    with pytest.raises(InputError, match=r"acc_exp03_user27\.txt: gyro_exp03_user27\.txt is missing beside it"):
        load(f"uci_har={folder}")


def test_sensors_of_different_length_are_refused(folder):
    write(folder / "gyro_exp03_user27.txt", signal(0, 119))
    with pytest.raises(InputError, match=r"120 samples, and gyro_exp03_user27\.txt has 119"):
        load(f"uci_har={folder}")


def test_a_recording_without_any_label_is_named(folder):
    path = folder / "labels.txt"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("3 ")]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"acc_exp03_user27\.txt: no line of labels\.txt is of experiment 3 and user 27"
    ):
        load(f"uci_har={folder}")


@pytest.mark.parametrize("last", [119, 120])
def test_a_span_may_end_with_the_recording_counted_either_way(folder, last):
    path = folder / "labels.txt"
    path.write_text(path.read_text(encoding="utf-8") + f"1 1 2 110 {last}\n", encoding="utf-8")
    assert load(f"uci_har={folder}").recordings[0].y[109:].tolist() == [-1, *[1] * 10]


def test_missing_labels_are_named(folder):
    (folder / "labels.txt").unlink()
    with pytest.raises(InputError, match=r"labels\.txt: it cannot be read"):
        load(f"uci_har={folder}")


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("acc_exp01_user01.txt", "0.1 0.2", r"line 122: 2 columns, and 3 are needed"),
        ("acc_exp01_user01.txt", "0.1 0.2 O.3", r"line 122: 'O\.3' is not a finite number"),
        ("labels.txt", "1 1 13 110 111", r"line 9: activity 13 from sample 110 to 111"),
        ("labels.txt", "1 1 1 111 110", r"line 9: activity 1 from sample 111 to 110"),
        ("labels.txt", "1 1 1 110 121", r"line 9: it ends at sample 121 of a recording that has 120"),
        ("labels.txt", "1 1 1 110", r"line 9: 4 columns, and 5 are needed"),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(folder, name, line, said):
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        load(f"uci_har={folder}")
    assert name in str(caught.value)


def test_a_file_that_is_called_otherwise_is_refused(folder):
    (folder / "acc_exp05_userX.txt").touch()
    with pytest.raises(InputError, match=r"acc_exp05_userX\.txt: it is not called acc_expNN_userNN\.txt"):
        load(f"uci_har={folder}")
