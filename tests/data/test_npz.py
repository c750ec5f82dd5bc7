import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeseq.data import Dataset, Mapping, Recording, load, read_npz, write_npz
from edgeseq.errors import InputError


def arrays(**changes):
    """Three recordings of 60, 50 and 70 frames, 2 channels; None removes a key."""
    made = {
        "x": np.arange(360, dtype=np.int16).reshape(180, 2),
        "scale": np.array([0.5, 0.25], np.float32),
        "offset": np.array([0, 60, 110, 180]),
        "y": np.array([0, 1, 0], np.uint8),
        "subject": np.array([2, 10, 1], np.uint8),
        "labels": np.array(["walk", "run"]),
        "channels": np.array(["ax", "ay"]),
        "units": np.array(["g", "g"]),
        "fs": np.float32(50),
    } | changes
    return {key: value for key, value in made.items() if value is not None}


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        path = tmp_path / "own.npz"
        np.savez(path, **arrays(**changes))
        return path

    return save


def refusal(path, **kwargs):
    with pytest.raises(InputError) as caught:
        load(path, **kwargs)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_integers_are_scaled_to_physical_units(saved):
    data = load(saved())
    assert data.recordings[1].x.dtype == np.float32
    np.testing.assert_array_equal(data.recordings[1].x[0], [120 * 0.5, 121 * 0.25])
    assert [len(r.x) for r in data.recordings] == [60, 50, 70]
    assert [r.subject for r in data.recordings] == ["2", "10", "1"]
    assert [r.name for r in data.recordings] == ["own.npz[0]", "own.npz[1]", "own.npz[2]"]
    assert (data.name, data.rate, data.units) == ("own", 50.0, ("g", "g"))


def test_a_scale_is_applied_in_its_own_precision(saved):
    x = np.arange(360, dtype=np.int16).reshape(180, 2)
    data = load(saved(scale=np.array([0.1, 0.7])))
    np.testing.assert_array_equal(data.recordings[0].x, (x[:60] * [0.1, 0.7]).astype(np.float32))


def test_a_label_per_recording_holds_for_all_its_frames(saved):
    data = load(saved())
    assert [set(r.y.tolist()) for r in data.recordings] == [{0}, {1}, {0}]


def test_a_label_per_frame_is_kept_and_negative_ones_are_unlabelled(saved):
    y = np.resize(np.array([0, 1, -1, -7]), 180)
    data = load(saved(y=y))
    np.testing.assert_array_equal(np.concatenate([r.y for r in data.recordings]), np.maximum(y, -1))


def test_recordings_of_equal_length_need_no_offset(saved):
    x = np.arange(3 * 60 * 2, dtype=np.float32).reshape(3, 60, 2)
    data = load(saved(x=x, scale=None, offset=None))
    for k in range(3):
        np.testing.assert_array_equal(data.recordings[k].x, x[k])


def test_a_declared_ignored_label_is_unlabelled_time_and_no_class(saved):
    y = np.repeat(np.array([0, 1, 2], np.uint8), 60)
    data = load(saved(y=y, labels=np.array(["none", "walk", "run"]), ignored=np.array(0)))
    assert data.labels == ("walk", "run")
    np.testing.assert_array_equal(np.concatenate([r.y for r in data.recordings]), np.repeat([-1, 0, 1], 60))


def test_an_ignored_index_need_not_be_a_label(saved):
    y = np.repeat(np.array([0, 255, 1], np.uint8), 60)
    data = load(saved(y=y, ignored=np.array([255])))
    np.testing.assert_array_equal(np.concatenate([r.y for r in data.recordings]), np.repeat([0, -1, 1], 60))


def test_the_mapping_can_ignore_a_label_of_the_file(saved):
    path = saved(y=np.repeat([0, 1, 2], 60), labels=np.array(["walk", "none", "run"]))
    assert load(path, Mapping(ignored=("none",))).labels == ("walk", "run")
    assert "Did you mean 'none'" in refusal(path, mapping=Mapping(ignored=("non",)))


def test_a_mapping_of_columns_is_refused_rather_than_forgotten(saved):
    assert "leave all but 'ignored' out" in refusal(saved(), mapping=Mapping(time="t"))


