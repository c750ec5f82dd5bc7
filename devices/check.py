"""The device's half of the proof, from golden.npz and without torch: the program answers as the trained model did, and
every file computes what the program says.

Tolerances follow from the number formats and are never loosened to pass (see :mod:`edgeseq.devices.compare`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.compare import (
    FREE_TOLERANCE,
    Comparison,
    Part,
    Ties,
    free_link,
    jumps,
    parts_of,
    rounds,
    spiking,
    steps_of,
)
from edgeseq.devices.engines import ENGINES, Engine, as_folder, open_all, open_engine
from edgeseq.devices.engines.base import Floats, NoRuntime
from edgeseq.devices.engines.numpy_engine import open_numpy
from edgeseq.devices.golden import Golden, read_golden
from edgeseq.devices.random_states import of_neurons, random_states
from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import MODEL_FILES, Folder
from edgeseq.manifest import Link, Manifest
from edgeseq.program import Program

MIN_FRAMES = 2000  # what a proof needs; fewer are a quick look, and only for whoever asks for it
PROGRAM = "program ~ golden"
SILENT = "neurons that never fired or moved"


def check_folder(
    folder: str | Path | Folder, engines: Sequence[str] | None = None, frames: int | None = None
) -> tuple[Link, ...]:
    """Check a folder on its golden frames (the first ``frames`` of them, or all) and return every link, failed or not.

    Engines are those named, or every one that works here and runs a model file; a folder with model files of which
    none can be run here is not checked at all. Links: the numpy program against the
    golden answers; for each engine ``teacher-forced`` (each frame from the program's state), ``free-running`` (its own
    carried state against the golden answers), ``state moves`` (no named state stands still), for models that spike
    ``random states`` (teacher-forced from states in which every neuron fires now and then: golden frames say nothing of
    what is behind a silent one) and, for int8 models in engines that tell, ``integer layers`` (every int8 layer is
    computed in integers).

    Raises:
        InputError: not an exported folder, fewer than ``MIN_FRAMES`` golden frames (or than ``frames``, where that is
            less), or no such engine.
        MissingDependency: a named engine does not work here; or none was named, and nothing here runs any of the files.
        Unsupported: a named engine cannot run this folder.
        GateFailed: a file's tensors are not those of the manifest.
    """
    folder = as_folder(folder)
    if frames is not None and frames < 1:
        raise InputError(f"{frames} frames cannot be checked: at least 1")
    golden = read_golden(folder)
    needed = MIN_FRAMES if frames is None else min(frames, MIN_FRAMES)
    if len(golden.x) < needed:
        raise InputError(f"{folder.path} has {len(golden.x)} golden frames, {needed} are needed: export the model anew")
    opened = _working(folder) if engines is None else [open_engine(folder, name) for name in dict.fromkeys(engines)]
    ties, program = Ties(), Program.read(folder.path)
    reference = open_numpy(folder, ties.watch)
    start, rounded = reference.get_state(), jumps(program)
    links = [*wide_states(program, folder.manifest.precision.state)] if rounds(program) else []
    links.append(_free_running(PROGRAM, folder.manifest, reference, golden, frames, rounded)[0])
    reference.set_state(start)
    forcing = _Forcing(folder.manifest, program, reference, ties, opened)
    forced, largest = forcing.from_golden(golden.x[:frames])
    shaken = forcing.from_random(golden.x[:frames], largest) if spiking(program) else [[] for _ in opened]
    neurons = of_neurons(program)
    for engine, link, more in zip(opened, forced, shaken, strict=True):
        engine.set_state(start)
        free, moved = _free_running(f"{engine.name} free-running", folder.manifest, engine, golden, frames, rounded)
        links += [link, free, _moves(engine.name, folder.manifest, free.frames, moved, neurons), *more]
        links += integer_matmuls(engine.name, program, engine.facts.get("integer_matmuls"))
    return tuple(links)


def wide_states(program: Program, precision: str) -> list[Link]:
    """The link that says whether states that the manifest calls float32 are: none of them is what was rounded.

    A state that only keeps what an int8 layer has answered, for later, is as wide as that answer. One that such a layer
    makes of its own value is rounded at every step.
    """
    if precision != "float32":
        return []
    made = {value.name: node for node in program.nodes for value in node.results}

    def rounded(name: str, own: set[str]) -> bool:
        node = made.get(name)
        if node is None:
            return False
        if node.operator == "dequantize":
            source = made.get(node.inputs[0])
            return source is None or source.operator != "qlinear" or node.inputs[0] in own
        if any(made[i].operator == "round" for i in node.inputs if i in made):
            return True
        return node.operator in ("reshape", "slice", "concat", "transpose") and any(
            rounded(i, own) for i in node.inputs
        )

    narrow = [state.name for state in program.states if rounded(state.after, _made_of(program, state.name))]
    note = f"rounded: {', '.join(narrow)}" if narrow else ""
    return [Link("program wide states", 0, float(len(narrow)), 0.0, not narrow, note=note, gate="count")]


def _made_of(program: Program, state: str) -> set[str]:
    """The values of a program that depend on a state as it was before the step."""
    found = {state}
    for node in program.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(value.name for value in node.results)
    return found


def integer_matmuls(engine: str, program: Program, found: object) -> list[Link]:
    """The link that says whether every int8 layer runs in integers, from the number ``found``; none where unknown."""
    wanted = sum(node.operator == "qlinear" for node in program.nodes)
    if not wanted or not isinstance(found, int):
        return []
    missing, note = float(abs(wanted - found)), f"{found} of {wanted} int8 layers"
    return [Link(f"{engine} integer layers", 0, missing, 0.0, not missing, note=note, gate="count")]


def _working(folder: Folder) -> list[Engine]:
    """The engines that run a model file here; numpy, which is the program and checked anyhow, if there is no file."""
    found, refused = open_all(folder)
    running = [engine for engine in found if engine.name != "numpy"]
    if folder.formats and not running:
        raise NoRuntime(f"checking {' and '.join(MODEL_FILES[name] for name in folder.formats)}", refused.values())
    return running or found


def require(links: Iterable[Link]) -> None:
    """Raise for the first link that does not hold.

    Raises:
        GateFailed: naming the link, its error and what is allowed.
    """
    failed = [link for link in links if not link.passed]
    if not failed:
        return
    first, more = failed[0], f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    same = "" if first.agreement is None else f", same answer in {100 * first.agreement:.2f} % of frames"
    note = f"; {first.note}" if first.note else ""
    mend = "What would run is not what was trained: export the model anew"
    if SILENT in first.note:
        mend = (
            "The file is not to blame: train longer, lower the threshold or raise the gain in front of these neurons, "
            "or export with other golden frames (--data)"
        )
    raise GateFailed(
        f"{first.name} does not hold over {first.frames} frames: error {first.error:.2e}, allowed "
        f"{first.tolerance:.0e}{same}{note}{more}. {mend}"
    )


def unchecked_files(folder: Folder, links: Iterable[Link]) -> tuple[str, ...]:
    """The model files that no link speaks of, because no engine that runs them works here."""
    names = {link.name.split(" ")[0] for link in links}
    checked = {kind.file for name, kind in ENGINES.items() if name in names}
    return tuple(file for file in MODEL_FILES.values() if file in folder.manifest.files and file not in checked)


def _parts(manifest: Manifest) -> list[Part]:
    return parts_of(len(manifest.labels), [(entry.name, entry.size) for entry in manifest.states])


@dataclass(frozen=True)
class _Forcing:
    """Engines that take single steps from the same states as the ``reference``, which ``ties`` watches."""

    manifest: Manifest
    program: Program
    reference: Engine
    ties: Ties
    engines: Sequence[Engine]

    def from_golden(self, x: Floats) -> tuple[list[Link], Floats]:
        """Over frames (T, C), each from the state that the reference came to; and the largest values of that (S,)."""
        compared = self._comparisons()
        after = self.reference.get_state()
        largest = np.abs(after)
        for frame in x:
            after = self._step(compared, after, frame)
            np.maximum(largest, np.abs(after), out=largest)
        return self._links(compared, "teacher-forced"), largest

    def from_random(self, x: Floats, largest: Floats) -> list[list[Link]]:
        """From states and with frames of x (T, C) drawn at random; a list of one link for each engine."""
        compared = self._comparisons()
        for state, frame in random_states(self.program, self.manifest, largest, x):
            self.reference.set_state(state)
            self._step(compared, state, frame)
        return [[link] for link in self._links(compared, "random states")]

    def _comparisons(self) -> list[Comparison]:
        return [Comparison(_parts(self.manifest)) for _ in self.engines]

    def _step(self, compared: Sequence[Comparison], before: Floats, frame: Floats) -> Floats:
        """One step of all from the state ``before``, in which the reference is; returns the one that it comes to."""
        self.ties.clear()
        y = self.reference.step(frame)
        after = self.reference.get_state()
        expected = np.concatenate((y, after), dtype=np.float64)
        for engine, comparison in zip(self.engines, compared, strict=True):
            engine.set_state(before)
            found = np.concatenate((engine.step(frame), engine.get_state()), dtype=np.float64)
            comparison.add(expected, found, self.ties.near)
        return after

    def _links(self, compared: Sequence[Comparison], what: str) -> list[Link]:
        steps, own = steps_of(self.program), rounds(self.program)  # an engine's own way of rounding is of int8 layers
        return [
            comparison.link(f"{engine.name} {what}", steps, exact=ENGINES[engine.name].exact or not own)
            for engine, comparison in zip(self.engines, compared, strict=True)
        ]


def _free_running(
    name: str, manifest: Manifest, engine: Engine, golden: Golden, frames: int | None, rounded: bool
) -> tuple[Link, NDArray[np.bool_]]:
    """The link ``name`` of an engine that stands at the initial state; and which elements (S,) of the state moved."""
    x, reference = golden.x[:frames], golden.y[:frames]
    found, moved = np.empty_like(reference), np.zeros(manifest.state_size, bool)
    after = engine.get_state()
    for t, frame in enumerate(x):
        before = after
        found[t] = engine.step(frame)
        after = engine.get_state()
        if frame.any():
            moved |= before != after
    final = golden.state if len(x) == len(golden.x) else after  # the golden state is that after the last golden frame
    compared = Comparison(_parts(manifest))
    for expected, got in zip(reference, found, strict=True):
        compared.add(
            np.concatenate((expected, final), dtype=np.float64), np.concatenate((got, after), dtype=np.float64)
        )
    exact = ENGINES[engine.name].exact
    free = free_link(name, compared, reference, found, tolerance=FREE_TOLERANCE, rounded=rounded, exact=exact)
    return free, moved


def _moves(engine: str, manifest: Manifest, frames: int, moved: NDArray[np.bool_], neurons: Collection[str]) -> Link:
    still = [e.name for e in manifest.states if not moved[e.offset : e.offset + e.size].any()]
    share = len(still) / max(1, len(manifest.states))
    note = f"never changed: {', '.join(still)}" if still else ""
    silent = [name for name in still if name in neurons]
    note += f"; {SILENT}: {', '.join(silent)}" if silent else ""
    return Link(f"{engine} state moves", frames, share, 0.0, not still, note=note)
