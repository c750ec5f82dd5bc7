"""One measurement at a time: a second one is refused or waits, and nothing that died is in anybody's way."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq.cli.bench import bench_folders
from edgeseq.cli.output import Show
from edgeseq.cli.report import report
from edgeseq.devices.__main__ import main
from edgeseq.devices.bench import bench
from edgeseq.devices.bench.alone import alone, lock_file
from edgeseq.devices.endless import record_of
from edgeseq.errors import InputError
from edgeseq.folder import open_folder

SHORT = ("--engine", "numpy", "--seconds", "0.01", "--paced-seconds", "0.1")
HOLD = "from edgeseq.devices.bench.alone import alone\nwith alone():\n    print(flush=True)\n    input()\n"


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this process and those that it starts."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def measuring() -> Iterator[subprocess.Popen[str]]:
    """Another process, which measures until its standard input ends."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_bench_is_refused_at_once_and_says_who_measures(
    folders: dict[str, Path], tmp_path: Path, measuring: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "long.json"
    said = f"process {measuring.pid} measures on this machine, and two at once would measure each other: wait"
    assert main(["bench", str(folders["leaky"]), *SHORT]) == 2
    assert said in capsys.readouterr().err
    assert main(["bench", str(folders["leaky"]), *SHORT[:4], "--duration", "1h", "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not record_of(out).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_bench_that_was_killed_is_in_nobodys_way(
    folders: dict[str, Path], measuring: subprocess.Popen[str], how: signal.Signals
) -> None:
    measuring.send_signal(how)
    measuring.wait()
    assert bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.1).engines
    with alone():
        pass  # nor is one that ended well


def test_who_waits_measures_when_the_other_has_ended(
    folders: dict[str, Path], measuring: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []

    def end() -> None:
        ended.append(time.monotonic_ns())
        measuring.communicate("\n")

    ending = threading.Timer(0.2, end)
    ending.start()
    found = bench(folders["leaky"], ["numpy"], seconds=0.01, paced_seconds=0.1, wait=True)
    ending.join()
    assert found.moments[0].monotonic_ns > ended[0]
    assert f"edgeseq: waiting until process {measuring.pid} has measured here" in capsys.readouterr().err


def test_a_process_that_measures_lets_those_that_it_starts_have_no_part_in_its_lock() -> None:
    with alone():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        try:
            with alone():
                pass
        finally:
            child.kill()


def test_machines_that_share_a_home_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone():
        with pytest.raises(InputError, match="measures on this machine"), alone():
            pass
        monkeypatch.setattr("platform.node", lambda: "another/machine")
        assert lock_file().name == "bench-another_machine.lock"
        with alone():
            pass


def test_a_bench_with_a_cache_of_its_own_is_kept_away_too(
    measuring: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))  # as that of a bench over ssh
    with pytest.raises(InputError, match=f"process {measuring.pid} measures on this machine"), alone():
        pass


def test_the_lock_lies_in_a_folder_of_this_user_alone(own_lock: Path) -> None:
    folder = own_lock / f"edgeseq-{os.getuid()}"
    folder.mkdir(mode=0o777)
    with alone():
        assert lock_file().parent == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert lock_file().exists()  # one that was deleted would keep nobody away


@pytest.mark.parametrize("planted", ["link", "file", "stranger"])
def test_what_another_user_may_have_put_there_is_not_used(
    own_lock: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planted: str,
) -> None:
    folder, elsewhere = own_lock / f"edgeseq-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if planted == "link":
        folder.symlink_to(elsewhere)
    elif planted == "file":
        folder.touch()
    else:
        user = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: user)
        folder = own_lock / f"edgeseq-{user}"
        folder.mkdir()
    with alone():
        pass
    assert f"here meanwhile: {folder} is not a folder of this user: remove it" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []


def test_folders_are_measured_when_the_other_has_ended_and_nothing_is_opened_before(
    folders: dict[str, Path],
    measuring: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("an engine is opened while another process measures")

    folder, show = open_folder(folders["leaky"]), Show(json=False)
    with monkeypatch.context() as patch:
        patch.setattr("edgeseq.devices.engines.open_all", opened)
        with pytest.raises(InputError, match="measures on this machine"):
            bench_folders(show, [folder], seconds=0.01, paced_seconds=0.1)
    ending = threading.Timer(0.2, measuring.communicate, ["\n"])
    ending.start()
    (found,) = bench_folders(show, [folder], ["numpy"], seconds=0.01, paced_seconds=0.1, wait=True)
    ending.join()
    assert found.engines
    assert f"waiting until process {measuring.pid} has measured here" in capsys.readouterr().err


def test_a_report_that_measures_waits_its_turn(
    folders: dict[str, Path], tmp_path: Path, measuring: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ending = threading.Timer(0.2, measuring.communicate, ["\n"])
    ending.start()
    report([folders["leaky"]], out=tmp_path / "report", baseline=False, seconds=0.01, paced_seconds=0.1, compare=None)
    ending.join()
    assert (tmp_path / "report" / "report.json").exists()
    assert f"waiting until process {measuring.pid} has measured here" in capsys.readouterr().err


def test_where_no_lock_can_be_kept_that_is_said(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/nowhere")
    assert main(["bench", str(folders["leaky"]), *SHORT]) == 0
    assert "nothing keeps another bench from measuring here meanwhile: [Errno 20]" in capsys.readouterr().err
