"""The device's verbs with the standard library's parser alone: ``python -m edgeseq.devices VERB FOLDER``.

With ``--json`` there is exactly one JSON document on standard output, also when a verb fails; everything else goes to
standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import BenchReport, bench
from edgeseq.devices.check import MIN_FRAMES, check_folder, require, unchecked_files
from edgeseq.devices.decide import Answer
from edgeseq.devices.engines import ENGINES, open_all
from edgeseq.devices.facts import EMULATED, read_facts
from edgeseq.devices.session import Session
from edgeseq.devices.stream import KEPT, read_frames, stream
from edgeseq.errors import EdgeseqError, GateFailed, InputError
from edgeseq.folder import open_folder
from edgeseq.manifest import Link


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; an error meant for the user is printed without a traceback."""
    options = parser().parse_args(arguments)
    code = 0
    try:
        code = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: nobody reads on
        _close_output()
    except OSError as error:  # standard output itself, as on a full disk
        _close_output()
        if code == 0:
            code = _failed(InputError(f"standard output cannot be written: {error.strerror}"))["error"]["exit_code"]
    except KeyboardInterrupt:
        return 130
    return code


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        return code
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        failure: EdgeseqError = InputError(f"{where}{error.strerror or error}")
    except EdgeseqError as error:
        failure = error
    document = _failed(failure)
    if options.json:
        with suppress(OSError):  # it may be standard output that cannot be written, and that has been said
            _print_json(document)
    return failure.exit_code


def _failed(error: EdgeseqError) -> dict[str, Any]:
    """The document of an error, which is also said on standard error."""
    print(f"error: {error}", file=sys.stderr)
    return {"error": {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}}


