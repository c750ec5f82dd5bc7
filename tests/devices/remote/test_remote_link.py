"""The link to a board: commands over it, what goes wrong, and that nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseq.devices.remote import ssh as link_module
from edgeseq.devices.remote.diagnosis import ACCEPT_FLAG
from edgeseq.devices.remote.ssh import CONFIG_VARIABLE, Link, MissingProgram, connect
from edgeseq.devices.remote.target import Ssh
from edgeseq.errors import DeviceUnreachable, InputError, MissingDependency

from .conftest import Server, children, is_running, new_key, socket_place, wait_until

HOSTILE = (
    "a b",
    "$(touch HIT)",
    "`touch HIT`",
    "; touch HIT",
    "'; touch HIT; '",
    '"',
    "\n touch HIT\n",
    "-rf",
    "*",
    "\\",
)


def hang(mark: Path) -> str:
    """A script that says its pids, its own and that of a child, and goes on for minutes."""
    return f"sleep 300 & echo $$ $! > '{mark}.new'; mv '{mark}.new' '{mark}'; wait"


def pids_in(mark: Path) -> list[int]:
    assert wait_until(mark.exists)
    return [int(pid) for pid in mark.read_text().split()]


def all_gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_output_errors_and_code_come_back_apart(link):
    done = link.script("echo out; echo err >&2; printf end; exit 3")
    assert (done.code, done.stdout, done.stderr) == (3, "out\nend", "err\n")


def test_a_command_gets_its_input(link):
    sent = bytes(range(256)) * 3000
    assert link.run(["wc", "-c"], input=sent).stdout.strip() == str(len(sent))
    assert link.run(["od", "-An", "-tx1", "-N3"], input=sent).stdout.split() == ["00", "01", "02"]
    assert link.run(["cat"]).stdout == ""


def test_a_command_that_is_not_there_is_127(link):
    done = link.run(["no-such-program"])
    assert done.code == 127
    assert "not found" in done.stderr


@pytest.mark.parametrize(("script", "code"), [("exit 255", 255), ("kill -9 $$", 137), ("kill $$", 143)])
def test_codes_that_look_like_those_of_ssh_are_the_commands_own(link, script, code):
    assert link.script(script).code == code
    assert link.run(["echo", "still", "there"]).stdout == "still there\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_every_argument_arrives_as_it_is(link, arguments):
    done = link.run(["printf", "%s\\0", *arguments])
    assert done.stdout.split("\0")[:-1] == arguments


@pytest.mark.parametrize("text", HOSTILE)
def test_no_shell_looks_at_arguments(link, server, text):
    assert link.run(["printf", "%s", text]).stdout == text
    assert link.script('printf %s "$1"; pwd', [text]).stdout.startswith(text)
    assert link.run([text]).code == 127
    assert not list(server.home.rglob("HIT"))
    assert not Path("HIT").exists()


def test_an_argument_with_a_zero_byte_is_refused(link):
    with pytest.raises(InputError, match="zero byte"):
        link.run(["echo", "a\0b"])


def test_lines_come_while_the_command_runs(link):
    seen: list[tuple[str, bool]] = []

    def on_line(line: str) -> None:
        seen.append((line, stop.exists()))
        stop.touch()  # the second line is printed once the first was heard

    stop = Path(link.run(["mktemp", "-u"]).stdout.strip())
    try:
        link.script(
            'echo one; while [ ! -e "$1" ]; do sleep 0.05; done; echo two', [str(stop)], timeout=30, on_line=on_line
        )
    finally:
        stop.unlink(missing_ok=True)
    assert seen == [("one", False), ("two", True)]


def test_what_a_boards_shell_prints_by_itself_is_not_the_commands(server):
    (server.home / ".bashrc").write_text("echo welcome; echo 'fan fails' >&2\n")
    with connect(server.target) as link:
        if "welcome" not in subprocess.run([*link.shared, "board", "true"], capture_output=True, text=True).stdout:
            pytest.skip("the shell of this user reads no .bashrc for commands")
        assert link.run(["echo", "answer"]) == link_module.Done(0, "answer\n", "")


def test_a_shell_that_ends_at_once_is_said_with_its_words(server):
    (server.home / ".bashrc").write_text("echo 'This account is not available.'; exit 1\n")
    with pytest.raises(DeviceUnreachable, match="its shell ended"), connect(server.target, name="kitchen"):
        pass


def test_commands_run_side_by_side_over_one_connection(link):
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: link.run(["echo", str(n)]).stdout})) for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{n}\n" for n in range(5)}


def test_a_command_that_is_not_done_in_time_is_ended_with_what_it_started(link, tmp_path):
    with pytest.raises(DeviceUnreachable, match=r"kitchen: .* was not done after 1 s"):
        link.script(hang(tmp_path / "mark"), timeout=1)
    assert all_gone(pids_in(tmp_path / "mark"))
    assert link.run(["echo", "on"]).stdout == "on\n"


def test_what_a_command_leaves_running_ends_with_it(link, tmp_path):
    assert link.script(f"sleep 300 >/dev/null & echo $! > '{tmp_path}/pid'").code == 0
    assert all_gone([int((tmp_path / "pid").read_text())])


def test_a_command_that_ignores_the_end_is_killed(link, tmp_path):
    with pytest.raises(DeviceUnreachable):
        link.script(f"trap '' TERM HUP; {hang(tmp_path / 'mark')}", timeout=1)
    assert all_gone(pids_in(tmp_path / "mark"))


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_in_the_block_ends_everything(server, tmp_path, error):
    before = set(server.sessions())

    def run_until_closed(link: Link) -> None:
        with pytest.raises(DeviceUnreachable, match="closed"):
            link.script(hang(tmp_path / "mark"))

    def block() -> None:
        with connect(server.target) as link:
            places.append(Path(link.shared[link.shared.index("-S") + 1]).parent)
            running = threading.Thread(target=run_until_closed, args=(link,))
            running.start()
            threads.append(running)
            pids_in(tmp_path / "mark")
            raise error

    places: list[Path] = []
    threads: list[threading.Thread] = []
    with pytest.raises(error):
        block()
    threads[0].join()
    assert not children_named("ssh")
    assert all_gone(pids_in(tmp_path / "mark"))
    assert wait_until(lambda: set(server.sessions()) <= before)
    assert not places[0].exists()


def children_named(name: str) -> list[int]:
    mine = children(os.getpid())
    return [pid for pid in mine if is_running(pid) and Path(f"/proc/{pid}/comm").read_text().strip() == name]


WATCHED = """
import sys
from pathlib import Path
from edgeseq.devices.remote.ssh import connect
from edgeseq.devices.remote.target import Ssh
with connect(Ssh("127.0.0.1", sys.argv[1], int(sys.argv[2]))) as link:
    link.script(sys.argv[3])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_process_that_is_interrupted_or_killed(server, tmp_path, number):
    before = set(server.sessions())
    command = [sys.executable, "-c", WATCHED, server.target.user, str(server.port), hang(tmp_path / "mark")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        there = pids_in(tmp_path / "mark")
        here = children(process.pid)
        assert [pid for pid in here if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh"]
        places = [socket_place(pid) for pid in here]
        process.send_signal(number)
        process.wait()
    for place in filter(None, places):
        shutil.rmtree(place, ignore_errors=True)  # a process that is killed cannot
    assert all_gone(here)
    assert all_gone(there)
    assert wait_until(lambda: set(server.sessions()) <= before)


def test_a_closed_link_runs_nothing(server):
    with connect(server.target, name="kitchen") as link:
        pass
    with pytest.raises(DeviceUnreachable, match="kitchen: the link was closed"):
        link.run(["true"])


def test_a_closed_port_is_said_with_what_to_look_at(server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(DeviceUnreachable, match=f"kitchen: nothing answers on port {port} of 127.0.0.1.*server on"):
            open_and_close(Ssh("127.0.0.1", "root", port))


def open_and_close(target: Ssh, accept_new: bool = False, timeout: float = 20) -> None:
    with connect(target, accept_new, name="kitchen", timeout=timeout):
        pass


def test_a_port_that_says_nothing_is_given_up(server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(DeviceUnreachable, match="kitchen: it took the connection and said nothing in time"):
            open_and_close(Ssh("127.0.0.1", "root", silent.getsockname()[1]), timeout=1)


def test_a_port_that_hangs_up_is_no_ssh_server(server):
    with socket.socket() as rude:
        rude.bind(("127.0.0.1", 0))
        rude.listen()
        answering = threading.Thread(target=lambda: rude.accept()[0].close())
        answering.start()
        with pytest.raises(DeviceUnreachable, match="closed the connection before it said who it is"):
            open_and_close(Ssh("127.0.0.1", "root", rude.getsockname()[1]))
        answering.join()


def test_a_name_that_nobody_has(server):
    with pytest.raises(DeviceUnreachable, match=r"no machine is called 'no-such-board\.invalid'"):
        open_and_close(Ssh("no-such-board.invalid"))


def fingerprint(server: Server) -> str:
    said = subprocess.run(["ssh-keygen", "-lf", server.place / "host.pub"], capture_output=True, text=True, check=True)
    return said.stdout.split()[1]


def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_the_flag(server):
    server.known_hosts.write_text("")
    with pytest.raises(DeviceUnreachable, match=r"kitchen: the host key of .* is not known yet") as caught:
        open_and_close(server.target)
    assert f"ED25519 {fingerprint(server)}" in str(caught.value)
    assert ACCEPT_FLAG in str(caught.value)
    assert server.known_hosts.read_text() == ""


def test_an_unknown_host_key_that_is_accepted_is_known_from_then_on(server):
    server.known_hosts.write_text("")
    open_and_close(server.target, accept_new=True)
    assert str(server.port) in server.known_hosts.read_text()
    open_and_close(server.target)


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_host_key_is_refused_whatever_is_asked_for(server, tmp_path, accept_new):
    other = new_key(tmp_path / "other").with_suffix(".pub").read_text()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}")
    with pytest.raises(DeviceUnreachable, match=r"kitchen: its host key changed.*ssh-keygen .*-R") as caught:
        open_and_close(server.target, accept_new)
    assert fingerprint(server) in str(caught.value)


def test_no_key_that_the_board_accepts(server, tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.place / "user"), str(new_key(tmp_path / "mine"))))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    with pytest.raises(DeviceUnreachable, match=r"kitchen: it does not let you in.*ssh-copy-id -p"):
        open_and_close(server.target)


def test_the_users_configuration_names_boards(server, tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        f"Host Kitchen\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.target.user}\n"
        "  RemoteCommand echo no\n  RequestTTY force\n  LocalForward 1 127.0.0.1:1\n\nHost *\n"
        + server.config.read_text()
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    with connect(Ssh("Kitchen")) as link:
        assert link.run(["echo", "here"]).stdout == "here\n"


def test_a_configuration_that_ssh_cannot_read_is_said(server, tmp_path, monkeypatch):
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config"))
    with pytest.raises(DeviceUnreachable, match=r"ssh gave up: .*bad configuration option"):
        open_and_close(server.target)


def test_without_ssh_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match="openssh-client") as caught:
        open_and_close(Ssh("board"))
    assert isinstance(caught.value, MissingDependency)
    assert caught.value.exit_code == 3


def test_a_board_that_dies_during_a_command_is_lost(own_server, tmp_path):
    killing = threading.Thread(target=lambda: (pids_in(tmp_path / "mark"), own_server.kill()))
    killing.start()
    with (
        pytest.raises(DeviceUnreachable, match="kitchen: the link was lost during"),
        connect(own_server.target, name="kitchen") as link,
    ):
        link.script(hang(tmp_path / "mark"))
    killing.join()
    assert all_gone(pids_in(tmp_path / "mark"))


def test_a_board_that_falls_silent_during_a_command_is_lost(own_server, tmp_path, monkeypatch):
    monkeypatch.setattr(link_module, "ALIVE_SECONDS", 1)
    stopped: list[int] = []

    def stop() -> None:
        pids_in(tmp_path / "mark")
        stopped.extend(own_server.connections())
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    stopping = threading.Thread(target=stop)
    stopping.start()
    try:
        with (
            pytest.raises(DeviceUnreachable, match=r"kitchen: the link was lost during .*not responding"),
            connect(own_server.target, name="kitchen") as link,
        ):
            link.script(hang(tmp_path / "mark"))
    finally:
        stopping.join()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert all_gone(pids_in(tmp_path / "mark"))


def test_a_link_that_was_lost_says_so_again(own_server):
    with connect(own_server.target, name="kitchen") as link:
        own_server.kill()
        for _ in range(2):
            with pytest.raises(DeviceUnreachable, match="kitchen: the link was lost"):
                link.run(["true"], timeout=30)
            time.sleep(0.1)
