"""A real ssh server on this machine, as its own user, that serves a home of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeseq.devices.remote.inventory import FILE_VARIABLE
from edgeseq.devices.remote.ssh import CONFIG_VARIABLE, Link, connect
from edgeseq.devices.remote.target import Ssh

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
STARTING_SECONDS = 20


def new_key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def children(pid: int) -> list[int]:
    """The processes below one, the nearest first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found[1:]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def socket_place(pid: int) -> Path | None:
    """The folder of the socket that an ssh process makes or uses."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(words[words.index(b"-S") + 1].decode()).parent if b"-S" in words else None


def wait_until(done: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether something comes true; bounds a wait, and is no statement about speed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.05)
    return done()


@dataclass
class Server:
    """An ssh server and what a client needs to get in. ``home`` is the home that its users have."""

    place: Path
    port: int = field(default_factory=free_port)
    settings: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def tools(self) -> Path:
        return self.place / "tools"

    @property
    def config(self) -> Path:
        return self.place / "client.conf"

    @property
    def known_hosts(self) -> Path:
        return self.place / "known_hosts"

    @property
    def target(self) -> Ssh:
        return Ssh("127.0.0.1", getpass.getuser(), self.port)

    def start(self) -> Server:
        self.home.mkdir()
        host_key, user_key = new_key(self.place / "host"), new_key(self.place / "user")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key.with_suffix('.pub').read_text()}")
        self.config.write_text(
            f"UserKnownHostsFile {self.known_hosts}\nGlobalKnownHostsFile /dev/null\nIdentityFile {user_key}\n"
            "IdentitiesOnly yes\nIdentityAgent none\nUpdateHostKeys no\n"
        )
        settings = (
            *(f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {host_key}", f"PidFile {self.place}/pid"),
            *(f"AuthorizedKeysFile {user_key}.pub", "StrictModes no", "UsePAM no", "PermitRootLogin yes"),
            *("PasswordAuthentication no", "KbdInteractiveAuthentication no", *self.settings),
        )
        (self.place / "sshd.conf").write_text("\n".join(settings) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks a part of itself in, and nothing lies
        assert SSHD
        command = [SSHD, "-D", "-f", self.place / "sshd.conf", "-E", self.place / "sshd.log"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        assert wait_until(self._answers, STARTING_SECONDS), (self.place / "sshd.log").read_text()
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as opened:
            return opened.recv(4) == b"SSH-"
        return False

    def sessions(self) -> list[int]:
        """Every process below the server: its own for each connection, and what runs in them."""
        return [pid for pid in children(self.process.pid) if is_running(pid)]

    def kill(self) -> None:
        """As if the board lost its power, for those at the other end."""
        for pid in [self.process.pid, *self.connections()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def connections(self) -> list[int]:
        """The server's own processes, one or two for each connection."""
        return [pid for pid in self.sessions() if "sshd" in Path(f"/proc/{pid}/comm").read_text()]

    def commands(self) -> list[int]:
        """Every process on this machine that has the server's home: what was started over ssh, wherever it went."""
        wanted = f"HOME={self.home}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return found

    def stop(self) -> None:
        for pid in [self.process.pid, *self.sessions()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _start(place: Path, path: Path | None = None) -> Server:
    if SSHD is None or not shutil.which("ssh"):
        pytest.skip("no OpenSSH client and server here: make sshd")
    sees = f" PATH={path}" if path else ""
    temporary = place / "tmp"  # a board of its own: who measures on this one keeps nobody from another
    temporary.mkdir(parents=True, exist_ok=True)
    return Server(place, settings=(f"SetEnv HOME={place / 'home'} TMPDIR={temporary}{sees}",)).start()


def find_tools(place: Path, *names: str) -> Path:
    """A folder of programs, for a PATH with nothing else."""
    place.mkdir()
    for name in names:
        (place / name).symlink_to(str(shutil.which(name)))
    return place


def put_tool(place: Path, name: str, script: str) -> None:
    """A program of a few lines in such a folder."""
    (place / name).unlink(missing_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(0o755)


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the user's devices: not that of who runs the tests."""
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "devices.toml"))
    return tmp_path / "devices.toml"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = _start(tmp_path_factory.mktemp("sshd"))
    yield server
    gone = wait_until(lambda: not server.commands())
    server.stop()
    assert gone


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, with an empty home, and a client that knows it."""
    for entry in shared_server.home.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    known = shared_server.known_hosts.read_bytes()
    monkeypatch.setenv(CONFIG_VARIABLE, str(shared_server.config))
    yield shared_server
    assert wait_until(lambda: not shared_server.commands())
    shared_server.known_hosts.write_bytes(known)


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that a test may kill."""
    (tmp_path / "sshd").mkdir()
    server = _start(tmp_path / "sshd")
    monkeypatch.setenv(CONFIG_VARIABLE, str(server.config))
    yield server
    gone = wait_until(lambda: not server.commands())
    server.stop()
    assert gone


@pytest.fixture
def poor_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of a test's own, whose programs are those in ``tools``: no rsync, no Python, tar and little more."""
    (tmp_path / "poor").mkdir()
    tools = find_tools(tmp_path / "poor" / "tools", "sh", "tar", "mkdir", "rmdir", "mv", "rm", "find", "setsid", "cat")
    for tool in ("head", "sleep", "uname", "tail", "df"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    server = _start(tmp_path / "poor", tools)
    monkeypatch.setenv(CONFIG_VARIABLE, str(server.config))
    yield server
    gone = wait_until(lambda: not server.commands())
    server.stop()
    assert gone


@pytest.fixture
def link(server: Server) -> Iterator[Link]:
    with connect(server.target, name="kitchen") as opened:
        yield opened
