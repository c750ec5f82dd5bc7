"""The user's boards and what they are called: ``devices.toml``.

The file is the user's own. Adding and removing edit its lines, so that comments stay, and it is written in one go.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeseq.devices.remote.target import LOCAL, Target, parse_url
from edgeseq.devices.whole import replace_file
from edgeseq.errors import InputError, unknown

FILE_VARIABLE = "EDGESEQ_DEVICES"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A board as it stands in devices.toml, under its name.

    ``python`` is its interpreter, ``wheelhouse`` a folder of wheels here for a board that has no network. With
    ``accept_new_host_key`` a host key that is not known yet is taken and remembered; a changed one never is.
    """

    url: str
    python: str = "python3"
    wheelhouse: str | None = None
    accept_new_host_key: bool = False

    @property
    def target(self) -> Target:
        """Where it is."""
        return parse_url(self.url)


def inventory_file() -> Path:
    """Where the boards are written down: $EDGESEQ_DEVICES, or devices.toml in the user's configuration."""
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "edgeseq" / "devices.toml"


def read_devices(file: Path | None = None) -> dict[str, Device]:
    """The boards by name; none where there is no file.

    Raises:
        InputError: the file cannot be read, is not TOML, or holds what is no board.
    """
    file = file or inventory_file()
    return _decode(file, _text(file))


def find_device(text: str, file: Path | None = None) -> Device:
    """The board meant by ``local``, by an address (``ssh://user@host:port``), or by a name out of devices.toml.

    Raises:
        InputError: an address that is none, or a name that is not there.
    """
    if text == LOCAL or "://" in text:
        parse_url(text)
        return Device(text)
    check_name(text)
    devices = read_devices(file)
    if text in devices:
        return devices[text]
    if not devices:
        raise InputError(f"no device is called {text!r}, there are none yet: edgeseq devices add {_key(text)} ssh://…")
    raise unknown("device", text, [*devices, LOCAL])


def parse_target(text: str, file: Path | None = None) -> Target:
    """Where :func:`find_device` finds the board."""
    return find_device(text, file).target


def add_device(name: str, device: Device, file: Path | None = None) -> Path:
    """Write down a board under a new name; returns the file.

    Raises:
        InputError: the name or the address is none, the name is taken, or the file cannot be written.
    """
    file = file or inventory_file()
    check_name(name)
    parse_url(device.url)
    text = _text(file)
    devices = _decode(file, text)
    if name in devices:
        raise InputError(
            f"{file} has a device {name!r} already ({devices[name].url}): remove it, or choose another name"
        )
    _write(file, f"{text.rstrip()}\n\n{_block(name, device)}".lstrip())
    return file


def remove_device(name: str, file: Path | None = None) -> tuple[Device, bool]:
    """Take a board out of the file; returns what it was, and whether the comments in the file were kept.

    Raises:
        InputError: no such board, or the file cannot be written.
    """
    file = file or inventory_file()
    text = _text(file)
    devices = _decode(file, text)
    if name not in devices:
        raise unknown("device", name, devices)
    left = {other: device for other, device in devices.items() if other != name}
    cut = _without(text, name)
    kept = _is(cut, left)
    # Where lines do not tell tables apart (inline tables, dotted keys) the file is written anew.
    _write(file, cut if kept else "\n".join(_block(*each) for each in left.items()))
    return devices[name], kept


def check_name(name: str) -> None:
    """Raise InputError for what is no name of a board: it must not look like an option, a path, or an address."""
    wrong = None
    if name == LOCAL:
        wrong = "is this machine"
    elif not name.isprintable() or not name[:1].isalnum() or name != name.strip():
        wrong = "is no name: it begins with a letter or digit and holds no control characters"
    elif "/" in name or ":" in name:
        wrong = "is no name: it holds no / and no : (an address begins with ssh://)"
    if wrong:
        raise InputError(f"device {name!r} {wrong}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{file} is not UTF-8 text") from None


def _decode(file: Path, text: str) -> dict[str, Device]:
    if not text.strip():
        return {}
    try:
        devices = msgspec.toml.decode(text, type=dict[str, Device])
        for name, device in devices.items():
            check_name(name)
            parse_url(device.url)
    except ImportError:
        raise InputError(f"{file}: TOML is read by Python 3.11 and later; give the board's address (ssh://…)") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"{file} cannot be used: {error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return devices


def _is(text: str, devices: Mapping[str, Device]) -> bool:
    try:
        return dict(msgspec.toml.decode(text, type=dict[str, Device])) == devices
    except (msgspec.MsgspecError, ValueError):
        return False


def _without(text: str, name: str) -> str:
    """The lines without those of the table ``name``; comments ahead of the next table are the next one's."""
    kept: list[str] = []
    inside: list[str] | None = None
    for line in text.splitlines(keepends=True):
        table = _table(line)
        if table is not None:
            kept += _comments(inside or [])
            inside = [] if table == name else None
        (kept if inside is None else inside).append(line)
    return "".join(kept)


def _comments(lines: list[str]) -> list[str]:
    """The comments at the end of a table's lines, from the last empty line on."""
    values = [place for place, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    after = lines[values[-1] + 1 :] if values else []
    breaks = [place for place, line in enumerate(after) if not line.strip()]
    return after[breaks[0] + 1 :] if breaks else []


def _table(line: str) -> str | None:
    """The table that a line opens."""
    if not line.lstrip().startswith("["):
        return None
    try:
        names = list(msgspec.toml.decode(line, type=dict[str, dict[str, object]]))
    except (msgspec.MsgspecError, ValueError):
        return None
    return names[0]


def _block(name: str, device: Device) -> str:
    values = msgspec.to_builtins(device).items()
    return f"[{_key(name)}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in values)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: str | bool) -> str:
    """As TOML: it writes strings and truth values as JSON does, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text.encode())
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "a path in it is not UTF-8"
        raise InputError(f"{file.resolve()} cannot be written: {why}") from None
