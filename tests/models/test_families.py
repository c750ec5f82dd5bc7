"""The registry of families: what it builds, what it refuses, and that foreign code runs only where it is trusted."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from edgeseq.errors import InputError
from edgeseq.models import registry
from edgeseq.models.contract import parameter_count
from edgeseq.models.lmu import Lmu
from edgeseq.models.registry import FAMILIES, build, families, family_class, presets


def test_an_unknown_family_is_named_with_the_closest():
    with pytest.raises(InputError, match=r"unknown family 'lmv'\. Did you mean 'lmu'\? Known: .*rnn"):
        build("lmv", 3, 4, {})


@pytest.mark.parametrize(("family", "wrong", "meant"), [("lmu", "order", "orders"), ("rnn", "hiden", "hidden")])
def test_an_unknown_argument_is_named_with_the_closest(family, wrong, meant):
    with pytest.raises(InputError, match=rf"argument of family '{family}' '{wrong}'\. Did you mean '{meant}'"):
        build(family, 3, 4, {wrong: 3})


@pytest.mark.parametrize("name", ["input_size", "output_size"])
def test_sizes_come_from_the_data_and_not_from_arguments(name):
    with pytest.raises(InputError, match="unknown argument"):
        build("lmu", 3, 4, {name: 3})


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("lmu", {"channels": [3, 3], "orders": [4], "thetas": [10.0]}),
        ("lmu", {"channels": [3], "orders": [4], "thetas": [-1.0], "hidden": [5]}),
        ("lmu", {"hidden": "many"}),
        ("lmu", {"hidden": [-1]}),
        ("rnn", {"cell": "lstmm"}),
        ("rnn", {"hidden": -1}),
    ],
)
def test_values_that_a_family_cannot_use_are_refused(family, arguments):
    with pytest.raises(InputError, match=r"lmu|rnn"):
        build(family, 3, 4, arguments)


def test_code_from_outside_is_imported_only_when_trusted(tmp_path, monkeypatch):
    (tmp_path / "foreign_family.py").write_text("from edgeseq.models.lmu import Lmu\nclass Mine(Lmu):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="--trust"):
        family_class("foreign_family:Mine")
    assert "foreign_family" not in sys.modules
    try:
        assert issubclass(family_class("foreign_family:Mine", trust=True), Lmu)
        with pytest.raises(InputError, match="cannot be imported"):
            family_class("foreign_family:Missing", trust=True)
    finally:
        sys.modules.pop("foreign_family", None)


@pytest.mark.parametrize("target", ["collections:OrderedDict", "math:pi"])
def test_what_is_no_streaming_model_is_refused(target):
    with pytest.raises(InputError, match="not a subclass"):
        family_class(target, trust=True)


def test_a_module_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="cannot be imported"):
        family_class("no_such_module_anywhere:Model", trust=True)


def test_an_installed_package_can_offer_a_family(monkeypatch):
    offered = metadata.EntryPoint("theirs", "edgeseq.models.lmu:Lmu", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [offered] if group == registry.ENTRY_POINTS else [])
    assert families() == {**FAMILIES, "theirs": "edgeseq.models.lmu:Lmu"}
    assert families(installed=False) == FAMILIES
    assert isinstance(build("theirs", 3, 4, {}), Lmu)


@pytest.mark.parametrize("name", presets())
def test_every_preset_can_be_built(name):
    preset = presets()[name]
    model = build(preset.family, 6, 7, preset.arguments)
    assert (model.input_size, model.output_size) == (6, 7)
    assert preset.summary


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "published"),
    [
        ("lmu-published", 1, 10, 166_092),  # Chilkuri, Eliasmith 2021: "165k"; counted on their code
        ("lmu_cell-published", 1, 10, 102_027),  # Voelker et al. 2019, without the fixed A and B
    ],
)
def test_a_published_preset_has_the_papers_number_of_parameters(name, inputs, outputs, published):
    preset = presets()[name]
    assert parameter_count(build(preset.family, inputs, outputs, preset.arguments)) == published


@pytest.mark.parametrize("family", sorted({preset.family for preset in presets().values()}))
def test_every_family_has_a_published_size_and_one_of_about_twenty_thousand_parameters(family):
    mine = {name: preset for name, preset in presets().items() if preset.family == family}
    watch = [
        parameter_count(build(family, 6, 7, preset.arguments))
        for name, preset in mine.items()
        if not name.endswith("-published")
    ]
    assert any(14_000 < count < 26_000 for count in watch), watch
    assert any(name == f"{family}-published" for name in mine)
