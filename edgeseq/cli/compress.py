"""``edgeseq compress``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.options import Config, Seed, Trust
from edgeseq.cli.output import Clock, Document, Failed, Json, Show, counted, kilobytes, need, percent, typed
from edgeseq.cli.train import parse_settings, read_config
from edgeseq.errors import BudgetMissed, EdgeseqError, InputError, Unsupported
from edgeseq.folder import MANIFEST_NAME, Folder, new_folder, open_folder

if TYPE_CHECKING:
    from edgeseq.quant.budget import Budget
    from edgeseq.quant.chains import Chain
    from edgeseq.quant.search import Outcome, Tried

FRONT = "pareto"


def compress(
    folder: Annotated[Path, typer.Argument(help="A model folder in float32.")],
    out: Annotated[Path, typer.Option(help="A folder for the study and the models; one that is there goes on.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="LIMITS",
            help="bytes (as shipped), file, drop (points of validation macro-F1), p50, macs: bytes=32kB,drop=1.0",
        ),
    ] = "drop=1.0",
    trials: Annotated[int, typer.Option(help="Chains to try in all, in the whole study.", callback=counted)] = 20,
    student: Annotated[
        list[str] | None, typer.Option(metavar="PRESET", help="A preset that may be distilled to; may be repeated.")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(metavar="FORM", help="float32, int8-ptq, int8-qat, int4-qat, qd4, qd2, dq4; all if not given."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of optuna, to share the study between machines: postgresql+psycopg://..."),
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="The study's name there.")] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all training: rounds=5.")
    ] = None,
    config: Config = None,
    data: Annotated[
        str | None, typer.Option(help="Data to learn on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Search for the smallest models within a budget, over chains of all stages.

    Those that no other beats in macro-F1, bytes and multiply-accumulates are copied to OUT/pareto.

    Example: edgeseq compress runs/teacher --student lmu --budget bytes=32kB,drop=1.0 --out runs/small
    """
    show, clock = Show(json), Clock()
    from edgeseq.quant.budget import parse_budget
    from edgeseq.quant.chains import FORMS, Workshop, chains, space
    from edgeseq.quant.checks import check_request

    limits, source = parse_budget(budget), open_folder(folder)
    changes = {**read_config(config), **parse_settings(set_ or [])}
    students, forms = tuple(student or ()), tuple(form or FORMS)
    every = len(chains(space(students, forms)))
    check_request(source, out, trials=trials, storage=storage)
    _models_of(out / FRONT)
    need("edgeseq compress", "train", "torch", "brevitas")
    need("edgeseq compress", "compress", "optuna")
    from edgeseq.quant.search import CHAINS, measured_front, search

    log = _Log(show, min(trials, every))
    found = search(
        *(folder, out),
        budget=limits,
        trials=trials,
        students=students,
        forms=forms,
        storage=storage,
        study=study,
        seed=seed,
        changes=changes,
        data=data,
        trust=trust,
        follow=log.follow,
        report=log.report,
    )
    workshop = Workshop(source, out / CHAINS, seed, changes, data, trust, log.follow)
    best, outcomes = measured_front(workshop, found.outcomes, limits, log.measuring)
    found = msgspec.structs.replace(found, outcomes=tuple(outcomes))
    document = {**_document(found, best), "budget": msgspec.to_builtins(limits), "source": str(source.path)}
    if not best:
        raise Failed(_missed(found, limits, out), document)
    _write_front(workshop.place, out / FRONT, best)
    _show_front(show, source, best)
    _show_others(show, found, best, limits)
    show.line(f"wrote {_models(len(best))} to {out / FRONT} in {clock.seconds:.0f} s", "green")
    following: list[str | Path] = ["bench", *(out / FRONT / each.chain.name for each in best)]
    show.next(*following)
    return {**document, "next": typed(*following)}


class _Log:
    """Shows a search of ``total`` chains: a line for each, and how each of its stages goes."""

    def __init__(self, show: Show, total: int) -> None:
        self.show, self.total, self.clock = show, total, Clock()

    def report(self, number: int, chain: Chain, ended: Outcome | EdgeseqError | None) -> None:
        """A chain begins (None), or has ended."""
        if ended is None:
            self.clock = Clock()
            self.show.note(f"chain {number} of {self.total}: {chain.name}")
        elif isinstance(ended, EdgeseqError):
            self.show.note(f"{chain.name} is not possible: {ended}")
        else:
            self.show.line(
                f"{chain.name}: macro-F1 {percent(ended.validation_macro_f1)} on validation, "
                f"{kilobytes(ended.bytes)}, {ended.macs:,} MACs, {ended.p50:.0f} us, in {self.clock.seconds:.0f} s"
            )

    def measuring(self, best: Sequence[Outcome]) -> None:
        """The models of the front are measured."""
        if best:
            self.show.note(f"measuring {_models(len(best))}{' side by side' if len(best) > 1 else ''}")

    def follow(self, stage: Callable[..., Folder]) -> Folder:
        """Run a stage with a bar for what it trains."""
        with self.show.bar() as bar:
            task = bar.add_task("training", total=None, news="")

            def announce(model: Any, split: Any, settings: Any) -> None:
                bar.update(task, total=settings.rounds * settings.steps)

            return stage(announce=announce, report=lambda ended, steps: bar.update(task, completed=steps))


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"


