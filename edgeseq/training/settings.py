"""Everything that can be set about training, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edgeseq.data.dataset import PIXEL, SOUND
from edgeseq.errors import InputError, unknown

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes that a sensor on a body really meets. Rotation, roll and mirror act on triads (x, y, z of one sensor).

    tempo: largest factor of slower or faster (log-uniform in 1/tempo..tempo). Angular velocities grow with it, and
    accelerations with its square, except for their slow part, which is gravity.
    rotation, roll: standard deviation in radians of a random turn about all axes, and about the forearm (x).
    mirror: probability of the other wrist. scale: standard deviation of the log of the movement's amplitude.
    noise: standard deviation of white noise, relative to each channel's own.
    colour: standard deviation in dB of the gains of a random smooth filter, as another microphone or voice has.
    shift: most seconds by which a segment begins earlier or later. drop: share of spikes that are lost. Recordings of
    spikes (unit "spike") are changed by these two alone.
    """

    tempo: Annotated[float, msgspec.Meta(ge=1)] = 1.4
    rotation: NotNegative = 0.2
    roll: NotNegative = 0.3
    mirror: Share = 0.0
    scale: NotNegative = 0.1
    noise: NotNegative = 0.05
    shift: NotNegative = 0.0
    drop: Share = 0.0
    colour: NotNegative = 0.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is trained.

    A round is ``steps`` batches of ``batch`` crops of ``crop`` seconds, then a look at the validation subjects; the
    weights (their running average) that were best there are kept. The learning rate warms up over the first tenth
    and falls along a cosine.

    carry: share of crops that start from the state some other crop ended in, so that a stream may run for hours.
    stitch: share of crops sewn from two recordings. settle: seconds after a start or a seam that are not scored.
    threads: of torch. One is the fastest for models of this size wherever cores are shared, and gives the same weights
    on machines with different numbers of cores.
    device: "cpu", "cuda", or "auto", which is a GPU where there is one. A GPU adds in another order, and draws other
    numbers for dropout: the weights come out a little different.

    Of segments whole recordings are learned from, and scored once each: crop, carry, stitch and settle mean nothing.
    """

    rounds: Count = 10
    steps: Count = 40
    batch: Count = 64
    crop: Positive = 6.0
    learning_rate: Positive = 4e-3
    weight_decay: NotNegative = 0.02
    label_smoothing: Share = 0.05
    average: Share = 0.99
    clip: Positive = 1.0
    carry: Share = 0.5
    stitch: Share = 0.2
    settle: NotNegative = 1.0
    class_weights: bool = True
    threads: Count = 1
    device: str = "cpu"
    augmentation: Augmentation = Augmentation()


OF_CROPS = ("crop", "carry", "stitch", "settle")  # what means nothing where whole segments are learned from
# What happens to signals that no body moves, in place of what a preset has found for a watch.
OF_UNITS: dict[str, dict[str, float]] = {
    SOUND: {"tempo": 1.2, "rotation": 0.0, "roll": 0.0, "scale": 2.0, "noise": 0.1, "shift": 0.05, "colour": 5.0},
    PIXEL: {"tempo": 1.0, "rotation": 0.0, "roll": 0.0, "scale": 0.0, "noise": 0.0},
}


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
        changed = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise InputError(f"training settings {dict(changes)}: {error}") from None
    if changed.settle >= changed.crop:
        raise InputError(f"settle {changed.settle:g} s leaves nothing to score of a crop of {changed.crop:g} s")
    return changed
