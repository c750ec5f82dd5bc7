"""The search behind ``edgeseq compress``: chains of stages on a budget, tried one by one by optuna.

The study lies in a file beside the folders, or in a database that several machines reach; whoever works on it runs the
same call. Its objectives are the drop in macro-F1 on the validation subjects, the bytes of the weights as they ship,
and the multiply-accumulates of a step; the budget is a constraint that the sampler knows. The time of a step is
measured, and so is noisy: it is shown, and a limit if the budget says so, but nothing is ranked by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseq.devices.bench import BenchReport, bench, bench_side_by_side
from edgeseq.errors import EdgeseqError, GateFailed, Unsupported
from edgeseq.folder import MODEL_FILES, Folder, open_folder, shipped_bytes
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import FORMS, Chain, Refused, Workshop, space
from edgeseq.quant.checks import check_request, check_stages
from edgeseq.quant.gates import SCORE
from edgeseq.quant.study import FAILURE, OUTCOME, ask, chain_of, open_study, tried_trials

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

CHAINS = "chains"  # the folder of the models


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a chain came to. ``drop``: points of macro-F1 on the validation subjects; ``p50``: microseconds, paced."""

    chain: Chain
    drop: float
    validation_macro_f1: float
    test_macro_f1: float
    test_accuracy: float
    parameters: int
    bytes: int
    file: int
    macs: int
    p50: float
    engine: str

    @property
    def costs(self) -> dict[str, float]:
        """What a budget limits."""
        return {name: getattr(self, name) for name in Budget.__struct_fields__}

    @property
    def objectives(self) -> tuple[float, float, float]:
        """What is made small."""
        return (self.drop, self.bytes, self.macs)


class Tried(msgspec.Struct, frozen=True):
    """All that a study has come to: the chains that were run, and why others could not be."""

    outcomes: tuple[Outcome, ...]
    failures: dict[str, str]


def search(
    source: str | Path,
    out: str | Path,
    *,
    budget: Budget,
    trials: int = 20,
    students: Sequence[str] = (),
    forms: Sequence[str] = tuple(FORMS),
    storage: str | None = None,
    study: str | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    data: str | None = None,
    trust: bool = False,
    follow: Callable[[Callable[..., Folder]], Folder] = lambda stage: stage(),
    report: Callable[[int, Chain, Outcome | EdgeseqError | None], None] = lambda number, chain, ended: None,
) -> Tried:
    """Try chains of ``source`` until the study has ``trials`` of them in all; folders are kept in ``out``/chains.

    ``students``: presets that may be distilled to. ``storage``: a URL of optuna's own storage, such as
    postgresql+psycopg://…, in place of the file in ``out``; ``study`` its name there, by default that of the source
    and the start of its hash. ``changes`` are settings of all training. ``follow`` runs a stage, and may show it;
    ``report`` is called with the chain's number in the study before (None), and with what it came to after. A chain
    that a stage says no to is kept with the reason; one that was interrupted is the first that the next call tries.

    Raises:
        InputError: as :mod:`edgeseq.quant.checks` says; a study of another model, seed, data set, or other choices or
            settings, or a storage that cannot be reached.
        Unsupported: a student does not answer what the data asks.
        MissingDependency: optuna, or the database's driver, is not installed.
    """
    folder, out = open_folder(source), Path(out)
    choices = space(students, forms)

    def ready() -> str:
        check_request(folder, out, trials=trials, storage=storage)
        return check_stages(folder, students, seed=seed, changes=changes, data=data, trust=trust)

    found = ready()
    opened = open_study(*(folder, out, choices), storage=storage, name=study, seed=seed, changes=changes, data=found)
    workshop = Workshop(folder, out / CHAINS, seed, changes, data, trust, follow)
    while len(tried_trials(opened)) < trials:
        asked = ask(opened, choices, budget, seed)
        if asked is None:
            break
        trial, chain = asked
        number = len(tried_trials(opened))
        report(number, chain, None)
        report(number, chain, _attempt(opened, trial, workshop, chain, ready))
    return tried(opened)


def _attempt(
    study: Study, trial: Trial, workshop: Workshop, chain: Chain, ready: Callable[[], object]
) -> Outcome | EdgeseqError:
    """Run a chain, and tell the study; whatever ends it otherwise leaves no trial that looks as if it still ran."""
    from optuna.trial import TrialState

    try:
        ended = _ended(workshop, chain, ready)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)  # without a reason: it is tried again
        raise
    if isinstance(ended, Outcome):
        trial.set_user_attr(OUTCOME, msgspec.to_builtins(ended))
        study.tell(trial, ended.objectives)
    else:
        trial.set_user_attr(FAILURE, str(ended))
        study.tell(trial, state=TrialState.FAIL)
    return ended


