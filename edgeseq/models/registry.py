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
    "lmu_cell": "edgeseq.models.lmu_cell:LmuCell",
    "s4d": "edgeseq.models.s4d:S4d",
    "lmuformer": "edgeseq.models.lmuformer:Lmuformer",
    "spiking_lmuformer": "edgeseq.models.spiking_lmuformer:SpikingLmuformer",
    "rnn": "edgeseq.models.rnn:Rnn",
    "sparse_rnn": "edgeseq.models.sparse_rnn:SparseRnn",
    "l2mu": "edgeseq.models.l2mu:L2mu",
}
ENTRY_POINTS = "edgeseq.families"
FRONT = "front"  # the argument that puts a front end ahead of any family: the fields of edgeseq.signal.LogMel


class Preset(msgspec.Struct, frozen=True):
    """A family at a size, with the training settings that were found for it (those that differ from the defaults)."""

    family: str
    summary: str
    arguments: dict[str, Any]
    training: dict[str, Any] = {}


def presets() -> dict[str, Preset]:
    """The presets by name: those for a watch, of about 20,000 parameters, then those with the sizes of the papers."""
    augmentation = {"augmentation.rotation": 0.12, "augmentation.roll": 0.1}
    spiking: dict[str, Any] = {
        "dim": 32,
        "channels": 12,
        "order": 6,
        "theta": 150.0,
        "readout": "average",
        "timescale": 50.0,
        "threshold": 0.5,
        "learn": True,
        "dropout": 0.05,
    }
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
        "lmu_cell": Preset(
            "lmu_cell",
            "recurrent LMU cells of 2019: two layers of 60 with eight memories of 1 s at 50 Hz each",
            {"channels": 8, "order": 6, "theta": 50.0, "hidden": 60, "layers": 2, "bias": True, "dropout": 0.1},
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 6e-3, "augmentation.tempo": 1.6, **augmentation},
        ),
        "s4d": Preset(
            "s4d",
            "diagonal state space layers: three of 48 channels with 8 modes each",
            {"hidden": 48, "layers": 3, "state": 16, "norm": "batch", "prenorm": True, "dropout": 0.05},
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 8e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "lmuformer": Preset(
            "lmuformer",
            "LMUFormer: two blocks of 28 channels, six memories of 2 s at 50 Hz each, 3 frames of look-ahead",
            {
                "dim": 28,
                "stages": 2,
                "blocks": 2,
                "channels": 6,
                "order": 6,
                "theta": 100.0,
                "ratio": 2,
                "dropout": 0.1,
            },
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 5e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "lmuformer-causal": Preset(
            "lmuformer",
            "LMUFormer without look-ahead: two blocks of 28 channels, six memories of 2 s at 50 Hz each",
            {
                "dim": 28,
                "stages": 2,
                "blocks": 2,
                "channels": 6,
                "order": 6,
                "theta": 100.0,
                "ratio": 2,
                "causal": True,
                "dropout": 0.1,
            },
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 5e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "spiking_lmuformer": Preset(
            "spiking_lmuformer",
            "spiking LMUFormer: 32 channels, twelve memories of 3 s at 50 Hz, 3 frames of look-ahead",
            spiking,
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 8e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "spiking_lmuformer-causal": Preset(
            "spiking_lmuformer",
            "spiking LMUFormer without look-ahead: 32 channels, twelve memories of 3 s at 50 Hz",
            {**spiking, "causal": True},
            {"steps": 70, "batch": 32, "crop": 8.0, "learning_rate": 8e-3, "augmentation.tempo": 1.8, **augmentation},
        ),
        "gru": Preset(
            "rnn",
            "gated recurrent units: one layer of 96",
            {"cell": "gru", "hidden": 96, "layers": 1, "dropout": 0.2, "timescale": 150.0},
            {"steps": 45, "augmentation.tempo": 1.6, **augmentation},
        ),
        "lstm": Preset(
            "rnn",
            "long short-term memory: one layer of 66",
            {"cell": "lstm", "hidden": 66, "layers": 1, "dropout": 0.2, "timescale": 30.0},
            {"steps": 45, "learning_rate": 8e-3, "augmentation.tempo": 1.6, **augmentation},
        ),
        "tanh": Preset(
            "rnn",
            "Elman's recurrent network: two layers of 80 with tanh",
            {"cell": "tanh", "hidden": 80, "layers": 2, "dropout": 0.1, "timescale": 150.0},
            {"steps": 45, "learning_rate": 1e-3, "augmentation.tempo": 1.6, **augmentation},
        ),
        "relu": Preset(
            "rnn",
            "Elman's recurrent network: two layers of 80 with ReLU",
            {"cell": "relu", "hidden": 80, "layers": 2, "dropout": 0.1, "timescale": 150.0},
            {"steps": 45, "learning_rate": 1e-3, "augmentation.tempo": 1.6, **augmentation},
        ),
        "sparse_rnn": Preset(
            "sparse_rnn",
            "gated recurrent units wired by a small-world graph: 8 nodes of 16",
            {"nodes": 8, "neighbours": 2, "rewire": 0.3, "block": 16, "dropout": 0.2, "timescale": 150.0},
            {"steps": 45, "augmentation.tempo": 1.6, **augmentation},
        ),
        "l2mu": Preset(
            "l2mu",
            "spiking Legendre memory unit: 18 memories of 8 steps, 76 hidden neurons, 8 more for each channel",
            {
                "memories": 18,
                "order": 6,
                "theta": 8.0,
                "hidden": 76,
                "encoder": "single",
                "timescale": 50.0,
                "dropout": 0.05,
            },
            {"steps": 70, "batch": 32, "crop": 4.0, "learning_rate": 1e-2, "augmentation.tempo": 1.6},
        ),
        "teacher": Preset(
            "rnn",
            "gated recurrent units: two layers of 64, to distill from",
            {"cell": "gru", "hidden": 64, "layers": 2, "dropout": 0.2, "timescale": 150.0},
            {"steps": 45, "augmentation.tempo": 1.6, **augmentation},
        ),
        "lmu-published": Preset(
            "lmu",
            "feed-forward LMU as for permuted digits: one memory of 784 steps, order 468, 346 hidden units",
            {"channels": [1], "orders": [468], "thetas": [784.0], "hidden": [346], "dropout": 0.5},
            {
                "rounds": 20,
                "steps": 500,
                "batch": 100,
                "learning_rate": 3e-3,
                "weight_decay": 0.0,
                "label_smoothing": 0.0,
            },
        ),
        "lmu_cell-published": Preset(
            "lmu_cell",
            "recurrent LMU cell of 2019 as for permuted digits: one memory of 784 steps, 212 hidden units",
            {"channels": 1, "order": 256, "theta": 784.0, "hidden": 212, "init": "psmnist"},
            {"batch": 100, "learning_rate": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0},
        ),
        "s4d-published": Preset(
            "s4d",
            "S4D as for sequential CIFAR: four layers of 128 channels with 32 modes each, averaged (segments only)",
            {"hidden": 128, "layers": 4, "state": 64, "dropout": 0.1, "readout": "mean"},
            {"batch": 50, "learning_rate": 1e-2, "weight_decay": 0.01, "label_smoothing": 0.0},
        ),
        "s4d-digits": Preset(
            "s4d",
            "S4D as for permuted digits, small enough for two cores: two layers of 64 channels with 16 modes, averaged",
            {"hidden": 64, "layers": 2, "state": 32, "norm": "batch", "prenorm": True, "readout": "mean"},
            {"rounds": 6, "steps": 1000, "batch": 50, "learning_rate": 8e-3, "label_smoothing": 0.0},
        ),
        "lmuformer-published": Preset(
            "lmuformer",
            "LMUFormer as for speech commands: 256 channels, a memory of 128 steps, averaged (segments only)",
            {"dim": 256, "order": 256, "theta": 128.0, "readout": "mean"},
            {"batch": 128, "learning_rate": 2.5e-3, "weight_decay": 0.0, "label_smoothing": 0.0},
        ),
        "spiking_lmuformer-published": Preset(
            "spiking_lmuformer",
            "spiking LMUFormer as for speech commands: 256 channels, a memory of 128 steps, averaged (segments only)",
            {"dim": 256, "stages": 4, "order": 512, "theta": 128.0, "readout": "mean"},
            {"batch": 128, "learning_rate": 2.5e-3, "weight_decay": 0.0, "label_smoothing": 0.0},
        ),
        "l2mu-published": Preset(
            "l2mu",
            "spiking Legendre memory unit as for seven Braille letters: 70 memories of 10 steps, 120 hidden neurons",
            {"memories": 70, "order": 7, "theta": 10.0, "hidden": 120, "readout": "sum", "dropout": 0.1},
            {
                "rounds": 16,
                "steps": 50,
                "batch": 64,
                "learning_rate": 1.45e-3,
                "label_smoothing": 0.0,
                "augmentation.shift": 0.05,
                "augmentation.drop": 0.05,
            },
        ),
        "rnn-published": Preset(
            "rnn",
            "Darji's base model behind its embedding: three LSTM layers of 50",
            {"cell": "lstm", "hidden": 50, "layers": 3},
            {"learning_rate": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "clip": 5.0, "batch": 32},
        ),
        "sparse_rnn-published": Preset(
            "sparse_rnn",
            "Darji's random graphs, wired from hidden to hidden units: 50 nodes of one unit",
            {"nodes": 50, "neighbours": 10, "rewire": 1.0, "block": 1, "cell": "gru"},
            {"learning_rate": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "batch": 128},
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
            raise InputError(f"{unknown('family', family, families())} A class of your own is named module:Class.")
        if not trust:
            raise InputError(f"the model's family {family!r} is code from outside edgeseq: pass --trust to import it")
        target = family
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        hint = "" if family in families() else ". The folder of its module must be on PYTHONPATH"
        raise InputError(f"family {family!r} cannot be imported: {error}{hint}") from error
    if not (isinstance(found, type) and issubclass(found, StreamingModel)):
        raise InputError(f"family {family!r}: {target} is not a subclass of edgeseq.models.contract.StreamingModel")
    return found


def build(
    family: str, input_size: int, output_size: int, arguments: dict[str, Any], *, trust: bool = False
) -> StreamingModel:
    """A model of the family, freshly initialized; with the argument "front", behind a front end for sound.

    Raises:
        InputError: an unknown family or argument, or a value that the family refuses.
    """
    if FRONT in arguments:
        return _listening(family, input_size, output_size, arguments, trust=trust)
    made = family_class(family, trust=trust)
    accepted = [p.name for p in inspect.signature(made).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in arguments:
        if name not in accepted:
            raise unknown(f"argument of family {family!r}", name, accepted)
    try:
        return made(input_size, output_size, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"family {family!r} refuses its arguments {arguments}: {error}") from error


def _listening(
    family: str, input_size: int, output_size: int, arguments: dict[str, Any], *, trust: bool
) -> StreamingModel:
    from edgeseq.models.listening import Listening
    from edgeseq.signal.log_mel import LogMel

    features = LogMel.of(arguments[FRONT])
    if features.hop != input_size:
        raise InputError(
            f"front: a hop of {features.hop} samples of one channel is asked for, and a frame has {input_size} values: "
            "a front end hears one channel of sound"
        )
    others = {name: value for name, value in arguments.items() if name != FRONT}
    return Listening(features, build(family, features.mels, output_size, others, trust=trust))
