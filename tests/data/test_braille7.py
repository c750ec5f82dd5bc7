"""A registered data set that is not shipped: found where the user says, refused with its origin elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeseq.data import Mapping, datasets, load, locate
from edgeseq.errors import InputError

FACTS = next(facts for facts in datasets() if facts.name == "braille7")
REAL = Path(__file__).parents[3] / "shared" / "data"


def made(folder, count=30, frames=5, channels=3, **changes):
    """A file of the same format: random spikes."""
    spikes = np.random.default_rng(0).integers(0, 2, (count, frames, channels), np.uint8)
    arrays = {
        "bits": np.packbits(spikes.reshape(count, -1), axis=1),
        "shape": np.array(spikes.shape),
        "y": np.arange(count, dtype=np.uint8) % 3,
        "labels": np.array(["A", "E", "I"]),
    } | changes
    path = folder / "braille7.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path, spikes


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("EDGESEQ_DATA", raising=False)


def test_its_bits_are_unpacked_to_segments_of_spikes(tmp_path):
    path, spikes = made(tmp_path)
    data = load(path)
    assert (data.name, data.task, data.rate, data.labels) == ("braille7", "segment", 200.0, ("A", "E", "I"))
    assert (data.channels, data.units) == (("taxel1", "taxel2", "taxel3"), ("spike",) * 3)
    assert data.licence == FACTS.licence
    assert data.dealt
    np.testing.assert_array_equal(np.stack([r.x for r in data.recordings]), spikes)
    assert [int(r.y[0]) for r in data.recordings] == [k % 3 for k in range(30)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": None}, "key 'bits' is missing"),
        ({"shape": np.array([30, 5, 4])}, r"where 'shape' says \(30, 5, 4\)"),
        ({"shape": np.array([30, 15])}, "where 'shape' says"),
        ({"y": np.zeros(29, np.uint8)}, r"'y' \(29,\)"),
        ({"bits": np.zeros((30, 2), np.int16)}, "int16"),
        ({"y": np.full(30, 3, np.uint8)}, "label index 3 is outside"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path, changes, said):
    path, _ = made(tmp_path, **changes)
    with pytest.raises(InputError, match=said):
        load(path)


def test_without_its_file_it_says_where_it_is_from_and_what_to_type():
    with pytest.raises(InputError, match="does not come with edgeseq") as caught:
        load("braille7")
    for said in ("L2MU-Braille", "Apache-2.0", "--data PATH", "EDGESEQ_DATA=FOLDER"):
        assert said in str(caught.value)


def test_the_environment_says_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "braille7").mkdir()
    path, _ = made(tmp_path / "braille7")
    monkeypatch.setenv("EDGESEQ_DATA", str(tmp_path))
    assert load("braille7").fingerprint() == load(path).fingerprint()
    monkeypatch.setenv("EDGESEQ_DATA", str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"other \(EDGESEQ_DATA of the environment\) does not exist"):
        load("braille7")


def test_a_place_is_its_file_or_a_folder_around_it(tmp_path):
    (tmp_path / "braille7").mkdir()
    path, _ = made(tmp_path / "braille7")
    assert [locate("braille7", place) for place in (tmp_path, tmp_path / "braille7", path)] == [f"braille7={path}"] * 3
    (tmp_path / "b.npz").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"b\.npz: this file is not one of braille7, which are called braille7\.npz"):
        locate("braille7", tmp_path / "b.npz")


@pytest.mark.parametrize("name", ["spar_watch", "own.npz"])
def test_only_what_is_not_shipped_is_looked_for(tmp_path, name):
    with pytest.raises(InputError, match=r"leave --data out, which is for .*braille7"):
        locate(name, tmp_path)


def test_it_takes_no_mapping(tmp_path):
    path, _ = made(tmp_path)
    with pytest.raises(InputError, match="takes no mapping"):
        load(path, Mapping(label="y"))


@pytest.mark.skipif(not (REAL / "braille7").is_dir(), reason="the data set is not here")
def test_the_facts_are_those_of_the_file():
    data = load(locate("braille7", REAL))
    assert (FACTS.channels, FACTS.labels, FACTS.rate, FACTS.task) == (data.channels, data.labels, data.rate, data.task)
    assert (FACTS.recordings, FACTS.frames) == (len(data.recordings), data.frames)
    assert FACTS.minutes == round(data.hours * 60, 1)
    assert data.label_counts().tolist() == [128, 138, 130, 136, 126, 133, 129]
    assert {r.x.shape for r in data.recordings} == {(256, 12)}
    assert np.mean([r.x.mean() for r in data.recordings]) == pytest.approx(0.23, abs=0.005)
