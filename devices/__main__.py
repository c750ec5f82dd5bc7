"""The device's verbs with the standard library's parser alone: ``python -m edgeseq.devices VERB FOLDER``.

With ``--json`` there is exactly one JSON document on standard output, also when a verb fails; everything else goes to
standard error. Each verb imports what it needs: a stream starts sooner without what measures and proves.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgeseq.devices.engines import ENGINES
from edgeseq.errors import EdgeseqError, GateFailed, InputError

if TYPE_CHECKING:
    from edgeseq.devices.decide import Answer
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

    def verb(name: str, run: Any, text: str, count: str | None = None) -> argparse.ArgumentParser:
        entry = verbs.add_parser(name, help=text, description=text)
        folder = "folders" if count == "+" else "folder"
        text = "a model folder that edgeseq export wrote" + ("; several are measured in turns" if count == "+" else "")
        entry.add_argument(folder, metavar="folder", type=Path, nargs=count, help=text)
        entry.add_argument("--json", action="store_true", help="print one JSON document on standard output")
        entry.set_defaults(run=run)
        return entry

    verify = verb("verify", _verify, "prove that every file computes what was trained")
    _engine_option(verify, many=True)
    verify.add_argument("--frames", type=int, help="only the first frames, which is no proof")
    play = verb("stream", _stream, "answer a stream of frames as they come")
    _engine_option(play)
    play.add_argument("--input", default=None, help="a CSV file, or - for standard input; else the golden frames")
    play.add_argument("--speed", type=float, help="times the sensor's rate; 0: no waiting (default 1, stdin 0)")
    play.add_argument("--rate", type=float, help="steps per second, instead of the manifest's")
    measure = verb("bench", _bench, "measure latency, memory and size", count="+")
    _engine_option(measure, many=True)
    measure.add_argument("--seconds", type=float, default=2.0, help="of tight loop, for a folder's engines together")
    measure.add_argument("--paced-seconds", type=float, default=10.0, help="at the sensor's rate, for each engine")
    measure.add_argument("--rate", type=float, help="steps per second, instead of the manifest's")
    measure.add_argument("--out", type=Path, help="write the reports, with all raw samples, to this file")
    _measure_options(measure)
    verb("facts", _facts, "say what this machine is, and what runs a folder on it", count="?")
    return top


def _measure_options(entry: argparse.ArgumentParser) -> None:
    conditions = entry.add_argument_group("conditions", "what the system is asked for; the report has it")
    conditions.add_argument("--pin", metavar="CPUS", help="run on these processors only: 3, 2,3 or 0-3")
    conditions.add_argument("--priority", metavar="P", help="a nice value from -20 to 19, or fifo:1 to fifo:99")
    conditions.add_argument("--threads", type=int, metavar="N", help="threads that an engine may use (default 1)")
    budget = entry.add_argument_group("budget", "exit with 7, after the report, where an engine is over it")
    budget.add_argument("--max-p99", metavar="TIME", help="of the paced call, as 2ms or 500us")
    budget.add_argument("--max-rss", metavar="SIZE", help="of the resident memory, as 60MB")
    text = "run one engine at the sensor's rate for so long, as 1h; kept in OUT.part, goes on after an interruption"
    entry.add_argument("--duration", metavar="TIME", help=text)


def _engine_option(entry: argparse.ArgumentParser, *, many: bool = False) -> None:
    text = f"one of {', '.join(ENGINES)}" + ("; may be given again" if many else "")
    entry.add_argument("--engine", metavar="NAME", action="append" if many else "store", help=text)


def _verify(options: argparse.Namespace) -> int:
    from edgeseq.devices.check import MIN_FRAMES, check_folder, require, unchecked_files
    from edgeseq.folder import open_folder

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
    from edgeseq.devices.session import Session
    from edgeseq.devices.stream import KEPT, read_frames, stream

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
    from edgeseq.devices.bench.command import measured, print_reports

    reports, missed = measured(options)
    if not options.json:
        print_reports(reports)
    error = {} if missed is None else _failed(missed)
    if options.json:
        _print_json({"reports": reports, **error})
    return 0 if missed is None else missed.exit_code


def _facts(options: argparse.Namespace) -> int:
    from edgeseq.devices.board.words import lines
    from edgeseq.devices.engines import open_all
    from edgeseq.devices.facts import read_facts
    from edgeseq.folder import open_folder

    facts = read_facts()
    rows = lines(facts)
    document: dict[str, Any] = {**msgspec.to_builtins(facts), "provenance": facts.provenance}
    if options.folder is not None:
        found, refused = open_all(open_folder(options.folder))
        document["engines"] = {engine.name: engine.facts for engine in found}
        rows += [(engine.name, ", ".join(f"{key} {value}" for key, value in engine.facts.items())) for engine in found]
        rows += [(name, f"does not run: {why}") for name, why in refused.items()]
    if options.json:
        _print_json(document)
    else:
        for name, words in rows:
            print(f"{name:14} {words}")
    return 0


def _print_json(document: Any) -> None:
    print(msgspec.json.encode(document).decode())


if __name__ == "__main__":
    raise SystemExit(main())
