"""``edgeseq inspect --energy``: how busy models are on the same frames, and what that would cost in energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeseq.cli.captured import Captured, captured
from edgeseq.cli.output import Document, Show, kilobytes, percent
from edgeseq.errors import InputError
from edgeseq.folder import GOLDEN_NAME, Folder, open_folder, pretrained

if TYPE_CHECKING:
    from edgeseq.program.activity import Activity
    from edgeseq.program.energy import Energy, Traffic

FRAMES = 2400  # of a data set, where no number is given; as many as golden frames are by default
STRETCH = 500  # of an endless recording, where a number of frames is to be spread over many
POINTS = 0.02  # accuracies closer than this are called equal
GAP = 2  # characters between two columns
COLUMNS = (
    "model", "priced\nas", ">accu-\nracy %", ">dense\nsynops", ">MACs", ">ACs", ">zero\nact. %", ">zero\nconn. %",
    ">memb.\nupdat.", ">mem.\nMACs", ">elem.\nwise", ">synop\nnJ", ">step\nnJ", ">band\nnJ", ">move\nnJ",
)  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """A model, what it did, and what that would cost under each convention; ``dense``: with every zero computed."""

    folder: Folder
    activity: Activity
    energies: tuple[Energy, ...]
    dense: Energy
    traffic: Traffic

    @property
    def accuracy(self) -> float | None:
        """The accuracy that training found on the test data, as a share."""
        return self.folder.manifest.metrics.get("test_accuracy")

    @property
    def spiking(self) -> bool:
        """Whether it has neurons."""
        return bool(self.activity.populations)


def show_energy(
    show: Show, folder: Folder, beside: Sequence[Path], *, data: str | None, frames: int | None, trust: bool
) -> Document:
    """Count and price ``folder`` and the models ``beside`` it on the same frames; next to a spiking one stands another.

    Raises:
        InputError: there are no frames or no step program, or a model beside it reads other channels.
    """
    source, streams = frames_of(folder, data, frames)
    found = [count(folder, streams, trust=trust)]
    partners = [open_folder(path) for path in beside]
    note = ""
    if found[0].spiking and not partners:
        partners, note = partner_of(folder)
    for partner in partners:
        _same_input(folder, partner)
        found.append(count(partner, streams, trust=trust))
    steps = found[0].activity.frames
    show.line(f"A step on average, over {steps:,} frames: {source}", "bold")
    rows = [row for each in found for row in _rows(each)]
    for part in _parts(rows, show.out.width):
        show.table([COLUMNS[column] for column in part], [[row[column] for column in part] for row in rows])
    notes = [*_comparison(found), *([note] if note else [])]
    for line in (*_legend(found), *notes):
        show.text(line)
    return {
        "frames": steps,
        "source": source,
        "models": [_document(each) for each in found],
        "notes": notes,
    }


def count(folder: Folder, streams: Sequence[NDArray[np.float32]], *, trust: bool) -> Counted:
    """Run frames (T, C) of raw units through the folder's step program, and price what it does.

    Raises:
        InputError: the folder has no step program, and none can be captured here.
    """
    from edgeseq.program.activity import measure
    from edgeseq.program.energy import conventions, energy, traffic

    step = captured(folder, trust=trust)
    if step.program is None:
        raise InputError(f"{folder.path} holds no step program: run {folder.how_to_export} ({step.missing})")
    width = step.program.x.shape[-1]
    activity = measure(step.program, [_live(stream, width) for stream in streams], folded=_folded(step))
    energies = tuple(energy(activity, convention) for convention in conventions(activity))
    return Counted(folder, activity, energies, energies[-1], traffic(activity))


def _folded(step: Captured) -> dict[str, int]:
    """By weight, the columns that hold the taps of a memory, which the map that reads it was folded into."""
    constants = step.program.constants if step.program else {}
    readers = {f"{block}.mixer.weight": form for block, form in step.memories.items() if form.form == "taps"}
    return {name: form.taps_macs // len(constants[name]) for name, form in readers.items() if name in constants}


def frames_of(folder: Folder, data: str | None, frames: int | None) -> tuple[str, list[NDArray[np.float32]]]:
    """The frames to count on, at most so many: the golden ones, or recordings of ``data``, of test subjects if it can.

    Raises:
        InputError: there are none.
    """
    if data is None:
        if GOLDEN_NAME not in folder.manifest.files:
            raise InputError(f"{folder.path} holds no golden frames: pass --data, or run {folder.how_to_export}")
        from edgeseq.devices.golden import read_golden

        return f"the golden frames of {folder.manifest.name}", [read_golden(folder).frames[:frames]]
    from edgeseq.devices.engines.base import frame_width
    from edgeseq.lineage import trained_on

    dataset = trained_on(folder, data)
    tested = [name for name in dataset.subjects if name in folder.manifest.split.get("test", ())]
    size, width = folder.manifest.input.samples_per_step, frame_width(folder.manifest)
    found = [recording.x for recording in (dataset.only(tested) if tested else dataset).recordings]
    steps = [x[: len(x) // size * size].reshape(-1, width) for x in found if len(x) >= size]
    streams = _spread(steps, FRAMES if frames is None else frames, whole=folder.manifest.task == "segment")
    return f"{'test ' if tested else ''}recordings of {dataset.name}, {len(streams)} of {len(steps)}", streams


def _spread(recordings: Sequence[NDArray[np.float32]], frames: int, *, whole: bool) -> list[NDArray[np.float32]]:
    """At most so many frames: the beginnings of recordings that lie evenly among all, or ``whole`` ones."""
    if not recordings or not frames:
        return []
    usual = int(np.median([len(recording) for recording in recordings]))
    count = min(len(recordings), math.ceil(frames / (usual if whole else min(STRETCH, usual))))
    share = frames if whole else max(STRETCH, math.ceil(frames / count))
    streams, left = [], frames
    for number in range(count):
        streams.append(recordings[number * len(recordings) // count][: min(share, left)])
        left -= len(streams[-1])
    return [stream for stream in streams if len(stream)]


def partner_of(folder: Folder) -> tuple[list[Folder], str]:
    """The int8 model without neurons that comes with edgeseq for these labels and channels, the nearest in accuracy.

    Where there is none, a sentence that says what to name.
    """
    manifest = folder.manifest
    fitting = []
    for name in pretrained():
        other = open_folder(name)
        fits = other.manifest.labels == manifest.labels and other.manifest.input.channels == manifest.input.channels
        if fits and other.manifest.precision.weights == "int8" and other.hash != folder.hash:
            fitting.append(other)
    mine = manifest.metrics.get("test_accuracy", 0.0)
    fitting.sort(key=lambda other: abs(other.manifest.metrics.get("test_accuracy", 0.0) - mine))
    if fitting:
        return fitting[:1], ""
    return [], (
        "A spiking model is compared with a quantized one that does not spike, of equal accuracy. None that comes with "
        f"edgeseq has the labels and channels of {manifest.name}: train one on its data, edgeseq quantize it, export "
        "it, and name its folder with --beside."
    )


def _live(stream: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Frames as the program reads them: with a 1 behind, if it looks ahead and is to know which frames are real."""
    if width != stream.shape[1] + 1:
        return stream
    return np.concatenate([stream, np.ones((len(stream), 1), np.float32)], 1)


