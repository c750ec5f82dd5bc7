"""Writes docs/compression.md from the committed results of the benchmark: ``python docs/make_compression.py``."""

from __future__ import annotations

import sys
from pathlib import Path

TARGET = Path(__file__).with_name("compression.md")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

HEAD = """# Compression

Written by `python docs/make_compression.py` from `benchmarks/results/compression.json`, in which every model has a
row, and `compression_times.json`; `python benchmarks/compression.py` makes what is missing, `--times` measures the
steps.

`spar_watch`: five folds, two people each that no model has seen; the weights are those of the round with the best
macro-F1 on one more person, and nothing is chosen by the test. *Points* are of macro-F1, against the float32 model of
the same fold and seed: the mean over the folds and half of its 95 % interval over them. With ten people an interval
is wide: where it holds 0, nothing is shown. Every model is trained on with the defaults of its stage, found on the
validation person of fold 0; quantized distillation and differentiable quantization learn from the float32 model's
answers beside the labels, as they are meant to, the others from the labels alone.

*Shipped* is what the weights take in `weights.packed`: every tensor at its true size, Huffman coded where that is
shorter (of float32 models, the plain numbers). *Smaller* is against the demo's teacher, a GRU of 2 × 64. *File* is
the smaller of the ONNX and the TFLite file, which hold weights of 4 bits or fewer as int8 or as float32: no kernel
has them. *Zeros* save bytes in `weights.packed`; no engine computes fewer products for them, as *MACs* say. *Paced*
is the median step at
50 Hz in the faster of LiteRT and ONNX Runtime, all models of a family in turns in one
process{on}.
Files and steps are of fold 0's models, made once more for their shapes: what units are cut from was trained in full,
what came of it for one round, since neither bytes nor products depend on what is learned then.
"""


def document() -> str:
    """The page, of the rows that are there."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from compression_table import read, read_times, tables
    finally:
        sys.path.remove(str(BENCHMARKS))
    times = read_times()
    on = f" on {times.machine}" if times.machine else ""
    return f"{HEAD.replace('{on}', on)}\n{tables(read(), times).rstrip()}\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
    print(f"wrote {TARGET}")
