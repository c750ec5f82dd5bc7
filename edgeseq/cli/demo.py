"""``edgeseq demo``: the whole way once, with the code of the verbs.

A teacher, a small student, the same student distilled from the teacher, and the plain student in int8: distillation was
not shown to help it (``benchmarks/compression.py``), so it is shown beside the default and is not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgeseq.cli.bench import TIMES, bench_folders, bench_rows, findings, show_machine, times
from edgeseq.cli.distill import distill_folder
from edgeseq.cli.export import export_folder, verify_folder
from edgeseq.cli.live import PORT, Asked, Page, live
from edgeseq.cli.output import Clock, Document, Json, Show, counted, kilobytes, need, not_negative, typed
from edgeseq.cli.quantize import quantize_folder
from edgeseq.cli.report import make_report, write_report
from edgeseq.cli.stream import choose_recording, play
from edgeseq.cli.train import train_folder
from edgeseq.errors import InputError, unknown
from edgeseq.folder import MODEL_FILES, Folder, open_folder

if TYPE_CHECKING:
    from edgeseq.data import Dataset

DEMOS = {"har": "spar_watch", "watch": "spar_watch"}
SHIPPED = ("har_watch", "har_watch_fp32")  # what answers the watch, in the order of the page's switch
TEACHER, STUDENT = "teacher", "lmu"  # presets
STAGES = ("Data", "Teacher", "Students", "Int8", "Export", "Verify", "Stream", "Bench", "Report")
DISTILLED = (
    "Over all five pairs and three seeds the distilled student is 0.97 ± 3.83 points better (95 % interval over the "
    "pairs), which is not to say that it is better: the plain one is made int8."
)
PAIRS = "That is one pair of five: the accuracy table of the README has them all."
MARK = "made-by-the-demo.txt"
SPEED = 3.0  # a recording of 35 s in 12
QUICK = {"rounds": 2, "steps": 3, "batch": 8, "crop": 2.0}
Make = Callable[[], tuple[Folder, Document]]


def demo(
    name: Annotated[
        str, typer.Argument(help="Which: har (the whole way, from training on), watch (a page that answers a watch).")
    ] = "har",
    out: Annotated[
        Path | None,
        typer.Option(help="Where the model folders and the report go; demo, or demo-quick, if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.", callback=counted)] = 0,
    speed: Annotated[
        float | None,
        typer.Option(
            help="Of the stream, times the sensor's rate (3; the watch's 1); 0: no wait.", callback=not_negative
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the watch's page; 0 takes a free one.")] = PORT,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps of training, of no use.")] = False,
    json: Json = False,
) -> Document:
    """The whole way once, with a smartwatch's data: a few minutes. Or a watch that is replayed, on a page.

    Example: edgeseq demo har

    Example: edgeseq demo watch
    """
    if name not in DEMOS:
        raise unknown("demo", name, DEMOS)
    if name == "watch":
        asked = Asked([f"replay:{DEMOS[name]}"], 1.0 if speed is None else speed, page=Page("127.0.0.1", port, None))
        return live(Show(json), list(map(Path, SHIPPED)), asked)
    from edgeseq.data import load

    need("the demo", "train", "torch", "brevitas", "onnx", "flatbuffers", "jinja2", "matplotlib")
    show, clock = Show(json), Clock()
    changes = dict(QUICK) if quick else {}

    out = _place(out or Path("demo-quick" if quick else "demo"))
    _stage(show, 1)
    data = load(DEMOS[name])
    _show_data(show, data)
    small = _models(show, data, out, seed, changes)
    _stage(show, 5)
    exported = [_exported(show, folder, out / f"{folder.path.name}-export") for folder in small]
    _stage(show, 6)
    proofs = [verify_folder(show, folder.path)[1]["links"] for folder in exported]
    _stage(show, 7)
    streamed = _stream(show, exported[-1], 0.0 if quick else SPEED if speed is None else speed)
    _stage(show, 8)
    seconds, paced = (0.1, 0.2) if quick else (2.0, 6.0)
    reports = bench_folders(show, exported, seconds=seconds, paced_seconds=paced, wait=True)
    rows = bench_rows(show, exported, reports)
    show_machine(show, reports[0])
    _show_result(show, rows)
    _stage(show, 9)
    report = out / "report"
    report.mkdir(parents=True, exist_ok=True)
    written = write_report(show, make_report(show, exported, reports, baseline=not quick), report, Clock())

    show.line(f"done in {clock.seconds:.0f} s; the folders and the report are in {out}", "green")
    show.line(f"look at {report / 'report.html'}", "bold")
    watched = [exported[-1].path, *(folder.path for folder in exported[:-1])]
    following: tuple[str | Path, ...] = ("stream", *watched, "--source", f"replay:{DEMOS[name]}", "--page")
    show.line("on a page, answering a watch as it comes:")
    show.next(*following)
    return {
        "seconds": clock.seconds,
        "seed": seed,
        "models": [_summary(*pair) for pair in zip(exported, proofs, strict=True)],
        "stream": streamed,
        "machine": reports[0].facts,
        "provenance": reports[0].provenance,
        "bench": rows,
        "report": written,
        "next": typed(*following),
    }


def _place(out: Path) -> Path:
    """The folder for all that the demo makes, which its next run may replace.

    Raises:
        InputError: it holds what no demo has made, or cannot be made.
    """
    mark = out / MARK
    try:
        if out.is_dir() and any(out.iterdir()) and not mark.exists():
            raise InputError(f"{out} holds what no demo has made, and the demo replaces things: name another --out")
        out.mkdir(parents=True, exist_ok=True)
        mark.write_text("Made by edgeseq demo. Its next run here replaces whatever was made with other settings.\n")
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from None
    return out


def _stage(show: Show, number: int) -> None:
    show.line()
    show.line(f"{number}/{len(STAGES)} {STAGES[number - 1]}", "bold cyan")


def _show_data(show: Show, data: Dataset) -> None:
    show.text(
        f"{data.name}: {len(data.subjects)} subjects, {len(data.recordings)} recordings, {60 * data.hours:.0f} minutes "
        f"of {', '.join(data.channels)} at {data.rate:g} Hz; {len(data.labels)} labels: {', '.join(data.labels)}"
    )


def _models(show: Show, data: Dataset, out: Path, seed: int, changes: dict[str, Any]) -> list[Folder]:
    """What is exported: the plain student, the one that learned from a teacher, and the plain one in int8."""
    from edgeseq.quant.quantize_stage import TUNING

    options: dict[str, Any] = {"seed": seed, "changes": changes, "overwrite": True}

    def trained(name: str, preset: str) -> Folder:
        place = out / name
        asked = _asked("train", data, preset, seed, changes)
        return _made(show, place, asked, lambda: train_folder(show, data.name, place, preset=preset, **options))

    _stage(show, 2)
    teacher = trained("teacher", TEACHER)
    _stage(show, 3)
    student = trained("student", STUDENT)
    place = out / "student-distilled"
    asked = _asked("distill", data, STUDENT, seed, changes, teachers=[teacher.hash])
    distilled = _made(
        show, place, asked, lambda: distill_folder(show, [teacher.path], place, preset=STUDENT, **options)
    )
    show.text(DISTILLED)
    _stage(show, 4)
    small = out / "student-int8"
    asked = _asked("quantize", data, STUDENT, seed, {**TUNING, **changes}, parent=student.hash)
    int8 = _made(show, small, asked, lambda: quantize_folder(show, student.path, small, **options))
    return [student, distilled, int8]


def _asked(
    verb: str,
    data: Dataset,
    preset: str,
    seed: int,
    changes: dict[str, Any],
    *,
    teachers: Sequence[str] = (),
    parent: str | None = None,
) -> Document:
    """What must be true of a folder that is there already, for it to be kept."""
    from edgeseq.models.registry import presets
    from edgeseq.training.configure import configure

    _, arguments, settings = configure(presets()[preset], data, changes)
    return {
        "verb": verb,
        "seed": seed,
        "data": data.fingerprint(),
        "arguments": arguments,
        "settings": msgspec.to_builtins(settings),
        "teachers": list(teachers),
        "parent": parent,
    }


def _made(show: Show, out: Path, asked: Document, make: Make) -> Folder:
    """The folder that is there, if it is what was asked for, or a new one."""
    found = _opened(out)
    if found is not None and _said(found) == asked:
        show.line(f"{out} is there already, made with these settings: kept")
        return found
    return make()[0]


def _said(folder: Folder) -> Document:
    stage = folder.manifest.lineage[-1]
    return {
        "verb": stage.verb,
        "seed": stage.seed,
        "data": stage.data_fingerprint,
        "arguments": folder.manifest.arguments,
        "settings": stage.arguments.get("settings"),
        "teachers": [teacher["hash"] for teacher in stage.arguments.get("teachers", ())],
        "parent": stage.parent,
    }


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
        ["model", "engine", ">accuracy\n%", ">file", *TIMES],
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
