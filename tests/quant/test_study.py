"""The study of a search: which chains are tried, what is kept of them, and who takes up what."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from edgeseq.errors import InputError, MissingDependency, Unsupported
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization
from edgeseq.quant import search as search_module
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import Chain, chains, space
from edgeseq.quant.search import Outcome, front, search
from edgeseq.quant.study import OUTCOME, ask, open_study

CHOICES = space(("lmu",), ("float32", "int8-ptq"))


def costs(chain):
    """What a chain would cost, by its fields alone."""
    left = (1 - chain.structured) * (1 - 0.5 * chain.weights) * (0.3 if chain.form == "int8-ptq" else 1.0)
    return Outcome(
        chain=chain,
        drop=round(4 * chain.structured**2 + chain.weights, 3),
        validation_macro_f1=0.9,
        test_macro_f1=0.9,
        test_accuracy=0.9,
        parameters=int(1000 * left),
        bytes=int(4000 * left),
        file=int(5000 * left),
        macs=int(1000 * (1 - chain.structured)),
        p50=10.0,
        engine="numpy",
    )


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder to compress that nobody runs."""
    manifest = Manifest(
        name="big",
        family="lmu",
        arguments={},
        task="frame",
        labels=("rest", "move"),
        input=Input((Channel("ax", "g"),), 50.0, Normalization((0.0,), (1.0,))),
        states=(),
        metrics={"validation_macro_f1": 0.9},
    )
    out = tmp_path_factory.mktemp("source") / "big"
    with new_folder(out) as staging:
        seal(staging, manifest)
    return open_folder(out)


@pytest.fixture
def tried(monkeypatch):
    """The chains that were run, in order; in place of training them their costs are computed."""
    ran = []

    def measure(workshop, chain):
        ran.append(chain)
        return costs(chain)

    monkeypatch.setattr(search_module, "measured", measure)
    return ran


def begin(source, out, **changes):
    options = {"budget": Budget(drop=1.0), "trials": 6, "students": ("lmu",), "forms": ("float32", "int8-ptq")}
    return search(source.path, out, **{**options, **changes})


def test_no_chain_is_tried_twice_and_an_ended_study_goes_on_from_its_file(source, tmp_path, tried):
    first = begin(source, tmp_path)
    assert len(first.outcomes) == 6
    again = begin(source, tmp_path, trials=9)
    assert again.outcomes[:6] == first.outcomes
    assert len(tried) == len(set(tried)) == len(again.outcomes) == 9
    assert begin(source, tmp_path, trials=9) == again
    assert len(tried) == 9


def test_the_search_ends_when_every_chain_was_tried(source, tmp_path, tried):
    found = begin(source, tmp_path, trials=1000, students=(), forms=("int8-ptq",))
    assert len(found.outcomes) == len(chains(space((), ("int8-ptq",)))) == len(set(tried))


def test_what_a_person_would_try_comes_first(source, tmp_path, tried):
    begin(source, tmp_path, trials=1)
    assert tried == [Chain(form="int8-ptq")]


def test_a_chain_that_is_not_possible_is_kept_with_its_reason_and_not_tried_again(source, tmp_path, monkeypatch):
    def measure(workshop, chain):
        if chain.structured:
            raise Unsupported(f"{chain.name} has no widths")
        return costs(chain)

    monkeypatch.setattr(search_module, "measured", measure)
    found = begin(source, tmp_path, trials=12)
    assert len(found.outcomes) + len(found.failures) == 12
    assert found.failures
    assert all(reason == f"{name} has no widths" for name, reason in found.failures.items())
    assert all(not outcome.chain.structured for outcome in found.outcomes)


def test_an_interrupted_chain_is_tried_again(source, tmp_path, monkeypatch, tried):
    def interrupted(workshop, chain):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "measured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(source, tmp_path, trials=3, students=(), forms=("int8-ptq",))
    found = begin(source, tmp_path, trials=1000, students=(), forms=("int8-ptq",))
    assert {outcome.chain for outcome in found.outcomes} == set(chains(space((), ("int8-ptq",))))


