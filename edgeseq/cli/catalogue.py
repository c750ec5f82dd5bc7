"""``edgeseq models`` and ``datasets``: what there is to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseq.cli.output import Document, Json, Show, installed, kilobytes, percent, typed
from edgeseq.folder import MODEL_FILES, open_folder, pretrained

if TYPE_CHECKING:
    from edgeseq.data import Facts

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


def _subjects(number: int) -> str:
    return f"{number} subjects" if number else "subjects unknown"


def _shipped(facts: Facts) -> str:
    return "yes" if facts.shipped else f"no; with its files: edgeseq train {facts.name} --data PATH"


def _task(facts: Facts) -> str:
    return "frame: a label at every frame" if facts.task == "frame" else "segment: one label a recording"


def datasets(json: Json = False) -> Document:
    """List the data sets that edgeseq knows by name.

    Example: edgeseq datasets
    """
    from edgeseq.data import datasets as registered

    show = Show(json)
    width = max(len(facts.name) for facts in registered())
    for facts in registered():
        show.facts(
            [
                (facts.name.ljust(width), facts.summary),
                ("shipped", _shipped(facts)),
                ("task", _task(facts)),
                ("size", f"{_subjects(facts.subjects)}, {facts.recordings} recordings, {facts.minutes:g} minutes"),
                ("frames", f"{facts.frames:,} at {facts.rate:g} Hz: {', '.join(facts.channels)}"),
                ("labels", ", ".join(facts.labels)),
                ("licence", facts.licence),
                ("citation", facts.citation),
                ("origin", facts.origin),
            ]
        )
        show.line()
    show.text("Your own: the path of an .npz, of a CSV or Parquet file, or of a folder of them; see edgeseq train -h.")
    following = ("train", registered()[0].name, "--model", "gru", "--out", "runs/gru")
    show.next(*following)
    return {"datasets": registered(), "next": typed(*following)}
