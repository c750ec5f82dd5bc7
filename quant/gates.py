"""What a smaller model must pass before it is written: it answers nearly as well as the one that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

from edgeseq.errors import GateFailed, InputError
from edgeseq.folder import Folder

SCORE = "validation_macro_f1"


def check_drop(parent: Folder, metrics: Mapping[str, float], max_drop: float | None) -> None:
    """Refuse ``metrics`` whose macro-F1 on the validation subjects is more than ``max_drop`` points below ``parent``'s.

    A point is a hundredth. With None anything is good enough; a better model always is.

    Raises:
        GateFailed: it is.
        InputError: ``max_drop`` is below 0, or the parent's own score is not known.
    """
    if max_drop is None:
        return
    check_limit(parent, max_drop)
    before, after = parent.manifest.metrics[SCORE], metrics[SCORE]
    drop = 100 * (before - after)
    if not drop <= max_drop + 1e-9:  # scores are written with six digits; what is not a number is no score
        raise GateFailed(
            f"macro-F1 on the validation subjects falls by {drop:.2f} points, from {100 * before:.2f} % to "
            f"{100 * after:.2f} %, and at most {max_drop:g} are allowed: train longer (--set rounds=N), compress less, "
            "or allow more with --max-drop"
        )


def check_limit(parent: Folder, max_drop: float | None) -> None:
    """Refuse a ``max_drop`` that means nothing, ahead of any work.

    Raises:
        InputError: as :func:`check_drop`.
    """
    if max_drop is None:
        return
    if not max_drop >= 0:
        raise InputError(f"max_drop {max_drop:g}: points of macro-F1 that may be lost, 0 or more")
    if SCORE not in parent.manifest.metrics:
        raise InputError(
            f"{parent.path} does not say its {SCORE.replace('_', ' ')}, so no drop of it can be measured: leave out "
            "--max-drop"
        )
