"""Durations and sizes as people write them, and what a budget makes of a report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.__main__ import main
from edgeseq.devices.bench import BenchReport, LongRun, bench, write_report
from edgeseq.devices.budget import Budget, parse_budget, parse_duration, parse_size, require
from edgeseq.devices.fresh import Fresh
from edgeseq.devices.report.gather import read_bench
from edgeseq.errors import BudgetMissed, InputError, Unsupported

SHORT = ("--seconds", "0.01", "--paced-seconds", "0.1")


@pytest.fixture(scope="module")
def report(folders: dict[str, Path]) -> BenchReport:
    return bench(folders["leaky"], ["litert", "numpy"], seconds=0.01, paced_seconds=0.1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2ms", 0.002),
        ("500us", 0.0005),
        ("500 µs", 0.0005),
        ("90s", 90),
        ("1.5h", 5400),
        ("10 min", 600),
        ("1d", 86400),
    ],
)
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text, "--duration") == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "size"), [("60MB", 60e6), ("64MiB", 2**26), ("1.5gb", 1.5e9), ("900 kB", 9e5), ("1024B", 1024)]
)
def test_sizes_have_a_unit(text: str, size: float) -> None:
    assert parse_size(text, "--max-rss") == size


@pytest.mark.parametrize(
    "text", ["", "2", "ms", "0s", "-1s", "nan s", "inf s", "2m", "1e3s", "1h9min", "9" * 400 + "s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--duration is .*as in 2ms \(units: us, ms, s, min, h, d\)"):
        parse_duration(text, "--duration")


@given(st.text(max_size=10) | st.from_regex(r"\s?[\d.]{1,6} ?[a-zA-Zµ]{0,3}\s?"))
def test_any_duration_is_above_nothing_or_refused(text: str) -> None:
    try:
        value = parse_duration(text, "--duration")
    except InputError:
        return
    assert 0 < value < math.inf


def test_a_budget_that_is_kept_says_nothing(report: BenchReport) -> None:
    require([report], Budget())
    require([report], parse_budget("1h", "100GB"))


def with_p99(report: BenchReport, *values: float | None) -> BenchReport:
    """The report with other p99s of the paced calls, engine by engine."""
    replace = msgspec.structs.replace
    paced = [
        replace(entry.paced, call=replace(entry.paced.call, p99=value))
        for entry, value in zip(report.engines, values, strict=True)
    ]
    entries = (replace(entry, paced=part) for entry, part in zip(report.engines, paced, strict=True))
    return replace(report, engines=tuple(entries))


def test_a_missed_budget_names_engine_value_and_limit(report: BenchReport) -> None:
    said = r"over the budget: leaky in numpy: paced p99 2,310\.0 us, --max-p99 allows 2,000\.0 us"
    with pytest.raises(BudgetMissed, match=said) as told:
        require([with_p99(report, 2000.0, 2310.0)], parse_budget("2ms"))
    assert "litert" not in str(told.value)
    assert told.value.exit_code == 7


def test_a_missed_size_names_both_engines(report: BenchReport) -> None:
    with pytest.raises(BudgetMissed, match=r"leaky in litert: peak resident memory .* leaky in numpy: peak resident"):
        require([report], parse_budget(max_rss="1MB"))


def test_the_size_of_a_long_run_is_that_of_a_device_and_its_growth(report: BenchReport) -> None:
    replace = msgspec.structs.replace
    entry = replace(report.engines[0], fresh=Fresh(1.0, 1.0, 40_000_000))

    def of(growth: int | None) -> BenchReport:
        run = LongRun(
            seconds=1.0, minutes=(), call_counts={}, peak_rss_bytes=90_000_000, rss_growth_bytes=growth
        )  # 90 MB with the tools that measured it
        return replace(report, engines=(entry,), long_run=run)

    for growth in (None, -300_000, 0, 5_000_000):
        require([of(growth)], parse_budget(max_rss="45MB"))
    with pytest.raises(BudgetMissed, match=r"peak resident memory 45\.1 MB, --max-rss allows 45\.0 MB"):
        require([of(5_100_000)], parse_budget(max_rss="45MB"))


def test_a_value_that_nobody_measured_cannot_keep_a_budget(report: BenchReport) -> None:
    with pytest.raises(Unsupported, match="leaky in litert: --max-p99 cannot be judged on this machine"):
        require([with_p99(report, None, 1.0)], parse_budget("1h"))


def test_a_missed_budget_is_told_beside_a_value_that_nobody_measured(report: BenchReport) -> None:
    emulated = msgspec.structs.replace(with_p99(report, None, None), device="emulated")
    slow = msgspec.structs.replace(with_p99(report, 2310.0, 1.0), device="pi")
    with pytest.raises(BudgetMissed, match=r"leaky in litert on pi: paced p99 2,310\.0 us"):
        require([emulated, slow], parse_budget("2ms"))
    with pytest.raises(Unsupported, match="leaky in litert on emulated"):
        require([emulated], parse_budget("2ms"))


def test_a_report_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    write_report(out, {"reports": []}, sync=True)
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edgeseq.devices.bench import write_report\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "write_report(Path(sys.argv[1]), {'reports': ['x' * 1000]})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert "cannot be written: File too large" in done.stderr
    assert out.read_bytes() == b'{"reports":[]}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]


def test_a_missed_budget_comes_after_the_report(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    arguments = ["bench", str(folders["leaky"]), "--engine", "numpy", *SHORT, "--max-rss", "1MB", "--out", str(out)]
    assert main(arguments) == 7
    said = capsys.readouterr()
    assert said.out.splitlines()[2].startswith("numpy ")
    assert "error: over the budget: leaky in numpy: peak resident memory" in said.err
    assert [report.name for report in read_bench(out)] == ["leaky"]
    assert main([*arguments, "--json"]) == 7
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["type"] == "BudgetMissed"
    assert document["error"]["exit_code"] == 7
    (found,) = msgspec.convert(document["reports"], list[BenchReport])
    assert found.engines[0].engine == "numpy"


@pytest.mark.parametrize("option", [["--max-p99", "2"], ["--max-rss", "60"], ["--duration", "1"], ["--threads", "0"]])
def test_an_option_that_cannot_be_read_is_refused_before_anything_is_measured(
    folders: dict[str, Path], option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(folders["leaky"]), "--seconds", "60", "--paced-seconds", "600", *option]) == 2
    assert f"{option[0]} is " in capsys.readouterr().err
