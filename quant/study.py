"""The study behind ``edgeseq compress``: in a file beside the folders, or in a database that several machines reach.

Whoever works on it takes up a chain that nobody has.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseq.errors import InputError, MissingDependency
from edgeseq.folder import Folder
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import Chain, chains

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

PROPOSALS = 20  # of the sampler for a chain that is new; it likes those that it knows to be good
ATTEMPTS = 2  # to open a database
JOURNAL = "study.journal"
OUTCOME, FAILURE, WORKER, WAITS = "outcome", "failure", "worker", "waits"  # what a trial has besides its values
SOURCE, SPACE, SEED, SETTINGS, DATA = "source", "space", "seed", "settings", "data"  # what a study has
WHAT = {
    SOURCE: "model",
    SPACE: "choice of students and forms",
    SEED: "seed",
    SETTINGS: "choice of settings",
    DATA: "data set",
}
OBJECTIVES = 3  # all of them are to be small
STARTS = ("int8-ptq", "int8-qat", "qd4")  # tried first: what a person would


def open_study(
    source: Folder,
    out: Path,
    choices: Mapping[str, list[Any]],
    *,
    storage: str | None = None,
    name: str | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    data: str = "",
) -> Study:
    """The study of this source, new or taken up; chains that were interrupted come first.

    It keeps what its chains hang on, so that a chain is the same one wherever it is run: the source, the ``choices``,
    the ``seed``, the settings ``changes`` and the fingerprint of the ``data``.

    Raises:
        InputError: a study that was begun with another of these, or a storage that cannot be reached.
        MissingDependency: optuna, or the driver of the database, is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingDependency("optuna", "compress", "edgeseq compress") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    made = optuna.create_study(
        storage=_storage(out, storage),
        sampler=optuna.samplers.RandomSampler(),  # asked for nothing: ask() enqueues what is to be tried
        study_name=name or f"{source.manifest.name}-{source.hash[:8]}",
        directions=["minimize"] * OBJECTIVES,
        load_if_exists=True,
    )
    settings = msgspec.json.decode(msgspec.json.encode(dict(changes or {})))  # as the storage gives them back
    _agree(made, {SOURCE: source.hash, SPACE: dict(choices), SEED: seed, SETTINGS: settings, DATA: data})
    _release(made)
    if not made.get_trials(deepcopy=False):
        for form in STARTS:
            if form in choices["form"]:
                _enqueue(made, Chain(form=form))
    _again(made)
    return made


def _agree(study: Study, facts: Mapping[str, Any]) -> None:
    """Keep the facts with a new study; refuse one that was begun with others."""
    had = study.user_attrs
    for key, value in facts.items():
        if key not in had:
            study.set_user_attr(key, value)
        elif had[key] != value:
            raise InputError(
                f"the study {study.study_name!r} is of another {WHAT[key]} ({_difference(had[key], value)}): "
                "choose another --out or --study"
            )


def _difference(had: Any, value: Any) -> str:
    """What was there and what is there now; of settings and choices those alone that differ."""
    if isinstance(had, dict) and isinstance(value, dict):
        names = [name for name in {**had, **value} if had.get(name) != value.get(name)]
        return "; ".join(f"{name} {had.get(name, 'not set')}, not {value.get(name, 'set')}" for name in names)
    return f"{str(had)[:8]}, not {str(value)[:8]}"  # of a hash its start


def _worker() -> list[Any]:
    """Who works on a trial: the machine and its process."""
    return [socket.gethostname(), os.getpid()]


def _release(study: Study) -> None:
    """Give back what a process of this machine had taken up that was killed."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, process = trial.user_attrs.get(WORKER, ("", 0))
        if host == socket.gethostname() and not Path(f"/proc/{process}").exists():
            study.tell(trial.number, state=TrialState.FAIL)


def _again(study: Study) -> None:
    """Enqueue the chains that were begun, and neither ended nor waiting."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    waiting = {each.user_attrs.get(WAITS) for each in trials if each.state == TrialState.WAITING}
    begun = [chain_of(each) for each in trials if each.state == TrialState.FAIL and _whole(each)]
    taken = _taken(trials)
    for chain in dict.fromkeys(begun):
        if chain not in taken and chain.name not in waiting:
            _enqueue(study, chain)


