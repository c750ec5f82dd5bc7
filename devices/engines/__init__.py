"""The engines: one table, and how a folder's engine is opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edgeseq.devices.engines.base import Engine, MissingRuntime, NoRuntime
from edgeseq.errors import MissingDependency, Unsupported, unknown
from edgeseq.folder import MODEL_FILES, Folder, open_folder
from edgeseq.program.graph import JSON_NAME

__all__ = [
    "ENGINES",
    "Engine",
    "EngineKind",
    "MissingRuntime",
    "as_folder",
    "available",
    "open_all",
    "open_engine",
    "open_here",
]


@dataclass(frozen=True)
class EngineKind:
    """One line of the table: the file it runs, its runtime's package, where it is opened, the line that installs it.

    Among the ``automatic`` ones is chosen when no engine is named (:mod:`~.engines.choice`); the table's order is that
    in which they are tried. ``exact`` ones round int8 layers as the step program does, bit for bit; the others by a
    fixed-point multiplier of their own.
    """

    file: str
    package: str
    module: str
    opener: str
    install: str
    automatic: bool = True
    exact: bool = True


_HERE = "edgeseq.devices.engines"
_TFLITE, _ONNX = MODEL_FILES["tflite"], MODEL_FILES["onnx"]
_LITERT, _ORT, _LEGACY = "ai-edge-litert", "onnxruntime", "tflite-runtime"
_NEW, _OLD = f"pip install {_LITERT}", "pip install 'edgeseq[legacy-tflite]'"

ENGINES: dict[str, EngineKind] = {
    "litert": EngineKind(_TFLITE, _LITERT, f"{_HERE}.litert", "open_litert", _NEW),
    "litert-builtin": EngineKind(
        _TFLITE, _LITERT, f"{_HERE}.litert", "open_litert_builtin", _NEW, automatic=False, exact=False
    ),
    "onnxruntime": EngineKind(_ONNX, _ORT, f"{_HERE}.ort", "open_onnxruntime", "pip install 'edgeseq[onnx]'"),
    "tflite-runtime": EngineKind(_TFLITE, _LEGACY, f"{_HERE}.litert", "open_tflite_runtime", _OLD, exact=False),
    "numpy": EngineKind(JSON_NAME, "numpy", f"{_HERE}.numpy_engine", "open_numpy", "pip install edgeseq"),
}


def as_folder(folder: str | Path | Folder) -> Folder:
    """An opened folder as it is; a path opened, with every file's hash checked."""
    return folder if isinstance(folder, Folder) else open_folder(folder)


def open_engine(folder: str | Path | Folder, name: str | None = None) -> Engine:
    """The engine of that name; without one that which EDGESEQ_ENGINE names, or which was chosen for this folder here.

    No runtime is loaded here that was never tried on this machine: that is done in a process of its own first, which it
    may take down with it. The choice is made by measuring. Both take a second or more once, and are remembered
    (:mod:`~.engines.choice`).

    Raises:
        InputError: no such engine, the folder is not exported, or its file cannot be read.
        MissingDependency: the named engine's runtime is not installed or does not work here, or crashed where it was
            tried; or none works.
        Unsupported: the folder lacks the file that the named engine runs, or the engine cannot run it, or not rightly.
        GateFailed: the file is not the manifest's model.
    """
    folder = as_folder(folder)
    from edgeseq.devices.engines.choice import deadly, open_chosen  # here: it imports this module

    if name is None:
        return open_chosen(folder)
    _kind(folder, name)
    refused = deadly(folder, [name])
    if refused:
        raise NoRuntime(f"opening {folder.path} with engine {name}", refused.values())
    return open_here(folder, name)


def available(folder: str | Path | Folder) -> tuple[str, ...]:
    """The automatic engines that open this folder here, in their order.

    An engine counts when it constructs: an importable runtime may still not work.

    Raises:
        InputError, GateFailed: a file cannot be read, or is not what the manifest says.
    """
    return tuple(engine.name for engine in open_all(folder)[0])


def open_all(folder: str | Path | Folder) -> tuple[list[Engine], dict[str, str]]:
    """The engines that :func:`available` names, opened; and why each of the other automatic ones did not open.

    Each is tried first where it must be, as by :func:`open_engine`.
    """
    from edgeseq.devices.engines.choice import deadly  # here: it imports this module

    folder = as_folder(folder)
    found: list[Engine] = []
    names = candidates(folder)
    refused = deadly(folder, names)
    for name in names:
        if name in refused:
            continue
        try:
            found.append(open_here(folder, name))
        except (MissingDependency, Unsupported) as error:
            refused[name] = str(error)
    return found, refused


def candidates(folder: Folder) -> list[str]:
    """The automatic engines that the folder has a file for, in the table's order."""
    return [name for name, kind in ENGINES.items() if kind.automatic and kind.file in folder.manifest.files]


def open_here(folder: Folder, name: str) -> Engine:
    """The engine of that name, untried: this process dies where its runtime does.

    Raises:
        EdgeseqError: as :func:`open_engine` does.
    """
    kind = _kind(folder, name)
    if not kind.exact:
        _refuse_rounded_neurons(folder, name)
    engine: Engine = getattr(import_module(kind.module), kind.opener)(folder)
    return engine


def _kind(folder: Folder, name: str) -> EngineKind:
    """The line of the table for an engine that the folder has a file for.

    Raises:
        InputError: no such engine.
        Unsupported: the folder lacks the file.
    """
    kind = ENGINES.get(name)
    if kind is None:
        raise unknown("engine", name, ENGINES)
    if kind.file not in folder.manifest.files:
        able = [other for other, entry in ENGINES.items() if entry.file in folder.manifest.files]
        mend = f"engines for what it holds: {', '.join(able)}" if able else f"run {folder.how_to_export}"
        raise Unsupported(f"{folder.path} holds no {kind.file}, which engine {name} runs; {mend}")
    return kind


def _refuse_rounded_neurons(folder: Folder, name: str) -> None:
    """Refuse a spiking model with int8 layers in an engine that is not exact: one step in a current fires a neuron.

    Raises:
        Unsupported: the folder holds one.
    """
    from edgeseq.devices.compare import integer_layers, spiking  # here: no other engine reads the program to start
    from edgeseq.program import Program

    if JSON_NAME not in folder.manifest.files:
        return
    program = Program.read(folder.path)
    if spiking(program) and integer_layers(program):
        raise Unsupported(
            "int8 spiking models run on LiteRT with XNNPACK, ONNX Runtime or numpy (engines litert, onnxruntime, "
            f"numpy): {name} rounds int8 layers in its own way, and other neurons would fire; use a float32 model"
        )