def _same_input(folder: Folder, partner: Folder) -> None:
    mine, other = folder.manifest.input, partner.manifest.input
    if (mine.channels, mine.step_rate, mine.samples_per_step) != (
        other.channels,
        other.step_rate,
        other.samples_per_step,
    ):
        said = [
            f"{', '.join(channel.name for channel in source.channels)} at {source.step_rate:g} steps/s"
            for source in (mine, other)
        ]
        raise InputError(
            f"{partner.path} reads {said[1]}, {folder.path} {said[0]}: models are compared on the same frames"
        )


def _rows(counted: Counted) -> list[list[str]]:
    """A row for each convention on effective operations, and one with all that a dense kernel does."""
    activity, moved = counted.activity, counted.traffic
    share = percent(counted.accuracy).removesuffix(" %")
    updates = _number(activity.membrane_updates) if counted.spiking else "-"
    sparse = [percent(activity.activation_sparsity), percent(activity.connection_sparsity)]
    static = [_number(activity.memory_macs), _number(activity.elementwise)]
    rows = []
    for number, spent in enumerate(counted.energies):
        first = number == 0
        rows.append([
            counted.folder.manifest.name if first else "", spent.convention, share if first else "",
            _number(activity.dense) if first else "", _number(activity.effective_macs),
            _number(activity.effective_acs), *(cell.removesuffix(" %") if first else "" for cell in sparse),
            *(cell if first else "" for cell in (updates, *static)), _nanojoules(spent.synapses),
            _nanojoules(spent.step), f"{_nanojoules(spent.low)}–{_nanojoules(spent.high)}",
            _nanojoules(moved.effective) if first else "",
        ])  # fmt: skip
    dense = counted.dense
    extra = dense.dense - dense.synapses
    rows.append([
        "", "all", "", "", _number(activity.dense), "0", "", "", "", "", "",
        _nanojoules(dense.dense), _nanojoules(dense.dense_step),
        f"{_nanojoules(dense.low + extra)}–{_nanojoules(dense.high + extra)}", _nanojoules(moved.dense),
    ])  # fmt: skip
    return rows


