"""Data sets that are not shipped: by which names they go, where they are looked for, what is said elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeseq.data import datasets, load, locate, located, named
from edgeseq.data.facts import Known
from edgeseq.data.sets import REGISTERED
from edgeseq.errors import InputError

ABSENT = [known for known in REGISTERED if not known.facts.shipped]


def touched(folder, form):
    """An empty file of that form, under ``folder``."""
    path = folder / form.replace("[0-9]", "7").replace("*", "1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


FORMS = [(known, form) for known in ABSENT for form in known.forms]


@pytest.mark.parametrize(("known", "form"), FORMS, ids=lambda value: getattr(value, "facts", None) and value.facts.name)
def test_every_form_is_found_by_its_file_its_folder_and_the_folder_of_all(tmp_path, known, form):
    home = tmp_path / (known.folder or known.facts.name)
    path = touched(home, form)
    fixed = form.count("/") - form[form.find("*") if "*" in form else 0 :].count("/") if "*" in form else 0
    taken = path if path.suffix == ".npz" else home.joinpath(*form.split("/")[:fixed])
    assert known.find(tmp_path) == known.find(home) == known.find(path) == taken
    assert known.find(taken) == taken


def test_a_file_of_another_name_is_not_taken(tmp_path):
    for known in ABSENT:
        assert known.find(touched(tmp_path, "other.npz")) is None
        assert known.find(tmp_path) is None
        assert known.find(tmp_path / "nowhere") is None


def test_our_own_file_goes_before_those_of_the_origin(tmp_path):
    known = Known(ABSENT[0].facts, load, ("a.npz", "s*/*.csv"))
    csv = touched(tmp_path, "s1/b.csv")
    assert known.find(tmp_path) == tmp_path
    assert known.find(csv) == tmp_path
    npz = touched(tmp_path, "a.npz")
    assert known.find(tmp_path) == npz


@pytest.mark.parametrize("known", ABSENT, ids=lambda known: known.facts.name)
def test_where_it_is_missing_its_origin_licence_and_command_are_named(known, tmp_path, monkeypatch):
    facts = known.facts
    with pytest.raises(InputError, match=f"^{facts.name} does not come with edgeseq") as without:
        load(facts.name)
    monkeypatch.setenv("EDGESEQ_DATA", str(tmp_path))
    with pytest.raises(InputError, match="there is no ") as elsewhere:
        load(facts.name)
    with pytest.raises(InputError, match="there is no ") as said:
        load(f"{facts.name}={tmp_path}")
    mends = (f"edgeseq train {facts.name} --data PATH", f"--data {facts.name}=PATH", "EDGESEQ_DATA=FOLDER")
    for message in (str(caught.value) for caught in (without, elsewhere, said)):
        for wanted in (facts.origin, facts.licence, *mends):
            assert wanted in message
        assert f"FOLDER/{known.folder or facts.name}/{known.forms[0]}" in message


@pytest.mark.parametrize("facts", datasets(), ids=lambda facts: facts.name)
def test_a_set_is_named_by_its_name_and_by_its_place(facts, tmp_path):
    assert named(facts.name) == facts.name
    known = next(known for known in REGISTERED if known.facts == facts)
    if facts.shipped:
        with pytest.raises(InputError, match=f"{facts.name} is found by its own name or path"):
            locate(facts.name, tmp_path)
        with pytest.raises(InputError, match=f"{facts.name} comes with edgeseq. Leave its place out"):
            load(f"{facts.name}={tmp_path / 'x'}")
    else:
        path = touched(tmp_path, known.forms[0])
        assert locate(facts.name, tmp_path) == f"{facts.name}={path}"
        assert named(f"{facts.name}={tmp_path}") == named(f"{facts.name}={tmp_path / 'gone'}") == facts.name


def test_a_path_of_ones_own_is_not_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"own\.npz is found by its own name or path: leave --data out, which is for "):
        locate("own.npz", tmp_path)


def test_the_environment_says_where_the_sets_are(tmp_path, monkeypatch):
    path = tmp_path / "ecg5000" / "ecg5000.npz"
    path.parent.mkdir()
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 140)), y=np.arange(40) % 5)
    monkeypatch.setenv("EDGESEQ_DATA", str(tmp_path))
    assert load("ecg5000").fingerprint() == load(f"ecg5000={path}").fingerprint()


def test_the_place_in_a_lineage_is_absolute(tmp_path, monkeypatch):
    touched(tmp_path / "sounds", "fsdd.npz")
    monkeypatch.chdir(tmp_path)
    assert locate("fsdd", "sounds") == f"fsdd={tmp_path / 'sounds' / 'fsdd.npz'}"


def test_a_path_is_not_named(tmp_path):
    for source in (tmp_path, str(tmp_path), tmp_path / "braille7.npz", "a=b", Path("fsdd"), f"spar_watch={tmp_path}"):
        assert named(source) == ""
    assert named(touched(tmp_path, "braille7.npz")) == "braille7"  # as model folders of before have it


def test_a_place_that_does_not_exist_is_said_to_be_so_and_who_named_it(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    with pytest.raises(InputError, match=f"^{gone} does not exist"):
        locate("fsdd", gone)
    monkeypatch.setenv("EDGESEQ_DATA", str(gone))
    with pytest.raises(InputError, match=rf"^{gone} \(EDGESEQ_DATA of the environment\) does not exist"):
        load("fsdd")


def test_a_file_of_the_wrong_kind_is_said_to_be_so(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv: this file is not one of fsdd, which are called fsdd\.npz or "):
        locate("fsdd", touched(tmp_path, "a.csv"))


@pytest.mark.parametrize(("name", "form"), [("ecg5000", "ecg5000_train500.npz"), ("fsdd", "[0-9]_*_*.wav")])
def test_a_known_set_that_is_named_by_its_path_alone_is_refused_with_its_name(tmp_path, name, form):
    path = touched(tmp_path, form)
    place = path if path.suffix == ".npz" else tmp_path
    said = f"If this is {name}: edgeseq train {name} --data {place}, elsewhere {name}={place}"
    with pytest.raises(InputError, match=said):
        load(str(place))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fsddd", "unknown data set 'fsddd'. Did you mean 'fsdd'?"),
        ("mnist", "unknown data set 'mnist'. Did you mean 'psmnist' or 'smnist'?"),
        ("geotec", "unknown data set 'geotec'. Did you mean 'geotec_watch'?"),
    ],
)
def test_a_wrong_name_is_refused_with_all_that_may_be_meant(tmp_path, name, said):
    for refused in (lambda: locate(name, tmp_path), lambda: load(name), lambda: load(f"{name}={tmp_path}")):
        with pytest.raises(InputError) as caught:
            refused()
        assert said in str(caught.value)


def test_a_path_is_taken_for_the_set_whose_files_are_there_if_it_was_named_before(tmp_path):
    path = touched(tmp_path / "fsdd", "fsdd.npz")
    for place in (tmp_path, path.parent):
        assert located(str(place), ["braille7", "fsdd"]) == f"fsdd={path}"
        assert located(str(place), ["braille7"]) == str(place)
    for source in ("fsdd", f"fsdd={tmp_path}", str(tmp_path / "none"), "spar_watch"):
        assert located(source, ["fsdd", "spar_watch"]) == source


def test_what_is_wrong_with_a_known_set_may_be_its_copy(tmp_path):
    path = tmp_path / "ecg5000.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(4, 140)), y=np.full(4, 9, np.uint8))
    with pytest.raises(InputError, match=rf"label index 9 is outside.* Or, if you changed nothing in {path}, copy it"):
        load(f"ecg5000={path}")


def test_a_wrong_name_before_a_place_is_refused_with_the_closest_match(tmp_path):
    with pytest.raises(InputError, match=r"unknown data set 'fsd'\. Did you mean 'fsdd'\?"):
        load(f"fsd={tmp_path}")
