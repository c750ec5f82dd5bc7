"""Writes docs/reber.md from the committed results of the benchmark: ``python docs/make_reber.py``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("reber.md")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NOT_YET = "Not run yet."

HEAD = """# Pruned recurrent networks, beside a thesis

Written by `python docs/make_reber.py` from `benchmarks/results/reber.json`, in which every run has a row;
`python benchmarks/reber.py` runs what is missing.

H. Darji, "Investigating Sparsity in Recurrent Neural Networks" (code and results:
<https://github.com/harshildarji/thesis>), trains small recurrent networks to tell strings of Reber's grammar from
others, takes weights out of them, and wires others by random graphs. Here the same is done with edgeseq's own cells and
pruning, with the thesis's numbers beside ours. Accuracies are percent of the test strings.

**The strings.** 12,500 of Reber's grammar, by a fair coin at every state, none twice, none shorter than 11 letters; and
12,500 that are not. Those of the thesis are no random letters: all come from eight other automata with the same ten
arcs. Four of them (5,500 strings) have Reber's own letters in other places, the other four letters that Reber's has
not, which one letter betrays. No generator was published with them; ours was made to agree with the published strings
in their lengths, automaton by automaton. Three quarters are trained on, and of these a tenth is kept for whatever is
chosen; the thesis trains on all of them and chooses nothing.

**What is different.** The thesis fills strings up with zeros to the longest of their batch and reads the answer behind
them; here it is read at a string's own last letter, and strings of about the same length share a batch. The weights
kept are those of the epoch with the best accuracy on validation strings. The embedding is a linear map of 26 letters,
not of 128 characters, and the read-out and the layers have the thesis's sizes: three layers of 50. Adam at 1e-3,
cross-entropy, gradients clipped at 5. Training: {training}.
"""
BASE = """
## Before anything is taken out

By automaton (0 is Reber's) the share of its strings that is answered rightly. *One letter wrong*: of the valid test
strings, each with one letter exchanged for another of Reber's so that it is not valid any more, the share that is
refused. None of the nine automata has such strings, and none is learned from: what a model learned to refuse are the
eight automata.

{table}
"""
WEIGHTS = """
## Weights set to 0

The share of all weights of the three layers' matrices, input to hidden and hidden to hidden, that one threshold on
their magnitude takes out; biases stay, and what is gone stays gone. Right after that, and after one epoch of training
with a fresh optimizer. Of less than 50 % the thesis has about the accuracy of the base, and two of its numbers after
the epoch are known here. Last, of the retrained model, the harder strings.

{table}
"""
UNITS = """
## Whole units taken out

The share of the *parameters* that goes with whole units, of the hidden layers and of the embedding, where they matter
least to first order for the loss on training strings (`edgeseq prune --structured`). The thesis has nothing like it.

{table}
"""
SPEED = """
## What it gives at the same accuracy

Per cell the dense model, that with the largest share of weights set to 0, and that with the largest share of parameters
taken out, both of 10, 20 … 90 %, whose accuracy on the validation strings is within 0.1 points of the dense model's
after one epoch of training. Test accuracy, what is there, and the median time of a step: in a tight loop, and paced at
100 letters a second. The models of a cell were timed in turns, in one process; in brackets how many times faster than
the dense one. Zeros are products like all others to both engines.{refused}

{table}
"""
REFUSED = """

No times of {cells}: its state grows without bound when strings follow each other without a reset, as they do in a
stream, and `edgeseq export` refuses it ("is not stable")."""
WIRED = """
## Wired by random graphs

{number} graphs of each kind, the same for all cells, of 10 to 50 nodes; `watts_strogatz` with a fifth as many
neighbours, all rewired, `barabasi_albert` with a tenth as many edges for each node that comes. In the thesis a graph
is given directions and layers and masks the weights *between layers*, with 100 graphs of each kind. In edgeseq's
`sparse_rnn` it says which hidden units of one layer read *each other*, one unit a node, and the input is read in full:
so the numbers are beside each other, and are not of the same thing. Training: {training}.

{means}

Pearson's correlation of test accuracy with the properties of the graphs, both kinds together; empty where edgeseq's
graphs, which have no directions, have no such thing, or where all models are equally good. With {pairs} graphs a
correlation below {chance:.2f} in size may be chance.

{table}
"""


def room() -> Any:
    """The benchmark's tables, a script beside others."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import reber_table
    finally:
        sys.path.remove(str(BENCHMARKS))
    return reber_table


def document(rows: Sequence[Any] | None = None) -> str:
    """The whole page, of the committed rows by default."""
    tables = room()
    rows = tables.read(tables.RESULTS) if rows is None else rows
    pairs = tables.NUMBER * len(tables.GRAPHS)
    sections = [
        HEAD.format(training=tables.trained(rows, "base")),
        BASE.format(table=tables.base_table(rows) or NOT_YET),
        WEIGHTS.format(table=tables.ladder_table(rows, "weights") or NOT_YET),
        UNITS.format(table=tables.ladder_table(rows, "units") or NOT_YET),
        SPEED.format(table=tables.speed_table(rows) or NOT_YET, refused=refused(tables.refused_cells(rows))),
        WIRED.format(
            number=tables.NUMBER,
            training=tables.trained(rows, "graph"),
            means=tables.graph_table(rows) or NOT_YET,
            pairs=pairs,
            chance=2 / pairs**0.5,
            table=tables.correlation_table(rows) or NOT_YET,
        ),
    ]
    return "".join(sections) + machines(rows)


def refused(cells: Sequence[str]) -> str:
    """What is said of cells that have no times."""
    return REFUSED.format(cells=" and ".join(cells)) if cells else ""


def machines(rows: Sequence[Any]) -> str:
    """Where the runs were made, and how long they took."""
    if not rows:
        return ""
    names = sorted({row.machine for row in rows})
    versions = {name: sorted({row.versions[name] for row in rows}) for name in ("python", "edgeseq", "torch")}
    said = ", ".join(f"{name} {' and '.join(each)}" for name, each in versions.items())
    hours = sum(row.seconds for row in rows) / 3600
    text = f"Run on {'; '.join(names)} ({said}); one thread a run, {len(rows)} runs, {hours:.1f} hours together."
    return f"\n{textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)}\n"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
