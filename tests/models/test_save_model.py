"""``edgeseq.save_model``: a live model becomes a folder that builds it again, or is refused with the reason."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

import edgeseq
from edgeseq.data import Dataset, Recording, write_npz
from edgeseq.errors import InputError
from edgeseq.folder import open_folder
from edgeseq.lineage import trained_on
from edgeseq.manifest import Channel
from edgeseq.models.check import check_contract
from edgeseq.models.contract import StreamingModel
from edgeseq.models.registry import build
from edgeseq.models.store import load_model

CODE = """
import torch
from torch import nn

from edgeseq.models.contract import LookAheadModel


class Leaky(LookAheadModel):
    def __init__(self, input_size, output_size, *, hidden=3, decay=0.5, look_ahead=0, hide=False, wrong=False):
        super().__init__(input_size, output_size)
        self.into, self.out = nn.Linear(input_size, hidden), nn.Linear(hidden, output_size)
        self.hidden, self.decay, self.look_ahead, self.wrong = hidden, decay, look_ahead, wrong
        if hide:
            self.more = nn.Linear(2, 2)

    def initial_state(self, batch):
        return {"memory.h": self.input_mean.new_zeros(batch, self.hidden)}

    def step(self, x, state, live=None):
        h = self.decay * state["memory.h"] + self.into(self.normalize(x))
        y = self.out(h)
        return (y[0] if self.wrong else y), {"memory.h": h}

    def forward(self, x, state=None, live=None):
        return self.run_steps(x, state, live)

    def facts(self):
        return {"decay": self.decay}

class Plain(nn.Module):
    pass
