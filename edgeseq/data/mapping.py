"""How the columns of a user's table are called, and what its numbers mean."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from edgeseq.data.dataset import TASKS
from edgeseq.errors import InputError, unknown

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""One tick of each time unit, in seconds."""


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the columns of a CSV or Parquet file mean. The defaults read a file that uses these names already.

    ``time``, ``time_unit``: the column of timestamps and their unit, s, ms, us or ns.
    ``label``: the column of classes, text or whole numbers; an empty cell is unlabelled time.
    ``subject``: the column that says who was recorded; or, with ``subject_from`` = ``file`` or ``folder``, the name of
    the file (without its ending) or of the folder it lies in is the subject; with ``none`` nobody knows, and segments
    are split at random.
    ``recording``: a column that changes where another recording starts; without it, one called "recording" if there.
    ``channels``: the columns to learn from, in this order; without them, all other columns of numbers.
    ``units``: the unit of each channel, only with ``channels``; unknown where not given.
    ``rate``: the sample rate to expect, in Hz; inferred where not given.
    ``gap``: seconds without a frame after which another recording starts (never less than one and a half frames).
    ``ignored``: labels that mean unlabelled time, e.g. "none".
    ``task``: "frame", or "segment", where each recording has one label as a whole.

    Raises InputError for a value that is not one of those named here.
    """

    time: str = "timestamp"
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    label: str = "label"
    subject: str = "subject"
    subject_from: Literal["column", "file", "folder", "none"] = "column"
    recording: str | None = None
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    rate: float | None = None
    gap: float = 1.0
    ignored: tuple[str, ...] = ()
    task: Literal["frame", "segment"] = "frame"

    def __post_init__(self) -> None:
        if self.time_unit not in SECONDS:
            raise unknown("time_unit", self.time_unit, SECONDS)
        if self.subject_from not in ("column", "file", "folder", "none"):
            raise unknown("subject_from", self.subject_from, ("column", "file", "folder", "none"))
        if self.subject_from == "none" and self.task == "frame":
            raise InputError("subject_from is none, which is for segments: splits of frames need subjects. Name them.")
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"rate is {self.rate}. Give the sample rate in Hz, more than 0, or leave it out.")
        if not self.gap > 0:
            raise InputError(f"gap is {self.gap}. Give a time in seconds, more than 0.")
        if self.units and len(self.units) != len(self.channels):
            raise InputError(
                f"units has {len(self.units)} entries and channels has {len(self.channels)}. Give one unit per channel."
            )
        roles = [self.time, self.label, *self.channels, *([self.recording] if self.recording else [])]
        roles += [self.subject] if self.subject_from == "column" else []
        twice = sorted({column for column in roles if roles.count(column) > 1})
        if twice:
            raise InputError(f"column {twice[0]!r} is mapped twice. Give each of time, label, subject, ... its own.")
