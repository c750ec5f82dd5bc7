"""A bench on a board elsewhere: it gets what it lacks, checks the files on its own processor, and measures them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import BenchReport
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.remote import verbs
from edgeseq.devices.remote.deploy import Place, deploy
from edgeseq.devices.remote.inventory import Device
from edgeseq.devices.remote.refusals import explain_write
from edgeseq.devices.remote.ssh import Link
from edgeseq.errors import DeviceUnreachable, EdgeseqError, GateFailed
from edgeseq.folder import Folder

CHECK_SECONDS = 1800.0
SLACK_SECONDS = 900.0  # of a folder, beside the measuring itself: engines are proven, opened, and started by themselves
_ENGINES = 5  # that a folder may have
# $1 a text, $2 the file that holds it when it is whole.
_KEEP = 'mkdir -p -- "${2%/*}" && printf %s "$1" >"$2.new" && mv -f -- "$2.new" "$2"'

Say = Callable[[str], object]
Keep = Callable[[Sequence[BenchReport]], object]


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
    """A check that a folder passed: the engines that it holds for, and the files that no engine there runs."""

    engines: tuple[str, ...]
    unchecked: tuple[str, ...]


class _Proven(msgspec.Struct):
    """A link of what a check prints there."""

    name: str


class _Verified(msgspec.Struct):
    """What a check prints there."""

    unchecked: tuple[str, ...]
    links: tuple[_Proven, ...]

    @property
    def checked(self) -> _Checked:
        """Links begin with the engine that they are of; numpy is the program itself, which every check looks at."""
        named = {link.name.partition(" ")[0] for link in self.links}
        return _Checked(tuple(name for name in ENGINES if name in named or name == "numpy"), self.unchecked)


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


def bench_board(
    link: Link, device: Device, folders: Sequence[Folder], asked: Asked, say: Say, keep: Keep = lambda reports: None
) -> Benched:
    """Send to a board what it lacks, let it check the folders, and measure those that passed, in turns.

    ``say`` is told each step. Nothing is left running there. ``keep`` gets the report of a run of hours, which leaves
    the board after it; where it raises an EdgeseqError, the report stays there for the same command.

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
    passed: dict[str, tuple[Folder, _Checked]] = {}
    failed: list[EdgeseqError] = []
    for folder, path in zip(folders, place.folders, strict=True):
        try:
            passed[path] = folder, _check(link, place, folder, path, asked, say)
        except EdgeseqError as error:
            if not link.alive():
                raise
            failed.append(error)
    chosen = {path: folder for path, (folder, _) in passed.items()}
    measured = _measure_all(link, place, chosen, asked, say, notes, failed)
    reports: list[tuple[Folder, BenchReport]] = []
    for path, report in measured.items():
        folder, checked = passed[path]
        try:
            checked = _cover(link, place, folder, path, asked, say, checked, report)
            reports.append((folder, report))
            if not asked.engines:  # those that were named leave files out by themselves
                unchecked = [f"{link.name} did not check {file} of {folder.path.name}" for file in checked.unchecked]
                notes += [f"{each}: no engine there runs it" for each in unchecked]
        except EdgeseqError as error:
            failed.append(error)
    if not reports:
        raise _one(failed)
    if asked.duration is not None:
        notes += _fetched(link, place, reports, asked, keep)
    return Benched(reports, notes, _one(failed) if failed else None)


def _one(failed: Sequence[EdgeseqError]) -> EdgeseqError:
    return failed[0] if len(failed) == 1 else verbs.one_error(failed, "; ".join(map(str, failed)))


def _names(folders: Iterable[Folder]) -> str:
    return ", ".join(folder.path.name for folder in folders)


