"""How much faster a model trains by its parallel form than by the loop of its steps.

    python benchmarks/training_speed.py                      # every preset, and both linear memories by themselves
    python benchmarks/training_speed.py --only s4d --rounds 9 --out FILE

One call forward and backward over ``FRAMES`` frames in float32, one thread: ``loop`` is ``run_steps``, ``forward`` what
training uses, ``last`` the answer after the last frame only, for tasks that ask for no other. In turns, the order
shuffled each round; medians and their ratios. A loop keeps every frame's activations: where those of the training batch
do not fit in ``LIMIT`` bytes, the largest power of two that does is measured, and the row says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from side_by_side import Call, in_turns, write_result
from torch import Tensor

from edgeseq.models.contract import StreamingModel, parameter_count
from edgeseq.models.diagonal import DiagonalSsm
from edgeseq.models.legendre import LegendreMemory
from edgeseq.models.registry import build, presets
from edgeseq.training.settings import Settings, with_changes

FRAMES = 784
LIMIT = 14e9
PUBLISHED = "-published"
WATCH_SIZES, PUBLISHED_SIZES = (6, 7), (1, 10)  # channels and labels: of a watch, and of sequential MNIST
MEMORIES = ((1, 32), (1, 468), (100, 32), (100, 256), (100, 468))  # batch, order; θ = 784 as for sequential MNIST
DIAGONALS = ((1, 48, 16), (32, 48, 16), (1, 128, 64), (8, 128, 64))  # batch, channels, state size
OUTPUTS = {32: 64, 256: 212, 468: 346}  # of the map that reads the memory, at the published sizes


def backward(answer: Callable[[], Tensor]) -> Call:
    def call() -> None:
        answer().sum().backward()

    return call


def saved_bytes(call: Call) -> int:
    """What autograd keeps for the backward pass of a call."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(seen.values())


def fitting_batch(model: StreamingModel, batch: int, channels: int) -> int:
    """The training batch, or the largest power of two whose loop fits."""
    few = 8
    x = torch.randn(1, few, channels)
    each = saved_bytes(lambda: model.run_steps(x)[0].sum()) / few
    while batch > 1 and each * batch * FRAMES > LIMIT:
        batch = 2 ** ((batch - 1).bit_length() - 1)
    return batch


def row_of(name: str, batch: int, rounds: int) -> dict[str, Any]:
    preset = presets()[name]
    channels, labels = PUBLISHED_SIZES if name.endswith(PUBLISHED) else WATCH_SIZES
    torch.manual_seed(0)
    model = build(preset.family, channels, labels, preset.arguments).eval()  # without dropout
    fits = fitting_batch(model, batch, channels)
    x = torch.randn(fits, FRAMES, channels)
    medians = in_turns(
        {
            "loop": backward(lambda: model.run_steps(x)[0]),
            "forward": backward(lambda: model(x)[0]),
            "last": backward(lambda: model.last(x)[0]),
        },
        rounds,
    )
    return {
        "what": name,
        "parameters": parameter_count(model),
        "batch": fits,
        "training_batch": batch,
        **ratios(medians),
    }


def memory_row(batch: int, order: int, rounds: int) -> dict[str, Any]:
    """The memory and the map that reads it, form by form."""
    torch.manual_seed(0)
    memory = LegendreMemory(1, order, float(FRAMES))
    u = torch.randn(batch, FRAMES, 1, requires_grad=True)
    weight = torch.randn(OUTPUTS[order], order, requires_grad=True)
    forms: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: memory.one_by_one(u).flatten(2) @ weight.T,
        "chunked": lambda: memory.chunked(u).flatten(2) @ weight.T,
        "convolved": lambda: memory.convolved(u).flatten(2) @ weight.T,
        "folded": lambda: memory.folded(u, None, weight)[0],
        "last": lambda: memory.last(u).flatten(1) @ weight.T,
    }
    medians = in_turns({name: backward(form) for name, form in forms.items()}, rounds)
    chosen = "folded" if memory.folds(u, OUTPUTS[order]) else memory.form(u)
    return {"what": f"memory of order {order}", "batch": batch, "chosen": chosen, **ratios(medians)}


def diagonal_row(batch: int, channels: int, size: int, rounds: int) -> dict[str, Any]:
    """One layer of S4D, form by form."""
    torch.manual_seed(0)
    layer = DiagonalSsm(channels, size)
    u = torch.randn(batch, FRAMES, channels, requires_grad=True)
    zero = layer.initial_state(batch)
    forms: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: layer.one_by_one(u, zero)[0],
        "chunked": lambda: layer(u, zero)[0],
        "convolved": lambda: layer.convolved(u, zero)[0],
        "last": lambda: layer.last(u, zero)[0],
    }
    medians = in_turns({name: backward(form) for name, form in forms.items()}, rounds)
    what = f"S4D layer {channels} x {size // 2}"
    return {"what": what, "batch": batch, "chosen": "chunked", **ratios(medians)}


def ratios(medians: dict[str, float]) -> dict[str, float]:
    found = {f"{name}_s": round(value, 6) for name, value in medians.items()}
    found |= {f"{name}_speedup": round(medians["loop"] / value, 2) for name, value in medians.items() if name != "loop"}
    return found


def batch_of(name: str) -> int:
    return with_changes(Settings(), presets()[name].training).batch


def merged(known: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were known, those measured now in their places or behind them."""
    fresh = {(row["what"], row["batch"]): row for row in measured}
    rows = [fresh.pop((row["what"], row["batch"]), row) for row in known]
    return [*rows, *fresh.values()]


def say(row: dict[str, Any]) -> None:
    speedups = "  ".join(f"{k.removesuffix('_speedup')} {v:.1f} x" for k, v in row.items() if k.endswith("_speedup"))
    asked = row.get("training_batch", row["batch"])
    batch = f"{row['batch']}" if asked == row["batch"] else f"{row['batch']} (training: {asked})"
    print(f"{row['what']:24} batch {batch:20} loop {1e3 * row['loop_s']:8.1f} ms  {speedups}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a preset, memory or diagonal; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # what is left of one frame's gradient hundreds of steps earlier is next to nothing
    rows: list[dict[str, Any]] = []
    if not options.only or "memory" in options.only:
        for batch, order in MEMORIES:
            rows.append(memory_row(batch, order, options.rounds))
            say(rows[-1])
    if not options.only or "diagonal" in options.only:
        for batch, channels, size in DIAGONALS:
            rows.append(diagonal_row(batch, channels, size, options.rounds))
            say(rows[-1])
    for name in presets():
        if options.only and name not in options.only:
            continue
        for batch in sorted({1, batch_of(name)}):
            rows.append(row_of(name, batch, options.rounds))
            say(rows[-1])
    if options.only and options.out and options.out.is_file():
        rows = merged(json.loads(options.out.read_text(encoding="utf-8"))["rows"], rows)
    write_result(options.out, frames=FRAMES, rounds=options.rounds, rows=rows)


if __name__ == "__main__":
    main()
