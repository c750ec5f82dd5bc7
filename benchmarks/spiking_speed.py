"""How much faster a population of spiking neurons trains fused over time than step by step.

    python benchmarks/spiking_speed.py                    # printed
    python benchmarks/spiking_speed.py --compile --out FILE

One call forward and backward in float32, one thread: ``loop`` is the loop of ``Neurons.step``, ``fused`` what training
uses, ``snntorch`` the loop of snnTorch's module where it is installed. ``--compile`` adds the loop under torch.compile,
which needs a compiler on the machine and minutes. ``l2mu`` is the published model for Braille letters as a whole, at
batch 64 and 1: its fused loop, and for ``snntorch`` its equations by snnTorch's modules, as its authors have them.
In turns, the order shuffled each round; medians and ratios to loop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from side_by_side import Call, in_turns, write_result
from torch import Tensor

from edgeseq.models.l2mu import L2mu
from edgeseq.models.neurons import Neurons
from edgeseq.models.registry import presets

BATCH, FRAMES = 64, 256
L2MU_BATCHES = (64, 1)
SIZES = (70, 120, 490)
KINDS: dict[str, dict[str, Any]] = {
    "leaky": {},
    "synaptic": {"alpha": 0.7},
    "spikingjelly": {"beta": 0.5, "decay_input": True, "reset": "zero", "delay": False, "surrogate": "sigmoid"},
}


def loop(model: Neurons, current: Tensor) -> Tensor:
    state, kept = model.initial_state(current.shape[0]), []
    for current_t in current.unbind(1):
        spikes, state = model.step(current_t, state)
        kept.append(spikes)
    return torch.stack(kept, 1)


def snntorch_loop(model: Neurons) -> Callable[[Tensor], Tensor]:
    """The same neurons by snnTorch's module, its states carried by us."""
    import snntorch

    learned = {"learn_beta": True, "learn_threshold": True}
    if model.alpha is None:
        theirs: Any = snntorch.Leaky(beta=0.9, **learned)
    else:
        theirs = snntorch.Synaptic(alpha=0.7, beta=0.9, learn_alpha=True, **learned)

    def run(current: Tensor) -> Tensor:
        carried, kept = list(model.initial_state(current.shape[0]).values()), []
        for current_t in current.unbind(1):
            spikes, *carried = theirs(current_t, *carried)
            kept.append(spikes)
        return torch.stack(kept, 1)

    return run


def calls(kind: str, size: int, *, compiled: bool) -> dict[str, Call]:
    torch.manual_seed(0)
    model = Neurons(size, **KINDS[kind])
    current = torch.randn(BATCH, FRAMES, size, requires_grad=True)
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "loop": lambda x: loop(model, x),
        "fused": lambda x: model(x)[0],
    }
    if kind != "spikingjelly" and find_spec("snntorch"):
        forms["snntorch"] = snntorch_loop(model)
    if compiled:
        forms["compiled"] = torch.compile(lambda x: loop(model, x))
    upstream = torch.randn(BATCH, FRAMES, size)
    return {name: backward(form, current, upstream) for name, form in forms.items()}


def backward(form: Callable[[Tensor], Tensor], current: Tensor, upstream: Tensor) -> Call:
    def call() -> None:
        current.grad = None
        form(current).backward(upstream)

    return call


def l2mu_by_snntorch(model: L2mu) -> Callable[[Tensor], Tensor]:
    """The count of output spikes (B, K) by the authors' way: a map and a module of snnTorch for each population."""
    import snntorch

    neurons = {
        name: snntorch.Leaky(
            beta=own.beta.item(), threshold=own.threshold.item(), learn_beta=True, learn_threshold=True
        )
        for name, own in model.populations().items()
    }

    def run(x: Tensor) -> Tensor:
        state = model.initial_state(x.shape[0])
        carried = {name: state[f"{name}.membrane"] for name in neurons}
        h, m, total = state["h.spikes"], state["m.spikes"], state["readout.sum"]

        def fire(name: str, current: Tensor) -> Tensor:
            spikes, carried[name] = neurons[name](current, carried[name])
            return spikes

        for x_t in x.unbind(1):
            into_u, into_h = model.from_input(x_t).split([model.memories, model.hidden], 1)
            u = fire("u", into_u + model.to_u(torch.cat([h, m], 1)))
            windows = m.unflatten(1, (model.memories, model.order)) @ model.A.T + u[..., None] * model.B
            m = fire("m", windows.flatten(1))
            h = fire("h", into_h + model.to_h(torch.cat([h, m], 1)))
            total = total + fire("out", model.readout(h))
        return total

    return run


def l2mu_calls(batch: int) -> dict[str, Call]:
    torch.manual_seed(0)
    model = L2mu(12, 7, **presets()["l2mu-published"].arguments)
    x, upstream = (torch.rand(batch, FRAMES, 12) < 0.05).float(), torch.randn(batch, 7)
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "loop": lambda x: model.run_steps(x)[0][:, -1],
        "fused": lambda x: model(x)[0][:, -1],
    }
    if find_spec("snntorch"):
        forms["snntorch"] = l2mu_by_snntorch(model)
    return {name: backward(form, x, upstream) for name, form in forms.items()}


def row_of(kind: str, size: int, medians: dict[str, float]) -> dict[str, Any]:
    found = {f"{name}_s": round(value, 6) for name, value in medians.items()}
    found |= {f"{name}_speedup": round(medians["loop"] / value, 2) for name, value in medians.items() if name != "loop"}
    return {"what": kind, "neurons": size, **found}


def say(row: dict[str, Any]) -> None:
    speedups = "  ".join(f"{k.removesuffix('_speedup')} {v:.1f} x" for k, v in row.items() if k.endswith("_speedup"))
    print(f"{row['what']:14} {row['neurons']:4}  loop {1e3 * row['loop_s']:8.1f} ms  {speedups}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="measure the loop under torch.compile too")
    parser.add_argument("--only", choices=[*KINDS, "l2mu"], action="append", help="may be repeated")
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = []
    for kind in options.only or KINDS:
        for size in SIZES if kind in KINDS else ():
            rows.append(row_of(kind, size, in_turns(calls(kind, size, compiled=options.compile), options.rounds)))
            say(rows[-1])
    for batch in L2MU_BATCHES if "l2mu" in (options.only or ["l2mu"]) else ():
        rows.append({**row_of("l2mu", 687, in_turns(l2mu_calls(batch), options.rounds)), "batch": batch})
        say(rows[-1])
    write_result(options.out, batch=BATCH, frames=FRAMES, rounds=options.rounds, rows=rows)


if __name__ == "__main__":
    main()
