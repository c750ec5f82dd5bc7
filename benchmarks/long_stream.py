"""Does a model hold its accuracy over an hour with its state never reset? With and without carried state in training.

    python benchmarks/long_stream.py            # trains and streams what is missing, then prints the table
    python benchmarks/long_stream.py --table    # prints the table only

The recordings of a fold's two test subjects, 11 to 19 minutes in all, are joined end to end in random orders into 16
streams of an hour each: all of them in one order, then all of them in another, so that each is heard three to six
times (``heard``). A model runs over each stream from its initial state, once, and is scored frame by frame. Every
preset is trained twice: "carried", as it comes (half of the crops start from the state that another crop ended in, a
fifth are sewn from two recordings), and "fresh", with both turned off (``carry=0 stitch=0``).

One row a model in ``benchmarks/results/long_stream.json``, each with three curves over the minutes:

    every          accuracy at all frames but the first 2 s of the stream
    settled        without the first 2 s after each seam, where no model can know yet: to be held against ``reset``,
                   the accuracy on the same recordings one by one, each from the initial state, without its first 2 s
    against_reset  of the same settled frames, the difference to the answer from the initial state: the recordings of a
                   minute, easy or hard, cancel

``slope`` is the change over an hour by least squares, ``drift`` that from the first minute to the mean of minutes
31-60, both in points. The intervals (95 %, Student's) are over the streams of one model and two people: other orders of
the same recordings. They say how steady that model is, and nothing of other people or another training.

Model folders are kept in ``--work``, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeseq.devices.facts import read_facts
from edgeseq.errors import InputError
from edgeseq.folder import Folder, open_folder

RESULTS = Path(__file__).parent / "results" / "long_stream.json"
DATA = "spar_watch"
MODELS = ("lmu", "gru", "lmu_cell", "s4d", "lstm")
TRAINING: dict[str, dict[str, Any]] = {"carried": {}, "fresh": {"carry": 0.0, "stitch": 0.0}}
SKIP = 2.0  # seconds after a seam, or the start, that a model is given: as in the accuracy of its manifest
SPANS = {"minute 1": (0, 1), "2-10": (1, 10), "11-30": (10, 30), "31-60": (30, 60), "minute 60": (59, 60)}
STUDENT_T = {4: 3.182, 8: 2.365, 16: 2.131}  # 97.5 % quantile, by the number of streams

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Curve(msgspec.Struct, frozen=True):
    """Percent: of each minute and span, the mean over the streams; ``slope`` and ``drift`` with half their interval."""

    minutes: list[float]
    spans: dict[str, float]
    slope: float
    slope_half: float
    drift: float
    drift_half: float


class Row(msgspec.Struct, frozen=True):
    """One model; ``test`` are the subjects heard, ``heard`` is how often each recording is, on average, per stream."""

    model: str
    training: str
    fold: int
    seed: int
    test: list[str]
    streams: int
    heard: float
    reset: float
    every: Curve
    settled: Curve
    against_reset: Curve
    recipe: str
    seconds: float
    machine: str
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, int, int]:
        return (self.model, self.training, self.fold, self.seed)


def orders(lengths: Sequence[int], frames: int, streams: int, seed: int) -> list[list[int]]:
    """For each stream the recordings to join: one random order of all after another, until there are ``frames``."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(streams):
        order: list[int] = []
        while sum(lengths[i] for i in order) < frames:
            order += rng.permutation(len(lengths)).tolist()
        made.append(order)
    return made


def joined(parts: Sequence[NDArray[Any]], order: Sequence[int], frames: int) -> NDArray[Any]:
    """The parts in this order, end to end, cut to ``frames``."""
    return np.concatenate([parts[i] for i in order])[:frames]


def by_minute(values: NDArray[Any], counted: Bools, minute: int) -> Floats:
    """Mean of ``values (S, N)`` over the counted frames of each ``minute`` of so many frames: ``(S, minutes)``."""
    shape = (len(values), -1, minute)
    counts = counted.reshape(shape).sum(-1)
    sums: Floats = np.where(counted, values, 0).reshape(shape).sum(-1).astype(np.float64)
    return sums / np.maximum(counts, 1)


def interval(values: Floats) -> tuple[float, float]:
    """Mean over the streams ``(S,)`` and half its 95 % interval."""
    half = STUDENT_T[len(values)] * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()), half


