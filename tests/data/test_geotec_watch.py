"""GeoTec's CSV files of about 104 Hz with repeated timestamps, brought to 50 Hz."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import load
from edgeseq.data.sets.geotec_watch import LABELS, on_grid
from edgeseq.errors import InputError

HEAD = "x_acc,y_acc,z_acc,x_gyro,y_gyro,z_gyro,timestamp,label"
START = 1657533977810


def rows(ticks, labels):
    return [f"{t},2.5,{-t},0.1,-0.2,{t / 1000},{START + t},{label}" for t, label in zip(ticks, labels, strict=True)]


def write(folder, subject, execution, lines):
    path = folder / f"s{subject:02}" / f"s{subject:02}_{execution:02}_sw.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEAD, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    ticks = range(0, 1501, 10)
    for subject, execution in ((2, 1), (10, 1), (2, 11), (2, 2)):
        write(tmp_path / "DATA", subject, execution, rows(ticks, [LABELS[t // 500] for t in ticks[:-1]] + ["WALKING"]))
    (tmp_path / "DATA" / "s02" / "s02_01_sp.csv").write_text("the phone's", encoding="utf-8")
    return tmp_path


def test_executions_come_at_50_hz_with_the_label_of_the_last_sample_before(folder):
    data = load(f"geotec_watch={folder}")
    assert [(r.subject, r.name) for r in data.recordings] == [
        *(("2", "s02_01_sw.csv"), ("2", "s02_02_sw.csv"), ("2", "s02_11_sw.csv"), ("10", "s10_01_sw.csv"))
    ]
    assert (data.rate, data.unscored, data.labels, data.worn) == (50.0, 0.5, LABELS, "wrist")
    assert data.units == ("m/s^2",) * 3 + ("rad/s",) * 3
    first = data.recordings[0]
    np.testing.assert_allclose(first.x[:, 0], np.arange(0, 1501, 20))
    np.testing.assert_array_equal(first.y, [*np.repeat([0, 1, 2], 25).tolist(), 2])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(steps=st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_a_straight_line_stays_one_at_any_jitter(steps):
    ticks = np.cumsum([0, *steps])
    x = np.stack([ticks, 3 - 0.5 * ticks], axis=1).astype(np.float32)
    y = (np.arange(len(ticks)) % 5).astype(np.int16)
    frames, labels = on_grid(ticks / 1e3, x, y)
    grid = np.arange(len(frames)) * 20
    assert len(frames) == ticks[-1] // 20 + 1
    np.testing.assert_allclose(frames[:, 0], grid, atol=1e-3)
    np.testing.assert_allclose(frames[:, 1], 3 - 0.5 * grid, atol=1e-3)
    before = [max(t for t in ticks if t <= g) for g in grid]
    assert labels.tolist() == [y[list(ticks).index(t)] for t in before]


@given(st.randoms(use_true_random=False))
def test_lines_may_come_in_any_order(random):
    ticks = np.arange(0, 500, 9)
    x, y = np.sin(ticks)[:, None].astype(np.float32), (ticks % 5).astype(np.int16)
    order = list(range(len(ticks)))
    random.shuffle(order)
    for found, expected in zip(
        on_grid(ticks[order] / 1e3, x[order], y[order]), on_grid(ticks / 1e3, x, y), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"0,0,0,0,0,0,{START + 1600},RUNNING", r"s02_01_sw\.csv, line 153: unknown label 'RUNNING'"),
        (f"0,0,O,0,0,0,{START + 1600},WALKING", r"line 153, column 'z_acc': 'O' is not a finite number"),
        (f"0,0,0,0,0,{START + 1600},WALKING", r"line 153: 7 cells, and the header has 8"),
    ],
)
def test_a_malformed_line_is_refused_by_its_number(folder, line, said):
    path = folder / "DATA/s02/s02_01_sw.csv"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load(f"geotec_watch={folder}")


def test_a_file_with_another_header_or_name_is_refused(folder):
    path = folder / "DATA/s02/s02_01_sw.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("x_acc", "acc_x"), encoding="utf-8")
    with pytest.raises(InputError, match=r"there is no channel column: unknown column 'x_acc'"):
        load(f"geotec_watch={folder}")
    path.rename(path.with_name("s02_one_sw.csv"))
    with pytest.raises(InputError, match=r"s02_one_sw\.csv: it is not called s01_01_sw\.csv"):
        load(f"geotec_watch={folder}")


def test_what_was_recorded_becomes_our_50_hz_file(real):
    folder = real("geotec_watch").parent
    raw, made = (np.load(folder / f"geotec_watch_{kind}.npz") for kind in ("raw", "50hz"))
    x, y, time = raw["x"].astype(np.float32), raw["y"].astype(np.int16), raw["t_ms"] / 1e3
    parts = [on_grid(time[a:b], x[a:b], y[a:b]) for a, b in itertools.pairwise(raw["offset"].tolist())]
    np.testing.assert_array_equal(np.cumsum([0, *(len(frames) for frames, _ in parts)]), made["offset"])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), made["y"])
    off = np.abs(np.concatenate([frames for frames, _ in parts]) - made["x"])
    assert off.max() < 0.5 + 2e-3  # steps of the sensor: the file is rounded to whole ones
