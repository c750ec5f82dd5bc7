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
folder that `EDGESEQ_DATA` names). What is planned and was not run yet is said: *2 of 5 × 1* is two runs of five folds
and one seed.

**What is counted.** Five folds by subject: nobody is in two parts. Where nobody knows who was recorded, recordings are
dealt into folds at random. Where a section says so, it is an official split. The weights that are kept are those of
the round with the best macro-F1 on validation subjects, and no run chooses anything on its test subjects. But they were
in view before: the sizes and the augmentation of the presets were searched on `spar_watch`, mostly with its test scores
in view; the training of `l2mu-published` was looked at on a fold of `braille7` (docs/spiking.md); and sections name
what else was looked at. Presets are trained as they are, and with the settings that a section names.

Percent: mean and deviation over the folds, each the mean over its seeds (of an official split, over its seeds); *by
fold* are the accuracies themselves. Accuracy is that of frames, from the one that the section names on, or of segments,
which are answered once, at their end. *Smoothed* is the answer averaged over 1 s. `forest` is a random forest, on
statistics of the last 2 s (where less is left unscored, of the last second, or of what there is of it) every 0.1 s
from the same frame on, of whole segments, on cepstra of sound, or on pixels; it has nothing to choose, so it learns
from the validation subjects too. `majority` always answers the label that the training subjects have most of.
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


# What is to be known of how a data set was split and what was chosen in view of which scores, beside its facts.
NOTES = {
    "uci_har": (
        "Of the nine official test subjects four are here; the validation subjects, 27 to 30 of the official training "
        "subjects, are ours. Other rotations in the augmentation were tried with the test subjects in view, and the "
        "presets' was left as it was."
    ),
    "fsdd": (
        "There is an official split by take, in which every speaker is heard in training; it is not used: speakers are "
        "kept apart, each tested in one fold. The augmentation of sound and the floor of the front end (1e-5) were "
        "compared on folds 1 and 3, and the read-out of `lmuformer-causal` on folds 0 to 2, with their test scores in "
        "view."
    ),
    "psmnist": (
        "Dropout and learning rate of `lmu-published` were chosen on its validation part, with the test score in view."
    ),
}


def room() -> tuple[Any, Any]:
    """What the benchmark plans and its tables, which are scripts beside each other."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import accuracy_plans
        import accuracy_table
    finally:
        sys.path.remove(str(BENCHMARKS))
    return accuracy_plans, accuracy_table


def section(facts: Facts, plan: Any, rows: Sequence[Any]) -> str:
    """One data set: what it is and how it was split, the tables, what others get, and where it was run."""
    plans, tables = room()
    name = facts.name
    seeds = {row.model: row.seed + 1 for row in sorted(rows, key=lambda row: row.seed)}
    wanted = [
        tables.Wanted(model, plan.folds, max(plans.SEEDS.get(model, 1), seeds.get(model, 1))) for model in plan.models
    ]
    made = f"\n## {name}\n\n{_protocol(facts, plan, tables.OFFICIAL)}\n\n{tables.table(rows, name, wanted)}\n"
    found = tables.event_table(rows, name, wanted)
    if found:
        made += EVENTS.format(table=found, streams=AS_THEY_ARE if facts.changing else STITCHED)
    if name in BESIDE:
        made += "\nBeside it, in percent:\n\n" + "".join(f"{filled('- ' + each, '  ')}\n" for each in BESIDE[name])
    return made + (f"\n{_machines(rows)}\n" if rows else "")


def _protocol(facts: Facts, plan: Any, official: int) -> str:
    """What the data are, how they are split and what is counted, in a paragraph."""
    people = f"{facts.subjects} subjects" if facts.subjects else "nobody knows whose"
    parts = [f"{facts.summary[0].upper()}{facts.summary[1:]}: {facts.recordings:,} recordings, {people}."]
    if plan.folds == (official,):
        parts.append("The official split.")
    parts += [NOTES[facts.name]] if facts.name in NOTES else []
    if facts.task == "frame":
        parts.append(f"Frames after the first {facts.unscored:g} s of each recording are scored.")
    changed: dict[str, list[str]] = {}  # the models with the same changes
    for model, changes in plan.changes.items():
        changed.setdefault(", ".join(f"`{name}={value}`" for name, value in changes.items()), []).append(f"`{model}`")
    parts += [f"With {changes}: {', '.join(models)}." for changes, models in changed.items()]
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
    plans, tables = room()
    facts = {each.name: each for each in datasets()}
    rows = tables.read(tables.RESULTS)
    return HEAD + "".join(
        section(facts[name], plan, [row for row in rows if row.data == name]) for name, plan in plans.PLANS.items()
    )


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
