"""The study of a search: which chains are tried, what is kept of them, and who takes up what."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from edgeseq.errors import InputError, MissingDependency, Unsupported
from edgeseq.folder import new_folder, open_folder, seal
from edgeseq.manifest import Channel, Input, Manifest, Normalization
from edgeseq.quant import search as search_module
from edgeseq.quant import study as study_module
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import Chain, Refused, chains, space
from edgeseq.quant.search import Outcome, beats, front, measured_front, search
from edgeseq.quant.study import OUTCOME, WORKER, ask, open_study

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


@pytest.fixture(autouse=True)
def prepared(monkeypatch):
    """What is said of the stages ahead: nobody trains here, and there is no data."""
    said = {"data": "fingerprint"}
    monkeypatch.setattr(search_module, "check_stages", lambda *_, data, **__: data or said["data"])
    return said


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
        with pytest.raises(KeyboardInterrupt):  # the same one, which waits once
            begin(source, tmp_path, trials=3, students=(), forms=("int8-ptq",))
    found = begin(source, tmp_path, trials=1000, students=(), forms=("int8-ptq",))
    assert tried[0] == Chain(form="int8-ptq")
    assert len(tried) == len(set(tried))
    assert {outcome.chain for outcome in found.outcomes} == set(chains(space((), ("int8-ptq",))))


def test_an_error_that_is_not_about_the_chain_ends_the_search_and_blames_no_chain(
    source, tmp_path, monkeypatch, prepared
):
    """A stage takes what has gone wrong meanwhile for bad input: asked again, what all chains are given says so."""

    def refused(workshop, chain):
        raise Refused("the data cannot be read")

    def gone(*_, **__):
        raise InputError("the data is gone")

    def measure(workshop, chain):
        monkeypatch.setattr(search_module, "check_stages", gone)
        return refused(workshop, chain)

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "measured", measure)
        with pytest.raises(InputError, match="the data is gone"):
            begin(source, tmp_path)
    monkeypatch.setattr(search_module, "check_stages", lambda *_, **__: prepared["data"])
    for error in (InputError("another model"), MissingDependency("brevitas", "train", "quantizing"), OSError("full")):

        def broken(workshop, chain, error=error):
            raise error

        monkeypatch.setattr(search_module, "measured", broken)
        with pytest.raises(type(error), match=str(error)[:10]):
            begin(source, tmp_path)
    monkeypatch.setattr(search_module, "measured", refused)
    found = begin(source, tmp_path, trials=2)
    assert list(found.failures.values()) == ["the data cannot be read"] * 2
    assert "int8-ptq" in found.failures


def test_what_another_machine_is_at_is_left_to_it(source, tmp_path):
    """Its process is none of ours, whatever its number."""
    study = open_study(source, tmp_path, CHOICES)
    trial, chain = ask(study, CHOICES)
    trial.set_user_attr(WORKER, ["another-machine", 2**30])
    again = open_study(source, tmp_path, CHOICES)
    assert again.get_trials()[0].state == TrialState.RUNNING
    assert ask(again, CHOICES)[1] != chain


def test_another_budget_changes_what_is_proposed(source, tmp_path):
    """Not only for chains that come after: what the study knows of earlier ones is held to the new limits."""
    study = open_study(source, tmp_path, CHOICES)
    for chain in random.Random(0).sample(chains(CHOICES), 24):
        study.enqueue_trial(msgspec.structs.asdict(chain))
    for _ in range(24):
        trial, chain = ask(study, CHOICES, Budget(bytes=300))
        trial.set_user_attr(OUTCOME, msgspec.to_builtins(costs(chain)))
        study.tell(trial, costs(chain).objectives)

    def mean_drop(budget):
        """Of what would be proposed now."""
        proposed = [costs(each) for each in study_module._proposed(study.get_trials(), CHOICES, budget, 0)]
        return sum(each.drop for each in proposed) / len(proposed)

    assert mean_drop(Budget(drop=0.3)) < mean_drop(Budget(bytes=300))


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
    killed = next(Chain(**trial.params) for trial in study.get_trials() if trial.params)
    asked = [ask(study, choices)[1] for _ in chains(choices)]
    assert asked[0] == killed  # first
    assert set(asked) == set(chains(choices))
    assert ask(study, choices) is None


def test_several_workers_share_a_study_and_what_they_do(source, tmp_path):
    """Each takes chains that the others have not; between two that ask at the same moment one may be done twice."""

    def work(number):
        study = open_study(source, tmp_path, CHOICES)
        taken = []
        for _ in range(5):
            trial, chain = ask(study, CHOICES, seed=number)
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
    options = {"study": "ours", "seed": 0}
    for changes, said in (
        ({"seed": 1}, r"another seed \(0, not 1\)"),
        ({"changes": {"rounds": 5}}, r"another choice of settings \(rounds not set, not 5\)"),
        ({"data": "elsewhere"}, r"another data set \(fingerpr, not elsewher\)"),
    ):
        with pytest.raises(InputError, match=said):
            begin(source, tmp_path, **{**options, **changes})
    begin(source, tmp_path, study="set", changes={"rounds": 5})
    begin(source, tmp_path, study="set", changes={"rounds": 5})
    with pytest.raises(InputError, match=r"rounds 5, not 6"):
        begin(source, tmp_path, study="set", changes={"rounds": 6})
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
    """It finds those few that are within the budget, where chance finds 60 % of them."""
    budget = Budget(bytes=900, drop=0.6)
    every = chains(CHOICES)
    begin(source, tmp_path, budget=budget, trials=36, seed=seed)
    within = [chain for chain in every if max(budget.excess(costs(chain).costs).values()) <= 0]
    assert within
    assert len(set(tried) & set(within)) >= len(within) - 1


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


def test_what_is_at_its_limit_is_within_the_budget():
    outcome = costs(Chain(structured=0.5))
    exact = Budget(drop=outcome.drop, bytes=outcome.bytes, macs=outcome.macs)
    assert front([outcome], exact) == [outcome]
    assert front([outcome], Budget(bytes=outcome.bytes - 1)) == []


def test_a_model_that_is_too_slow_side_by_side_makes_way_for_one_that_it_had_beaten(monkeypatch):
    fast, small = costs(Chain(form="int8-ptq")), costs(Chain())
    assert beats(fast, small)
    slow, rounds = {fast.chain: 90.0, small.chain: 40.0}, []

    def again(workshop, outcomes):
        rounds.append([each.chain for each in outcomes])
        return [msgspec.structs.replace(each, p50=slow[each.chain]) for each in outcomes]

    monkeypatch.setattr(search_module, "remeasured", again)
    best, known = measured_front(None, [fast, small], Budget(p50=50.0))
    assert [(each.chain, each.p50) for each in best] == [(small.chain, 40.0)]
    assert {each.chain: each.p50 for each in known} == slow
    assert rounds == [[fast.chain], [small.chain]]


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