"""
BY_HAND = {"labels": ["rest", "move"], "channels": ["ax", "ay"], "rate": 50}


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """The class ``Leaky`` of a module that only this test can import."""
    (tmp_path / "leaky_model.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "leaky_model", raising=False)
    return importlib.import_module("leaky_model").Leaky


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    recordings = tuple(
        Recording(rng.normal(size=(40, 2)).astype(np.float32), np.arange(40, dtype=np.int16) // 20, who, who)
        for who in "123"
    )
    path = tmp_path / "two.npz"
    write_npz(Dataset("two", recordings, ("ax", "ay"), ("g", "m/s"), 25.0, ("rest", "move")), path)
    return str(path)


def test_a_saved_model_is_built_again_with_trust_and_answers_alike(leaky, tmp_path):
    model = leaky(2, 2, hidden=4, decay=0.25)
    model.set_normalization([1.0, 2.0], [3.0, 0.5])
    folder = edgeseq.save_model(model, tmp_path / "m", arguments={"hidden": 4, "decay": 0.25}, **BY_HAND)
    again = load_model(folder, trust=True)
    x = torch.randn(3, 20, 2)
    torch.testing.assert_close(again(x)[0], model(x)[0])
    with pytest.raises(InputError, match="--trust"):
        load_model(folder)


def test_the_manifest_says_what_was_given(leaky, tmp_path):
    model = leaky(2, 2).double().train()
    channels = [Channel("ax", "g"), "ay"]
    saved = edgeseq.save_model(model, tmp_path / "m", **{**BY_HAND, "channels": channels}, metrics={"accuracy": 0.5})
    manifest = open_folder(saved.path).manifest
    assert manifest.family == "leaky_model:Leaky"
    assert manifest.labels == ("rest", "move")
    assert manifest.input.channels == (Channel("ax", "g"), Channel("ay", ""))
    assert manifest.input.rate == 50.0
    assert manifest.parameters == 2 * 3 + 3 + 3 * 2 + 2
    assert manifest.facts == {"decay": 0.5}
    assert manifest.metrics == {"accuracy": 0.5}
    assert [state.name for state in manifest.states] == ["memory.h"]
    assert [stage.verb for stage in manifest.lineage] == ["save_model"]
    assert model.training
    assert next(model.parameters()).dtype == torch.float64


def test_data_gives_labels_channels_and_rate_and_is_found_again(leaky, data, tmp_path):
    split = {"train": ["1"], "validation": ["2"], "test": ["3"]}
    folder = edgeseq.save_model(leaky(2, 2), tmp_path / "m", data=data, split=split)
    assert folder.manifest.input.rate == 25.0
    assert folder.manifest.input.channels == (Channel("ax", "g"), Channel("ay", "m/s"))
    assert folder.manifest.split["test"] == ("3",)
    assert trained_on(folder).fingerprint() == folder.manifest.data_stage.data_fingerprint


def test_without_data_the_folder_asks_for_it(leaky, data, tmp_path):
    folder = edgeseq.save_model(leaky(2, 2), tmp_path / "m", **{**BY_HAND, "rate": 25.0})
    with pytest.raises(InputError, match="pass --data"):
        trained_on(folder)
    assert trained_on(folder, data).rate == 25.0


def test_a_built_in_family_keeps_its_name_and_needs_no_trust(tmp_path):
    model = build("rnn", 2, 2, {"hidden": 5})
    folder = edgeseq.save_model(model, tmp_path / "m", arguments={"hidden": 5}, **BY_HAND)
    assert folder.manifest.family == "rnn"
    assert load_model(folder).output_size == 2


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ({"hidden": 4}, {}, r"(?s)whose weights do not fit.*into\.weight"),
        ({"hide": True}, {}, r"(?s)whose weights do not fit.*more\.weight"),
        ({"decay": 0.25}, {}, "takes another step than the model to save .answer differs"),
        ({"look_ahead": 3}, {}, "has look_ahead 0, and the model to save 3: name it in arguments"),
        ({"look_ahead": -1}, {"arguments": {"look_ahead": -1}}, "look_ahead -1: a whole number of steps"),
        ({"wrong": True}, {"arguments": {"wrong": True}}, r"answers with shape \[2\]: \(1, 2\)"),
        ({}, {"arguments": {"hiden": 3}}, "Did you mean 'hidden'"),
        ({}, {"family": "leaky_model:Leakey"}, "cannot be imported.*Leakey"),
        ({}, {"family": "nowhere_at_all:Leaky"}, "No module named 'nowhere_at_all'.*PYTHONPATH"),
        ({}, {"family": "leaky_model:Plain"}, "not a subclass of edgeseq.models.contract.StreamingModel"),
        ({}, {"labels": ["one"]}, r"1 labels \['one'\] for a model of 2 outputs"),
        ({}, {"channels": ["ax"]}, "1 channels named for a model of 2 inputs"),
        ({}, {"rate": None}, "rate None"),
        ({}, {"rate": -1}, "rate -1"),
        ({}, {"split": {"tets": ["1"]}}, "Did you mean 'test'"),
        ({}, {"split": {"test": "12"}}, "a list of subjects is needed"),
        ({}, {"family": "leaky_model"}, "unknown family 'leaky_model'.* named module:Class"),
        ({}, {"family": "leaky_model.Leaky"}, "named module:Class"),
        ({}, {"family": "__main__:Leaky"}, "Leaky is defined in the script that is running"),
        ({}, {"labels": ["a", "a"]}, "label 'a' is named 2 times"),
        ({}, {"labels": [0, 1]}, "label 0 is of type int: text"),
        ({}, {"channels": ["ax", Channel("ax", "g")]}, "channel 'ax' is named 2 times"),
        ({}, {"labels": []}, "neither data nor labels are given: give data=, or labels=, channels= and rate="),
        ({}, {"channels": []}, "neither data nor channels are given: give data="),
        ({}, {"arguments": {"hidden": torch.tensor(3)}}, r"argument 'hidden' is tensor\(3\)"),
        ({}, {"metrics": {"x": "y"}}, "metric 'x' is 'y': a finite number"),
        ({}, {"metrics": {"x": float("nan")}}, "metric 'x' is nan: a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(leaky, tmp_path, made, given, said):
    with pytest.raises(InputError, match=said):
        edgeseq.save_model(leaky(2, 2, **made), tmp_path / "m", **{**BY_HAND, **given})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": ["a", "b"]}, "two has"),
        ({"channels": ["ay", "ax"]}, "two has"),
        ({"rate": 50}, "two has 25"),
        ({"split": {"test": ["4"]}}, "subject"),
    ],
)
def test_what_the_data_contradicts_is_refused(leaky, data, tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        edgeseq.save_model(leaky(2, 2), tmp_path / "m", data=data, **given)


def test_weights_that_do_not_fit_are_named_three_at_most(leaky, tmp_path):
    with pytest.raises(InputError) as refused:
        edgeseq.save_model(leaky(2, 2, hidden=4, hide=True), tmp_path / "m", **BY_HAND)
    said = str(refused.value)
    assert "into.weight is [4, 2] in the model and [3, 2] in what was built" in said
    assert ", and 2 more" in said
    assert said.count(" is [") == 3
    assert "\n" not in said
    with pytest.raises(InputError, match=r"more\.weight is \[2, 2\] in the model and not there in what was built"):
        edgeseq.save_model(leaky(2, 2, hide=True), tmp_path / "m", **BY_HAND)


def test_what_is_no_streaming_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"the model is a Linear: a subclass of .*StreamingModel is needed"):
        edgeseq.save_model(torch.nn.Linear(2, 2), tmp_path / "m", **BY_HAND)


def test_subjects_that_are_numbers_are_taken_as_their_text(leaky, data, tmp_path):
    split = {"train": [1], "validation": [2], "test": [np.int64(3)]}
    folder = edgeseq.save_model(leaky(2, 2), tmp_path / "m", data=data, split=split)
    assert folder.manifest.split == {"train": ("1",), "validation": ("2",), "test": ("3",)}


def test_a_class_that_does_not_keep_the_contract_is_refused_and_leaves_nothing(leaky, tmp_path, monkeypatch):
    def step(self, x, state):
        self.h = getattr(self, "h", 0) + self.into(x)
        return self.out(self.h), {"memory.h": state["memory.h"] * 0.5}

    monkeypatch.setattr(leaky, "step", step)
    with pytest.raises(InputError, match="in attribute 'h'"):
        edgeseq.save_model(leaky(2, 2), tmp_path / "m", **BY_HAND)
    assert not (tmp_path / "m").exists()


def test_an_attribute_that_training_left_is_named_though_torch_cannot_copy_it(leaky, tmp_path):
    model = leaky(2, 2)
    model.trace = [model.into(torch.ones(1, 2))]
    with pytest.raises(InputError, match="computed in attribute 'trace'"):
        edgeseq.save_model(model, tmp_path / "m", **BY_HAND)


def test_a_class_of_the_running_script_must_move_to_a_module(leaky, tmp_path, monkeypatch):
    monkeypatch.setattr(leaky, "__module__", "__main__")
    with pytest.raises(InputError, match="move it to a module of its own"):
        edgeseq.save_model(leaky(2, 2), tmp_path / "m", **BY_HAND)


def test_a_target_that_exists_is_kept(leaky, tmp_path):
    edgeseq.save_model(leaky(2, 2), tmp_path / "m", **BY_HAND)
    with pytest.raises(InputError, match="exists"):
        edgeseq.save_model(leaky(2, 2), tmp_path / "m", **BY_HAND)
    edgeseq.save_model(leaky(2, 2), tmp_path / "m", **BY_HAND, overwrite=True)


def test_a_model_that_looks_ahead_without_being_told_where_a_recording_ends_is_refused(leaky, tmp_path):
    class Deaf(StreamingModel):
        def __init__(self, input_size, output_size):
            super().__init__(input_size, output_size)
            self.out, self.look_ahead = nn.Linear(input_size, output_size), 2

        def initial_state(self, batch):
            return {"past.x": self.input_mean.new_zeros(batch, self.input_size)}

        def step(self, x, state):
            return self.out(state["past.x"]), {"past.x": x}

    with pytest.raises(InputError, match=r"Deaf looks 2 steps ahead, .* make it an .*LookAheadModel"):
        check_contract(Deaf(2, 2))
