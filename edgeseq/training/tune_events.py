"""``edgeseq tune`` of a model that answers at every frame: the rule that follows changes best, out of a stated grid.

What is counted is in :mod:`edgeseq.events`. The rule is chosen on the validation subjects alone, and replaces the
present one where it does better there by more than chance does.

P pieces of streams, from a change to the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import BudgetMissed, InputError, Unsupported
from edgeseq.events import EventScores, Tally, scores
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import Decision
from edgeseq.models.threads import threads
from edgeseq.training.heard import Evidence, Heard, hear
from edgeseq.training.settings import Settings
from edgeseq.training.tune import Tunable

# The grid: seconds, and probabilities.
SMOOTHING = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)
ENTER = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAVE = (1.0, 0.35, 0.2, 0.1, 0.05)
DWELL = (0.0, 0.25, 0.5, 1.0, 2.0)
UNKNOWN = (0.0, 0.4, 0.6)

SHARE = 0.9  # of the changes must be answered within the greatest delay
CAUTION = 2.0  # standard errors, by which a rule must do better than the present one to replace it
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
    decided. ``kept``: whether the present rule stays because the best one does not beat it by more than chance does.
    """

    before: Rule
    after: Rule
    tried: int
    max_delay: float | None
    share: float
    kept: bool
    chosen_on: Evidence
    judged_on: Evidence
    trade: Trade


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
    share: float | None = None,
    seed: int = 0,
    data: str | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> tuple[Folder, TunedEvents]:
    """Write the model of ``source`` with the rule that follows changes best to the folder ``out``.

    See :func:`choose` for ``max_delay`` (seconds) and ``share``, 0.9 unless given; ``seed`` draws the orders in which
    recordings are stitched.

    Raises:
        InputError: a delay or a share that makes no sense, a share of no delay, unusable data, no change in the
            validation part, an existing target.
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
    tunable = Tunable.of(parent, out, data=data, overwrite=overwrite, trust=trust)
    with threads(Settings().threads):
        validation = hear(tunable.model, tunable.split.validation, seed=seed)
        test = hear(tunable.model, tunable.split.test, seed=seed)
    share = SHARE if share is None else share
    tuned = choose(validation, test, parent.manifest.decision, max_delay=max_delay, share=share)
    made = tunable.write(
        out,
        tuned.after.decision,
        {**_others(parent.manifest.metrics), **_metrics(tuned)},
        {"max_delay": max_delay, "share": share, "seed": seed, "orders": tuned.chosen_on.orders, "tried": tuned.tried},
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
    median delay, then least 90th percentile; of those the first of the grid.

    The present rule stays, unless it is too slow, where the best does not beat it in what decides (the F1, or the false
    switches) by more than two standard errors, over the pieces from a change to the next.

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
    kept = best != 0 and 0 in fit and not _clearly_better(validation, present, rules[best], max_delay is None)
    best = 0 if kept else best
    judged = test.tallies([present, rules[best]])

    def rule(name: str, i: int, tally: Tally) -> Rule:
        return Rule(name, rules[i], counted[i], scores(tally), (_finite(times[i]), _finite(tally.time_to(share))))

    return TunedEvents(
        rule("before", 0, judged[0]),
        rule("after", best, judged[1]),
        len(rules),
        max_delay,
        share,
        kept,
        validation.evidence,
        test.evidence,
        _trade(times, [score.false_switches_per_hour for score in counted]),
    )


def _clearly_better(heard: Heard, present: Decision, other: Decision, by_f1: bool) -> bool:
    """Whether a rule beats the present one, in F1 or in false switches, by more than its standard error allows.

    The F1 is a ratio of sums over pieces of streams, so its error is that of the sum of each piece's influence on it
    (the linearised estimator of survey sampling). It is that of these people's changes, and says nothing of others.
    """
    old, new = heard.pieces([present, other])  # (P, 3) each
    if by_f1:
        (before, pull), (after, push) = (_f1_and_influence(counts) for counts in (old, new))
        gain, each = after - before, push - pull
    else:
        each = old[:, 2] - new[:, 2]
        gain = float(each.sum())
    return gain > CAUTION * math.sqrt(len(each) * float(each.var()))


def _f1_and_influence(counts: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The F1 of pieces (P, 3), and what each one adds to it (P,)."""
    weighed = counts.sum(1)  # (P,) events, answered ones and false switches
    f1 = 2 * float(counts[:, 1].sum()) / float(weighed.sum())
    return f1, (2 * counts[:, 1] - f1 * weighed) / weighed.sum()


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
        return f"no rule answers {wanted} at all: ask for a smaller --share"
    enough = math.ceil(100 * fastest - 1e-9) / 100  # as it can be typed
    return (
        f"no rule answers {wanted} within {max_delay:g} s: the fastest needs {fastest:.2f} s. "
        f"Try --max-delay {enough:g}, or a lower --share"
    )


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


def _check_numbers(max_delay: float | None, share: float | None) -> None:
    if share is not None and max_delay is None:
        raise InputError(
            f"a share of {100 * share:g} % of the changes says nothing without the seconds within which they are to be "
            "answered: pass --max-delay too"
        )
    if max_delay is not None and not 0 <= max_delay < math.inf:
        raise InputError(f"a greatest delay of {max_delay:g} s: a number, 0 or more, is needed")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"a share of {100 * share:g} % of the changes: more than 0, and at most 100, is needed")
