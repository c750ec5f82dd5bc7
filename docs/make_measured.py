"""Writes docs/measured.md from the committed results of the benchmarks: ``python docs/make_measured.py``."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("measured.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
Row = dict[str, Any]

HEAD = """# Measured

Written by `python docs/make_measured.py` from `benchmarks/results`; each section names the command that measures it
anew. Machines are shared and noisy: read the ratios.
"""
TRAINING = """
## Training: all frames at once

`python benchmarks/training_speed.py --out benchmarks/results/training_speed.json`, on {machine}, one thread. One
call forward and backward over {frames} frames: how many times faster than the loop of steps. *All frames* is the
form that training takes; *last frame* is the answer after the last one alone, for tasks that ask for no other.
Where the loop of a training batch does not fit in memory, a smaller batch was measured.

| preset | parameters | batch | loop, ms | all frames | last frame |
|---|---:|---:|---:|---:|---:|
{presets}

GRU, LSTM, tanh and ReLU run in torch's own fused loops, which step all the same; so does a wired network, whose
zeros are multiplied in training. The 2019 cell feeds h and m back into u, so no form but the loop exists; what does
not depend on the last step is taken out of it. A step of S4D discretizes anew each time; its layer by itself, below,
does so once.

The linear memories by themselves, with the map that reads them (bold: the form that is taken). *Folded* never makes
the memory of a frame: chunks of inputs go straight to what the map makes of it.

| memory | batch | loop, ms | chunked | FFT | folded | last frame |
|---|---:|---:|---:|---:|---:|---:|
{memories}

What limits a large memory at a large batch: a step of the loop is then a product of 100 × 468 by 468 × 468, which
keeps a processor busy by itself, and chunks do as many multiplications to spread a chunk's start over its frames
(Q² a frame) as the loop does. Chunks therefore lose there, and so does the FFT, whose spectra (complex, of twice the
length) are four times the size of the memories. Folding the map into the chunks takes the Q² away and wins again;
where only the last frame is asked for, one product does.
"""
FORMS = """
## An LMU's memory on the device: recurrence or taps

`python benchmarks/memory_forms.py --out benchmarks/results/memory_forms.json`, on {machine}. Time of a step with
the memory as the last K inputs (K taps, with what reads it folded in; cut off at 1e-6 of the largest memory)
against its recurrence. `export` takes the one with fewer multiplications (bold).

| channels | order | window | hidden | taps | MACs, recurrence | MACs, taps | time in LiteRT | in ONNX Runtime |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}
"""
BLOCKS = """
## Wired networks: zeros that are not multiplied

`python benchmarks/sparse_blocks.py --out benchmarks/results/sparse_blocks.json`, on {machine}. Time of a step of one
GRU layer wired by a ring of nodes, against the dense layer of as many units; *share* is that of the recurrent products
that are left. Where a dense product takes a microsecond there is nothing to win; where it no longer fits in the cache,
most of it is.

| hidden | block | share | MACs a step | time in LiteRT | in ONNX Runtime |
|---:|---:|---:|---:|---:|---:|
{rows}
"""
RETIME = """
## Another sample rate, without training

`python benchmarks/retime.py FOLDER… --rates 25 --rates 20 --out benchmarks/results/retime.json`. Models trained at
50 Hz on `spar_watch`, on recordings of their test subjects resampled: after `edgeseq retime`, and fed as they are.
Percent of the frames, mean over {models}.

| model | at 50 Hz | rate | retimed | as it is |
|---|---:|---:|---:|---:|
{rows}
"""
HOUR = """
## An hour without a reset

`python benchmarks/long_stream.py`: recordings of a fold's two test subjects in random orders, joined to 16 streams
of an hour each; the state is carried from the first frame to the last. *Carried* models are as the presets train
them (half of the crops start from a state that another ended in, a fifth are sewn from two recordings), *fresh*
ones with both turned off. `reset` is the accuracy on the same recordings, each from the initial state. The last two
columns are the difference to the answer from the initial state on the very same frames, in the first minute and on
the mean of minutes 31 to 60, so that easy and hard recordings cancel; drift is its change, with the 95 % interval
over the streams (other orders of the same two people: it says how steady that model is).

Trained with carried state, every model stays within a point of its answers from the initial state for the whole hour.
Trained without, S4D, whose slowest modes have never been seen to fill up, loses more than ten; the GRU and the 2019
cell lose up to four, and the feed-forward LMU, whose window ends by itself, next to nothing.

| model | training | fold | reset | minute 1 | minutes 31-60 | drift, points |
|---|---|---:|---:|---:|---:|---:|
{rows}
"""

WATCHES = """
## Four watches on a live page

`python benchmarks/live_watches.py --out benchmarks/results/live_watches.json`, on {machine}. {watches} clients push a
watch each to `edgeseq stream {model} --source http --page` at {rate:g} readings a second, for {seconds:g} s, as a
message for each reading or for ten; beside them nobody looks, or {lookers} pages do, of which one reads nothing.
*Answer* is the time in the server from the arrival of a message to its last answer, *step* that of the model and its
decision in it (of the stream that has the largest), *post* what a client waits, over a kept connection; *processor*
the share of one core. Medians of {rounds} rounds, each with a fresh server. The clients, on the same two cores, take
their share.

