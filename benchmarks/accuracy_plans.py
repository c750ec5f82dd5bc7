"""What ``benchmarks/accuracy.py`` runs: models and baselines on data sets, and what decides what a run comes to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from accuracy_table import OFFICIAL

if TYPE_CHECKING:
    from edgeseq.data import Dataset

FOREST = "forest"
MAJORITY = "majority"
BASELINES = (FOREST, MAJORITY)
SEEDS = {"lmu": 3, "gru": 3}  # of the others one
REVISION = 2  # raise it when code changes that decides what a run comes to; settings and presets are noticed anyway


class Plan(msgspec.Struct, frozen=True):
    """What is run on a data set. ``changes``: of a model's training settings, its own arguments as ``model.NAME``."""

    models: tuple[str, ...] = ("lmu", "gru", *BASELINES)
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    changes: dict[str, dict[str, Any]] = {}


EACH_FAMILY = ("lmu", "lmu_cell", "s4d", "gru", "sparse_rnn", "lmuformer-causal", "l2mu")
CAUSAL = (*EACH_FAMILY, "lstm", "tanh", "relu", "spiking_lmuformer-causal")
LONGER: dict[str, Any] = {"rounds": 16, "steps": 60}
AVERAGED = {**LONGER, "model.readout": "mean"}  # over a word, as the published models for words do
WORDS = {"lmu": LONGER, "s4d": AVERAGED, "lmuformer-causal": AVERAGED, "gru": LONGER}
BEATS = ("lmu", "s4d", "gru")
PLANS = {
    "spar_watch": Plan((*CAUSAL, "lmuformer", "spiking_lmuformer", *BASELINES)),
    "geotec_watch": Plan((*CAUSAL, *BASELINES)),
    "wisdm_watch": Plan(),
    "uci_har": Plan((*CAUSAL, *BASELINES), (OFFICIAL,)),
    "braille7": Plan(("lmu", "s4d", "gru", "l2mu-published", *BASELINES)),
    # Two of 500 beats are of the rarest kind: weighted, each would count as much as 146 of the commonest.
    "ecg5000": Plan((*BEATS, *BASELINES), changes={name: {"class_weights": False} for name in BEATS}),
    "fsdd": Plan((*WORDS, *BASELINES), changes=WORDS),
    "psmnist": Plan(("lmu-published", "s4d-digits", *BASELINES), (OFFICIAL,)),
}


class Task(msgspec.Struct, frozen=True):
    """What is to be run: a model on a fold of the data that ``source`` names.

    ``keep``: where its folder is kept. ``adopt``: whether one may be taken that nothing is known of.
    """

    source: str
    data: str
    model: str
    fold: int
    seed: int
    recipe: str
    changes: dict[str, Any] = {}
    keep: Path | None = None
    device: str = "cpu"
    adopt: bool = False

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return (self.data, self.model, self.fold, self.seed, self.recipe)

    @property
    def name(self) -> str:
        """Of the folder that is kept."""
        return f"{self.data}-{self.model}-fold{self.fold}-seed{self.seed}"


def recipe(dataset: Dataset, model: str, changes: dict[str, Any] | None = None) -> str:
    """A short hash of everything that decides a run, so that rows of an older recipe are not mixed with new ones."""
    from edgeseq.models.registry import presets
    from edgeseq.training.baseline import described
    from edgeseq.training.configure import configure

    if model == FOREST:
        learned = "8 subjects, " if dataset.name == "spar_watch" else ""  # as its first rows have it
        return f"{described(dataset)}, {learned}revision {REVISION}"
    if model == MAJORITY:
        return f"label of most training frames or segments, revision {REVISION}"
    parts = msgspec.to_builtins((REVISION, configure(presets()[model], dataset, changes or {})))
    del parts[1][2]["device"]  # which says where a run is made: a row's machine says it
    augmentation = parts[1][2]["augmentation"]
    for name in ("shift", "drop", "colour"):  # which were not there when the first rows were measured
        if not augmentation[name]:
            del augmentation[name]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]
