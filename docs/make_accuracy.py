"""Writes docs/accuracy.md from the committed results of the benchmark: ``python docs/make_accuracy.py``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseq.data import Facts, datasets

TARGET = Path(__file__).with_name("accuracy.md")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

HEAD = """# Accuracy

Written by `python docs/make_accuracy.py` from `benchmarks/results/accuracy.json`, in which every run has a row;
`python benchmarks/accuracy.py` runs what is missing (data sets that do not come with edgeseq are looked for in the
folder that `EDGESEQ_DATA` names). What is planned and was not run is in the tables too: *2 of 5 folds*.

**What is counted.** Five folds by subject: nobody is in two parts. Where nobody knows who was recorded, recordings are
dealt into folds at random; where there is an official split, it is that one. The weights that are kept are those of
the round with the best macro-F1 on validation subjects, and nothing was chosen on test subjects in these runs; but the
sizes and the augmentation of the presets were searched on `spar_watch`, mostly with its test scores in view, and the
training of `l2mu-published` was looked at on a fold of `braille7` (docs/spiking.md). Elsewhere presets are trained as
they are, and with the settings that a section names.

Percent: mean and deviation over the folds, each the mean over its seeds (of an official split, over its seeds); *by
fold* are the accuracies themselves. Accuracy is that of frames, from the one that the section names on, or of segments,
which are answered once, at their end. *Smoothed* is the answer averaged over 1 s. `forest` is a random forest, on
statistics of the last 2 s (of the last second where that much is not left unscored) every 0.1 s, of whole segments, on
cepstra of sound, or on pixels; it has nothing to choose, so it learns from the validation subjects too.
"""
EVENTS = """
**Following changes**: how late and how wrongly, before `edgeseq tune` / after it has chosen a rule on the validation
subjects (by event F1, of changes that are answered against missed ones and false switches; `edgeseq/events.py` has the
definitions). {streams} Delays hold the look-ahead. Means over the runs.

{table}
"""
STITCHED = (
    "Recordings have one label each, so they are joined to a stream for each person, and models run through the seams."
)
AS_THEY_ARE = "Recordings are streams already."
HELD_IN = "the notes that come with the data"
# What others get, or simpler models, by data set: the numbers, and where they are from.
BESIDE = {
    "spar_watch": (
        f"logistic regression 83.6, random forest 85.8 (macro-F1 86.5), of windows of 2 s, five folds: {HELD_IN}",
        "majority vote over whole recordings, 88-90: as above",
    ),
    "geotec_watch": (
        "random forest 86.6 (macro-F1 83.6), of windows of 1 s with the label of their centre, which look half a "
        f"second ahead; 83.9 with windows of 2 s; six folds: {HELD_IN}",
    ),
    "wisdm_watch": (
        f"logistic regression 79.8, random forest 80.4 (macro-F1 80.3), of windows of 2 s, five folds: {HELD_IN}",
    ),
    "uci_har": (
        "logistic regression 92.2, random forest 93.0, of windows of 2.56 s inside one activity, six activities "
        f"without the transitions, the same four test subjects: {HELD_IN}",
    ),
    "braille7": (
        f"logistic regression 89.8, random forest 92.2, on counts in bins of 32 steps, five folds: {HELD_IN}",
        "L2MU 97.14, the spiking network before it 95.0, on a test split that could not be had: B. Leto et al., NICE "
        "2025, doi:10.1109/NICE65350.2025.11065250",
    ),
    "fsdd": (
        "random forest on 20 × 13 cepstra, one speaker left out: 44 (lucas), 61 (nicolas), 77 (yweweler), 88 "
        f"(jackson), 95 (theo), 73 on average; on the official split, of speakers who were heard, 94.4: {HELD_IN}",
    ),
    "psmnist": (
        "LMU 97.15 (A. R. Voelker et al., NeurIPS 2019), feed-forward LMU 98.49 (N. R. Chilkuri, C. Eliasmith, ICML "
        "2021), each on a permutation of its own",
    ),
}


def room() -> tuple[Any, Any]:
    """The benchmark and its tables, which are scripts beside each other."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import accuracy
        import accuracy_table
    finally:
        sys.path.remove(str(BENCHMARKS))
    return accuracy, accuracy_table


def section(facts: Facts, plan: Any, rows: Sequence[Any]) -> str:
    """One data set: what it is and how it was split, the tables, what others get, and where it was run."""
    benchmark, tables = room()
    name = facts.name
    seeds = {row.model: row.seed + 1 for row in sorted(rows, key=lambda row: row.seed)}
    wanted = [
        benchmark.Wanted(model, plan.folds, max(benchmark.SEEDS.get(model, 1), seeds.get(model, 1)))
        for model in plan.models
    ]
    made = f"\n## {name}\n\n{_protocol(facts, plan, benchmark.OFFICIAL)}\n\n{tables.table(rows, name, wanted)}\n"
    found = tables.event_table(rows, name, wanted)
    if found:
        made += EVENTS.format(table=found, streams=AS_THEY_ARE if name in CHANGING else STITCHED)
    if name in BESIDE:
        made += "\nBeside it, in percent:\n\n" + "".join(f"{filled('- ' + each, '  ')}\n" for each in BESIDE[name])
    return made + (f"\n{_machines(rows)}\n" if rows else "")


CHANGING = ("geotec_watch", "uci_har")  # data sets whose recordings hold changes of the label
UNSCORED = {"geotec_watch": 0.5}  # seconds at the start of a recording; of the others 2


def _protocol(facts: Facts, plan: Any, official: int) -> str:
    """What the data are, how they are split and what is counted, in a paragraph."""
    people = f"{facts.subjects} subjects" if facts.subjects else "nobody knows whose"
    parts = [f"{facts.summary[0].upper()}{facts.summary[1:]}: {facts.recordings:,} recordings, {people}."]
    if plan.folds == (official,):
        parts.append("The official split.")
    elif len(plan.folds) < 5:
        parts.append(
            f"Folds {', '.join(map(str, plan.folds))} of five: in the other a label would not be learned from."
        )
    if facts.task == "frame":
        parts.append(f"Frames after the first {UNSCORED.get(facts.name, 2.0):g} s of each recording are scored.")
    for model, changes in plan.changes.items():
        changed = ", ".join(f"`{name}={value}`" for name, value in changes.items())
        parts.append(f"`{model}` is trained with {changed}.")
    return filled(" ".join(parts))


def filled(text: str, indent: str = "") -> str:
    """The text in lines of at most 120 characters, the later ones indented."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _machines(rows: Sequence[Any]) -> str:
    machines = sorted({row.machine for row in rows})
    versions = {
        name: sorted({row.versions[name] for row in rows if name in row.versions})
        for name in ("python", "edgeseq", "torch", "numpy")
    }
    said = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items() if found)
    return filled(f"Run on {'; '.join(machines)} ({said}); one thread a run.")


def document() -> str:
    """The whole page."""
    benchmark, tables = room()
    facts = {each.name: each for each in datasets()}
    rows = tables.read(benchmark.RESULTS)
    return HEAD + "".join(
        section(facts[name], plan, [row for row in rows if row.data == name]) for name, plan in benchmark.PLANS.items()
    )


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
