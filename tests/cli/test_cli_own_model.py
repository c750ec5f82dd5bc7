"""The verbs on a model that ``save_model`` wrote: of a class from outside edgeseq, and without a split."""

from __future__ import annotations

import pytest

from edgeseq import save_model
from edgeseq.models.registry import build

FAMILY = "edgeseq.models.rnn:Rnn"  # what a class from outside is to the verbs: named by its module
TINY = ("--set", "rounds=1", "--set", "steps=1", "--set", "batch=2", "--set", "crop=2")


@pytest.fixture(scope="module")
def own(people, tmp_path_factory):
    """A model folder of a class from outside, saved without a split."""
    model = build("rnn", 2, 2, {"hidden": 4})
    out = tmp_path_factory.mktemp("own") / "mine"
    return save_model(model, out, family=FAMILY, arguments={"hidden": 4}, data=str(people)).path


@pytest.fixture(scope="module")
def own_exported(edgeseq, own):
    out = own.with_name("mine-export")
    done = edgeseq("export", own, "--out", out, "--frames", 2000, "--trust")
    assert done.code == 0, done.err
    return out


def said(done):
    """What a command wrote to standard error, in one line."""
    return " ".join(done.err.split())


def test_without_a_split_training_on_asks_for_the_subjects(edgeseq, people, own, tmp_path):
    done = edgeseq("train", people, "--from", own, "--out", tmp_path / "on", "--trust", *TINY)
    assert done.code == 2
    assert "does not say who its test and validation subjects are" in said(done)
    assert "--test and --validation, or choose a --fold" in said(done)
    assert not (tmp_path / "on").exists()


@pytest.mark.parametrize("who", [("--test", "p1", "--validation", "p2"), ("--fold", "0")])
def test_with_the_subjects_named_it_trains_on_and_says_how_to_export_with_trust(edgeseq, people, own, tmp_path, who):
    out = tmp_path / "on"
    done = edgeseq("train", people, "--from", own, "--out", out, "--trust", *who, *TINY)
    assert done.code == 0, done.err
    assert f"next: edgeseq export {out} --out {out}-export --trust" in done.out


def test_a_split_of_test_subjects_alone_is_not_enough_to_choose_on(edgeseq, people, tmp_path):
    folder = save_model(build("rnn", 2, 2, {}), tmp_path / "m", data=str(people), split={"test": ["p1"]}).path
    done = edgeseq("train", people, "--from", folder, "--out", tmp_path / "on", *TINY)
    assert done.code == 2
    assert "does not say who its validation subjects are" in said(done)
    done = edgeseq("quantize", folder, "--out", tmp_path / "q", "--method", "ptq")
    assert done.code == 2
    assert "does not say who its validation subjects are" in said(done)


@pytest.mark.parametrize(
    "verb", [("quantize", "--method", "ptq"), ("distill", "--model", "gru"), ("retime", "--rate", 25)]
)
def test_without_a_split_nobody_is_called_a_test_subject(edgeseq, own, tmp_path, verb):
    name, *options = verb
    done = edgeseq(name, own, *options, "--out", tmp_path / "made", "--trust")
    assert done.code in (2, 4)
    assert "does not say who its test and validation subjects are" in said(done) or "no step size" in said(done)
    assert not (tmp_path / "made").exists()


def test_a_quantized_model_from_outside_is_exported_with_trust(edgeseq, people, tmp_path):
    model, split = build("rnn", 2, 2, {"hidden": 4}), {"test": ["p1"], "validation": ["p2"]}
    folder = save_model(
        model, tmp_path / "m", family=FAMILY, arguments={"hidden": 4}, data=str(people), split=split
    ).path
    out = tmp_path / "int8"
    done = edgeseq("quantize", folder, "--out", out, "--method", "ptq", "--trust", "--json")
    assert done.code == 0, done.err
    assert done.document["accuracy_before"] is None
    assert done.document["next"] == f"edgeseq export {out} --out {out}-export --trust"


def test_a_built_in_family_is_exported_without_trust(edgeseq, trained, people, tmp_path):
    done = edgeseq("train", people, "--from", trained, "--out", tmp_path / "on", *TINY)
    assert done.out.rstrip().endswith(f"{tmp_path / 'on'}-export")


def test_verify_without_trust_says_what_trust_proves_and_what_needs_none(edgeseq, own_exported):
    done = edgeseq("verify", own_exported)
    assert done.code == 2
    assert f"{FAMILY!r} is code from outside edgeseq: pass --trust to import it and prove the whole chain" in said(done)
    assert f"python -m edgeseq.devices verify {own_exported} checks the device's half" in said(done)
    assert edgeseq("verify", own_exported, "--engine", "numpy").code == 0
    assert edgeseq("verify", own_exported, "--trust", "--json").document["part"] == "chain"


def test_a_class_is_no_preset_and_comes_in_by_save_model(edgeseq, people, tmp_path):
    done = edgeseq("train", people, "--model", "my_cell:Mine", "--out", tmp_path / "m", "--trust")
    assert done.code == 2
    assert "'my_cell:Mine' is a class, and a preset is needed" in said(done)
    assert "comes in by edgeseq.save_model" in said(done)
    assert "Did you mean" not in said(done)