def _key(place: Place, folder: Folder, options: Sequence[str]) -> str:
    """The same for the same folder, options and processor: an environment there may serve several boards."""
    parts = [folder.hash, f"{place.board.model}", f"{place.board.processor}", *options]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _check(
    link: Link, place: Place, folder: Folder, path: str, asked: Asked, say: Say, *, anew: bool = False
) -> _Checked:
    """Prove a folder's files on the board, once for its environment and processor; ``anew``: whatever is remembered.

    What is remembered holds for these files, since whoever opens a folder compares them with its manifest's hashes, and
    for the engines that it names (:func:`_cover`).
    """
    name = folder.path.name
    mark = f"{place.env}/checked/{_key(place, folder, asked.only)}"
    if not anew:
        with suppress(msgspec.MsgspecError):  # never checked, or a power cut came between
            checked = msgspec.json.decode(place.run(link, ["cat", "--", mark]).stdout, type=_Checked)
            say(f"{name} passed its check there before")
            return checked
    say(f"checking {name}")
    document = verbs.call(link, place, "verify", [path], asked.only, CHECK_SECONDS, f"checking {name}")
    checked = msgspec.convert(document, _Verified).checked
    kept = place.run(link, ["sh", "-c", _KEEP, "sh", msgspec.json.encode(checked).decode(), mark])
    if kept.code:
        say(f"that {name} passed is not remembered there: {explain_write(kept.stderr)}")
    return checked


def _cover(
    link: Link,
    place: Place,
    folder: Folder,
    path: str,
    asked: Asked,
    say: Say,
    checked: _Checked,
    report: BenchReport,
) -> _Checked:
    """The check that holds for a report: a new one where an engine was measured that the check was not of, as one that
    works since then.

    Raises:
        EdgeseqError: it fails, or does not hold for that engine either.
    """
    measured = {each.engine for each in report.engines}
    if not measured <= set(checked.engines):
        checked = _check(link, place, folder, path, asked, say, anew=True)
    without = sorted(measured - set(checked.engines))
    if without:
        said = f"{folder.path.name} was measured in {', '.join(without)}, and not checked in it"
        raise GateFailed(f"{link.name}: {said}: name the engines that are to be measured with --engine")
    return checked


def _measure_all(
    link: Link,
    place: Place,
    folders: Mapping[str, Folder],
    asked: Asked,
    say: Say,
    notes: list[str],
    failed: list[EdgeseqError],
) -> dict[str, BenchReport]:
    """The reports by path: of all in turns, or, where that fails, of each that can be measured by itself."""
    if not folders:
        return {}
    say(f"measuring {_names(folders.values())}")
    try:
        reports, more = _measure(link, place, folders, asked)
    except EdgeseqError as error:
        if len(folders) == 1 or not link.alive():
            failed.append(error)
            return {}
        notes.append(f"{link.name} measured each folder by itself, not in turns: {error}")
    else:
        notes += more
        return dict(zip(folders, reports, strict=True))
    measured: dict[str, BenchReport] = {}
    for path, folder in folders.items():
        if link.alive():
            measured |= _measure_all(link, place, {path: folder}, asked, say, notes, failed)
    return measured


def _run_of(place: Place, folder: Folder, asked: Asked) -> str:
    """Where a run of hours keeps what it has, until its report has come."""
    return f"{place.env}/runs/{_key(place, folder, asked.arguments)}"


def _fetched(
    link: Link, place: Place, reports: Sequence[tuple[Folder, BenchReport]], asked: Asked, keep: Keep
) -> list[str]:
    """Remove a run of hours, once its report is kept here; what there is to say where it is not."""
    try:
        keep([report for _, report in reports])
        place.run(link, ["rm", "-rf", "--", *(_run_of(place, folder, asked) for folder, _ in reports)])
    except EdgeseqError as error:
        return [f"{link.name} still has its report, and the same command gets it from there: {error}"]
    return []


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
    run = _run_of(place, folder, asked)
    out = f"{run}/report.json"
    made = place.run(link, ["cat", "--", out])
    notes = []
    if made.code:
        place.run(link, ["mkdir", "-p", "--", run])
        reports = _reports(link, folders, bench(f"--out={out}"))
    else:
        reports = _reports(link, folders, verbs.document(link, made, doing))
        notes = [f"{link.name} measured {folder.path.name} at {reports[0].measured}, by an earlier command"]
    return reports, notes


def _reports(link: Link, folders: Mapping[str, Folder], document: dict[str, Any]) -> list[BenchReport]:
    try:
        reports = msgspec.convert(document, _Measured, str_keys=True).reports
    except msgspec.ValidationError as error:
        raise DeviceUnreachable(f"{link.name}: its report of {_names(folders.values())} is damaged: {error}") from None
    if [report.folder_hash for report in reports] != [folder.hash for folder in folders.values()]:
        raise DeviceUnreachable(f"{link.name}: its report is not that of {_names(folders.values())}")
    return [msgspec.structs.replace(report, device=link.name) for report in reports]
