from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeseq.devices.__main__ import main
from edgeseq.devices.bench import UNTIMED, BenchReport, Latency, Paced, bench, latency, measure, turns
from edgeseq.devices.bench.turns import MAX_SAMPLES, TURNS, WARM_UP
from edgeseq.devices.board.moments import read_moment
from edgeseq.devices.conditions import AS_FOUND, Conditions
from edgeseq.devices.facts import read_facts
from edgeseq.devices.fresh import Fresh, measure_fresh, peak_rss_bytes
from edgeseq.devices.report.gather import read_bench
from edgeseq.errors import EdgeseqError, InputError
from edgeseq.folder import open_folder


@pytest.fixture(scope="module")
def report(folders: dict[str, Path]) -> BenchReport:
    return bench(folders["leaky"], seconds=0.05, paced_seconds=0.2, rate=100.0)


def printed(text: str) -> list[BenchReport]:
    """The reports of the one document that the verb printed."""
    return msgspec.convert(json.loads(text)["reports"], list[BenchReport])


def test_a_report_survives_json(report: BenchReport) -> None:
    assert msgspec.json.decode(msgspec.json.encode(report), type=BenchReport) == report


def test_a_report_is_complete(report: BenchReport, folders: dict[str, Path]) -> None:
    folder = folders["leaky"]
    assert [entry.engine for entry in report.engines] == ["litert", "onnxruntime", "numpy"]
    assert report.folder_hash == open_folder(folder).hash
    assert report.provenance == "host"
    assert report.energy == "none"
    assert report.rate == 100.0
    assert report.parameters == 8 * 3 + 1 + 4 * 8 + 4
    assert report.constant_bytes == 4 * report.parameters
    assert report.state_bytes == 4 * 8
    assert report.macs == 8 * 3 + 8 + 4 * 8
    assert report.elementwise == 0
    for entry in report.engines:
        assert entry.fresh.load_ms > 0
        assert entry.fresh.first_call_ms > 0
        assert entry.fresh.peak_rss_bytes is None or entry.fresh.peak_rss_bytes > 5_000_000
        assert entry.paced.frames == len(entry.paced.call_ns) == len(entry.paced.response_ns) == 20
        assert 0 <= entry.paced.deadline_misses <= 20
        assert entry.paced.cpu_share > 0
        assert 0 < len(entry.tight_ns) <= MAX_SAMPLES + 100
        pairs = list(zip(entry.paced.response_ns, entry.paced.call_ns, strict=True))
        assert all(response >= call > 0 for response, call in pairs)
        assert 0 < (entry.paced.jitter.p50 or 0) <= max(response - call for response, call in pairs) / 1e3
        assert entry.tight == latency(entry.tight_ns)
        if entry.engine != "numpy":
            assert entry.file_bytes == (folder / entry.file).stat().st_size
    assert report.engines[2].file_bytes == sum(
        (folder / f"step.{end}").stat().st_size for end in ("json", "safetensors")
    )


def test_a_report_says_under_what_conditions_it_was_measured(report: BenchReport) -> None:
    assert report.conditions == Conditions(None, None, 1, warm_up_calls=2 * TURNS * WARM_UP)
    assert all(entry.facts["threads"] == 1 for entry in report.engines)
    assert len(report.moments) == 2 * TURNS
    assert [moment.monotonic_ns for moment in report.moments] == sorted(m.monotonic_ns for m in report.moments)
    assert (report.power, report.resumed, report.long_run) == (None, 0, None)


def test_a_report_of_an_older_edgeseq_reads(report: BenchReport) -> None:
    new = ("conditions", "moments", "throttled", "power", "resumed", "long_run", "device", "measured")
    document = {name: value for name, value in msgspec.to_builtins(report).items() if name not in new}
    for entry in document["engines"]:
        del entry["paced"]["jitter"]
    old = msgspec.convert(document, BenchReport)
    assert old.engines[0].tight == report.engines[0].tight
    assert (old.conditions, old.moments, old.engines[0].paced.jitter) == (AS_FOUND, (), UNTIMED)
    assert old.measured is None


def test_a_report_says_when_the_measurement_ended(folders: dict[str, Path]) -> None:
    begun = time.time()
    found = bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.3, rate=100.0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found.measured or "")
    ended = datetime.fromisoformat(found.measured or "").timestamp()
    assert int(begun + 0.3) <= ended <= time.time()


