"""``edgeseq report``: folders in, one page for whoever decides; or two reports side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseq.cli.output import Clock, Document, Failed, Json, Show, need, not_negative, positive
from edgeseq.errors import BudgetMissed, EdgeseqError, InputError
from edgeseq.folder import MANIFEST_NAME, Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.devices.bench import BenchReport
    from edgeseq.devices.report.compare import Comparison
    from edgeseq.devices.report.document import Baseline, Model, Report
    from edgeseq.devices.report.gather import Measured

FOREST = "random forest"
REPORT_NAME = "report.json"


def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Model folders that edgeseq export wrote.", metavar="FOLDER...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for report.html, report.md and report.json.")] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What edgeseq bench --out wrote, here or on a board; may be repeated, to set devices side by side. "
            "Measured now, if not given.",
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train a random forest to compare with.")
    ] = True,
    seconds: Annotated[
        float, typer.Option(help="Tight loop of each folder, all engines in turn.", callback=positive)
    ] = 2.0,
    paced_seconds: Annotated[
        float, typer.Option(help="At the sensor's rate, for each engine.", callback=positive)
    ] = 10.0,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="OLD NEW", help="Compare two report.json instead.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report in OUT.")] = False,
    budget: Annotated[
        float, typer.Option(help="Percent that a median or a file may grow by.", callback=not_negative)
    ] = 10.0,
    accuracy_budget: Annotated[
        float, typer.Option(help="Points that the accuracy may fall by.", callback=not_negative)
    ] = 1.0,
    json: Json = False,
) -> Document:
    """Write a report about folders, or compare two reports.

    Example: edgeseq report runs/gru-export runs/lmu-export --out runs/report
    """
    show = Show(json)
    if compare is not None:
        if folders or out or bench:
            raise InputError("--compare reads two reports: leave out the folders, --out and --bench")
        return compare_reports(show, *compare, budget=budget, accuracy_budget=accuracy_budget)
    if not folders:
        raise InputError("a report is of at least one folder: edgeseq report FOLDER... --out DIR")
    if out is None:
        raise InputError("--out is needed: the folder for report.html, report.md and report.json")
    from edgeseq.cli.bench import bench_folders

    need("the report", "train", "jinja2", "matplotlib")
    clock = Clock()
    opened = [open_folder(path) for path in folders]
    known = _known(opened, bench or [])
    target = _target(out, overwrite=overwrite)
    if known:
        folders_of, reports, devices = zip(*known, strict=True)
        made = make_report(show, folders_of, reports, devices=devices, baseline=baseline)
    else:
        measured = bench_folders(show, opened, seconds=seconds, paced_seconds=paced_seconds, wait=True)
        made = make_report(show, opened, measured, baseline=baseline)
    return write_report(show, made, target, clock)


def _known(folders: Sequence[Folder], files: Sequence[Path]) -> list[Measured]:
    """What the files hold of the folders, on each device; nothing without a file.

    Raises:
        InputError: a folder is there twice, not exported, or in no file; or a file is there twice or something else.
    """
    from edgeseq.devices.report.gather import check_folders, measurements, read_bench

    check_folders(folders)
    twice = [path for number, path in enumerate(files) if path.resolve() in {f.resolve() for f in files[:number]}]
    if twice:
        raise InputError(f"--bench names {twice[0]} twice: name each file once")
    return measurements(folders, [(path, read_bench(path)) for path in files]) if files else []


def make_report(
    show: Show,
    folders: Sequence[Folder],
    measured: Sequence[BenchReport],
    *,
    devices: Sequence[str] = (),
    baseline: bool = True,
) -> Report:
    """The report of folders that were measured, scored here where the test subjects' data is at hand.

    ``measured`` has a report for each of ``folders``, in which a folder stands once for every device that measured it;
    ``devices`` are their names, that of this machine if there are none.
    """
    from edgeseq import __version__
    from edgeseq.cli.accuracy import engine_scores
    from edgeseq.cli.following import following
    from edgeseq.devices.facts import read_facts
    from edgeseq.devices.report.document import Report
    from edgeseq.devices.report.gather import Measured, distinct, gather
    from edgeseq.devices.report.kinship import grouped
    from edgeseq.devices.report.numbers import machine_name

    placed = map(Measured, folders, measured, devices or [""] * len(folders))
    models = []
    for group in grouped(placed, lambda each: each.folder.hash):
        folder = group[0].folder
        show.note(f"scoring {folder.path}")
        engines = dict.fromkeys(entry.engine for each in group for entry in each.report.engines)
        found = engine_scores(show, folder, list(engines))
        follows = following(folder, next(iter(found.scores))) if found.scores else ()
        models += [
            gather(each, found.scores, people=found.people, unscored=found.missing, following=follows) for each in group
        ]
    named = distinct(models)
    baselines = _baselines(show, folders, named) if baseline else ()
    return Report(edgeseq=__version__, scored_on=machine_name(read_facts()), models=named, baselines=tuple(baselines))


def _baselines(show: Show, folders: Sequence[Folder], models: Sequence[Model]) -> list[Baseline]:
    """A random forest for each group of models that were tested on the same people."""
    from edgeseq.devices.report.document import Baseline
    from edgeseq.devices.report.kinship import grouped, split_key

    by_hash = {folder.hash: folder for folder in folders}
    folder_of = {model.name: by_hash[model.folder_hash] for model in models}
    found = []
    for group in grouped(models, split_key):
        names = tuple(dict.fromkeys(model.name for model in group))
        folder = folder_of[names[0]]
        show.note(f"training a {FOREST} on the people of {names[0]}")
        try:
            found.append(_forest(folder, names))
        except EdgeseqError as error:
            show.note(f"no {FOREST}: {error}")
            found.append(Baseline(name=FOREST, models=names, missing=str(error)))
    return found


def _forest(folder: Folder, names: tuple[str, ...]) -> Baseline:
    """The scores of a random forest that learns from whom the folder's model did, for the models called ``names``.

    Raises:
        MissingDependency: scikit-learn or torch is not installed.
        EdgeseqError: the data is not at hand, or not split as it was.
    """
    need(f"the {FOREST}", "train", "sklearn", "torch")
    from edgeseq.cli.following import forest_following
    from edgeseq.data import split_by_subject
    from edgeseq.devices.report.document import Baseline
    from edgeseq.lineage import trained_on
    from edgeseq.training.baseline import grow, scored

    manifest = folder.manifest
    data = trained_on(folder)
    split = split_by_subject(data, test=manifest.split.get("test", ()), validation=manifest.split.get("validation", ()))
    forest, smoothing = grow(split), manifest.decision.smoothing
    plain, smoothed = scored(forest, split.test, smoothing=smoothing)
    follows = forest_following(forest, split.test, smoothing)
    return Baseline(name=FOREST, models=names, plain=plain, smoothed=smoothed, following=follows)


def write_report(show: Show, made: Report, target: Path, clock: Clock) -> Document:
    """Write the three files and say what the report says."""
    from edgeseq.devices.report.document import encode_report
    from edgeseq.devices.report.markdown import markdown
    from edgeseq.devices.report.page import page
    from edgeseq.devices.report.words import verdicts

    contents = {
        "report.html": page(made).encode(),
        "report.md": markdown(made).encode(),
        REPORT_NAME: encode_report(made),
    }
    sentences = verdicts(made)
    for sentence in sentences:
        show.text(sentence)
    show.line()
    for name, content in contents.items():
        _write(target / name, content)
        show.wrote(target / name, len(content), clock)
    return {
        "out": str(target),
        "files": {name: len(content) for name, content in contents.items()},
        "seconds": clock.seconds,
        "models": [
            {"name": model.name, "hash": model.folder_hash, **({"device": model.device} if model.device else {})}
            for model in made.models
        ],
        "verdicts": sentences,
    }


def compare_reports(show: Show, old: Path, new: Path, *, budget: float, accuracy_budget: float) -> Document:
    """Show what changed between two reports.

    Raises:
        InputError: one is no report, or they have no model in common.
        Failed: something is over the budget, or lost. It carries the BudgetMissed, and the document with every change.
    """
    from edgeseq.devices.report.compare import compare, findings
    from edgeseq.devices.report.document import read_report

    found = compare(read_report(old), read_report(new), budget=budget, accuracy_budget=accuracy_budget)
    sentences = findings(found)
    _show_comparison(show, found, sentences)
    document: Document = {
        "old": str(old),
        "new": str(new),
        "passed": found.passed,
        "findings": sentences,
        "warnings": found.warnings,
        "lost": found.lost,
        "uncompared": found.uncompared,
        "changes": found.changes,
    }
    if not found.passed:
        first, others = sentences[0].removesuffix("."), len(found.missed) + len(found.lost) - 1
        more = f" ({others} more)" if others else ""
        allowed = f"allowed are {budget:g} % of time and size, {accuracy_budget:g} points of accuracy, and no loss"
        raise Failed(BudgetMissed(f"{first}{more}; {allowed}"), document)
    return document


def _show_comparison(show: Show, found: Comparison, sentences: Sequence[str]) -> None:
    from edgeseq.devices.report.compare import difference, shown
    from edgeseq.devices.report.numbers import engine_name

    for warning in found.warnings:
        show.line(warning, "bold red")
    show.table(
        ["model", "engine", "", ">old", ">new", ">change", ""],
        [
            [
                change.model,
                engine_name(change.engine),
                change.quantity,
                *shown(change),
                difference(change),
                "FAILED" if change.missed else "",
            ]
            for change in found.changes
        ],
    )
    for sentence in sentences:
        show.text(sentence)


def _target(out: Path, *, overwrite: bool) -> Path:
    """The folder to write to, made where it is not there.

    Raises:
        InputError: it cannot be made, is a file or a model folder, or holds a report (and ``overwrite`` is not set).
    """
    if (out / MANIFEST_NAME).exists():
        raise InputError(f"{out} is a model folder: name another --out for the report")
    if (out / REPORT_NAME).exists() and not overwrite:
        raise InputError(f"{out} holds a report: name another --out, or pass --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made a folder: {error.strerror}") from None
    return out


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
