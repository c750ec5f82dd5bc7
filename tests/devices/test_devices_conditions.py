"""What is asked of the system while something is measured, and what becomes of it after."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseq.devices.__main__ import main
from edgeseq.devices.conditions import AS_FOUND, PROCESSORS, Conditions, held, parse_conditions
from edgeseq.devices.engines.base import thread_count
from edgeseq.errors import InputError

NOBODY = 65534
ASK = """
import os, sys
from edgeseq.devices.conditions import held, parse_conditions
from edgeseq.errors import InputError
if sys.argv[2] == "nobody" and os.getuid() == 0:
    os.setuid(65534)
told = lambda: f"{os.getpriority(os.PRIO_PROCESS, 0)} {os.sched_getscheduler(0)} {os.sched_getparam(0).sched_priority}"
print(told())
try:
    with held(parse_conditions(priority=sys.argv[1])):
        print(told())
except InputError as error:
    sys.exit(str(error))
print(told())
"""


def ask(priority: str, who: str = "me") -> subprocess.CompletedProcess[str]:
    """A process that asks for a priority: what it had, what it got, and what it has after."""
    return subprocess.run([sys.executable, "-c", ASK, priority, who], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "pin"),
    [("0", (0,)), ("2,3", (2, 3)), ("0-3", (0, 1, 2, 3)), ("5,1-2, 1", (1, 2, 5)), ("1023", (1023,))],
)
def test_processors_are_named_by_number_and_range(text: str, pin: tuple[int, ...]) -> None:
    assert parse_conditions(pin=text).pin == pin


@pytest.mark.parametrize("text", ["", "a", "-1", "3-2", "1,,2", "0-99999", "1024", "0x1", "1.5", "٣"])
def test_what_names_no_processor_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--pin is "):
        parse_conditions(pin=text)


@given(st.text(max_size=12) | st.from_regex(r"[\d,\- ]{1,12}"))
def test_any_pin_is_taken_or_refused(text: str) -> None:
    try:
        pin = parse_conditions(pin=text).pin
    except InputError:
        return
    assert pin
    assert all(0 <= number < PROCESSORS for number in pin)
    assert list(pin) == sorted(set(pin))


@pytest.mark.parametrize("text", ["", "20", "-21", "fifo", "fifo:0", "fifo:100", "rr:5", "1.5", "FIFO 5"])
def test_a_priority_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--priority is "):
        parse_conditions(priority=text)


@pytest.mark.parametrize("text", ["-20", "19", "+3", "0", "fifo:1", "FIFO:99"])
def test_a_priority_is_recorded_as_it_was_asked_for(text: str) -> None:
    assert parse_conditions(priority=text).priority == text.lower()


def test_threads_are_those_asked_for_or_of_the_environment_or_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGESEQ_THREADS", raising=False)
    assert parse_conditions() == AS_FOUND
    monkeypatch.setenv("EDGESEQ_THREADS", "3")
    assert (parse_conditions().threads, parse_conditions(threads=2).threads) == (3, 2)
    with held(Conditions(threads=2)):
        assert thread_count() == 2
    assert thread_count() == 3
    for wrong in ("0", "-1", "two", "", "²"):
        monkeypatch.setenv("EDGESEQ_THREADS", wrong)
        with pytest.raises(InputError, match="EDGESEQ_THREADS is "):
            thread_count()
    with pytest.raises(InputError, match="--threads is 0"):
        parse_conditions(threads=0)


@contextmanager
def another_thread() -> Iterator[int]:
    """A thread of this process that does nothing, by its number."""
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
    thread.start()
    ready.wait()
    assert thread.native_id is not None
    try:
        yield thread.native_id
    finally:
        done.set()
        thread.join()


def test_a_pin_holds_for_all_threads_and_new_processes_and_ends() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    child = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    with another_thread() as other:
        with held(Conditions(pin=(one,))):
            assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == {one}
            assert subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip() == f"{{{one}}}"
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == before


def test_conditions_end_with_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGESEQ_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), held(Conditions(pin=(min(before),), threads=4)):
        _ = 1 / 0
    assert os.sched_getaffinity(0) == before
    assert thread_count() == 1


def test_a_processor_that_is_not_there_is_refused_and_nothing_has_changed(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.sched_getaffinity(0)
    gone = PROCESSORS - 1
    for pin, said in ((f"{gone}", "Invalid argument"), (f"{min(before)},{gone}", f"only {min(before)} can be had")):
        assert main(["bench", str(folders["leaky"]), "--engine", "numpy", "--pin", pin]) == 2
        error = capsys.readouterr().err
        assert f"--pin {pin}: {said}" in error
        assert f"this process may use {','.join(map(str, sorted(before)))}" in error
        assert os.sched_getaffinity(0) == before


def test_a_lower_priority_is_given_to_anybody() -> None:
    done = ask("19", "nobody")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("19 0 0")


@pytest.mark.parametrize(("priority", "mend"), [("-20", "nice -20"), ("fifo:50", "rtprio 50")])
def test_a_priority_that_the_system_refuses_says_what_is_needed(priority: str, mend: str) -> None:
    done = ask(priority, "nobody")
    assert done.returncode == 1, done.stdout
    assert f"--priority {priority}: " in done.stderr
    assert "CAP_SYS_NICE" in done.stderr
    assert f"'@group - {mend}' in /etc/security/limits.conf" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(("priority", "got"), [("-5", "-5 0 0"), ("fifo:50", " 1 50")])
def test_a_priority_that_the_system_grants_holds_and_ends(priority: str, got: str) -> None:
    done = ask(priority)
    if "CAP_SYS_NICE" in done.stderr:
        pytest.skip("this user may not raise a priority")
    assert done.returncode == 0, done.stderr
    before, during, after = done.stdout.splitlines()
    assert got in during
    assert before == after != during
