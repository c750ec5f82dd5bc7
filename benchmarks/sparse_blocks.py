"""What a step of a wired recurrent network costs against the dense one, by the size of its blocks.

    python benchmarks/sparse_blocks.py [--rounds 60] [--out benchmarks/results/sparse_blocks.json]

One layer of gated recurrent units of random weights: dense (``rnn``), and wired by a ring of nodes that each read their
two neighbours and themselves (``sparse_rnn``). Called by hand in turns, as benchmarks/memory_forms.py does it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from memory_forms import CHUNK, INPUTS, LABELS, litert, onnxruntime
from side_by_side import Call, in_turns, write_result

from edgeseq.export.capture import capture
from edgeseq.export.lower import lower
from edgeseq.export.onnx_writer import write_onnx
from edgeseq.export.tflite_writer import write_tflite
from edgeseq.models.registry import build
from edgeseq.program import cost

SIZES = {96: (8, 16, 24), 256: (8, 16, 32, 64), 512: (16, 32, 64, 128)}  # hidden units: units of a node
ENGINES = ("litert", "onnxruntime")


def models(hidden: int) -> dict[int, Any]:
    """The dense network as block 0, and the wired ones by the size of their blocks."""
    torch.manual_seed(0)
    made = {0: build("rnn", INPUTS, LABELS, {"hidden": hidden})}
    for block in SIZES[hidden]:
        made[block] = build("sparse_rnn", INPUTS, LABELS, {"nodes": hidden // block, "neighbours": 2, "block": block})
    return {block: model.eval() for block, model in made.items()}


def measure(hidden: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    calls: dict[tuple[str, int], Call] = {}
    rows: dict[int, dict[str, Any]] = {}
    for block, model in models(hidden).items():
        program = capture(lower(model))
        write_tflite(program, folder / f"{block}.tflite", name="step")
        write_onnx(program, folder / f"{block}.onnx", name="step")
        calls["litert", block] = litert(folder / f"{block}.tflite", program.state_size)
        calls["onnxruntime", block] = onnxruntime(folder / f"{block}.onnx", program.state_size)
        spent = cost(program)
        share = model.facts().get("products_share", 1.0)
        rows[block] = {"hidden": hidden, "block": block, "share": round(share, 4), "macs": spent.macs}
    medians = in_turns(calls, rounds, CHUNK)
    for engine in ENGINES:
        for block, row in rows.items():
            row[f"{engine}_us"] = round(1e6 * medians[engine, block], 2)
            row[f"{engine}_ratio"] = round(medians[engine, block] / medians[engine, 0], 3)
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, help="write the rows, with machine and versions, to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for hidden in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(hidden, options.rounds, Path(folder))
    for row in rows:
        kind = f"blocks of {row['block']}" if row["block"] else "dense"
        print(
            f"hidden {row['hidden']:4} {kind:14} {100 * row['share']:5.1f} % {row['macs']:9,} MACs   "
            f"{row['litert_ratio']:6.2f} x in LiteRT, {row['onnxruntime_ratio']:6.2f} x in ONNX Runtime",
            file=sys.stderr,
        )
    write_result(options.out, rounds=options.rounds, rows=rows)


if __name__ == "__main__":
    main()
