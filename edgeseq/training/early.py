"""``edgeseq tune`` of a model of segments: the same model with a rule for early answers out.

The probabilities are calibrated and the rule is chosen on the validation subjects, and both are judged on the test
subjects.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from edgeseq.data import Dataset
from edgeseq.early import (
    Answers,
    Outcome,
    Segments,
    by_confidence,
    by_frame,
    calibrate,
    calibration_error,
    confidences,
    frame_counts,
    judge,
    pick,
    provable_loss,
    read_off,
)
from edgeseq.errors import InputError, Unsupported
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import Early
from edgeseq.models.contract import LookAheadModel, StreamingModel
from edgeseq.models.threads import threads
from edgeseq.training.evaluate import logits
from edgeseq.training.settings import Settings
from edgeseq.training.tune import Tunable


class Rule(msgspec.Struct, frozen=True):
    """A rule, and how it did. ``kind``: "end"; "confidence" or "frame", which say what its ``setting`` is."""

    name: str
    kind: str
    setting: float
    validation: Outcome
    test: Outcome


class Curve(msgspec.Struct, frozen=True):
    """On the test segments, the accuracy of each rule of a kind, and the mean share of the frames that it takes."""

    name: str
    shares: tuple[float, ...]
    accuracies: tuple[float, ...]


class Tuned(msgspec.Struct, frozen=True):
    """What was chosen, on how many validation segments, and how that does on how many test segments.

    ``provable``: the least loss of accuracy that so many validation segments can rule out. ``errors``: the expected
    calibration errors on the test segments, before and after.
    """

    rule: Early
    drop: float
    level: float
    validation_segments: int
    test_segments: int
    provable: float
    rules: tuple[Rule, ...]
    curves: tuple[Curve, ...]
    errors: tuple[float, float]

    @property
    def too_few(self) -> bool:
        """Whether the validation segments are too few to show the loss that was asked for."""
        return self.provable > self.drop


def tune(
    source: str | Path,
    out: str | Path,
    *,
    drop: float = 0.005,
    level: float = 0.95,
    earliest: float = 0.0,
    hold: float = 0.0,
    data: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> tuple[Folder, Tuned]:
    """Write the model of ``source`` with a rule for early answers to the folder ``out``.

    ``drop`` is the share of right answers that may be lost against answering at the end, shown at the confidence
    ``level`` (see :func:`edgeseq.early.pick`). ``earliest`` and ``hold`` are seconds, as in
    :class:`~edgeseq.manifest.Early`.

    Raises:
        InputError: a drop, a level or seconds that make no sense, unusable data, no labelled segments in a part, an
            existing target.
        Unsupported: the model answers at every frame of a stream, or looks ahead and cannot be told that a segment has
            ended.
    """
    out, parent = Path(out), open_folder(source)
    _check_numbers(drop, level, earliest, hold)
    if parent.manifest.task != "segment":
        raise Unsupported(
            f"{parent.path} answers at every frame of an endless stream: an early answer is for models of bounded "
            "segments, with one label each"
        )
    tunable = Tunable.of(parent, out, data=data, overwrite=overwrite, trust=trust)
    model = tunable.model
    if model.look_ahead and not isinstance(model, LookAheadModel):
        raise Unsupported(
            f"{parent.path} looks {model.look_ahead} frames ahead and cannot be told that a segment has ended: make "
            "its class an edgeseq.models.contract.LookAheadModel"
        )
    with threads(Settings().threads):
        heard = [_heard(model, part) for part in (tunable.split.validation, tunable.split.test)]
    tuned = choose(*heard, drop=drop, level=level, earliest=earliest, hold=hold)
    made = tunable.write(
        out,
        msgspec.structs.replace(parent.manifest.decision, early=tuned.rule),
        {**parent.manifest.metrics, **_metrics(tuned)},
        {"drop": drop, "level": level, "earliest": earliest, "hold": hold},
        overwrite=overwrite,
    )
    return made, tuned


def choose(
    validation: Segments, test: Segments, *, drop: float, level: float, earliest: float = 0.0, hold: float = 0.0
) -> Tuned:
    """Calibrate and choose on ``validation``, judge on ``test``: the rule, and what it is to be compared with."""
    temperature, growth = calibrate(validation)
    rule = Early(1.0, earliest, hold, temperature, growth)
    tried, counts = confidences(validation.logits[0].shape[1]), frame_counts(validation)
    by_rule = (by_confidence(validation, rule, tried), by_confidence(test, rule, tried))
    fixed = (by_frame(validation, counts), by_frame(test, counts))
    chosen = pick(validation, by_rule[0], drop=drop, level=level)
    rows = [
        ("at the end", "end", by_rule, 0),
        ("when sure enough", "confidence", by_rule, chosen),
        ("one frame for all", "frame", fixed, pick(validation, fixed[0], drop=drop, level=level)),
        ("frame off the curve", "frame", fixed, read_off(validation, fixed[0], drop)),
    ]
    rules = []
    for name, kind, (known, new), index in rows:
        before, after = judge(validation, known)[index], judge(test, new)[index]
        rules.append(Rule(name, kind, float(known.settings[index]), before, after))
    rule = msgspec.structs.replace(rule, confidence=float(tried[chosen]))
    return Tuned(
        rule,
        drop,
        level,
        len(validation.labels),
        len(test.labels),
        provable_loss(len(validation.labels), level),
        tuple(rules),
        (_curve("when sure enough", test, by_rule[1]), _curve("one frame for all", test, fixed[1])),
        (calibration_error(test, Early()), calibration_error(test, rule)),
    )


def _heard(model: StreamingModel, dataset: Dataset) -> Segments:
    """What the model says of the labelled segments of a part."""
    known = [recording for recording in dataset.recordings if recording.y[0] >= 0]
    labels = np.array([recording.y[0] for recording in known], np.int64)
    return Segments(logits(model, known), labels, dataset.rate, model.look_ahead)


def _curve(name: str, test: Segments, answers: Answers) -> Curve:
    points = judge(test, answers)
    return Curve(name, tuple(point.share for point in points), tuple(point.accuracy for point in points))


def _metrics(tuned: Tuned) -> dict[str, float]:
    rule = tuned.rules[1]
    return {
        "validation_accuracy_early": round(rule.validation.accuracy, 6),
        "validation_share_early": round(rule.validation.share, 6),
        "test_accuracy_early": round(rule.test.accuracy, 6),
        "test_share_early": round(rule.test.share, 6),
    }


def _check_numbers(drop: float, level: float, earliest: float, hold: float) -> None:
    if not 0 <= drop < 1:
        raise InputError(f"a loss of {100 * drop:g} points of accuracy: 0 to less than 100 may be lost")
    if not 0.5 <= level < 1:
        raise InputError(f"level {level:g}: 0.5 (the plain estimate) to less than 1 is needed")
    for name, seconds in (("earliest", earliest), ("hold", hold)):
        if not 0 <= seconds < math.inf:
            raise InputError(f"{name} {seconds:g} s: a number, 0 or more, is needed")
