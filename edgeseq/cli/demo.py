"""``edgeseq demo``: the whole way once, with the code of the verbs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgeseq.cli.bench import TIMES, bench_folders, bench_rows, findings, show_machine, times
from edgeseq.cli.export import export_folder, verify_folder
from edgeseq.cli.output import Clock, Document, Json, Show, counted, kilobytes, need, not_negative, typed
from edgeseq.cli.stream import choose_recording, play
from edgeseq.cli.train import train_folder
from edgeseq.errors import InputError, unknown
from edgeseq.folder import MODEL_FILES, Folder, open_folder

DEMOS = {"har": "spar_watch"}
PRESETS = ("lmu", "gru")
STAGES = ("Data", "Train", "Export", "Verify", "Stream", "Bench")
PAIRS = "That is one pair of five: the accuracy table of the README has them all."
SPEED = 3.0  # a recording of 35 s in 12
QUICK = {"rounds": 2, "steps": 3, "batch": 8, "crop": 2.0}


def demo(
    name: Annotated[str, typer.Argument(help="Which: har (exercises from a smartwatch).")] = "har",
    out: Annotated[Path, typer.Option(help="Where the model folders go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the training.", callback=counted)] = 0,
    speed: Annotated[
        float, typer.Option(help="Of the stream, times the sensor's rate; 0 does not wait.", callback=not_negative)
    ] = SPEED,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps of training, of no use.")] = False,
    json: Json = False,
) -> Document:
    """The whole way once, with a smartwatch's data: a few minutes.

    Example: edgeseq demo har
    """
    if name not in DEMOS:
        raise unknown("demo", name, DEMOS)
    need("the demo", "train", "torch", "onnx", "flatbuffers")
    show, clock = Show(json), Clock()
    source, changes = DEMOS[name], dict(QUICK) if quick else {}

    _stage(show, 1)
    fingerprint = _show_data(show, source)
    _stage(show, 2)
    trained = [_trained(show, source, out / preset, preset, seed, changes, fingerprint) for preset in PRESETS]
    _stage(show, 3)
    exported = [_exported(show, folder, out / f"{folder.path.name}-export") for folder in trained]
    _stage(show, 4)
    proofs = [verify_folder(show, folder.path)[1]["links"] for folder in exported]
    _stage(show, 5)
    streamed = _stream(show, exported[0], 0.0 if quick else speed)
    _stage(show, 6)
    seconds, paced = (0.1, 0.2) if quick else (2.0, 8.0)
    reports = bench_folders(show, exported, seconds=seconds, paced_seconds=paced)
    rows = bench_rows(show, exported, reports)

    show.line()
    show_machine(show, reports[0])
    _show_result(show, rows)
    show.line(f"done in {clock.seconds:.0f} s; the folders are in {out}", "green")
    following = ("inspect", exported[0].path)
    show.next(*following)
    return {
        "seconds": clock.seconds,
        "seed": seed,
        "models": [_summary(*pair) for pair in zip(exported, proofs, strict=True)],
        "stream": streamed,
        "machine": reports[0].facts,
        "provenance": reports[0].provenance,
        "bench": rows,
        "next": typed(*following),
    }


def _stage(show: Show, number: int) -> None:
    show.line()
    show.line(f"{number}/{len(STAGES)} {STAGES[number - 1]}", "bold cyan")


def _show_data(show: Show, source: str) -> str:
    """What the data is; its fingerprint."""
    from edgeseq.data import load

    data = load(source)
    show.text(
        f"{data.name}: {len(data.subjects)} subjects, {len(data.recordings)} recordings, {60 * data.hours:.0f} minutes "
        f"of {', '.join(data.channels)} at {data.rate:g} Hz; {len(data.labels)} labels: {', '.join(data.labels)}"
    )
    return data.fingerprint()


def _trained(
    show: Show, source: str, out: Path, preset: str, seed: int, changes: dict[str, Any], fingerprint: str
) -> Folder:
    """The folder of a preset: the one that is there, if it was made with the same settings, or a new one."""
    found = _opened(out)
    if found is not None and _is_asked_for(found, source, preset, seed, changes, fingerprint):
        show.line(f"{out} is there already, trained with these settings: kept")
        return found
    return train_folder(show, source, out, preset=preset, seed=seed, changes=changes, overwrite=True)[0]


def _is_asked_for(
    folder: Folder, source: str, preset: str, seed: int, changes: dict[str, Any], fingerprint: str
) -> bool:
    from edgeseq.data import load
    from edgeseq.models.registry import presets
    from edgeseq.training.stage import configure

    family, arguments, settings = configure(presets()[preset], load(source), changes)
    stage, manifest = folder.manifest.lineage[-1], folder.manifest
    made = (stage.verb, stage.seed, stage.data_fingerprint, stage.arguments.get("settings"))
    asked = ("train", seed, fingerprint, msgspec.to_builtins(settings))
    return made == asked and (manifest.family, manifest.arguments) == (family, arguments)


def _exported(show: Show, trained: Folder, out: Path) -> Folder:
    found = _opened(out)
    if found is not None and found.manifest.lineage[-1].parent == trained.hash and set(found.formats) == {*MODEL_FILES}:
        show.line(f"{out} is there already, made from {trained.path}: kept")
        return found
    return export_folder(show, trained.path, out, overwrite=True, table=False)[0]


def _opened(path: Path) -> Folder | None:
    """The folder, if it is there and whole."""
    try:
        return open_folder(path)
    except InputError:
        return None


def _stream(show: Show, folder: Folder, speed: float) -> Document:
    from edgeseq.devices.session import Session

    return play(show, Session(folder), choose_recording(folder), speed)


def _show_result(show: Show, rows: Sequence[Document]) -> None:
    from edgeseq.cli.accuracy import accuracy_cell, accuracy_notes

    show.table(
        ["family", "engine", ">accuracy\n%", ">file", *TIMES],
        [
            [
                row["name"].removesuffix("-export"),
                row["engine"],
                accuracy_cell(row),
                kilobytes(row["file_bytes"]),
                *times(row),
            ]
            for row in rows
        ],
    )
    for sentence in (*accuracy_notes(rows), PAIRS, *findings(rows)):
        show.text(sentence)


def _summary(folder: Folder, proof: Any) -> Document:
    from edgeseq.program.graph import JSON_NAME

    names = (JSON_NAME, *MODEL_FILES.values())
    return {
        "name": folder.manifest.name,
        "family": folder.manifest.family,
        "folder": str(folder.path),
        "metrics": folder.manifest.metrics,
        "sha256": {name: folder.manifest.files[name] for name in names},
        "proof": proof,
    }
