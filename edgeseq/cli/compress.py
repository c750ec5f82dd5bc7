"""``edgeseq compress``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.output import Clock, Document, Json, Show, counted, kilobytes, need, percent, typed
from edgeseq.cli.train import parse_settings, read_config
from edgeseq.errors import BudgetMissed, EdgeseqError
from edgeseq.folder import Folder, open_folder

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
    seed: Annotated[int, typer.Option(help="Seed of everything random.", callback=counted)] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all training: rounds=5.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a .toml or .json file; --set comes after.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data to learn on (a path, NAME or NAME=PATH), if not the model's.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import the code of a family from outside edgeseq.")] = False,
    json: Json = False,
) -> Document:
    """Search for the smallest models within a budget, over chains of all stages.

    Example: edgeseq compress runs/teacher --student lmu --budget bytes=32kB,drop=1.0 --out runs/small
    """
    show, clock = Show(json), Clock()
    need("edgeseq compress", "train", "torch", "brevitas")
    need("edgeseq compress", "compress", "optuna")
    from edgeseq.quant.budget import parse_budget
    from edgeseq.quant.chains import FORMS, Workshop
    from edgeseq.quant.search import front, remeasured, search

    limits, source = parse_budget(budget), open_folder(folder)
    changes = {**read_config(config), **parse_settings(set_ or [])}
    log = _Log(show, trials)
    found = search(
        *(folder, out),
        budget=limits,
        trials=trials,
        students=tuple(student or ()),
        forms=tuple(form or FORMS),
        storage=storage,
        study=study,
        seed=seed,
        changes=changes,
        data=data,
        trust=trust,
        follow=log.follow,
        report=log.report,
    )
    workshop = Workshop(source, out / "chains", seed, changes, data, trust, log.follow)
    best = front(found.outcomes, limits)
    show.note(f"measuring {len(best)} models side by side")
    best = remeasured(workshop, best)
    document = {**_document(found, best), "budget": msgspec.to_builtins(limits), "source": str(source.path)}
    if not best:
        raise BudgetMissed(_missed(found, limits, out))
    _write_front(workshop.place, out / FRONT, best)
    _show_front(show, source, best)
    show.line(f"wrote {len(best)} models to {out / FRONT} in {clock.seconds:.0f} s", "green")
    following: list[str | Path] = ["bench", *(out / FRONT / each.chain.name for each in best)]
    show.next(*following)
    return {**document, "next": typed(*following)}


class _Log:
    """Shows a search: a line for each chain, and how each of its stages goes."""

    def __init__(self, show: Show, trials: int) -> None:
        self.show, self.trials, self.count = show, trials, 0
        self.silent = Show(json=True)

    def report(self, chain: Chain, ended: Outcome | EdgeseqError | None) -> None:
        """A chain begins (None), or has ended."""
        if ended is None:
            self.count += 1
            self.show.note(f"chain {self.count} (of {self.trials} in the study): {chain.name}")
        elif isinstance(ended, EdgeseqError):
            self.show.note(f"{chain.name} is not possible: {ended}")
        else:
            self.show.line(
                f"{chain.name}: macro-F1 {percent(ended.validation_macro_f1)} on validation, "
                f"{kilobytes(ended.bytes)}, {ended.macs:,} MACs, {ended.p50:.0f} us"
            )

    def follow(self, stage: Callable[..., Folder]) -> Folder:
        """Run a stage with a bar for what it trains."""
        with self.show.bar() as bar:
            task = bar.add_task("training", total=None, news="")

            def announce(model: Any, split: Any, settings: Any) -> None:
                bar.update(task, total=settings.rounds * settings.steps)

            return stage(announce=announce, report=lambda ended, steps: bar.update(task, completed=steps))


def _document(found: Tried, best: Sequence[Outcome]) -> Document:
    return {
        "front": [msgspec.to_builtins(each) for each in best],
        "tried": [msgspec.to_builtins(each) for each in found.outcomes],
        "not_possible": found.failures,
    }


def _missed(found: Tried, limits: Budget, out: Path) -> str:
    """That nothing is within the budget, what came nearest, and what to do."""
    if not found.outcomes:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.failures.items()) or "none was tried"
        return f"no chain could be run ({reasons})"
    nearest = min(found.outcomes, key=lambda each: sum(max(0.0, over) for over in limits.excess(each.costs).values()))
    costs = ", ".join(f"{name} {nearest.costs[name]:g} (limit {limit:g})" for name, limit in limits.limits().items())
    return (
        f"none of {len(found.outcomes)} chains is within the budget; the nearest is {nearest.chain.name}: {costs}. "
        f"Raise --trials (the study in {out} goes on), or the limit"
    )


def _write_front(chains: Path, place: Path, best: Sequence[Outcome]) -> None:
    """Copies of the models on the front, and no others."""
    if place.exists():
        shutil.rmtree(place)
    for each in best:
        shutil.copytree(chains / f"{each.chain.name}-export", place / each.chain.name)


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
