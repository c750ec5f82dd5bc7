"""A bench on a board elsewhere: it gets what it lacks, checks the files on its own processor, and measures them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgeseq.devices.bench import BenchReport
from edgeseq.devices.engines import ENGINES
from edgeseq.devices.remote import verbs
from edgeseq.devices.remote.command import Done
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
    wheelhouse = Path(device.wheelhouse) if device.wheelhouse else None
    place = deploy(link, folders, device.python, wheelhouse, say)
    visit = _Visit(link, place, asked, say)
    visit.notes.extend(
        f"{link.name} does without {each}: there is no wheel of it for {place.board.machine}"
        + (f" in {wheelhouse}" if wheelhouse else "")
        for each in place.left_out
    )
    checked = visit.check_all(dict(zip(place.folders, folders, strict=True)))
    measured = visit.measure_all({path: folder for path, (folder, _) in checked.items()})
    reports = [
        (checked[path][0], report) for path, report in measured.items() if visit.covers(path, *checked[path], report)
    ]
    if not reports:
        raise _one(visit.failed)
    if asked.duration is not None:
        visit.forget_run(reports, keep)
    return Benched(reports, visit.notes, _one(visit.failed) if visit.failed else None)


def _one(failed: Sequence[EdgeseqError]) -> EdgeseqError:
    return failed[0] if len(failed) == 1 else verbs.one_error(failed, "; ".join(map(str, failed)))


def _names(folders: Iterable[Folder]) -> str:
    return ", ".join(folder.path.name for folder in folders)


def _key(place: Place, folder: Folder, options: Sequence[str]) -> str:
    """The same for the same folder, options and processor: an environment there may serve several boards."""
    parts = [folder.hash, f"{place.board.model}", f"{place.board.processor}", *options]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Visit:
    """A bench at work on one board: where it is, what is asked, and what there was to say and what failed so far."""

    link: Link
    place: Place
    asked: Asked
    say: Say
    notes: list[str] = field(default_factory=list)
    failed: list[EdgeseqError] = field(default_factory=list)

    def check_all(self, folders: Mapping[str, Folder]) -> dict[str, tuple[Folder, _Checked]]:
        """The folders that pass their check, by their paths there."""
        passed = {}
        for path, folder in folders.items():
            try:
                passed[path] = folder, self.check(folder, path)
            except EdgeseqError as error:
                if not self.link.alive():
                    raise
                self.failed.append(error)
        return passed

    def check(self, folder: Folder, path: str, *, anew: bool = False) -> _Checked:
        """Prove a folder's files on the board, once for its environment and processor; ``anew``: whatever is
        remembered.

        What is remembered holds for these files, since whoever opens a folder compares them with its manifest's hashes,
        and for the engines that it names (:meth:`covers`).
        """
        name = folder.path.name
        mark = f"{self.place.env}/checked/{_key(self.place, folder, self.asked.only)}"
        if not anew:
            with suppress(msgspec.MsgspecError):  # never checked, or a power cut came between
                checked = msgspec.json.decode(self.run("cat", "--", mark).stdout, type=_Checked)
                self.say(f"{name} passed its check there before")
                return checked
        self.say(f"checking {name}")
        doing = f"checking {name}"
        document = verbs.call(self.link, self.place, "verify", [path], self.asked.only, CHECK_SECONDS, doing)
        checked = msgspec.convert(document, _Verified).checked
        kept = self.run("sh", "-c", _KEEP, "sh", msgspec.json.encode(checked).decode(), mark)
        if kept.code:
            self.say(f"that {name} passed is not remembered there: {explain_write(kept.stderr)}")
        return checked

    def covers(self, path: str, folder: Folder, checked: _Checked, report: BenchReport) -> bool:
        """Whether a check holds for a report: a new one is made where an engine was measured that the check was not
        of, as one that works since then. Why not is among what failed.
        """
        measured = {each.engine for each in report.engines}
        try:
            if not measured <= set(checked.engines):
                checked = self.check(folder, path, anew=True)
            without = sorted(measured - set(checked.engines))
            if without:
                said = f"{folder.path.name} was measured in {', '.join(without)}, and not checked in it"
                raise GateFailed(f"{self.link.name}: {said}: name the engines that are to be measured with --engine")
        except EdgeseqError as error:
            self.failed.append(error)
            return False
        if not self.asked.engines:  # those that were named leave files out by themselves
            unchecked = [f"{self.link.name} did not check {file} of {folder.path.name}" for file in checked.unchecked]
            self.notes.extend(f"{each}: no engine there runs it" for each in unchecked)
        return True

    def measure_all(self, folders: Mapping[str, Folder]) -> dict[str, BenchReport]:
        """The reports by path: of all in turns, or, where that fails, of each that can be measured by itself."""
        if not folders:
            return {}
        self.say(f"measuring {_names(folders.values())}")
        try:
            return dict(zip(folders, self.measure(folders), strict=True))
        except EdgeseqError as error:
            if len(folders) == 1 or not self.link.alive():
                self.failed.append(error)
                return {}
            self.notes.append(f"{self.link.name} measured each folder by itself, not in turns: {error}")
        measured: dict[str, BenchReport] = {}
        for path, folder in folders.items():
            if self.link.alive():
                measured |= self.measure_all({path: folder})
        return measured

    def measure(self, folders: Mapping[str, Folder]) -> list[BenchReport]:
        """The reports of folders, by their paths there, in their order."""
        if self.asked.duration is None:
            return _reports(self.link, folders, self.bench(folders))
        (folder,) = folders.values()
        run = self.run_of(folder)
        out = f"{run}/report.json"
        made = self.run("cat", "--", out)
        if made.code:
            self.run("mkdir", "-p", "--", run)
            return _reports(self.link, folders, self.bench(folders, f"--out={out}"))
        reports = _reports(self.link, folders, verbs.document(self.link, made, _measuring(folders)))
        measured = f"{self.link.name} measured {folder.path.name} at {reports[0].measured}"
        self.notes.append(f"{measured}, by an earlier command")
        return reports

    def bench(self, folders: Mapping[str, Folder], *more: str) -> dict[str, Any]:
        """What a bench there prints."""
        options, limit = [*self.asked.arguments, *more], self.asked.limit(len(folders))
        return verbs.call(self.link, self.place, "bench", list(folders), options, limit, _measuring(folders))

    def run_of(self, folder: Folder) -> str:
        """Where a run of hours keeps what it has, until its report has come."""
        return f"{self.place.env}/runs/{_key(self.place, folder, self.asked.arguments)}"

    def forget_run(self, reports: Sequence[tuple[Folder, BenchReport]], keep: Keep) -> None:
        """Remove a run of hours, once its report is kept here."""
        try:
            keep([report for _, report in reports])
            self.run("rm", "-rf", "--", *(self.run_of(folder) for folder, _ in reports))
        except EdgeseqError as error:
            said = f"{self.link.name} still has its report, and the same command gets it from there: {error}"
            self.notes.append(said)

    def run(self, *words: str) -> Done:
        return self.place.run(self.link, words)


def _measuring(folders: Mapping[str, Folder]) -> str:
    return f"measuring {_names(folders.values())}"


def _reports(link: Link, folders: Mapping[str, Folder], document: dict[str, Any]) -> list[BenchReport]:
    try:
        reports = msgspec.convert(document, _Measured, str_keys=True).reports
    except msgspec.ValidationError as error:
        raise DeviceUnreachable(f"{link.name}: its report of {_names(folders.values())} is damaged: {error}") from None
    if [report.folder_hash for report in reports] != [folder.hash for folder in folders.values()]:
        raise DeviceUnreachable(f"{link.name}: its report is not that of {_names(folders.values())}")
    return [msgspec.structs.replace(report, device=link.name) for report in reports]