def test_several_folders_are_measured_in_turns_into_one_document(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paced: list[str] = []

    def told(run: turns.Run, *arguments: Any) -> None:
        paced.append(run.folder.manifest.name)
        turns.paced_turn(run, *arguments)

    monkeypatch.setattr(measure, "paced_turn", told)
    names, out = ["leaky", "gated"], tmp_path / "bench.json"
    short = ("--engine", "numpy", "--seconds", "0.01", "--paced-seconds", "0.1", "--out", str(out))
    command = ["bench", *(str(folders[name]) for name in names), *short]
    assert main([*command, "--json"]) == 0
    found = capsys.readouterr().out
    assert [set(paced[at : at + 2]) for at in range(0, 2 * TURNS, 2)] == TURNS * [set(names)]
    assert list(json.loads(found)) == ["reports"]
    assert [report.name for report in printed(found)] == names
    assert list(read_bench(out)) == printed(found)
    assert main(command) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith("leaky on ")
    assert second.startswith("gated on ")


def test_tight_and_paced_turns_alternate_after_a_warm_up(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def told(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*arguments: Any) -> Any:
            done.append(name)
            return call(*arguments)

        return tell

    monkeypatch.setattr(turns, "warm_up", told("warm-up", turns.warm_up))
    monkeypatch.setattr(measure, "warm_up", told("warm-up", turns.warm_up))
    for name in ("tight_turn", "paced_turn", "read_moment"):
        monkeypatch.setattr(measure, name, told(name, getattr(measure, name)))
    bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.1)
    once = ["tight_turn", "warm-up", "read_moment", "warm-up", "warm-up", "paced_turn", "read_moment"]
    assert done == TURNS * once


class Clock:
    """A clock by hand: a sleep wakes ``late`` nanoseconds after its time, and looking costs nothing."""

    def __init__(self, late: int) -> None:
        self.now, self.late = 1_000_000_000, late

    def let_pass(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    def sleep(self, seconds: float) -> None:
        self.let_pass(round(1e9 * seconds) + self.late)


@pytest.mark.parametrize("steps_ms", [1, 25])
def test_jitter_is_the_lateness_of_the_machine_and_not_the_backlog_of_a_slow_model(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, steps_ms: int
) -> None:
    clock = Clock(late=70_000)
    (run,) = measure.open_runs(open_folder(folders["leaky"]), ["numpy"], 100.0)
    monkeypatch.setattr(run.session, "step", lambda frame: clock.let_pass(1_000_000 * steps_ms))
    monkeypatch.setattr(
        turns, "time", SimpleNamespace(sleep=clock.sleep, perf_counter_ns=lambda: clock.now, process_time_ns=lambda: 0)
    )
    turn = turns.Turn()
    turns.paced_turn(run, 10, turn)
    behind = steps_ms > 10
    assert turn.jitter_ns == [70_000] + 9 * [0 if behind else 70_000]
    assert turn.call_ns == 10 * [1_000_000 * steps_ms]
    assert turn.response_ns == [
        70_000 + 1_000_000 * steps_ms + (1_000_000 * (steps_ms - 10) * i if behind else 0) for i in range(10)
    ]
    assert turn.misses == (10 if behind else 0)


def test_a_run_that_was_slowed_down_is_marked(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = msgspec.structs.replace(read_moment(), throttled="80008", throttle=("soft temperature limit now",))
    monkeypatch.setattr(measure, "read_moment", lambda: hot)
    arguments = ["bench", str(folders["leaky"]), "--engine", "numpy", "--seconds", "0.01", "--paced-seconds", "0.1"]
    assert main(arguments) == 0
    assert "THROTTLED: soft temperature limit" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    (report,) = printed(capsys.readouterr().out)
    assert "soft temperature limit" in (report.throttled or "")
    assert report.moments == 2 * TURNS * (hot,)


def test_threads_reach_the_engines_and_the_process_of_their_own(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def fresh(folder: Path, engine: str) -> Fresh:
        seen.append(os.environ.get("EDGESEQ_THREADS"))
        return measure_fresh(folder, engine)

    monkeypatch.delenv("EDGESEQ_THREADS", raising=False)
    monkeypatch.setattr(measure, "measure_fresh", fresh)
    names = ["litert", "onnxruntime", "numpy"]
    found = bench(folders["leaky"], names, seconds=0.01, paced_seconds=0.05, conditions=Conditions(threads=2))
    assert [entry.facts["threads"] for entry in found.engines] == [2, 2, 1]
    assert found.conditions.threads == 2
    assert seen == ["2", "2", "2"]
    assert "EDGESEQ_THREADS" not in os.environ


def test_latency_quantiles_are_in_microseconds() -> None:
    assert latency([1000 * n for n in range(1, 102)]) == Latency(51.0, 91.0, 100.0, 101.0)


@pytest.mark.parametrize("options", [{"seconds": 0.0}, {"paced_seconds": -1.0}, {"rate": 0.0}, {"rate": float("nan")}])
def test_durations_and_rates_must_be_positive(folders: dict[str, Path], options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="a positive number is needed"):
        bench(folders["leaky"], ["numpy"], **options)


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_facts_of_a_raspberry_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\x00")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "51234\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "48000\n")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    write(tmp_path, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    facts = read_facts(tmp_path)
    assert facts.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert (facts.governor, facts.clock_mhz, facts.temperature_c) == ("ondemand", 2400.0, 51.234)
    assert facts.throttled == "50000"
    assert facts.os == "Debian GNU/Linux 12 (bookworm)"
    assert facts.provenance == "measured-on-device"


def test_an_emulated_board_is_not_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    write(tmp_path, "proc/device-tree/model", "linux,dummy-virt\x00")
    assert read_facts(tmp_path).provenance == "emulated-functional"


def test_a_machine_without_a_device_tree_is_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    write(tmp_path, "proc/cpuinfo", "processor: 0\nmodel name\t: Neoverse-N1\ncpu MHz\t\t: 2500.5\n\nprocessor: 1\n")
    facts = read_facts(tmp_path)
    assert (facts.model, facts.clock_mhz, facts.provenance) == ("Neoverse-N1", 2500.5, "host")


def test_facts_that_cannot_be_read_are_absent(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "no number")
    write(tmp_path, "proc/cpuinfo", "cpu MHz : fast\n")
    facts = read_facts(tmp_path / "nothing")
    assert (facts.model, facts.governor, facts.clock_mhz, facts.temperature_c) == (None, None, None, None)
    assert (read_facts(tmp_path).temperature_c, read_facts(tmp_path).clock_mhz) == (None, None)
    assert facts.versions["numpy"]


def test_a_model_folder_that_holds_a_module_does_not_run_it(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(folders["leaky"], tmp_path / "model"))
    for name in ("msgspec", "numpy", "edgeseq", "json"):
        write(folder, f"{name}.py", f"open('ran-{name}', 'w').close()\n")
    monkeypatch.chdir(folder)
    assert (measure_fresh(Path(), "numpy").load_ms or 0) > 0
    assert list(folder.glob("ran-*")) == []


def test_the_peak_of_a_process_is_what_the_kernel_kept_and_not_of_the_one_that_started_it(
    folders: dict[str, Path],
) -> None:
    size = 200_000_000
    np.ones(size, np.uint8)  # gone when it is asked for
    assert (own := peak_rss_bytes() or 0) > size
    fresh = measure_fresh(folders["leaky"], "numpy").peak_rss_bytes or 0
    assert 5_000_000 < fresh < size < own


def test_a_process_that_fails_is_an_error_with_its_last_line(folders: dict[str, Path]) -> None:
    with pytest.raises(EdgeseqError, match=r"engine litrt failed in a process of its own.*Did you mean 'litert'"):
        measure_fresh(folders["leaky"], "litrt")


def test_a_process_that_says_nothing_is_an_error(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", shutil.which("true"))
    with pytest.raises(EdgeseqError, match=r"\(exit code 0\): nothing"):
        measure_fresh(folders["leaky"], "numpy")


def test_an_emulated_board_shows_no_times(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emulated = msgspec.structs.replace(read_facts(), machine="aarch64", model="linux,dummy-virt", device_tree=True)
    monkeypatch.setattr(measure, "read_facts", lambda: emulated)
    arguments = ["bench", str(folders["leaky"]), "--engine", "numpy", "--seconds", "9", "--paced-seconds", "99"]
    assert main([*arguments, "--json"]) == 0
    (report,) = printed(capsys.readouterr().out)
    (entry,) = report.engines
    assert (report.provenance, report.timer_ns) == ("emulated-functional", None)
    nothing = Latency(None, None, None, None)
    assert (entry.tight, entry.tight_ns, entry.fresh.load_ms, entry.fresh.first_call_ms) == (nothing, [], None, None)
    assert entry.paced == Paced(1, nothing, nothing, None, None, [], [])
    assert entry.file_bytes > 0
    assert (report.moments, report.throttled, report.power, report.energy) == ((), None, None, "none")
    assert main([*arguments, "--max-p99", "1h"]) == 4
    assert "--max-p99 cannot be judged on this machine (emulated-functional)" in capsys.readouterr().err
    assert main(arguments) == 0
    _, _, row, why = capsys.readouterr().out.splitlines()
    assert row.split()[:3] == ["numpy", "-", "-"]
    assert row.split()[5:] == ["-"] * 8
    assert "this machine is emulated" in why
