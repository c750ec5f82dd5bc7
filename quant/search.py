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

from edgeseq.devices.bench import bench, bench_side_by_side
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import MODEL_FILES, Folder, open_folder, shipped_bytes
from edgeseq.quant.budget import Budget
from edgeseq.quant.chains import FORMS, Chain, Workshop, space
from edgeseq.quant.study import FAILURE, OUTCOME, ask, chain_of, open_study, tried_trials

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

SCORE = "validation_macro_f1"


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
    report: Callable[[Chain, Outcome | EdgeseqError | None], None] = lambda chain, ended: None,
) -> Tried:
    """Try chains of ``source`` until the study has ``trials`` of them in all; folders are kept in ``out``/chains.

    ``students``: presets that may be distilled to. ``storage``: a URL of optuna's own storage, such as
    postgresql+psycopg://…, in place of the file in ``out``; ``study`` its name there, by default that of the source
    and the start of its hash. ``changes`` are settings of all training. ``follow`` runs a stage, and may show it;
    ``report`` is called with a chain before, and with what it came to after.

    Raises:
        InputError: a study of another model or other choices, or a storage that cannot be reached.
        MissingDependency: optuna, or the database's driver, is not installed.
    """
    folder, out = open_folder(source), Path(out)
    if SCORE not in folder.manifest.metrics:
        raise InputError(f"{folder.path} has no {SCORE} to compare with: start from a folder that edgeseq trained")
    choices = space(students, forms)
    opened = open_study(folder, out, choices, storage=storage, name=study, seed=seed)
    workshop = Workshop(folder, out / "chains", seed, changes, data, trust, follow)
    while len(tried_trials(opened)) < trials:
        trial, chain = ask(opened, choices)
        if trial is None:
            break
        report(chain, None)
        report(chain, _attempt(opened, trial, workshop, chain, budget))
    return tried(opened)


def _attempt(study: Study, trial: Trial, workshop: Workshop, chain: Chain, budget: Budget) -> Outcome | EdgeseqError:
    """Run a chain, and tell the study; whatever ends it otherwise leaves no trial that looks as if it still ran."""
    from optuna.trial import TrialState

    try:
        outcome = measured(workshop, chain)
    except EdgeseqError as error:
        trial.set_user_attr(FAILURE, str(error))
        study.tell(trial, state=TrialState.FAIL)
        return error
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)  # without a reason: it is tried again
        raise
    trial.set_user_attr(OUTCOME, msgspec.to_builtins(outcome))
    for name, over in budget.excess(outcome.costs).items():
        trial.set_constraint(name, over)
    study.tell(trial, outcome.objectives)
    return outcome


def measured(workshop: Workshop, chain: Chain) -> Outcome:
    """Run a chain, export it, prove it, and measure a step of it."""
    folder = workshop.exported(chain)
    found = bench(folder, seconds=0.2, paced_seconds=3.0)
    fastest = min(found.engines, key=lambda entry: entry.paced.call.p50 or 0.0)
    metrics = folder.manifest.metrics
    return Outcome(
        chain=chain,
        drop=round(100 * (workshop.source.manifest.metrics[SCORE] - metrics[SCORE]), 4),
        validation_macro_f1=metrics[SCORE],
        test_macro_f1=metrics["test_macro_f1"],
        test_accuracy=metrics["test_accuracy"],
        parameters=folder.manifest.parameters or 0,
        bytes=shipped_bytes(folder),
        file=min(folder.file(MODEL_FILES[name]).stat().st_size for name in folder.formats),
        macs=found.macs,
        p50=fastest.paced.call.p50 or 0.0,
        engine=fastest.engine,
    )


def front(outcomes: Sequence[Outcome], budget: Budget) -> list[Outcome]:
    """Of those within the budget, the ones that no other beats in all objectives; the smallest first."""
    within = [each for each in outcomes if all(over <= 0 for over in budget.excess(each.costs).values())]
    kept: dict[str, Outcome] = {}
    for each in within:
        beaten = any(
            other.objectives != each.objectives
            and all(theirs <= ours for theirs, ours in zip(other.objectives, each.objectives, strict=True))
            for other in within
        )
        if not beaten:
            kept[each.chain.name] = each
    return sorted(kept.values(), key=lambda each: (each.bytes, each.drop))


def remeasured(workshop: Workshop, outcomes: Sequence[Outcome], *, seconds: float = 5.0) -> list[Outcome]:
    """The same, their folders made where they are not here, with steps measured side by side, in turns."""
    folders = [workshop.exported(each.chain) for each in outcomes]
    found = bench_side_by_side(folders, seconds=0.2, paced_seconds=seconds) if folders else []
    again = []
    for outcome, report in zip(outcomes, found, strict=True):
        fastest = min(report.engines, key=lambda entry: entry.paced.call.p50 or 0.0)
        again.append(msgspec.structs.replace(outcome, p50=fastest.paced.call.p50 or 0.0, engine=fastest.engine))
    return again


def tried(study: Study) -> Tried:
    """What the study has come to, in the order of its trials."""
    ended = tried_trials(study)
    outcomes = [msgspec.convert(each.user_attrs[OUTCOME], Outcome) for each in ended if OUTCOME in each.user_attrs]
    failures = {chain_of(each).name: each.user_attrs[FAILURE] for each in ended if FAILURE in each.user_attrs}
    return Tried(tuple(outcomes), failures)