def test_what_a_killed_process_had_taken_up_is_given_back(source, tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from edgeseq.folder import open_folder\n"
        "from edgeseq.quant.study import ask, open_study\n"
        "from edgeseq.quant.chains import space\n"
        "choices = space((), ('int8-ptq',))\n"
        "study = open_study(open_folder(sys.argv[1]), Path(sys.argv[2]), choices)\n"
        "ask(study, choices); os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, source.path, tmp_path], check=False)
    assert ended.returncode == -9
    choices = space((), ("int8-ptq",))
    study = open_study(source, tmp_path, choices)
    assert [trial.state for trial in study.get_trials() if trial.params] == [TrialState.FAIL]
    asked = {ask(study, choices)[1] for _ in chains(choices)}
    assert asked == set(chains(choices))
    assert ask(study, choices)[0] is None


def test_several_workers_share_a_study_and_what_they_do(source, tmp_path):
    """Each takes chains that the others have not; between two that ask at the same moment one may be done twice."""

    def work(number):
        study = open_study(source, tmp_path, CHOICES, seed=number)
        taken = []
        for _ in range(5):
            trial, chain = ask(study, CHOICES)
            taken.append(chain)
            outcome = costs(chain)
            study.tell(trial, outcome.objectives)
        return taken

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, (0, 1))
    assert len(first) == len(set(first)) == len(second) == len(set(second)) == 5
    assert len(set(first) & set(second)) <= 2


def test_a_study_of_another_model_or_of_other_choices_is_refused(source, tmp_path, tried):
    begin(source, tmp_path, study="ours")
    with pytest.raises(InputError, match="'ours' is of another choice of students and forms"):
        begin(source, tmp_path, study="ours", students=())
    other = open_study(source, tmp_path, CHOICES, name="theirs")
    other.set_user_attr("source", "0" * 64)
    with pytest.raises(InputError, match="'theirs' is of another model"):
        begin(source, tmp_path, study="theirs")


def test_an_unknown_form_is_refused_by_name(source, tmp_path):
    with pytest.raises(InputError, match="unknown form 'int9-qat'"):
        begin(source, tmp_path, forms=("int9-qat",))


def test_a_storage_that_is_not_there_is_said_without_its_password(source, tmp_path):
    with pytest.raises(InputError, match=r"postgresql\+psycopg://me@127\.0\.0\.1:1/studies cannot be used") as caught:
        begin(source, tmp_path, storage="postgresql+psycopg://me:secret@127.0.0.1:1/studies")
    assert "secret" not in str(caught.value)
    with pytest.raises((InputError, MissingDependency), match="nonsense"):
        begin(source, tmp_path, storage="nonsense://x")


@pytest.mark.parametrize("seed", range(3))
def test_the_sampler_learns_where_the_budget_is_met(source, tmp_path, tried, seed):
    """Of chains that it was free to choose more are within the budget than of all that there are."""
    budget = Budget(bytes=900, drop=0.6)
    every = chains(CHOICES)
    begin(source, tmp_path, budget=budget, trials=36, seed=seed)
    within = [chain for chain in every if max(budget.excess(costs(chain).costs).values()) <= 0]
    assert within
    found = [chain for chain in tried if chain in within]
    assert len(found) / 36 > len(within) / len(every)


@given(st.lists(st.sampled_from(chains(CHOICES)), unique=True), st.floats(0, 5), st.integers(0, 5000))
def test_the_front_is_what_nothing_within_the_budget_beats(tried_chains, drop, size):
    budget = Budget(drop=drop, bytes=size)
    outcomes = [costs(chain) for chain in tried_chains]
    kept = front(outcomes, budget)
    within = [each for each in outcomes if each.drop <= drop and each.bytes <= size]
    assert all(each in within for each in kept)
    for each in within:
        better = [o for o in within if o.objectives != each.objectives and dominates(o.objectives, each.objectives)]
        assert (each in kept) == (not better)
    random.Random(0).shuffle(outcomes)
    assert {each.chain for each in front(outcomes, budget)} == {each.chain for each in kept}


def dominates(ours, theirs):
    return all(a <= b for a, b in zip(ours, theirs, strict=True))


def test_what_is_kept_of_a_chain_reads_back(source, tmp_path, tried):
    found = begin(source, tmp_path, trials=2)
    study = optuna.load_study(
        study_name=f"big-{source.hash[:8]}",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
        ),
    )
    assert [trial.user_attrs[OUTCOME]["bytes"] for trial in study.trials] == [each.bytes for each in found.outcomes]
