"""The study behind ``edgeseq compress``: in a file beside the folders, or in a database that several machines reach.

Whoever works on it takes up a chain that nobody has; optuna's sampler knows what others are at.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseq.errors import InputError, MissingDependency
from edgeseq.folder import Folder
from edgeseq.quant.chains import Chain, chains

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

ATTEMPTS = 2  # to open a database
JOURNAL = "study.journal"
OUTCOME, FAILURE, WORKER = "outcome", "failure", "worker"  # what a trial has besides its values
SOURCE, SPACE = "source", "space"  # what a study has
STARTS = ("int8-ptq", "int8-qat", "qd4")  # tried first: what a person would


def open_study(
    source: Folder,
    out: Path,
    choices: Mapping[str, list[Any]],
    *,
    storage: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Study:
    """The study of this source, new or taken up.

    Raises:
        InputError: a study of another model or other choices, or a storage that cannot be reached.
        MissingDependency: optuna, or the driver of the database, is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingDependency("optuna", "compress", "edgeseq compress") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    made = optuna.create_study(
        storage=_storage(out, storage),
        sampler=sampler,
        study_name=name or f"{source.manifest.name}-{source.hash[:8]}",
        directions=["minimize"] * 3,
        load_if_exists=True,
    )
    for key, value in ((SOURCE, source.hash), (SPACE, dict(choices))):
        had = made.user_attrs.get(key)
        if had is None:
            made.set_user_attr(key, value)
        elif had != value:
            what = "model" if key == SOURCE else "choice of students and forms"
            raise InputError(
                f"the study {made.study_name!r} is of another {what} ({had!r:.80}): choose another --out or --study"
            )
    _release(made)
    if not made.get_trials(deepcopy=False):
        for form in STARTS:
            if form in choices["form"]:
                made.enqueue_trial(msgspec.structs.asdict(Chain(form=form)))
    return made


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


def ask(study: Study, choices: Mapping[str, list[Any]]) -> tuple[Trial | None, Chain]:
    """A chain that nobody has taken up yet, and its trial; none if all were."""
    from optuna.trial import TrialState

    while True:
        taken = {chain_of(each) for each in study.get_trials(deepcopy=False) if _counts(each) and each.params}
        trial = study.ask()
        trial.set_user_attr(WORKER, _worker())
        chain = Chain(**{name: trial.suggest_categorical(name, values) for name, values in choices.items()})
        if chain not in taken:
            return trial, chain
        study.tell(trial, state=TrialState.PRUNED)
        left = [each for each in chains(choices) if each not in taken]
        if not left:
            return None, chain
        study.enqueue_trial(msgspec.structs.asdict(random.Random(trial.number).choice(left)))


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
