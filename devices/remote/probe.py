"""What a board is, and whether edgeseq can run there. One script of POSIX sh asks: there may be no Python yet."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from edgeseq.devices.board.clocks import hottest
from edgeseq.devices.board.processor import name_cores, pair_parts
from edgeseq.devices.board.sources import to_number
from edgeseq.devices.remote.ssh import Link
from edgeseq.errors import DeviceUnreachable

MACHINES = ("aarch64", "arm64", "x86_64")  # that the runtimes have wheels for
OLDEST_PYTHON = (3, 10)
NEEDED_BYTES = 400_000_000  # an environment with numpy and both runtimes takes 250 MB, and its wheels 50 MB meanwhile
CLOCK_SECONDS = 24 * 3600  # off by more: certificates are not valid yet, or not any more, and pip gets nothing
PROBE_SECONDS = 120.0

# Each line is "name=value". $1 is the interpreter that the user named.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
say() { printf '%s=%s\n' "$1" "$2"; }
say clock "$(date +%s 2>/dev/null)"
say system "$(uname -s)"
say machine "$(uname -m)"
say kernel "$(uname -r)"
say bits "$(getconf LONG_BIT 2>/dev/null)"
say os "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
say model "$(tr -d '\000\n' </proc/device-tree/model 2>/dev/null)"
say processor "$(grep -E '^(model name|CPU |Features|flags)' /proc/cpuinfo 2>/dev/null | sort -u | cksum)"
say parts "$(grep -E '^CPU (implementer|part)' /proc/cpuinfo 2>/dev/null | sed 's/.*: *//' | tr '\n' ' ')"
for zone in /sys/class/thermal/thermal_zone*; do
  say zone "$(cat "$zone/temp" 2>/dev/null) $(cat "$zone/type" 2>/dev/null)"
done
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc 2>/dev/null)"
say memory "$(grep '^MemTotal:' /proc/meminfo 2>/dev/null)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1)"
say home "$HOME"
say disk "$(df -Pk -- "$HOME" 2>/dev/null | tail -n 1)"
place=$HOME/.edgeseq-probe-$$
say unwritable "$( { mkdir -- "$place" && rmdir -- "$place"; } 2>&1)"
for tool in rsync tar; do command -v $tool >/dev/null 2>&1 && say tool $tool; done
for python in "$1" python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
  command -v "$python" >/dev/null 2>&1 || continue
  say python "$("$python" -c '
import importlib.util as u, platform, struct, sys
has = lambda name: int(u.find_spec(name) is not None)
print(platform.python_version(), struct.calcsize("P") * 8, has("venv") and has("ensurepip"), has("pip"), sys.argv[1])
' "$python" 2>/dev/null)"
done
"""


class Python(msgspec.Struct, frozen=True):
    """An interpreter there: its command, its version, 32 or 64 bits, whether it makes environments, and has pip."""

    command: str
    version: str
    bits: int
    venv: bool
    pip: bool

    @property
    def new_enough(self) -> bool:
        """Whether edgeseq runs on it."""
        return _numbers(self.version) >= OLDEST_PYTHON


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board as its own programs describe it; None where none of them says.

    ``bits`` are those of its programs: a 64-bit kernel may run a 32-bit system. ``processor`` is a checksum of what its
    kernel says of it, ``core`` the names of its ARM cores, ``temperature_c`` that of its hottest thermal zone.
    ``disk_free_bytes`` is where its user's home is, ``unwritable`` why nothing can be written there,
    ``clock_ahead_seconds`` how far its clock is ahead of ours.
    """

    system: str | None
    machine: str | None
    kernel: str | None
    bits: int | None
    os: str | None
    model: str | None
    processor: str | None = None
    cores: int | None
    core: str | None = None
    temperature_c: float | None = None
    memory_bytes: int | None
    libc: str | None
    home: str | None
    disk_free_bytes: int | None
    unwritable: str | None
    clock_ahead_seconds: float | None
    pythons: tuple[Python, ...]
    tools: tuple[str, ...]

    @property
    def python(self) -> Python | None:
        """The interpreter to use: the user's, else python3, else the newest, of those that can be used."""
        return next((each for each in self.pythons if each.new_enough and each.venv and each.bits == 64), None)


def probe(link: Link, python: str = "python3") -> Board:
    """Ask a board what it is; ``python`` is the interpreter that the user named for it.

    Raises:
        DeviceUnreachable: the link was lost, or the board's shell cannot run a script.
    """
    arrived: list[float] = []
    began = time.time()
    done = link.script(_SCRIPT, [python], timeout=PROBE_SECONDS, on_line=lambda _: arrived.append(time.time()))
    if not done.stdout:
        raise DeviceUnreachable(
            f"{link.name}: its shell runs no script ({done.stderr.strip() or 'it did not say why'})"
        )
    # The first line was made between the beginning and its arrival.
    return read_board(done.stdout.splitlines(), (began + arrived[0]) / 2)


