"""One command over the link: how it is started on the board, and its streams until it has ended.

A board's shell may print before the command does (an rc file that echoes), and a command must not outlive the link.
So the command runs under a few lines of POSIX sh there. A line that nobody can know beforehand, the mark, is printed
ahead of the first byte of either stream, and once more on standard error, with the exit code, when it has ended. And
the session's standard input stays open as long as somebody here listens: when it ends, the command and whatever it
started are ended too. A command that does not read its input keeps that end from being seen; as long as there is some
to be read, a line of the mark goes to standard error every two seconds, and fails when nobody is there to get it.
"""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import BinaryIO

import msgspec

CHUNK = 65536
NOISE = 4096  # bytes that are kept of what comes ahead of the mark, to say what a board said instead
# setsid (of util-linux, or of busybox) gives the command a process group of its own; a board without it runs commands
# too, but those that do not end with their pipes outlive a link that breaks.
OUTER = """
inner=$1 mark=$2; shift
exec 3<&0
printf '%s\\n' "$mark"
printf '%s\\n' "$mark" >&2
own=
command -v setsid >/dev/null 2>&1 && own=setsid
$own sh -c "$inner" sh "$@" <&3 &
exec 3<&- 2>/dev/null
wait $!
"""
INNER = """
mark=$1 size=$2; shift 2
exec 3<&0
end() { kill -TERM -$$; sleep 5; kill -KILL -$$; }
{
  exec 4>&2 2>/dev/null
  trap '' TERM PIPE
  if [ "$size" -gt 0 ]; then
    { exec >&-; while sleep 2 4>&-; do printf '%s ~\\n' "$mark" >&4 || { end; break; }; done; } &
    head -c "$size" <&3 4>&-
    kill -KILL $!
  fi
  exec >&- 4>&-
  while read -r _; do :; done <&3
  end
} | {
  exec 3<&-
  trap : TERM PIPE
  "$@"
  printf '%s %s\\n' "$mark" $? >&2
  kill -KILL -$$ 2>/dev/null || kill -KILL $$
}
"""


class Done(msgspec.Struct, frozen=True):
    """A command that ended, and what it wrote. The exit code is a shell's: 127 not found, 128 + n signal n."""

    code: int
    stdout: str
    stderr: str


def line_for_shell(argv: Sequence[str], size: int, mark: str) -> str:
    """What ssh gives to the board's shell, to run ``argv`` with the next ``size`` bytes as its standard input."""
    return shlex.join(["sh", "-c", OUTER, "sh", INNER, mark, str(size), *argv])


def exchange(
    process: subprocess.Popen[bytes],
    mark: str,
    source: BinaryIO,
    sink: Callable[[bytes], object],
    deadline: float | None,
) -> tuple[int | None, str]:
    """Feed ``source`` to a command that :func:`line_for_shell` made, and give its output to ``sink``, until both end.

    Returns its exit code, None where it did not get as far as to say it, and what it wrote to standard error (without
    a code: what was said there instead).

    Raises:
        TimeoutError: it went on after ``deadline`` (of time.monotonic).
    """
    assert process.stdin
    assert process.stdout
    assert process.stderr
    errors = BytesIO()
    out, err = _Past(mark, sink), _Past(mark, errors.write)
    with selectors.DefaultSelector() as ready:
        os.set_blocking(process.stdin.fileno(), False)
        ready.register(process.stdin, selectors.EVENT_WRITE, _Feeder(source))
        ready.register(process.stdout, selectors.EVENT_READ, out)
        ready.register(process.stderr, selectors.EVENT_READ, err)
        reading = 2
        while reading:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            for key, _ in ready.select(left):
                if isinstance(key.data, _Feeder):
                    if not key.data.feed(key.fd):
                        ready.unregister(key.fileobj)  # and left open: its end would end the command
                elif not key.data.write(os.read(key.fd, CHUNK)):
                    ready.unregister(key.fileobj)
                    reading -= 1
    return _ended(err, errors.getvalue(), mark)


def _ended(err: _Past, said: bytes, mark: str) -> tuple[int | None, str]:
    if not err.found:
        return None, err.noise.decode(errors="replace").strip()
    ahead, found, after = said.replace(f"{mark} ~\n".encode(), b"").rpartition(f"{mark} ".encode())
    code = after.partition(b"\n")[0]
    if not (found and code.isdigit()):
        return None, said.decode(errors="replace").strip()
    return int(code), ahead.decode(errors="replace")


class Lines:
    """What a command writes, collected; each complete line is handed on as it comes."""

    def __init__(self, on_line: Callable[[str], object] | None = None) -> None:
        self._on_line = on_line
        self._whole = BytesIO()
        self._line = b""

    @property
    def text(self) -> str:
        """All of it."""
        return self._whole.getvalue().decode(errors="replace")

    def write(self, data: bytes) -> None:
        """Take a piece, wherever it was cut."""
        self._whole.write(data)
        if self._on_line is None:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace"))


class _Past:
    """What comes after the line with the mark; the last of what came ahead of it is kept apart."""

    def __init__(self, mark: str, sink: Callable[[bytes], object]) -> None:
        self._mark = f"{mark}\n".encode()
        self._sink = sink
        self.noise = b""
        self.found = False

    def write(self, data: bytes) -> bool:
        """Take a piece; false for the empty one, which is the end."""
        ahead = data
        if not self.found:
            noise, mark, ahead = (self.noise + data).partition(self._mark)
            self.noise, self.found = noise[-NOISE:], bool(mark)
        if ahead:
            self._sink(ahead)
        return bool(data)


class _Feeder:
    """Writes a source into a pipe, as fast as that takes it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._rest = b""

    def feed(self, pipe: int) -> bool:
        """Write once; false when there is nothing left, or nobody reads."""
        self._rest = self._rest or self._source.read(CHUNK)
        try:
            self._rest = self._rest[os.write(pipe, self._rest) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self._rest) or self._more()

    def _more(self) -> bool:
        self._rest = self._source.read(CHUNK)
        return bool(self._rest)
