"""A day without a pause: does memory grow, do answers drift, is a saved state the same state?

    python benchmarks/long_run.py            # runs what is missing, then prints the table
    python benchmarks/long_run.py --table    # prints the table only

4.32 million steps, 24 hours at 50 Hz, as fast as they go: recordings of the data that the model knows, joined end to
end, all of them in one random order after another; the state is never reset. The model runs in LiteRT in a process of
its own that imports what a device imports, and its resident memory is read every ``CHUNK`` steps; ``growth`` is the
most that it rose above, or fell below, that of its first ``WARM_UP`` steps. A float model is held to torch's
``forward`` over the same stream in chunks with carried state: ``drift`` is the largest difference of a logit in an
hour. An int8 model is held to ONNX Runtime: ``different`` are the frames whose logits are not the same bit for bit. In
the middle the state is saved and restored in a fresh process, which runs beside the first to the end: its logits must
be the same bits.

One entry a folder in ``benchmarks/results/long_run.json``, hour by hour. An interrupted run goes on at its last hour,
from what lies in ``--work``; the memory of its new process is then that from its own warm-up on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from processes import count
from side_by_side import described
from steppers import Forward, Stepper, Worker

from edgeseq.errors import EdgeseqError
from edgeseq.folder import Folder, open_folder
from edgeseq.lineage import trained_on

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "long_run.json"
FOLDERS = ("har_watch", "har_watch_fp32")
DAY, HOUR = 24 * 3600 * 50, 3600 * 50  # steps
CHUNK, WARM_UP = 1000, 5000
ENGINE, OTHER, TORCH = "litert", "onnxruntime", "torch forward"
Floats = NDArray[np.float32]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One hour, or the rest of a run. ``process``: the how-manieth process of the engine it was, after interruptions.

    ``base``, ``low``, ``high``: resident bytes after the warm-up of that process, and the least and most since.
    ``same_answer``: the share of frames in which the largest logit is the reference's. ``restored_different``: frames
    in which the restored process is off by a bit; None before the middle.
    """

    steps: int
    process: int
    base: int
    low: int
    high: int
    drift: float
    different: int
    same_answer: float
    restored_different: int | None
    seconds: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One folder's run: over all its parts as in :class:`Part`; ``growth`` in bytes, ``largest`` logit of all."""

    name: str
    precision: str
    folder_hash: str
    steps: int
    seed: int
    engine: str
    reference: str
    growth: int
    drift: float
    largest: float
    different: int
    restored_different: int
    same_answer: float
    resumed: int
    parts: tuple[Part, ...]
    machine: str
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.folder_hash, self.steps, self.seed)


class Checkpoint(msgspec.Struct, frozen=True):
    """All that a run goes on from: its parts, the largest logit, and the state of each that steps."""

    parts: tuple[Part, ...]
    largest: float
    states: dict[str, bytes]


def stream(recordings: Sequence[Floats], steps: int, seed: int, part: int) -> Iterator[Floats]:
    """The frames of one part in chunks: all recordings in one random order, then in another, as often as it takes."""
    rng, order = np.random.default_rng((seed, part)), list[int]()
    while sum(len(recordings[i]) for i in order) < steps:
        order += rng.permutation(len(recordings)).tolist()
    frames = np.concatenate([recordings[i] for i in order])[:steps]
    for first in range(0, steps, CHUNK):
        yield np.ascontiguousarray(frames[first : first + CHUNK], np.float32)