def _enqueue(study: Study, chain: Chain) -> None:
    study.enqueue_trial(msgspec.structs.asdict(chain), user_attrs={WAITS: chain.name})


def _storage(out: Path, url: str | None) -> BaseStorage:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    if url is None:
        out.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    for attempt in range(ATTEMPTS):
        try:
            return optuna.storages.get_storage(url)  # type: ignore[no-any-return, attr-defined, unused-ignore]
        except ImportError as error:
            driver = error.name or "psycopg"
            raise MissingDependency(driver, "compress", f"the storage {_hidden(url)}") from None
        except Exception as error:  # SQLAlchemy has as many kinds as there are databases
            if attempt == ATTEMPTS - 1:
                said = str(error).splitlines()[0]
                raise InputError(f"the storage {_hidden(url)} cannot be used: {said}") from None
            time.sleep(1)  # of two that begin at once both make the tables: one fails, and finds them made
    raise AssertionError("the loop above returns or raises")


def _hidden(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}@{tail}" if at else url


def ask(
    study: Study, choices: Mapping[str, list[Any]], budget: Budget | None = None, seed: int = 0
) -> tuple[Trial, Chain] | None:
    """A chain that nobody has taken up yet, and its trial; None if all were.

    What waits comes first, then what optuna proposes for the ``budget``.
    """
    from optuna.trial import TrialState

    while True:
        trials = study.get_trials(deepcopy=False)
        if not any(each.state == TrialState.WAITING for each in trials):
            taken = _taken(trials)
            left = [each for each in chains(choices) if each not in taken]
            if not left:
                return None
            proposed = _proposed(trials, choices, budget or Budget(), seed)
            chain = next((each for each in proposed if each not in taken), None)
            _enqueue(study, chain or random.Random(f"{seed} {len(trials)}").choice(left))
        trial = study.ask()
        trial.set_user_attr(WORKER, _worker())
        chain = Chain(**{name: trial.suggest_categorical(name, values) for name, values in choices.items()})
        # Of two that take up the same at once the earlier keeps it.
        others = [
            each
            for each in study.get_trials(deepcopy=False)
            if each.number < trial.number or each.state not in (TrialState.RUNNING, TrialState.WAITING)
        ]
        if chain not in _taken(others):
            return trial, chain
        study.tell(trial, state=TrialState.PRUNED)


def _proposed(
    trials: Sequence[FrozenTrial], choices: Mapping[str, list[Any]], budget: Budget, seed: int
) -> Iterator[Chain]:
    """What optuna's sampler would try after those trials, held to this budget; likely ones may come again.

    It is asked in a study of its own: a trial's constraints are written once, and a study may go on with another
    budget.
    """
    import optuna

    sampler = optuna.samplers.TPESampler(seed=random.Random(f"{seed} {len(trials)}").getrandbits(32), multivariate=True)
    study = optuna.create_study(directions=["minimize"] * OBJECTIVES, sampler=sampler)
    space: dict[str, BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in choices.items()
    }
    for each in trials:
        if OUTCOME in each.user_attrs and each.values:
            over = budget.excess(each.user_attrs[OUTCOME])
            study.add_trial(
                optuna.trial.create_trial(
                    params=each.params, distributions=space, values=each.values, constraints=over or None
                )
            )
    for _ in range(PROPOSALS):
        yield Chain(**study.ask(space).params)


def _taken(trials: Sequence[FrozenTrial]) -> set[Chain]:
    """The chains that were run, or are."""
    return {chain_of(each) for each in trials if _counts(each) and _whole(each)}


def _whole(trial: FrozenTrial) -> bool:
    """Whether a trial says its chain: who takes one up may be killed before that."""
    return trial.params.keys() == set(Chain.__struct_fields__)


def chain_of(trial: FrozenTrial) -> Chain:
    """The chain that a trial was about."""
    return Chain(**trial.params)


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial was run, or is: not one that repeated another, waits, or was interrupted."""
    from optuna.trial import TrialState

    failed = trial.state == TrialState.FAIL and FAILURE in trial.user_attrs
    return failed or trial.state in (TrialState.COMPLETE, TrialState.RUNNING)


def tried_trials(study: Study) -> list[FrozenTrial]:
    """The trials that have ended, or run somewhere."""
    return [each for each in study.get_trials(deepcopy=False) if _counts(each)]
