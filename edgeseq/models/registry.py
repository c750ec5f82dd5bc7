"""Families and presets by name. A family is a class; a preset is a family with arguments and training settings."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseq.errors import InputError, unknown

if TYPE_CHECKING:
    from edgeseq.models.contract import StreamingModel

FAMILIES = {
    "lmu": "edgeseq.models.lmu:Lmu",
    "rnn": "edgeseq.models.rnn:Rnn",
}
ENTRY_POINTS = "edgeseq.families"


class Preset(msgspec.Struct, frozen=True):
    """A family at a size, with the training settings that were found for it (those that differ from the defaults)."""

    family: str
    summary: str
    arguments: dict[str, Any]
    training: dict[str, Any] = {}


def presets() -> dict[str, Preset]:
    """The presets by name."""
    augmentation = {"augmentation.rotation": 0.12, "augmentation.roll": 0.1}
    return {
        "lmu": Preset(
            "lmu",
            "feed-forward LMU: windows of 0.5, 2 and 4 s at 50 Hz",
            {
                "channels": [10, 12, 12],
                "orders": [4, 6, 6],
                "thetas": [25.0, 100.0, 200.0],
                "hidden": [40, 48, 48],
                "products": 12,
                "dropout": 0.05,
            },
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 6e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "gru": Preset(
            "rnn",
            "gated recurrent units: one layer of 96",
            {"cell": "gru", "hidden": 96, "layers": 1, "dropout": 0.2, "timescale": 150.0},
            {"steps": 45, "augmentation.tempo": 1.6, **augmentation},
        ),
        "teacher": Preset(
            "rnn",
            "gated recurrent units: two layers of 64, to distill from",
            {"cell": "gru", "hidden": 64, "layers": 2, "dropout": 0.2, "timescale": 150.0},
            {"steps": 45, "augmentation.tempo": 1.6, **augmentation},
        ),
    }


def families(*, installed: bool = True) -> dict[str, str]:
    """Family names to ``module:Class``: the built-in ones, and those that installed packages offer as entry points."""
    found = dict(FAMILIES)
    if installed:
        found.update((point.name, point.value) for point in entry_points(group=ENTRY_POINTS))
    return found


def family_class(family: str, *, trust: bool = False) -> type[StreamingModel]:
    """The class of a family, or of ``module:Class`` where ``trust`` allows that code to be imported.

    Raises:
        InputError: unknown, or not trusted, or not a streaming model.
    """
    from edgeseq.models.contract import StreamingModel

    target = families().get(family)
    if target is None:
        if ":" not in family:
            raise unknown("family", family, families())
        if not trust:
            raise InputError(f"the model's family {family!r} is code from outside edgeseq: pass --trust to import it")
        target = family
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"family {family!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, StreamingModel)):
        raise InputError(f"family {family!r}: {target} is not a subclass of edgeseq.models.StreamingModel")
    return found


def build(
    family: str, input_size: int, output_size: int, arguments: dict[str, Any], *, trust: bool = False
) -> StreamingModel:
    """A model of the family, freshly initialized.

    Raises:
        InputError: an unknown family or argument, or a value that the family refuses.
    """
    made = family_class(family, trust=trust)
    accepted = [p.name for p in inspect.signature(made).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in arguments:
        if name not in accepted:
            raise unknown(f"argument of family {family!r}", name, accepted)
    try:
        return made(input_size, output_size, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"family {family!r} refuses its arguments {arguments}: {error}") from error
