"""The training loop: plain torch, AdamW, warm-up and cosine, carried state, resumable after every round."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgeseq.data import Dataset, Split
from edgeseq.errors import InputError, Unsupported
from edgeseq.models.contract import State, StreamingModel, weight_of
from edgeseq.models.quantized import QuantizedLinear
from edgeseq.training.answers import respond
from edgeseq.training.batches import Batch, Batches, batches_of, statistics
from edgeseq.training.denormals import flushed_denormals
from edgeseq.training.device import CPU
from edgeseq.training.evaluate import evaluate
from edgeseq.training.settings import Settings

Tensors = dict[str, Tensor]

DYNAMICS_RATE = 1e-3  # the highest learning rate of a state's time constants, as the authors of S4D train theirs


class Round(msgspec.Struct, frozen=True):
    """What a round of training came to."""

    number: int
    loss: float
    accuracy: float
    macro_f1: float


Schedule = Callable[[StreamingModel, float], None]  # the model, and the share of its training that is done
Report = Callable[[Round | None, int], None]  # the round that has ended (or None), and the steps done in all


class Objective(Protocol):
    """What training makes small."""

    def __call__(self, answers: Tensor, batch: Batch) -> Tensor:
        """The loss, a scalar, of a model's ``answers`` to ``batch``; called once for every batch in turn.

        They are ``(B, T - L, K)``, of the first frames of crops, where the model looks L frames ahead; ``(B, 1, K)`` of
        segments.
        """


@dataclass(frozen=True)
class CrossEntropy:
    """The plain objective: cross entropy, averaged over the scored answers by the weights ``(K,)`` of their classes."""

    weights: Tensor | None
    label_smoothing: float

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> CrossEntropy:
        """As the settings have it, for the class frequencies of the data that is learned from."""
        weights = class_weights(dataset).to(settings.device) if settings.class_weights else None
        return cls(weights, settings.label_smoothing)

    def __call__(self, answers: Tensor, batch: Batch) -> Tensor:
        """The loss of ``answers``, as the protocol has them."""
        return cross_entropy(
            answers.flatten(0, 1),
            batch.y[:, : answers.shape[1]].flatten(),
            self.weights,
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )

    def frame_weights(self, y: Tensor) -> Tensor:
        """How much each frame of ``y (B, T)`` counts in the average: 0 where it is not scored."""
        scored = (y >= 0).float()
        return scored if self.weights is None else scored * self.weights[y.clamp(min=0)]


@dataclass
class Run:
    """All that training changes. Written after every round, so that an interrupted run goes on where it was."""

    model: StreamingModel
    average: StreamingModel
    optimizer: torch.optim.AdamW
    best: Tensors
    history: list[Round] = field(default_factory=list)

    def best_score(self, first: int) -> float:
        """The highest macro-F1 on the validation subjects so far, from round ``first`` on."""
        return max((entry.macro_f1 for entry in self.history if entry.number >= first), default=-1.0)


class _Notes(msgspec.Struct):
    identity: str
    history: list[Round]


def fit(
    model: StreamingModel,
    split: Split,
    settings: Settings,
    seed: int,
    checkpoint: Path,
    identity: str,
    *,
    normalize: bool = True,
    objective: Objective | None = None,
    schedule: Schedule = lambda model, progress: None,
    settled: float = 0.0,
    report: Report = lambda ended, steps: None,
) -> list[Round]:
    """Train ``model`` and leave in it the averaged weights that were best on the validation subjects.

    ``checkpoint`` is a file for the unfinished run, left for the caller to remove; one that was left there by a run of
    the same ``identity`` is taken up. ``normalize`` sets the model's normalization from the training subjects.
    ``objective`` is :class:`CrossEntropy` if not given. ``schedule`` may change the model ahead of each step, as
    gradual pruning does: by nothing but the share of the training that is done, so that a resumed run goes on alike;
    rounds that end before the share ``settled`` are not chosen from. The last one always is.
    Every round draws from generators made of (seed, round), and nothing is carried from one to the next but the
    weights, so that a resumed run ends in the same weights.

    Raises:
        InputError: the loss is not finite, or ``checkpoint`` cannot be read.
        Unsupported: the settings name a GPU, and the model is in int8, or an ``objective`` is given.
    """
    batches = batches_of(split.train, settings)
    if normalize:
        model.set_normalization(*(part.tolist() for part in statistics(model, batches, split.train)))
    _check_device(model, settings, objective)
    model.to(settings.device)
    objective = objective or CrossEntropy.of(split.train, settings)
    run = Run(model, copy.deepcopy(model), _optimizer(model, settings), {})
    _resume(run, checkpoint, identity)
    first = min(math.ceil(settled * settings.rounds), settings.rounds) - 1  # the first round to choose from
    for number in range(len(run.history), settings.rounds):
        with flushed_denormals():
            loss = _round(run, batches, settings, objective, schedule, seed, number, report)
        run.average.constrain()  # of weights that were pruned on the way it still has a rest
        scores = evaluate(run.average, split.validation)
        if not math.isfinite(loss):
            raise InputError(f"the loss of round {number} is {loss}: lower learning_rate, or look at the data's values")
        ended = Round(number, loss, scores.accuracy, scores.macro_f1)
        if number <= first or ended.macro_f1 >= run.best_score(first):  # of equals the last, which has learned longer
            run.best = {name: tensor.clone() for name, tensor in run.average.state_dict().items()}
        run.history.append(ended)
        _save(run, checkpoint, identity)
        report(ended, (number + 1) * settings.steps)
    model.load_state_dict(run.best)
    model.cpu().eval()
    return run.history


def _check_device(model: StreamingModel, settings: Settings, objective: Objective | None) -> None:
    """Refuse what does not run on a GPU: integers are added on the CPU, and so are teachers asked there."""
    small = any(isinstance(module, QuantizedLinear) for module in model.modules())
    if settings.device != CPU and (small or objective is not None):
        what = "an int8 model" if small else "distillation"
        raise Unsupported(f"device {settings.device}: {what} is trained on the CPU alone: set device to {CPU}")


def _round(
    run: Run,
    batches: Batches,
    settings: Settings,
    objective: Objective,
    schedule: Schedule,
    seed: int,
    number: int,
    report: Report,
) -> float:
    rng = np.random.default_rng([seed, number])
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    run.model.train()
    state: State | None = None
    total = 0.0
    for step, drawn in enumerate(batches.round(rng)):
        batch = drawn.to(settings.device)
        done = number * settings.steps + step
        for group in run.optimizer.param_groups:
            group["lr"] = group["peak"] * _rate(done / (settings.rounds * settings.steps))
        schedule(run.model, done / (settings.rounds * settings.steps))
        starts = batch.carry.starts(run.model, state) if batch.carry and state is not None else None
        answers, state = respond(run.model, batch, starts)
        loss = objective(answers, batch)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _mask_gradients(run.model, run.model.masks())
        nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
        run.optimizer.step()
        run.model.constrain()
        _follow(run.average, run.model, min(settings.average, (done + 1) / (done + 10)))
        total += loss.item()
        report(None, done + 1)
    return total / settings.steps


def _rate(progress: float) -> float:
    """Share of the learning rate: linear over the first tenth, then half a cosine down to a hundredth."""
    return min((progress + 1e-3) / 0.1, 0.5 * (1 + math.cos(math.pi * progress)) + 0.01)


def _optimizer(model: StreamingModel, settings: Settings) -> torch.optim.AdamW:
    """Weight decay on matrices only; the model's dynamics at a rate of their own, without it."""
    slow = set(model.dynamics())
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in trained if name not in slow]
    rate, dynamic = settings.learning_rate, min(settings.learning_rate, DYNAMICS_RATE)
    groups = [
        {"params": [p for p in plain if p.ndim > 1], "weight_decay": settings.weight_decay, "peak": rate},
        {"params": [p for p in plain if p.ndim <= 1], "weight_decay": 0.0, "peak": rate},
        {"params": [p for name, p in trained if name in slow], "weight_decay": 0.0, "peak": dynamic},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)


