"""What a report holds. The pages are made from it alone, so that they can be made again from ``report.json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import UNTIMED, Latency
from edgeseq.devices.conditions import AS_FOUND, Conditions
from edgeseq.devices.engines.base import Facts as EngineFacts
from edgeseq.devices.facts import EMULATED, Facts
from edgeseq.errors import InputError
from edgeseq.events import EventScores
from edgeseq.manifest import Decision, Input, Link, Precision, Stage
from edgeseq.metrics import Scores

FORMAT = 1
BINS = 24  # to a factor of ten: each is a tenth wider than the one before


class Distribution(msgspec.Struct, frozen=True):
    """Quantiles in microseconds, and the samples counted in fixed bins.

    ``counts[i]`` samples took from ``edge(first + i)`` to ``edge(first + i + 1)``. There are none, and the quantiles
    are None, on an emulated board.
    """

    quantiles: Latency
    first: int = 0
    counts: tuple[int, ...] = ()


def distribution(quantiles: Latency, samples: Sequence[int]) -> Distribution:
    """Count samples in nanoseconds."""
    return counted(quantiles, Counter(samples))


def counted(quantiles: Latency, counts: Mapping[float, int]) -> Distribution:
    """As :func:`distribution`, of durations in nanoseconds and how often each was counted."""
    bins: Counter[int] = Counter()
    for duration, number in counts.items():
        bins[math.floor(BINS * math.log10(max(duration, 1) / 1e3))] += number
    if not bins:
        return Distribution(quantiles)
    first, last = min(bins), max(bins)
    return Distribution(quantiles, first, tuple(bins[index] for index in range(first, last + 1)))


def edge(index: int) -> float:
    """The lower edge of a bin in microseconds."""
    return float(10 ** (index / BINS))


class EngineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One engine with one model on one device. ``paced`` is the step alone, ``response`` from when its frame was due.

    ``scores`` were measured in this engine; None where they were not. ``jitter`` is from when a step could begin
    to when it did. ``joules_per_step`` is above idle, with its standard error, where the device has rails to read.
    """

    engine: str
    facts: EngineFacts
    file: str
    file_bytes: int
    load_ms: float | None
    first_call_ms: float | None
    peak_rss_bytes: int | None
    tight: Distribution
    paced: Distribution
    response: Distribution
    paced_frames: int
    deadline_misses: int | None
    cpu_share: float | None
    scores: Scores | None = None
    jitter: Latency = UNTIMED
    joules_per_step: float | None = None
    joules_error: float | None = None


def untimed(row: EngineRow) -> EngineRow:
    """What is left of a row where its times are not those of the device that it is shown for."""
    nothing = Distribution(UNTIMED)
    times = {"tight": nothing, "paced": nothing, "response": nothing, "jitter": UNTIMED}
    gone = ("load_ms", "first_call_ms", "deadline_misses", "cpu_share", "joules_per_step", "joules_error")
    return msgspec.structs.replace(row, **times, **dict.fromkeys(gone))


class Following(msgspec.Struct, frozen=True):
    """How answers under the decision rule ``rule`` follow changes of the true label, on the test subjects.

    ``orders``: in how many each subject's recordings were joined to a stream; 0 where they hold changes of their own.
    """

    rule: Decision
    scores: EventScores
    orders: int


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model folder and what one device measured with it. ``rate`` is in steps per second; ``file_bytes`` by format.

    ``people`` is how many the scores are of, 0 where nobody knows; ``task``: of every "frame" or of every "segment";
    without scores, ``unscored`` says why. ``shipped_bytes``: the weights at their true size, where the folder
    has them. ``device`` is what the report calls the device, where it has a name; ``throttled`` says why the
    measurement counts as that of a machine that slowed itself down, and ``said`` is what else the bench says of it.
    ``measured`` is when it ended, in UTC by the machine's own clock (ISO 8601); None where the bench does not say it.
    ``following``: of its first engine that was scored, by each frame alone and by its own rule; of a model of segments,
    and of one that was not scored, nothing.
    """

    name: str
    folder_hash: str
    family: str
    arguments: dict[str, Any]
    labels: tuple[str, ...]
    input: Input
    decision: Decision
    precision: Precision
    split: dict[str, tuple[str, ...]]
    metrics: dict[str, float]
    lineage: tuple[Stage, ...]
    proof: tuple[Link, ...]
    file_bytes: dict[str, int]
    rate: float
    provenance: str
    parameters: int
    constant_bytes: int
    state_bytes: int
    macs: int
    elementwise: int
    timer_ns: int | None
    energy: str
    facts: Facts
    facts_at_end: Facts
    engines: tuple[EngineRow, ...]
    people: int = 0
    task: str = "frame"
    unscored: str = ""
    shipped_bytes: int | None = None
    device: str = ""
    conditions: Conditions = AS_FOUND
    throttled: str | None = None
    said: tuple[str, ...] = ()
    measured: str | None = None
    following: tuple[Following, ...] = ()

    @property
    def main(self) -> EngineRow:
        """The engine that a session opens: the first."""
        return self.engines[0]

    @property
    def timed(self) -> bool:
        """Whether its times are those of a machine that exists."""
        return self.provenance != EMULATED


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What a plain method makes of the test subjects of ``models``; without scores, ``missing`` says why.

    ``following``: as of a model, on the same streams, plain and smoothed.
    """

    name: str
    models: tuple[str, ...]
    plain: Scores | None = None
    smoothed: Scores | None = None
    missing: str = ""
    following: tuple[Following, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the pages say. ``scored_on`` is the machine whose engines gave the scores.

    A folder that several devices measured stands in ``models`` once for each of them, next to each other, with the
    same scores (:mod:`edgeseq.devices.report.views`).
    """

    format: int = FORMAT
    edgeseq: str
    scored_on: str
    models: tuple[Model, ...]
    baselines: tuple[Baseline, ...] = ()


def read_report(path: Path) -> Report:
    """Read a ``report.json``.

    Raises:
        InputError: it cannot be read, is of a newer format, or is something else.
    """

    class Version(msgspec.Struct):
        format: int

    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=Version).format
        if found > FORMAT:
            raise InputError(f"{path} has format {found}, this edgeseq reads {FORMAT}: upgrade edgeseq")
        report = msgspec.json.decode(content, type=Report)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a report.json that edgeseq report wrote: {error}") from None
    empty = next((model.name for model in report.models if not model.engines), None)
    if not report.models or empty is not None:
        raise InputError(f"{path} holds no measurement{f' of {empty}' if empty else ''}: make it anew")
    return report


def encode_report(report: Report) -> bytes:
    """The bytes of a ``report.json``."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
