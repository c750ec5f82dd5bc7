"""``edgeseq export`` and ``edgeseq verify``: the files, and the proof that they are the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeseq.cli.options import Overwrite, Trust
from edgeseq.cli.output import (
    Clock,
    Document,
    Failed,
    Json,
    Show,
    installed,
    listed,
    need,
    percent,
    typed,
)
from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import WEIGHTS_NAME, Folder, open_folder
from edgeseq.manifest import Link

CHAIN, DEVICE = "chain", "device"


def export(
    folder: Annotated[Path, typer.Argument(help="A model folder that edgeseq train wrote.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    to: Annotated[str, typer.Option(metavar="A,B", help="Formats: tflite, onnx.")] = "tflite,onnx",
    data: Annotated[
        str | None, typer.Option(help="Data for the proof (a path, NAME or NAME=PATH), if not the training's.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of the proof, at least 2000.")] = 2400,
    memory: Annotated[
        str,
        typer.Option(
            metavar="FORM", help="How a feed-forward LMU's memory is computed: auto (the cheaper), recurrence, taps."
        ),
    ] = "auto",
    overwrite: Overwrite = False,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Write TFLite and ONNX files, and prove that they are the model.

    Example: edgeseq export runs/gru --out runs/gru-export
    """
    show = Show(json)
    made, document = export_folder(
        show, folder, out, formats=listed(to), data=data, frames=frames, memory=memory, overwrite=overwrite, trust=trust
    )
    following = ("stream", made.path)
    show.next(*following)
    return {**document, "next": typed(*following)}


def export_folder(
    show: Show,
    source: Path,
    out: Path,
    *,
    formats: Sequence[str] = ("tflite", "onnx"),
    data: str | None = None,
    frames: int = 2400,
    memory: str = "auto",
    overwrite: bool = False,
    trust: bool = False,
    table: bool = True,
) -> tuple[Folder, Document]:
    """Export, showing the proof (not without ``table``); the folder, and the document of it."""
    need("export", "train", "torch", "onnx", "flatbuffers")
    from edgeseq.export.stage import export as export_stage

    clock = Clock()
    with show.notes.status("lowering and writing") as status:
        folder = export_stage(
            source,
            out,
            formats=formats,
            data=data,
            frames=frames,
            memory=memory,
            overwrite=overwrite,
            trust=trust,
            progress=lambda what, count: status.update(f"proving on {count:,} frames: {what}"),
        )
    if table:
        show_proof(show, folder.manifest.proof)
    if table:
        show.facts([(f"{name} memory", chosen.shown()) for name, chosen in folder.manifest.memories.items()])
    document = {
        **show.wrote_folder(folder, clock),
        "memories": folder.manifest.memories,
        "proof": folder.manifest.proof,
        "files": folder.manifest.files,
    }
    return folder, document


def verify(
    folder: Annotated[Path, typer.Argument(help="A model folder that edgeseq export wrote.")],
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only the device's part, in this engine; may be repeated.")
    ] = None,
    trust: Trust = False,
    json: Json = False,
) -> Document:
    """Prove again that every file computes what was trained.

    Example: edgeseq verify runs/gru-export
    """
    show = Show(json)
    _, document = verify_folder(show, folder, engines=engine, trust=trust)
    following = ("bench", folder)
    show.next(*following)
    return {**document, "next": typed(*following)}


def verify_folder(
    show: Show, path: Path, *, engines: Sequence[str] | None = None, trust: bool = False
) -> tuple[Folder, Document]:
    """Check every link that can be checked here, showing all of them.

    Raises:
        InputError: the whole chain needs code from outside edgeseq, which is not trusted.
        Failed: a link does not hold. What it carries is the GateFailed, and the document with every link.
    """
    from edgeseq.devices.check import check_folder, require, unchecked_files

    clock, folder = Clock(), open_folder(path)
    weights = WEIGHTS_NAME in folder.manifest.files
    whole = weights and not engines and installed("torch")
    if whole and not trust and ":" in folder.manifest.family:
        raise InputError(
            f"the model's family {folder.manifest.family!r} is code from outside edgeseq: pass --trust to import it "
            f"and prove the whole chain; python -m edgeseq.devices verify {folder.path} checks the device's "
            "half without it"
        )
    if whole:
        from edgeseq.export.stage import prove
        from edgeseq.models.store import load_model

        with show.notes.status("proving") as status:
            links = prove(
                folder,
                load_model(folder, trust=trust),
                progress=lambda what, count: status.update(f"proving on {count:,} frames: {what}"),
            )
        show.line(f"{folder.path}: the whole chain, from the trained model to the files")
    else:
        with show.notes.status("proving the device's part"):
            links = check_folder(folder, engines)
        missing = "asked for" if engines else "torch is not installed" if weights else f"it holds no {WEIGHTS_NAME}"
        show.line(f"{folder.path}: the device's part, from the golden frames to the files ({missing})")
    show_proof(show, links)
    unchecked = unchecked_files(folder, links)
    for file in unchecked:
        show.note(f"not checked: {file} (no engine that runs it was used)")
    document: Document = {
        "folder": str(folder.path),
        "hash": folder.hash,
        "part": CHAIN if whole else DEVICE,
        "passed": all(link.passed for link in links),
        "seconds": clock.seconds,
        "links": links,
        "unchecked": unchecked,
    }
    try:
        require(links)
    except GateFailed as error:
        raise Failed(error, document) from None
    show.line(f"all {len(links)} links hold ({clock.seconds:.1f} s)", "green")
    return folder, document


def show_proof(show: Show, links: Iterable[Link]) -> None:
    """The links of a proof as a table, and what was counted."""
    links = list(links)
    show.table(
        ["link", ">frames", ">error", ">allowed", ">same\nanswers", ">slope per\n1000 frames", ""],
        [
            [
                link.name,
                f"{link.frames:,}" if link.frames else "",
                *link.shown(),
                "" if link.agreement is None else percent(link.agreement, 2),
                "" if link.slope is None else f"{link.slope:+.1e}",
                "ok" if link.passed else "FAILED",
            ]
            for link in links
        ],
    )
    for link in links:
        if link.gate == "count" and link.note:
            show.text(f"{link.name}: {link.note}")
