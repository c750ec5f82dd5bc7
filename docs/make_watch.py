"""Writes docs/watch.md from the committed results of the benchmark: ``python docs/make_watch.py``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("watch.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
Row = dict[str, Any]
SETS = {"spar_watch": "accelerometer, gyroscope", "spar_watch_acc": "accelerometer"}

HEAD = """# The watch models: how right, how soon, how often wrongly

Written by `python docs/make_watch.py` from `benchmarks/results/watch.json`;
`python benchmarks/watch.py --keep runs --out benchmarks/results/watch.json` measures it anew, and `edgeseq report`
sets the same numbers beside any models of yours.

Three models come with edgeseq. `har_watch` (int8) and `har_watch_fp32` read an accelerometer and a gyroscope,
`har_watch_acc` (int8) an accelerometer alone: for a Bangle.js, or wherever only one is sent. All name seven shoulder
exercises, 50 times a second, and learned from subjects 4 to 10 of `spar_watch`; subject {validation} chose the weights;
scored are subjects {test}, whom none has met. Two people say little of a third: between the five pairs of
[accuracy.md](accuracy.md) the same model differs by more than anything here, and these two are the hardest for `lmu`.

**What is counted.** Accuracy and macro-F1: percent of the frames after the first 2 s of each recording, each answered
by itself. The rest is of streams: a person's recordings one after another in {orders} orders, through the seams of
which the state is carried: {events} changes in {minutes:.0f} minutes. *Delay*: seconds from a change to its first
answer, of those that are answered; *missed* are the others, in percent. A *false switch* is to what is not so, and
was not in the second before; F1 weighs answered changes against missed ones and false switches (`edgeseq/events.py`).
*Right*: percent of the time in which the answer, as it was said then, is true. Each is given for the answers of each
frame alone, and averaged over 1 s, which is the rule that the models come with. The *forest* is a random forest on
statistics of the last 2 s, asked every 0.1 s; its answer stands until the next, and it learns from the validation
subject too.

## As they come

| model | reads | accuracy | macro-F1 | answers | delay, median | p90 | missed | false switches an hour | F1 | right |
|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|
{shipped}

Models are run in {engine}; of the forests means over {seeds} seeds.

{verdict}

## Over seeds

Mean and deviation over {seeds} seeds of the training, in torch, answers averaged over 1 s.

| data | model | accuracy | macro-F1 | delay, median | p90 | missed | false an hour | F1 | validation macro-F1 |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
{trained}

The preset was searched with a gyroscope, mostly with test scores in view (docs/accuracy.md); without one nothing was
tried but these seeds. Of them `har_watch_acc` is the one with the best macro-F1 on the validation subject in int8,
{chosen:.1f} %: seed {seed}.

## As a Bangle.js sends it

