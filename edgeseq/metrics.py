"""Accuracy, macro-F1 and the confusion matrix of per-frame answers. Frames with a negative label are not counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]


class Scores(msgspec.Struct, frozen=True):
    """Scores over ``frames`` counted frames; ``confusion[true][answered]`` counts them."""

    accuracy: float
    macro_f1: float
    frames: int
    confusion: tuple[tuple[int, ...], ...]


def score(pairs: Iterable[tuple[Labels, Labels]], classes: int) -> Scores:
    """Score ``(true (T,), answered (T,))`` label indices, one pair per recording, over all frames together.

    Macro-F1 is the mean over the classes that occur among the true labels; a class never answered counts as 0.
    """
    confusion = np.zeros((classes, classes), np.int64)
    for true, answered in pairs:
        counted = true >= 0
        np.add.at(confusion, (true[counted], answered[counted]), 1)
    frames = int(confusion.sum())
    hits, wanted, given = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    occurs = wanted > 0
    f1 = 2 * hits[occurs] / (wanted + given)[occurs]
    return Scores(
        accuracy=float(hits.sum() / frames) if frames else float("nan"),
        macro_f1=float(f1.mean()) if frames else float("nan"),
        frames=frames,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )
