import csv
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.data import Mapping, default_split, load
from edgeseq.errors import InputError, MissingDependency

HEADER = ["timestamp", "ax", "ay", "label", "subject"]


def table(frames=100, subject="1", rate=50.0, start=0.0):
    """Rows of one subject that walks for the first half and runs for the second."""
    return [
        [f"{start + k / rate:.6f}", f"{k * 0.5}", f"{-k}", "walk" if k < frames / 2 else "run", subject]
        for k in range(frames)
    ]


def write(path, rows, header=HEADER, delimiter=",", end="\n", bom=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [delimiter.join(row) for row in [header, *rows]]
    path.write_text(end.join(lines) + end, encoding="utf-8-sig" if bom else "utf-8", newline="")
    return path


@pytest.fixture
def own(tmp_path):
    """Writes walks.csv with some cells of its rows changed: {(row, column): text}."""

    def make(changes=(), rows=None, **kwargs):
        rows = rows or table()
        header = kwargs.get("header", HEADER)
        for (row, column), text in dict(changes).items():
            rows[row][header.index(column)] = text
        return write(tmp_path / "walks.csv", rows, **kwargs)

    return make


def refusal(path, **mapping):
    with pytest.raises(InputError) as caught:
        load(path, Mapping(**mapping))
    return str(caught.value)


# What a table means


def test_a_file_with_the_default_names_needs_no_mapping(own):
    data = load(own())
    assert (data.name, data.rate, data.channels, data.labels) == ("walks", 50.0, ("ax", "ay"), ("run", "walk"))
    (recording,) = data.recordings
    np.testing.assert_array_equal(recording.x[:3], [[0, 0], [0.5, -1], [1, -2]])
    np.testing.assert_array_equal(recording.y, np.repeat([1, 0], 50))
    assert (recording.subject, recording.name) == ("1", "walks.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [False, True])
def test_delimiter_line_ends_and_byte_order_mark_do_not_matter(own, delimiter, end, bom):
    plain = load(own()).fingerprint()
    assert load(own(delimiter=delimiter, end=end, bom=bom)).fingerprint() == plain


def test_quoted_text_may_hold_the_delimiter(own):
    rows = [[*row[:3], '"walk, slow"' if row[3] == "walk" else row[3], row[4]] for row in table()]
    assert load(own(rows=rows)).labels == ("run", "walk, slow")


def test_every_column_can_be_mapped(own):
    header = ["t", "x1", "x2", "what", "who"]
    path = own(header=header)
    mapping = Mapping(time="t", label="what", subject="who", channels=("x2", "x1"), units=("g", "m/s^2"))
    data = load(path, mapping)
    assert (data.channels, data.units) == (("x2", "x1"), ("g", "m/s^2"))
    np.testing.assert_array_equal(data.recordings[0].x[2], [-2, 1])


def test_text_columns_and_columns_without_a_name_are_no_channels(own):
    rows = [[str(k), *row, "watch"] for k, row in enumerate(table())]
    assert load(own(rows=rows, header=["", *HEADER, "device"])).channels == ("ax", "ay")


@pytest.mark.parametrize(("unit", "ticks"), [("s", 0.02), ("ms", 20), ("us", 20_000), ("ns", 20_000_000)])
def test_the_time_unit_can_be_stated(own, unit, ticks):
    rows = table()
    start = 1_700_000_000 * round(ticks / 0.02) if unit != "s" else 0  # since 1970, as phones write it
    for k, row in enumerate(rows):
        row[0] = str(start + k * ticks)
    assert load(own(rows=rows), Mapping(time_unit=unit)).rate == 50.0


def test_timestamps_in_whole_milliseconds_do_not_bend_the_rate(own):
    rows = table(1000, rate=104)
    for row in rows:
        row[0] = str(round(float(row[0]) * 1000))
    assert load(own(rows=rows), Mapping(time_unit="ms")).rate == pytest.approx(104, rel=1e-3)


def test_the_stated_rate_is_taken_when_the_file_agrees(own):
    assert load(own(rows=table(rate=49.7)), Mapping(rate=50)).rate == 50


def test_a_new_recording_starts_where_the_subject_or_the_recording_changes(own):
    rows = [[*row, k] for s in "ab" for k in ("x", "y") for row in table(subject=s)]
    data = load(own(rows=rows, header=[*HEADER, "recording"]))
    assert [r.subject for r in data.recordings] == ["a", "a", "b", "b"]
    assert [len(r.x) for r in data.recordings] == [100] * 4
    assert data.recordings[1].name == "walks.csv, lines 102 to 201"


def test_another_column_can_mark_the_recordings(own):
    rows = [[*row, k] for k in "xy" for row in table()]
    data = load(own(rows=rows, header=[*HEADER, "session"]), Mapping(recording="session"))
    assert [len(r.x) for r in data.recordings] == [100, 100]


def test_a_gap_longer_than_a_second_starts_a_new_recording(own):
    data = load(own(rows=table() + table(start=1.98 + 1.01)))
    assert [len(r.x) for r in data.recordings] == [100, 100]


def test_the_gap_can_be_stated(own):
    path = own(rows=table() + table(start=1.98 + 0.3))
    assert "gap=0.03" in refusal(path)
    assert len(load(path, Mapping(gap=0.03)).recordings) == 2


def test_a_single_lost_frame_is_forgiven(own):
    rows = table(200)
    del rows[50]
    assert len(load(own(rows=rows)).recordings) == 1


def test_an_empty_label_is_unlabelled_time(own):
    data = load(own({(3, "label"): "", (4, "label"): "  "}))
    np.testing.assert_array_equal(data.recordings[0].y[:6], [1, 1, 1, -1, -1, 1])


def test_labels_can_be_declared_unlabelled(own):
    rows = table()
    for row in rows[:10]:
        row[3] = "none"
    path = own(rows=rows)
    data = load(path, Mapping(ignored=("none",)))
    assert data.labels == ("run", "walk")
    assert (data.recordings[0].y[:10] == -1).all()
    assert "Did you mean 'none'" in refusal(path, ignored=("nine",))


def test_labels_that_are_numbers_are_sorted_as_numbers(own):
    rows = [[*row[:3], str(k // 10), row[4]] for k, row in enumerate(table(120))]
    assert load(own(rows=rows)).labels == tuple(str(k) for k in range(12))


def test_the_subject_can_be_the_name_of_the_file_or_of_its_folder(tmp_path):
    for who in ("anna", "berta", "carl"):
        write(tmp_path / who / f"{who}-1.csv", [row[:4] for row in table()], HEADER[:4])
    assert load(tmp_path, Mapping(subject_from="folder")).subjects == ("anna", "berta", "carl")
    assert load(tmp_path, Mapping(subject_from="file")).subjects == ("anna-1", "berta-1", "carl-1")


def test_a_folder_is_read_in_natural_order_with_its_subfolders(tmp_path):
    for name in ("10.csv", "9.csv", "more/1.csv", ".hidden.csv", "notes.txt"):
        write(tmp_path / name, table())
    assert [r.name for r in load(tmp_path).recordings] == ["9.csv", "10.csv", "more/1.csv"]


def test_files_may_order_their_columns_as_they_like(tmp_path):
    order = [4, 2, 0, 1, 3]
    write(tmp_path / "1.csv", table())
    write(tmp_path / "2.csv", [[row[k] for k in order] for row in table()], [HEADER[k] for k in order], delimiter=";")
    first, second = load(tmp_path).recordings
    np.testing.assert_array_equal(first.x, second.x)


def test_a_table_of_three_people_can_be_split(own):
    data = load(own(rows=[row for s in "abc" for row in table(subject=s)]))
    assert default_split(data).subjects() == {"train": ["c"], "validation": ["b"], "test": ["a"]}


# What is refused: each message names the file, the line as an editor counts it, and what to do


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "", "abc", "0,5"])
@pytest.mark.parametrize("column", ["ax", "timestamp"])
def test_a_cell_that_is_not_a_finite_number_is_refused_by_line_and_column(own, value, column):
    path = own({(7, column): f'"{value}"'})
    message = refusal(path)
    assert f"{path}, line 9, column {column!r}" in message
    assert (repr(value) if value else "an empty cell") in message
    assert "Write decimals with a point" in message if value == "0,5" else "delete the row" in message


def test_a_date_is_refused_as_a_timestamp_with_what_to_write(own):
    message = refusal(own({(0, "timestamp"): "2026-03-01 12:00:00.020"}))
    assert "line 2, column 'timestamp'" in message
    assert "Write times as numbers" in message
    assert "channel" not in message


def test_a_column_that_is_no_channel_can_be_left_out(own):
    path = own({(7, "ay"): "broken"})
    assert "If 'ay' is no channel, name those that are" in refusal(path)
    assert load(path, Mapping(channels=("ax",))).channels == ("ax",)


def test_lines_are_counted_as_an_editor_counts_them(own):
    path = own({(7, "ax"): "nan", (2, "label"): '"walk\nslowly"'})
    path.write_text(path.read_text().replace("\n0.06", "\n\n0.06"))  # a blank line
    assert "line 11, column 'ax'" in refusal(path)
    assert path.read_text().split("\n")[11 - 1].split(",")[1] == "nan"


def test_lines_are_counted_on_in_a_long_file(own):
    path = own({(69_999, "ay"): "?"}, rows=table(70_000))
    assert "line 70001, column 'ay': '?'" in refusal(path)


@pytest.mark.parametrize("role", ["time", "label", "subject", "recording", "channels"])
def test_a_missing_column_is_refused_with_the_closest_match(own, role):
    path = own(header=["timestamp", "accel_x", "accel_y", "label", "subject"])
    wrong = {
        "time": "timestmp",
        "label": "lable",
        "subject": "subjct",
        "recording": "recordin",
        "channels": ("acel_x",),
    }
    right = {"time": "timestamp", "label": "label", "subject": "subject", "channels": "accel_x"}
    message = refusal(path, **{role: wrong[role]})
    assert str(path) in message
    assert "Known: accel_x, accel_y, label, subject, timestamp" in message
    assert f"{role}=NAME" in message
    if role in right:
        assert f"Did you mean {right[role]!r}" in message


def test_a_missing_subject_column_offers_the_name_of_file_or_folder(own):
    path = own(rows=[row[:4] for row in table()], header=HEADER[:4])
    assert "subject_from=file or folder" in refusal(path)


def test_an_empty_subject_is_refused_by_line(own):
    path = own({(5, "subject"): " "})
    message = refusal(path)
    assert f"{path}, line 7: the subject is empty" in message
    assert "Fill it in" in message


def test_unsorted_timestamps_are_refused_by_line(own):
    rows = table()
    rows[10], rows[11] = rows[11], rows[10]
    path = own(rows=rows)
    message = refusal(path)
    assert f"{path}, line 13: the timestamp is 0.02 s before the one above (1 such rows)" in message
    assert "Sort the rows by time" in message


def test_a_clock_that_starts_again_is_refused_with_the_offer_of_a_recording_column(own):
    message = refusal(own(rows=table() + table()))
    assert "line 102" in message
    assert "a column named 'recording'" in message


def test_duplicate_timestamps_are_refused_by_line(own):
    rows = table()
    path = own({(11, "timestamp"): rows[10][0]}, rows=rows)
    message = refusal(path)
    assert f"{path}, line 13: the timestamp repeats the one before" in message
    assert "Delete one of the two rows" in message


@pytest.mark.parametrize(("unit", "ticks"), [("ms", 20), ("us", 20_000), ("ns", 20_000_000)])
def test_a_wrong_time_unit_is_refused_with_the_one_that_fits(own, unit, ticks):
    rows = table()
    for k, row in enumerate(rows):
        row[0] = str(k * ticks)
    path = own(rows=rows)
    message = refusal(path)
    assert str(path) in message
    assert f"a frame every {ticks:.6g} s" in message
    assert f"time_unit={unit} would make it 50 Hz" in message


def test_seconds_stated_as_nanoseconds_are_refused_with_the_unit_that_fits(own):
    assert "time_unit=s would make it 50 Hz" in refusal(own(), time_unit="ns")


def test_a_slow_rate_is_believed_when_it_is_stated(own):
    path = own(rows=table(rate=0.1))
    assert "state it: rate=0.1" in refusal(path)
    data = load(path, Mapping(rate=0.1))
    assert (data.rate, len(data.recordings)) == (0.1, 1)


def test_a_rate_other_than_the_stated_one_is_refused_with_both(own):
    path = own()
    message = refusal(path, rate=100)
    assert str(path) in message
    assert "its rate is 50 Hz, and rate=100 was stated" in message
    assert "State the rate the file has" in message
    assert "time_unit=ms would make it 50000 Hz" in refusal(path, rate=50_000)


def test_files_of_different_rates_are_refused_by_file(tmp_path):
    fast = write(tmp_path / "1.csv", table(400))
    slow = write(tmp_path / "2.csv", table(rate=47))
    message = refusal(tmp_path)
    assert f"{slow}: its rate is 47 Hz, and that of {fast} is 50 Hz" in message
    assert "more than 5% apart" in message
    assert "Resample" in message


def test_files_whose_clocks_differ_a_little_are_accepted(tmp_path):
    write(tmp_path / "1.csv", table(400))
    write(tmp_path / "2.csv", table(rate=49))
    assert load(tmp_path).rate == pytest.approx(50, rel=0.01)


def test_uneven_frames_are_refused_with_the_numbers(own):
    rows = table(200)
    for k, row in enumerate(rows):
        row[0] = f"{k * 0.02 + (0.012 if k % 10 == 5 else 0):.4f}"
    path = own(rows=rows)
    message = refusal(path)
    assert f"{path}: its frames are not evenly spaced" in message
    assert (
        "every 20 ms; of 199 intervals 40 are off by more than half of that, and about 0 frames are missing" in message
    )
    assert "percentiles 1, 50, 99: 8, 20, 32 ms" in message
    assert "Resample" in message


def test_ordinary_jitter_is_accepted(own):
    rows = table(500)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 500)
    for k, row in enumerate(rows):
        row[0] = f"{k * 0.02 + jitter[k]:.6f}"
    assert load(own(rows=rows)).rate == pytest.approx(50, rel=0.01)


def test_rows_of_subjects_that_alternate_are_refused(own):
    rows = [row for pair in zip(table(subject="a"), table(subject="b"), strict=True) for row in pair]
    message = refusal(own(rows=rows))
    assert "the first time at line 3" in message
    assert "Sort the rows by subject" in message


def test_files_with_different_columns_are_refused_with_the_difference(tmp_path):
    write(tmp_path / "1.csv", table())
    other = write(tmp_path / "2.csv", table(), ["timestamp", "ax", "az", "label", "subject"])
    message = refusal(tmp_path)
    assert f"{other}: " in message
    assert f"{tmp_path / '1.csv'}: it lacks ay and adds az" in message
    assert "channels=NAME" in message
    assert load(tmp_path, Mapping(channels=("ax",))).channels == ("ax",)


def test_a_single_class_is_refused_by_its_name(own):
    message = refusal(own({(k, "label"): "walk" for k in range(100)}))
    assert "only one class, 'walk'" in message


def test_a_line_of_another_length_is_refused_by_line(own):
    rows = table()
    rows[4] = rows[4][:3]
    path = own(rows=rows)
    assert f"{path}, line 6: 3 cells, and the header has 5" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: it is empty"),
        (b"timestamp,ax,label,subject\n", "no rows"),
        (b"0.0,1.0,2,1\n0.02,1.0,2,1\n", "Put a line with the column names above"),
        ("timestamp,ax,label,subject\n0,1,Übung,1\n".encode("latin-1"), "byte 0xdc is not UTF-8"),
        ("timestamp,ax\n".encode("utf-16"), "Save the file as UTF-8"),
        (b"timestamp,ax,ax,label,subject\n0,1,2,a,1\n", "column 'ax' is there twice"),
        (b"timestamp,ax,label,subject\n0,left,a,1\n", "no column of numbers"),
        (b"timestamp,ax,label,subject\n0,1,a,1\n1,2,b,2\n", "no recording has two frames"),
        (b"timestamp,ax,label,subject\n0,1,a,1\n0.02,1e300,b,1\n", "channel 'ax': the value is inf"),
        (b'timestamp,ax,label,subject\n0,1,"' + b"a" * 200_000 + b'",1\n', "not a CSV file"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "walks.csv"
    path.write_bytes(content)
    message = refusal(path)
    assert "walks" in message
    assert said in message


def test_too_many_classes_look_like_a_measurement(own):
    rows = [[*row[:3], f"{k}", row[4]] for k, row in enumerate(table(33_000))]
    assert "33000 different values" in refusal(own(rows=rows))


def test_a_folder_without_tables_is_refused_with_what_is_read(tmp_path):
    assert ".csv or .parquet" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"time_unit": "msec"}, "Did you mean 'ms'"),
        ({"subject_from": "files"}, "Did you mean 'file'"),
        ({"rate": 0}, "rate is 0"),
        ({"gap": -1}, "gap is -1"),
        ({"channels": ("ax", "ay"), "units": ("g",)}, "one unit per channel"),
        ({"time": "label"}, "column 'label' is mapped twice"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(mapping, said):
    with pytest.raises(InputError) as caught:
        Mapping(**mapping)
    assert said in str(caught.value)


# Parquet


def parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = table()
    made = {name: [row[k] for row in rows] for k, name in enumerate(HEADER)}
    made |= {name: [float(v) for v in made[name]] for name in HEADER[:3]} | columns
    pq.write_table(pa.table(made), path)
    return path


def test_parquet_and_csv_of_the_same_table_are_the_same_data(own, tmp_path):
    assert load(parquet(tmp_path / "walks.parquet")).fingerprint() == load(own()).fingerprint()


def test_parquet_knows_its_own_types(tmp_path):
    pa = pytest.importorskip("pyarrow")
    start = 1_700_000_000_000
    path = parquet(
        tmp_path / "walks.parquet",
        timestamp=pa.array([start + 20 * k for k in range(100)], pa.timestamp("ms")),
        subject=[7] * 100,
        label=pa.array([None, 2.0, 10.0, *[2.0] * 97]).dictionary_encode(),
        ay=pa.array(range(100), pa.int8()),
    )
    data = load(path)
    assert (data.rate, data.subjects, data.labels) == (50.0, ("7",), ("2", "10"))
    np.testing.assert_array_equal(data.recordings[0].y[:4], [-1, 0, 1, 0])
    np.testing.assert_array_equal(data.recordings[0].x[:3, 1], [0, 1, 2])


@pytest.mark.parametrize(("cell", "shown"), [(None, "an empty cell"), (float("nan"), "'nan'")])
def test_a_cell_of_parquet_that_is_not_a_number_is_refused_by_row_and_column(tmp_path, cell, shown):
    path = parquet(tmp_path / "walks.parquet", ay=[1.0, 2.0, cell, *[0.0] * 97])
    message = refusal(path)
    assert f"{path}, row 3, column 'ay': {shown} is not a finite number" in message


def test_a_parquet_clock_of_unsigned_integers_that_runs_backwards_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    ticks = [*range(1000, 3000, 20)]
    ticks[50] = 0
    path = parquet(tmp_path / "walks.parquet", timestamp=pa.array(ticks, pa.uint32()))
    assert "row 51: the timestamp is 1.98 s before" in refusal(path, time_unit="ms")


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "walks.parquet"
    path.write_bytes(b"timestamp,ax\n")
    assert f"{path}: this is not a Parquet file" in refusal(path)


def test_parquet_without_pyarrow_is_refused_with_the_line_that_installs_it(tmp_path, monkeypatch):
    path = tmp_path / "walks.parquet"
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgeseq\[parquet\]'") as caught:
        load(path)
    assert caught.value.exit_code == 3


# Round trips


def write_dataset(data, path):
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["timestamp", *data.channels, "label", "subject", "recording"])
        for name, recording in enumerate(data.recordings):
            for k, (x, y) in enumerate(zip(recording.x.tolist(), recording.y.tolist(), strict=True)):
                label = data.labels[y] if y >= 0 else ""
                out.writerow([repr(k / data.rate), *map(repr, x), label, recording.subject, name])


def test_a_registered_set_comes_back_from_csv_as_it_was(tmp_path):
    data = load("spar_watch").only(["3"])
    write_dataset(data, tmp_path / "three.csv")
    back = load(tmp_path / "three.csv", Mapping(channels=data.channels, units=data.units))
    assert (back.rate, back.subjects, sorted(back.labels)) == (data.rate, data.subjects, sorted(data.labels))
    for was, now in zip(data.recordings, back.recordings, strict=True):
        np.testing.assert_array_equal(was.x, now.x)
        assert [data.labels[k] for k in was.y] == [back.labels[k] for k in now.y]


@pytest.mark.filterwarnings("ignore:.*shorter than 1 s")
@settings(max_examples=30)
@given(
    values=st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from("ab ")), min_size=3
    ),
    rate=st.floats(3, 9e4),
    start=st.floats(0, 1e6),
)
def test_any_frames_and_labels_come_back_from_csv_exactly(tmp_path_factory, values, rate, start):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    rows = [[repr(start + k / rate), repr(x), label, "1"] for k, (x, label) in enumerate([*values, (0, "a"), (0, "b")])]
    write(path, rows, ["timestamp", "ax", "label", "subject"])
    data = load(path)
    assert data.rate == pytest.approx(rate, rel=1e-3)
    np.testing.assert_array_equal(data.recordings[0].x[: len(values), 0], np.array([x for x, _ in values], np.float32))
    assert [("a", "b", " ")[k] for k in data.recordings[0].y[: len(values)]] == [label for _, label in values]