A Bangle.js says 12.5 times a second what its accelerometer finds, in hundredths of g; lines between its readings make
them 50 frames. The test recordings, thinned out and rounded so, through the framer of a live stream: `har_watch_acc`
is right in {bangle:.1f} % of the frames, and of the recordings as they are in {plain:.1f} %. No Bangle.js was there:
its sensor, and how it is worn, are not in this number.
"""


def document() -> str:
    """The page."""
    found = json.loads((RESULTS / "watch.json").read_text(encoding="utf-8"))
    rows, shipped = found["rows"], found["shipped"]
    (without,) = (row for row in shipped if "bangle" in row)
    first = shipped[0]["follows"][0]
    own = [row for row in rows if (row["data"], row["kind"]) == ("spar_watch_acc", "int8")]
    best = max(own, key=lambda row: float(row["validation_macro_f1"]))
    return HEAD.format(
        validation=", ".join(found["validation"]),
        test=" and ".join(found["test"]),
        orders=first["orders"],
        events=first["events"],
        minutes=60 * first["hours"],
        shipped="\n".join([*map(shipped_lines, shipped), *(forest_lines(rows, data) for data in SETS)]),
        engine=" and ".join(dict.fromkeys(row["engine"] for row in shipped)),
        seeds=len(own),
        verdict=verdict(rows, shipped),
        trained="\n".join(trained_lines(rows)),
        chosen=100 * best["validation_macro_f1"],
        seed=best["seed"],
        bangle=100 * without["bangle"]["accuracy"],
        plain=100 * without["accuracy"],
    )


def shipped_lines(row: Row) -> str:
    """A model that comes with edgeseq, without and with smoothing."""
    reads = SETS["spar_watch" if len(row["channels"]) == 6 else "spar_watch_acc"]
    shares = (percent(row["accuracy"]), percent(row["macro_f1"]))
    return both(f"`{row['name']}`", reads, shares, [row["follows"]])


def forest_lines(rows: Sequence[Row], data: str) -> str:
    """The forests of a data set, without and with smoothing."""
    own = of(rows, data, "forest", "")
    shares = (percent(mean(own, "test_accuracy")), percent(mean(own, "test_macro_f1")))
    return both("forest", SETS[data], shares, [row["follows"] for row in own])


def both(name: str, reads: str, shares: tuple[str, str], follows: Sequence[Sequence[Row]]) -> str:
    """Two lines: each frame alone, and averaged. ``follows`` of one or several models."""
    plain, calm = ([each[at] for each in follows] for at in (0, -1))
    first = [name, reads, *shares, "each frame", *followed(plain)]
    second = ["", "", "", "", f"over {calm[0]['smoothing']:g} s", *followed(calm)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (first, second))


def followed(scores: Sequence[Row]) -> list[str]:
    """The cells of how one model, or several, follow changes."""
    return [
        *(f"{mean(scores, name):.2f}" for name in ("delay_median", "delay_p90")),
        percent(mean(scores, "missed")),
        f"{mean(scores, 'false_switches_per_hour'):.0f}",
        f"{mean(scores, 'f1'):.3f}",
        percent(mean(scores, "accuracy")),
    ]


def verdict(rows: Sequence[Row], shipped: Sequence[Row]) -> str:
    """Where the forest is ahead, quantity by quantity."""
    said = []
    for data, reads in SETS.items():
        forests = of(rows, data, "forest", "")
        width = 6 if data == "spar_watch" else 3
        for row in (each for each in shipped if len(each["channels"]) == width):
            ahead = []
            for at, answers in ((0, "by each frame"), (-1, "smoothed")):
                theirs = [each["follows"][at] for each in forests]
                ahead += [
                    f"{what} {answers} ({show(mean(theirs, name))} against {show(row['follows'][at][name])})"
                    for name, (what, sign, show) in QUANTITIES.items()
                    if sign * mean(theirs, name) > sign * row["follows"][at][name]
                ]
            lead = "; ".join(ahead) or "nothing"
            said.append(f"- The forest ({reads}) is ahead of `{row['name']}` in {lead}.")
    return "\n".join(said)


Show = Callable[[float], str]


def seconds(value: float) -> str:
    """With its unit."""
    return f"{value:.2f} s"


def percent(share: float) -> str:
    """Without its sign."""
    return f"{100 * share:.1f}"


QUANTITIES: dict[str, tuple[str, int, Show]] = {
    "delay_median": ("median delay", -1, seconds),
    "delay_p90": ("the delay at p90", -1, seconds),
    "missed": ("missed changes", -1, lambda share: f"{100 * share:.1f} %"),
    "false_switches_per_hour": ("false switches", -1, lambda number: f"{number:.0f} an hour"),
    "f1": ("F1", 1, lambda share: f"{share:.3f}"),
}


def trained_lines(rows: Sequence[Row]) -> list[str]:
    """A line for each kind of model of each data set, over its seeds."""
    made = []
    for data in SETS:
        for model, kind in (("lmu", "fp32"), ("lmu", "int8"), ("forest", "")):
            own = of(rows, data, model, kind)
            calm = [row["follows"][-1] for row in own]
            cells = [
                *(spread([100 * row[name] for row in own], 1) for name in ("test_accuracy", "test_macro_f1")),
                *(spread([row[name] for row in calm], 2) for name in ("delay_median", "delay_p90")),
                spread([100 * row["missed"] for row in calm], 1),
                spread([row["false_switches_per_hour"] for row in calm], 0),
                spread([row["f1"] for row in calm], 3),
                spread([100 * row["validation_macro_f1"] for row in own], 1) if model == "lmu" else "",
            ]
            made.append(f"| {data} | {f'{model} {kind}'.strip()} | " + " | ".join(cells) + " |")
    return made


def of(rows: Sequence[Row], data: str, model: str, kind: str) -> list[Row]:
    """The rows of one kind of model, of all seeds."""
    return [row for row in rows if (row["data"], row["model"], row["kind"]) == (data, model, kind)]


def mean(rows: Sequence[Row], name: str) -> float:
    """The mean of a number that all rows have."""
    return statistics.mean(row[name] for row in rows)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and deviation."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
