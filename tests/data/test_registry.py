import dataclasses
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeseq.data import Mapping, datasets, load
from edgeseq.errors import InputError

# But smnist, whose 70,000 digits are those of psmnist: test_mnist.py compares the two.
READ = [facts for facts in datasets() if facts.name != "smnist"]


@pytest.mark.parametrize("facts", READ, ids=lambda facts: facts.name)
def test_the_facts_of_a_registered_set_are_those_of_its_data(facts, real):
    data = load(facts.name if facts.shipped else f"{facts.name}={real(facts.name)}")
    assert (facts.name, facts.licence, facts.citation) == (data.name, data.licence, data.citation)
    assert (facts.channels, facts.labels, facts.rate, facts.task) == (data.channels, data.labels, data.rate, data.task)
    assert (facts.recordings, facts.frames) == (len(data.recordings), data.frames)
    assert facts.subjects == (0 if data.dealt else len(data.subjects))
    assert facts.minutes == round(data.hours * 60, 1)
    labelled = (recording.y[recording.y >= 0] for recording in data.recordings)
    assert facts.changing == any((y[1:] != y[:-1]).any() for y in labelled)
    assert msgspec.json.decode(msgspec.json.encode(facts), type=type(facts)) == facts


def test_spar_watch_is_what_its_readme_says():
    data = load("spar_watch")
    assert data.subjects == tuple(str(k) for k in range(1, 11))
    assert len(data.recordings) == 140
    assert data.frames == 244_102
    assert data.rate == 50
    assert data.labels == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert data.units == ("g", "g", "g", "rad/s", "rad/s", "rad/s")
    assert round(data.hours * 60, 1) == 81.4
    assert {min(len(r.x) for r in data.recordings), max(len(r.x) for r in data.recordings)} == {947, 2618}
    per_label = np.bincount([r.y[0] for r in data.recordings])
    assert per_label.tolist() == [20] * 7
    assert all(len(data.only([s]).recordings) == 14 for s in data.subjects)
    still = np.median([np.linalg.norm(r.x[:, :3], axis=1).mean() for r in data.recordings])
    assert 0.9 < still < 1.2  # gravity, in g


def test_spar_watch_acc_is_spar_watch_without_the_gyroscope():
    whole, accelerations = load("spar_watch"), load("spar_watch_acc")
    assert accelerations.channels == ("ax", "ay", "az")
    assert accelerations.units == ("g", "g", "g")
    assert (accelerations.signs, accelerations.worn) == (whole.signs, whole.worn) == ("apple", "wrist")
    for one, other in zip(accelerations.recordings, whole.recordings, strict=True):
        assert (one.name, one.subject) == (other.name, other.subject)
        np.testing.assert_array_equal(one.x, other.x[:, :3])
        np.testing.assert_array_equal(one.y, other.y)
    assert accelerations.fingerprint() != whole.fingerprint()


def test_spar_watch_ships_with_its_licence():
    folder = resources.files("edgeseq.data.spar_watch")
    assert "David M. Burns" in folder.joinpath("LICENSE.txt").read_text(encoding="utf-8")
    assert folder.joinpath("README.md").is_file()
    assert folder.joinpath("spar_watch.npz").is_file()


def test_an_unknown_name_is_refused_with_the_closest_match_and_the_offer_of_a_path():
    with pytest.raises(InputError, match=r"Did you mean 'spar_watch'.*A path is accepted too") as caught:
        load("spar_wach")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("source", ["walks.csv", "here/walks", Path("walks")])
def test_a_path_that_does_not_exist_is_refused_as_a_path(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{source}: there is no such file or folder"):
        load(source)


def test_a_file_of_another_type_is_refused_with_the_types_that_are_read(tmp_path):
    path = tmp_path / "walks.xlsx"
    path.touch()
    with pytest.raises(InputError, match=r"walks\.xlsx.*\.npz, \.csv, \.parquet"):
        load(path)


def test_a_registered_set_takes_no_mapping():
    with pytest.raises(InputError, match="takes no mapping"):
        load("spar_watch", Mapping(label="y"))
    assert load("spar_watch", Mapping()).name == "spar_watch"


def test_a_path_is_read_by_its_own_name_even_if_a_set_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spar_watch").mkdir()
    assert load("spar_watch").frames == 244_102
    with pytest.raises(InputError, match="the folder holds no"):
        load(Path("spar_watch"))


def test_loading_twice_shares_nothing():
    first, second = load("spar_watch"), load("spar_watch")
    first.recordings[0].x[:] = 0
    assert second.recordings[0].x.any()
    assert dataclasses.is_dataclass(first)
