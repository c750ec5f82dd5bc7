"""The device's half of the proof, from golden.npz and without torch: the program answers as the trained model did, and
every file computes what the program says.

Errors are relative to max(1, largest reference value), for the logits and for each named state apart; the largest of
them counts. Tolerances follow from float32 and are never loosened to pass.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.engines import ENGINES, Engine, as_folder, open_all, open_engine
from edgeseq.devices.engines.base import Floats, NoRuntime
from edgeseq.devices.golden import Golden, read_golden
from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import MODEL_FILES, Folder
from edgeseq.manifest import Link, Manifest

FORCED_TOLERANCE = 1e-5  # one step from the same state
FREE_TOLERANCE = 1e-4  # thousands of steps, each side with its own carried state
MIN_FRAMES = 2000  # what a proof needs; fewer are a quick look, and only for whoever asks for it
PROGRAM = "program ~ golden"

Doubles = NDArray[np.float64]


def check_folder(
    folder: str | Path | Folder, engines: Sequence[str] | None = None, frames: int | None = None
) -> tuple[Link, ...]:
    """Check a folder on its golden frames (the first ``frames`` of them, or all) and return every link, failed or not.

    Engines are those named, or every one that works here and runs a model file; a folder with model files of which
    none can be run here is not checked at all. Links: the numpy program against the
    golden answers; for each engine ``teacher-forced`` (each frame from the program's state), ``free-running`` (its own
    carried state against the golden answers) and ``state moves`` (no named state stands still).

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
    program = open_engine(folder, "numpy")
    start = program.get_state()
    links = [_free_running(PROGRAM, folder.manifest, program, golden, frames)[0]]
    program.set_state(start)
    forced = _teacher_forced(folder.manifest, program, opened, golden.x[:frames])
    for engine, link in zip(opened, forced, strict=True):
        engine.set_state(start)
        links += [link, *_free_running(f"{engine.name} free-running", folder.manifest, engine, golden, frames)]
    return tuple(links)


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
    raise GateFailed(
        f"{first.name} does not hold over {first.frames} frames: error {first.error:.2e}, allowed "
        f"{first.tolerance:.0e}{same}{note}{more}. What would run is not what was trained: export the model anew"
    )


def unchecked_files(folder: Folder, links: Iterable[Link]) -> tuple[str, ...]:
    """The model files that no link speaks of, because no engine that runs them works here."""
    names = {link.name.split(" ")[0] for link in links}
    checked = {kind.file for name, kind in ENGINES.items() if name in names}
    return tuple(file for file in MODEL_FILES.values() if file in folder.manifest.files and file not in checked)


def _largest(manifest: Manifest, difference: Doubles, reference: Doubles) -> tuple[float, str]:
    """The largest relative error and where it is, from the largest difference and reference of each value (K + S,)."""
    count = len(manifest.labels)
    parts = [("the logits", slice(0, count))]
    parts += [(f"state {e.name}", slice(count + e.offset, count + e.offset + e.size)) for e in manifest.states]
    errors = [(finite(difference[part].max() / max(1.0, reference[part].max())), name) for name, part in parts]
    return max(errors, key=lambda entry: entry[0])


def _teacher_forced(manifest: Manifest, program: Engine, engines: Sequence[Engine], x: Floats) -> list[Link]:
    size = len(manifest.labels) + manifest.state_size
    reference, differences = np.zeros(size), [np.zeros(size) for _ in engines]
    after = program.get_state()
    for frame in x:
        before = after
        y = program.step(frame)
        after = program.get_state()
        expected = np.concatenate((y, after), dtype=np.float64)
        np.maximum(reference, np.abs(expected), out=reference)
        for engine, difference in zip(engines, differences, strict=True):
            engine.set_state(before)
            found = np.concatenate((engine.step(frame), engine.get_state()), dtype=np.float64)
            np.maximum(difference, np.abs(found - expected), out=difference)  # lets NaN through
    links = []
    for engine, difference in zip(engines, differences, strict=True):
        error, where = _largest(manifest, difference, reference)
        note = f"largest in {where}" if error else "equal"
        name = f"{engine.name} teacher-forced"
        links.append(Link(name, len(x), error, FORCED_TOLERANCE, error <= FORCED_TOLERANCE, note=note))
    return links


def _free_running(
    name: str, manifest: Manifest, engine: Engine, golden: Golden, frames: int | None
) -> tuple[Link, Link]:
    """The links ``name`` and ``state moves`` of an engine that stands at the initial state."""
    x, reference = golden.x[:frames], golden.y[:frames]
    found, moved = np.empty_like(reference), np.zeros(manifest.state_size, bool)
    after = engine.get_state()
    for t, frame in enumerate(x):
        before = after
        found[t] = engine.step(frame)
        after = engine.get_state()
        if frame.any():
            moved |= before != after
    differences = np.abs(np.subtract(found, reference, dtype=np.float64))
    final = golden.state if len(x) == len(golden.x) else after  # the golden state is that after the last golden frame
    error, where = _largest(
        manifest,
        np.concatenate((differences.max(0), np.abs(np.subtract(after, final, dtype=np.float64)))),
        np.concatenate((np.abs(reference).max(0), np.abs(final)), dtype=np.float64),
    )
    scale = max(1.0, float(np.abs(reference).max()))
    agreement, wrong, ties = _agreement(reference, found, FREE_TOLERANCE * scale)
    notes = [f"largest in {where}"] if error else ["equal"]
    notes += [f"another answer in {wrong} frames"] if wrong else []
    notes += [f"{ties} frames differ where the two likeliest labels are closer than the tolerance"] if ties else []
    passed = error <= FREE_TOLERANCE and not wrong
    growth = slope(differences.max(-1) / scale)
    free = Link(name, len(x), error, FREE_TOLERANCE, passed, agreement, growth, "; ".join(notes))
    return free, _moves(engine.name, manifest, len(x), moved)


def _moves(engine: str, manifest: Manifest, frames: int, moved: NDArray[np.bool_]) -> Link:
    still = [e.name for e in manifest.states if not moved[e.offset : e.offset + e.size].any()]
    share = len(still) / max(1, len(manifest.states))
    note = f"never changed: {', '.join(still)}" if still else ""
    return Link(f"{engine} state moves", frames, share, 0.0, not still, note=note)


def _agreement(reference: Floats, found: Floats, tolerance: float) -> tuple[float, int, int]:
    """Share of frames (N, K) with the same argmax; how many of the others are wrong, and how many are ties."""
    differs = reference.argmax(-1) != found.argmax(-1)
    if reference.shape[-1] < 2:
        return 1.0, 0, 0
    top = np.sort(reference, -1)[:, -2:]
    tie = (top[:, 1] - top[:, 0]) < tolerance
    return float(1 - differs.mean()), int((differs & ~tie).sum()), int((differs & tie).sum())


def slope(errors: Doubles) -> float:
    """Growth of the error per 1,000 frames, by least squares; 0 where there is nothing to fit."""
    if len(errors) < 2 or not np.isfinite(errors).all():
        return 0.0
    return 1000 * float(np.polyfit(np.arange(len(errors)), errors, 1)[0])


def finite(error: float) -> float:
    """The error, or the largest float for what is not a number: JSON cannot say NaN, and it must not get lost."""
    return float(error) if np.isfinite(error) else sys.float_info.max
