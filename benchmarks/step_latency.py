"""A step in every engine beside what one would take without edgeseq: torch, torch.compile, torch's own layers in ONNX
Runtime, ExecuTorch.

    python benchmarks/step_latency.py            # measures the models that are missing, then prints the tables
    python benchmarks/step_latency.py --table    # prints the tables only

Presets for a watch, of 6 channels at 50 Hz, kept in ``--work``, as floats and calibrated to int8. They are trained a
little: their weights decide nothing here, but one that tells nothing apart may fail the proof in int8, where every
rounding turns its answer. Each contestant gets a frame as a numpy array and gives logits as one, the state carried, one
thread; each must first give the answers of the step program. All contestants of a model take turns in one run, in an
order that is shuffled each round: chunks of calls without a pause (``tight``), then stretches at the sensor's rate
(``paced``). A ratio is the median over the rounds of a contestant's median by that of LiteRT in float32 in the same
round, so that what a shared machine does meanwhile meets both.

Rows of ``benchmarks/results/step_latency.json`` are measured again where versions, machine or settings have changed.

ExecuTorch brings a torch of its own: it needs an environment for itself, which ``make step-latency`` sets up, and
without it its rows are left out.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import numpy as np
from processes import count
from side_by_side import described
from step_contestants import RUNNERS, Contestant, check, engine
from step_executorch import in_executorch
from step_torch import fused_layers, torch_steps

from edgeseq.devices.golden import read_golden
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "step_latency.json"
DATA, MODELS = "spar_watch", ("gru", "lstm", "lmu")
BASELINE = ("litert", "fp32")
CHUNK = 50  # calls without a pause before the next contestant has its turn
SHOWN = {
    "litert": "LiteRT",
    "litert-builtin": "LiteRT, builtin kernels",
    "onnxruntime": "ONNX Runtime",
    "numpy": "numpy",
    "torch-eager": "torch",
    "torch-compile": "torch.compile",
    "torch-layer": "torch's layer",
    "torch-layer-onnxruntime": "torch's layer by torch.onnx, ONNX Runtime",
    "torch-layer-onnxruntime-bound": "the same with bound buffers",
    "executorch": "ExecuTorch, XNNPACK",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant with one model. Microseconds; ratios are to LiteRT in float32."""

    model: str
    precision: str
    contestant: str
    runtime: str
    tight_p50: float
    tight_p99: float
    tight_ratio: float
    paced_p50: float
    paced_p99: float
    paced_ratio: float
    tight_samples: int
    paced_samples: int
    parameters: int
    recipe: str
    machine: str
    provenance: str


class Settings(msgspec.Struct, frozen=True):
    """So many rounds of ``CHUNK`` calls, and so many stretches of seconds at ``rate`` Hz."""

    rounds: int
    turns: int
    seconds: float
    rate: float


def folders(work: Path, model: str) -> tuple[Folder, Folder]:
    """The exported float model and its int8 form, made where they are not there."""
    from edgeseq.export.stage import export
    from edgeseq.quant.quantize_stage import quantize
    from edgeseq.training.stage import train

    names = {name: work / f"{model}{name}" for name in ("", "-export", "-int8", "-int8-export")}
    steps = {
        "": lambda out: train(DATA, out, preset=model, changes={"rounds": 6}),
        "-export": lambda out: export(names[""], out),
        "-int8": lambda out: quantize(names[""], out, method="ptq"),
        "-int8-export": lambda out: export(names["-int8"], out),
    }
    for name, make in steps.items():
        try:
            open_folder(names[name])
        except InputError:
            print(f"making {names[name]}", file=sys.stderr)
            make(names[name])
    return open_folder(names["-export"]), open_folder(names["-int8-export"])


@contextmanager
def contestants(plain: Folder, small: Folder, executorch: Path) -> Iterator[list[Contestant]]:
    """All that can take part; ``executorch`` is the Python of its environment, if it is there.

    Raises:
        GateFailed: one does not give the answers of the step program.
    """
    import torch

    torch.set_num_threads(1)
    frames = list(read_golden(plain).frames)
    with ExitStack() as opened:
        found = [engine(folder, name, frames) for folder in (plain, small) for name in RUNNERS]
        found += [*torch_steps(plain, frames), *fused_layers(plain, frames)]
        if executorch.exists():
            found.append(opened.enter_context(in_executorch(plain, frames, executorch)))
        else:
            print(f"without ExecuTorch: there is no {executorch}", file=sys.stderr)
        references = {each.precision: each for each in found if each.name == "numpy"}
        for each in found:
            check(each, references[each.precision])
        gc.collect()
        gc.freeze()  # what was loaded so far is not looked through again while something is timed
        yield found


