"""``edgeseq tune`` of a model that answers at every frame: the rule that follows changes best, out of a stated grid.

What is counted is in :mod:`edgeseq.events`. The rule is chosen on the validation subjects alone.

T frames, K labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.data import Dataset
from edgeseq.decisions import answers
from edgeseq.errors import BudgetMissed, InputError, Unsupported
from edgeseq.events import EventScores, Tally, Truth, scores, streams, truths
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import Decision
from edgeseq.models.contract import StreamingModel
from edgeseq.models.threads import threads
from edgeseq.training.evaluate import logits
from edgeseq.training.settings import Settings
from edgeseq.training.tune import Tunable

# The grid: seconds, and probabilities.
SMOOTHING = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)
ENTER = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAVE = (1.0, 0.35, 0.2, 0.1, 0.05)
DWELL = (0.0, 0.25, 0.5, 1.0, 2.0)
UNKNOWN = (0.0, 0.4, 0.6)

ORDERS = 5  # in which each subject's recordings are stitched: of few recordings there are few changes
SHARE = 0.9  # of the changes must be answered within the greatest delay
STREAMS = 4  # that the model hears together
ANSWERS = 1 << 27  # that are kept at once, a byte each
METRICS = ("delay_median", "delay_p90", "missed", "false_switches_per_hour", "event_f1", "accuracy_decided")


class Rule(msgspec.Struct, frozen=True):
    """A rule, and how it does.

    ``times``: on either part, the seconds within which the share of the changes is answered that has to be; None where
    more are missed.
    """

    name: str
    decision: Decision
    validation: EventScores
    test: EventScores
    times: tuple[float | None, float | None]


class Trade(msgspec.Struct, frozen=True):
    """On the validation subjects, the rules that no other one beats in both delay and false switches per hour.

    ``delays``: the seconds within which the share of changes is answered that has to be.
    """

    delays: tuple[float, ...]
    false_switches_per_hour: tuple[float, ...]


class TunedEvents(msgspec.Struct, frozen=True):
    """The rule that was chosen out of ``tried`` ones, beside the one before.

    ``max_delay``: the seconds within which the ``share`` of the changes had to be answered; None where the event F1
    decided. ``orders``: in how many orders each subject's recordings were stitched; 0 where they hold changes.
    """

    before: Rule
    after: Rule
    tried: int
    max_delay: float | None
    share: float
    orders: int
    trade: Trade


@dataclass(frozen=True)
class Heard:
    """What a model says of streams: the logits (T, K) of each, and what is true of it.

    ``rate`` is in frames per second; what is said of a frame is there ``look_ahead`` frames later. ``orders``: as in
    :class:`TunedEvents`.
    """

    logits: Sequence[NDArray[np.float32]]
    truths: Sequence[Truth]
    rate: float
    look_ahead: int
    orders: int

    def tallies(self, rules: Sequence[Decision]) -> list[Tally]:
        """What is counted under each of the ``rules``, over all streams."""
        found = [Tally()] * len(rules)
        for y, truth in zip(self.logits, self.truths, strict=True):
            at_once = max(1, ANSWERS // len(truth.y))
            for first in range(0, len(rules), at_once):
                said = answers(y, rules[first : first + at_once], self.rate, self.look_ahead)[:, : len(truth.y)]
                for i, series in enumerate(said, first):
                    found[i] += truth.tally(series)
        return found


def hear(model: StreamingModel, dataset: Dataset, *, seed: int = 0, orders: int = ORDERS) -> Heard:
    """What ``model`` says of a data set's streams, from the initial state to the end of each.

    Recordings with one label each are stitched (:func:`edgeseq.events.stitched`), and the model runs through the seams.

    Raises:
        InputError: the data set has segments to answer.
    """
    if dataset.task != "frame":
        raise InputError(f"{dataset.name} has {dataset.task}s to answer: changes are scored where frames are")
    heard = streams(dataset, seed, orders)
    said = logits(model, heard.recordings, batch=STREAMS)
    return Heard(said, truths(heard), dataset.rate, model.look_ahead, 0 if heard is dataset else orders)


def event_scores(heard: Heard, decision: Decision) -> EventScores:
    """How the rule ``decision`` does on what was heard."""
    return scores(heard.tallies([decision])[0])


def grid() -> list[Decision]:
    """The rules to choose from, without those that say what another one says.

    A ``leave`` of 1 - ``enter`` or more holds nothing, since there is no more left beside a label that may be entered;
    ``unknown`` above ``enter`` would be the threshold in its place.
    """
    return [
        Decision(smoothing, enter, dwell, unknown, leave)
        for smoothing, enter, leave, dwell, unknown in itertools.product(SMOOTHING, ENTER, LEAVE, DWELL, UNKNOWN)
        if unknown <= enter and (leave == 1 or leave < 1 - enter - 1e-9)
    ]


def tune(
    source: str | Path,
    out: str | Path,
    *,
    max_delay: float | None = None,
    share: float = SHARE,
    seed: int = 0,
    data: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> tuple[Folder, TunedEvents]:
    """Write the model of ``source`` with the rule that follows changes best to the folder ``out``.

    See :func:`choose` for ``max_delay`` (seconds) and ``share``; ``seed`` draws the orders in which recordings are
    stitched.

    Raises:
        InputError: a delay or a share that makes no sense, unusable data, no change in the validation part, an existing
            target.
        Unsupported: the model answers bounded segments.
        BudgetMissed: no rule is fast enough.
    """
    out, parent = Path(out), open_folder(source)
    _check_numbers(max_delay, share)
    if parent.manifest.task != "frame":
        raise Unsupported(
            f"{parent.path} answers bounded segments, once each: a rule for changes is for models that answer at every "
            "frame of an endless stream"
        )
    tunable = Tunable.of(parent.path, out, data=data, overwrite=overwrite, trust=trust)
    with threads(Settings().threads):
        validation = hear(tunable.model, tunable.split.validation, seed=seed)
        test = hear(tunable.model, tunable.split.test, seed=seed)
    tuned = choose(validation, test, parent.manifest.decision, max_delay=max_delay, share=share)
    made = tunable.write(
        out,
        tuned.after.decision,
        {**_others(parent.manifest.metrics), **_metrics(tuned)},
        {"max_delay": max_delay, "share": share, "seed": seed, "orders": tuned.orders, "tried": tuned.tried},
        overwrite=overwrite,
    )
    return made, tuned


def choose(
    validation: Heard, test: Heard, present: Decision, *, max_delay: float | None = None, share: float = SHARE
) -> TunedEvents:
    """The best rule of the grid, and ``present``, on ``validation``, and how both do on ``test``.

    With ``max_delay`` the best has the fewest false switches per hour among those that answer ``share`` of all changes
    within so many seconds, and of equal ones the highest event F1. Without it, the best has the highest event F1 among
    those whose answer is right in no less of the time than the present rule's: an answer that is always one change
    behind would have its hits too, within the second that an event's end allows. Of equal ones it is the fastest: least
    median delay, then least 90th percentile; of those the present one, or else the first of the grid.

    Raises:
        InputError: there is no change in ``validation``.
        BudgetMissed: no rule is fast enough.
    """
    rules = [present, *(rule for rule in grid() if rule != present)]
    tallies = validation.tallies(rules)
    if not tallies[0].events:
        raise InputError("no label changes in what the validation subjects did: no rule can be chosen on it")
    counted = [scores(tally) for tally in tallies]
    times = [tally.time_to(share) for tally in tallies]
    if max_delay is None:
        fit = [i for i, score in enumerate(counted) if score.accuracy >= counted[0].accuracy]
    else:
        fit = [i for i, seconds in enumerate(times) if seconds <= max_delay]
    if not fit:
        raise BudgetMissed(_too_slow(times, share, max_delay))

    def cost(i: int) -> tuple[float, ...]:
        score, late = counted[i], (_number(counted[i].delay_median), _number(counted[i].delay_p90))
        return (-score.f1, *late) if max_delay is None else (score.false_switches_per_hour, -score.f1, *late)

    best = min(fit, key=cost)
    judged = test.tallies([present, rules[best]])

    def rule(name: str, i: int, tally: Tally) -> Rule:
        return Rule(name, rules[i], counted[i], scores(tally), (_finite(times[i]), _finite(tally.time_to(share))))

    return TunedEvents(
        rule("before", 0, judged[0]),
        rule("after", best, judged[1]),
        len(rules),
        max_delay,
        share,
        validation.orders,
        _trade(times, [score.false_switches_per_hour for score in counted]),
    )


def _trade(times: Sequence[float], false: Sequence[float]) -> Trade:
    """Of all rules those that no other one beats, from the fastest to the calmest."""
    kept: list[tuple[float, float]] = []
    for seconds, rate in sorted(zip(times, false, strict=True)):
        if math.isfinite(seconds) and (not kept or rate < kept[-1][1]):
            kept.append((seconds, rate))
    return Trade(tuple(seconds for seconds, _ in kept), tuple(rate for _, rate in kept))


def _too_slow(times: Sequence[float], share: float, max_delay: float | None) -> str:
    fastest, wanted = min(times), f"{100 * share:g} % of the changes of the validation subjects"
    if math.isinf(fastest):
        return f"no rule answers {wanted} at all: ask for a smaller share"
    return f"no rule answers {wanted} within {max_delay:g} s: the fastest needs {fastest:.2f} s"


def _metrics(tuned: TunedEvents) -> dict[str, float]:
    """The scores of both rules, where there is something to score."""
    found = {}
    for rule, suffix in ((tuned.after, ""), (tuned.before, "_before")):
        for part, score in (("validation", rule.validation), ("test", rule.test)):
            values = (score.delay_median, score.delay_p90, score.missed, score.false_switches_per_hour)
            for name, value in zip(METRICS, (*values, score.f1, score.accuracy), strict=True):
                if value is not None:
                    found[f"{part}_{name}{suffix}"] = round(value, 6)
    return found


def _others(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics without those of an earlier rule: what was chosen before, and what is said of plain smoothing."""
    ours = {f"{part}_{name}{old}" for part in ("validation", "test") for name in METRICS for old in ("", "_before")}
    return {name: value for name, value in metrics.items() if name not in ours and not name.endswith("_smoothed")}


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _check_numbers(max_delay: float | None, share: float) -> None:
    if max_delay is not None and not 0 <= max_delay < math.inf:
        raise InputError(f"a greatest delay of {max_delay:g} s: a number, 0 or more, is needed")
    if not 0 < share <= 1:
        raise InputError(f"a share of {100 * share:g} % of the changes: more than 0, and at most 100, is needed")