def curve(shares: Floats) -> Curve:
    """Of ``shares (S, minutes)``, 0 to 1."""
    percent = 100 * shares
    hours = (np.arange(percent.shape[1]) + 0.5) / 60
    hours -= hours.mean()
    slope = interval(percent @ hours / (hours @ hours))
    drift = interval(percent[:, percent.shape[1] // 2 :].mean(1) - percent[:, 0])
    spans = {name: round(float(percent[:, first:last].mean()), 3) for name, (first, last) in SPANS.items()}
    minutes = [round(value, 3) for value in percent.mean(0).tolist()]
    return Curve(minutes, spans, *(round(value, 3) for value in (*slope, *drift)))


def place(work: Path, model: str, training: str, fold: int, seed: int) -> Path:
    return work / f"{model}-{training}-fold{fold}-seed{seed}"


def settings_of(model: str, training: str) -> Any:
    """Everything that decides a training beside its fold and seed: family, arguments, settings."""
    from edgeseq.data import load
    from edgeseq.models.registry import presets
    from edgeseq.training.configure import configure

    return msgspec.json.decode(msgspec.json.encode(configure(presets()[model], load(DATA), TRAINING[training])))


def short_hash(tree: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()[:12]


def made_or_found(work: Path, model: str, training: str, fold: int, seed: int) -> Folder:
    """The trained model; a folder that was trained with other settings is refused."""
    from edgeseq.training.stage import train

    out = place(work, model, training, fold, seed)
    try:
        folder = open_folder(out)
    except InputError:
        folder = train(DATA, out, preset=model, seed=seed, fold=fold, changes=TRAINING[training])
    manifest = folder.manifest
    found = [manifest.family, manifest.arguments, manifest.lineage[-1].arguments["settings"]]
    if found != settings_of(model, training):
        raise InputError(f"{out} was trained with other settings than {model} has now: remove it, or choose a --work")
    return folder


def stream(task: tuple[str, str, str, int, int, int]) -> Row:
    from edgeseq.lineage import trained_on
    from edgeseq.models.store import load_model
    from edgeseq.models.threads import threads
    from edgeseq.training.evaluate import logits

    work, model, training, fold, seed, streams = Path(task[0]), *task[1:]
    folder = made_or_found(work, model, training, fold, seed)
    started = time.monotonic()
    dataset = trained_on(folder).only(folder.manifest.split["test"])
    recordings, minute, skip = dataset.recordings, round(60 * dataset.rate), round(SKIP * dataset.rate)
    chosen = orders([len(r.x) for r in recordings], 60 * minute, streams, seed=fold)
    with threads(1):
        net = load_model(folder)
        resets = [y.argmax(-1) == r.y for y, r in zip(logits(net, recordings), recordings, strict=True)]
        x = np.stack([joined([r.x for r in recordings], order, 60 * minute) for order in chosen])
        answers = answered(net, x, minute)
    truth = np.stack([joined([r.y for r in recordings], order, 60 * minute) for order in chosen])
    age = np.stack([joined([np.arange(len(r.x)) for r in recordings], order, 60 * minute) for order in chosen])
    reset = np.stack([joined(resets, order, 60 * minute) for order in chosen])
    right, every, settled = answers == truth, truth >= 0, (truth >= 0) & (age >= skip)
    every[:, :skip] = False
    scored = [correct[skip:][r.y[skip:] >= 0] for correct, r in zip(resets, recordings, strict=True)]
    facts = read_facts()
    return Row(
        model,
        training,
        fold,
        seed,
        list(folder.manifest.split["test"]),
        streams,
        round(60 * minute / dataset.frames, 2),
        round(100 * float(np.concatenate(scored).mean()), 3),
        curve(by_minute(right, every, minute)),
        curve(by_minute(right, settled, minute)),
        curve(by_minute(right.astype(np.int8) - reset, settled, minute)),
        short_hash(settings_of(model, training)),
        round(time.monotonic() - started, 1),
        f"{facts.model or facts.machine}, {facts.cores} cores, {platform.system()} {facts.machine}",
        folder.manifest.lineage[-1].versions,
    )


def answered(net: Any, x: NDArray[np.float32], minute: int) -> NDArray[np.int64]:
    """The class of every frame of ``x (S, N, C)``: ``(S, N)``, the state carried from minute to minute."""
    import torch

    found, state = [], None
    with torch.no_grad():
        for first in range(0, x.shape[1], minute):
            y, state = net(torch.from_numpy(x[:, first : first + minute]), state)
            found.append(y.argmax(-1).numpy())
    return np.concatenate(found, 1)


def read() -> list[Row]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Row]) if RESULTS.is_file() else []


def write(rows: Sequence[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    staging = RESULTS.with_suffix(".new")
    ordered = sorted(rows, key=lambda row: row.key)
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
    staging.replace(RESULTS)


def table(rows: Sequence[Row]) -> str:
    """Accuracy at settled frames in percent, its slope, and slope and drift of its difference to the reset answers."""
    lines = [
        f"| model | training | fold | reset | {' | '.join(SPANS)} | slope | of the difference | its drift |",
        f"|---|---|---:|---:|{'---:|' * (len(SPANS) + 3)}",
    ]
    for row in sorted(rows, key=lambda row: (MODELS.index(row.model), row.training, row.fold, row.seed)):
        spans = " | ".join(f"{value:.1f}" for value in row.settled.spans.values())
        head = f"| {row.model} | {row.training} | {row.fold} | {row.reset:.1f} | {spans}"
        other = row.against_reset
        changes = (
            (row.settled.slope, row.settled.slope_half),
            (other.slope, other.slope_half),
            (other.drift, other.drift_half),
        )
        lines.append(f"{head} | {' | '.join(f'{value:+.1f} ± {half:.1f}' for value, half in changes)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lmu", "gru"], choices=MODELS)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--streams", type=int, default=16, choices=STUDENT_T)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    parsed = parser.parse_args()
    rows = read()
    if not parsed.table:
        rows = run_missing(parsed, rows)
    print(table(rows))


def run_missing(parsed: Any, rows: list[Row]) -> list[Row]:
    parsed.work.mkdir(parents=True, exist_ok=True)
    recipes = {(m, t): short_hash(settings_of(m, t)) for m in parsed.models for t in TRAINING}
    done = {row.key for row in rows if row.recipe == recipes.get((row.model, row.training))}
    tasks = [
        (str(parsed.work), model, training, fold, seed, parsed.streams)
        for seed in range(parsed.seeds)
        for model in parsed.models
        for fold in parsed.folds
        for training in TRAINING
        if (model, training, fold, seed) not in done
    ]
    with ProcessPoolExecutor(parsed.jobs) as pool:
        for finished in as_completed([pool.submit(stream, task) for task in tasks]):
            row = finished.result()
            rows = [*(old for old in rows if old.key != row.key), row]
            write(rows)
            drift = f"{row.against_reset.drift:+.1f} points"
            print(f"{row.model} {row.training} fold {row.fold}: {drift} after the first minute", file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
