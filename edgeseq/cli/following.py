"""How engines follow changes on the test subjects, and how a random forest does on the same streams: for a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeseq.cli.accuracy import logits_of, tested_on
from edgeseq.data import Dataset
from edgeseq.decisions import answers
from edgeseq.devices.report.document import Following
from edgeseq.devices.session import Session
from edgeseq.events import ORDERS, EventScores, Tally, scores, streams, truths
from edgeseq.folder import Folder
from edgeseq.manifest import Decision

if TYPE_CHECKING:
    from edgeseq.training.baseline import Forest


def following(folder: Folder, engine: str) -> tuple[Following, ...]:
    """How the folder's model in ``engine`` follows changes, by each frame alone and by its rule; of segments nothing.

    It runs through the streams that ``edgeseq tune`` judges a rule on, from the initial state to the end of each.

    Raises:
        EdgeseqError: the data of the training is not at hand, or not as it was; the engine cannot run here.
    """
    manifest = folder.manifest
    data = tested_on(folder) if manifest.task == "frame" else None
    if data is None:
        return ()
    heard, rules = streams(data, orders=ORDERS), _rules(manifest.decision)
    session, late = Session(folder, engine), manifest.input.look_ahead
    tallies = [Tally()] * len(rules)
    for recording, truth in zip(heard.recordings, truths(heard), strict=True):
        said = answers(logits_of(session, recording.x), rules, data.rate, late)
        tallies = [before + truth.tally(each) for before, each in zip(tallies, said, strict=True)]
    return _found(data, heard, rules, [scores(tally) for tally in tallies])


def forest_following(forest: Forest, data: Dataset, smoothing: float) -> tuple[Following, ...]:
    """How a forest follows changes on the streams that models of frames are scored on, plain and smoothed.

    ``data``: the recordings of the test subjects; ``smoothing`` in seconds.
    """
    from edgeseq.training.baseline import forest_events

    if data.task != "frame":
        return ()
    heard, rules = streams(data, orders=ORDERS), _rules(Decision(smoothing))
    return _found(data, heard, rules, forest_events(forest, heard, rules))


def _rules(rule: Decision) -> list[Decision]:
    """The rule, behind that of each frame alone, where they differ."""
    return list(dict.fromkeys((Decision(), rule)))


def _found(
    data: Dataset, heard: Dataset, rules: Sequence[Decision], scored: Sequence[EventScores]
) -> tuple[Following, ...]:
    orders = 0 if heard is data else ORDERS
    return tuple(Following(rule, each, orders) for rule, each in zip(rules, scored, strict=True) if each.events)