| readings a message | pages | answer, p50 and p99, ms | step, us | post, ms | processor |
|---:|---:|---:|---:|---:|---:|
{rows}

{lost} readings were refused or left out; the frames that were not answered at the end are those that `--reorder` has
wait.
"""


def read(name: str) -> Any:
    """The result file of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def times(row: Row, form: str) -> str:
    """How many times faster a form is, in bold if it is the one that is taken."""
    if f"{form}_speedup" not in row:
        return ""
    shown = f"{row[f'{form}_speedup']:.1f} ×"
    return f"**{shown}**" if row.get("chosen") == form else shown


def training() -> str:
    """The training forms."""
    found = read("training_speed")
    presets, memories = [], []
    for row in found["rows"]:
        batch, loop = row["batch"], f"{1e3 * row['loop_s']:,.0f}"
        if "parameters" in row:
            smaller = f" ({row['training_batch']})" if batch not in (1, row["training_batch"]) else ""
            name, size = row["what"], row["parameters"]
            presets.append(
                f"| {name} | {size:,} | {batch}{smaller} | {loop} | {times(row, 'forward')} | {times(row, 'last')} |"
            )
        else:
            loop = f"**{loop}**" if row["chosen"] == "one by one" else loop
            forms = " | ".join(times(row, form) for form in ("chunked", "convolved", "folded", "last"))
            memories.append(f"| {row['what']} | {batch} | {loop} | {forms} |")
    return TRAINING.format(
        machine=found["machine"], frames=found["frames"], presets="\n".join(presets), memories="\n".join(memories)
    )


def forms() -> str:
    """The forms of a memory on the device."""
    found, rows = read("memory_forms"), []
    for row in found["rows"]:
        macs = {form: f"{row[f'{form}_macs']:,}" for form in ("recurrence", "taps")}
        macs[row["chosen"]] = f"**{macs[row['chosen']]}**"
        sizes = " | ".join(f"{row[name]:g}" for name in ("channels", "order", "theta", "hidden", "taps"))
        ratios = " | ".join(f"{row[f'{engine}_taps_ratio']:.2f} ×" for engine in ("litert", "onnxruntime"))
        rows.append(f"| {sizes} | {macs['recurrence']} | {macs['taps']} | {ratios} |")
    return FORMS.format(machine=found["machine"], rows="\n".join(rows))


def blocks() -> str:
    """Wired networks against dense ones."""
    found, rows = read("sparse_blocks"), []
    for row in found["rows"]:
        ratios = " | ".join(f"{row[f'{engine}_ratio']:.2f} ×" for engine in ("litert", "onnxruntime"))
        block, share = row["block"] or "dense", f"{100 * row['share']:.0f} %"
        rows.append(f"| {row['hidden']} | {block} | {share} | {row['macs']:,} | {ratios} |")
    return BLOCKS.format(machine=found["machine"], rows="\n".join(rows))


def retime() -> str:
    """Other sample rates."""
    measured, rows = read("retime")["rows"], []
    for model, rate in sorted({(row["model"], row["rate"]) for row in measured}, key=lambda key: (key[0], -key[1])):
        chosen = [row for row in measured if (row["model"], row["rate"]) == (model, rate)]
        home, there, raw = (
            f"{100 * statistics.mean(row[name] for row in chosen):.1f}" for name in ("accuracy", "retimed", "as_it_is")
        )
        rows.append(f"| {model} | {home} | {rate:g} Hz | {there} | {raw} |")
    counts = {
        model: len({tuple(row["test"]) for row in measured if row["model"] == model})
        for model in {r["model"] for r in measured}
    }
    models = ", ".join(f"{count} pairs of people for {model}" for model, count in sorted(counts.items()))
    return RETIME.format(rows="\n".join(rows), models=models)


def hour() -> str:
    """The hour-long streams."""
    rows = []
    for row in read("long_stream"):
        against = row["against_reset"]
        spans = " | ".join(f"{against['spans'][span]:+.1f}" for span in ("minute 1", "31-60"))
        drift = f"{against['drift']:+.1f} ± {against['drift_half']:.1f}"
        rows.append(f"| {row['model']} | {row['training']} | {row['fold']} | {row['reset']:.1f} | {spans} | {drift} |")
    return HOUR.format(rows="\n".join(rows))


def watches() -> str:
    """Live streams side by side."""
    found, rows = read("live_watches"), []
    for row in found["rows"]:
        answer = f"{row['answer_p50_us'] / 1000:.2f}, {row['answer_p99_us'] / 1000:.1f}"
        step = f"{row['step_p50_us']:.0f}, {row['step_p99_us']:.0f}"
        post = f"{row['post_p50_ms']:.1f}, {row['post_p99_ms']:.1f}"
        share = f"{100 * row['cpu']:.0f} %"
        rows.append(f"| {row['readings_a_message']} | {row['lookers']} | {answer} | {step} | {post} | {share} |")
    return WATCHES.format(
        **{name: found[name] for name in ("machine", "watches", "model", "seconds", "rounds")},
        rate=50,
        lookers=max(row["lookers"] for row in found["rows"]),
        rows="\n".join(rows),
        lost=f"{sum(row['refused'] + row['left_out'] for row in found['rows']):.0f}",
    )


def document() -> str:
    """The whole page."""
    return HEAD + training() + forms() + blocks() + retime() + hour() + watches()


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
