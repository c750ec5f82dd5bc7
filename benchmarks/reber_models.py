"""The thesis's networks of edgeseq's own cells, and how it trains and scores them, for ``benchmarks/reber.py``.

An embedding of the letters, recurrent layers, and a read-out of the last letter. Adam, cross-entropy, gradients clipped
at a norm of 5. The thesis fills strings up with zeros to the longest of their batch and reads the last step of that,
padding for most of them; here a string is answered at its own last letter.

Shape letters: N strings, T letters, K = 2 answers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from reber_strings import ALPHABET, Indices, Strings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from edgeseq.models.contract import Place, StreamingModel, Width, weight_of
from edgeseq.models.registry import build
from edgeseq.models.rnn import Rnn
from edgeseq.models.sparse_rnn import SparseRnn
from edgeseq.training.denormals import flushed_denormals

RATE = 1e-3
CLIP = 5.0
TOGETHER = 16  # batches' strings are sorted by their length together, so that there is little padding to compute
EMBEDDING = 50


class Embedded(StreamingModel):
    """What comes before either network: letters, one-hot, as ``size`` numbers each, which may be fewer units too."""

    embedding: nn.Linear

    def embed(self, letters: int, size: int) -> None:
        self.input_size = letters
        self.register_buffer("input_mean", torch.zeros(letters))
        self.register_buffer("input_scale", torch.ones(letters))
        self.embedding = nn.Linear(letters, size, bias=False)
        nn.init.normal_(self.embedding.weight)  # as torch.nn.Embedding starts

    def normalize(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.embedding(super().normalize(x)))

    def widths(self) -> dict[str, Width]:
        places = Place("embedding.weight", 0), Place("layers.0.from_input.weight", 1)
        return {**super().widths(), "embedding": Width(self.embedding.out_features, places)}


class EmbeddedRnn(Embedded, Rnn):
    """Stacked recurrent layers behind an embedding."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        embedding: int = EMBEDDING,
        cell: str = "gru",
        hidden: int | list[int] = 50,
        layers: int = 3,
    ) -> None:
        Rnn.__init__(self, embedding, output_size, cell=cell, hidden=hidden, layers=layers)
        self.embed(input_size, embedding)

    def resized(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        hidden = [sizes[f"layers.{i}.hidden"] for i in range(len(self.layers))]
        return {"hidden": hidden, "embedding": sizes["embedding"]}


class EmbeddedSparseRnn(Embedded, SparseRnn):
    """One recurrent layer behind an embedding, its hidden units wired by a random graph, one unit a node."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        embedding: int = EMBEDDING,
        cell: str = "gru",
        graph: str = "watts_strogatz",
        nodes: int = 10,
        neighbours: int = 2,
        attach: int = 1,
        wiring_seed: int = 0,
    ) -> None:
        drawn: dict[str, Any] = {
            "graph": graph,
            "nodes": nodes,
            "neighbours": neighbours,
            "rewire": 1.0,
            "attach": attach,
        }
        SparseRnn.__init__(self, embedding, output_size, cell=cell, block=1, wiring_seed=wiring_seed, **drawn)
        self.embed(input_size, embedding)


def made(family: type[Embedded], seed: int, **arguments: Any) -> StreamingModel:
    """A new model, with weights drawn by ``seed``."""
    torch.manual_seed(seed)
    return build(f"{family.__module__}:{family.__name__}", len(ALPHABET), 2, arguments, trust=True)


def batches(strings: Strings, size: int, rng: np.random.Generator) -> Iterator[Indices]:
    """All strings once, at random; those of a batch are about as long as each other."""
    order = rng.permutation(len(strings))
    groups = [order[i : i + TOGETHER * size] for i in range(0, len(order), TOGETHER * size)]
    sorted_ = [group[np.argsort(strings.lengths[group], kind="stable")] for group in groups]
    drawn = [group[i : i + size] for group in sorted_ for i in range(0, len(group), size)]
    for place in rng.permutation(len(drawn)):
        yield drawn[place]


def answers(model: StreamingModel, strings: Strings) -> Tensor:
    """``(N, K)`` at the last letters. What stands behind them cannot reach back, so nothing is masked."""
    x = one_hot(torch.from_numpy(strings.codes), len(ALPHABET)).float()  # (N, T, letters)
    y, _ = model(x)  # (N, T, K)
    return cast(Tensor, y[torch.arange(len(strings)), torch.from_numpy(strings.lengths - 1)])


def loss_of(model: StreamingModel, batch: Strings) -> Tensor:
    return cross_entropy(answers(model, batch), torch.from_numpy(batch.labels))


def train_epoch(
    model: StreamingModel,
    strings: Strings,
    size: int,
    rng: np.random.Generator,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """One pass over the strings, in place, with a fresh optimizer if there is none. Pruned weights stay 0."""
    optimizer = optimizer or adam(model)
    model.train()
    with flushed_denormals():
        for which in batches(strings, size, rng):
            loss = loss_of(model, strings.part(which))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for name, mask in model.masks().items():  # what is gone has no part in the norm
                cast(Tensor, weight_of(model.get_submodule(name)).grad).mul_(mask)
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            model.constrain()
    model.eval()


def adam(model: StreamingModel) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=RATE)


def squared_gradients(
    model: StreamingModel, strings: Strings, size: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """By name of a parameter, the mean over the batches of a pass of its squared gradient."""
    parameters = dict(model.named_parameters())
    found, count = {name: torch.zeros_like(p) for name, p in parameters.items()}, 0
    with flushed_denormals():
        for which in batches(strings, size, rng):
            gradients = torch.autograd.grad(loss_of(model, strings.part(which)), list(parameters.values()))
            for total, gradient in zip(found.values(), gradients, strict=True):
                total.addcmul_(gradient, gradient)
            count += 1
    return {name: total / count for name, total in found.items()}


def fit(
    model: StreamingModel, train: Strings, validation: Strings, *, epochs: int, size: int, seed: int
) -> tuple[StreamingModel, list[float]]:
    """The model after the epoch that was best on ``validation``, the last of equals, and its accuracy after each."""
    optimizer = adam(model)
    best, scores = model, [-1.0]
    for epoch in range(epochs):
        train_epoch(model, train, size, np.random.default_rng([seed, epoch]), optimizer)
        scores.append(accuracy(model, validation))
        if scores[-1] == max(scores):
            best = copy.deepcopy(model)
    return best, scores[1:]


@torch.no_grad()
def right(model: StreamingModel, strings: Strings, size: int = 500) -> NDArray[np.bool_]:
    """Which strings ``(N)`` are answered rightly."""
    model.eval()
    found = np.zeros(len(strings), np.bool_)
    order = np.argsort(strings.lengths, kind="stable")
    for start in range(0, len(order), size):
        which = order[start : start + size]
        part = strings.part(which)
        found[which] = answers(model, part).argmax(1).numpy() == part.labels
    return found


def accuracy(model: StreamingModel, strings: Strings) -> float:
    return float(right(model, strings).mean())
