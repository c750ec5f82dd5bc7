"""A command under the few lines of sh that carry it, in every shell that a board may have."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from edgeseq.devices.remote.command import Lines, exchange, line_for_shell

from .conftest import is_running, wait_until

MARK = "edgeseq-0123456789abcdef"
SHELLS = ("dash", "bash", "busybox")
Run = Callable[..., tuple[int | None, str, str]]


@pytest.fixture(
    params=[(shell, own) for shell in SHELLS for own in (True, False)], ids=lambda param: "-".join(map(str, param))
)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a command as a board's shell would, with setsid there or not: code, output, errors."""
    shell, own_group = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("head", "cat", "sleep", "wc", "seq", *(["setsid"] if own_group else [])):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    (tools / "sh").symlink_to(str(shutil.which(shell)))  # busybox is what it is called as

    def run(
        argv: list[str], *, input: bytes = b"", ahead: str = "", seconds: float = 20
    ) -> tuple[int | None, str, str]:
        line = ahead + line_for_shell(argv, len(input), MARK)
        with subprocess.Popen(
            [tools / "sh", "-c", line], stdin=-1, stdout=-1, stderr=-1, bufsize=0, env={"PATH": str(tools)}
        ) as process:
            lines = Lines()
            code, said = exchange(process, MARK, BytesIO(input), lines.write, time.monotonic() + seconds)
        return code, lines.text, said

    return run


def test_output_errors_and_code(run):
    assert run(["sh", "-c", "echo out; echo err >&2; exit 7"]) == (7, "out\n", "err\n")


def test_arguments_are_not_looked_at(run):
    hostile = ["$(echo no)", "a  b", "'", '"', "\\n", "\n", "", "-n", "*"]
    code, out, _ = run(["sh", "-c", 'for each; do printf "<%s>" "$each"; done', "sh", *hostile])
    assert code == 0
    assert out == "".join(f"<{each}>" for each in hostile)


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_input_arrives_whole_and_ends(run, size):
    code, out, _ = run(["wc", "-c"], input=b"\0\n" * (size // 2) + b"x" * (size % 2))
    assert (code, out.strip()) == (0, str(size))


def test_input_that_nobody_reads_hinders_nobody(run):
    assert run(["echo", "done"], input=b"x" * 1_000_000)[:2] == (0, "done\n")


def test_noise_ahead_of_the_command_is_left_out(run):
    ahead = "echo motd; printf 'no line end'; echo more >&2; "
    assert run(["echo", "answer"], ahead=ahead)[1] == "answer\n"
    assert run(["sh", "-c", "echo mine >&2"], ahead="echo theirs >&2; ")[2] == "mine\n"


def test_much_noise_and_much_output(run):
    code, out, _ = run(["seq", "30000"], ahead="seq 20000; ")
    assert code == 0
    assert out.splitlines() == [str(n) for n in range(1, 30001)]


def test_a_program_that_is_not_there(run):
    code, _, said = run(["no-such-program"])
    assert code == 127
    assert "no-such-program" in said


def test_a_shell_that_never_came_to_the_command_has_no_code(run):
    assert run(["true"], ahead="echo no shell for you >&2; exit 0; ") == (None, "", "no shell for you")


def test_a_command_that_outlives_its_time_is_an_error(run):
    with pytest.raises(TimeoutError):
        run(["sleep", "3"], seconds=0.5)


def test_lines_are_handed_on_whole_however_they_are_cut():
    seen: list[str] = []
    lines = Lines(seen.append)
    for piece in (b"on", b"e\ntwo\nth", b"", b"r\xc3", b"\xbc\n", b"rest"):
        lines.write(piece)
    assert seen == ["one", "two", "thr\u00fc"]
    assert lines.text == "one\ntwo\nthr\u00fc\nrest"


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_end_of_its_input_ends_a_command_and_what_it_started(shell, size, tmp_path):
    if shutil.which(shell) is None or shutil.which("setsid") is None:
        pytest.skip(f"there is no {shell} here, or no setsid")
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    line = line_for_shell(
        ["sh", "-c", f"sleep 300 & echo $$ $! >'{tmp_path}/new'; mv '{tmp_path}/new' '{tmp_path}/pids'; wait"],
        size,
        MARK,
    )
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with subprocess.Popen([tmp_path / "sh", "-c", line], stdin=-1, stdout=-1, stderr=-1, env=env) as process:
        assert wait_until((tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(is_running(pid) for pid in pids)
        assert process.stdin
        process.stdin.write(bytes(min(size, 100_000)))  # as much as two pipes hold, when nobody reads it
        process.stdin.flush()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            stream.close()
        assert wait_until(lambda: not any(is_running(pid) for pid in pids))
