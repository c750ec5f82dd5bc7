"""``edgeseq train``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.options import Config, Overwrite, Seed, Trust
from edgeseq.cli.output import (
    Clock,
    Document,
    Json,
    Show,
    counted,
    listed,
    need,
    percent,
    positive,
    typed,
)
from edgeseq.cli.tune_events import next_tune
from edgeseq.errors import InputError

if TYPE_CHECKING:
    from edgeseq.data import Mapping as Columns
    from edgeseq.data import Split
    from edgeseq.folder import Folder
    from edgeseq.models.contract import StreamingModel
    from edgeseq.training.loop import Round
    from edgeseq.training.settings import Settings

PRESET = "gru"
COLUMNS = "Columns of your own data"
Changes = dict[str, Any]


def train(
    source: Annotated[
        str, typer.Argument(help="A data set: NAME, NAME=PATH, an .npz, or a folder of CSV or Parquet files.")
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    model: Annotated[str | None, typer.Option(metavar="PRESET", help="See edgeseq models; gru if not given.")] = None,
    seed: Seed = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; model.hidden=48 is the model's.")
    ] = None,
    config: Config = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold of a cross-validation over subjects; 0 if not given.", callback=counted)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where a data set lies that does not come with edgeseq: its file or folder.")
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="A,B", help="Subjects to test on.")] = None,
    validation: Annotated[str | None, typer.Option(metavar="A,B", help="Subjects to choose the weights on.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Train on from the model of this folder.")] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="Timestamps.", rich_help_panel=COLUMNS)] = None,
    time_unit: Annotated[
        str | None, typer.Option(metavar="UNIT", help="Their unit: s, ms, us or ns.", rich_help_panel=COLUMNS)
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Classes.", rich_help_panel=COLUMNS)] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Who was recorded.", rich_help_panel=COLUMNS)
    ] = None,
    subject_from: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="Take it from the name of the: file or folder. Or: none.", rich_help_panel=COLUMNS
        ),
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Changes where a recording starts.", rich_help_panel=COLUMNS),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Columns to learn from.", rich_help_panel=COLUMNS)
    ] = None,
    units: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="The unit of each channel.", rich_help_panel=COLUMNS)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="The sample rate to expect.", rich_help_panel=COLUMNS, callback=positive),
    ] = None,
    gap: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds without a frame that end a recording.", rich_help_panel=COLUMNS),
    ] = None,
    ignored: Annotated[
        str | None, typer.Option(metavar="A,B", help="Labels that mean unlabelled time.", rich_help_panel=COLUMNS)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="What has a label: each frame, or each recording as a segment.",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    json: Json = False,
) -> Document:
    """Train a model on recordings and write a model folder.

    Example: edgeseq train spar_watch --model gru --out runs/gru
    """
    show = Show(json)
    if fold is not None and (test or validation):
        raise InputError("--fold chooses the subjects, and so do --test and --validation: give one or the other")
    if start is not None and model is not None:
        raise InputError(f"--from trains on the model of {start}: leave --model {model} out")
    mapping = _mapping(
        time=time,
        time_unit=time_unit,
        label=label,
        subject=subject,
        subject_from=subject_from,
        recording=recording,
        channels=channels and listed(channels),
        units=units and listed(units),
        rate=rate,
        gap=gap,
        ignored=ignored and listed(ignored),
        task=task,
    )
    folder, document = train_folder(
        show,
        source if data is None else _located(source, data),
        out,
        mapping=mapping,
        preset=model or PRESET,
        seed=seed,
        changes={**read_config(config), **parse_settings(set_ or [])},
        fold=fold,
        test=listed(test),
        validation=listed(validation),
        start=start,
        overwrite=overwrite,
        trust=trust,
    )
    following = next_tune(show, folder) or next_export(folder)
    show.next(*following)
    return {**document, "next": typed(*following)}


def next_export(folder: Folder) -> tuple[str | Path, ...]:
    """The command that exports a folder, with trust where its model is code from outside."""
    foreign = ("--trust",) if ":" in folder.manifest.family else ()
    return ("export", folder.path, "--out", folder.path.with_name(f"{folder.path.name}-export"), *foreign)


def train_folder(show: Show, source: str, out: Path, **options: Any) -> tuple[Folder, Document]:
    """Train, showing what goes in, how it goes and what comes out; the folder, and the document of it.

    ``options`` are those of :func:`edgeseq.training.stage.train`.
    """
    need("training", "train", "torch")
    from edgeseq.training.stage import train as train_stage

    return follow(show, partial(train_stage, source, out, **options))


def follow(show: Show, stage: Callable[..., Folder]) -> tuple[Folder, Document]:
    """Run a stage that trains, called with ``announce`` and ``report``, and show it; the folder, and its document."""
    clock, log = Clock(), _Log(show)
    with log.progress:
        folder = stage(announce=log.announce, report=log.report)
    metrics = folder.manifest.metrics
    columns = {"accuracy": "accuracy", "macro-F1": "macro_f1", "smoothed": "accuracy_smoothed"}
    columns["majority"] = "majority_share"
    if folder.manifest.task == "segment":  # which has one answer, and nothing to smooth
        del columns["smoothed"]
    show.table(
        ["recordings of" if "rule" in folder.manifest.split else "subjects of", *(f">{column}" for column in columns)],
        [
            [part, *(percent(metrics.get(f"{part}_{metric}")) for metric in columns.values())]
            for part in ("validation", "test")
        ],
    )
    if warning := log.beaten(metrics):
        show.note(warning)
    document = {
        **show.wrote_folder(folder, clock),
        "parameters": log.parameters,
        "split": folder.manifest.split,
        "rounds": log.rounds,
        "metrics": metrics,
        "files": folder.manifest.files,
    }
    return folder, document


class _Log:
    """Shows a run of training: on a terminal as one bar, elsewhere as one line a round."""

    def __init__(self, show: Show) -> None:
        self.show, self.progress = show, show.bar()
        self.parameters = 0
        self._common, self._weighted = "", False
        self.rounds: list[Round] = []
        self._steps = self._total = 0

    def announce(self, model: StreamingModel, split: Split, settings: Settings) -> None:
        """What is trained, on what."""
        from edgeseq.models.contract import parameter_count
        from edgeseq.models.listening import behind

        self.parameters = parameter_count(model)
        self._common = split.test.labels[int(split.test.label_counts().argmax())]
        self._weighted = settings.class_weights
        self._steps, self._total = settings.steps, settings.rounds
        self.show.facts(
            [
                ("data", describe(split)),
                *_parts(split),
                ("model", f"{type(behind(model)).__name__}, {self.parameters:,} parameters"),
            ]
        )
        self._bar = self.progress.add_task("training", total=settings.rounds * settings.steps, news="")
        self._first = True

    def report(self, ended: Round | None, steps: int) -> None:
        """A step, and perhaps a round, has ended."""
        if self._first and steps > 1:
            self.show.note(f"going on after round {(steps - 1) // self._steps} of an interrupted run")
        self._first = False
        if ended is not None:
            self.rounds.append(ended)
            scores = f"{percent(ended.accuracy)}, F1 {percent(ended.macro_f1)}"
            self.progress.update(self._bar, news=f"loss {ended.loss:.2f}, {scores}")
            if not self.show.notes.is_terminal:
                self.show.note(f"round {ended.number + 1}/{self._total}: loss {ended.loss:.3f}, validation {scores}")
        self.progress.update(self._bar, completed=steps)

    def beaten(self, metrics: Mapping[str, float]) -> str:
        """What to say of a model that is worse than the answer that is right most often; "" of a better one."""
        share = metrics.get("test_majority_share", 0.0)
        if not self._common or metrics.get("test_accuracy", share) >= share:
            return ""
        unweighted = ", or --set class_weights=false" if self._weighted else ""
        return f"worse than always answering {self._common} ({percent(share)}): train longer{unweighted}"


def _parts(split: Split) -> list[tuple[str, str]]:
    """Who is in which part; how many recordings, where nobody knows who was recorded."""
    if not split.rule:
        return [(part, f"subjects {', '.join(subjects)}") for part, subjects in split.subjects().items()]
    sizes = {part: len(getattr(split, part).recordings) for part in split.subjects()}
    return [("split", split.rule), *((part, f"{size} recordings") for part, size in sizes.items())]


def describe(split: Split) -> str:
    """The data of all three parts in one line."""
    import dataclasses

    parts = (split.train, split.validation, split.test)
    whole = dataclasses.replace(split.train, recordings=tuple(r for part in parts for r in part.recordings))
    recordings, people = f"{len(whole.recordings):,} recordings", f"{len(whole.subjects)} subjects"
    many = recordings if whole.dealt else f"{recordings} of {people}" if whole.task == "segment" else people
    return (
        f"{whole.name}: {many}, {60 * whole.hours:.1f} minutes at {whole.sample_rate:g} Hz; "
        f"{len(whole.labels)} labels ({', '.join(whole.labels)}), the most frequent {percent(whole.majority_share())}"
    )


def parse_settings(pairs: list[str]) -> Changes:
    """``key=value`` texts as settings. A value is read as JSON (number, list, true, "text"), else taken as text.

    Raises:
        InputError: a text without ``=`` or without a key.
    """
    found: Changes = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {pair!r} is not KEY=VALUE, as in --set rounds=20 or --set model.hidden=48")
        try:
            found[key.strip()] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found[key.strip()] = text.strip()
    return found


def read_config(file: Path | None) -> Changes:
    """Settings of a TOML or JSON file, its tables as dotted names.

    Raises:
        InputError: no such file, not TOML or JSON, or TOML on Python 3.10, which cannot read it.
    """
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix.lower() == ".json":
            tree = msgspec.json.decode(text, type=dict[str, Any])
        elif sys.version_info >= (3, 11):
            import tomllib

            tree = tomllib.loads(text)
        else:
            raise InputError(f"{file}: TOML is read by Python 3.11 and later; write it as {file.with_suffix('.json')}")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:  # both decoders' errors, and text that is not UTF-8
        raise InputError(f"{file} is not {file.suffix.lstrip('.').upper() or 'TOML'}: {error}") from None
    return _flat(tree)


def _flat(tree: Changes, prefix: str = "") -> Changes:
    found: Changes = {}
    for name, value in tree.items():
        found.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return found


def _located(source: str, data: Path) -> str:
    from edgeseq.data import locate

    return locate(source, data)


def _mapping(**columns: Any) -> Columns | None:
    given = {name: value for name, value in columns.items() if value is not None}
    if not given:
        return None
    from edgeseq.data import Mapping

    return Mapping(**given)