def read_board(lines: Iterable[str], now: float) -> Board:
    """A board from what the script printed; ``now`` is our clock when it read the board's, in seconds."""
    found: dict[str, str] = {}
    pythons: list[Python] = []
    tools: list[str] = []
    zones: list[tuple[str | None, float | None]] = []
    for line in lines:
        name, _, value = line.partition("=")
        if name == "python":
            pythons += [each for each in _python(value) if each.command not in [known.command for known in pythons]]
        elif name == "tool":
            tools.append(value)
        elif name == "zone":
            degrees, _, kind = value.partition(" ")
            zones.append((kind, to_number(degrees)))
        elif value.strip():
            found.setdefault(name, value.strip())
    clock = _whole(found.get("clock"))
    return Board(
        system=found.get("system"),
        machine=found.get("machine"),
        kernel=found.get("kernel"),
        bits=_whole(found.get("bits")) or (pythons[0].bits if pythons else None),
        os=found.get("os"),
        model=found.get("model"),
        processor=found.get("processor"),
        cores=_whole(found.get("cores")),
        core=name_cores(pair_parts(found.get("parts", ""))),
        temperature_c=hottest(zones),
        memory_bytes=_kilobytes(found.get("memory", "").split()[1:2]),
        libc=found.get("libc"),
        home=found.get("home"),
        disk_free_bytes=_free(found.get("disk", "")),
        unwritable=found.get("unwritable"),
        clock_ahead_seconds=None if clock is None else round(clock - now, 1),
        pythons=tuple(pythons),
        tools=tuple(tools),
    )


def why_not(board: Board) -> str | None:
    """The first thing that keeps edgeseq from running there, and what mends it; None where nothing does."""
    return _system_wrong(board) or _home_wrong(board) or _python_wrong(board)


def _system_wrong(board: Board) -> str | None:
    if board.system != "Linux":
        return f"it runs {board.system or 'an unknown system'}: edgeseq runs on Linux boards"
    if board.machine in ("armv6l", "armv7l", "armv8l", "i686") or board.bits == 32:
        return (
            f"its system is a 32-bit one ({board.machine}): no runtime has wheels for it. Install the 64-bit system, "
            "which boards from the Raspberry Pi 3 and Zero 2 on can run"
        )
    if board.machine not in MACHINES:
        return f"its processor is {board.machine}: the runtimes have wheels for {', '.join(MACHINES)}"
    if "musl" in (board.libc or ""):
        return (
            "its C library is musl, the runtimes' wheels need glibc: use a system with glibc (Debian, Ubuntu, Fedora)"
        )
    return None


def _home_wrong(board: Board) -> str | None:
    if board.home is None:
        return "its user has no home: log in as one that has, or make it one"
    if board.unwritable is not None:
        return f"nothing can be written to {board.home} ({board.unwritable}): make room there, or mount it for writing"
    free = board.disk_free_bytes
    if free is not None and free < NEEDED_BYTES:
        return f"{free / 1e6:.0f} MB are free in {board.home}, {NEEDED_BYTES / 1e6:.0f} MB are needed: make room there"
    ahead = board.clock_ahead_seconds
    if ahead is not None and abs(ahead) > CLOCK_SECONDS:
        side = "ahead" if ahead > 0 else "behind"
        return (
            f"its clock is {abs(ahead) / 86400:.0f} days {side}, so that nothing can be installed over https: set it "
            "(sudo timedatectl set-ntp true, or sudo date -s …)"
        )
    return None


def _python_wrong(board: Board) -> str | None:
    if board.python is not None:
        return None
    oldest = ".".join(map(str, OLDEST_PYTHON))
    usable = [each for each in board.pythons if each.new_enough]
    if not usable:
        has = ", ".join(f"{each.command} is {each.version}" for each in board.pythons)
        return (
            f"it has no Python {oldest} or newer ({has or 'none was found'}): sudo apt install python3 python3-venv, "
            "on a newer system where that is older, or name one with --python"
        )
    if all(each.bits != 64 for each in usable):
        return f"its Python is a 32-bit one ({usable[0].command}): install a 64-bit one, and name it with --python"
    return f"its Python {usable[0].version} makes no environments: sudo apt install python3-venv"


def _python(text: str) -> list[Python]:
    """From ``version bits venv pip command``; none where the interpreter did not run."""
    parts = text.split(" ", 4)
    if len(parts) != 5 or not (parts[1].isdecimal() and _numbers(parts[0])):
        return []
    version, bits, venv, pip, command = parts
    return [Python(command, version, int(bits), venv == "1", pip == "1")]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _kilobytes(fields: list[str]) -> int | None:
    number = _whole(fields[0]) if fields else None
    return None if number is None else 1024 * number


def _free(line: str) -> int | None:
    """From ``filesystem blocks used available percent mount``, of which the first and last may hold spaces."""
    fields = line.split()
    percents = [place for place, field in enumerate(fields) if field.endswith("%")]
    return _kilobytes(fields[percents[0] - 1 :][:1]) if percents and percents[0] else None
