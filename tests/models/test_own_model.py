"""What ``save_model`` finds in a model of somebody's own before its folder is written: states, steps, attributes."""

from __future__ import annotations

import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeseq.errors import InputError
from edgeseq.models.check import attributes, changed, check_contract, check_states
from edgeseq.models.contract import StreamingModel
from edgeseq.models.store import state_entries


class Own(StreamingModel):
    """One state ``line (B, 3)``; a test puts its own ``initial_state`` or ``step`` in place."""

    def __init__(self, states=None, step=None):
        super().__init__(2, 3)
        self.into = nn.Linear(2, 3)
        self.states, self.taken = states, step

    def initial_state(self, batch):
        return self.states(batch) if self.states else {"line": torch.zeros(batch, 3)}

    def step(self, x, state):
        if self.taken:
            return self.taken(self, x, state)
        h = torch.tanh(self.into(x) + state["line"])
        return h, {"line": h}


def test_a_model_that_keeps_the_contract_passes():
    check_contract(Own().eval())


def test_every_family_keeps_the_contract(make_model, size):
    check_contract(make_model(size, torch.float32))


LETTERS = string.ascii_letters + string.digits + "_-"
WORD = st.text(LETTERS, min_size=1, max_size=5)


@given(st.lists(WORD, min_size=1, max_size=4).map(".".join))
def test_dotted_names_are_accepted(name):
    check_states({name: torch.zeros(1, 2)})


@given(WORD, st.characters(exclude_characters=LETTERS + "."), WORD)
def test_a_name_with_any_other_character_is_refused(before, character, after):
    with pytest.raises(InputError, match="cannot be called that"):
        check_states({before + character + after: torch.zeros(1, 2)})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "ü", "a.", ".a", "a\n", 3])
def test_a_name_that_no_file_can_hold_is_refused(name):
    with pytest.raises(InputError, match="cannot be called that"):
        check_states({name: torch.zeros(1, 2)})


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float64, torch.float16])
def test_a_state_of_another_type_is_refused_wherever_states_are_written(dtype):
    model = Own(lambda batch: {"n": torch.zeros(batch, 1, dtype=dtype)})
    for check in (check_contract, state_entries):
        with pytest.raises(InputError, match=f"'n' is {str(dtype)[6:]}: float32 is needed"):
            check(model)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (lambda batch: torch.zeros(batch, 3), "initial_state returns a Tensor: a dict"),
        (lambda batch: (torch.zeros(batch, 3),), "initial_state returns a tuple: a dict"),
        (lambda batch: {"line": (torch.zeros(batch, 3),)}, "'line' of initial_state is a tuple: a tensor"),
        (lambda batch: {"line": torch.zeros(3)}, r"'line' has shape \[3\] for a batch of 2: its first axis"),
        (lambda batch: {"line": torch.zeros(1, 3)}, r"'line' has shape \[1, 3\] for a batch of 2: its first axis"),
        (lambda batch: {"line": torch.zeros(())}, r"'line' has shape \[\] for a batch of 2: its first axis"),
        (lambda batch: {"line": torch.zeros(batch, 0)}, "which holds nothing: leave it out"),
        (lambda batch: {}["size"], "initial_state fails for a batch of 2: KeyError: 'size'"),
        (lambda batch: {"other": torch.zeros(batch, 3)}, "KeyError 'line': initial_state gives the states 'other'"),
        (lambda batch: {}, r"KeyError 'line': initial_state gives the states \(none\)"),
    ],
)
def test_states_that_are_none_are_refused_in_words(states, said):
    with pytest.raises(InputError, match=said):
        check_contract(Own(states).eval())


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda m, x, s: s["line"] + 1, "step returns a Tensor: the answer and the next state are needed"),
        (lambda m, x, s: (x, s["line"]), r"step returns \(a Tensor, a Tensor\): the answer"),
        (lambda m, x, s: (s["line"], {}), r"returns the states \(none\), and initial_state gives 'line'"),
        (lambda m, x, s: (s["line"], {**s, "more": x}), "returns the states 'line', 'more', and"),
        (lambda m, x, s: (s["line"], {"line": None}), "returns a NoneType as state 'line'"),
        (lambda m, x, s: (s["line"], {"line": s["line"][:, :2]}), r"'line' with shape \[1, 2\], and .* \[1, 3\]"),
        (lambda m, x, s: (s["line"][0], s), r"answers with shape \[3\]: \(1, 3\)"),
        (lambda m, x, s: (None, s), "answers with a NoneType"),
        (lambda m, x, s: (s["line"] @ x, s), r"step fails on a frame \[1, 2\]: RuntimeError: "),
        (lambda m, x, s: (s["line"] + torch.rand(3), {"line": s["line"] + 1}), "answers differently"),
        (lambda m, x, s: (s["line"], s), "'line' never changes: make it a buffer"),
        (lambda m, x, s: (s["line"], {"line": s["line"] * 1}), "'line' never changes: make it a buffer"),
    ],
)
def test_a_step_that_is_none_is_refused_in_words(step, said):
    with pytest.raises(InputError, match=said):
        check_contract(Own(step=step).eval())


def test_a_state_that_moves_at_times_is_one():
    check_contract(Own(step=lambda m, x, s: (s["line"], {"line": torch.maximum(s["line"], x[:, :1])})).eval())


def test_a_state_in_an_attribute_is_found_and_named():
    def step(model, x, state):
        model.into.seen = torch.tanh(model.into(x) + getattr(model.into, "seen", 0))
        return model.into.seen, {"line": state["line"] + 1}

    with pytest.raises(InputError, match=r"in attribute 'into\.seen'.*carry it in the state"):
        check_contract(Own(step=step).eval())


def test_a_state_in_a_buffer_is_found_by_its_answers():
    model = Own(step=lambda m, x, s: (m.count.add_(1) + s["line"], {"line": s["line"] + 1})).eval()
    model.register_buffer("count", torch.zeros(3))
    with pytest.raises(InputError, match="answers differently to the same frame and state"):
        check_contract(model)


def test_attributes_are_compared_by_what_they_hold():
    model = nn.Sequential(nn.Linear(2, 2))
    model.number, model.table, model.ring = 1, [torch.zeros(2)], {"a": torch.zeros(2)}
    before = attributes(model)
    assert changed(before, attributes(model)) == []
    model.number = 1
    assert changed(before, attributes(model)) == []
    model.number, model[0].new = 2, 5
    model.table.append(torch.zeros(2))
    model.ring["a"] += 1
    assert sorted(changed(before, attributes(model))) == ["0.new", "number", "ring", "table"]
