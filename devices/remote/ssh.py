"""The link to a board: one connection of the system's own ssh, which every command and every file goes over.

ssh itself makes the connection, so that the user's configuration, agent, jump hosts and known_hosts apply as they do on
the command line. It is a master (ControlMaster), and what follows shares it. Its session lasts as long as its standard
input, which this process holds: when this process ends, however it does, the link ends, and what ran over it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edgeseq.devices.remote.command import CHUNK, Done, Lines, exchange, line_for_shell
from edgeseq.devices.remote.diagnosis import explain, last_words
from edgeseq.devices.remote.staging import OWNER
from edgeseq.devices.remote.target import Ssh
from edgeseq.errors import DeviceUnreachable, EdgeseqError, InputError, MissingDependency, Unsupported

CONFIG_VARIABLE = "EDGESEQ_SSH_CONFIG"  # a configuration that ssh reads in place of the user's own
CONNECT_SECONDS = 20.0
ALIVE_SECONDS, ALIVE_COUNT = 5, 3  # a board that is silent for so often so long is lost
LOGIN_SECONDS = 60.0  # to log in and to start a shell, on a slow board
CLOSE_SECONDS = 3.0
_SOCKET_LENGTH = 80  # of about 104 that a socket's path may have; ssh appends 17 while it makes one
_BOARD = "board"  # for those who share the connection: ssh wants a name, and does not use it


class MissingProgram(MissingDependency):
    """A program of the system is not installed; the message says how to get it."""

    def __init__(self, program: str, purpose: str, install: str) -> None:
        EdgeseqError.__init__(self, f"{purpose} needs the program {program}, which is not installed: {install}")


class Link:
    """An open connection to a board; :func:`connect` makes it. Its methods may be called from several threads.

    Whatever goes wrong with the link is a DeviceUnreachable that names the board and what happened.
    """

    def __init__(self, name: str, program: str, master: subprocess.Popen[bytes], place: Path) -> None:
        self.name = name
        self.owner = ""  # of what it makes on the board: set when the login is through
        self._program = program
        self._master = master
        self._place = place
        self._clients: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def shared(self) -> list[str]:
        """The beginning of an ssh command over this connection, for programs that start ssh themselves.

        Without the connection it fails: it would not connect anew, past what the user was told.
        """
        options = ("ControlMaster=no", "ProxyCommand=false", "BatchMode=yes", "LogLevel=ERROR")
        socket = str(_socket(self._place))
        return [self._program, "-F", "none", "-T", "-S", socket, *(f"-o{option}" for option in options)]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout: float | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Done:
        """Run a program on the board and wait for it; no shell there looks at its arguments.

        ``on_line`` gets each line of its standard output as it comes. What the program leaves running is ended with
        it, and the program with the link, with an exception here, and after ``timeout`` seconds.

        Raises:
            InputError: an argument holds a zero byte.
            DeviceUnreachable: the link was lost, or the program was not done in time.
        """
        lines = Lines(on_line)
        code, said = self.stream(argv, BytesIO(input), len(input), lines.write, timeout)
        return Done(code, lines.text, said)

    def script(
        self,
        text: str,
        args: Sequence[str] = (),
        *,
        timeout: float | None = None,
        on_line: Callable[[str], object] | None = None,
    ) -> Done:
        """Run a POSIX sh script on the board, with ``args`` as $1, $2 and so on; as :meth:`run` does."""
        # As an argument, not on standard input: there the first program that reads would swallow the rest of it.
        return self.run(["sh", "-c", text, "sh", *args], timeout=timeout, on_line=on_line)

    def send(self, local: Path, remote: str, *, timeout: float | None = None) -> None:
        """Copy a file or folder to the board; see :func:`edgeseq.devices.remote.transfer.send`."""
        from edgeseq.devices.remote.transfer import send

        send(self, local, remote, timeout)

    def stream(
        self,
        argv: Sequence[str],
        source: BinaryIO,
        size: int,
        sink: Callable[[bytes], object],
        timeout: float | None = None,
    ) -> tuple[int, str]:
        """As :meth:`run`, with ``size`` bytes of input from ``source`` and the output given to ``sink`` in pieces.

        Returns the exit code and what was written to standard error.
        """
        if any("\0" in part for part in argv):
            raise InputError(f"{self.name}: an argument with a zero byte cannot be given to a program: {argv!r}")
        mark = f"edgeseq-{secrets.token_hex(16)}"
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.client([*self.shared, "--", _BOARD, line_for_shell(argv, size, mark)], stdin=True) as client:
            try:
                code, said = exchange(client, mark, source, sink, deadline)
            except TimeoutError:
                raise DeviceUnreachable(
                    f"{self.name}: {_short(argv)} was not done after {timeout:g} s, and was ended"
                ) from None
        if code is None:
            raise self.lost(_short(argv), said)
        return code, said

    @contextlib.contextmanager
    def client(self, command: Sequence[str], *, stdin: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """A program here that uses the connection: it is gone when the block is left, or the link is closed."""
        with self._lock:
            if self._closed or self._master.poll() is not None:
                raise self.lost(_short(command[:1]), "")
            process = _start(command, stdin)
            self._clients.add(process)
        try:
            yield process
        finally:
            _end(process)
            _close_pipes(process)
            with self._lock:
                self._clients.discard(process)

    def alive(self) -> bool:
        """Whether the connection is there, as far as ssh has noticed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._master.wait(1)
        return self._master.poll() is None

    def lost(self, doing: str, said: str) -> DeviceUnreachable:
        """The error for a command that did not end as commands do: the link is gone, or the board killed it."""
        if self._closed:
            return DeviceUnreachable(f"{self.name}: the link was closed while {doing} ran")
        if self.alive():
            why = f": {said.splitlines()[-1]}" if said else ""
            return DeviceUnreachable(f"{self.name}: {doing} was cut off on the board{why}")
        why = last_words(_log(self._place)) or said or "ssh said nothing"
        return DeviceUnreachable(
            f"{self.name}: the link was lost during {doing} ({why}): is the board still on, and in the network?"
        )

    def close(self) -> None:
        """End the link, everything here that used it, and so everything on the board that ran over it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            clients = list(self._clients)
        try:
            for client in clients:
                _end(client)  # their pipes are closed by the threads that read them
            assert self._master.stdin
            self._master.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._master.wait(CLOSE_SECONDS)
        finally:
            _end(self._master)
            _close_pipes(self._master)
            shutil.rmtree(self._place, ignore_errors=True)


@contextlib.contextmanager
def connect(
    target: Ssh, accept_new: bool = False, *, name: str | None = None, timeout: float = CONNECT_SECONDS
) -> Iterator[Link]:
    """A link to a board, which is closed when the block is left, however that happens.

    ``name`` is what the user calls the board. A host key that is not known is refused unless ``accept_new``, which
    remembers it as ssh does; a changed one always is. ``timeout`` is in seconds, for the connection alone.

    Raises:
        MissingDependency: there is no ssh here.
        Unsupported: ssh cannot share a connection here (Windows).
        DeviceUnreachable: no link came about; says why and what mends it.
    """
    program = _program()
    name = name or target.url
    place = _private_place()
    mark = f"edgeseq-{secrets.token_hex(16)}"
    link = None
    try:
        command = _master_command(program, target, place, accept_new, timeout, mark)
        with (place / "log").open("ab") as log:
            link = Link(name, program, _start(command, stdin=True, stderr=log), place)
        owner, why = _wait(link._master, mark, timeout + LOGIN_SECONDS)
        if owner is None:
            raise DeviceUnreachable(f"{name}: {why or explain(target, _log(place))}")
        link.owner = owner
        yield link
    finally:
        if link is not None:
            link.close()
        shutil.rmtree(place, ignore_errors=True)


def _program() -> str:
    if sys.platform == "win32":
        raise Unsupported("boards are reached from Linux and macOS: ssh cannot share a connection on Windows (use WSL)")
    program = shutil.which("ssh")
    if program is None:
        raise MissingProgram("ssh", "reaching a board", "apt install openssh-client")
    return program


def _private_place() -> Path:
    """A folder that only this user may enter, with a path short enough for a socket in it."""
    usual = tempfile.gettempdir()
    short = len(usual) < _SOCKET_LENGTH - 20 and all(letter.isalnum() or letter in "/._-" for letter in usual)
    return Path(tempfile.mkdtemp(prefix="edgeseq-", dir=usual if short else "/tmp"))


def _socket(place: Path) -> Path:
    return place / "link"


def _log(place: Path) -> str:
    try:
        return (place / "log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _master_command(program: str, target: Ssh, place: Path, accept_new: bool, timeout: float, mark: str) -> list[str]:
    options = {
        "ControlMaster": "yes",
        "ControlPersist": "no",
        "BatchMode": "yes",
        "ConnectTimeout": f"{max(1, round(timeout))}",
        "ConnectionAttempts": "1",
        "ServerAliveInterval": f"{ALIVE_SECONDS}",
        "ServerAliveCountMax": f"{ALIVE_COUNT}",
        "StrictHostKeyChecking": "accept-new" if accept_new else "yes",
        "LogLevel": "DEBUG1",  # the only level at which the key of a host is shown that is not known
        # What a user's configuration may ask for in sessions of their own, and what would stand in the way of this one.
        "ClearAllForwardings": "yes",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
    }
    own = os.environ.get(CONFIG_VARIABLE)
    command = [program, *(["-F", own] if own else []), "-T", "-S", str(_socket(place)), "-E", str(place / "log")]
    command += [f"-o{option}={value}" for option, value in options.items()]
    command += ["-l", target.user] if target.user else []
    command += ["-p", f"{target.port}"] if target.port else []
    # Says that the login is through, and then reads until this process has gone.
    said = shlex.join(["sh", "-c", f'printf "%s %s\\n" "$1" {OWNER}; exec cat >/dev/null 2>&1', "sh", mark])
    return [*command, "--", target.host, said]


def _wait(master: subprocess.Popen[bytes], mark: str, seconds: float) -> tuple[str | None, str]:
    """Wait for the login. The owner that it says when it is through; or None and why not, where ssh has not said it."""
    assert master.stdout
    deadline = time.monotonic() + seconds
    said = b""
    with selectors.DefaultSelector() as ready:
        ready.register(master.stdout, selectors.EVENT_READ)
        while not (found := re.search(rf"{mark} (\S+)\n".encode(), said)):
            left = deadline - time.monotonic()
            if left <= 0:
                why = "its shell hangs, or a key waits to be touched"
                return None, f"the login was not through after {seconds:.0f} s: {why}"
            if not ready.select(left):
                continue
            data = os.read(master.stdout.fileno(), CHUNK)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    master.wait(CLOSE_SECONDS)
                shell = said.decode(errors="replace").strip()
                why = f"its shell ended instead of running a command ({shell.splitlines()[-1]})" if shell else ""
                return None, why
            said += data
    return found[1].decode(), ""


def _start(command: Sequence[str], stdin: bool, stderr: int | BinaryIO = subprocess.PIPE) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is for this process, which ends the others in order.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, if it has not ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_SECONDS)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _short(argv: Sequence[str]) -> str:
    """A command as it is named in a message."""
    text = shlex.join(argv)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
