"""A bench on a board elsewhere: it gets what it lacks, checks the files on its own processor, and measures them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import BenchReport
from edgeseq.devices.remote import verbs
from edgeseq.devices.remote.deploy import Place, deploy
from edgeseq.devices.remote.inventory import Device
from edgeseq.devices.remote.refusals import explain_write
from edgeseq.devices.remote.ssh import Link
from edgeseq.errors import DeviceUnreachable, EdgeseqError
from edgeseq.folder import Folder

CHECK_SECONDS = 1800.0
SLACK_SECONDS = 900.0  # of a folder, beside the measuring itself: engines are proven, opened, and started by themselves
_ENGINES = 5  # that a folder may have
# $1 a text, $2 the file that holds it when it is whole.
_KEEP = 'mkdir -p -- "${2%/*}" && printf %s "$1" >"$2.new" && mv -f -- "$2.new" "$2"'

Say = Callable[[str], object]


@dataclass(frozen=True)
class Asked:
    """What a bench is asked for, passed on to the board; None is its own default. Durations are in seconds.

    ``duration``: a run of so long, as a user writes it, on one engine; it goes on after an interruption.
    """

    engines: tuple[str, ...] = ()
    seconds: float = 2.0
    paced_seconds: float = 10.0
    rate: float | None = None
    duration: str | None = None
    pin: str | None = None
    priority: str | None = None
    threads: int | None = None

    @property
    def arguments(self) -> list[str]:
        """As options of ``python -m edgeseq.devices bench``."""
        given = {"rate": self.rate, "duration": self.duration, "pin": self.pin, "priority": self.priority}
        given |= {"seconds": self.seconds, "paced-seconds": self.paced_seconds, "threads": self.threads}
        return [*self.only, *(f"--{name}={value}" for name, value in given.items() if value is not None)]

    @property
    def only(self) -> list[str]:
        """The engines, as options."""
        return [f"--engine={engine}" for engine in self.engines]

    def limit(self, folders: int) -> float | None:
        """After how many seconds a board is no longer waited for; None: never, for a run of hours."""
        if self.duration is not None:
            return None
        return folders * (self.seconds + (len(self.engines) or _ENGINES) * self.paced_seconds + SLACK_SECONDS)


class _Checked(msgspec.Struct):
    """A check that a folder passed: the files that no engine there runs."""

    unchecked: tuple[str, ...]


class _Measured(msgspec.Struct):
    """What a bench prints there."""

    reports: list[BenchReport]


@dataclass(frozen=True)
class Benched:
    """What came of a board: the folders that were measured with their reports, and what there is to say, in sentences.

    ``failed`` is what kept the others, or all of them, from being measured.
    """

    reports: list[tuple[Folder, BenchReport]]
    notes: list[str]
    failed: EdgeseqError | None = None


def bench_board(link: Link, device: Device, folders: Sequence[Folder], asked: Asked, say: Say) -> Benched:
    """Send to a board what it lacks, let it check the folders, and measure those that passed, in turns.

    ``say`` is told each step. Nothing is left running there.

    Raises:
        DeviceUnreachable: the link was lost, or edgeseq cannot run there.
        EdgeseqError: no folder could be measured; a file that computes wrongly there is a GateFailed.
    """
    wheelhouse = Path(device.wheelhouse) if device.wheelhouse else None
    say("asking what it is")
    place = deploy(link, folders, device.python, wheelhouse, say)
    notes = [
        f"{link.name} does without {each}: there is no wheel of it for {place.board.machine}"
        + (f" in {wheelhouse}" if wheelhouse else "")
        for each in place.left_out
    ]
    passed: dict[str, Folder] = {}
    failed: list[EdgeseqError] = []
    for folder, path in zip(folders, place.folders, strict=True):
        try:
            notes += _check(link, place, folder, path, asked, say)
            passed[path] = folder
        except EdgeseqError as error:
            if not link.alive():
                raise
            failed.append(error)
    reports: list[BenchReport] = []
    if passed:
        say(f"measuring {_names(passed.values())}")
        try:
            reports, more = _measure(link, place, passed, asked)
            notes += more
        except EdgeseqError as error:
            failed.append(error)
    if not reports:
        raise _one(failed)
    return Benched(list(zip(passed.values(), reports, strict=True)), notes, _one(failed) if failed else None)


def _one(failed: Sequence[EdgeseqError]) -> EdgeseqError:
    return failed[0] if len(failed) == 1 else verbs.one_error(failed, "; ".join(map(str, failed)))


def _names(folders: Iterable[Folder]) -> str:
    return ", ".join(folder.path.name for folder in folders)


def _key(place: Place, folder: Folder, options: Sequence[str]) -> str:
    """The same for the same folder, options and processor: an environment there may serve several boards."""
    parts = [folder.hash, f"{place.board.model}", f"{place.board.processor}", *options]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _check(link: Link, place: Place, folder: Folder, path: str, asked: Asked, say: Say) -> list[str]:
    """Prove a folder's files on the board, once for its environment and processor; returns what there is to say of it.

    What was remembered holds for these files: whoever opens a folder compares them with the hashes of its manifest.
    """
    name = folder.path.name
    mark = f"{place.env}/checked/{_key(place, folder, asked.only)}"
    try:
        checked = msgspec.json.decode(place.run(link, ["cat", "--", mark]).stdout, type=_Checked)
        say(f"{name} passed its check there before")
    except msgspec.MsgspecError:  # never, or a power cut came between
        say(f"checking {name}")
        document = verbs.call(link, place, "verify", [path], asked.only, CHECK_SECONDS, f"checking {name}")
        checked = msgspec.convert(document, _Checked)
        kept = place.run(link, ["sh", "-c", _KEEP, "sh", msgspec.json.encode(checked).decode(), mark])
        if kept.code:
            say(f"that {name} passed is not remembered there: {explain_write(kept.stderr)}")
    if asked.engines:  # those that were named leave files out by themselves
        return []
    return [f"{link.name} did not check {file} of {name}: no engine there runs it" for file in checked.unchecked]


def _measure(
    link: Link, place: Place, folders: Mapping[str, Folder], asked: Asked
) -> tuple[list[BenchReport], list[str]]:
    """The reports of folders, by their paths there, in their order; and what there is to say of them."""
    doing = f"measuring {_names(folders.values())}"

    def bench(*more: str) -> dict[str, Any]:
        options = [*asked.arguments, *more]
        return verbs.call(link, place, "bench", list(folders), options, asked.limit(len(folders)), doing)

    if asked.duration is None:
        return _reports(link, folders, bench()), []
    (folder,) = folders.values()
    run = (
        f"{place.env}/runs/{_key(place, folder, asked.arguments)}"  # what it has stays there until the report has come
    )
    out = f"{run}/report.json"
    made = place.run(link, ["cat", "--", out])
    notes = []
    if made.code:
        place.run(link, ["mkdir", "-p", "--", run])
        reports = _reports(link, folders, bench(f"--out={out}"))
    else:
        reports = _reports(link, folders, verbs.document(link, made, doing))
        notes = [f"{link.name} measured {folder.path.name} at {reports[0].measured}, by an earlier command"]
    place.run(link, ["rm", "-rf", "--", run])
    return reports, notes


def _reports(link: Link, folders: Mapping[str, Folder], document: dict[str, Any]) -> list[BenchReport]:
    try:
        reports = msgspec.convert(document, _Measured, str_keys=True).reports
    except msgspec.ValidationError as error:
        raise DeviceUnreachable(f"{link.name}: its report of {_names(folders.values())} is damaged: {error}") from None
    if [report.folder_hash for report in reports] != [folder.hash for folder in folders.values()]:
        raise DeviceUnreachable(f"{link.name}: its report is not that of {_names(folders.values())}")
    return [msgspec.structs.replace(report, device=link.name) for report in reports]
