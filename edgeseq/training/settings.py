"""Everything that can be set about training, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edgeseq.errors import InputError, unknown


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes that a sensor on a body really meets. Rotation, roll and mirror act on triads (x, y, z of one sensor).

    tempo: largest factor of slower or faster (log-uniform in 1/tempo..tempo). Angular velocities grow with it, and
    accelerations with its square, except for their slow part, which is gravity.
    rotation, roll: standard deviation in radians of a random turn about all axes, and about the forearm (x).
    mirror: probability of the other wrist. scale: standard deviation of the log of the movement's amplitude.
    noise: standard deviation of white noise, relative to each channel's own.
    """

    tempo: float = 1.4
    rotation: float = 0.2
    roll: float = 0.3
    mirror: float = 0.0
    scale: float = 0.1
    noise: float = 0.05


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is trained.

    A round is ``steps`` batches of ``batch`` crops of ``crop`` seconds, then a look at the validation subjects; the
    weights (their running average) that were best there are kept. The learning rate warms up over the first tenth
    and falls along a cosine.

    carry: share of crops that start from the state some other crop ended in, so that a stream may run for hours.
    stitch: share of crops sewn from two recordings. settle: seconds after a start or a seam that are not scored.
    threads: of torch. One is the fastest for models of this size wherever cores are shared, and gives the same weights
    on machines with different numbers of cores.
    """

    rounds: int = 10
    steps: int = 40
    batch: int = 64
    crop: float = 6.0
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    average: float = 0.99
    clip: float = 1.0
    carry: float = 0.5
    stitch: float = 0.2
    settle: float = 1.0
    class_weights: bool = True
    threads: int = 1
    augmentation: Augmentation = Augmentation()


SKIP = 2.0  # seconds at the start of a recording that are not counted when a model is scored


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """``settings`` with some values changed; ``augmentation.tempo`` reaches into the augmentation.

    Raises:
        InputError: an unknown name (with the closest), or a value of the wrong kind.
    """
    tree = msgspec.to_builtins(settings)
    for name, value in changes.items():
        head, _, tail = name.partition(".")
        known = [*(f for f in tree if f != "augmentation"), *(f"augmentation.{f}" for f in tree["augmentation"])]
        if name not in known:
            raise unknown("training setting", name, known)
        if tail:
            tree[head][tail] = value
        else:
            tree[name] = value
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise InputError(f"training settings {dict(changes)}: {error}") from None