def _ended(workshop: Workshop, chain: Chain, ready: Callable[[], object]) -> Outcome | EdgeseqError:
    """What a chain came to, or why it is not possible; any other error is not about the chain, and is raised."""
    try:
        return measured(workshop, chain)
    except (Unsupported, GateFailed) as error:
        return error
    except Refused as error:
        ready()  # raises where what all chains are given is no longer good
        return error


def measured(workshop: Workshop, chain: Chain) -> Outcome:
    """Run a chain, export it, prove it, and measure a step of it."""
    folder = workshop.exported(chain)
    return _outcome(workshop.source, chain, folder, bench(folder, seconds=0.2, paced_seconds=3.0, wait=True))


def _outcome(source: Folder, chain: Chain, folder: Folder, found: BenchReport) -> Outcome:
    metrics, (engine, p50) = folder.manifest.metrics, _fastest(found)
    return Outcome(
        chain=chain,
        drop=round(100 * (source.manifest.metrics[SCORE] - metrics[SCORE]), 4),
        validation_macro_f1=metrics[SCORE],
        test_macro_f1=metrics["test_macro_f1"],
        test_accuracy=metrics["test_accuracy"],
        parameters=folder.manifest.parameters or 0,
        bytes=shipped_bytes(folder),
        file=min(folder.file(MODEL_FILES[name]).stat().st_size for name in folder.formats),
        macs=found.macs,
        p50=p50,
        engine=engine,
    )


def _fastest(found: BenchReport) -> tuple[str, float]:
    """The engine whose median step at the sensor's rate is the shortest, and its microseconds."""
    times = {entry.engine: entry.paced.call.p50 or 0.0 for entry in found.engines}
    return min(times.items(), key=lambda pair: pair[1])


def beats(ours: Outcome, theirs: Outcome) -> bool:
    """Whether one outcome is no worse in any objective, and better in one."""
    pairs = list(zip(ours.objectives, theirs.objectives, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(outcomes: Sequence[Outcome], budget: Budget) -> list[Outcome]:
    """Of those within the budget, the ones that no other beats in all objectives; the smallest first."""
    within = [each for each in outcomes if all(over <= 0 for over in budget.excess(each.costs).values())]
    kept: dict[str, Outcome] = {}
    for each in within:
        if not any(beats(other, each) for other in within):
            kept[each.chain.name] = each
    return sorted(kept.values(), key=lambda each: (each.bytes, each.drop))


def remeasured(workshop: Workshop, outcomes: Sequence[Outcome], *, seconds: float = 5.0) -> list[Outcome]:
    """The same chains as their folders here say (made where they are not), with steps measured side by side, in turns.

    Every machine makes the same folders, of one seed; should it not, what is here is what was measured.
    """
    folders = [workshop.exported(each.chain) for each in outcomes]
    found = bench_side_by_side(folders, seconds=0.2, paced_seconds=seconds, wait=True) if folders else []
    pairs = zip(outcomes, folders, found, strict=True)
    return [_outcome(workshop.source, outcome.chain, folder, report) for outcome, folder, report in pairs]


def measured_front(
    workshop: Workshop,
    outcomes: Sequence[Outcome],
    budget: Budget,
    report: Callable[[Sequence[Outcome]], None] = lambda best: None,
) -> tuple[list[Outcome], list[Outcome]]:
    """The front by steps that were measured side by side, and all outcomes with those that were measured anew.

    A model that is over the budget's p50 then makes way for those that it had beaten, which are measured as well.
    ``report`` is called ahead of each round, with the models that it measures.
    """
    known, sure = {each.chain: each for each in outcomes}, set[Chain]()
    while True:
        best = front(tuple(known.values()), budget)
        if {each.chain for each in best} <= sure:
            return best, list(known.values())
        report(best)
        known |= {each.chain: each for each in remeasured(workshop, best)}
        sure |= {each.chain for each in best}


def tried(study: Study) -> Tried:
    """What the study has come to, in the order of its trials."""
    ended = tried_trials(study)
    outcomes = [msgspec.convert(each.user_attrs[OUTCOME], Outcome) for each in ended if OUTCOME in each.user_attrs]
    failures = {chain_of(each).name: each.user_attrs[FAILURE] for each in ended if FAILURE in each.user_attrs}
    return Tried(tuple(outcomes), failures)
