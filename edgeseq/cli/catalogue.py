"""``edgeseq models`` and ``datasets``: what there is to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgeseq.cli.output import Document, Json, Show, installed, kilobytes, percent, typed
from edgeseq.folder import MODEL_FILES, open_folder, pretrained

if TYPE_CHECKING:
    from edgeseq.data.facts import Known

SHOWN_INPUTS, SHOWN_LABELS = 6, 7  # a watch's six channels and spar_watch's seven exercises


def models(json: Json = False) -> Document:
    """List the trained models that come with edgeseq, and the presets and families that can be trained.

    Example: edgeseq models
    """
    from edgeseq.models.registry import FAMILIES, families, presets

    show = Show(json)
    ready = [open_folder(name) for name in pretrained()]
    show.table(
        ["pretrained", "family", "precision", ">test\naccuracy", ">file", "answers"],
        [
            [
                folder.manifest.name,
                folder.manifest.family,
                folder.manifest.precision.weights,
                percent(folder.manifest.metrics.get("test_accuracy")),
                kilobytes(folder.file(MODEL_FILES["tflite"]).stat().st_size),
                ", ".join(folder.manifest.labels),
            ]
            for folder in ready
        ],
        title="edgeseq stream MODEL",
    )
    known, sizes = presets(), _parameters()
    show.table(
        ["preset", "family", ">parameters", "what it is"],
        [
            [name, preset.family, f"{sizes[name]:,}" if name in sizes else "-", preset.summary]
            for name, preset in known.items()
        ],
        title="edgeseq train DATA --model PRESET",
    )
    counted = f"Parameters for {SHOWN_INPUTS} channels and {SHOWN_LABELS} labels"
    show.text(f"{counted}." if sizes else f"{counted} are counted where torch is installed.")
    show.line()
    found = families()
    show.table(
        ["family", "class", "from"],
        [[name, target, "edgeseq" if name in FAMILIES else "an entry point"] for name, target in found.items()],
    )
    return {
        "pretrained": [
            {"name": folder.manifest.name, "family": folder.manifest.family, "metrics": folder.manifest.metrics}
            for folder in ready
        ],
        "presets": [
            {
                "name": name,
                "family": preset.family,
                "summary": preset.summary,
                "arguments": preset.arguments,
                "parameters": sizes.get(name),
            }
            for name, preset in known.items()
        ],
        "families": [{"name": name, "class": target, "built_in": name in FAMILIES} for name, target in found.items()],
    }


def _parameters() -> dict[str, int]:
    """The size of each preset at a watch's channels and labels; empty without torch."""
    if not installed("torch"):
        return {}
    from edgeseq.models.contract import parameter_count
    from edgeseq.models.registry import build, presets

    return {
        name: parameter_count(build(preset.family, SHOWN_INPUTS, SHOWN_LABELS, preset.arguments))
        for name, preset in presets().items()
    }


def datasets(
    name: Annotated[str | None, typer.Argument(help="One of them, to show all that is known of it.")] = None,
    json: Json = False,
) -> Document:
    """List the data sets that edgeseq knows by name; or show one of them, with its licence and its citation.

    Example: edgeseq datasets fsdd
    """
    from edgeseq.data import datasets as known_sets
    from edgeseq.data import registered

    show = Show(json)
    found = [registered(name).facts] if name else list(known_sets())
    if name:
        show.facts(_details(registered(name)))
        show.line()
    else:
        show.table(
            ["data set", "ships", ">people", ">minutes", "task", "what it is"],
            [
                [f.name, "yes" if f.shipped else "no", str(f.subjects or "-"), f"{f.minutes:g}", f.task, f.summary]
                for f in found
            ],
        )
        show.text("Of one, its licence and citation: edgeseq datasets NAME")
        show.text(f"What does not ship is read from disk: train NAME --data PATH, or {_place()}=FOLDER holds them all.")
        show.text("Your own: the path of an .npz, of a CSV or Parquet file, or of a folder of them; see train -h.")
    shown = found[0]
    place = () if shown.shipped else ("--data", "PATH")
    following = ("train", shown.name, *place, "--model", "gru", "--out", "runs/gru")
    show.next(*following)
    return {"datasets": found, "next": typed(*following)}


def _place() -> str:
    from edgeseq.data.registry import PLACE

    return PLACE


def _details(known: Known) -> list[tuple[str, str]]:
    facts = known.facts
    people = f"{facts.subjects} subjects" if facts.subjects else "subjects unknown"
    files = " or ".join(f"{known.folder or facts.name}/{form}" for form in known.forms)
    missing = f"no; with its files: edgeseq train {facts.name} --data PATH, elsewhere --data {facts.name}=PATH"
    return [
        (facts.name, facts.summary),
        ("shipped", "yes" if facts.shipped else missing),
        *([] if facts.shipped else [("files", f"under the folder that {_place()} names: {files}")]),
        ("task", "frame: a label at every frame" if facts.task == "frame" else "segment: one label a recording"),
        ("size", f"{people}, {facts.recordings} recordings, {facts.minutes:g} minutes"),
        *([("part", f"numbers here and in the docs are of {facts.part}")] if facts.part else []),
        ("frames", f"{facts.frames:,} at {facts.rate:g} Hz: {', '.join(facts.channels)}"),
        ("labels", ", ".join(facts.labels)),
        ("licence", facts.licence),
        ("citation", facts.citation),
        ("origin", facts.origin),
    ]