def _document(found: Tried, best: Sequence[Outcome]) -> Document:
    return {
        "front": [msgspec.to_builtins(each) for each in best],
        "tried": [msgspec.to_builtins(each) for each in found.outcomes],
        "not_possible": found.failures,
    }


def _missed(found: Tried, limits: Budget, out: Path) -> EdgeseqError:
    """That nothing is within the budget, what came nearest, and what to do; or that nothing could be run at all."""
    if not found.outcomes:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.failures.items())
        return Unsupported(f"no chain is possible for this model ({reasons})")
    nearest = min(found.outcomes, key=lambda each: sum(max(0.0, over) for over in limits.excess(each.costs).values()))
    costs = ", ".join(f"{name} {nearest.costs[name]:g} (limit {limit:g})" for name, limit in limits.limits().items())
    count = len(found.outcomes)
    none = "the one chain that was run is not" if count == 1 else f"none of {count} chains is"
    return BudgetMissed(
        f"{none} within the budget; the nearest is {nearest.chain.name}: {costs}. "
        f"Raise --trials (the study in {out} goes on), or the limit"
    )


def _models_of(place: Path) -> list[Path]:
    """The models of an earlier front.

    Raises:
        InputError: something else is there, which is not removed.
    """
    if not place.exists():
        return []
    if not place.is_dir() or place.is_symlink():
        raise InputError(f"{place} is not a folder of models, and the front is to be written there: remove it")
    found = sorted(place.iterdir())
    for each in found:
        if each.is_symlink() or not (each / MANIFEST_NAME).is_file():
            raise InputError(f"{each} is not a model folder, and {place} is to be written anew: put it elsewhere")
    return found


def _write_front(made: Path, place: Path, best: Sequence[Outcome]) -> None:
    """Copies of the models on the front, in place of those of an earlier one; ``made``: where chains are run."""
    from edgeseq.quant.chains import EXPORTED

    for each in _models_of(place):
        shutil.rmtree(each)
    for outcome in best:
        name = outcome.chain.name
        with new_folder(place / name) as staging:
            shutil.copytree(made / f"{name}-{EXPORTED}", staging, dirs_exist_ok=True)


def _show_others(show: Show, found: Tried, best: Sequence[Outcome], limits: Budget) -> None:
    """The chains that are not on the front, and why."""
    names = {each.chain.name for each in best}
    rows = [
        [
            each.chain.name,
            percent(each.validation_macro_f1),
            kilobytes(each.bytes),
            f"{each.macs:,}",
            f"{each.p50:.0f}",
            _why(each, best, limits),
        ]
        for each in found.outcomes
        if each.chain.name not in names
    ]
    if rows:
        columns = ["not chosen", ">macro-F1\nvalidation", ">weights\nshipped", ">MACs", ">paced p50\nus", "why"]
        show.table(columns, rows)
    if found.failures:
        show.text(f"Not possible for this model: {', '.join(found.failures)}.")


def _why(outcome: Outcome, best: Sequence[Outcome], limits: Budget) -> str:
    from edgeseq.quant.search import beats

    if over := [name for name, share in limits.excess(outcome.costs).items() if share > 0]:
        return f"over {', '.join(over)}"
    return f"{next(each.chain.name for each in best if beats(each, outcome))} is better"


def _show_front(show: Show, source: Folder, best: Sequence[Outcome]) -> None:
    metrics = source.manifest.metrics
    show.table(
        ["model", ">macro-F1\nvalidation", ">macro-F1\ntest", ">weights\nshipped", ">file", ">MACs", ">paced p50\nus"],
        [
            [
                each.chain.name,
                percent(each.validation_macro_f1),
                percent(each.test_macro_f1),
                kilobytes(each.bytes),
                kilobytes(each.file),
                f"{each.macs:,}",
                f"{each.p50:.0f}",
            ]
            for each in best
        ],
    )
    show.text(
        f"{source.path} has {percent(metrics.get('validation_macro_f1'))} on validation, "
        f"{percent(metrics.get('test_macro_f1'))} on test. Chosen on the validation subjects alone."
    )
