"""The watch models: with and without a gyroscope, how right, how soon and how often wrongly, beside a random forest.

    python benchmarks/watch.py --keep runs --out benchmarks/results/watch.json

Trains ``lmu`` on the data sets ``spar_watch`` and ``spar_watch_acc`` with three seeds, as the models that come with
edgeseq were trained, and each in int8 from it (``--keep``: folders that are there are taken). All are chosen on the
validation subject and scored on the two test subjects of those models, in torch; forests learn from the validation
subject too. Then the models that come with edgeseq, in their first engine. How they follow changes is scored as
``edgeseq report`` does. ``bangle``: a model without a gyroscope on what a Bangle.js would have sent of the test
recordings, 12.5 readings a second in hundredths of g, through the framer of a live stream.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from side_by_side import write_result

from edgeseq.cli.accuracy import evaluate, tested_on
from edgeseq.cli.following import following, forest_following
from edgeseq.data import Dataset, Recording, Split, default_split, load
from edgeseq.devices.report.document import Following
from edgeseq.devices.session import Session
from edgeseq.folder import Folder, open_folder
from edgeseq.manifest import Decision
from edgeseq.metrics import Scores
from edgeseq.signal.framer import Frame, Framer
from edgeseq.signal.readings import ACCELERATION, SECOND, Reading

SETS = {"spar_watch": ("har_watch", "har_watch_fp32"), "spar_watch_acc": ("har_watch_acc",)}
SEEDS = (0, 1, 2)
PRESET = "lmu"
BANGLE = 4  # frames at 50 Hz from one of its samples to the next
Row = dict[str, Any]


def trained(data: str, keep: Path) -> Iterator[tuple[int, str, Folder]]:
    """Of each seed the model and the one in int8, made now or before."""
    from edgeseq.quant.quantize_stage import quantize
    from edgeseq.training.stage import train

    for seed in SEEDS:
        plain = keep / f"{data}-seed{seed}"
        small = plain.with_name(f"{plain.name}-int8")
        if not plain.is_dir():
            train(data, plain, preset=PRESET, seed=seed)
        if not small.is_dir():
            quantize(plain, small, method="qat", seed=seed)
        yield from ((seed, kind, open_folder(path)) for kind, path in (("fp32", plain), ("int8", small)))


def row_of_training(data: Dataset, split: Split, seed: int, kind: str, folder: Folder) -> Row:
    from edgeseq.models.store import load_model
    from edgeseq.training.heard import event_scores, hear

    manifest = folder.manifest
    assert {part: list(who) for part, who in manifest.split.items()} == split.subjects()
    heard = hear(load_model(folder), split.test)
    rules = (Decision(), manifest.decision)
    follows = [Following(rule, event_scores(heard, rule), heard.evidence.orders) for rule in rules]
    names = ("validation_macro_f1", "test_accuracy", "test_macro_f1", "test_accuracy_smoothed")
    scores = {name: manifest.metrics[name] for name in names}
    return {"data": data.name, "model": PRESET, "kind": kind, "seed": seed, **scores, "follows": plainly(follows)}


def row_of_forest(data: Dataset, split: Split, seed: int) -> Row:
    from edgeseq.training.baseline import grow, scored

    forest = grow(split, seed=seed)
    plain, calm = scored(forest, split.test)
    follows = forest_following(forest, split.test, 1.0)
    scores = {"test_accuracy": plain.accuracy, "test_macro_f1": plain.macro_f1, "test_accuracy_smoothed": calm.accuracy}
    return {"data": data.name, "model": "forest", "kind": "", "seed": seed, **scores, "follows": plainly(follows)}


def row_of_shipped(name: str) -> Row:
    folder = open_folder(name)
    test = tested_on(folder)
    assert test is not None
    session = Session(folder)
    found: Row = {"name": name, "engine": session.engine, "weights": folder.manifest.precision.weights}
    found["channels"] = [channel.name for channel in folder.manifest.input.channels]
    found |= {"people": list(test.subjects), **shares(evaluate(session, test))}
    found["follows"] = plainly(following(folder, session.engine))
    if len(found["channels"]) == 3:
        found["bangle"] = shares(evaluate(session, as_a_bangle_sends(test, folder)))
    return found


def as_a_bangle_sends(data: Dataset, folder: Folder) -> Dataset:
    """The recordings as the frames of a live stream that come of a slow, coarse accelerometer's readings."""
    made = []
    for recording in data.recordings:
        source = folder.manifest.input
        period, sign = SECOND / source.rate, -1 if source.signs == "apple" else 1  # readings have Android's signs
        sent = sign * np.round(100 * recording.x[::BANGLE].astype(np.float64)) / 100
        framer = Framer(source, max_gap=folder.manifest.max_gap)
        readings = [
            Reading(ACCELERATION, round(BANGLE * i * period), tuple(map(float, row)), "g") for i, row in enumerate(sent)
        ]
        events = [*framer.push(readings), *framer.flush()]
        frames = np.array([event.values for event in events if isinstance(event, Frame)], np.float32)
        assert len(frames) == len(events) == BANGLE * (len(sent) - 1) + 1
        made.append(Recording(frames, recording.y[: len(frames)], recording.subject, recording.name))
    return dataclasses.replace(data, recordings=tuple(made))


def shares(scores: Scores) -> Row:
    return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1, "frames": scores.frames}


def plainly(follows: Iterable[Following]) -> list[Row]:
    return [
        {"smoothing": each.rule.smoothing, "orders": each.orders, **msgspec.to_builtins(each.scores)}
        for each in follows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path("runs"), help="where the trained folders are, or go")
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    parsed = parser.parse_args()
    rows, shipped = [], []
    for name, models in SETS.items():
        data = load(name)
        split = default_split(data)
        rows += [row_of_training(data, split, *each) for each in trained(name, parsed.keep)]
        rows += [row_of_forest(data, split, seed) for seed in SEEDS]
        shipped += [row_of_shipped(model) for model in models]
    who = split.subjects()
    write_result(parsed.out, test=who["test"], validation=who["validation"], rows=rows, shipped=shipped)


if __name__ == "__main__":
    main()