def _close_output() -> None:
    """Let what is still buffered go nowhere: Python would try once more to write it when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = argparse.ArgumentParser(prog="python -m edgeseq.devices", description="Check, stream, measure on a device.")
    verbs = top.add_subparsers(dest="verb", required=True)

    def verb(name: str, run: Any, text: str, folder: str | None = None) -> argparse.ArgumentParser:
        entry = verbs.add_parser(name, help=text, description=text)
        entry.add_argument("folder", type=Path, nargs=folder, help="a model folder that edgeseq export wrote")
        entry.add_argument("--json", action="store_true", help="print one JSON document on standard output")
        entry.set_defaults(run=run)
        return entry

    verify = verb("verify", _verify, "prove that every file computes what was trained")
    _engine_option(verify, many=True)
    verify.add_argument("--frames", type=int, help=f"only the first frames; a proof needs {MIN_FRAMES}")
    play = verb("stream", _stream, "answer a stream of frames as they come")
    _engine_option(play)
    play.add_argument("--input", default=None, help="a CSV file, or - for standard input; else the golden frames")
    play.add_argument("--speed", type=float, help="times the sensor's rate; 0: no waiting (default 1, stdin 0)")
    play.add_argument("--rate", type=float, help="steps per second, instead of the manifest's")
    measure = verb("bench", _bench, "measure latency, memory and size")
    _engine_option(measure, many=True)
    measure.add_argument("--seconds", type=float, default=2.0, help="of tight loop, for all engines together")
    measure.add_argument("--paced-seconds", type=float, default=10.0, help="at the sensor's rate, for each engine")
    measure.add_argument("--rate", type=float, help="steps per second, instead of the manifest's")
    measure.add_argument("--out", type=Path, help="write the report, with all raw samples, to this file")
    verb("facts", _facts, "say what this machine is, and what runs a folder on it", folder="?")
    return top


def _engine_option(entry: argparse.ArgumentParser, *, many: bool = False) -> None:
    text = f"one of {', '.join(ENGINES)}" + ("; may be given again" if many else "")
    entry.add_argument("--engine", metavar="NAME", action="append" if many else "store", help=text)


def _verify(options: argparse.Namespace) -> int:
    folder = open_folder(options.folder)
    links = check_folder(folder, options.engine, options.frames)
    missing = unchecked_files(folder, links)
    frames = min(link.frames for link in links if link.frames)  # those without look at the files, not at frames
    code, error = 0, {}
    if not options.json:
        _print_links(links)
    for file in missing:
        print(f"not checked: {file} (no engine that runs it works here)", file=sys.stderr)
    if frames < MIN_FRAMES:
        print(f"checked on {frames} frames only: a proof needs {MIN_FRAMES}", file=sys.stderr)
    try:
        require(links)
    except GateFailed as failure:
        code, error = failure.exit_code, _failed(failure)
    if options.json:
        document = {"folder": str(folder.path), "passed": not error, "frames": frames}
        _print_json({**document, "links": links, "unchecked": missing, **error})
    return code


def _print_links(links: Iterable[Link]) -> None:
    for link in links:
        same = "" if link.agreement is None else f"  same answer {100 * link.agreement:.2f} %"
        verdict = "ok  " if link.passed else "FAIL"
        note = f"  ({link.note})" if link.note else ""
        frames = f"{link.frames:6} frames" if link.frames else " " * 13
        print(f"{verdict} {link.name:32} {frames}  {' of '.join(link.shown())}{same}{note}")


def _stream(options: argparse.Namespace) -> int:
    session = Session(options.folder, options.engine)
    speed = options.speed if options.speed is not None else (0.0 if options.input == "-" else 1.0)
    changes: deque[dict[str, Any]] = deque(maxlen=KEPT)  # the last ones; the summary counts all

    def on_answer(seconds: float, answer: Answer) -> None:
        if options.json:
            changes.append({"seconds": seconds, "label": answer.label, "probability": answer.probability})
        else:
            print(f"{seconds:9.2f} s  {answer.label}  ({100 * answer.probability:.0f} %)", flush=True)

    frames = read_frames(options.input, session.folder)
    summary = stream(session, frames, rate=options.rate, speed=speed, on_answer=on_answer)
    if options.json:
        _print_json({"engine": session.engine, "changes": list(changes), "summary": summary})
    else:
        print(
            f"{summary.frames} frames on {session.engine}, {summary.changes} changes, {summary.missed_deadlines} "
            f"deadlines missed, {summary.latency_p50_us:.1f} us a frame (p99 {summary.latency_p99_us:.1f})"
        )
    return 0


def _bench(options: argparse.Namespace) -> int:
    report = bench(
        options.folder,
        options.engine,
        seconds=options.seconds,
        paced_seconds=options.paced_seconds,
        rate=options.rate,
    )
    if options.out is not None:
        try:
            options.out.write_bytes(msgspec.json.encode(report) + b"\n")
        except OSError as error:
            raise InputError(f"{options.out} cannot be written: {error.strerror}") from None
        print(f"wrote {options.out}", file=sys.stderr)
    if options.json:
        _print_json(report)
    else:
        _print_report(report)
    return 0


def _print_report(report: BenchReport) -> None:
    print(
        f"{report.name} on {report.facts.model or report.facts.machine} ({report.provenance}): {report.parameters} "
        f"parameters, {report.macs} MACs a step, state {report.state_bytes} bytes; paced at {report.rate:g} Hz; us"
    )
    print(f"{'engine':16} {'load ms':>8} {'first ms':>8} {'file kB':>8} {'RSS MB':>7}", end=" ")
    print(f"{'tight p50':>9} {'p99':>8} {'paced p50':>9} {'p99':>8} {'max':>8} {'missed':>6} {'CPU %':>6}")
    for entry in report.engines:
        fresh, tight, paced = entry.fresh, entry.tight, entry.paced
        print(f"{entry.engine:16} {_cell(fresh.load_ms, 8, 1)} {_cell(fresh.first_call_ms, 8, 2)}", end=" ")
        print(f"{entry.file_bytes / 1e3:8.1f} {_cell(fresh.peak_rss_bytes, 7, 1, 1e-6)}", end=" ")
        print(f"{_cell(tight.p50, 9, 1)} {_cell(tight.p99, 8, 1)}", end=" ")
        print(f"{_cell(paced.call.p50, 9, 1)} {_cell(paced.call.p99, 8, 1)} {_cell(paced.call.max, 8, 1)}", end=" ")
        print(f"{_cell(paced.deadline_misses, 6, 0)} {_cell(paced.cpu_share, 6, 2, 100)}")
    if report.provenance == EMULATED:
        print("no times: this machine is emulated, and how long it takes says nothing of any board")


def _cell(value: float | None, width: int, digits: int, factor: float = 1) -> str:
    """A number in its column, or a dash for what could not be measured."""
    return f"{'-':>{width}}" if value is None else f"{factor * value:{width}.{digits}f}"


def _facts(options: argparse.Namespace) -> int:
    facts: dict[str, Any] = {**msgspec.to_builtins(read_facts()), "provenance": read_facts().provenance}
    if options.folder is not None:
        folder = open_folder(options.folder)
        facts["engines"] = {engine.name: engine.facts for engine in open_all(folder)[0]}
    if options.json:
        _print_json(facts)
    else:
        for name, value in facts.items():
            print(f"{name:14} {'-' if value is None else value}")
    return 0


def _print_json(document: Any) -> None:
    print(msgspec.json.encode(document).decode())


if __name__ == "__main__":
    raise SystemExit(main())
