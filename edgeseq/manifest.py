"""What a model folder says of itself: the structure of manifest.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

FORMAT_VERSION = 1


class Channel(msgspec.Struct, frozen=True):
    """One input channel: its name (``ax`` is the acceleration along the watch's x axis) and unit."""

    name: str
    unit: str


class Normalization(msgspec.Struct, frozen=True):
    """Mean and standard deviation over the training subjects, per channel, or per feature of a front end.

    They are inside the model: feed raw units.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Input(msgspec.Struct, frozen=True):
    """What the model reads. ``rate`` is in Hz; a step takes ``samples_per_step`` samples and answers once.

    ``look_ahead`` is in steps: the answer of call t belongs to step t - look_ahead. ``signs`` are those of
    accelerations: "android", where a watch that lies face up has z = +1 g, "apple", where it has -1 g; "" if unknown.
    """

    channels: tuple[Channel, ...]
    rate: float
    normalization: Normalization
    samples_per_step: int = 1
    look_ahead: int = 0
    signs: str = ""

    @property
    def width(self) -> int:
        """Values of a frame: the channels of one sample, then those of the next."""
        return len(self.channels) * self.samples_per_step

    @property
    def step_rate(self) -> float:
        """Steps per second."""
        return self.rate / self.samples_per_step


class StateEntry(msgspec.Struct, frozen=True):
    """Where a named state lies in the packed state tensor of a file, and the value that all its elements start from."""

    name: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    initial: float = 0.0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Early(msgspec.Struct, frozen=True):
    """When a segment is answered before it ends: as soon as the largest probability has exceeded ``confidence``.

    Not before ``earliest`` seconds, and only when one label has exceeded it in every frame for ``hold`` seconds (one
    frame, if that is longer). The probabilities are softmax(logits / T) with T = ``temperature`` · s ^ ``growth`` after
    s seconds of the segment. A confidence of 1 is never exceeded: the answer then comes at the end.
    """

    confidence: float = 1.0
    earliest: float = 0.0
    hold: float = 0.0
    temperature: float = 1.0
    growth: float = 0.0


class Decision(msgspec.Struct, frozen=True):
    """How logits become an answer.

    Of an endless stream: ``smoothing`` is the time constant in seconds of an exponential average over the probabilities
    (0: none). The answer changes only to a label whose probability exceeds ``enter``, not while that of the present
    answer exceeds ``leave`` (which at 1 it never does), and not before ``dwell`` seconds after the last change. With no
    label above ``unknown``, the answer is "unknown".

    A segment is answered once: at its end, by the largest logit, or before that by the rule ``early``.
    """

    smoothing: float = 0.0
    enter: float = 0.0
    dwell: float = 0.0
    unknown: float = 0.0
    leave: float = 1.0
    early: Early | None = None

    def shown(self) -> str:
        """The rule of an endless stream for people; what has no effect is left out."""
        leave = f", leave {self.leave:g}" if self.leave < 1 else ""
        unknown = f", unknown {self.unknown:g}" if self.unknown > 0 else ""
        return f"smoothing {self.smoothing:g} s, enter {self.enter:g}{leave}, dwell {self.dwell:g} s{unknown}"


class Precision(msgspec.Struct, frozen=True):
    """Number formats of weights, activations, carried state, and the memory (an LMU's A and B, the Ā of S4D).

    ``weights`` are of linear maps: float32, or int8 or int4 with activations of int8. Weights of fewer bits that are
    computed with as floats (quantized distillation) are float32 here, and of their true size in weights.packed.
    """

    weights: str = "float32"
    activations: str = "float32"
    state: str = "float32"
    memory: str = "float32"


class Stage(msgspec.Struct, frozen=True):
    """One stage of the lineage: the verb, its arguments, and what it was run on."""

    verb: str
    arguments: dict[str, Any]
    versions: dict[str, str]
    seed: int | None = None
    data: str | None = None
    data_fingerprint: str | None = None
    parent: str | None = None


class Link(msgspec.Struct, frozen=True):
    """One link of the proof: two forms of the model, how far apart they were, and what was allowed.

    ``error`` and ``tolerance`` are relative to max(1, largest reference value) where the ``gate`` is "values", shares
    of frames with another argmax where it is "answers", and numbers of what is missing where it is "count".
    ``agreement`` is the share of frames with the same argmax, where the link runs freely with its own carried state.
    """

    name: str
    frames: int
    error: float
    tolerance: float
    passed: bool
    agreement: float | None = None
    slope: float | None = None
    note: str = ""
    gate: str = "values"

    def shown(self) -> tuple[str, str]:
        """Error and tolerance for people: a number, a share in percent, or a count."""
        if self.gate == "answers":
            return f"{100 * self.error:.2f} %", f"{100 * self.tolerance:.2f} %"
        if self.gate == "count":
            return f"{self.error:g}", f"{self.tolerance:g}"
        return f"{self.error:.1e}" if self.error else "0", f"{self.tolerance:.0e}" if self.tolerance else "0"


class MemoryForm(msgspec.Struct, frozen=True):
    """How export computes a linear memory: as a "recurrence" or as "taps", and the products of a step in each form."""

    form: str
    recurrence_macs: int
    taps_macs: int
    taps: int

    def shown(self) -> str:
        """For people: the form, and what it was chosen over."""
        if self.form == "taps":
            return f"{self.taps:,} taps, {self.taps_macs:,} MACs (recurrence: {self.recurrence_macs:,})"
        return f"recurrence, {self.recurrence_macs:,} MACs ({self.taps:,} taps: {self.taps_macs:,})"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json of a model folder. ``files``: sha256 of every file beside it; ``digest``: of its own content.

    ``parameters`` is the number of trained numbers (not in folders of before it was written); ``facts`` is what the
    family says of the model beside its sizes, such as the properties of its wiring. ``pruned`` names the linear maps
    that weights were taken out of: those that are 0 do not exist, and stay so in whatever comes next. ``max_gap``:
    seconds without a sample of a live stream beyond which the state starts anew; a shorter hole is bridged by a line.
    """

    format: int = FORMAT_VERSION
    name: str
    family: str
    arguments: dict[str, Any]
    task: str
    labels: tuple[str, ...]
    ignored_label: int = -1
    input: Input
    states: tuple[StateEntry, ...]
    decision: Decision = Decision()
    reset: str = "at the start of a recording, and after a gap in the samples; never on a timer"
    max_gap: float = 0.5
    precision: Precision = Precision()
    pruned: tuple[str, ...] = ()
    split: dict[str, tuple[str, ...]] = {}
    metrics: dict[str, float] = {}
    parameters: int | None = None
    facts: dict[str, float] = {}
    proof: tuple[Link, ...] = ()
    lineage: tuple[Stage, ...] = ()
    files: dict[str, str] = {}
    digest: str = ""

    @property
    def state_size(self) -> int:
        """Number of elements of the packed state."""
        return sum(entry.size for entry in self.states)

    @property
    def data_stage(self) -> Stage | None:
        """The last stage that names its data: what the model was trained or quantized on, and how it was read."""
        return last_on_data(self.lineage)

    @property
    def memories(self) -> dict[str, MemoryForm]:
        """By block, the form that export gave to each linear memory; of a folder that is exported."""
        last = next((stage for stage in reversed(self.lineage) if stage.verb != "tune"), None)  # which keeps all files
        given = last.arguments.get("memories", {}) if last and last.verb == "export" else {}
        return msgspec.convert(given, dict[str, MemoryForm])


def how_it_follows(metrics: Mapping[str, float]) -> str:
    """For people: how late and how calmly the rule of a tuned model follows changes; "" of another one's metrics."""
    names = [f"test_{name}" for name in ("delay_median", "delay_p90", "missed", "false_switches_per_hour")]
    if not all(name in metrics for name in names):
        return ""
    median, slow, missed, false = (metrics[name] for name in names)
    return (
        f"a change is answered after {median:.2f} s (median), {slow:.2f} s (p90); {100 * missed:.1f} % are missed, "
        f"{false:.1f} false switches an hour"
    )


def last_on_data(lineage: Sequence[Stage]) -> Stage | None:
    """The last stage of a lineage that names its data, if one does."""
    return next((stage for stage in reversed(lineage) if stage.data), None)


def state_table(states: Iterable[tuple[str, Sequence[int], float]]) -> tuple[StateEntry, ...]:
    """The packed layout of float32 states, given as (name, shape, initial value) in order."""
    entries: list[StateEntry] = []
    offset = 0
    for name, shape, initial in states:
        entries.append(StateEntry(name, "float32", offset, tuple(shape), initial))
        offset += entries[-1].size
    return tuple(entries)
