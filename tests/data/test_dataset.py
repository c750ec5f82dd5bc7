import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.data import Dataset, Recording, check, load
from edgeseq.data.dataset import natural_order
from edgeseq.errors import InputError


def recording(subject="1", frames=60, label=0, name="walk.csv"):
    x = np.arange(frames * 2, dtype=np.float32).reshape(frames, 2)
    return Recording(x, np.full(frames, label, np.int16), subject, name)


def dataset(*recordings, **changes):
    recordings = recordings or (recording(label=0), recording(label=1, name="run.csv"))
    made = Dataset("watch", recordings, ("ax", "ay"), ("g", "g"), 50.0, ("walk", "run"))
    return dataclasses.replace(made, **changes)


def refusal(data):
    with pytest.raises(InputError) as caught:
        check(data)
    return str(caught.value)


def with_value(value, row, column):
    bad = recording(name="broken.csv")
    bad.x[row, column] = value
    return dataset(recording(label=1), bad)


def test_good_data_passes_the_check_unchanged():
    data = dataset()
    assert check(data) is data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_recording_row_and_channel(value):
    message = refusal(with_value(value, 17, 1))
    assert "'broken.csv', row 17" in message
    assert "'ay'" in message
    assert str(np.float32(value)) in message
    assert "Fill it in" in message


def test_a_single_class_is_refused_by_its_name():
    message = refusal(dataset(recording(label=1), recording(label=-1)))
    assert "only one class, 'run'" in message
    assert "at least two" in message


def test_data_without_any_label_is_refused():
    assert "no labelled frame" in refusal(dataset(recording(label=-1)))


def test_an_empty_recording_is_refused_by_name():
    message = refusal(dataset(recording(), recording(label=1), recording(frames=0, name="nothing.csv")))
    assert "'nothing.csv'" in message
    assert "Leave it out" in message


def test_data_without_recordings_is_refused():
    assert "no recordings" in refusal(dataclasses.replace(dataset(), recordings=()))


@pytest.mark.parametrize("index", [2, -2])
def test_a_label_index_out_of_range_is_refused_by_row(index):
    bad = recording(name="broken.csv")
    bad.y[9] = index
    message = refusal(dataset(recording(label=1), bad))
    assert "'broken.csv', row 9" in message
    assert f"label index {index}" in message
    assert "0 to 1" in message


def test_labels_of_another_length_than_the_frames_are_refused():
    bad = dataclasses.replace(recording(name="broken.csv"), y=np.zeros(59, np.int16))
    message = refusal(dataset(bad))
    assert "'broken.csv'" in message
    assert "60 frames" in message
    assert "one label per frame" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channels": ("ax", "ay", "az"), "units": ("g",) * 3}, "(frames, 3)"),
        ({"units": ("g",)}, "one unit per channel"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"labels": ("walk", "walk")}, "label 'walk' is named twice"),
        ({"channels": ("ax", "ax")}, "channel 'ax' is named twice"),
        ({"channels": (), "units": ()}, "no channels"),
    ],
)
def test_a_description_that_does_not_fit_the_frames_is_refused(change, said):
    assert said in refusal(dataset(**change))


def test_frames_of_another_type_are_refused_with_the_type_to_convert_to():
    bad = dataclasses.replace(recording(), x=np.zeros((60, 2)))
    message = refusal(dataset(bad))
    assert "float64" in message
    assert "Convert them to float32 and int16" in message


def test_a_recording_without_a_subject_is_refused():
    assert "no subject" in refusal(dataset(recording(subject="")))


def test_recordings_shorter_than_a_second_are_warned_about_not_refused():
    data = dataset(recording(), recording(label=1, frames=50), recording(frames=49, name="scrap.csv"))
    with pytest.warns(UserWarning, match=r"1 of 3 recordings .* 'scrap.csv' with 49 frames"):
        check(data)


def test_subjects_are_in_natural_order():
    data = dataset(*(recording(subject=s) for s in ("10", "2", "b", "1", "a10", "a9")))
    assert data.subjects == ("1", "2", "10", "a9", "a10", "b")


@given(st.sets(st.text(max_size=6)), st.randoms())
def test_natural_order_sorts_any_names_the_same_whatever_order_they_come_in(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert natural_order(names) == natural_order(dict.fromkeys(shuffled).keys())
    assert set(natural_order(names)) == names


def test_frames_hours_and_majority_share_count_what_is_there():
    data = dataset(recording(frames=90), recording(frames=30, label=1), recording(frames=60, label=-1))
    assert data.frames == 180
    assert data.hours == pytest.approx(180 / 50 / 3600)
    assert data.majority_share() == 0.75  # of the labelled frames


def test_only_keeps_the_recordings_of_the_subjects_in_order():
    data = dataset(*(recording(subject=s, name=s + n) for n in "xy" for s in "abc"))
    assert [r.name for r in data.only(["c", "a"]).recordings] == ["ax", "cx", "ay", "cy"]


def test_only_refuses_an_unknown_subject_with_the_closest_match():
    with pytest.raises(InputError, match="Did you mean 'anna'"):
        dataset(recording(subject="anna")).only(["ana"])


def test_the_fingerprint_is_the_same_everywhere():
    # Written once: another number on another machine or version means that lineage in manifests is broken.
    assert dataset().fingerprint() == "372dce8cdb88d2acf479c84a7f26b9b2a814f195ae4ccb720907d37a4a09dd03"
    assert load("spar_watch").fingerprint() == "aea4d030a07655f212df74348f7a00dec6d0196db89405df645a284c548723ac"


def test_the_fingerprint_ignores_names_and_memory_layout():
    data = dataset()
    other = dataclasses.replace(
        data,
        name="copy",
        origin="elsewhere",
        recordings=tuple(dataclasses.replace(r, name="x", x=np.asfortranarray(r.x)) for r in data.recordings),
    )
    assert other.fingerprint() == data.fingerprint()


def changed(field):
    data = dataset()
    first = data.recordings[0]
    if field == "x":
        x = first.x.copy()
        x[3, 1] = np.nextafter(x[3, 1], np.float32(np.inf))
        return dataset(dataclasses.replace(first, x=x), *data.recordings[1:])
    if field == "y":
        y = first.y.copy()
        y[3] = 1
        return dataset(dataclasses.replace(first, y=y), *data.recordings[1:])
    if field == "subject":
        return dataset(dataclasses.replace(first, subject="9"), *data.recordings[1:])
    if field == "borders":
        joined = [np.concatenate([getattr(r, k) for r in data.recordings]) for k in "xy"]
        return dataset(Recording(*joined, "1", "walk.csv"))
    value = {"rate": 50.001, "labels": ("walk", "sit"), "channels": ("ax", "az"), "units": ("g", "m/s^2")}[field]
    return dataset(**{field: value})


@pytest.mark.parametrize("field", ["x", "y", "subject", "borders", "rate", "labels", "channels", "units"])
def test_the_fingerprint_changes_with_any_content(field):
    assert changed(field).fingerprint() != dataset().fingerprint()


def test_the_room_imports_and_reads_where_torch_and_pyarrow_cannot_be_imported():
    code = """
        import sys
        for name in ("torch", "pyarrow", "pandas", "scipy", "sklearn"):
            sys.modules[name] = None  # any import of it raises ImportError
        import edgeseq.data
        assert edgeseq.data.load("spar_watch").frames == 244102
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_whole_number_is_a_rate_like_any_other():
    assert dataset(rate=50).fingerprint() == dataset(rate=50.0).fingerprint()