def _parts(rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """The columns of one table, or of several where the terminal is too narrow for it; each begins with the first two.

    A table that does not fit would lose digits.
    """
    lines = [
        [*name.removeprefix(">").split("\n"), *cells]
        for name, cells in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    ]
    sizes = [GAP + max(map(len, column)) for column in lines]
    parts: list[list[int]] = [[0, 1]]
    for column in range(2, len(COLUMNS)):
        if sum(sizes[each] for each in (*parts[-1], column)) - GAP > width and len(parts[-1]) > 2:
            parts.append([0, 1])
        parts[-1].append(column)
    return parts


def _legend(found: Sequence[Counted]) -> list[str]:
    held = "; ".join(
        f"{each.folder.manifest.name}: {kilobytes(each.traffic.held_bytes)} in {each.traffic.memory}, "
        f"{_nanojoules(each.traffic.low)} to {_nanojoules(each.traffic.high)} nJ"
        for each in found
    )
    return [
        "Energy is estimated, not measured: counted operations at the prices of 45 nm (Horowitz 2014). A chip adds its "
        "process, instructions, control and leakage. docs/energy.md has the formulas.",
        "fp32, int8: effective operations alone, those whose input and weight are not 0 (NeuroBench), a MAC at 4.6 or "
        "0.3 pJ and an AC at 0.9 or 0.1 pJ. synop: the synapses alone, as papers quote them; step: with neurons, "
        "memories and elementwise operations.",
        "all: what a dense kernel does, at the last price above. A CPU skips no zeros, and neither do these files: "
        "there, this row counts, whatever the spikes.",
        f"move: bytes of weights, states and activations moved, apart from all of that. {held}.",
    ]


def _comparison(found: Sequence[Counted]) -> list[str]:
    """What the accuracy of a spiking model is beside those of the models next to it."""
    first = found[0]
    said = []
    for other in found[1:] if first.spiking else ():
        if first.accuracy is None or other.accuracy is None:
            continue
        apart = first.accuracy - other.accuracy
        verdict = "equal" if abs(apart) <= POINTS else "not equal: weigh the energies with that"
        said.append(
            f"Accuracy: {first.folder.manifest.name} is {100 * abs(apart):.1f} points "
            f"{'above' if apart >= 0 else 'below'} {other.folder.manifest.name}, which is {verdict}."
        )
    return said


def _document(counted: Counted) -> Document:
    activity = counted.activity
    return {
        "model": counted.folder.manifest.name,
        "folder": str(counted.folder.path),
        "spiking": counted.spiking,
        "accuracy": counted.accuracy,
        "dense_synops": activity.dense,
        "effective_macs": activity.effective_macs,
        "effective_acs": activity.effective_acs,
        "activation_sparsity": activity.activation_sparsity,
        "connection_sparsity": activity.connection_sparsity,
        "membrane_updates": activity.membrane_updates,
        "activity": activity,
        "neurobench": activity.neurobench(),
        "energy": [
            {**_fields(spent), "step": spent.step, "dense_step": spent.dense_step} for spent in counted.energies
        ],
        "traffic": counted.traffic,
    }


def _fields(spent: Energy) -> Document:
    from msgspec.structs import asdict

    return asdict(spent)


def _number(value: float) -> str:
    """A count in at most six characters."""
    if value >= 1e6:
        return f"{value / 1e6:.4g}M"
    if value >= 99_999.5:
        return f"{value / 1e3:.4g}k"
    return f"{value:,.0f}"


def _nanojoules(picojoules: float) -> str:
    """Three digits, and more where the number is larger than they are."""
    return f"{picojoules / 1e3:.3g}" if picojoules < 999_500 else f"{picojoules / 1e3:,.0f}"
