"""WISDM's raw text files: lines in any order, twice, with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import load
from edgeseq.errors import InputError

STEP = 50_354_004  # ns, as the files have it: 20 Hz and a bit


def lines(subject=1600, code="A", count=30, start=252207666810782, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 3)).round(5)
    return [f"{subject},{code},{start + k * STEP},{a},{b},{c};" for k, (a, b, c) in enumerate(x.tolist())]


def write(folder, subject, rows):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"data_{subject}_accel_watch.txt"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_six_activities_are_read_and_the_others_left_out(tmp_path):
    for subject in (1610, 1602):
        write(tmp_path / "raw/watch/accel", subject, lines(subject, "M") + lines(subject, "S") + lines(subject, "B"))
    data = load(f"wisdm_watch={tmp_path}")
    assert (data.rate, data.units, data.worn) == (20.0, ("m/s^2",) * 3, "wrist")
    assert [(r.subject, data.labels[r.y[0]], len(r.x)) for r in data.recordings] == [
        *(("1602", "jogging", 30), ("1602", "kicking", 30), ("1610", "jogging", 30), ("1610", "kicking", 30))
    ]
    assert data.recordings[0].name == "data_1602_accel_watch.txt, B"
    np.testing.assert_allclose(
        data.recordings[0].x[0], [float(cell) for cell in lines(1602)[0].rstrip(";").split(",")[3:]], rtol=1e-6
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(order=st.randoms(use_true_random=False), twice=st.lists(st.integers(0, 59), max_size=60))
def test_neither_the_order_of_lines_nor_their_repetition_matters(tmp_path_factory, order, twice):
    folder = tmp_path_factory.mktemp("wisdm")
    rows = lines(code="A") + lines(code="B", seed=1)
    write(folder, 1600, rows)
    expected = load(f"wisdm_watch={folder}").fingerprint()
    mixed = rows + [rows[k] for k in twice]
    order.shuffle(mixed)
    write(folder, 1600, mixed)
    assert load(f"wisdm_watch={folder}").fingerprint() == expected


def test_a_gap_cuts_a_recording_and_scraps_are_left_out(tmp_path):
    start = 252207666810782
    rows = lines(count=50, start=start) + lines(count=19, start=start + 60 * STEP)
    rows += lines(count=25, start=start + 100 * STEP) + lines(code="B")
    data = load(f"wisdm_watch={write(tmp_path, 1600, rows).parent}")
    assert [len(r.x) for r in data.recordings] == [50, 25, 30]
    assert data.recordings[1].name == "data_1600_accel_watch.txt, A, part 2"
    rows = lines(count=50, start=start) + lines(count=50, start=start + 53 * STEP) + lines(code="B")
    assert len(load(f"wisdm_watch={write(tmp_path, 1600, rows).parent}").recordings) == 2  # three lost frames are none


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1600,A,252207666810782,-0.3,8.7;", r"line 4: 3 columns, and 4 are needed"),
        ("1600,A,252207666810782,-0.3,8.7,x;", r"line 4: 'x' is not a finite number"),
        ("1600,A,252207666810782,-0.3,8.7,nan;", r"line 4: 'nan' is not a finite number"),
        ("1600,N,252207666810782,-0.3,8.7,1.0;", r"line 4: '1600,N.* is no line of subject 1600.*activity of A to S"),
        ("1601,A,252207666810782,-0.3,8.7,1.0;", r"line 4: '1601,A.* is no line of subject 1600"),
        ("1600", r"line 4: '1600' is no line of subject 1600"),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(tmp_path, line, said):
    rows = lines()
    path = write(tmp_path, 1600, [*rows[:2], "", line, *rows[2:]])
    with pytest.raises(InputError, match=said) as caught:
        load(f"wisdm_watch={path}")
    assert str(path) in str(caught.value)


def test_a_file_at_another_rate_is_refused(tmp_path):
    rows = [line.replace(line.split(",")[2], str(int(line.split(",")[2]) // 2)) for line in lines(code="A")]
    with pytest.raises(InputError, match=r"a frame of activity A every 25\.18 ms, and wisdm_watch has one every 50 ms"):
        load(f"wisdm_watch={write(tmp_path, 1600, rows)}")


def test_a_file_that_is_empty_or_called_otherwise_is_refused(tmp_path):
    write(tmp_path, 1600, lines())
    path = write(tmp_path, 1601, [""])
    with pytest.raises(InputError, match=r"data_1601_accel_watch\.txt: it is empty"):
        load(f"wisdm_watch={tmp_path}")
    path.rename(tmp_path / "data_all_accel_watch.txt")
    with pytest.raises(InputError, match=r"data_all_accel_watch\.txt: it is not called data_1600"):
        load(f"wisdm_watch={tmp_path}")