def measure(found: Sequence[Contestant], settings: Settings, seed: int = 0) -> tuple[list[list[list[int]]], ...]:
    """Nanoseconds of each contestant by round, tight and paced; the first tenth of the tight rounds is not kept."""
    order, frames = random.Random(seed), max(1, round(settings.seconds * settings.rate))
    places = list(range(len(found)))
    tight, paced = ([[] for _ in found] for _ in range(2))
    warm = max(1, settings.rounds // 10)
    for number in range(warm + settings.rounds):
        order.shuffle(places)
        for place in places:
            taken = found[place].tight(number * CHUNK, CHUNK)
            if number >= warm:
                tight[place].append(taken)
    for number in range(settings.turns):
        order.shuffle(places)
        for place in places:
            paced[place].append(found[place].paced(number * frames, frames, settings.rate))
    return tight, paced


def quantiles(rounds: Sequence[Sequence[int]]) -> tuple[float, float]:
    p50, p99 = np.percentile(np.concatenate(rounds), (50, 99)) / 1e3
    return round(float(p50), 2), round(float(p99), 2)


def ratio(rounds: Sequence[Sequence[int]], baseline: Sequence[Sequence[int]]) -> float:
    pairs = zip(rounds, baseline, strict=True)
    return round(statistics.median(statistics.median(own) / statistics.median(base) for own, base in pairs), 3)


def rows_of(model: str, plain: Folder, small: Folder, settings: Settings, executorch: Path) -> list[Row]:
    facts, rows = described(), []
    with contestants(plain, small, executorch) as found:
        tight, paced = measure(found, settings)
        base = next(i for i, each in enumerate(found) if (each.name, each.precision) == BASELINE)
        for i, each in enumerate(found):
            calm, rated = quantiles(tight[i]), quantiles(paced[i])
            rows.append(
                Row(
                    **{"model": model, "precision": each.precision, "contestant": each.name, "runtime": each.runtime},
                    **dict(zip(("tight_p50", "tight_p99", "paced_p50", "paced_p99"), (*calm, *rated), strict=True)),
                    tight_ratio=ratio(tight[i], tight[base]),
                    paced_ratio=ratio(paced[i], paced[base]),
                    tight_samples=sum(map(len, tight[i])),
                    paced_samples=sum(map(len, paced[i])),
                    parameters=plain.manifest.parameters or 0,
                    recipe=recipe(settings, executorch),
                    machine=facts["machine"],
                    provenance=facts["provenance"],
                )
            )
    return rows


def recipe(settings: Settings, executorch: Path) -> str:
    """What decides a measurement: settings, versions, the machine, and whether ExecuTorch takes part."""
    decides = [msgspec.to_builtins(settings), versions(), described()["machine"], executorch.exists()]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def read(results: Path) -> list[Row]:
    return msgspec.json.decode(results.read_bytes(), type=list[Row]) if results.is_file() else []


def write(results: Path, rows: Sequence[Row]) -> None:
    staging = results.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    staging.replace(results)


def tables(rows: Sequence[Row]) -> str:
    """One table a model, in Markdown."""
    parts = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        parts += [
            f"{model}, {own[0].parameters:,} parameters; microseconds a step on {own[0].machine}\n",
            "| | | tight p50 | p99 | × LiteRT | paced p50 | p99 | × LiteRT |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for row in own:
            tight = f"{row.tight_p50:.1f} | {row.tight_p99:.1f} | {row.tight_ratio:.2f}"
            paced = f"{row.paced_p50:.0f} | {row.paced_p99:.0f} | {row.paced_ratio:.2f}"
            parts.append(f"| {SHOWN[row.contestant]} | {row.precision} | {tight} | {paced} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), choices=MODELS)
    add("--rounds", type=count, default=400, help=f"chunks of {CHUNK} calls of each without a pause")
    add("--turns", type=count, default=6, help="stretches of each at the sensor's rate")
    add("--seconds", type=float, default=5.0, help="of a stretch")
    add("--rate", type=float, default=50.0, help="steps a second")
    add("--work", type=Path, default=ROOT / "runs" / "step_latency", help="where the models are kept")
    add(
        "--executorch", type=Path, default=ROOT / ".venv-executorch" / "bin" / "python", help="its environment's Python"
    )
    add("--out", type=Path, default=RESULTS)
    add("--table", action="store_true", help="print the tables of what is there, run nothing")
    options = parser.parse_args()
    settings, rows = Settings(options.rounds, options.turns, options.seconds, options.rate), read(options.out)
    try:
        for model in [] if options.table else options.models:
            wanted = recipe(settings, options.executorch)
            if wanted in {row.recipe for row in rows if row.model == model}:
                continue
            plain, small = folders(options.work, model)
            print(f"measuring {model}", file=sys.stderr)
            made = rows_of(model, plain, small, settings, options.executorch)
            rows = [*(row for row in rows if row.model != model), *made]
            write(options.out, rows)
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(tables(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