@pytest.mark.parametrize("key", ["x", "scale", "offset", "y", "subject", "labels", "channels", "units", "fs"])
def test_a_missing_key_is_refused_by_name_with_what_it_should_hold(saved, key):
    message = refusal(saved(**{key: None}))
    assert f"key '{key}' is missing" in message
    assert "Add it" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros(180)}, "key 'x' is float64 (180,). Give numbers of shape (N, C)"),
        ({"x": np.zeros((0, 2))}, "key 'x'"),
        ({"x": np.full((180, 2), "1")}, "key 'x'"),
        ({"scale": np.ones(3)}, "key 'scale' is float64 (3,). Give 2 numbers"),
        ({"scale": np.array([1.0, 0.0])}, "key 'scale'"),
        ({"scale": np.array([1.0, np.nan])}, "key 'scale'"),
        ({"offset": np.array([0, 60, 60, 180])}, "does not rise at recording 1: 60, then 60"),
        ({"offset": np.array([0, 110, 60, 180])}, "does not rise at recording 1: 110, then 60"),
        ({"offset": np.array([0, 60, 110, 181])}, "runs from 0 to 181, and 'x' has 180 frames"),
        ({"offset": np.array([1, 60, 110, 180])}, "Start it at 0"),
        ({"offset": np.array([0.0, 60, 110, 180])}, "key 'offset' is float64"),
        ({"y": np.zeros(4, np.uint8)}, "key 'y' is uint8 (4,)"),
        ({"y": np.zeros(3)}, "key 'y' is float64 (3,)"),
        ({"y": np.array([0, 1, 2])}, "key 'y' has index 2 at 2, and there are 2 labels (0 to 1)"),
        ({"subject": np.array([1, 2])}, "key 'subject' has 2 entries for 3 recordings"),
        ({"channels": np.array(["ax"])}, "key 'channels' has 1 entries, and x has 2 columns"),
        ({"units": np.array(["g"])}, "key 'units'"),
        ({"labels": np.array("walk")}, "key 'labels'"),
        ({"fs": np.array([50.0, 60.0])}, "key 'fs'"),
        ({"fs": np.array("50 Hz")}, "key 'fs'"),
        ({"ignored": np.array("none")}, "key 'ignored'"),
        ({"fs": np.array(-50.0)}, "rate is -50.0"),
    ],
)
def test_a_key_of_wrong_shape_or_value_is_refused_by_name_with_the_mend(saved, change, said):
    with pytest.raises(InputError) as caught:
        load(saved(**change))
    assert said in str(caught.value)


def test_python_objects_are_never_unpickled(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    path = tmp_path / "trap.npz"
    np.savez(path, **arrays(subject=np.array([Trap(), Trap(), Trap()], object)))
    message = refusal(path)
    assert "key 'subject' holds Python objects" in message
    assert "dtype=str" in message


@pytest.mark.parametrize("content", [b"", b"timestamp,ax\n0,1\n", pickle.dumps({"x": 1}), b"PK\x03\x04 broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    assert "numpy.savez" in refusal(path)


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "single array" in refusal(path)


def test_a_damaged_file_is_refused(saved):
    path = saved()
    content = bytearray(path.read_bytes())
    at = content.find(np.arange(40, 60, dtype=np.int16).tobytes())
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "key 'x' is damaged" in refusal(path)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@st.composite
def any_dataset(draw):
    channels = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    labels = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    recordings = []
    for k in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(1, 9))
        x = draw(hnp.arrays(np.float32, (frames, len(channels)), elements=st.floats(width=32, allow_nan=False)))
        y = draw(hnp.arrays(np.int16, frames, elements=st.integers(-1, len(labels) - 1)))
        recordings.append(Recording(x, y, draw(names), f"r{k}"))
    rate = draw(st.floats(0.1, 1e5))
    units = tuple(draw(names) for _ in channels)
    return Dataset("any", tuple(recordings), tuple(channels), units, rate, tuple(labels), "CC0", "Nobody", "here")


@settings(max_examples=50)
@given(any_dataset())
def test_any_data_set_comes_back_from_a_file_as_it_was(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    write_npz(data, path)
    back = read_npz(path)
    assert back.fingerprint() == data.fingerprint()
    assert [r.name for r in back.recordings] == [r.name for r in data.recordings]
    assert (back.name, back.licence, back.citation, back.origin) == ("any", "CC0", "Nobody", "here")


def test_a_written_file_needs_nothing_but_numpy(tmp_path):
    write_npz(load("spar_watch").only(["1"]), tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert file["x"].shape == (file["offset"][-1], 6)
