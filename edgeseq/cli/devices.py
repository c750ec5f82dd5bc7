"""``edgeseq devices``: the boards that a user has, and what they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edgeseq.cli.output import Document, Failed, Json, Show, kilobytes, typed
from edgeseq.errors import DeviceUnreachable, EdgeseqError, InputError

if TYPE_CHECKING:
    from edgeseq.devices.remote.probe import Board

AcceptNewHostKey = Annotated[
    bool, typer.Option("--accept-new-host-key", help="Take and remember a host key that is not known yet.")
]
Interpreter = Annotated[str, typer.Option("--python", metavar="NAME", help="The interpreter there: a name or a path.")]

devices = typer.Typer(help="The boards you have: name them, list them, ask them what they are.")


@devices.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="ssh://user@host or ssh://user@host:port.")],
    python: Interpreter = "python3",
    wheelhouse: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Wheels to install there, for a board without a network.")
    ] = None,
    accept_new_host_key: AcceptNewHostKey = False,
    json: Json = False,
) -> Document:
    """Write down a board under a name, in devices.toml. Nothing is asked of it yet.

    Example: edgeseq devices add kitchen ssh://pi@raspberrypi.local
    """
    from edgeseq.devices.remote.inventory import Device, add_device

    show = Show(json)
    if wheelhouse is not None and not wheelhouse.is_dir():
        raise InputError(f"{wheelhouse} is not a folder; a wheelhouse is one of wheels, which pip download fills")
    device = Device(url, python, str(wheelhouse.resolve()) if wheelhouse else None, accept_new_host_key)
    file = add_device(name, device)
    following = ("devices", "probe", name)
    show.line(f"added {name} ({url}) to {file}", "green")
    show.next(*following)
    return {"name": name, **_entry(device), "file": str(file), "next": typed(*following)}


@devices.command("list")
def list_devices(json: Json = False) -> Document:
    """List the boards in devices.toml.

    Example: edgeseq devices list
    """
    from edgeseq.devices.remote.inventory import inventory_file, read_devices

    show = Show(json)
    file = inventory_file()
    found = read_devices(file)
    if found:
        show.table(
            ["name", "address", "python", "wheelhouse"],
            [[name, device.url, device.python, device.wheelhouse or "-"] for name, device in found.items()],
        )
        following: tuple[str, ...] = ("devices", "probe", next(iter(found)))
    else:
        following = ("devices", "add", "NAME", "ssh://user@host")
    show.text(f"{len(found)} in {file}; local, which needs no name, is this machine.")
    show.next(*following)
    listed = {name: _entry(device) for name, device in found.items()}
    return {"file": str(file), "devices": listed, "next": typed(*following)}


@devices.command()
def probe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Names, or ssh://user@host[:port]. All, if none.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="NAME", help="The interpreter there, in place of the one written down.")
    ] = None,
    accept_new_host_key: AcceptNewHostKey = False,
    json: Json = False,
) -> Document:
    """Ask boards what they are, and whether edgeseq can run there. Exits with 6 if one cannot, or does not answer.

    Example: edgeseq devices probe kitchen
    """
    from edgeseq.devices.remote.inventory import find_device, read_devices
    from edgeseq.devices.remote.target import LOCAL

    show = Show(json)
    names = list(dict.fromkeys(names or read_devices()))
    if not names:
        raise InputError(f"there are no devices yet: {typed('devices', 'add', 'NAME', 'ssh://user@host')}")
    if LOCAL in names:
        raise InputError(f"{LOCAL} is this machine: {typed('doctor')} says what works here")
    chosen = {name: find_device(name) for name in names}
    document: Document = {}
    failed: list[EdgeseqError] = []
    for name, device in chosen.items():
        try:
            accept = accept_new_host_key or device.accept_new_host_key
            document[name] = _probed(show, name, device.url, python or device.python, accept)
        except DeviceUnreachable as error:
            document[name] = {"url": device.url, "runs_edgeseq": False, "why_not": str(error)}
        if not document[name]["runs_edgeseq"]:
            failed.append(DeviceUnreachable(document[name]["why_not"]))
            if len(names) > 1:  # one that fails keeps no other from being asked, and is heard all the same
                show.warn(str(failed[-1]))
    if failed:
        alone = str(failed[0]) if len(names) == 1 else f"{len(failed)} of {len(names)} devices cannot be used"
        raise Failed(DeviceUnreachable(alone), {"devices": document})
    return {"devices": document}


@devices.command()
def remove(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    clean: Annotated[
        bool, typer.Option("--clean", help="First remove from the board all that edgeseq bench put there.")
    ] = False,
    json: Json = False,
) -> Document:
    """Take a board out of devices.toml. Nothing is done to the board without --clean.

    Example: edgeseq devices remove kitchen
    """
    from edgeseq.devices.remote.inventory import inventory_file, remove_device

    show = Show(json)
    file = inventory_file()
    cleaned = _cleaned(show, name) if clean else None
    device, comments_kept = remove_device(name, file)
    show.line(f"removed {name} ({device.url}) from {file}", "green")
    if not comments_kept:
        show.warn(f"{file} was written anew: its comments are gone")
    return {"name": name, **_entry(device), "file": str(file), "comments_kept": comments_kept, "cleaned": cleaned}


def _cleaned(show: Show, name: str) -> str | None:
    """Remove what was put on a board; returns where it lay there.

    Raises:
        DeviceUnreachable: it does not answer.
    """
    from edgeseq.devices.remote.deploy import clean
    from edgeseq.devices.remote.inventory import find_device
    from edgeseq.devices.remote.ssh import connect
    from edgeseq.devices.remote.target import Ssh

    device = find_device(name)
    if not isinstance(device.target, Ssh):
        return None
    with connect(device.target, device.accept_new_host_key, name=name) as link:
        place = clean(link)
    show.line(f"removed {place} from {name}", "green")
    return place


def _entry(device: msgspec.Struct) -> Document:
    return {field: getattr(device, field) for field in device.__struct_fields__}


def _probed(show: Show, name: str, url: str, python: str, accept: bool) -> Document:
    """What a board is, shown and as a document.

    Raises:
        DeviceUnreachable: it does not answer.
    """
    from edgeseq.devices.remote import probe as asking
    from edgeseq.devices.remote.ssh import connect
    from edgeseq.devices.remote.target import Ssh, parse_url

    target = parse_url(url)
    if not isinstance(target, Ssh):
        raise InputError(f"{name} is this machine: {typed('doctor')} says what works here")
    show.note(f"asking {name} ({url})")
    with connect(target, accept, name=name) as link:
        board = asking.probe(link, python)
    why = asking.why_not(board)
    show.line(name, "bold")
    show.facts(_rows(board))
    show.line(
        "It can run edgeseq." if why is None else f"It cannot run edgeseq: {why}", "green" if why is None else "red"
    )
    show.line()
    return {
        "url": url,
        "board": msgspec.to_builtins(board),
        "python": board.python.command if board.python else None,
        "runs_edgeseq": why is None,
        "why_not": None if why is None else f"{name} cannot run edgeseq: {why}",
    }


def _rows(board: Board) -> list[tuple[str, str]]:
    def size(value: int | None) -> str:
        return "unknown" if value is None else kilobytes(value)

    bits = f", {board.bits}-bit programs" if board.bits else ""
    ahead, degrees = board.clock_ahead_seconds, board.temperature_c
    cores = f"{board.cores or 'unknown'} cores" + (f", {board.core}" if board.core else "")
    return [
        ("board", f"{board.model or 'unknown'} ({board.machine or 'unknown'}{bits}), {cores}"),
        ("temperature", "not readable" if degrees is None else f"{degrees:.0f} °C in the hottest thermal zone"),
        ("system", f"{board.os or board.system or 'unknown'}, kernel {board.kernel or 'unknown'}"),
        ("C library", board.libc or "unknown"),
        ("memory", size(board.memory_bytes)),
        ("home", f"{board.home or 'none'}, {size(board.disk_free_bytes)} free"),
        ("python", ", ".join(_python_row(board)) or "none"),
        ("clock", "not readable" if ahead is None else f"{ahead:+.0f} s against this machine's"),
        ("tools", ", ".join(board.tools) or "neither rsync nor tar"),
    ]


def _python_row(board: Board) -> list[str]:
    return [
        f"{each.command} {each.version}" + ("" if each.venv else " (makes no environments)") for each in board.pythons
    ]