def _mask_gradients(model: StreamingModel, masks: Mapping[str, Tensor]) -> None:
    """Weights that do not exist, and are 0, stay so, and have no part in the norm by which the gradient is clipped."""
    for name, mask in masks.items():
        gradient = weight_of(model.get_submodule(name)).grad
        if gradient is not None:
            gradient.mul_(mask)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    for kept, current in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(current, 1 - keep)
    for held, buffer in zip(average.buffers(), model.buffers(), strict=True):
        held.copy_(buffer)


def class_weights(dataset: Dataset) -> Tensor:
    """Weights ``(K,)`` of the loss: inverse frequencies over what has a label, with mean 1 over that."""
    counts = dataset.label_counts().astype(np.float64)
    occurring = counts > 0
    weights = np.zeros(len(counts))
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return torch.from_numpy(weights).float()


def _save(run: Run, checkpoint: Path, identity: str) -> None:
    tensors: Tensors = {}
    for prefix, held in (("model", run.model.state_dict()), ("average", run.average.state_dict()), ("best", run.best)):
        tensors.update((f"{prefix}/{name}", tensor) for name, tensor in held.items())
    for index, entry in run.optimizer.state_dict()["state"].items():
        tensors.update((f"optimizer/{index}/{name}", tensor) for name, tensor in entry.items())
    notes = msgspec.json.encode(_Notes(identity, run.history)).decode()
    staging = checkpoint.with_name(checkpoint.name + ".new")
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, staging, {"notes": notes})
    staging.replace(checkpoint)


def _resume(run: Run, checkpoint: Path, identity: str) -> None:
    """Take up the run that was left in ``checkpoint``, unless it is of other settings: then it is of no use."""
    if not checkpoint.is_file():
        return
    try:
        with safe_open(checkpoint, "pt") as stored:
            notes = msgspec.json.decode((stored.metadata() or {})["notes"], type=_Notes)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, msgspec.MsgspecError) as error:
        raise InputError(f"the unfinished run in {checkpoint} cannot be read ({error}): remove the file") from None
    if notes.identity != identity:
        return

    def part(prefix: str) -> Tensors:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    run.model.load_state_dict(part("model/"))
    run.average.load_state_dict(part("average/"))
    run.best = part("best/")
    run.history = notes.history
    optimizer = run.optimizer.state_dict()
    for name, tensor in part("optimizer/").items():
        index, _, key = name.partition("/")
        optimizer["state"].setdefault(int(index), {})[key] = tensor
    run.optimizer.load_state_dict(optimizer)
