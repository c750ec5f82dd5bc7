"""``edgeseq doctor``: what works on this machine, and what is missing."""

from __future__ import annotations

import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgeseq.cli.output import Document, Json, Show, installed, typed
from edgeseq.errors import Unsupported

if TYPE_CHECKING:
    from edgeseq.devices.engines.choice import Choice
    from edgeseq.devices.engines.prove import Proven
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
GOLDEN = 20  # frames of the small model


def doctor(
    folder: Annotated[Path | None, typer.Argument(help="An exported folder to try the engines on.")] = None,
    json: Json = False,
) -> Document:
    """Say what works on this machine, and what is missing.

    Example: edgeseq doctor
    """
    from edgeseq.devices.board.words import lines
    from edgeseq.devices.engines import candidates
    from edgeseq.devices.engines.choice import remember
    from edgeseq.devices.facts import read_facts
    from edgeseq.folder import open_folder
    from edgeseq.program.graph import JSON_NAME

    show = Show(json)
    facts = read_facts()
    packages = {name: _installed_version(name, module) for name, module, _, _ in PACKAGES}
    show.facts(lines(facts))
    show.line()
    show.table(
        ["package", "version", "needed for", "if missing"],
        [
            [name, packages[name] or "-", purpose, "" if packages[name] else f"pip install '{install}'"]
            for name, _, purpose, install in PACKAGES
        ],
    )
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            engines, choice = _try_engines(show, _tiny_folder(Path(place) / "tiny"), facts)
    else:
        opened = open_folder(folder)
        opened.file(JSON_NAME)  # says how to export where that was not done
        engines, choice = _try_engines(show, opened, facts)
        remember(opened, choice, [found for name, found in engines.items() if name not in candidates(opened)])
    can_train = bool(packages["torch"])
    following = ("demo", "har") if can_train else ("models",)
    working = [name for name, found in engines.items() if found.works]
    show.line(
        f"This machine can {'train, export and ' if can_train else ''}run models; in {', '.join(working)}.", "green"
    )
    taken = _taken(folder, choice)
    show.text(f"{taken['engine']} runs {folder or 'a model'}: {taken['why']}.")
    show.next(*following)
    return {
        "python": platform.python_version(),
        "facts": msgspec.to_builtins(facts) | {"provenance": facts.provenance},
        "packages": packages,
        "engines": {
            name: {"works": found.works, "which": _which(found), "p50_us": found.p50_us}
            for name, found in engines.items()
        },
        **taken,
        "can_train": can_train,
        "next": typed(*following),
    }


def _try_engines(show: Show, folder: Folder, facts: Facts) -> tuple[dict[str, Proven], Choice]:
    """Show what came of every engine, each tried in a process of its own, and which one is chosen.

    Raises:
        Unsupported: none works, or no process can be started.
        InputError, GateFailed: a file of the folder is damaged, or is not the manifest's model.
    """
    from edgeseq.devices.engines import ENGINES, candidates
    from edgeseq.devices.engines.choice import pick
    from edgeseq.devices.facts import EMULATED

    timed = facts.provenance != EMULATED
    try:
        engines = {name: _try(folder, name, timed, facts) for name in ENGINES}
        if not any(found.works for found in engines.values()):  # never so without a folder: numpy runs the small one
            _show_engines(show, engines)
            raise Unsupported(f"no engine runs {folder.path}: the table says why")
        choice = pick(folder, [engines[name] for name in candidates(folder)], timed=timed)
    except OSError as error:
        raise Unsupported(f"engines are tried each in a process, and none can be started here: {error}") from error
    engines |= {found.engine: found for found in choice.proven}
    _show_engines(show, engines)
    return engines, choice


def _try(folder: Folder, name: str, timed: bool, facts: Facts) -> Proven:
    from edgeseq.devices.engines import ENGINES
    from edgeseq.devices.engines.prove import Proven, prove

    file = ENGINES[name].file
    if file in folder.manifest.files:
        return prove(folder, name, timed=timed, facts=facts)
    return Proven(name, False, f"not tried: there is no {file} to try it on; edgeseq doctor FOLDER tries yours")


def _show_engines(show: Show, engines: dict[str, Proven]) -> None:
    rows = []
    for name, found in engines.items():
        step = "-" if found.p50_us is None else f"{found.p50_us:.1f}"
        rows.append([name, "yes" if found.works else "no", step, _which(found)])
    show.table(["engine", "works", ">us a step", "which, or why not"], rows)


def _which(found: Proven) -> str:
    return found.runtime if found.works else found.reason


def _taken(folder: Path | None, choice: Choice) -> dict[str, str]:
    """The engine that is taken where none is named, and why."""
    from edgeseq.devices.engines.choice import FORCED

    forced = os.environ.get(FORCED)
    if forced:
        return {"engine": forced, "why": f"{FORCED} says so"}
    why = "the fastest here" if choice.measured else "the first that works, for an emulated machine is not timed"
    mend = "" if folder else "; which one is best for yours, edgeseq doctor FOLDER says"
    return {"engine": choice.engine, "why": why + mend}


def _tiny_folder(out: Path) -> Folder:
    """A folder with a three-node model and golden frames of it, in every format that can be written here."""
    import numpy as np

    from edgeseq.folder import GOLDEN_NAME, MODEL_FILES, new_folder, open_folder, seal
    from edgeseq.manifest import Channel, Input, Manifest, Normalization, state_table
    from edgeseq.program import Builder, Value, interpret

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
        x = np.random.default_rng(0).normal(size=(GOLDEN, 1, 2)).astype(np.float32)
        step, states, answers = interpret(program), {"memory": np.zeros((1, 2), np.float32)}, []
        for frame in x:
            answer, states = step(frame, states)
            answers.append(answer)
        np.savez(staging / GOLDEN_NAME, x=x[:, 0], y=np.concatenate(answers), state=states["memory"][0])
        if installed("flatbuffers") and installed("ai_edge_litert"):
            from edgeseq.export.tflite_writer import write_tflite

            write_tflite(program, staging / MODEL_FILES["tflite"], name="tiny")
        if installed("onnx"):
            from edgeseq.export.onnx_writer import write_onnx

            write_onnx(program, staging / MODEL_FILES["onnx"], name="tiny")
        seal(staging, manifest)
    return open_folder(out)


def _installed_version(name: str, module: str) -> str | None:
    from edgeseq.devices.engines import ENGINES
    from edgeseq.devices.engines.prove import is_installed

    runtime = any(kind.package == name for kind in ENGINES.values())  # to import one may be deadly: it is tried below
    if not (is_installed(name) if runtime else installed(module)):
        return None
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
