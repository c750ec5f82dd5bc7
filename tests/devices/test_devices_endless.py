"""A run of hours, in seconds: interrupted, killed, out of disk, and gone on with. Real processes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeseq.devices import endless
from edgeseq.devices.__main__ import main
from edgeseq.devices.bench import BenchReport, measure
from edgeseq.devices.bench.words import sentences
from edgeseq.devices.board.moments import read_moment
from edgeseq.devices.conditions import Conditions
from edgeseq.devices.endless import bench_long, record_of
from edgeseq.devices.facts import read_facts
from edgeseq.devices.fresh import Fresh
from edgeseq.devices.report.gather import read_bench
from edgeseq.errors import InputError

RATE, PART = 200.0, 0.1
FEW = {"rate": RATE, "tight_seconds": 0.01, "part_seconds": PART}
RUN = """
import resource, signal, sys
from pathlib import Path
from edgeseq.devices.endless import bench_long
from edgeseq.errors import EdgeseqError
signal.signal(signal.SIGINT, signal.default_int_handler)
folder, out, seconds, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
say = lambda text: print(text, file=sys.stderr, flush=True)
try:
    bench_long(folder, Path(out), float(seconds), "numpy", rate=200.0, tight_seconds=0.01, part_seconds=0.1, say=say)
except EdgeseqError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder: Path, out: Path, seconds: float, limit: int = 0) -> subprocess.Popen[str]:
    """A long run in a process of its own, in lines of 0.1 s, whose files may not become larger than ``limit`` bytes."""
    command = [sys.executable, "-c", RUN, str(folder), str(out), str(seconds), str(limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def parts(out: Path) -> list[dict[str, Any]]:
    """The whole lines of a record but for those that say what is measured."""
    lines = record_of(out).read_bytes().split(b"\n")[:-1]
    return [line for line in map(json.loads, lines) if line["edgeseq"] == "part"]


def stop(running: subprocess.Popen[str], out: Path, how: signal.Signals, after: int = 2) -> str:
    """End a run by a signal once it has written so many parts; what it said."""
    assert running.stderr is not None
    with running:
        end = time.monotonic() + 60
        while not record_of(out).exists() or len(parts(out)) < after:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < end, "no part was written in a minute"
            time.sleep(0.02)
        running.send_signal(how)
        return running.stderr.read()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the process that shows what loading costs."""
    monkeypatch.setattr(measure, "measure_fresh", lambda folder, engine: Fresh(1.0, 1.0, 5_000_000))


def run(folder: Path, out: Path, seconds: float = 0.5, **options: Any) -> BenchReport:
    return bench_long(folder, out, seconds, options.pop("engine", "numpy"), **{**FEW, **options})


@pytest.mark.usefixtures("quick")
def test_a_long_run_has_its_minutes_and_its_memory(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    report = run(folders["leaky"], out)
    assert read_bench(out) == (report,)
    assert [path.name for path in tmp_path.iterdir()] == ["long.json"]
    (entry,), long = report.engines, report.long_run
    assert long is not None
    assert [minute.frames for minute in long.minutes] == [20] * 5
    assert (entry.paced.frames, long.seconds, report.resumed, report.rate) == (100, 0.5, 0, RATE)
    assert sum(long.call_counts.values()) == 100
    assert (entry.paced.call_ns, entry.paced.response_ns) == ([], [])
    assert entry.paced.call.max == max(minute.call.max or 0 for minute in long.minutes)
    assert (entry.paced.response.max or 0) >= (entry.paced.call.max or 0) >= (entry.paced.call.p50 or 0) > 0
    assert entry.paced.deadline_misses == sum(minute.deadline_misses or 0 for minute in long.minutes)
    assert 0 < (entry.paced.cpu_share or 0) < 1.5
    assert len(report.moments) == 5
    assert len(entry.tight_ns) >= 100
    sizes = [minute.rss_bytes or 0 for minute in long.minutes]
    assert min(sizes) > 5_000_000
    assert (long.peak_rss_bytes, long.rss_growth_bytes) == (max(sizes), sizes[-1] - sizes[0])
    said = " ".join(sentences(report))
    assert "A long run: 0.5 s in 5 parts, without a gap." in said
    assert f"The process that measured it took {max(sizes) / 1e6:.1f} MB at most, and grew by" in said


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    said = stop(start(folders["leaky"], out, 100.0), out, signal.SIGINT)
    kept = parts(out)
    frames = sum(part["frames"] for part in kept)
    assert f"interrupted: {frames:,} of 20,000 steps are kept in {record_of(out)}; the same command goes on" in said
    assert not out.exists()
    told: list[str] = []
    report = run(folders["leaky"], out, (frames + 30) / RATE, engine=None, say=told.append)
    (going,) = told
    assert going.startswith("going on after ")
    assert "no gap before this one" in going
    assert report.engines[0].engine == "numpy"  # the one that it had, not the one that is chosen here
    assert report.engines[0].paced.frames == frames + 30
    assert report.resumed == 1
    assert report.long_run is not None
    assert [minute.frames for minute in report.long_run.minutes] == [*(part["frames"] for part in kept), 20, 10]
    assert "with 1 gap" in " ".join(sentences(report))
    assert not record_of(out).exists()


def test_a_killed_run_goes_on_behind_its_last_whole_line(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    for after in (2, 4):  # twice: each process writes to where the one before it was killed
        stop(start(folders["leaky"], out, 100.0), out, signal.SIGKILL, after)
        with record_of(out).open("ab") as record:
            record.write(b'{"edgeseq":"part","frames":20,"call":{"bins":{"11')
    frames = sum(part["frames"] for part in parts(out))
    told: list[str] = []
    report = run(folders["leaky"], out, (frames + 20) / RATE, say=told.append)
    assert "1 gap before this one" in told[0]
    assert report.engines[0].paced.frames == frames + 20
    assert report.resumed == 2


@pytest.mark.usefixtures("quick")
def test_a_record_cut_at_any_byte_goes_on(folders: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "long.json"
    monkeypatch.setattr(endless, "write_report", full)
    with pytest.raises(InputError):
        run(folders["leaky"], out, 0.2)
    monkeypatch.undo()
    monkeypatch.setattr(measure, "measure_fresh", lambda folder, engine: Fresh(1.0, 1.0, 5_000_000))
    whole = record_of(out).read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 3
    first = len(lines[0])
    for size in (0, 1, 10, first - 1, first, first + 1, first + len(lines[1]) - 1, len(whole) - len(lines[2]) // 2):
        record_of(out).write_bytes(whole[:size])
        report = run(folders["leaky"], out, 0.2)
        assert report.engines[0].paced.frames == 40
        assert report.resumed == (size >= first)
        assert report.long_run is not None
        assert [minute.frames for minute in report.long_run.minutes] == [20, 20]
    record_of(out).write_bytes(whole[: first + 30].ljust(len(whole), b"\0"))  # a file system's idea of a torn end
    assert run(folders["leaky"], out, 0.2).engines[0].paced.frames == 40


def full(*_: Any, **__: Any) -> None:
    raise InputError("long.json cannot be written: No space left on device")


@pytest.mark.usefixtures("quick")
def test_a_report_that_cannot_be_written_loses_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "long.json"
    with monkeypatch.context() as patch:
        patch.setattr(endless, "write_report", full)
        with pytest.raises(InputError, match="No space left on device"):
            run(folders["leaky"], out)
    report = run(folders["leaky"], out)
    assert (report.engines[0].paced.frames, report.resumed) == (100, 0)  # nothing was left to measure


def test_a_full_disk_is_said_and_leaves_whole_lines(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    with start(folders["leaky"], out, 100.0, limit=8000) as running:
        assert running.stderr is not None
        said = running.stderr.read()
    kept = parts(out)
    frames = sum(part["frames"] for part in kept)
    assert running.returncode == 2
    assert frames >= 20
    assert f"error: {record_of(out)} cannot be written: File too large" in said
    assert f"what is in it is kept ({frames:,} steps): make room and give the same command again" in said
    assert "Traceback" not in said
    assert record_of(out).read_bytes().endswith(b"\n")
    assert run(folders["leaky"], out, (frames + 20) / RATE).engines[0].paced.frames == frames + 20


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folder": "gated"}, r"the model is gated \w{12}, not leaky \w{12}"),
        ({"engine": "litert"}, "the engine is litert, not numpy"),
        ({"rate": 100.0}, "the rate is 100 Hz, not 200 Hz"),
        ({"conditions": Conditions(threads=2)}, "--threads is 2, not 1"),
        ({"conditions": Conditions(pin=(min(os.sched_getaffinity(0)),))}, r"--pin is \d+, not as it was found"),
    ],
)
def test_the_record_of_another_run_is_refused_and_kept(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    out = tmp_path / "long.json"
    with monkeypatch.context() as patch:
        patch.setattr(endless, "write_report", full)
        with pytest.raises(InputError):
            run(folders["leaky"], out, 0.1)
    before = record_of(out).read_bytes()
    options = {name: value for name, value in changes.items() if name != "folder"}
    for seconds in (1.0, 0.1):  # a record that is complete is another run's too
        with pytest.raises(InputError, match=f"long.json.part holds the first part of another run: {said}; remove it"):
            run(folders[changes.get("folder", "leaky")], out, seconds, **options)
        assert record_of(out).read_bytes() == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("changed", ["Python", "ai-edge-litert", "numpy", "edgeseq"])
def test_an_upgrade_in_the_middle_makes_it_another_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    out, facts = tmp_path / "long.json", read_facts()
    with monkeypatch.context() as patch:
        patch.setattr(endless, "write_report", full)
        with pytest.raises(InputError):
            run(folders["leaky"], out, 0.1, engine="litert")
    newer = {**facts.versions, "onnxruntime": "99.1"}  # which this engine does not run
    monkeypatch.setattr(endless, "read_facts", lambda: msgspec.structs.replace(facts, versions=newer))
    run(folders["leaky"], tmp_path / "other.json", 0.1, engine="litert")
    versions = {**newer, **({changed: "99.1"} if changed in newer else {})}
    python = "99.1" if changed == "Python" else facts.python
    monkeypatch.setattr(endless, "read_facts", lambda: msgspec.structs.replace(facts, versions=versions, python=python))
    before = record_of(out).read_bytes()
    with pytest.raises(InputError, match=rf"the first part of another run: {changed} is 99\.1, not "):
        run(folders["leaky"], out, 0.1, engine="litert")
    assert record_of(out).read_bytes() == before


@pytest.mark.usefixtures("quick")
def test_the_record_of_an_engine_that_nobody_knows_is_another_run(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    stop(start(folders["leaky"], out, 100.0), out, signal.SIGKILL, after=1)
    record_of(out).write_bytes(record_of(out).read_bytes().replace(b'"engine":"numpy"', b'"engine":"tpu"'))
    with pytest.raises(InputError, match="another run: the engine is numpy, not tpu"):
        run(folders["leaky"], out)
    with pytest.raises(InputError, match="unknown engine 'tpu'"):
        run(folders["leaky"], out, engine=None)


SINCE = "under-voltage since boot"


@pytest.mark.usefixtures("quick")
def test_each_process_of_a_run_is_judged_by_its_own_readings(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "long.json"

    def measured(before: tuple[str, ...], meanwhile: tuple[str, ...], seconds: float) -> BenchReport:
        facts = msgspec.structs.replace(read_facts(), throttled="1", throttle=before)
        moment = msgspec.structs.replace(read_moment(), throttled="1", throttle=meanwhile)
        monkeypatch.setattr(endless, "read_facts", lambda: facts)
        monkeypatch.setattr(endless, "read_moment", lambda: moment)
        return run(folders["leaky"], out, seconds)

    for words, seconds in (((), 0.2), ((SINCE,), 0.4)):  # before the second one it was so already
        with monkeypatch.context() as patch:
            patch.setattr(endless, "write_report", full)
            with pytest.raises(InputError):
                measured(words, words, seconds)
    assert measured((SINCE,), (SINCE,), 0.5).throttled is None
    with monkeypatch.context() as patch:
        patch.setattr(endless, "write_report", full)
        for before, meanwhile, seconds in (((), (), 0.2), ((), (SINCE,), 0.4)):
            with pytest.raises(InputError):
                measured(before, meanwhile, seconds)
    report = measured((SINCE,), (SINCE, "throttled now"), 0.5)
    assert report.throttled == (
        f"in process 2 of 3: {SINCE}, which was not so when it began; in process 3 of 3: throttled in 1 of 3 readings"
    )
    assert "THROTTLED: in process 2 of 3" in " ".join(sentences(report))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"the beginning of a film", "is not what a long run writes"),
        (b"name,value\n1,2\n", "line 1 is not what a long run writes"),
        (b'{"edgeseq":"part","frames":20}\n', "line 1 is not what a long run writes"),
        (b"\xff\xfe\n", "line 1 is not what a long run writes"),
    ],
)
def test_a_file_of_somebody_else_is_refused_and_kept(
    folders: dict[str, Path], tmp_path: Path, content: bytes, said: str
) -> None:
    out = tmp_path / "long.json"
    record_of(out).write_bytes(content)
    with pytest.raises(InputError, match=said):
        run(folders["leaky"], out)
    assert record_of(out).read_bytes() == content


@pytest.mark.usefixtures("quick")
def test_a_damaged_line_in_the_middle_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    stop(start(folders["leaky"], out, 100.0), out, signal.SIGKILL, after=3)
    lines = record_of(out).read_bytes().splitlines(keepends=True)
    record_of(out).write_bytes(b"".join([lines[0], b'{"edgeseq":"part","fra\n', *lines[2:]]))
    with pytest.raises(InputError, match=r"long\.json\.part, line 2 is not what a long run writes: remove the file"):
        run(folders["leaky"], out)


def test_a_second_run_to_the_same_place_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "long.json"
    running = start(folders["leaky"], out, 100.0)
    try:
        end = time.monotonic() + 60
        while not record_of(out).exists() or not record_of(out).stat().st_size:
            assert time.monotonic() < end
            time.sleep(0.02)
        with pytest.raises(InputError, match="is being written by another process: wait for it, or name another --out"):
            run(folders["leaky"], out)
    finally:
        stop(running, out, signal.SIGKILL, after=0)


def test_a_run_that_cannot_begin_leaves_no_file(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'numpy'"):
        run(folders["leaky"], tmp_path / "long.json", engine="numpi")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"long\.json\.part cannot be written: No such file or directory"):
        run(folders["leaky"], tmp_path / "nowhere" / "long.json")


@pytest.mark.usefixtures("quick")
def test_an_emulated_board_records_no_times(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = msgspec.structs.replace(read_facts(), machine="aarch64", model="linux,dummy-virt", device_tree=True)
    monkeypatch.setattr(endless, "read_facts", lambda: emulated)
    out = tmp_path / "long.json"
    with monkeypatch.context() as patch:
        patch.setattr(endless, "write_report", full)
        with pytest.raises(InputError):
            run(folders["leaky"], out, 0.2)
    for part in parts(out):
        assert {name for name, value in part.items() if isinstance(value, int) and value} <= {"frames", "rss_bytes"}
        assert all(part[name] == {"bins": {}, "longest": 0} for name in ("call", "response", "jitter"))
        assert (part["moment"], part["deadline_misses"]) == (None, None)
    report = run(folders["leaky"], out, 0.2)
    (entry,) = report.engines
    times = msgspec.to_builtins([entry.tight, entry.paced.call, entry.paced.response, entry.paced.jitter])
    assert all(value is None for latency in times for value in latency.values())
    assert (entry.paced.frames, entry.paced.deadline_misses, entry.paced.cpu_share, entry.tight_ns) == (
        40,
        None,
        None,
        [],
    )
    assert report.long_run is not None
    assert report.long_run.call_counts == {}
    assert [minute.call.p50 for minute in report.long_run.minutes] == [None, None]
    assert report.long_run.rss_growth_bytes is not None
    assert report.moments == ()


def test_the_verb_runs_one_engine_and_needs_a_place(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = str(folders["leaky"]), str(tmp_path / "long.json")
    both = ["--engine", "numpy", "--engine", "litert"]
    assert main(["bench", folder, "--duration", "1h", *both, "--out", out]) == 2
    assert "--duration runs one engine, 2 were named" in capsys.readouterr().err
    assert main(["bench", folder, str(folders["gated"]), "--duration", "1h", "--out", out]) == 2
    assert "--duration runs one folder, 2 were named" in capsys.readouterr().err
    assert main(["bench", folder, "--duration", "1h"]) == 2
    assert "--duration needs --out FILE" in capsys.readouterr().err
    short = ["--duration", "100ms", "--rate", "100", "--seconds", "0.01", "--engine", "numpy", "--out", out]
    assert main(["bench", folder, *short, "--max-rss", "1MB", "--json"]) == 7
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["exit_code"] == 7
    assert [report["long_run"]["minutes"][0]["frames"] for report in document["reports"]] == [10]
    assert json.loads((tmp_path / "long.json").read_bytes()) == {"reports": document["reports"]}
    assert [path.name for path in tmp_path.iterdir()] == ["long.json"]
