"""Where readings come from: files below a root, and programs that are asked. Neither ever raises: absent is None.

On some board each of these files is missing, empty, cut off, no text, a directory, or does not answer (EAGAIN of a
sensor that sleeps), and each of these programs is missing, not allowed, or hangs in the firmware. That is no error, it
is a reading that there is not. Readers take ``root`` (where /proc, /sys and /etc are looked for) and ``ask``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Ask = Callable[[Sequence[str]], "str | None"]
ROOT = Path("/")
TIMEOUT = 2.0  # seconds; a firmware that works answers in 10 ms
MAX_BYTES = 1 << 20  # of a file; /proc/cpuinfo of 256 cores has half as much
LARGEST = 1e15  # in the units of the kernel, which are small: so many kilobytes, nobody has
MAX_LINE = 200  # characters of a value that is shown
PLACES = ("/usr/bin", "/usr/sbin", "/sbin", "/opt/vc/bin")  # not on the PATH of every user that comes by ssh


def ask(command: Sequence[str]) -> str | None:
    """What a program writes to standard output; None where it is absent, fails, or takes more than two seconds."""
    import shutil
    import subprocess

    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *PLACES))
    program = shutil.which(command[0], path=path)
    if program is None:
        return None
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # not allowed, or no program after all
        return None
    try:
        answer, _ = process.communicate(timeout=TIMEOUT)
        return answer.decode(errors="replace") if process.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:  # with its children; one that hangs in the kernel is not waited for
            with suppress(OSError):
                os.killpg(process.pid, 9)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if process.stdout is not None:
                process.stdout.close()


def read_text(file: Path) -> str | None:
    """The text of a file, without the zero bytes that end a device tree's strings; None where it has none."""
    try:
        with file.open("rb") as stream:
            content: bytes | None = stream.read(MAX_BYTES)  # None is what Python makes of EAGAIN
    except OSError:  # absent, a directory, not allowed, or a driver that does not answer
        return None
    return (content or b"").decode(errors="replace").strip("\x00\n ") or None


def read_line(file: Path) -> str | None:
    """The first line of a file, of what can be printed: it is shown on terminals."""
    return printable((read_text(file) or "").partition("\n")[0])


def printable(text: str | None) -> str | None:
    """A text without control characters, of a length that can be shown; None where nothing is left."""
    kept = "".join(character for character in text or "" if character.isprintable())
    return kept.strip()[:MAX_LINE] or None


def read_number(file: Path) -> float | None:
    """The finite number that a file holds."""
    return to_number(read_text(file))


def to_number(text: str | None) -> float | None:
    """A number of a size that a reading can have; None for anything else, "nan" and "inf" included."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def paths(root: Path, pattern: str) -> list[Path]:
    """The paths below ``root`` that match, in order; none where a directory cannot be read."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []


def fields(text: str | None, separator: str = ":") -> dict[str, str]:
    """The lines ``name: value`` of a text; of a name that comes again, the first."""
    lines = (line.partition(separator) for line in (text or "").splitlines())
    return {name.strip(): value.strip() for name, found, value in reversed(list(lines)) if found}
