"""The stage behind ``edgeseq export``: a trained folder in; program, files, golden vectors and their proof out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.data import Recording
from edgeseq.devices.check import MIN_FRAMES, check_folder, integer_matmuls, require, unchecked_files
from edgeseq.devices.compare import rounds
from edgeseq.devices.golden import read_golden
from edgeseq.errors import GateFailed, InputError, MissingDependency, unknown
from edgeseq.export.capture import capture
from edgeseq.export.fusion import onnx_integer_matmuls, wrong_onnx_bias_scales
from edgeseq.export.lower import StepForm, lower
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.pack import layout
from edgeseq.export.proof import prove_step, run_step_form, run_training_form
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.folder import GOLDEN_NAME, MODEL_FILES, Folder, copy_weights, new_folder, open_folder, seal
from edgeseq.lineage import stage_entry, trained_on
from edgeseq.manifest import Link
from edgeseq.models.contract import StreamingModel
from edgeseq.models.memories import check_radius
from edgeseq.models.store import load_model
from edgeseq.models.threads import threads
from edgeseq.program import Program

Floats = NDArray[np.float32]
WRITERS = {"onnx": write_onnx, "tflite": write_tflite}
PROVERS = {MODEL_FILES["onnx"]: ("onnxruntime", "onnx"), MODEL_FILES["tflite"]: ("ai-edge-litert", "train")}
Progress = Callable[[str, int], None]


def export(
    source: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("tflite", "onnx"),
    data: str | None = None,
    frames: int = 2400,
    memory: str = "auto",
    overwrite: bool = False,
    trust: bool = False,
    progress: Progress = lambda what, frames: None,
) -> Folder:
    """Lower, capture, write and prove the model of ``source``; the new folder appears only if the proof holds.

    ``data`` names the data set for the golden frames; by default the one that the model was trained on. Frames come
    from its test subjects, or from all if those have too few. ``memory``: how a linear memory is computed
    (:data:`edgeseq.export.memory.FORMS`); by default in the cheaper way.

    Raises:
        InputError: an unknown format or form of a memory, unusable data, an existing target.
        Unsupported: the model's step cannot be said in the step program.
        GateFailed: two forms of the model do not agree, or one of its memories does not forget.
        MissingDependency: no engine is installed that could prove one of the files.
    """
    for name in formats:
        if name not in WRITERS:
            raise unknown("format", name, WRITERS)
    if frames < MIN_FRAMES:
        raise InputError(f"{frames} frames are too few for the proof: at least {MIN_FRAMES}")
    folder = open_folder(source)
    model = load_model(folder, trust=trust)
    check_radius(model)
    x = with_end(model, golden_frames(folder, data, frames))
    form = lower(model, memory)
    program = capture(form)
    with new_folder(out, overwrite=overwrite) as staging:
        copy_weights(folder, staging)
        program.write(staging)
        for name in formats:
            WRITERS[name](program, staging / MODEL_FILES[name], name=folder.manifest.name)
        write_golden(staging, model, form, program, x)
        arguments = {"formats": ",".join(formats), "frames": len(x)}
        if form.memories:
            arguments["memories"] = msgspec.to_builtins(form.memories)
        entry = stage_entry("export", arguments, parent=folder.hash)
        manifest = msgspec.structs.replace(
            folder.manifest,
            name=Path(out).name,
            states=layout(program),
            lineage=(*folder.manifest.lineage, entry),
        )
        seal(staging, manifest)
        links = prove(open_folder(staging), model, progress=progress)
        require(links)
        seal(staging, msgspec.structs.replace(manifest, proof=links))
    return open_folder(out)


def prove(
    folder: Folder, model: StreamingModel | None = None, *, progress: Progress = lambda what, frames: None
) -> tuple[Link, ...]:
    """Every link of the chain for an exported folder, on its golden frames: the host's half, then the device's."""
    model = load_model(folder) if model is None else model
    x = read_golden(folder).x
    progress("torch model and step program", len(x))
    program = Program.read(folder.path)
    with threads(1):
        host = prove_step(model, program, x, form=lower(model, _memories(folder)))
    progress("files in their engines", len(x))
    device = check_folder(folder)
    for file in unchecked_files(folder, device):
        raise MissingDependency(*PROVERS[file], f"proving {file}")
    fused = []
    if "onnx" in folder.formats and rounds(program):  # only the host has onnx, to look into the fused graph
        onnx = folder.file(MODEL_FILES["onnx"])
        for bias in wrong_onnx_bias_scales(onnx):
            raise GateFailed(f"{onnx}: bias {bias!r} has not the scale of the products it is added to: export anew")
        fused = integer_matmuls("onnxruntime", program, onnx_integer_matmuls(onnx)[0])
    return (*host, *device, *fused)


def _memories(folder: Folder) -> str | dict[str, str]:
    """The forms to lower the folder's model with, as it was exported; before there was a choice it was a recurrence."""
    return {name: chosen.form for name, chosen in folder.manifest.memories.items()} or "recurrence"


def golden_frames(folder: Folder, data: str | None, frames: int) -> Floats:
    """``(frames, C)`` float32 of real data, from the start of each of the test subjects' recordings in turn.

    Raises:
        InputError: the data set is not to be had, is another one than the model reads, or is too small.
    """
    manifest = folder.manifest
    dataset = trained_on(folder, data)
    test = [subject for subject in dataset.subjects if subject in manifest.split.get("test", ())]
    x = _starts(dataset.only(test or dataset.subjects).recordings, frames)
    if len(x) < MIN_FRAMES:  # the proof is of arithmetic, not of accuracy: other people's frames will do
        x = _starts(dataset.recordings, frames)
    if len(x) < MIN_FRAMES:
        raise InputError(
            f"{dataset.name} has {len(x)} frames, the proof needs {MIN_FRAMES}: pass --data with more recordings of "
            "the same channels"
        )
    return np.ascontiguousarray(x, np.float32)


def with_end(model: StreamingModel, x: Floats) -> Floats:
    """``x (N, C)`` as a file takes it: where the model looks ahead, with ``live`` and the calls that bring no frame."""
    if not model.look_ahead:
        return x
    live = np.concatenate([x, np.ones((len(x), 1), np.float32)], 1)
    return np.concatenate([live, np.zeros((model.look_ahead, live.shape[1]), np.float32)])


def _starts(recordings: Sequence[Recording], frames: int) -> Floats:
    """``frames`` frames in all ``(frames, C)``, or as many as there are: the start of each recording, in turn."""
    share = -(-frames // len(recordings))
    chosen = [recording.x[:share] for recording in recordings]
    if sum(map(len, chosen)) < frames:
        chosen = [recording.x for recording in recordings]
    x: Floats = np.concatenate(chosen)[:frames]
    return x


def write_golden(staging: Path, model: StreamingModel, form: StepForm, program: Program, x: Floats) -> None:
    """golden.npz: frames, and the trained model's answers and packed final state on them, from the initial state.

    Where the step form keeps another state than the trained model has, it is that state.
    """
    with threads(1):
        y, state = run_training_form(model, x)
        state = state if form.keeps_states else run_step_form(form, x)
    packed = np.concatenate([state[entry.name].reshape(-1) for entry in program.states])
    for what, values in (("answers", y), ("state", packed)):
        if not np.isfinite(values).all():
            raise GateFailed(
                f"the trained model's {what} overflow within {len(x)} frames of real data: it is not stable"
            )
    np.savez(staging / GOLDEN_NAME, x=x, y=y, state=packed)
