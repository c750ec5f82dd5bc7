"""``edgeseq bench``: conditions, budgets and long runs. What it shows of a plain run is in test_cli_run."""

from __future__ import annotations

import json

import pytest

SHORT = ("--seconds", "0.02", "--paced-seconds", "0.1", "--engine", "numpy")


def test_a_missed_budget_exits_with_7_after_the_report(edgeseq, exported, tmp_path):
    report = tmp_path / "report.json"
    done = edgeseq("bench", exported, *SHORT, "--max-rss", "1MB", "--out", report)
    assert done.code == 7
    assert "gru-export in numpy: peak resident memory" in done.err
    assert "--max-rss allows 1.0 MB" in done.err
    assert f"wrote {report}" in done.out
    assert json.loads(report.read_text(encoding="utf-8"))["reports"][0]["engines"][0]["engine"] == "numpy"
    document = edgeseq("bench", exported, *SHORT, "--max-rss", "1MB", "--json").document
    assert document["error"]["exit_code"] == 7
    assert document["rows"][0]["engine"] == "numpy"


def test_a_kept_budget_says_nothing(edgeseq, exported):
    done = edgeseq("bench", exported, *SHORT, "--max-rss", "100GB", "--max-p99", "1h")
    assert (done.code, "budget" in done.err) == (0, False)


def test_conditions_are_recorded_and_said(edgeseq, exported):
    done = edgeseq("bench", exported, *SHORT, "--threads", "2")
    assert done.code == 0, done.err
    assert "Measured 2 threads allowed." in done.out
    document = edgeseq("bench", exported, *SHORT, "--threads", "2", "--json").document
    assert document["conditions"]["threads"] == 2
    assert document["rows"][0]["jitter_us"]["p99"] > 0


def test_a_long_run_writes_its_report_and_goes_into_a_page(edgeseq, exported, tmp_path):
    out = tmp_path / "long.json"
    done = edgeseq("bench", exported, "--duration", "200ms", *SHORT[:2], "--engine", "numpy", "--out", out)
    assert done.code == 0, done.err
    assert "A long run: 0.2 s in 1 parts, without a gap." in done.out
    assert f"wrote {out}" in done.out
    (report,) = json.loads(out.read_text(encoding="utf-8"))["reports"]
    assert report["long_run"]["minutes"][0]["frames"] == 10
    made = edgeseq("report", exported, "--bench", out, "--no-baseline", "--out", tmp_path / "report", "--json")
    assert made.code == 0, made.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "1h"], "--duration needs --out FILE"),
        (["--duration", "1h", "--out", "x.json", "--engine", "litert"], "--duration runs one engine, 2 were named"),
        (["--duration", "60"], "--duration is '60'"),
        (["--max-p99", "2"], "as in 2ms"),
        (["--max-rss", "60"], "as in 60MB"),
        (["--pin", "first"], "--pin is 'first'"),
        (["--priority", "high"], "--priority is 'high'"),
        (["--threads", "0"], "--threads is 0"),
        (["--rate", "0"], "a number above 0 is needed"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(edgeseq, exported, arguments, said):
    done = edgeseq("bench", exported, "--engine", "numpy", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
