"""``edgeseq doctor``: what works on this machine, and what is missing."""

from __future__ import annotations

import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgeseq.cli.output import Document, Json, Show, installed, typed
from edgeseq.errors import EdgeseqError, Unsupported

if TYPE_CHECKING:
    from edgeseq.devices.facts import Facts
    from edgeseq.folder import Folder

# Distribution, module, what needs it, the line that installs it.
PACKAGES = (
    ("numpy", "numpy", "everything", "edgeseq"),
    ("msgspec", "msgspec", "everything", "edgeseq"),
    ("safetensors", "safetensors", "everything", "edgeseq"),
    ("ai-edge-litert", "ai_edge_litert", "running TFLite files", "ai-edge-litert"),
    ("onnxruntime", "onnxruntime", "running ONNX files", "edgeseq[onnx]"),
    ("torch", "torch", "train, export", "edgeseq[train]"),
    ("onnx", "onnx", "export to ONNX", "edgeseq[train]"),
    ("flatbuffers", "flatbuffers", "export to TFLite", "edgeseq[train]"),
    ("pyarrow", "pyarrow", "Parquet files", "edgeseq[parquet]"),
)


def doctor(
    folder: Annotated[Path | None, typer.Argument(help="An exported folder to try the engines on.")] = None,
    json: Json = False,
) -> Document:
    """Say what works on this machine, and what is missing.

    Example: edgeseq doctor
    """
    from edgeseq.devices.facts import read_facts
    from edgeseq.folder import open_folder
    from edgeseq.program.graph import JSON_NAME

    show = Show(json)
    facts = read_facts()
    packages = {name: _installed_version(name, module) for name, module, _, _ in PACKAGES}
    _show_machine(show, facts)
    show.table(
        ["package", "version", "needed for", "if missing"],
        [
            [name, packages[name] or "-", purpose, "" if packages[name] else f"pip install '{install}'"]
            for name, _, purpose, install in PACKAGES
        ],
    )
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            engines = try_engines(_tiny_folder(Path(place) / "tiny"))
    else:
        opened = open_folder(folder)
        opened.file(JSON_NAME)  # says how to export where that was not done
        engines = try_engines(opened)
    show.table(
        ["engine", "works", "which"],
        [[name, "yes" if ok else "no", text] for name, (ok, text) in engines.items()],
    )
    working = [name for name, (ok, _) in engines.items() if ok]
    can_train = bool(packages["torch"])
    following = ("demo", "har") if can_train else ("models",)
    if not working:  # never so without a folder: numpy runs the small one
        raise Unsupported(f"no engine runs {folder}: the table says why")
    show.line(
        f"This machine can {'train, export and ' if can_train else ''}run models; in {', '.join(working)}.", "green"
    )
    show.next(*following)
    return {
        "python": platform.python_version(),
        "facts": msgspec.to_builtins(facts) | {"provenance": facts.provenance},
        "packages": packages,
        "engines": {name: {"works": ok, "which": text} for name, (ok, text) in engines.items()},
        "can_train": can_train,
        "next": typed(*following),
    }


def try_engines(folder: Folder) -> dict[str, tuple[bool, str]]:
    """Open and step every engine: importing a runtime does not prove that it works. Works, and which or why not."""
    import numpy as np

    from edgeseq.devices.engines import ENGINES, open_engine
    from edgeseq.devices.engines.base import input_width

    found = {}
    for name, kind in ENGINES.items():
        if kind.file not in folder.manifest.files:
            found[name] = False, f"not tried: there is no {kind.file} to try it on; edgeseq doctor FOLDER tries yours"
            continue
        try:
            engine = open_engine(folder, name)
            engine.step(np.zeros(input_width(folder.manifest), np.float32))
            found[name] = True, f"{engine.facts['runtime']} {engine.facts['version']}"
        except EdgeseqError as error:
            found[name] = False, str(error)
    return found


def _tiny_folder(out: Path) -> Folder:
    """A folder with a three-node model, in every format that can be written here."""
    import numpy as np

    from edgeseq.folder import MODEL_FILES, new_folder, open_folder, seal
    from edgeseq.manifest import Channel, Input, Manifest, Normalization, state_table
    from edgeseq.program import Builder, Value

    builder = Builder(Value("x", (1, 2)), [Value("memory", (1, 2))])
    kept = builder.add("mul", "memory", builder.constant("decay", np.array([0.5], np.float32)))
    memory = builder.add("add", kept, "x")
    y = builder.add("linear", memory, builder.constant("weight", np.eye(2, dtype=np.float32)))
    program = builder.finish(y, {"memory": memory})
    manifest = Manifest(
        name="tiny",
        family="none",
        arguments={},
        task="frame",
        labels=("a", "b"),
        input=Input((Channel("a", ""), Channel("b", "")), 50.0, Normalization((0.0, 0.0), (1.0, 1.0))),
        states=state_table([("memory", (1, 2), 0.0)]),
    )
    with new_folder(out) as staging:
        program.write(staging)
        if installed("flatbuffers") and installed("ai_edge_litert"):
            from edgeseq.export.tflite_writer import write_tflite

            write_tflite(program, staging / MODEL_FILES["tflite"], name="tiny")
        if installed("onnx"):
            from edgeseq.export.onnx_writer import write_onnx

            write_onnx(program, staging / MODEL_FILES["onnx"], name="tiny")
        seal(staging, manifest)
    return open_folder(out)


def _installed_version(name: str, module: str) -> str | None:
    if not installed(module):
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _show_machine(show: Show, facts: Facts) -> None:
    rows = [
        ("python", facts.python),
        ("machine", f"{facts.model or 'unknown'} ({facts.machine}), {facts.cores or 'unknown'} cores"),
        ("system", f"{facts.os}, kernel {facts.kernel}"),
        ("clock", f"{facts.clock_mhz:.0f} MHz" if facts.clock_mhz else "not readable"),
        ("governor", facts.governor or "not readable"),
        ("temperature", f"{facts.temperature_c:.0f} °C" if facts.temperature_c is not None else "not readable"),
        ("numbers", f"measured here are called: {facts.provenance}"),
    ]
    show.facts(rows)
    show.line()