class Day:
    """One folder's run, part by part."""

    def __init__(self, folder: Folder, work: Path, *, steps: int, part: int, seed: int) -> None:
        self.folder, self.steps, self.seed, self._part = folder, steps, seed, part
        self._file = work / f"{folder.manifest.name}-{folder.hash[:12]}-{steps}-{part}-{seed}.json"
        self._recordings = [recording.x for recording in trained_on(folder).recordings]
        self._lengths = [min(part, steps - first) for first in range(0, steps, part)]
        self.reference = OTHER if folder.manifest.precision.weights == "int8" else TORCH

    def run(self) -> Result:
        done = self._read()
        with ExitStack() as opened:
            steppers: dict[str, Stepper] = {"engine": Worker(self.folder, ENGINE, opened)}
            integer = self.reference == OTHER
            steppers["reference"] = Worker(self.folder, OTHER, opened) if integer else Forward(self.folder)
            if "restored" in done.states:
                steppers["restored"] = Worker(self.folder, ENGINE, opened)
            for name, saved in done.states.items():
                steppers[name].restore(saved)
            process, base = done.parts[-1].process + 1 if done.parts else 0, 0
            for number in range(len(done.parts), len(self._lengths)):
                if number == len(self._lengths) // 2 and "restored" not in steppers:
                    steppers["restored"] = Worker(self.folder, ENGINE, opened)
                    steppers["restored"].restore(steppers["engine"].save())
                part, largest, base = self._step(number, steppers, process, base)
                states = {name: stepper.save() for name, stepper in steppers.items()}
                done = Checkpoint((*done.parts, part), max(done.largest, largest), states)
                write(self._file, done)
                said = f"{len(done.parts)} of {len(self._lengths)}, {part.seconds:.0f} s"
                print(f"{self.folder.manifest.name}: part {said}", file=sys.stderr)
        return self._result(done)

    def _step(self, number: int, steppers: dict[str, Stepper], process: int, base: int) -> tuple[Part, float, int]:
        """One part, the largest logit in it, and the bytes that the memory is held to."""
        begin, low, high, told = time.monotonic(), sys.maxsize, 0, 0
        drift, largest, different, same, other = 0.0, 0.0, 0, 0, 0
        for frames in stream(self._recordings, self._lengths[number], self.seed, number):
            for stepper in steppers.values():
                stepper.tell(frames)
            found = {name: stepper.logits() for name, stepper in steppers.items()}
            y, wanted, told = found["engine"], found["reference"], told + len(frames)
            drift = max(drift, float(np.abs(y - wanted).max()))
            largest = max(largest, float(np.abs(wanted).max()))
            different += off_by_a_bit(y, wanted)
            same += int((y.argmax(1) == wanted.argmax(1)).sum())
            other += off_by_a_bit(y, found.get("restored", y))
            resident = steppers["engine"].resident
            if not base and told >= min(WARM_UP, self._lengths[number]):
                base = resident
            if base:
                low, high = min(low, resident), max(high, resident)
        part = Part(
            steps=told,
            process=process,
            base=base,
            low=low,
            high=high,
            drift=drift,
            different=different,
            same_answer=same / told,
            restored_different=other if "restored" in found else None,
            seconds=round(time.monotonic() - begin, 1),
        )
        return part, largest, base

    def _read(self) -> Checkpoint:
        if not self._file.is_file():
            return Checkpoint((), 0.0, {})
        return msgspec.json.decode(self._file.read_bytes(), type=Checkpoint)

    def _result(self, done: Checkpoint) -> Result:
        parts, head = done.parts, described()
        return Result(
            name=self.folder.manifest.name,
            precision="int8" if self.reference == OTHER else "fp32",
            folder_hash=self.folder.hash,
            steps=self.steps,
            seed=self.seed,
            engine=ENGINE,
            reference=self.reference,
            growth=max(max(part.high - part.base, part.base - part.low) for part in parts),
            drift=max(part.drift for part in parts),
            largest=done.largest,
            different=sum(part.different for part in parts),
            restored_different=sum(part.restored_different or 0 for part in parts),
            same_answer=sum(part.same_answer * part.steps for part in parts) / self.steps,
            resumed=parts[-1].process,
            parts=parts,
            machine=head["machine"],
            versions=head["versions"],
        )


def off_by_a_bit(one: Floats, other: Floats) -> int:
    """The frames (rows) in which two are not the same bits."""
    return int((one.view(np.uint32) != np.ascontiguousarray(other).view(np.uint32)).any(1).sum())


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_suffix(".new")
    staging.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    staging.replace(file)


def read(results: Path) -> list[Result]:
    return msgspec.json.decode(results.read_bytes(), type=list[Result]) if results.is_file() else []


def table(results: Sequence[Result]) -> str:
    lines = [
        "| model | | steps | memory, most above or below | against | drift, first and last part | same answer | "
        "frames off by a bit | after restoring |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for each in results:
        drift = " | ".join(
            (f"{each.parts[0].drift:.1e}, {each.parts[-1].drift:.1e}", f"{100 * each.same_answer:.4f} %")
        )
        bits = f"{each.different:,}" if each.reference == OTHER else "–"
        head = f"| {each.name} | {each.precision} | {each.steps:,} | {each.growth / 1e6:.2f} MB | {each.reference}"
        lines.append(f"{head} | {drift} | {bits} | {each.restored_different:,} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", default=list(FOLDERS), help=f"(default: {' '.join(FOLDERS)})")
    parser.add_argument("--steps", type=count, default=DAY)
    parser.add_argument("--part", type=count, default=HOUR, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "long_run", help="where checkpoints are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    options = parser.parse_args()
    results = read(options.out)
    try:
        for name in [] if options.table else options.folders:
            folder = open_folder(name)
            if (folder.hash, options.steps, options.seed) not in {each.key for each in results}:
                day = Day(folder, options.work, steps=options.steps, part=options.part, seed=options.seed)
                results.append(day.run())
                write(options.out, results)
    except EdgeseqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
